// SPDX-License-Identifier: GPL-2.0

//! The state machine of one instance, and the session that goes with its saving and resuming states.
//!
//! What a session is, and the stream that it makes or takes, is [`::migration::session`]; here it gets the kernel's memory and
//! errors, and a device of this crate.

use crate::mapped::{self, Memory};
use crate::model::Device;
use ::migration::fsm::{State, Support};
use ::migration::model::Values;
use ::migration::session::{
    self as pure, CommitError, Emit, Failure, NoMemory, Phase, Remaining, SavedSize,
};
use ::migration::stream::{ErrorClass, Refusal, DEVICE_SECTIONS};
use core::fmt::Write;
use kernel::prelude::*;

/// A session that gives the state out.
pub(crate) type Saving = pure::Saving<Buffer>;
/// A session that takes a state in.
pub(crate) type Resuming<T> = pure::Resuming<Buffer, Incoming<T>>;
/// Bytes of a saving session on their way to user space.
pub(crate) type Chunk = pure::Chunk<Buffer>;

/// What every device of this crate supports: pre-copy and peer-to-peer states beside stop-and-copy.
pub(crate) const SUPPORT: Support = Support {
    precopy: true,
    p2p: true,
};

/// The phase of a device without a session.
pub(crate) const NO_PHASE: &str = "none";

/// Names a session, so that a data file can tell whether it is still its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionId(u64);

/// The migration side of an instance.
pub(crate) struct Migration<T: Device> {
    /// The state the device is in.
    pub(crate) current: State,
    pub(crate) session: Option<Session<T>>,
    /// Which protocol has taken the device out of RUNNING.
    owner: Option<Protocol>,
    /// Where the migration region stands in its session.
    pub(crate) window: Window,
    /// How many sessions have begun since the instance was made; the last one's name.
    sessions: u64,
    /// Somebody who polls may wait for more to be read.
    drained: bool,
}

/// Where the migration region of protocol v1 stands in a saving session.
pub(crate) struct Window {
    /// The bytes that come next.
    pub(crate) chunk: Chunk,
    /// Bytes of the piece that the user has been offered; 0 when there is none.
    pub(crate) offered: usize,
    /// Whether the user knows how long the piece is, and so may have read it.
    pub(crate) announced: bool,
    /// How many pieces were offered; the last one's name.
    pub(crate) pieces: u64,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            chunk: Chunk::new(),
            offered: 0,
            announced: false,
            pieces: 0,
        }
    }
}

/// The two migration protocols. They share the state machine, the session and the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The migration region.
    V1,
    /// The features and the data file.
    V2,
}

/// What goes on in a state with a session.
pub(crate) enum Session<T: Device> {
    /// In PRE_COPY, PRE_COPY_P2P and STOP_COPY.
    Saving(Saving),
    /// In RESUMING.
    Resuming(Resuming<T>),
}

impl<T: Device> Session<T> {
    /// The phase that the stream has reached, for people; `setup` before the first record has been accepted.
    fn phase(&self) -> &'static str {
        match self {
            Self::Saving(saving) => saving.phase().name(),
            Self::Resuming(resuming) => resuming.phase().map_or("setup", Phase::name),
        }
    }

    /// Bytes of the stream that were handed out or taken so far.
    fn bytes(&self) -> u64 {
        match self {
            Self::Saving(saving) => saving.bytes(),
            Self::Resuming(resuming) => resuming.bytes(),
        }
    }
}

impl<T: Device> Migration<T> {
    pub(crate) fn new() -> Self {
        Self {
            current: State::Running,
            session: None,
            owner: None,
            window: Window::new(),
            sessions: 0,
            drained: false,
        }
    }

    /// Whether the device has effects: interrupts and changes of its own.
    pub(crate) fn is_running(&self) -> bool {
        self.current.is_running()
    }

    /// Whether the protocol may change the state: the other one has not taken the device out of RUNNING. `EBUSY` if it has.
    pub(crate) fn claim(&self, protocol: Protocol) -> Result {
        match self.owner {
            Some(owner) if owner != protocol => Err(EBUSY),
            _ => Ok(()),
        }
    }

    /// Whether the protocol has taken the device out of RUNNING.
    pub(crate) fn is_owned_by(&self, protocol: Protocol) -> bool {
        self.owner == Some(protocol)
    }

    /// The protocol has changed the state: it keeps the device until it runs again without a session.
    pub(crate) fn settle_owner(&mut self, protocol: Protocol) {
        let free = self.current == State::Running && self.session.is_none();
        self.owner = (!free).then_some(protocol);
    }

