// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A part of a file that somebody else can make shorter at any time.
//!
//! Whoever touches a mapping where the file has nothing any longer is ended by a signal. So nobody touches it: the kernel copies, by the
//! process's own `/proc/self/mem`, and says so where it cannot. That does not depend on what the file can otherwise (hugetlbfs has
//! no write), on how others have it open, or on who has it locked: only pages are looked up.

use std::fs::{File, OpenOptions};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use nix::sys::mman::{MapFlags, ProtFlags};

use crate::{Errno, Mapping, Result};

/// The part.
#[derive(Debug)]
pub struct Window(Mapping);

impl Window {
    /// `length` bytes from byte `place` of a file, which is open for reading, and for writing if the window is `writable`. The file may
    /// end before that. Both are multiples of the file's pages, which may be huge ones.
    pub fn new(file: BorrowedFd<'_>, place: i64, length: usize, writable: bool) -> Result<Self> {
        let access = match writable {
            true => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            false => ProtFlags::PROT_READ,
        };
        // Whoever has the file has set its huge pages aside.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        Mapping::with_access(file, place, length, access, flags).map(Self)
    }

    /// Copies bytes from `offset` on out: how many. An error if the first one is not there.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<usize> {
        let at = self.at(offset, into.len())?;
        let copied = own_memory()?.read_at(into, at);
        copied.map_err(|_| Errno::EFAULT)
    }

    /// Copies bytes to `offset` and behind: how many. An error if the first one has no place.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<usize> {
        let at = self.at(offset, from.len())?;
        let copied = own_memory()?.write_at(from, at);
        copied.map_err(|_| Errno::EFAULT)
    }

    /// Where so many bytes are, if they are all in the window.
    fn at(&self, offset: usize, length: usize) -> Result<u64> {
        match offset.checked_add(length) {
            Some(end) if end <= self.0.len() => Ok(self.0.address() + offset as u64),
            _ => Err(Errno::EFAULT),
        }
    }
}

/// The memory of this process, as a file.
fn own_memory() -> Result<&'static File> {
    static MEMORY: OnceLock<File> = OnceLock::new();
    if let Some(memory) = MEMORY.get() {
        return Ok(memory);
    }
    let mut options = OpenOptions::new();
    let memory = options.read(true).write(true).open("/proc/self/mem");
    let memory = memory.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    // Whoever was first has opened the same.
    Ok(MEMORY.get_or_init(|| memory))
}
