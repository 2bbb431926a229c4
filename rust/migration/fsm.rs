// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The migration states of a VFIO device (protocol v2) and the way from one to another.
//!
//! User space asks for a *target* state; the driver walks there one [`Arc`] at a time. Which arc
//! comes next is a pure function of the state it is in, the target, and which optional states the
//! device has: [`next`]. The states, the arcs and the rules for choosing a path are those of
//! `enum vfio_device_mig_state` in linux/vfio.h, and [`next`] answers as `vfio_mig_get_next_state()`
//! of Linux 7.3 documents:
//!
//! * the shortest path;
//! * no path leads *through* RESUMING, nor through a saving state (PRE_COPY, PRE_COPY_P2P,
//!   STOP_COPY) unless it stays among them from end to end;
//! * states the device lacks are stepped over;
//! * STOP_COPY never goes back to a pre-copy state, and nothing goes to ERROR on request.
//!
//! One difference: the kernel's function warns when it is asked about a device in ERROR, which any
//! user can bring about. Here that is [`TransitionError::Failed`], for EIO.
//!
//! [`v1`] holds the three state bits of the older protocol and maps them onto the same states.

use core::fmt;

pub mod v1;

#[cfg(test)]
mod tests;

/// A migration state; the numbers are those of `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// The device has failed; only a reset leaves this state.
    Error = 0,
    /// The device changes neither its own state nor anything outside it.
    Stop = 1,
    /// Normal operation, and the state after open and after reset.
    Running = 2,
    /// Stopped; what is left of the state can be read.
    StopCopy = 3,
    /// Stopped; a new state is being loaded.
    Resuming = 4,
    /// Running, but starting no peer-to-peer DMA. Optional: [`Support::p2p`].
    RunningP2p = 5,
    /// Running, while state can be read ahead. Optional: [`Support::precopy`].
    PreCopy = 6,
    /// Both of the last two. Optional: needs both.
    PreCopyP2p = 7,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [State; 8] = [
        State::Error,
        State::Stop,
        State::Running,
        State::StopCopy,
        State::Resuming,
        State::RunningP2p,
        State::PreCopy,
        State::PreCopyP2p,
    ];

    /// The number user space knows the state by.
    pub const fn as_u32(self) -> u32 {
        self as u32
    }

    /// The name for people, as linux/vfio.h spells it without its prefix.
    pub const fn name(self) -> &'static str {
        match self {
            State::Error => "ERROR",
            State::Stop => "STOP",
            State::Running => "RUNNING",
            State::StopCopy => "STOP_COPY",
            State::Resuming => "RESUMING",
            State::RunningP2p => "RUNNING_P2P",
            State::PreCopy => "PRE_COPY",
            State::PreCopyP2p => "PRE_COPY_P2P",
        }
    }

    /// Whether a device with this support can be in the state. Every device can fail.
    pub const fn is_supported(self, support: Support) -> bool {
        match self {
            State::RunningP2p => support.p2p,
            State::PreCopy => support.precopy,
            State::PreCopyP2p => support.p2p && support.precopy,
            _ => true,
        }
    }

    /// Whether the device works: the guest's accesses take effect, interrupts are raised.
    pub const fn is_running(self) -> bool {
        matches!(
            self,
            State::Running | State::RunningP2p | State::PreCopy | State::PreCopyP2p
        )
    }

    /// Whether the device may access memory: it works, and peers are not to see it.
    pub const fn may_access_memory(self) -> bool {
        matches!(self, State::Running | State::PreCopy)
    }

    /// Whether a saving session exists: state can be read from its data file.
    pub const fn is_saving(self) -> bool {
        matches!(self, State::StopCopy | State::PreCopy | State::PreCopyP2p)
    }

    /// Whether a session exists at all, saving or resuming.
    pub const fn has_session(self) -> bool {
        self.is_saving() || matches!(self, State::Resuming)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The number names no migration state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownState(pub u32);

impl fmt::Display for UnknownState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a migration state", self.0)
    }
}

impl TryFrom<u32> for State {
    type Error = UnknownState;

    fn try_from(number: u32) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_u32() == number)
            .ok_or(UnknownState(number))
    }
}

/// Which optional states a device has. STOP_COPY is not optional for a migratable device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Support {
    /// PRE_COPY (`VFIO_MIGRATION_PRE_COPY`).
    pub precopy: bool,
    /// RUNNING_P2P (`VFIO_MIGRATION_P2P`).
    pub p2p: bool,
}

impl Support {
    /// `VFIO_MIGRATION_STOP_COPY`, which every migratable device has.
    const STOP_COPY: u64 = 1 << 0;
    /// `VFIO_MIGRATION_P2P`.
    const P2P: u64 = 1 << 1;
    /// `VFIO_MIGRATION_PRE_COPY`.
    const PRE_COPY: u64 = 1 << 2;

