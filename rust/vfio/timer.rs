// SPDX-License-Identifier: GPL-2.0

//! Timers that call back in process context, for what is to happen later.
//!
//! C header: `include/linux/workqueue.h` (delayed work).

use crate::lock_class::lock_class;
use core::marker::PhantomData;
use kernel::bindings;
use kernel::prelude::*;
use kernel::types::Opaque;

/// The monotonic clock, in nanoseconds. It does not count time that the system was suspended.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: May be called from any context. The clock starts at boot and is never negative.
    unsafe { bindings::ktime_get() }.unsigned_abs()
}

/// A structure with a timer in it. One with several has an implementation for each `ID`.
///
/// # Safety
///
/// `OFFSET` bytes from the start of the structure there must be a field of type `Timer<Self, ID>`, structurally pinned, that is
/// initialised and dropped with the structure.
pub(crate) unsafe trait HasTimer<const ID: u64 = 0>: Sync + Sized {
    /// Where the timer is: `offset_of!(Self, field)`.
    const OFFSET: usize;

    /// The timer expired. Called from a work queue: may sleep and take locks.
    fn expired(&self);
}

/// A one-shot timer embedded in a `T`.
///
/// Its resolution is that of the system's timer tick (`CONFIG_HZ`).
///
/// # Invariants
///
/// The work is initialised, and is not pending or running once the timer has been dropped. It has only been queued where this is
/// the field of a pinned `T` that [`HasTimer`] names.
#[pin_data(PinnedDrop)]
pub(crate) struct Timer<T, const ID: u64 = 0> {
    #[pin]
    work: Opaque<bindings::delayed_work>,
    _owner: PhantomData<fn(&T)>,
}

// SAFETY: Queueing and cancelling are synchronised by the work queue code.
unsafe impl<T, const ID: u64> Send for Timer<T, ID> {}
// SAFETY: As above.
unsafe impl<T, const ID: u64> Sync for Timer<T, ID> {}

impl<T: HasTimer<ID>, const ID: u64> Timer<T, ID> {
    /// A timer that is not running.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            work <- Opaque::ffi_init(|slot: *mut bindings::delayed_work| {
                let (work_name, work_class) = lock_class!(c"vfio timer's work");
                let (timer_name, timer_class) = lock_class!(c"vfio timer");
                // SAFETY: `slot` is valid for writes; `Self::run` fits work that is embedded in a `Timer<T, ID>`.
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
    /// `work` must be the work of a `Timer<T, ID>` that [`Self::start`] has started.
    unsafe extern "C" fn run(work: *mut bindings::work_struct) {
        let delayed = core::mem::offset_of!(bindings::delayed_work, work);
        let within = delayed + core::mem::offset_of!(Self, work) + T::OFFSET;
        // SAFETY: By contract, the timer is the field of a `T` that `HasTimer` names. That outlives this function: dropping it
        // drops the timer, which waits.
        let owner = unsafe { &*work.byte_sub(within).cast_const().cast::<T>() };
        owner.expired();
    }

    /// The timer of a structure.
    fn of(owner: Pin<&T>) -> &Self {
        // SAFETY: By the contract of `HasTimer`, such a field is there.
        unsafe { &*(&raw const *owner).byte_add(T::OFFSET).cast::<Self>() }
    }

    /// Starts the timer, or starts it anew, to expire after at least `delay_ns` nanoseconds.
    pub(crate) fn start(owner: Pin<&T>, delay_ns: u64) {
        // SAFETY: A pure computation.
        let jiffies = unsafe { bindings::nsecs_to_jiffies(delay_ns) } + 1;
        // SAFETY: The work is initialised, and in a structure that is pinned; dropping the timer cancels it.
        unsafe {
            bindings::mod_delayed_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as i32,
                bindings::system_dfl_wq,
                Self::of(owner).work.get(),
                jiffies,
            )
        };
    }

    /// Stops the timer and waits until its callback is not running any more.
    ///
    /// Must not be called with a lock held that the callback takes.
    pub(crate) fn cancel(owner: Pin<&T>) {
        // SAFETY: The work is initialised.
        unsafe { bindings::cancel_delayed_work_sync(Self::of(owner).work.get()) };
    }
}

#[pinned_drop]
impl<T, const ID: u64> PinnedDrop for Timer<T, ID> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: The work is initialised.
        unsafe { bindings::cancel_delayed_work_sync(self.work.get()) };
    }
}
