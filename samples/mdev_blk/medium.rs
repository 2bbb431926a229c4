// SPDX-License-Identifier: GPL-2.0

//! The medium's memory: charged to who writes to it first. Neither a block nor the table of blocks needs to be contiguous.

use devices::blk::{Allocator, NoSpace, BLOCK_BYTES};
use kernel::prelude::*;

/// The medium of an instance.
pub(crate) type Blocks = devices::blk::Blocks<Accounted>;

/// Memory of the kernel, on the account of who writes.
#[derive(Default)]
pub(crate) struct Accounted;

impl Allocator for Accounted {
    type Block = KVBox<[u8; BLOCK_BYTES]>;
    type Table = VVec<Option<Self::Block>>;

    fn table(&mut self, places: usize) -> Result<Self::Table, NoSpace> {
        let mut table = VVec::with_capacity(places, GFP_KERNEL_ACCOUNT).map_err(|_| NoSpace)?;
        for _ in 0..places {
            table.push_within_capacity(None).map_err(|_| NoSpace)?;
        }
        Ok(table)
    }

    fn block(&mut self) -> Result<Self::Block, NoSpace> {
        KVBox::zeroed(GFP_KERNEL_ACCOUNT).map_err(|_| NoSpace)
    }
}
