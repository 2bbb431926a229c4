// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The state machine of one device, and the session that goes with its saving and resuming states.
//!
//! What each arc does is decided here; when it is taken, and what the time is then, by whoever has the device: its clock is to
//! stand at the time of the arc, and to run afterwards only if the state that was reached [is one in which the device
//! works](State::is_running).

use super::{data_size, Buffer, CommitError, Device, Left, Phase, Resuming, Saving};
use crate::fsm::{next_arc, Arc, State, Support, TransitionError, UnknownState};
use crate::model::Values;
use crate::reason::Reason;

/// What the arcs need of a device, beside what a session does.
pub trait Migratable: Device {
    /// A copy of the state that a stream goes to.
    fn incoming(&self) -> Result<Self::Incoming, Self::Error>;
    /// Bulk state is sent from now on, from the start.
    fn start_sending(&mut self) {}
    /// The device has stopped while it is saved: what is bulk state only then is sent as well from now on.
    fn send_rest(&mut self) {}
    /// Nothing is sent any longer.
    fn stop_sending(&mut self) {}
    /// The device works again after it was stopped. What it may have lost on the way is raised once more.
    fn resume(&mut self) {}
}

/// What goes on in a state with a session.
#[derive(Debug)]
pub enum Session<B, I> {
    /// In PRE_COPY, PRE_COPY_P2P and STOP_COPY.
    Saving(Saving<B>),
    /// In RESUMING.
    Resuming(Resuming<B, I>),
}

impl<B: Buffer, I> Session<B, I> {
    /// The phase that the stream has reached; `None` before the first record of one that is loaded was accepted.
    pub const fn phase(&self) -> Option<Phase> {
        match self {
            Self::Saving(saving) => Some(saving.phase()),
            Self::Resuming(resuming) => resuming.phase(),
        }
    }

    /// Bytes of the stream that were handed out or taken so far.
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Saving(saving) => saving.bytes(),
            Self::Resuming(resuming) => resuming.bytes(),
        }
    }
}

/// Why a state was not reached. The device is in the last one that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused<E> {
    /// The device has failed, and nothing but a reset leads on. For EIO.
    Failed,
    /// There is no such state, the device has not got it, or nothing leads there. For EINVAL.
    NoPath,
    /// The stream was refused, or is not complete. For EINVAL.
    Incomplete,
    /// The device does not do it.
    Device(E),
}

/// The migration state of a device. It begins as RUNNING, without a session.
#[derive(Debug)]
pub struct Machine<B, I> {
    state: State,
    session: Option<Session<B, I>>,
    /// How many sessions have begun.
    sessions: u64,
}

impl<B, I> Default for Machine<B, I> {
    fn default() -> Self {
        Self {
            state: State::Running,
            session: None,
            sessions: 0,
        }
    }
}

impl<B: Buffer, I> Machine<B, I> {
    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The session, if there is one.
    pub const fn session(&self) -> Option<&Session<B, I>> {
        self.session.as_ref()
    }

    /// The session, to be read from or written to.
    pub const fn session_mut(&mut self) -> Option<&mut Session<B, I>> {
        self.session.as_mut()
    }

    /// The saving session, if there is one.
    pub const fn saving(&self) -> Option<&Saving<B>> {
        match &self.session {
            Some(Session::Saving(saving)) => Some(saving),
            _ => None,
        }
    }

    /// The saving session, if there is one, to be read from.
    pub const fn saving_mut(&mut self) -> Option<&mut Saving<B>> {
        match &mut self.session {
            Some(Session::Saving(saving)) => Some(saving),
            _ => None,
        }
    }

    /// How many sessions have begun, which is also the last one's name.
    pub const fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Whether the session of this name goes on.
    pub const fn is_in(&self, name: u64) -> bool {
        self.session.is_some() && self.sessions == name
    }

    /// What is left of pre-copy; `None` outside of it.
    pub fn precopy_left<D: Device>(&self, device: &D) -> Option<Left> {
        match self.state {
            State::PreCopy | State::PreCopyP2p => Some(self.saving()?.left(device)),
            _ => None,
        }
    }

    /// Bytes that are to be transferred until the device is saved, at most. Never 0.
    pub fn data_size<D: Device>(&self, values: &Values<'_>, device: &D) -> usize {
        data_size(values, device, self.saving())
    }

