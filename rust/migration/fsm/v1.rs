// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The states of migration protocol v1: three bits in the first field of the migration region
//! (`device_state` of `struct vfio_device_migration_info`, linux/vfio.h).
//!
//! Each legal combination of bits is one state of protocol v2, so a device implements the arcs of
//! v2 and serves both. [`target`] judges what user space wrote; the caller then walks from
//! [`State::v2`] of the old state to that of the new one with [`super::next_arc`].
//!
//! | bits | state | v2 |
//! |---|---|---|
//! | 000 | stop | STOP |
//! | 001 | running | RUNNING |
//! | 010 | stop-and-copy | STOP_COPY |
//! | 011 | pre-copy | PRE_COPY |
//! | 100 | resuming | RESUMING |
//! | 110 | error (never written by user space) | ERROR |
//! | 101, 111 | none | |

use core::fmt;

/// `VFIO_DEVICE_STATE_V1_RUNNING`.
pub const RUNNING: u32 = 1 << 0;
/// `VFIO_DEVICE_STATE_V1_SAVING`.
pub const SAVING: u32 = 1 << 1;
/// `VFIO_DEVICE_STATE_V1_RESUMING`.
pub const RESUMING: u32 = 1 << 2;

/// A state of protocol v1; the numbers are the bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// Stopped, no session.
    Stop = 0,
    /// Normal operation, and the state after open and after reset.
    Running = RUNNING,
    /// Stopped; the rest of the state can be read.
    StopCopy = SAVING,
    /// Running; state can be read ahead.
    PreCopy = SAVING | RUNNING,
    /// Stopped; a state is being loaded.
    Resuming = RESUMING,
    /// The device has failed; only a reset leaves this state.
    Error = RESUMING | SAVING,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [State; 6] = [
        State::Stop,
        State::Running,
        State::StopCopy,
        State::PreCopy,
        State::Resuming,
        State::Error,
    ];

    /// The bits user space reads and writes.
    pub const fn bits(self) -> u32 {
        self as u32
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            State::Stop => "stop",
            State::Running => "running",
            State::StopCopy => "stop-and-copy",
            State::PreCopy => "pre-copy",
            State::Resuming => "resuming",
            State::Error => "error",
        }
    }

    /// The state of protocol v2 that means the same.
    pub const fn v2(self) -> super::State {
        match self {
            State::Stop => super::State::Stop,
            State::Running => super::State::Running,
            State::StopCopy => super::State::StopCopy,
            State::PreCopy => super::State::PreCopy,
            State::Resuming => super::State::Resuming,
            State::Error => super::State::Error,
        }
    }

    /// What a reader of the v1 region sees while the device is in a v2 state.
    ///
    /// The P2P states, which v1 does not know, read as the running state they refine. They are met
    /// only where a walk over several arcs failed half way.
    pub const fn from_v2(state: super::State) -> State {
        match state {
            super::State::Error => State::Error,
            super::State::Stop => State::Stop,
            super::State::Running | super::State::RunningP2p => State::Running,
            super::State::StopCopy => State::StopCopy,
            super::State::Resuming => State::Resuming,
            super::State::PreCopy | super::State::PreCopyP2p => State::PreCopy,
        }
    }

    /// Whether user space may ask for the transition: those drawn in the protocol's text, the ways
    /// back to running, saving and loading a stopped device, and staying where it is.
    ///
    /// Nobody asks for the error state, and nothing but a reset leaves it.
    pub const fn may_go_to(self, to: State) -> bool {
        use State::*;

        match (self, to) {
            (Error, _) | (_, Error) => false,
            (Stop, Stop | Running | StopCopy | Resuming) => true,
            (Running, _) => true,
            (StopCopy, StopCopy | Stop | Running) => true,
            (PreCopy, PreCopy | StopCopy | Running) => true,
            (Resuming, Resuming | Running) => true,
            _ => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl TryFrom<u32> for State {
    type Error = TargetError;

    fn try_from(bits: u32) -> Result<Self, TargetError> {
        Self::ALL
            .into_iter()
            .find(|state| state.bits() == bits)
            .ok_or(TargetError::Malformed(bits))
    }
}

/// Why a value written to the state field is refused. For EINVAL, the state unchanged; [`Failed`]
/// for EIO.
///
/// [`Failed`]: TargetError::Failed
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// The device is in the error state and has to be reset first.
    Failed,
    /// The bits are no state: running or saving together with resuming, or a reserved bit.
    Malformed(u32),
    /// Both are states, but the protocol knows no way from one to the other.
    Blocked {
        /// The state the device is in.
        from: State,
        /// The state asked for.
        to: State,
    },
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("the device has failed and must be reset"),
            Self::Malformed(bits) => write!(f, "{bits:#x} is no v1 migration state"),
            Self::Blocked { from, to } => write!(f, "no v1 transition leads from {from} to {to}"),
        }
    }
}

/// The state that user space asks for by writing `bits` while the device is in `current`.
pub fn target(current: State, bits: u32) -> Result<State, TargetError> {
    if current == State::Error {
        return Err(TargetError::Failed);
    }
    let to = State::try_from(bits)?;
    if current.may_go_to(to) {
        Ok(to)
    } else {
        Err(TargetError::Blocked { from: current, to })
    }
}