    /// The session ends, if there is one: nothing is sent any longer.
    pub(crate) fn end(&mut self, device: &mut T) {
        if let Some(Session::Saving(_)) = self.session.take() {
            device.stop_sending();
            if let Some(memory) = device.memory() {
                memory.stop_sending();
            }
        }
        self.window = Window {
            pieces: self.window.pieces,
            ..Window::new()
        };
        self.drained = false;
    }

    /// The device was reset: running, without a session. The log is the user's and stays.
    pub(crate) fn reset(&mut self, device: &mut T) {
        self.end(device);
        self.current = State::Running;
        self.owner = None;
    }

    /// The last user is gone.
    pub(crate) fn close(&mut self, device: &mut T) {
        self.reset(device);
    }

    /// The phase of the session, for people, and the bytes of its stream so far.
    pub(crate) fn progress(&self) -> (&'static str, u64) {
        match &self.session {
            Some(session) => (session.phase(), session.bytes()),
            None => (NO_PHASE, 0),
        }
    }

    /// The name of the session that begins next.
    pub(crate) fn next_id(&self) -> SessionId {
        SessionId(self.sessions + 1)
    }

    /// A session begins. It has the name that [`Migration::next_id`] gave.
    pub(crate) fn begin(&mut self, session: Session<T>) {
        self.sessions += 1;
        self.session = Some(session);
    }

    /// How many sessions have begun since the instance was made. Who finds more than before knows of a session that it has not
    /// seen.
    pub(crate) fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Whether the session of this name goes on.
    pub(crate) fn is_session(&self, id: SessionId) -> bool {
        self.session.is_some() && id == SessionId(self.sessions)
    }

    /// The saving session, if there is one, and where the region stands in it.
    pub(crate) fn any_saving(&mut self) -> Option<(&mut Saving, &mut Window)> {
        match &mut self.session {
            Some(Session::Saving(saving)) => Some((saving, &mut self.window)),
            _ => None,
        }
    }

    /// The saving session of this name, if it goes on.
    pub(crate) fn saving(&mut self, id: SessionId) -> Option<&mut Saving> {
        match (self.is_session(id), &mut self.session) {
            (true, Some(Session::Saving(saving))) => Some(saving),
            _ => None,
        }
    }

    /// A reader found nothing, and may wait for more.
    pub(crate) fn set_drained(&mut self) {
        self.drained = true;
    }

    /// Whether there is more to be read after somebody found nothing: once each time.
    #[inline(always)]
    pub(crate) fn take_news(&mut self, device: &mut T) -> bool {
        // For most devices this is all.
        if device.max_sent_section() == 0 || !self.drained {
            return false;
        }
        let news = match &self.session {
            Some(Session::Saving(saving)) => saving.is_readable(&Of(device)),
            _ => false,
        };
        self.drained = !news;
        news
    }

    /// Bytes that are to be transferred until the device is saved, at most. Never 0.
    pub(crate) fn data_size(&self, values: &Values<'_>, device: &mut T) -> usize {
        let saving = match &self.session {
            Some(Session::Saving(saving)) => Some(saving),
            _ => None,
        };
        let memory = device.memory().map(Memory::to_come).unwrap_or_default();
        pure::data_size(values, &Of(device), saving).saturating_add(memory.framed())
    }
}

/// Memory of a session, charged to its user. A migration must not fail because the host's memory is in pieces, so it need not be
/// contiguous.
pub(crate) struct Buffer(KVVec<u8>);

