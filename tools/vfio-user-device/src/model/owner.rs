// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Who migrates a device: its client, or a remote call.
//!
//! The rule is the one between the protocols of the driver. Whoever takes a device out of RUNNING has it until it runs again
//! without a session, and the other one gets `EBUSY` meanwhile. It is about sessions, and not about connections: a monitor that has
//! stopped its guest stays connected while somebody else takes the device's state. States and sessions are the client's own, by the
//! same machine.

use migration::fsm::State;
use migration::model::Values;
use vfio_user_protocol::refusal::errno::{EBUSY, EIO, ENODEV, ENOMEM};

use super::Model;
use crate::backend::Backend;
use crate::device::{accesses, Device, CONFIG_REGION};

/// Who migrates a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The vfio-user client.
    Client,
    /// A remote call.
    Remote,
}

/// What a remote call wants a session for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The device is saved.
    Save,
    /// The device is loaded.
    Load,
}

/// The name of a session, which no other one of the device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionName(pub(crate) u64);

/// What a monitor has a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Configuration space.
    pub config: Vec<u8>,
    /// Region and offset of a register whose reading has no effect, if there is one.
    pub idle: Option<(u32, u64)>,
}

/// Why a remote call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: u32,
    /// What is the matter, for people.
    pub reason: String,
}

impl<'v, D: Device> Model<'v, D> {
    /// Who has taken the device out of RUNNING, if somebody has.
    pub fn owner(&self) -> Option<Owner> {
        self.owner
    }

    /// Whether a client is connected.
    pub fn has_client(&self) -> bool {
        self.has_client
    }

    /// The migration state.
    pub fn state(&self) -> State {
        self.migration.machine.state()
    }

