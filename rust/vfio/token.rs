// SPDX-License-Identifier: GPL-2.0

//! A lock that one can be killed while waiting for: for what may be held as long as a user likes.
//!
//! C header: `include/linux/mutex.h`.

use crate::lock_class::lock_class;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

/// A value that one caller has at a time.
///
/// # Invariants
///
/// The mutex is initialised, and the value is only accessed with it locked.
#[pin_data]
pub(crate) struct Token<E> {
    #[pin]
    lock: Opaque<bindings::mutex>,
    value: UnsafeCell<E>,
}

// SAFETY: The value goes to who holds the lock, on any thread.
unsafe impl<E: Send> Send for Token<E> {}
// SAFETY: As above: one at a time.
unsafe impl<E: Send> Sync for Token<E> {}

impl<E> Token<E> {
    pub(crate) fn new(value: E) -> impl PinInit<Self> {
        pin_init!(Self {
            lock <- Opaque::ffi_init(|slot: *mut bindings::mutex| {
                let (name, class) = lock_class!(c"vfio_engine");
                // SAFETY: `slot` is valid for writes; name and class are static.
                unsafe { bindings::__mutex_init(slot, name.as_char_ptr(), class.as_ptr()) };
            }),
            value: UnsafeCell::new(value),
        })
    }

    /// Waits until nobody else has it. `EINTR` when the caller is killed meanwhile.
    pub(crate) fn lock_killable(&self) -> Result<Held<'_, E>> {
        // SAFETY: By the type invariant.
        unsafe { lock_killable(self.lock.get())? };
        // INVARIANT: Just locked.
        Ok(Held {
            token: self,
            _not_send: PhantomData,
        })
    }

    /// Waits until nobody else has it.
    pub(crate) fn lock(&self) -> Held<'_, E> {
        // SAFETY: By the type invariant.
        unsafe { bindings::mutex_lock(self.lock.get()) };
        // INVARIANT: Just locked.
        Held {
            token: self,
            _not_send: PhantomData,
        }
    }
}

/// What `mutex_lock_killable()` is in C: a macro of the kernel's configuration.
///
/// # Safety
///
/// `lock` must be an initialised mutex.
#[inline(never)]
unsafe fn lock_killable(lock: *mut bindings::mutex) -> Result {
    // SAFETY: By contract.
    to_result(unsafe { vfio_bindings::rust_vfio_mutex_lock_killable(lock) })
}

/// Whether the calling thread is being killed.
#[inline(never)]
pub(crate) fn is_killed() -> bool {
    // SAFETY: May be called from any context with a current task.
    unsafe { vfio_bindings::rust_vfio_fatal_signal_pending() }
}

/// The token, until this is dropped.
///
/// # Invariants
///
/// The token's mutex is locked by this thread.
pub(crate) struct Held<'a, E> {
    token: &'a Token<E>,
    /// A mutex is unlocked by who locked it.
    _not_send: PhantomData<*mut ()>,
}

impl<E> Deref for Held<'_, E> {
    type Target = E;

    fn deref(&self) -> &E {
        // SAFETY: By the type invariant nobody else accesses the value.
        unsafe { &*self.token.value.get() }
    }
}

impl<E> DerefMut for Held<'_, E> {
    fn deref_mut(&mut self) -> &mut E {
        // SAFETY: By the type invariant nobody else accesses the value.
        unsafe { &mut *self.token.value.get() }
    }
}

impl<E> Drop for Held<'_, E> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is locked, and by this thread.
        unsafe { bindings::mutex_unlock(self.token.lock.get()) };
    }
}