impl pure::Buffer for Buffer {
    fn empty() -> Self {
        Self(KVVec::new())
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn reserve(&mut self, more: usize) -> Result<(), NoMemory> {
        let reserved = self.0.reserve(more, GFP_KERNEL_ACCOUNT);
        reserved.map_err(|_| NoMemory)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        let extended = self.0.extend_from_slice(bytes, GFP_KERNEL_ACCOUNT);
        extended.map_err(|_| NoMemory)
    }

    fn lengthen(&mut self, len: usize) -> Result<(), NoMemory> {
        let Some(more) = len.checked_sub(self.0.len()).filter(|more| *more > 0) else {
            return Ok(());
        };
        pure::Buffer::reserve(self, more)?;
        let room = self.0.spare_capacity_mut().get_mut(..more);
        let room = room.ok_or(NoMemory)?;
        // Byte by byte is how `resize` does it.
        // SAFETY: The room is for so many bytes, behind those that there are, and they have a value afterwards.
        unsafe {
            room.as_mut_ptr().write_bytes(0, more);
            self.0.inc_len(more);
        }
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

/// The section that its mapped memory has, beside those of the device: the last one that there is.
const MEMORY_SECTION: u16 = *DEVICE_SECTIONS.end() - *DEVICE_SECTIONS.start();

/// What was loaded of a device so far.
pub(crate) struct Incoming<T: Device> {
    device: KBox<T::Incoming>,
    memory: Option<mapped::Incoming>,
}

impl<T: Device> Incoming<T> {
    /// Nothing yet.
    pub(crate) fn of(device: &T) -> Result<Self> {
        Ok(Self {
            device: device.incoming()?,
            memory: device.memory().map(Memory::incoming).transpose()?,
        })
    }
}

/// A device of this crate, as a session sees it: with its mapped memory, which is bulk state once the device has stopped.
pub(crate) struct Of<'a, T>(pub(crate) &'a mut T);

impl<T: Device> pure::Device for Of<'_, T> {
    type Error = Error;
    type Incoming = Incoming<T>;

    fn error(failure: Failure) -> Error {
        errno(failure)
    }

    fn saved_size(&self) -> SavedSize {
        self.0.saved_size()
    }

    fn save(&self, emit: &mut Emit<'_, Error>) -> Result {
        self.0.save(emit)
    }

    fn max_sent_section(&self) -> usize {
        let most = self.0.max_sent_section();
        match self.0.memory() {
            Some(_) => most.max(Memory::section_len()),
            None => most,
        }
    }

    fn remaining(&self) -> Remaining {
        let mut left = match self.0.max_sent_section() {
            0 => Remaining::default(),
            _ => self.0.remaining(),
        };
        if let Some(memory) = self.0.memory() {
            let SavedSize { bytes, sections } = memory.remaining();
            left.dirty.bytes = left.dirty.bytes.saturating_add(bytes);
            left.dirty.sections = left.dirty.sections.saturating_add(sections);
        }
        left
    }

    fn next_section(&mut self, payload: &mut [u8]) -> Option<(u16, usize)> {
        let most = self.0.max_sent_section();
        if most > 0 {
            let section = self.0.next_section(payload.get_mut(..most)?);
            if section.is_some() {
                return section;
            }
        }
        let len = self.0.memory()?.next_section(payload)?;
        Some((MEMORY_SECTION, len))
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        match self.0.memory() {
            Some(_) if id == MEMORY_SECTION => Some(Memory::section_len()),
            _ => self.0.section_len(id),
        }
    }

    fn load(
        incoming: &mut Self::Incoming,
        phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn Write,
    ) -> Result<(), Refusal> {
        let loaded = match &mut incoming.memory {
            Some(memory) if id == MEMORY_SECTION => memory.section(payload, reason),
            _ => T::load(&mut incoming.device, phase, id, payload, reason),
        };
        loaded.map_err(|error| match error == ENOMEM {
            true => Refusal {
                class: ErrorClass::TooBig,
                reason: "there is no memory for it",
            },
            false => Refusal::invalid("a section holds a state that the device cannot be in"),
        })
    }

    fn is_complete(incoming: &Self::Incoming) -> bool {
        let memory = incoming.memory.as_ref();
        T::is_complete(&incoming.device) && memory.is_none_or(mapped::Incoming::is_complete)
    }

    fn commit(&mut self, incoming: &mut Self::Incoming, reason: &mut dyn Write) -> Result {
        self.0.commit(&mut incoming.device, reason)?;
        match (self.0.memory(), &incoming.memory) {
            // The device is open and what came is complete, so this does not fail.
            (Some(memory), Some(incoming)) => memory.load(incoming),
            _ => Ok(()),
        }
    }
}

/// The errno of a record that was not made: memory, or a device model that breaks the format's limits.
pub(crate) fn errno(failure: Failure) -> Error {
    match failure {
        Failure::NoMemory => ENOMEM,
        Failure::Record(_) => EIO,
    }
}

/// The errno of a refused piece of the stream: `EINVAL` for bytes that are not a stream this device takes, `ENOMEM` for records
/// longer than it reads or has memory for, `ENODEV` after an earlier error.
pub(crate) fn refusal(class: ErrorClass) -> Error {
    match class {
        ErrorClass::Invalid | ErrorClass::Unsupported => EINVAL,
        ErrorClass::TooBig => ENOMEM,
        ErrorClass::Poisoned => ENODEV,
    }
}

/// The errno of a state that does not become the device's: `EINVAL` when the stream is not complete, otherwise the device's own.
pub(crate) fn not_committed(error: CommitError<Error>) -> Error {
    match error {
        CommitError::Incomplete => EINVAL,
        CommitError::Device(error) => error,
    }
}
