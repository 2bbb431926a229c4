// SPDX-License-Identifier: GPL-2.0

//! The way from one state to another, as a device goes it. Both protocols go through here.
//!
//! What an arc does to the device and its session is decided in [`::migration::session::machine`]. Here it gets what is the
//! kernel's: the device's clock, its interrupts, and whether it may access memory.

use crate::device::State as DeviceState;
use crate::migration::session::Opening;
use crate::model::Device;
use crate::timer;
use ::migration::fsm::{Arc as Transition, State};
use kernel::prelude::*;

impl<T: Device> DeviceState<T> {
    /// Goes to a state, arc by arc, while no job of the device's is served. An error leaves the device in the last state that it
    /// reached, with the reason: `EINVAL` where no way leads there, and on leaving RESUMING before the stream is complete; `EIO` in
    /// the error state; otherwise what the device or `opening` says.
    pub(crate) fn walk(&mut self, to: State, opening: &mut impl Opening) -> Result {
        let now_ns = timer::now_ns();
        while let Some(arc) = self.migration.next(to, &mut self.reason)? {
            self.step(arc, now_ns, opening)?;
        }
        Ok(())
    }

    /// Takes one arc at this time of the system. The arcs of one way are taken at the same time. Nothing has changed if it fails,
    /// but that time has passed.
    fn step(&mut self, arc: Transition, now_ns: u64, opening: &mut impl Opening) -> Result {
        // What is saved is the device as it is on this edge, and its clock stops there.
        self.tell_time_at(now_ns);
        let could = self.may_access_memory();
        let (values, device) = (&self.values, &mut *self.device);
        self.migration
            .take(arc, values, device, &mut self.reason, opening)?;
        if arc == Transition::ResumingToStop {
            self.irqs.device_was_loaded();
        }
        self.entered(could, now_ns);
        Ok(())
    }

    /// The device cannot go on: it is in the error state, without a session, from now on.
    pub(crate) fn give_up(&mut self) {
        let could = self.may_access_memory();
        self.migration.fail(&mut self.device);
        self.entered(could, timer::now_ns());
    }

    /// The device is in another state, from this time of the system on. Its clock runs while it does. `could`: whether it could
    /// access memory before.
    fn entered(&mut self, could: bool, now_ns: u64) {
        self.tell_active(could);
        self.run_clock(now_ns);
    }
}