    /// The state with this number, as one to go to. A refusal leaves its reason.
    pub fn target<E>(&self, number: u32, reason: &mut Reason) -> Result<State, Refused<E>> {
        // The error state is judged first: nothing but a reset leads out of it.
        match State::try_from(number) {
            _ if self.state == State::Error => {
                reason.set(format_args!("{}", TransitionError::Failed));
                Err(Refused::Failed)
            }
            Ok(target) => Ok(target),
            Err(unknown @ UnknownState(_)) => {
                reason.set(format_args!("{unknown}"));
                Err(Refused::NoPath)
            }
        }
    }

    /// The arc that comes next on the way there; `None` at the end of it. A refusal leaves its reason.
    pub fn next<E>(
        &self,
        target: State,
        support: Support,
        reason: &mut Reason,
    ) -> Result<Option<Arc>, Refused<E>> {
        next_arc(self.state, target, support).map_err(|error| {
            reason.set(format_args!("{error}"));
            match error {
                TransitionError::Failed => Refused::Failed,
                TransitionError::Unsupported(_) | TransitionError::Blocked { .. } => {
                    Refused::NoPath
                }
            }
        })
    }

    /// Takes an arc that [`Machine::next`] gave. Where a session is about to begin, `open` is told its name and whether it saves,
    /// and can still prevent it. Nothing has changed if this fails; of a stream that was refused, the reason is left.
    pub fn take<D: Migratable<Incoming = I>>(
        &mut self,
        arc: Arc,
        values: &Values<'_>,
        device: &mut D,
        reason: &mut Reason,
        open: impl FnOnce(u64, bool) -> Result<(), D::Error>,
    ) -> Result<(), Refused<D::Error>> {
        use Arc::*;

        let id = self.sessions + 1;
        match arc {
            RunningToPreCopy | RunningP2pToPreCopyP2p => {
                let saving = Saving::pre_copy(values).map_err(D::error);
                let saving = saving.map_err(Refused::Device)?;
                open(id, true).map_err(Refused::Device)?;
                device.start_sending();
                self.begin(Session::Saving(saving));
            }
            StopToStopCopy => {
                let saving = Saving::stop_copy(values, device).map_err(Refused::Device)?;
                open(id, true).map_err(Refused::Device)?;
                device.start_sending();
                device.send_rest();
                self.begin(Session::Saving(saving));
            }
            PreCopyToStopCopy | PreCopyP2pToStopCopy => {
                if let Some(Session::Saving(saving)) = &mut self.session {
                    saving.stop(values, device).map_err(Refused::Device)?;
                    device.send_rest();
                }
            }
            StopToResuming => {
                let incoming = device.incoming().map_err(Refused::Device)?;
                open(id, false).map_err(Refused::Device)?;
                self.begin(Session::Resuming(Resuming::new(incoming)));
                reason.clear();
            }
            ResumingToStop => {
                if let Some(Session::Resuming(resuming)) = &mut self.session {
                    let committed = resuming.commit(device, reason);
                    committed.map_err(|error| match error {
                        CommitError::Incomplete => Refused::Incomplete,
                        CommitError::Device(error) => Refused::Device(error),
                    })?;
                }
                self.end(device);
            }
            PreCopyToRunning | PreCopyP2pToRunningP2p | StopCopyToStop => self.end(device),
            StopToRunning | StopToRunningP2p => device.resume(),
            // Nothing happens in a device between two calls, and it starts no DMA by itself.
            RunningToStop | RunningToRunningP2p | RunningP2pToRunning | RunningP2pToStop
            | PreCopyToPreCopyP2p | PreCopyP2pToPreCopy => {}
        }
        self.state = arc.to();
        Ok(())
    }

    fn begin(&mut self, session: Session<B, I>) {
        self.sessions += 1;
        self.session = Some(session);
    }

    fn end<D: Migratable<Incoming = I>>(&mut self, device: &mut D) {
        if let Some(Session::Saving(_)) = self.session.take() {
            device.stop_sending();
        }
    }

    /// The device has failed: its session is over, and nothing but a reset leads on.
    pub fn fail<D: Migratable<Incoming = I>>(&mut self, device: &mut D) {
        self.end(device);
        self.state = State::Error;
    }

    /// The device was reset, or its user is gone: RUNNING, without a session.
    pub fn reset<D: Migratable<Incoming = I>>(&mut self, device: &mut D) {
        self.end(device);
        self.state = State::Running;
    }
}
