// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The medium: memory in blocks, which are allocated when they are first written.

use devices::blk::{Medium, NoSpace, BLOCK_BYTES};

type Block = Box<[u8; BLOCK_BYTES]>;

/// Blocks, of which those exist that were written.
#[derive(Debug)]
pub(super) struct Blocks {
    count: u32,
    allocated: u32,
    /// Empty until a block is written.
    table: Vec<Option<Block>>,
}

impl Blocks {
    /// So many of them. Takes no memory.
    pub(super) const fn new(count: u32) -> Self {
        Self {
            count,
            allocated: 0,
            table: Vec::new(),
        }
    }

    fn block(&self, block: u32) -> Option<&[u8; BLOCK_BYTES]> {
        self.table.get(block as usize)?.as_deref()
    }

    fn make_table(&mut self) -> Result<(), NoSpace> {
        let count = self.count as usize;
        self.table.try_reserve_exact(count).map_err(|_| NoSpace)?;
        self.table.resize_with(count, || None);
        Ok(())
    }

    /// The block, which is made if it does not exist.
    fn made(&mut self, block: u32) -> Result<&mut [u8; BLOCK_BYTES], NoSpace> {
        if self.table.is_empty() {
            self.make_table()?;
        }
        let place = self.table.get_mut(block as usize).ok_or(NoSpace)?;
        if place.is_none() {
            *place = Some(new_block()?);
            self.allocated += 1;
        }
        place.as_deref_mut().ok_or(NoSpace)
    }
}

/// A block of zeroes.
fn new_block() -> Result<Block, NoSpace> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(BLOCK_BYTES).map_err(|_| NoSpace)?;
    bytes.resize(BLOCK_BYTES, 0);
    bytes.into_boxed_slice().try_into().map_err(|_| NoSpace)
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
