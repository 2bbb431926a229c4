// SPDX-License-Identifier: GPL-2.0

//! The arcs of the state machine, as a device takes them. Both protocols go through here.

use crate::device::State as DeviceState;
use crate::migration::session::{
    errno, not_committed, Incoming, Of, Resuming, Saving, Session, SessionId,
};
use crate::model::Device;
use ::migration::fsm::{Arc as Transition, State};
use kernel::prelude::*;

/// Whether somebody is told of a session that starts, before it is too late to fail.
pub(crate) trait Opening {
    /// A session of this name is about to start. Nothing has changed if this fails.
    fn open(&mut self, id: SessionId, saving: bool) -> Result;
}

/// Nobody needs to be told.
impl Opening for () {
    fn open(&mut self, _id: SessionId, _saving: bool) -> Result {
        Ok(())
    }
}

impl<T: Device> DeviceState<T> {
    /// Takes one arc at this time of the system, while no job of the device's is served. The arcs of one way are taken at the same
    /// time. Nothing has changed if it fails, but that time has passed.
    pub(crate) fn step(
        &mut self,
        arc: Transition,
        now_ns: u64,
        opening: &mut impl Opening,
    ) -> Result {
        use Transition::*;

        // What is saved is the device as it is on this edge, and its clock stops there.
        self.tell_time_at(now_ns);
        let (migration, device) = (&mut self.migration, &mut *self.device);
        match arc {
            RunningToPreCopy | RunningP2pToPreCopyP2p => {
                let id = migration.next_id();
                let saving = Saving::pre_copy(&self.values).map_err(errno)?;
                opening.open(id, true)?;
                device.start_sending();
                migration.begin(Session::Saving(saving));
            }
            StopToStopCopy => {
                let id = migration.next_id();
                let saving = Saving::stop_copy(&self.values, &Of(device))?;
                opening.open(id, true)?;
                device.start_sending();
                if let Some(memory) = device.memory() {
                    memory.start_sending();
                }
                migration.begin(Session::Saving(saving));
            }
            PreCopyToStopCopy | PreCopyP2pToStopCopy => {
                if let Some(Session::Saving(saving)) = &mut migration.session {
                    saving.stop(&self.values, &Of(device))?;
                    if let Some(memory) = device.memory() {
                        memory.start_sending();
                    }
                }
            }
            StopToResuming => {
                let id = migration.next_id();
                let resuming = Resuming::<T>::new(Incoming::of(device)?);
                opening.open(id, false)?;
                migration.begin(Session::Resuming(resuming));
                self.reason.clear();
            }
            ResumingToStop => {
                if let Some(Session::Resuming(resuming)) = &mut migration.session {
                    let committed = resuming.commit(&mut Of(device), &mut self.reason);
                    committed.map_err(not_committed)?;
                    self.irqs.device_was_loaded();
                }
                migration.end(device);
            }
            PreCopyToRunning | PreCopyP2pToRunningP2p | StopCopyToStop => migration.end(device),
            StopToRunning | StopToRunningP2p => device.resume(),
            // Nobody serves a job, and nothing else happens in the device between two calls.
            RunningToStop | RunningToRunningP2p | RunningP2pToRunning | RunningP2pToStop
            | PreCopyToPreCopyP2p | PreCopyP2pToPreCopy => {}
        }
        self.enter(arc.to(), now_ns);
        Ok(())
    }

    /// The device is in another state, from this time of the system on. Its clock runs while it does.
    pub(crate) fn enter(&mut self, state: State, now_ns: u64) {
        let could = self.may_access_memory();
        self.migration.current = state;
        self.tell_active(could);
        self.run_clock(now_ns);
    }

    /// The state of the state machine.
    pub(crate) fn current(&self) -> State {
        self.migration.current
    }
}
