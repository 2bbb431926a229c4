// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Pages of their own mapping with an unmapped neighbour, as arguments of system calls.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{mmap_anonymous, mprotect, munmap, MapFlags, ProtFlags};

use crate::Result;

/// One readable and writable page, followed by one that cannot be accessed.
pub struct Page {
    start: NonNull<libc::c_void>,
    /// Where bytes were put last: behind that there are zeros, unless the kernel wrote there.
    end: usize,
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
        let length = NonZeroUsize::new(2 * Self::SIZE).expect("two pages are more than nothing");
        let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new private mapping at an address that the kernel chooses replaces nothing.
        let start = unsafe { mmap_anonymous(None, length, flags, MapFlags::MAP_PRIVATE) }?;
        let mut page = Self { start, end: 0 };
        // SAFETY: The second page belongs to the mapping above, and nothing refers to it yet.
        unsafe { mprotect(start.byte_add(Self::SIZE), Self::SIZE, ProtFlags::PROT_NONE) }?;
        page.put(bytes, offset);
        Ok(page)
    }

    /// Replaces what a writable page holds by zeros with `bytes` at the start.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn refill(&mut self, bytes: &[u8]) {
        let old = self.end.saturating_sub(bytes.len());
        self.put(bytes, 0);
        if old > 0 {
            // SAFETY: What was put there before was within the page, which is writable.
            unsafe { self.start.cast::<u8>().add(bytes.len()).write_bytes(0, old) };
        }
    }

    fn put(&mut self, bytes: &[u8], offset: usize) {
        assert!(
            offset + bytes.len() <= Self::SIZE,
            "an argument of {} bytes",
            bytes.len()
        );
        // SAFETY: The first page is mapped, writable and Self::SIZE long; the assertion above keeps the copy inside it. `bytes`
        // cannot overlap it because no reference into the page is ever given out.
        unsafe {
            self.start
                .cast::<u8>()
                .add(offset)
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len())
        };
        self.end = offset + bytes.len();
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
            eprintln!("a page could not be unmapped: {error}");
        }
    }
}
