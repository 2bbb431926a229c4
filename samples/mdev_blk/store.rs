// SPDX-License-Identifier: GPL-2.0

//! The medium of an instance, where requests, migration and reset meet.

use crate::medium::Blocks;
use devices::blk::{words_for, Backend, Disk, IoError, MAX_BLOCKS};
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

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
    /// With these blocks.
    pub(crate) fn new(blocks: Blocks) -> Result<Self> {
        let disk = Disk::new(blocks, Bits::new()?, Bits::new()?).ok_or(EINVAL)?;
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