    /// The flags of `VFIO_DEVICE_FEATURE_MIGRATION` that tell user space the same.
    pub const fn flags(self) -> u64 {
        Self::STOP_COPY
            | if self.p2p { Self::P2P } else { 0 }
            | if self.precopy { Self::PRE_COPY } else { 0 }
    }
}

/// Why there is no way to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransitionError {
    /// The device is in ERROR and has to be reset first. For EIO.
    Failed,
    /// One of the two states is among those the device does not have. For EINVAL.
    Unsupported(State),
    /// The protocol does not allow it: any state to ERROR, STOP_COPY to a pre-copy state. For EINVAL.
    Blocked {
        /// The state the device is in.
        from: State,
        /// The target.
        to: State,
    },
}

impl fmt::Display for TransitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("the device has failed and must be reset"),
            Self::Unsupported(state) => write!(f, "this device has no state {state}"),
            Self::Blocked { from, to } => write!(f, "no transition leads from {from} to {to}"),
        }
    }
}

/// The next state on the way from `current` to `target`: `target` itself if they are equal or one
/// arc apart.
///
/// The caller takes one step, records the new state, and asks again until it is there; a step that
/// fails leaves the device in the last state reached.
pub const fn next(
    current: State,
    target: State,
    support: Support,
) -> Result<State, TransitionError> {
    // Before anything else: a failed device answers EIO whatever is asked of it.
    if matches!(current, State::Error) {
        return Err(TransitionError::Failed);
    }
    if !current.is_supported(support) {
        return Err(TransitionError::Unsupported(current));
    }
    if !target.is_supported(support) {
        return Err(TransitionError::Unsupported(target));
    }
    // Where the device lacks the state a step leads to, it takes the following step at once.
    let mut state = current;
    loop {
        state = match step(state, target) {
            Some(state) => state,
            None => {
                return Err(TransitionError::Blocked {
                    from: current,
                    to: target,
                })
            }
        };
        if state.is_supported(support) {
            return Ok(state);
        }
    }
}

/// [`next`] for a device that has every state; `None` where no path exists.
const fn step(from: State, to: State) -> Option<State> {
    use State::*;

    Some(match (from, to) {
        (Error, _) | (_, Error) => return None,

        (Running, Running | PreCopy) => to,
        (Running, Stop | StopCopy | Resuming | RunningP2p | PreCopyP2p) => RunningP2p,

        (RunningP2p, Running | Stop | RunningP2p | PreCopyP2p) => to,
        (RunningP2p, PreCopy) => Running,
        (RunningP2p, StopCopy | Resuming) => Stop,

        (Stop, Stop | StopCopy | Resuming) => to,
        (Stop, Running | RunningP2p | PreCopy | PreCopyP2p) => RunningP2p,

        (PreCopy, Running | PreCopy | PreCopyP2p) => to,
        (PreCopy, StopCopy) => PreCopyP2p,
        (PreCopy, Stop | Resuming | RunningP2p) => Running,

        (PreCopyP2p, PreCopy | PreCopyP2p | StopCopy) => to,
        (PreCopyP2p, Running | RunningP2p | Stop | Resuming) => RunningP2p,

        (StopCopy, StopCopy) => to,
        (StopCopy, PreCopy | PreCopyP2p) => return None,
        (StopCopy, Stop | Running | RunningP2p | Resuming) => Stop,

        (Resuming, Resuming) => to,
        (Resuming, _) => Stop,
    })
}

/// The arcs: transitions between neighbouring states, which are what a driver implements.
///
/// Which of them a device meets depends on its optional states: [`Arc::is_used_with`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arc {
    /// Stop all operation and start loading a new state. Opens a resuming session.
    StopToResuming,
    /// The loaded state takes effect, or is refused. Ends the resuming session.
    ResumingToStop,
    /// Open a saving session with the device stopped.
    StopToStopCopy,
    /// End the saving session; the device stays stopped.
    StopCopyToStop,
    /// Stop everything. Devices without P2P only.
    RunningToStop,
    /// Start again. Devices without P2P only.
    StopToRunning,
    /// Start no more peer-to-peer DMA and wait for what is under way.
    RunningToRunningP2p,
    /// Allow peer-to-peer DMA again.
    RunningP2pToRunning,
    /// Stop everything.
    RunningP2pToStop,
    /// Start again, but for peer-to-peer DMA.
    StopToRunningP2p,
    /// Open a saving session beside normal operation.
    RunningToPreCopy,
    /// End the saving session, for example because the migration was cancelled.
    PreCopyToRunning,
    /// Stop, and go on with the same session. Devices without P2P only.
    PreCopyToStopCopy,
    /// Start no more peer-to-peer DMA, in the same session.
    PreCopyToPreCopyP2p,
    /// Allow peer-to-peer DMA again, in the same session.
    PreCopyP2pToPreCopy,
    /// End the saving session.
    PreCopyP2pToRunningP2p,
    /// Open a saving session.
    RunningP2pToPreCopyP2p,
    /// Stop, and go on with the same session.
    PreCopyP2pToStopCopy,
}