    /// The values of the migration parameters.
    pub fn values(&self) -> &Values<'v> {
        &self.values
    }

    /// Refuses whoever is not the owner, if there is one.
    pub(super) fn may_migrate(&mut self, who: Owner) -> Result<(), u32> {
        match self.owner {
            Some(owner) if owner != who => {
                let reason = match owner {
                    Owner::Client => "the vfio-user client migrates the device",
                    Owner::Remote => "a remote call saves or loads the device",
                };
                Err(self.migration.refuse(format_args!("{reason}"), EBUSY))
            }
            _ => Ok(()),
        }
    }

    /// The state was changed: whoever did that keeps the device until it runs again without a session.
    pub(super) fn settle_owner(&mut self, who: Owner) {
        let machine = &self.migration.machine;
        let free = machine.state() == State::Running && machine.session().is_none();
        self.owner = (!free).then_some(who);
    }

    /// Ends whatever session there is. The device runs, with the registers that it had.
    pub(super) fn close_session(&mut self) {
        self.migration.close(&mut self.device);
        self.owner = None;
        self.tell_active();
    }

    /// Begins a session for a remote call. The device is stopped until it ends.
    pub fn begin(&mut self, purpose: Purpose, system_ns: u64) -> Result<SessionName, Refusal> {
        let begun = self.try_begin(purpose, system_ns);
        self.answer(begun)
    }

    fn try_begin(&mut self, purpose: Purpose, system_ns: u64) -> Result<SessionName, u32> {
        self.may_migrate(Owner::Remote)?;
        if self.owner.is_some() {
            let reason = format_args!("another remote call saves or loads the device");
            return Err(self.migration.refuse(reason, EBUSY));
        }
        self.tell_time(system_ns);
        let target = match purpose {
            Purpose::Save => State::StopCopy,
            Purpose::Load => State::Resuming,
        };
        let reached = self.set_state(target.as_u32(), system_ns);
        self.settle_owner(Owner::Remote);
        if let Err(errno) = reached {
            self.give_up(system_ns);
            return Err(errno);
        }
        Ok(SessionName(self.migration.machine.sessions()))
    }

    /// Whether the session is still that one: a reset of the device ends it.
    fn is_in(&mut self, session: SessionName) -> Result<(), u32> {
        let same = SessionName(self.migration.machine.sessions()) == session;
        match same && self.owner == Some(Owner::Remote) {
            true => Ok(()),
            false => {
                let reason = format_args!("the device was reset meanwhile");
                Err(self.migration.refuse(reason, ENODEV))
            }
        }
    }

    /// The next bytes of what is saved, as many as there are up to `most`; none at the end.
    pub fn next_saved(&mut self, session: SessionName, most: usize) -> Result<Vec<u8>, Refusal> {
        let saved = self.is_in(session);
        let saved = saved.and_then(|()| self.migration.read(&mut self.device, most));
        self.answer(saved)
    }

    /// Takes the next bytes of what is loaded.
    pub fn next_loaded(&mut self, session: SessionName, bytes: &[u8]) -> Result<(), Refusal> {
        let loaded = self.is_in(session).and_then(|()| {
            let (values, device) = (&self.values, &self.device);
            self.migration.write(values, device, bytes)
        });
        self.answer(loaded)
    }

    /// Puts what was loaded into effect, and leaves the device stopped; the session goes on. An error ends it: the device runs as it
    /// was.
    pub fn put_into_effect(&mut self, session: SessionName, system_ns: u64) -> Result<(), Refusal> {
        let put = self.is_in(session).and_then(|()| {
            let reached = self.set_state(State::Stop.as_u32(), system_ns);
            if reached.is_err() {
                self.give_up(system_ns);
            }
            reached
        });
        self.answer(put)
    }

    /// What a monitor has a copy of: configuration space, and where a register can be read without an effect.
    pub fn view(&mut self) -> View {
        let size = self.device.region(CONFIG_REGION).size;
        let mut config = vec![0; usize::try_from(size).unwrap_or(0)];
        for part in accesses(CONFIG_REGION, 0, config.len()) {
            let at = part.start as u64;
            if let Some(bytes) = config.get_mut(part) {
                self.device.read(CONFIG_REGION, at, bytes);
            }
        }
        View {
            config,
            idle: self.device.idle_register(),
        }
    }

    /// Ends a session as intended: what was loaded is put into effect. The device runs again; as it was, if that is refused.
    pub fn finish(&mut self, session: SessionName, system_ns: u64) -> Result<(), Refusal> {
        let finished = self.is_in(session).and_then(|()| {
            let reached = self.set_state(State::Running.as_u32(), system_ns);
            self.settle_owner(Owner::Remote);
            if reached.is_err() {
                self.give_up(system_ns);
            }
            reached
        });
        self.settle();
        self.answer(finished)
    }

    /// Ends a session, if it still is that one. What was loaded is forgotten, and the device runs with the registers that it had.
    pub fn abandon(&mut self, session: SessionName, system_ns: u64) {
        if SessionName(self.migration.machine.sessions()) == session
            && self.owner == Some(Owner::Remote)
        {
            self.give_up(system_ns);
            self.settle();
        }
    }

    fn give_up(&mut self, system_ns: u64) {
        self.close_session();
        self.run_clock(system_ns);
    }

    /// Resets the device for a remote call: not while somebody migrates it.
    pub fn remote_reset(&mut self, system_ns: u64) -> Result<(), Refusal> {
        let free = self.is_free();
        if free.is_ok() {
            self.tell_time(system_ns);
            self.reset_device(system_ns);
            self.settle();
        }
        self.answer(free)
    }

    /// Refuses everybody while somebody migrates the device.
    fn is_free(&mut self) -> Result<(), u32> {
        self.may_migrate(Owner::Remote)?;
        self.may_migrate(Owner::Client)
    }

    /// Gives the device other parameters, which takes a new one, in power-on state. Not while somebody uses it.
    pub fn replace(
        &mut self,
        values: Values<'v>,
        make: impl FnOnce(&Values<'v>) -> D,
    ) -> Result<(), Refusal> {
        let free = self.is_free().and_then(|()| self.has_nobody());
        if free.is_ok() && values != self.values {
            let sessions = self.migration.sessions();
            *self = Self::new(make(&values), values);
            self.migration.earlier_sessions = sessions;
        }
        self.answer(free)
    }

    /// Refuses if a client is connected or somebody migrates the device.
    pub fn is_unused(&mut self) -> Result<(), Refusal> {
        let free = self.is_free().and_then(|()| self.has_nobody());
        self.answer(free)
    }

    fn has_nobody(&mut self) -> Result<(), u32> {
        match self.has_client {
            true => {
                let reason = format_args!("a vfio-user client is connected to the device");
                Err(self.migration.refuse(reason, EBUSY))
            }
            false => Ok(()),
        }
    }

    /// A remote call is told itself why it was refused.
    fn answer<T>(&mut self, result: Result<T, u32>) -> Result<T, Refusal> {
        let reason = self.migration.take_news().map(str::to_string);
        result.map_err(|errno| Refusal {
            errno,
            reason: reason.unwrap_or_else(|| match errno {
                ENOMEM => "there is no memory".to_string(),
                ENODEV => "the stream was refused before".to_string(),
                EIO => "the device has failed".to_string(),
                errno => format!("error {errno}"),
            }),
        })
    }
}
