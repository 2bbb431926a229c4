// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A medium in memory: blocks that are made when they are first written.

use core::fmt;
use core::ops::DerefMut;

use super::config::Config;
use super::disk::{Medium, NoSpace, BLOCK_BYTES};

#[cfg(any(test, feature = "alloc"))]
mod heap;
#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "alloc"))]
pub use heap::Heap;

/// Where a medium's memory comes from.
pub trait Allocator {
    /// A block. Whoever drops it gives it back.
    type Block: DerefMut<Target = [u8; BLOCK_BYTES]>;
    /// A table of blocks. Its default has no places, and takes no memory.
    type Table: DerefMut<Target = [Option<Self::Block>]> + Default;

    /// A table of so many places, in which no block is.
    fn table(&mut self, places: usize) -> Result<Self::Table, NoSpace>;

    /// A block of zeroes. One that is put together first and moved then takes its size from the stack: a kernel's has not so much.
    fn block(&mut self) -> Result<Self::Block, NoSpace>;
}

/// Blocks, of which those exist that were written. Two are equal if the same blocks exist and hold the same.
#[derive(Clone)]
pub struct Blocks<A: Allocator> {
    count: u32,
    allocated: u32,
    allocator: A,
    /// Empty until a block is written.
    table: A::Table,
}

impl<A: Allocator> Blocks<A> {
    /// So many of them, with memory from there. Takes none.
    pub fn with(count: u32, allocator: A) -> Self {
        Self {
            count,
            allocated: 0,
            allocator,
            table: A::Table::default(),
        }
    }

    /// The medium of a device of this kind after power-on. Takes no memory.
    pub fn of(config: &Config) -> Self
    where
        A: Default,
    {
        Self::with(config.capacity.blocks(), A::default())
    }

    fn block(&self, block: u32) -> Option<&[u8; BLOCK_BYTES]> {
        self.table.get(block as usize)?.as_deref()
    }

    /// The block, which is made if it does not exist.
    fn made(&mut self, block: u32) -> Result<&mut [u8; BLOCK_BYTES], NoSpace> {
        if self.table.is_empty() {
            self.table = self.allocator.table(self.count as usize)?;
        }
        let place = self.table.get_mut(block as usize).ok_or(NoSpace)?;
        if place.is_none() {
            *place = Some(self.allocator.block()?);
            self.allocated += 1;
        }
        place.as_deref_mut().ok_or(NoSpace)
    }
}

impl<A: Allocator> Medium for Blocks<A> {
    fn blocks(&self) -> u32 {
        self.count
    }

    fn allocated(&self) -> u32 {
        self.allocated
    }

    fn is_allocated(&self, block: u32) -> bool {
        debug_assert!(block < self.count);
        self.block(block).is_some()
    }

    fn read(&self, block: u32, at: usize, into: &mut [u8]) {
        debug_assert!(block < self.count && at + into.len() <= BLOCK_BYTES);
        let bytes = self.block(block);
        match bytes.and_then(|bytes| bytes.get(at..)?.get(..into.len())) {
            Some(from) => into.copy_from_slice(from),
            None => into.fill(0),
        }
    }

    fn write(&mut self, block: u32, at: usize, from: &[u8]) -> Result<(), NoSpace> {
        debug_assert!(block < self.count && at + from.len() <= BLOCK_BYTES);
        let bytes = self.made(block)?;
        let to = bytes.get_mut(at..).and_then(|to| to.get_mut(..from.len()));
        to.ok_or(NoSpace)?.copy_from_slice(from);
        Ok(())
    }

    fn free(&mut self, block: u32) {
        debug_assert!(block < self.count);
        let place = self.table.get_mut(block as usize);
        if place.and_then(Option::take).is_some() {
            self.allocated -= 1;
        }
    }
}

/// No blocks.
impl<A: Allocator + Default> Default for Blocks<A> {
    fn default() -> Self {
        Self::with(0, A::default())
    }
}

impl<A: Allocator> PartialEq for Blocks<A> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count
            && (0..self.count).all(|block| self.block(block) == other.block(block))
    }
}

/// What it holds is too much to be shown.
impl<A: Allocator> fmt::Debug for Blocks<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exist = (0..self.count).filter(|&block| self.is_allocated(block));
        write!(f, "of {} blocks exist ", self.count)?;
        f.debug_list().entries(exist).finish()
    }
}
