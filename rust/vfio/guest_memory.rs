// SPDX-License-Identifier: GPL-2.0

//! Guest memory, as a device accesses it: by I/O virtual addresses, copied.
//!
//! Nothing is pinned and nothing is mapped. `vfio_dma_rw()` keeps the user's mapping while it copies, so memory can be unmapped at any
//! time; who is told of that (`dma_unmap`) would have to let pages go while the user makes it take them again, and the
//! VFIO container ends in `BUG()` when it waits too long.
//!
//! A copy faults the user's pages in: it can take as long as somebody likes who serves the fault, and it takes the lock of the
//! address space. So it is made with no lock that an access, a reader of sysfs or a page fault takes: only
//! [`jobs`](crate::device) make a [`GuestMemory`], outside of the instance's mutex.
//!
//! C header: `include/linux/vfio.h`.

use crate::dirty_log::{DirtyLog, Range};
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::Mutex;
use vfio_bindings::vfio_device;

/// The most that is copied at once, in bytes. The user's mappings cannot change meanwhile.
const PIECE: usize = 4096;

/// What is ordered against what, as the guest's processors see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Reads before against reads after.
    Read,
    /// Writes before against writes after.
    Write,
    /// Everything before against everything after.
    Full,
}

/// The memory of the guest that uses a device, while a job of the device is served.
///
/// Bytes are copied, and no two of them together: a guest that looks at the same time can see one of them new and the other old. What
/// two sides hand each other must be in one byte.
///
/// # Invariants
///
/// The device is open during `'a`.
pub struct GuestMemory<'a> {
    vdev: NonNull<vfio_device>,
    log: &'a Mutex<Option<DirtyLog>>,
    /// Belongs to the call that it was made in.
    _not_send: PhantomData<*mut ()>,
}

impl<'a> GuestMemory<'a> {
    /// # Safety
    ///
    /// `vdev` must be a device that is open during `'a`. The caller must hold no lock that a page fault of the user may wait for.
    pub(crate) unsafe fn new(vdev: NonNull<vfio_device>, log: &'a Mutex<Option<DirtyLog>>) -> Self {
        // INVARIANT: By contract.
        Self {
            vdev,
            log,
            _not_send: PhantomData,
        }
    }

    /// Copies from the guest. `EINVAL` where nothing is mapped, or past the end of the address space; `EPERM` where it may not be
    /// read; `EFAULT` where there is no memory behind it. On an error `into` can hold anything.
    pub fn read(&mut self, iova: u64, into: &mut [u8]) -> Result {
        self.has_addresses(iova, into.len())?;
        let mut at = iova;
        for piece in into.chunks_mut(PIECE) {
            // SAFETY: By the type invariant, the device is open; the piece is memory of its length that is ours to write.
            unsafe { self.copy(at, piece.as_mut_ptr(), piece.len(), false)? };
            at = at.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Copies to the guest, and logs that. Fails as [`GuestMemory::read`] does, and where it may not be written. On an error any part
    /// can have been written; it counts as if all of it was.
    pub fn write(&mut self, iova: u64, from: &[u8]) -> Result {
        self.has_addresses(iova, from.len())?;
        let mut at = iova;
        for piece in from.chunks(PIECE) {
            // SAFETY: By the type invariant, the device is open; the function only reads what it writes to the guest.
            let written = unsafe { self.copy(at, piece.as_ptr().cast_mut(), piece.len(), true) };
            // After the copy: a report in between would tell of a page that is copied before it changes.
            let range = Range::new(at, piece.len() as u64)?;
            if let Some(log) = &mut *self.log.lock() {
                log.mark(range);
            }
            written?;
            at = at.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Orders accesses before against those after.
    #[inline(never)]
    pub fn barrier(&mut self, barrier: Barrier) {
        // SAFETY: They may be called from any context.
        unsafe {
            match barrier {
                Barrier::Read => vfio_bindings::rust_vfio_smp_rmb(),
                Barrier::Write => vfio_bindings::rust_vfio_smp_wmb(),
                Barrier::Full => vfio_bindings::rust_vfio_smp_mb(),
            }
        }
    }

    /// Whether there are so many addresses from this one on. `EINVAL` if not.
    fn has_addresses(&self, iova: u64, len: usize) -> Result {
        match len {
            0 => Ok(()),
            _ => Range::new(iova, len as u64).map(drop),
        }
    }

    /// # Safety
    ///
    /// `data` must be valid for `len` bytes, and writable if the guest is read.
    unsafe fn copy(&self, iova: u64, data: *mut u8, len: usize, write: bool) -> Result {
        // SAFETY: By the type invariant, the device is open; by contract, so is the memory.
        to_result(unsafe {
            vfio_bindings::vfio_dma_rw(self.vdev.as_ptr(), iova, data.cast(), len, write)
        })
    }
}
