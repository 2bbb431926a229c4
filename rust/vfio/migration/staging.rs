// SPDX-License-Identifier: GPL-2.0

//! The data section of the migration region: pages that a user can map.
//!
//! QEMU copies from the mapping in a thread of its own, so a mapping is never taken away: it lasts until the user unmaps it, and
//! owns a reference to the pages. It shows these pages and nothing else: zeroes outside a session, and in one a copy of the
//! stream. What a user writes is copied before it is looked at, because it can change at any time. Each user gets pages that no
//! other user had.
//!
//! C header: `include/linux/mm.h`.

use crate::region::{MIGRATION_INDEX, OFFSET_SHIFT};
use core::ops::Range;
use kernel::alloc::flags::__GFP_ZERO;
use kernel::bindings;
use kernel::mm::virt::{flags, VmaMixedMap, VmaNew};
use kernel::page::{Page, PAGE_SHIFT, PAGE_SIZE};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::Arc;
use kernel::types::ForeignOwnable;

/// Where the data section starts in the region, in bytes. The header has the page before it to itself.
pub(crate) const OFFSET: usize = PAGE_SIZE;

/// Length of the data section in bytes, a number of whole pages.
pub(crate) const LEN: usize = 64 * 1024;

/// The page of the device's file at which the data section starts.
const FIRST_PAGE: u64 = (((MIGRATION_INDEX as u64) << OFFSET_SHIFT) + OFFSET as u64) >> PAGE_SHIFT;

/// The pages of the data section, to be mapped. What is in them is [`Staging`]'s business.
pub(crate) struct Pages {
    pages: KVec<Page>,
    /// 1 once they have been mapped, so that a user may have written to any of them; 0 before.
    mapped: Atomic<i32>,
}

impl Pages {
    /// Maps a part of the data section. `EINVAL` for a private mapping, and for one that is not within the section; `ENOMEM`.
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
        let first = at.checked_sub(FIRST_PAGE).ok_or(EINVAL)?;
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
    let index = at
        .checked_sub(FIRST_PAGE)
        .and_then(|n| usize::try_from(n).ok());
    let Some(page) = index.and_then(|index| pages.pages.get(index)) else {
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

/// The data section of a device's present user. No other user's pages are in it, so it is not kept beyond that.
pub(crate) enum DataSection {
    /// Nobody has the device open.
    Closed,
    /// Nobody has asked for it yet.
    Open,
    /// Its pages, and what reads and writes them until somebody takes it.
    Made(Arc<Pages>, Option<Staging>),
}

impl DataSection {
    /// What reads and writes the section, if it has been made and nobody has taken that yet.
    pub(crate) fn take(&mut self) -> Option<Staging> {
        match self {
            Self::Made(_, staging) => staging.take(),
            Self::Closed | Self::Open => None,
        }
    }

    pub(crate) fn made(staging: Staging) -> Self {
        Self::Made(staging.pages.clone(), Some(staging))
    }
}

/// The data section, to be read and written. User space can do the same through a mapping at any time, which changes what is in
/// it, and nothing else.
///
/// # Invariants
///
/// The pages are [`LEN`] bytes long, and nobody in the kernel but this value accesses what is in them.
pub(crate) struct Staging {
    pages: Arc<Pages>,
    /// Where what was put into the section since it was cleared ends.
    used: usize,
}

impl Staging {
    /// A zeroed section, charged to the caller.
    pub(crate) fn new() -> Result<Self> {
        let count = LEN >> PAGE_SHIFT;
        let mut pages = KVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            let page = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
            pages.push(page, GFP_KERNEL_ACCOUNT)?;
        }
        // INVARIANT: So many pages, which nobody knows yet; `Pages` lets nobody access them.
        Ok(Self {
            pages: Arc::new(
                Pages {
                    pages,
                    mapped: Atomic::new(0),
                },
                GFP_KERNEL_ACCOUNT,
            )?,
            used: 0,
        })
    }

    /// Copies bytes in. `EINVAL` when they do not fit.
    pub(crate) fn put(&mut self, offset: usize, bytes: &[u8]) -> Result {
        for (page, at, part) in pieces(offset, bytes.len())? {
            self.used = self.used.max(offset + part.end);
            let from = bytes.get(part).ok_or(EINVAL)?;
            // SAFETY: `from` is readable, and by the type invariant nobody in the kernel accesses the page during `&mut self`.
            unsafe { self.page(page)?.write_raw(from.as_ptr(), at, from.len())? };
        }
        Ok(())
    }

    /// Copies bytes out. `EINVAL` when there are not so many. What user space writes at the same time comes out in part, which
    /// whoever reads the stream must expect anyway.
    pub(crate) fn get(&self, offset: usize, bytes: &mut [u8]) -> Result {
        for (page, at, part) in pieces(offset, bytes.len())? {
            let to = bytes.get_mut(part).ok_or(EINVAL)?;
            // SAFETY: `to` is writable, and by the type invariant nobody in the kernel writes to the page during `&self`.
            unsafe { self.page(page)?.read_raw(to.as_mut_ptr(), at, to.len())? };
        }
        Ok(())
    }

    /// Forgets everything: what was put in, and all of it once a user could write to it unseen.
    pub(crate) fn clear(&mut self) {
        let used = core::mem::take(&mut self.used);
        let mut left = match self.pages.mapped.load(Acquire) {
            0 => used,
            _ => LEN,
        };
        for page in &self.pages.pages {
            let len = left.min(PAGE_SIZE);
            if len == 0 {
                break;
            }
            // SAFETY: By the type invariant nobody in the kernel accesses the page during `&mut self`.
            let cleared = unsafe { page.fill_zero_raw(0, len) };
            // It is within a page, which is never refused.
            debug_assert!(cleared.is_ok());
            left -= len;
        }
    }

    fn page(&self, index: usize) -> Result<&Page> {
        self.pages.pages.get(index).ok_or(EINVAL)
    }
}

/// Cuts a range of the section where a page ends: the page's number, where in the page, and which part of the range. `EINVAL`
/// when it is not within the section.
fn pieces(offset: usize, len: usize) -> Result<impl Iterator<Item = (usize, usize, Range<usize>)>> {
    match offset.checked_add(len) {
        Some(end) if end <= LEN => {}
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
