// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Pages of their own mapping with an unmapped neighbour, as arguments of system calls.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use nix::sys::mman::{mmap, mmap_anonymous, mprotect, munmap, MapFlags, ProtFlags};

use super::{Errno, Result};

/// One readable and writable page, followed by one that cannot be accessed.
pub struct Page {
    start: NonNull<libc::c_void>,
}

impl Page {
    /// Bytes in a page of x86.
    pub const SIZE: usize = 4096;

    /// A page of zeros with `bytes` at `offset`.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn holding(bytes: &[u8], offset: usize) -> Result<Self> {
        assert!(
            offset + bytes.len() <= Self::SIZE,
            "an argument of {} bytes",
            bytes.len()
        );
        let length = NonZeroUsize::new(2 * Self::SIZE).expect("two pages are more than nothing");
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new private mapping at an address that the kernel chooses replaces nothing.
        let start = unsafe { mmap_anonymous(None, length, flags, MapFlags::MAP_PRIVATE) }?;
        let page = Self { start };
        // SAFETY: The second page belongs to the mapping above, and nothing refers to it yet.
        unsafe { mprotect(start.byte_add(Self::SIZE), Self::SIZE, ProtFlags::PROT_NONE) }?;
        // SAFETY: The first page is mapped, writable and Self::SIZE long; the assertion above keeps the copy inside it. It is
        // new memory, so it does not overlap `bytes`.
        unsafe {
            start
                .cast::<u8>()
                .add(offset)
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len())
        };
        Ok(page)
    }

    /// The address of the first byte.
    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Makes the page read-only.
    pub fn forbid_writing(&mut self) -> Result<()> {
        // SAFETY: The page is this object's own, and no reference into it exists.
        unsafe { mprotect(self.start, Self::SIZE, ProtFlags::PROT_READ) }
    }

    /// Copies what is at `offset` out.
    ///
    /// # Panics
    ///
    /// If the page does not have as many bytes there.
    pub fn copy_to(&mut self, bytes: &mut [u8], offset: usize) {
        assert!(offset + bytes.len() <= Self::SIZE);
        // SAFETY: The page stays readable for as long as this object lives, the assertion keeps the copy inside it, and
        // `bytes` cannot overlap it because no reference into the page is ever given out.
        unsafe {
            self.start
                .cast::<u8>()
                .add(offset)
                .copy_to_nonoverlapping(NonNull::from(&mut *bytes).cast(), bytes.len())
        };
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: The mapping is this object's own and nothing refers to it any more.
        if let Err(error) = unsafe { munmap(self.start, 2 * Self::SIZE) } {
            crate::diag!("a page could not be unmapped: {error}");
        }
    }
}

/// A part of a file, mapped readable and writable and shared.
pub struct Mapping {
    start: NonNull<libc::c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    /// Maps `length` bytes of `file` from `place` on.
    ///
    /// # Panics
    ///
    /// If `length` is 0.
    pub fn new(file: impl AsFd, place: i64, length: usize) -> Result<Self> {
        let length = NonZeroUsize::new(length).expect("a mapping has bytes");
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new mapping at an address that the kernel chooses replaces nothing.
        let start = unsafe { mmap(None, length, flags, MapFlags::MAP_SHARED, file, place) }?;
        Ok(Self { start, length })
    }

    /// Bytes that are mapped.
    pub fn len(&self) -> usize {
        self.length.get()
    }

    /// Never: a mapping has bytes.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// `read(2)` of `length` bytes from `file` to the start of the mapping.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub fn read_from(&self, file: impl AsFd, length: usize) -> Result<usize> {
        assert!(length <= self.len());
        // SAFETY: The assertion keeps the kernel within the mapping, to which no reference exists.
        let result = unsafe { libc::read(file.as_fd().as_raw_fd(), self.start.as_ptr(), length) };
        Errno::result(result).map(|length| length as usize)
    }

    /// `pread(2)` of `length` bytes at `place` of `file` to the start of the mapping.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub fn pread_from(&self, file: impl AsFd, length: usize, place: i64) -> Result<usize> {
        assert!(length <= self.len());
        let file = file.as_fd().as_raw_fd();
        // SAFETY: The assertion keeps the kernel within the mapping, to which no reference exists.
        let result = unsafe { libc::pread(file, self.start.as_ptr(), length, place) };
        Errno::result(result).map(|length| length as usize)
    }

    /// `write(2)` of the first `length` bytes of the mapping to `file`.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub fn write_to(&self, file: impl AsFd, length: usize) -> Result<usize> {
        assert!(length <= self.len());
        // SAFETY: The assertion keeps the kernel within the mapping, which it only reads.
        let result = unsafe { libc::write(file.as_fd().as_raw_fd(), self.start.as_ptr(), length) };
        Errno::result(result).map(|length| length as usize)
    }

    /// Copies the first bytes of the mapping out.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub fn copy_to(&self, bytes: &mut [u8]) {
        assert!(bytes.len() <= self.len());
        for (offset, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: Within the mapping by the assertion; volatile because others may have it mapped as well.
            *byte = unsafe { self.start.cast::<u8>().add(offset).read_volatile() };
        }
    }

    /// Copies `bytes` to the start of the mapping.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub fn copy_from(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len());
        for (offset, byte) in bytes.iter().enumerate() {
            // SAFETY: Within the mapping by the assertion; volatile because others may have it mapped as well.
            unsafe { self.start.cast::<u8>().add(offset).write_volatile(*byte) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this object's own and no reference into it was given out.
        if let Err(error) = unsafe { munmap(self.start, self.len()) } {
            crate::diag!("a file could not be unmapped: {error}");
        }
    }
}

/// Maps a page of `file` at `place`, and unmaps it at once.
pub fn map_once(file: impl AsFd, place: i64) -> Result<()> {
    Mapping::new(file, place, Page::SIZE).map(drop)
}
