// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The heap of a program.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Allocator, NoSpace, BLOCK_BYTES};

/// Memory of a program's heap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

impl Allocator for Heap {
    type Block = Box<[u8; BLOCK_BYTES]>;
    type Table = Vec<Option<Self::Block>>;

    fn table(&mut self, places: usize) -> Result<Self::Table, NoSpace> {
        let mut table = Vec::new();
        table.try_reserve_exact(places).map_err(|_| NoSpace)?;
        table.resize_with(places, || None);
        Ok(table)
    }

    fn block(&mut self) -> Result<Self::Block, NoSpace> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(BLOCK_BYTES).map_err(|_| NoSpace)?;
        bytes.resize(BLOCK_BYTES, 0);
        bytes.into_boxed_slice().try_into().map_err(|_| NoSpace)
    }
}
