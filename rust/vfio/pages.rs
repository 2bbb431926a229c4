// SPDX-License-Identifier: GPL-2.0

//! Pages of a device's file that a user can map.
//!
//! A mapping is never taken away: it lasts until the user unmaps it, and owns a reference to the pages. It shows these pages and
//! nothing else. What a user writes can change at any time, so it is copied before it is looked at.
//!
//! C header: `include/linux/mm.h`.

use core::ops::Range;
use kernel::alloc::flags::__GFP_ZERO;
use kernel::bindings;
use kernel::mm::virt::{flags, VmaMixedMap, VmaNew};
use kernel::page::{Page, PAGE_SHIFT, PAGE_SIZE};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::Arc;
use kernel::types::ForeignOwnable;

/// Pages that lie one after the other in a device's file. What is in them is the business of who has made them.
pub(crate) struct Pages {
    /// The page of the device's file that is the first of them.
    first: u64,
    pages: KVVec<Page>,
    /// 1 once they have been mapped, so that a user may have written to any of them; 0 before.
    mapped: Atomic<i32>,
}

impl Pages {
    /// `len` zeroed bytes for what is at `start` of the device's file, both whole pages; charged to the caller. Each page is an
    /// allocation of its own.
    pub(crate) fn new(start: u64, len: usize) -> Result<Arc<Self>> {
        let count = len >> PAGE_SHIFT;
        let mut pages = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            let page = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
            pages.push(page, GFP_KERNEL_ACCOUNT)?;
        }
        let pages = Self {
            first: start >> PAGE_SHIFT,
            pages,
            mapped: Atomic::new(0),
        };
        Ok(Arc::new(pages, GFP_KERNEL_ACCOUNT)?)
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.pages.len() << PAGE_SHIFT
    }

    /// Whether a user may have written to them.
    pub(crate) fn were_mapped(&self) -> bool {
        self.mapped.load(Acquire) != 0
    }

    /// The page at this offset of the device's file, in pages.
    fn at(&self, offset: u64) -> Option<&Page> {
        let index = usize::try_from(offset.checked_sub(self.first)?).ok()?;
        self.pages.get(index)
    }

    /// Copies bytes in. `EINVAL` when they do not fit.
    ///
    /// # Safety
    ///
    /// Nobody in the kernel may access these bytes at the same time.
    pub(crate) unsafe fn put(&self, offset: usize, bytes: &[u8]) -> Result {
        for (page, at, part) in self.pieces(offset, bytes.len())? {
            let from = bytes.get(part).ok_or(EINVAL)?;
            let page = self.pages.get(page).ok_or(EINVAL)?;
            // SAFETY: `from` is readable; the rest is the contract.
            unsafe { page.write_raw(from.as_ptr(), at, from.len())? };
        }
        Ok(())
    }

    /// Copies bytes out. `EINVAL` when there are not so many. What user space writes at the same time comes out in part.
    ///
    /// # Safety
    ///
    /// Nobody in the kernel may write to these bytes at the same time.
    pub(crate) unsafe fn get(&self, offset: usize, bytes: &mut [u8]) -> Result {
        for (page, at, part) in self.pieces(offset, bytes.len())? {
            let to = bytes.get_mut(part).ok_or(EINVAL)?;
            let page = self.pages.get(page).ok_or(EINVAL)?;
            // SAFETY: `to` is writable; the rest is the contract.
            unsafe { page.read_raw(to.as_mut_ptr(), at, to.len())? };
        }
        Ok(())
    }

    /// Zeroes the first bytes, at most as many as there are.
    ///
    /// # Safety
    ///
    /// Nobody in the kernel may access these bytes at the same time.
    pub(crate) unsafe fn zero(&self, len: usize) {
        let mut left = len;
        for page in &self.pages {
            let len = left.min(PAGE_SIZE);
            if len == 0 {
                break;
            }
            // SAFETY: That is the contract.
            let cleared = unsafe { page.fill_zero_raw(0, len) };
            // It is within a page, which is never refused.
            debug_assert!(cleared.is_ok());
            left -= len;
        }
    }

    /// Cuts a range where a page ends: the page's number, where in the page, and which part of the range. `EINVAL` when there
    /// are not so many bytes.
    fn pieces(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<impl Iterator<Item = (usize, usize, Range<usize>)>> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => {}
            _ => return Err(EINVAL),
        }
        let mut done = 0;
        Ok(core::iter::from_fn(move || {
            let place = offset + done;
            let at = place % PAGE_SIZE;
            let part = done..len.min(done + PAGE_SIZE - at);
            done = part.end;
            (!part.is_empty()).then_some((place >> PAGE_SHIFT, at, part))
        }))
    }

    /// Maps a part of them. `EINVAL` for a private mapping, and for one that is not within them; `ENOMEM`.
    ///
    /// All of it is there at once; only what the user has the kernel forget is mapped again when it is touched. The address space
    /// is locked here and then, so nothing is waited for that could wait for it.
    ///
    /// # Safety
    ///
    /// `vma` must be a mapping that is being made by the caller of an `mmap` operation, which fails if this does.
    pub(crate) unsafe fn map(self: Arc<Self>, vma: *mut bindings::vm_area_struct) -> Result {
        // SAFETY: By contract, the mapping is being made, so nobody else uses it.
        let (new, at) = unsafe { (VmaNew::from_raw(vma), (*vma).vm_pgoff as u64) };
        let first = at.checked_sub(self.first).ok_or(EINVAL)?;
        let first = usize::try_from(first).map_err(|_| EINVAL)?;
        let count = (new.end() - new.start()) >> PAGE_SHIFT;
        let pages = self.pages.get(first..).and_then(|rest| rest.get(..count));
        let pages = pages.ok_or(EINVAL)?;
        if new.flags() & flags::SHARED == 0 {
            return Err(EINVAL);
        }
        // Before the user can write.
        self.mapped.store(1, Release);
        new.set_dontexpand();
        new.set_dontdump();
        let mapping = new.set_mixedmap();
        for (n, page) in pages.iter().enumerate() {
            // The page tables take a reference. The kernel undoes what was mapped if this fails.
            mapping.vm_insert_page(new.start() + (n << PAGE_SHIFT), page)?;
        }
        // SAFETY: As above. The mapping owns this reference from here on, as each copy of it will own one (`open`), and gives it
        // back in `close`, which the kernel calls for every mapping whose `mmap` did not fail.
        unsafe {
            (*vma).vm_private_data = self.into_foreign();
            (*vma).vm_ops = &VM_OPS.0;
        }
        Ok(())
    }
}

