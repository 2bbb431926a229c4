// SPDX-License-Identifier: GPL-2.0

//! A timer that calls back in process context, for effects that a device model wants later.
//!
//! C header: `include/linux/workqueue.h` (delayed work).

use crate::lock_class::lock_class;
use core::marker::PhantomData;
use kernel::bindings;
use kernel::container_of;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The monotonic clock, in nanoseconds. It does not count time that the system was suspended.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: May be called from any context. The clock starts at boot and is never negative.
    unsafe { bindings::ktime_get() }.unsigned_abs()
}

/// What an expired timer calls.
pub trait Expire: Sync {
    /// Where the timer is embedded.
    ///
    /// # Safety
    ///
    /// An implementation must return the structure that `timer` is a field of: `timer` was pinned in a `Self`.
    unsafe fn from_timer<'a>(timer: *const Timer<Self>) -> &'a Self
    where
        Self: Sized;

    /// The timer expired. Called from a work queue: may sleep and take locks.
    fn expired(&self);
}

/// A one-shot timer embedded in a `T`.
///
/// Its resolution is that of the system's timer tick (`CONFIG_HZ`).
///
/// # Invariants
///
/// The work is initialised, and is not pending or running once the timer has been dropped.
#[pin_data(PinnedDrop)]
pub struct Timer<T: Expire> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    _owner: PhantomData<fn(&T)>,
}

// SAFETY: Queueing and cancelling are synchronised by the work queue code.
unsafe impl<T: Expire> Send for Timer<T> {}
// SAFETY: As above.
unsafe impl<T: Expire> Sync for Timer<T> {}

impl<T: Expire> Timer<T> {
    /// A timer that is not running.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            work <- Opaque::ffi_init(|slot: *mut bindings::delayed_work| {
                let (work_name, work_class) = lock_class!(c"vfio timer's work");
                let (timer_name, timer_class) = lock_class!(c"vfio timer");
                // SAFETY: `slot` is valid for writes; `Self::run` fits work that is embedded in a `Timer<T>`.
                unsafe {
                    bindings::init_work_with_key(
                        &raw mut (*slot).work,
                        Some(Self::run),
                        false,
                        work_name.as_char_ptr(),
                        work_class.as_ptr(),
                    )
                };
                // SAFETY: `slot` is valid for writes, and this function and flag are those of every delayed work.
                unsafe {
                    bindings::timer_init_key(
                        &raw mut (*slot).timer,
                        Some(bindings::delayed_work_timer_fn),
                        bindings::TIMER_IRQSAFE,
                        timer_name.as_char_ptr(),
                        timer_class.as_ptr(),
                    )
                };
            }),
            _owner: PhantomData,
        })
    }

    /// # Safety
    ///
    /// `work` must be the work of a pinned `Timer<T>` that lives until this function has returned.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        // SAFETY: By contract, `work` is in a delayed work, and that in a `Timer<T>`.
        let timer = unsafe {
            let delayed = container_of!(work, bindings::delayed_work, work);
            container_of!(Opaque::cast_from(delayed), Self, work)
        };
        // SAFETY: The timer is embedded in a `T`, which outlives it: dropping the timer waits for this function.
        unsafe { T::from_timer(timer) }.expired();
    }

    /// Starts the timer, or starts it anew, to expire after at least `delay_ns` nanoseconds.
    pub fn start(self: Pin<&Self>, delay_ns: u64) {
        // SAFETY: A pure computation.
        let jiffies = unsafe { bindings::nsecs_to_jiffies(delay_ns) } + 1;
        // SAFETY: The work is initialised and pinned, and dropping the timer cancels it.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32,
                bindings::system_unbound_wq,
                self.work.get(),
                jiffies,
            )
        };
    }

    /// Stops the timer and waits until its callback is not running any more.
    ///
    /// Must not be called with a lock held that the callback takes.
    pub fn cancel(self: Pin<&Self>) {
        // SAFETY: The work is initialised.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}

#[pinned_drop]
impl<T: Expire> PinnedDrop for Timer<T> {
    fn drop(self: Pin<&mut Self>) {
        self.as_ref().cancel();
    }
}
