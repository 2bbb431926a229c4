// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A mapping of a part of a device's file, or of memory that a device accesses. The device may change it at any time, so bytes are only ever copied.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use nix::sys::mman::{madvise, mmap, mmap_anonymous, munmap, MapFlags, MmapAdvise, ProtFlags};

use crate::migration_v1::Region;
use crate::{Errno, Result};

/// Bytes in a page of x86.
const PAGE: usize = 4096;

/// A mapping; dropping it unmaps it.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: The mapping belongs to the process, not to a thread, and its methods access it only by volatile copies and system calls.
unsafe impl Send for Mapping {}
// SAFETY: As above: no reference to its bytes is ever made.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes from byte `offset` of the region, to be read and written.
    pub fn new(region: &Region<'_>, offset: u64, length: usize, flags: MapFlags) -> Result<Self> {
        Self::of_file(region.device.as_fd(), region.place(offset), length, flags)
    }

    /// Maps `length` bytes from byte `place` of a file, to be read and written. EINVAL if `length` is 0.
    pub fn of_file(
        file: BorrowedFd<'_>,
        place: i64,
        length: usize,
        flags: MapFlags,
    ) -> Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Self::with_access(file, place, length, access, flags)
    }

    /// As [`Mapping::of_file`], for other accesses than reading and writing. Touching it in another way ends the process.
    pub(crate) fn with_access(
        file: BorrowedFd<'_>,
        place: i64,
        length: usize,
        access: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self> {
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        // SAFETY: A new mapping at an address that the kernel chooses replaces nothing.
        let start = unsafe { mmap(None, size, access, flags, file, place) }?;
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    /// Maps memory of zeroes that a device may access, and children of this process share. EINVAL if `length` is 0.
    pub fn of_memory(length: usize) -> Result<Self> {
        let size = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new mapping at an address that the kernel chooses replaces nothing.
        let start = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_SHARED) }?;
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    /// Where it is, for a kernel that is told of it by number.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// Maps the whole data section, shared.
    pub fn of_data(region: &Region<'_>) -> Result<Self> {
        let Region { data, .. } = region;
        Self::new(
            region,
            data.offset,
            data.size as usize,
            MapFlags::MAP_SHARED,
        )
    }

    /// Bytes that are mapped.
    #[allow(clippy::len_without_is_empty)] // A mapping has bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Copies `length` bytes at `offset` out.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn get(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length);
        let copy = |index| {
            // SAFETY: The assertion keeps the byte within the mapping. Others may write to it, hence volatile.
            unsafe { self.start.add(offset + index).read_volatile() }
        };
        (0..length).map(copy).collect()
    }

    /// Copies bytes to `offset`.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn put(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: The assertion keeps the byte within the mapping. Others may access it, hence volatile.
            unsafe { self.start.add(offset + index).write_volatile(*byte) };
        }
    }

    /// True if every byte is 0.
    pub fn is_blank(&self) -> bool {
        self.get(0, self.length).iter().all(|byte| *byte == 0)
    }

    /// Whether each page is in the page tables (mincore(2)): whether touching it would do without a fault.
    pub fn present(&self) -> Result<Vec<bool>> {
        let mut pages = vec![0; self.length.div_ceil(PAGE)];
        // SAFETY: The call writes a byte for each page of the mapping.
        let result =
            unsafe { libc::mincore(self.start.as_ptr().cast(), self.length, pages.as_mut_ptr()) };
        Errno::result(result)?;
        Ok(pages.iter().map(|page| page & 1 != 0).collect())
    }

    /// Makes two mappings of it, each to be unmapped by itself.
    ///
    /// # Panics
    ///
    /// If `at` is not within the mapping or no multiple of a page's size.
    pub fn split(self, at: usize) -> (Self, Self) {
        assert!(0 < at && at < self.length && at % PAGE == 0);
        let (start, length) = (self.start, self.length);
        std::mem::forget(self);
        let first = Self { start, length: at };
        let second = Self {
            // SAFETY: The assertion keeps it within the mapping.
            start: unsafe { start.add(at) },
            length: length - at,
        };
        (first, second)
    }

    /// Forgets the pages, so that the next access faults again.
    pub fn forget(&self) -> Result<()> {
        // SAFETY: The range is this mapping. A shared mapping of a device keeps no content of its own.
        unsafe { madvise(self.start.cast(), self.length, MmapAdvise::MADV_DONTNEED) }
    }

    /// Asks for more room in place (mremap(2)).
    pub fn grow(&self, length: usize) -> Result<()> {
        // SAFETY: Without MREMAP_MAYMOVE the mapping stays where it is; what it would grow into was not used by anybody.
        let moved = unsafe { libc::mremap(self.start.as_ptr().cast(), self.length, length, 0) };
        match moved {
            libc::MAP_FAILED => Err(Errno::last()),
            _ => Ok(()),
        }
    }

    /// Reads once from `file` into the mapping, at its start. A place makes it a `pread`.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub fn read_from(
        &self,
        file: BorrowedFd<'_>,
        length: usize,
        place: Option<i64>,
    ) -> Result<usize> {
        let (file, start) = (file.as_raw_fd(), self.first(length));
        // SAFETY: The buffer is within the mapping, to which no reference exists.
        let done = unsafe {
            match place {
                Some(place) => libc::pread(file, start, length, place),
                None => libc::read(file, start, length),
            }
        };
        Errno::result(done).map(|done| done as usize)
    }

    /// Writes once to `file` from the mapping, from its start. A place makes it a `pwrite`.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub fn write_to(
        &self,
        file: BorrowedFd<'_>,
        length: usize,
        place: Option<i64>,
    ) -> Result<usize> {
        let (file, start) = (file.as_raw_fd(), self.first(length));
        // SAFETY: The kernel reads from within the mapping.
        let done = unsafe {
            match place {
                Some(place) => libc::pwrite(file, start, length, place),
                None => libc::write(file, start, length),
            }
        };
        Errno::result(done).map(|done| done as usize)
    }

    /// Calls an ioctl whose argument, no longer than `length` bytes, is at the start of the mapping.
    ///
    /// # Panics
    ///
    /// If the mapping is shorter.
    pub fn ioctl_on(&self, file: BorrowedFd<'_>, request: u32, length: usize) -> Result<i32> {
        let start = self.first(length);
        // SAFETY: The request's structure is within the mapping, to which no reference exists.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), request as libc::Ioctl, start) })
    }

    /// The start of a buffer of `length` bytes for the kernel.
    fn first(&self, length: usize) -> *mut c_void {
        assert!(
            length <= self.length,
            "{length} bytes do not fit in a mapping of {}",
            self.length
        );
        self.start.as_ptr().cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: The mapping is this object's own and no reference to it exists.
        if let Err(error) = unsafe { munmap(self.start.cast(), self.length) } {
            eprintln!("a mapping could not be unmapped: {error}");
        }
    }
}
