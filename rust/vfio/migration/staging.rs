// SPDX-License-Identifier: GPL-2.0

//! The data section of the migration region: memory that a user can map.
//!
//! QEMU copies from the mapping in a thread of its own, so a mapping is never taken away: it lasts until the user unmaps it or
//! closes the device. It shows this memory and nothing else: zeroes outside a session, and in one a copy of the stream. What a
//! user writes is copied before it is looked at, because it can change at any time.
//!
//! C headers: `include/linux/vmalloc.h`, `include/linux/mm.h`.

use crate::region::{MIGRATION_INDEX, OFFSET_SHIFT};
use core::ptr::NonNull;
use kernel::bindings;
use kernel::ffi::c_ulong;
use kernel::mm::virt::VmaNew;
use kernel::page::{PAGE_SHIFT, PAGE_SIZE};
use kernel::prelude::*;

/// Where the data section starts in the region, in bytes. The header has the page before it to itself.
pub(crate) const OFFSET: usize = PAGE_SIZE;

/// Length of the data section in bytes.
pub(crate) const LEN: usize = 64 * 1024;

/// The page of the device's file at which the data section starts.
const FIRST_PAGE: u64 = (((MIGRATION_INDEX as u64) << OFFSET_SHIFT) + OFFSET as u64) >> PAGE_SHIFT;

/// Pages in the data section.
const PAGES: u64 = (LEN >> PAGE_SHIFT) as u64;

/// The memory.
///
/// # Invariants
///
/// The pointer is a `vmalloc_user()` allocation of [`LEN`] bytes.
pub(crate) struct Staging(NonNull<u8>);

// SAFETY: The memory is accessed by whoever holds the instance's mutex, and by user space, which is no concern of Rust's.
unsafe impl Send for Staging {}

impl Staging {
    /// Zeroed memory.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Any size may be asked for.
        let memory = unsafe { vfio_bindings::vmalloc_user_noprof(LEN as c_ulong) };
        // INVARIANT: Just allocated.
        Ok(Self(NonNull::new(memory.cast()).ok_or(ENOMEM)?))
    }

    /// Copies bytes in. `EINVAL` when they do not fit.
    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) -> Result {
        check(offset, bytes.len())?;
        // SAFETY: The range is within the allocation. User space may write to it at the same time, which changes what is in
        // it, and nothing else.
        unsafe {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.as_ptr().add(offset), bytes.len())
        };
        Ok(())
    }

    /// Copies bytes out. `EINVAL` when there are not so many.
    pub(crate) fn get(&self, offset: usize, bytes: &mut [u8]) -> Result {
        check(offset, bytes.len())?;
        // SAFETY: The range is within the allocation. User space may write to it at the same time: the copy then has old and
        // new bytes, which whoever reads the stream must expect anyway.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.0.as_ptr().add(offset).cast_const(),
                bytes.as_mut_ptr(),
                bytes.len(),
            )
        };
        Ok(())
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        // SAFETY: The whole allocation.
        unsafe { self.0.as_ptr().write_bytes(0, LEN) };
    }

    /// Maps a part of the data section. `EINVAL` for a private mapping, and for one that is not within the section.
    ///
    /// # Safety
    ///
    /// `vma` must be a mapping that is being made of a file that keeps this value until the mapping is gone.
    pub(crate) unsafe fn map(&self, vma: *mut bindings::vm_area_struct) -> Result {
        // SAFETY: By contract, the mapping is being made, so nobody else uses it.
        let (start, pages, flags) = unsafe {
            let bytes = (*vma).__bindgen_anon_1.__bindgen_anon_1.vm_end
                - (*vma).__bindgen_anon_1.__bindgen_anon_1.vm_start;
            (
                (*vma).vm_pgoff as u64,
                (bytes >> PAGE_SHIFT) as u64,
                (*vma).__bindgen_anon_2.vm_flags,
            )
        };
        let first = start.checked_sub(FIRST_PAGE).ok_or(EINVAL)?;
        let end = first.checked_add(pages).ok_or(EINVAL)?;
        if end > PAGES || flags & bindings::VM_SHARED as bindings::vm_flags_t == 0 {
            return Err(EINVAL);
        }
        // SAFETY: As above.
        let new = unsafe { VmaNew::from_raw(vma) };
        new.set_mixedmap();
        new.set_dontexpand();
        new.set_dontdump();
        // SAFETY: As above. The memory outlives the mapping by this function's contract.
        unsafe {
            (*vma).vm_private_data = self.0.as_ptr().cast();
            (*vma).vm_ops = &VM_OPS.0;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { vfio_bindings::vfree(self.0.as_ptr().cast()) };
    }
}

/// Whether a range is within the data section.
fn check(offset: usize, len: usize) -> Result {
    match offset.checked_add(len) {
        Some(end) if end <= LEN => Ok(()),
        _ => Err(EINVAL),
    }
}

/// The operations hold pointers where the kernel has CONFIG_USERFAULTFD, so they are not [`Sync`] by themselves.
struct VmOps(bindings::vm_operations_struct);

// SAFETY: They are never written, and the pointers that this module sets are to functions.
unsafe impl Sync for VmOps {}

static VM_OPS: VmOps = VmOps(bindings::vm_operations_struct {
    fault: Some(fault),
    ..pin_init::zeroed()
});

/// # Safety
///
/// Called by the kernel for a mapping that [`Staging::map`] has set up.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The kernel passes a valid fault.
    let (vma, pgoff, address) = unsafe {
        let place = (*vmf).__bindgen_anon_1;
        (place.vma, place.pgoff as u64, place.address)
    };
    let index = match pgoff.checked_sub(FIRST_PAGE) {
        Some(index) if index < PAGES => index as usize,
        _ => return bindings::vm_fault_reason_VM_FAULT_SIGBUS,
    };
    // SAFETY: The memory outlives the mapping, and the index is within it. The mapping may hold pages (mixed map), of which
    // it takes its own references.
    let inserted = unsafe {
        let memory = (*vma).vm_private_data.cast::<u8>().add(index << PAGE_SHIFT);
        let page = bindings::vmalloc_to_page(memory.cast_const().cast());
        bindings::vm_insert_page(vma, address, page)
    };
    match inserted {
        0 => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
        // Another thread of the user was faster.
        error if error == EBUSY.to_errno() => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
        error if error == ENOMEM.to_errno() => bindings::vm_fault_reason_VM_FAULT_OOM,
        _ => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
    }
}