impl Arc {
    /// All arcs.
    pub const ALL: [Arc; 18] = [
        Arc::StopToResuming,
        Arc::ResumingToStop,
        Arc::StopToStopCopy,
        Arc::StopCopyToStop,
        Arc::RunningToStop,
        Arc::StopToRunning,
        Arc::RunningToRunningP2p,
        Arc::RunningP2pToRunning,
        Arc::RunningP2pToStop,
        Arc::StopToRunningP2p,
        Arc::RunningToPreCopy,
        Arc::PreCopyToRunning,
        Arc::PreCopyToStopCopy,
        Arc::PreCopyToPreCopyP2p,
        Arc::PreCopyP2pToPreCopy,
        Arc::PreCopyP2pToRunningP2p,
        Arc::RunningP2pToPreCopyP2p,
        Arc::PreCopyP2pToStopCopy,
    ];

    /// The states the arc joins: (from, to).
    pub const fn ends(self) -> (State, State) {
        use State::*;

        match self {
            Arc::StopToResuming => (Stop, Resuming),
            Arc::ResumingToStop => (Resuming, Stop),
            Arc::StopToStopCopy => (Stop, StopCopy),
            Arc::StopCopyToStop => (StopCopy, Stop),
            Arc::RunningToStop => (Running, Stop),
            Arc::StopToRunning => (Stop, Running),
            Arc::RunningToRunningP2p => (Running, RunningP2p),
            Arc::RunningP2pToRunning => (RunningP2p, Running),
            Arc::RunningP2pToStop => (RunningP2p, Stop),
            Arc::StopToRunningP2p => (Stop, RunningP2p),
            Arc::RunningToPreCopy => (Running, PreCopy),
            Arc::PreCopyToRunning => (PreCopy, Running),
            Arc::PreCopyToStopCopy => (PreCopy, StopCopy),
            Arc::PreCopyToPreCopyP2p => (PreCopy, PreCopyP2p),
            Arc::PreCopyP2pToPreCopy => (PreCopyP2p, PreCopy),
            Arc::PreCopyP2pToRunningP2p => (PreCopyP2p, RunningP2p),
            Arc::RunningP2pToPreCopyP2p => (RunningP2p, PreCopyP2p),
            Arc::PreCopyP2pToStopCopy => (PreCopyP2p, StopCopy),
        }
    }

    /// The state the arc starts from.
    pub const fn from(self) -> State {
        self.ends().0
    }

    /// The state the arc leads to.
    pub const fn to(self) -> State {
        self.ends().1
    }

    /// The arc between two states, if there is one.
    pub fn between(from: State, to: State) -> Option<Arc> {
        *BETWEEN.get(from as usize)?.get(to as usize)?
    }

    /// Whether a device with this support meets the arc.
    pub const fn is_used_with(self, support: Support) -> bool {
        let (from, to) = self.ends();
        // A device with P2P passes through RUNNING_P2P and PRE_COPY_P2P instead.
        let past_p2p = matches!(
            self,
            Arc::RunningToStop | Arc::StopToRunning | Arc::PreCopyToStopCopy
        );
        from.is_supported(support) && to.is_supported(support) && !(past_p2p && support.p2p)
    }

    /// Whether taking the arc opens a session, that is returns a new data file.
    pub const fn opens_session(self) -> bool {
        let (from, to) = self.ends();
        !from.has_session() && to.has_session()
    }

    /// Whether taking the arc ends the session: its data file answers ENODEV from now on.
    pub const fn ends_session(self) -> bool {
        let (from, to) = self.ends();
        from.has_session() && !to.has_session()
    }
}

/// How many states there are: their numbers start at 0.
const STATES: usize = State::ALL.len();

/// The arc between two states, by their numbers.
static BETWEEN: [[Option<Arc>; STATES]; STATES] = {
    let mut between = [[None; STATES]; STATES];
    let mut i = 0;
    while i < Arc::ALL.len() {
        let arc = Arc::ALL[i];
        let (from, to) = arc.ends();
        between[from as usize][to as usize] = Some(arc);
        i += 1;
    }
    between
};

impl fmt::Display for Arc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = self.ends();
        write!(f, "{from} -> {to}")
    }
}

/// The next arc on the way from `current` to `target`; `None` once they are equal.
///
/// The same answer as [`next`], in the form a driver matches on.
pub fn next_arc(
    current: State,
    target: State,
    support: Support,
) -> Result<Option<Arc>, TransitionError> {
    Ok(Arc::between(current, next(current, target, support)?))
}
