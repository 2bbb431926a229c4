// SPDX-License-Identifier: GPL-2.0

//! Serving a device's jobs: what it does with guest memory.
//!
//! Whoever serves a job has the engine, and whoever has to be sure that none is served takes it for as long. Order: the engine, then
//! `state`; guest memory is accessed with the first and without the second.

use super::{Instance, State};
use crate::engine::{Engine, GuestMemory};
use crate::model::Device;
use crate::token::{is_killed, Held};
use core::ptr::NonNull;
use kernel::prelude::*;
use vfio_bindings::vfio_device;

/// The most jobs that one call serves: as many as a device needs for what it was asked before the call, and one cannot keep another
/// for ever.
const MOST: usize = 64;

/// Holds off jobs, where there are any.
pub(crate) type Quiet<'a, T> = Option<Held<'a, <T as Device>::Engine>>;

impl<T: Device> State<T> {
    /// Whether the device may access guest memory.
    pub(crate) fn may_access_memory(&self) -> bool {
        self.open && self.migration.state().may_access_memory()
    }

    fn has_work(&self) -> bool {
        self.may_access_memory() && T::Engine::has_work(&self.device)
    }

    /// Tells the device when it may access guest memory, and when not any longer; `could`: what it was told last.
    pub(crate) fn tell_active(&mut self, could: bool) {
        let may = self.may_access_memory();
        if may != could {
            self.device.set_active(may);
        }
    }
}

impl<T: Device> Instance<T> {
    /// Waits until no job is served, and keeps it so. To be called without `state`. `EINTR` when the caller is killed meanwhile.
    pub(crate) fn quiesce(&self) -> Result<Quiet<'_, T>> {
        match T::Engine::SERVES {
            true => self.engine.lock_killable().map(Some),
            false => Ok(None),
        }
    }

    /// The same, for who cannot be killed.
    pub(crate) fn quiesce_for_good(&self) -> Quiet<'_, T> {
        T::Engine::SERVES.then(|| self.engine.lock())
    }

    /// Serves what the device has to do with guest memory.
    ///
    /// # Safety
    ///
    /// `vdev` must be the device of this instance, in a call that the VFIO core makes for a user who has it open. The caller must hold
    /// no lock.
    #[inline]
    pub(crate) unsafe fn serve_jobs(&self, vdev: *mut vfio_device) {
        if T::Engine::SERVES {
            // SAFETY: By contract.
            unsafe { self.serve_up_to(MOST, vdev) };
        }
    }

    /// # Safety
    ///
    /// That of [`Instance::serve_jobs`].
    #[inline(never)]
    unsafe fn serve_up_to(&self, most: usize, vdev: *mut vfio_device) {
        let Some(vdev) = NonNull::new(vdev) else {
            return;
        };
        for _ in 0..most {
            // Who has nothing to be done does not wait for others.
            if !self.state.lock().has_work() || is_killed() {
                return;
            }
            // Given back after each job, so that who waits for quiet has its turn. What is left of one who is killed is served
            // after the next call: the device keeps it.
            let Ok(mut engine) = self.engine.lock_killable() else {
                return;
            };
            let job = {
                let mut state = self.state.lock();
                match state.may_access_memory() {
                    true => T::Engine::begin(&mut state.device),
                    false => None,
                }
            };
            let Some(mut job) = job else {
                return;
            };
            // SAFETY: The device stays open during the call, by contract, and what is held is the engine: no fault waits for that.
            let mut memory = unsafe { GuestMemory::new(vdev, &self.log) };
            engine.serve(&mut job, &mut memory);
            let mut guard = self.state.lock();
            let state = &mut *guard;
            T::Engine::finish(&mut state.device, job);
            self.settle(state);
        }
    }
}