/// The operations hold pointers where the kernel has CONFIG_USERFAULTFD, so they are not [`Sync`] by themselves.
struct VmOps(bindings::vm_operations_struct);

// SAFETY: They are never written, and the pointers that this module sets are to functions.
unsafe impl Sync for VmOps {}

static VM_OPS: VmOps = VmOps(bindings::vm_operations_struct {
    open: Some(open),
    close: Some(close),
    fault: Some(fault),
    ..pin_init::zeroed()
});

/// # Safety
///
/// Called by the kernel on a new copy of a mapping that [`Pages::map`] has set up.
unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
    // SAFETY: By contract, the mapping that this is a copy of owns a reference.
    let pages = unsafe { Arc::<Pages>::borrow((*vma).vm_private_data) };
    // The pointer is there already.
    Arc::<Pages>::from(pages).into_foreign();
}

/// # Safety
///
/// Called by the kernel on a mapping that [`Pages::map`] has set up, or a copy, when nobody uses it any more.
unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
    // SAFETY: By contract, the mapping owns this reference.
    drop(unsafe { Arc::<Pages>::from_foreign((*vma).vm_private_data) });
}

/// # Safety
///
/// Called by the kernel for a mapping that [`Pages::map`] has set up, or a copy.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The kernel passes a valid fault, and the mapping owns a reference to the pages.
    let (vma, at, address, pages) = unsafe {
        let place = (*vmf).__bindgen_anon_1;
        let pages = Arc::<Pages>::borrow((*place.vma).vm_private_data);
        (place.vma, place.pgoff as u64, place.address, pages)
    };
    let Some(page) = pages.at(at) else {
        return bindings::vm_fault_reason_VM_FAULT_SIGBUS;
    };
    // SAFETY: The mapping is locked during a fault, and `map` has made it one that may hold such pages.
    let mapping = unsafe { VmaMixedMap::from_raw(vma) };
    match mapping.vm_insert_page(address, page) {
        Ok(()) => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
        // Another thread of the user was faster.
        Err(error) if error == EBUSY => bindings::vm_fault_reason_VM_FAULT_NOPAGE,
        Err(error) if error == ENOMEM => bindings::vm_fault_reason_VM_FAULT_OOM,
        Err(_) => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
    }
}
