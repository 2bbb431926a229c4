// SPDX-License-Identifier: GPL-2.0

//! Eventfds: signalling one, and being called when one is signalled.
//!
//! C headers: `include/linux/eventfd.h`, `include/linux/vfio.h` (virqfd).

use core::cell::UnsafeCell;
use core::marker::PhantomPinned;
use core::ptr::NonNull;
use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::error::to_result;
use kernel::ffi::c_void;
use kernel::prelude::*;

/// A reference to the eventfd behind a file descriptor of the calling process.
///
/// # Invariants
///
/// The pointer is a valid `struct eventfd_ctx`, of which this value owns one reference.
pub(crate) struct EventFd(NonNull<bindings::eventfd_ctx>);

// SAFETY: The reference count and the counter of an eventfd context are synchronised by the kernel.
unsafe impl Send for EventFd {}
// SAFETY: As above; signalling takes the context's own lock.
unsafe impl Sync for EventFd {}

impl EventFd {
    /// Takes a reference to the eventfd that `fd` names in the calling process.
    ///
    /// `EBADF` when there is no such descriptor, `EINVAL` when it is not an eventfd.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: Any number may be passed; the function returns a valid context or an error pointer.
        let ctx = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;
        // INVARIANT: The call returned a valid context with a reference for the caller.
        Ok(Self(NonNull::new(ctx).ok_or(EBADF)?))
    }

    /// Adds one to the counter and wakes whoever waits for it. Never sleeps.
    pub(crate) fn signal(&self) {
        // SAFETY: By the type invariant, the context is valid.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) };
    }
}

impl Drop for EventFd {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, this value owns a reference.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) };
    }
}

/// What is called when a watched eventfd is signalled.
pub(crate) trait Watcher: Sync {
    /// The eventfd was signalled. Called from a work queue: may sleep and take locks.
    fn signalled(&self);
}

/// A place for one watched eventfd.
///
/// The VFIO core keeps the address of this slot while an eventfd is watched, and clears it when the eventfd is closed.
///
/// # Invariants
///
/// The slot is null or holds what `vfio_virqfd_enable()` stored there; only the VFIO core changes it, under its own lock.
#[pin_data(PinnedDrop)]
pub(crate) struct WatchSlot {
    virqfd: UnsafeCell<*mut vfio_bindings::virqfd>,
    #[pin]
    _pin: PhantomPinned,
}

// SAFETY: The slot is only accessed by the VFIO core's functions, which take their own lock.
unsafe impl Send for WatchSlot {}
// SAFETY: As above.
unsafe impl Sync for WatchSlot {}

impl WatchSlot {
    /// An empty slot.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            virqfd: UnsafeCell::new(core::ptr::null_mut()),
            _pin: PhantomPinned,
        })
    }

    /// Watches the eventfd that `fd` names in the calling process: `watcher` is called after every signal.
    ///
    /// `EBADF` or `EINVAL` as for [`EventFd::from_fd`], `EBUSY` when the slot is taken.
    ///
    /// # Safety
    ///
    /// `watcher` must stay valid until [`WatchSlot::clear`] has returned or this slot has been dropped.
    pub(crate) unsafe fn watch<W: Watcher>(self: Pin<&Self>, fd: i32, watcher: &W) -> Result {
        /// # Safety
        ///
        /// `opaque` must be the watcher that was registered with the same type.
        unsafe extern "C" fn signalled<W: Watcher>(opaque: *mut c_void, _data: *mut c_void) {
            // SAFETY: `opaque` is the `&W` below, which the caller of `watch` keeps valid until the watch has ended.
            unsafe { &*opaque.cast_const().cast::<W>() }.signalled();
        }

        // SAFETY: The slot is pinned and is cleared before it goes away (`PinnedDrop`), so the core's pointer to it stays
        // valid; `watcher` is valid for as long by this function's contract.
        to_result(unsafe {
            vfio_bindings::vfio_virqfd_enable(
                core::ptr::from_ref(watcher).cast_mut().cast(),
                None,
                Some(signalled::<W>),
                core::ptr::null_mut(),
                self.virqfd.get(),
                fd,
            )
        })
    }

    /// Ends the watch, if there is one, and waits until its callback is not running any more.
    ///
    /// Must not be called with a lock held that the callback takes.
    pub(crate) fn clear(self: Pin<&Self>) {
        // SAFETY: The slot holds null or a watch of the core's (type invariant).
        unsafe { vfio_bindings::vfio_virqfd_disable(self.virqfd.get()) };
    }
}

#[pinned_drop]
impl PinnedDrop for WatchSlot {
    fn drop(self: Pin<&mut Self>) {
        self.as_ref().clear();
    }
}
