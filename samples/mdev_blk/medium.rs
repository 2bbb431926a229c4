// SPDX-License-Identifier: GPL-2.0

//! The medium: memory in blocks, which are allocated when they are first written and charged to who writes them.
//!
//! Neither a block nor the table of blocks needs contiguous memory.

use devices::blk::{Medium, NoSpace, BLOCK_BYTES};
use kernel::prelude::*;

type Block = KVBox<[u8; BLOCK_BYTES]>;

/// Blocks, of which those exist that were written.
pub(crate) struct Blocks {
    count: u32,
    allocated: u32,
    /// Empty until a block is written.
    table: VVec<Option<Block>>,
}

impl Blocks {
    /// So many of them. Takes no memory.
    pub(crate) const fn new(count: u32) -> Self {
        Self {
            count,
            allocated: 0,
            table: VVec::new(),
        }
    }

    fn block(&self, block: u32) -> Option<&[u8; BLOCK_BYTES]> {
        self.table.get(block as usize)?.as_deref()
    }

    fn make_table(&mut self) -> Result<(), NoSpace> {
        let count = self.count as usize;
        let mut table = VVec::with_capacity(count, GFP_KERNEL_ACCOUNT).map_err(|_| NoSpace)?;
        for _ in 0..count {
            table.push_within_capacity(None).map_err(|_| NoSpace)?;
        }
        self.table = table;
        Ok(())
    }

    /// The block, which is made if it does not exist.
    fn made(&mut self, block: u32) -> Result<&mut [u8; BLOCK_BYTES], NoSpace> {
        if self.table.is_empty() {
            self.make_table()?;
        }
        let place = self.table.get_mut(block as usize).ok_or(NoSpace)?;
        if place.is_none() {
            *place = Some(Block::zeroed(GFP_KERNEL_ACCOUNT).map_err(|_| NoSpace)?);
            self.allocated += 1;
        }
        place.as_deref_mut().ok_or(NoSpace)
    }
}

impl Medium for Blocks {
    fn blocks(&self) -> u32 {
        self.count
    }

    fn allocated(&self) -> u32 {
        self.allocated
    }

    fn is_allocated(&self, block: u32) -> bool {
        self.block(block).is_some()
    }

    fn read(&self, block: u32, at: usize, into: &mut [u8]) {
        let bytes = self.block(block);
        match bytes.and_then(|bytes| bytes.get(at..)?.get(..into.len())) {
            Some(from) => into.copy_from_slice(from),
            None => into.fill(0),
        }
    }

    fn write(&mut self, block: u32, at: usize, from: &[u8]) -> Result<(), NoSpace> {
        let bytes = self.made(block)?;
        let to = bytes.get_mut(at..).and_then(|to| to.get_mut(..from.len()));
        to.ok_or(NoSpace)?.copy_from_slice(from);
        Ok(())
    }

    fn free(&mut self, block: u32) {
        let place = self.table.get_mut(block as usize);
        if place.and_then(Option::take).is_some() {
            self.allocated -= 1;
        }
    }
}
