// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What remote calls want of a device, whatever it is: see [`crate::model::Owner`] for who may migrate it.

use migration::fsm::State;

use crate::backend::Backend;
use crate::device::Device;
use crate::model::{Model, Owner, Purpose, Refusal, SessionName, View};
use crate::registry::{params, ParamInfo};

/// What a device is, as far as it takes a migration to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its device model.
    pub model: String,
    /// The version whose values its parameters have, if they are those of one.
    pub version: Option<String>,
    /// Its parameters, in declaration order.
    pub params: Vec<ParamInfo>,
}

/// A device that remote calls can migrate, too.
pub trait Remote: Backend {
    /// What it is.
    fn facts(&self) -> Facts;
    /// Whether a client is connected.
    fn has_client(&self) -> bool;
    /// The migration state.
    fn state(&self) -> State;
    /// Who has taken the device out of RUNNING, if somebody has.
    fn owner(&self) -> Option<Owner>;
    /// Begins a session. The device is stopped until it ends.
    fn begin(&mut self, purpose: Purpose, system_ns: u64) -> Result<SessionName, Refusal>;
    /// The next bytes of what is saved, as many as there are up to `most`; none at the end.
    fn next_saved(&mut self, session: SessionName, most: usize) -> Result<Vec<u8>, Refusal>;
    /// Takes the next bytes of what is loaded.
    fn next_loaded(&mut self, session: SessionName, bytes: &[u8]) -> Result<(), Refusal>;
    /// Puts what was loaded into effect, and leaves the device stopped; the session goes on. An error ends it.
    fn put_into_effect(&mut self, session: SessionName, system_ns: u64) -> Result<(), Refusal>;
    /// What a monitor has a copy of.
    fn view(&mut self) -> Result<View, Refusal>;
    /// Ends a session as intended: what was loaded is put into effect. The device runs again.
    fn finish(&mut self, session: SessionName, system_ns: u64) -> Result<(), Refusal>;
    /// Ends a session, if it still is that one. What was loaded is forgotten.
    fn abandon(&mut self, session: SessionName, system_ns: u64);
    /// Resets the device: not while somebody migrates it.
    fn remote_reset(&mut self, system_ns: u64) -> Result<(), Refusal>;
    /// Refuses if a client is connected or somebody migrates the device.
    fn is_unused(&mut self) -> Result<(), Refusal>;
}

impl<D: Device> Remote for Model<'_, D> {
    fn facts(&self) -> Facts {
        let values = self.values();
        Facts {
            model: values.model().name.to_string(),
            version: values.version().map(str::to_string),
            params: params(values),
        }
    }

    fn has_client(&self) -> bool {
        Model::has_client(self)
    }

    fn state(&self) -> State {
        Model::state(self)
    }

    fn owner(&self) -> Option<Owner> {
        Model::owner(self)
    }

    fn begin(&mut self, purpose: Purpose, system_ns: u64) -> Result<SessionName, Refusal> {
        Model::begin(self, purpose, system_ns)
    }

    fn next_saved(&mut self, session: SessionName, most: usize) -> Result<Vec<u8>, Refusal> {
        Model::next_saved(self, session, most)
    }

    fn next_loaded(&mut self, session: SessionName, bytes: &[u8]) -> Result<(), Refusal> {
        Model::next_loaded(self, session, bytes)
    }

    fn put_into_effect(&mut self, session: SessionName, system_ns: u64) -> Result<(), Refusal> {
        Model::put_into_effect(self, session, system_ns)
    }

    fn view(&mut self) -> Result<View, Refusal> {
        Ok(Model::view(self))
    }

    fn finish(&mut self, session: SessionName, system_ns: u64) -> Result<(), Refusal> {
        Model::finish(self, session, system_ns)
    }

    fn abandon(&mut self, session: SessionName, system_ns: u64) {
        Model::abandon(self, session, system_ns);
    }

    fn remote_reset(&mut self, system_ns: u64) -> Result<(), Refusal> {
        Model::remote_reset(self, system_ns)
    }

    fn is_unused(&mut self) -> Result<(), Refusal> {
        Model::is_unused(self)
    }
}
