// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Remote calls that migrate a device of the kernel, while it is open for a client: a monitor that has stopped its guest.
//!
//! The rule of who migrates it is that of a model. What differs is a session that comes to nothing: of a device that was being loaded,
//! the driver forgets that by a reset only, after which it is in power-on state.

use migration::fsm::State;
use vfio_user_protocol::refusal::errno::{EBUSY, EIO, ENODEV};
use vfio_user_protocol::Access;

use super::Kernel;
use crate::backend::Backend;
use crate::device::CONFIG_REGION;
use crate::model::{Owner, Purpose, Refusal, SessionName, View};
use crate::remote::{Facts, Remote};
use crate::serial::{model::MODEL, IDLE_REGISTER};

impl Kernel {
    /// Refuses whoever is not the owner, if there is one.
    pub(super) fn may_migrate(&mut self, who: Owner) -> Result<(), u32> {
        match self.owner {
            Some(owner) if owner != who => {
                let reason = match owner {
                    Owner::Client => "the vfio-user client migrates the device",
                    Owner::Remote => "a remote call saves or loads the device",
                };
                Err(self.refuse(reason.to_string(), EBUSY))
            }
            _ => Ok(()),
        }
    }

    /// The state was changed: whoever did that keeps the device until it runs again.
    pub(super) fn settle_owner(&mut self, who: Owner) {
        let free = Remote::state(self) == State::Running;
        self.owner = (!free).then_some(who);
    }

    fn try_begin(&mut self, purpose: Purpose) -> Result<SessionName, u32> {
        if self.open.is_none() {
            let reason = "no vfio-user client has the device open";
            return Err(self.refuse(reason.to_string(), ENODEV));
        }
        self.may_migrate(Owner::Remote)?;
        if self.owner.is_some() {
            let reason = "another remote call saves or loads the device";
            return Err(self.refuse(reason.to_string(), EBUSY));
        }
        let target = match purpose {
            Purpose::Save => State::StopCopy,
            Purpose::Load => State::Resuming,
        };
        let reached = self.set_state(target.as_u32());
        self.settle_owner(Owner::Remote);
        if let Err(errno) = reached {
            self.give_up();
            return Err(errno);
        }
        self.sessions += 1;
        Ok(SessionName(self.sessions))
    }

    /// Whether the session is still that one: a reset of the device ends it, and the end of the client.
    fn is_in(&mut self, session: SessionName) -> Result<(), u32> {
        match SessionName(self.sessions) == session && self.owner == Some(Owner::Remote) {
            true => Ok(()),
            false => {
                let reason = "the device was reset or closed meanwhile";
                Err(self.refuse(reason.to_string(), ENODEV))
            }
        }
    }

    /// Goes on with a session; an error ends it.
    fn go_on(&mut self, session: SessionName, target: State) -> Result<(), u32> {
        self.is_in(session)?;
        let reached = self.set_state(target.as_u32());
        match reached {
            Ok(()) => self.settle_owner(Owner::Remote),
            Err(_) => self.give_up(),
        }
        reached
    }

    /// Lets the device run: as it was if it was being saved, and else in power-on state.
    fn give_up(&mut self) {
        let reason = self.reason.clone();
        let forgets = matches!(Remote::state(self), State::Resuming | State::Error);
        if forgets || self.set_state(State::Running.as_u32()).is_err() {
            // What cannot even be reset tells the next one who tries.
            let _ = self.reset_device();
        }
        self.owner = None;
        // The first error is the one to report.
        self.reason = reason;
    }

    fn try_view(&mut self) -> Result<View, u32> {
        let size = self.region(CONFIG_REGION).size;
        let count = u32::try_from(size).map_err(|_| EIO)?;
        let mut config = vec![0; count as usize];
        let all = Access {
            offset: 0,
            region: CONFIG_REGION,
            count,
        };
        self.read(&all, &mut config)?;
        let is_serial = self.target.model().is_ok_and(|model| model == MODEL.name);
        Ok(View {
            config,
            idle: is_serial.then_some(IDLE_REGISTER),
        })
    }

    fn nobody_is_there(&mut self) -> Result<(), u32> {
        self.may_migrate(Owner::Remote)?;
        match self.open.is_some() {
            true => {
                let reason = "a vfio-user client is connected to the device";
                Err(self.refuse(reason.to_string(), EBUSY))
            }
            false => Ok(()),
        }
    }

    /// A remote call is told itself why it was refused.
    fn answer<T>(&mut self, result: Result<T, u32>) -> Result<T, Refusal> {
        let reason = self.take_refusal().map(str::to_string);
        result.map_err(|errno| Refusal {
            errno,
            reason: reason.unwrap_or_else(|| format!("error {errno}")),
        })
    }
}

impl Remote for Kernel {
    /// The instance's parameters are in its own files.
    fn facts(&self) -> Facts {
        Facts {
            model: self.target.model().unwrap_or_default(),
            version: None,
            params: Vec::new(),
        }
    }

    fn has_client(&self) -> bool {
        self.open.is_some()
    }

    fn state(&self) -> State {
        self.open.as_ref().map_or(State::Running, |open| open.state)
    }

    fn owner(&self) -> Option<Owner> {
        self.owner
    }

    fn begin(&mut self, purpose: Purpose, _system_ns: u64) -> Result<SessionName, Refusal> {
        let begun = self.try_begin(purpose);
        self.answer(begun)
    }

    fn next_saved(&mut self, session: SessionName, most: usize) -> Result<Vec<u8>, Refusal> {
        let saved = self.is_in(session).and_then(|()| self.read_state(most));
        self.answer(saved)
    }

    fn next_loaded(&mut self, session: SessionName, bytes: &[u8]) -> Result<(), Refusal> {
        let loaded = self.is_in(session).and_then(|()| self.write_state(bytes));
        self.answer(loaded)
    }

    fn put_into_effect(&mut self, session: SessionName, _system_ns: u64) -> Result<(), Refusal> {
        let put = self.go_on(session, State::Stop);
        self.answer(put)
    }

    fn view(&mut self) -> Result<View, Refusal> {
        let view = self.try_view();
        self.answer(view)
    }

    fn finish(&mut self, session: SessionName, _system_ns: u64) -> Result<(), Refusal> {
        let finished = self.go_on(session, State::Running);
        self.answer(finished)
    }

    fn abandon(&mut self, session: SessionName, _system_ns: u64) {
        if self.is_in(session).is_ok() {
            self.give_up();
        }
    }

    fn remote_reset(&mut self, _system_ns: u64) -> Result<(), Refusal> {
        let free = match self.owner {
            None => self.reset_device(),
            Some(Owner::Client) => self.may_migrate(Owner::Remote),
            Some(Owner::Remote) => self.may_migrate(Owner::Client),
        };
        self.answer(free)
    }

    fn is_unused(&mut self) -> Result<(), Refusal> {
        let unused = self.nobody_is_there();
        self.answer(unused)
    }
}
