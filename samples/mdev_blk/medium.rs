// SPDX-License-Identifier: GPL-2.0

//! The medium: memory in blocks, which are allocated when they are first written and charged to who writes them.
//!
//! Neither a block nor the table of blocks needs contiguous memory.

use devices::blk::{words_for, Backend, Disk, IoError, Medium, NoSpace, BLOCK_BYTES, MAX_BLOCKS};
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

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

/// A bit for each block of the largest medium that there is.
pub(crate) struct Bits(KVVec<u64>);

impl Bits {
    fn new() -> Result<Self> {
        Ok(Self(KVVec::from_elem(
            0,
            words_for(MAX_BLOCKS),
            GFP_KERNEL,
        )?))
    }
}

impl AsRef<[u64]> for Bits {
    fn as_ref(&self) -> &[u64] {
        &self.0
    }
}

impl AsMut<[u64]> for Bits {
    fn as_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}

/// The medium of an instance. Its mutex is taken after that of the instance, or without it, and held for a piece of a request: never
/// while guest memory is accessed.
#[derive(Clone)]
pub(crate) struct Store(Arc<Mutex<Disk<Blocks, Bits>>>);

impl Store {
    /// A medium of so many blocks, of which none exists.
    pub(crate) fn new(count: u32) -> Result<Self> {
        let disk = Disk::new(Blocks::new(count), Bits::new()?, Bits::new()?).ok_or(EINVAL)?;
        let mutex = new_mutex!(disk, "mdev_blk_medium");
        Ok(Self(Arc::pin_init(mutex, GFP_KERNEL)?))
    }

    /// Does something with it.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Disk<Blocks, Bits>) -> R) -> R {
        f(&mut self.0.lock())
    }

    /// These blocks take the place of those that there are, and nothing is being sent.
    pub(crate) fn replace(&self, blocks: Blocks) {
        // What it had is given back without the mutex.
        let old = self.with(|disk| disk.replace(blocks));
        drop(old);
    }
}

impl Backend for Store {
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        self.with(|disk| disk.read(offset, into))
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), IoError> {
        self.with(|disk| disk.write(offset, from))
    }

    fn zero(&mut self, offset: u64, len: u64, free: bool) -> Result<(), IoError> {
        self.with(|disk| disk.zero(offset, len, free))
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.with(|disk| disk.flush())
    }
}
