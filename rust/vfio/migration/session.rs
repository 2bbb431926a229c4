// SPDX-License-Identifier: GPL-2.0

//! The state machine of one instance, and the session that goes with its saving and resuming states.
//!
//! What a session is, and the stream that it makes or takes, is [`::migration::session`]; here it gets the kernel's memory and
//! errors, and a device of this crate.

use crate::mapped::{self, Memory};
use crate::model::Device;
use crate::reason::Reason;
use ::migration::fsm::{Arc as Transition, State, Support};
use ::migration::model::Values;
use ::migration::session::machine::{self, Machine, Migratable, Refused};
use ::migration::session::{
    self as pure, Emit, Failure, Left, NoMemory, Phase, Remaining, SavedSize,
};
use ::migration::stream::{ErrorClass, Refusal, DEVICE_SECTIONS};
use core::fmt::Write;
use kernel::prelude::*;

/// A session that gives the state out.
pub(crate) type Saving = pure::Saving<Buffer>;
/// What goes on in a state with a session.
pub(crate) type Session<T> = machine::Session<Buffer, Incoming<T>>;
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
    /// The state that the device is in, and its session.
    machine: Machine<Buffer, Incoming<T>>,
    /// Which protocol has taken the device out of RUNNING.
    owner: Option<Protocol>,
    /// Where the migration region stands in its session.
    pub(crate) window: Window,
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

impl<T: Device> Migration<T> {
    pub(crate) fn new() -> Self {
        Self {
            machine: Machine::default(),
            owner: None,
            window: Window::new(),
            drained: false,
        }
    }

    /// The state that the device is in.
    pub(crate) fn state(&self) -> State {
        self.machine.state()
    }

    /// The session, if there is one.
    pub(crate) fn session(&self) -> Option<&Session<T>> {
        self.machine.session()
    }

    /// The session, to be read from or written to.
    pub(crate) fn session_mut(&mut self) -> Option<&mut Session<T>> {
        self.machine.session_mut()
    }

    /// Whether the device has effects: interrupts and changes of its own.
    pub(crate) fn is_running(&self) -> bool {
        self.state().is_running()
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
        let free = self.state() == State::Running && self.session().is_none();
        self.owner = (!free).then_some(protocol);
    }

    /// The state with this number, as one to go to. `EINVAL` if there is none, `EIO` in the error state, with the reason.
    pub(crate) fn target(&self, number: u32, reason: &mut Reason) -> Result<State> {
        self.machine.target(number, reason).map_err(not_reached)
    }

    /// The arc that comes next on the way to a state, `None` at the end of it. `EINVAL` if no way leads there, `EIO` in the error
    /// state, with the reason.
    pub(crate) fn next(&self, to: State, reason: &mut Reason) -> Result<Option<Transition>> {
        let next = self.machine.next(to, SUPPORT, reason);
        next.map_err(not_reached)
    }

    /// Takes an arc that [`Migration::next`] gave. Nothing has changed if it fails.
    pub(crate) fn take(
        &mut self,
        arc: Transition,
        values: &Values<'_>,
        device: &mut T,
        reason: &mut Reason,
        opening: &mut impl Opening,
    ) -> Result {
        let open = |name, saving| opening.open(SessionId(name), saving);
        let taken = self
            .machine
            .take(arc, values, &mut Of(device), reason, open);
        taken.map_err(not_reached)?;
        if arc.ends_session() {
            self.forget_session();
        }
        Ok(())
    }

    /// The device has failed: its session is over.
    pub(crate) fn fail(&mut self, device: &mut T) {
        self.machine.fail(&mut Of(device));
        self.forget_session();
    }

    /// A session is over: nobody reads it any longer.
    fn forget_session(&mut self) {
        self.window = Window {
            pieces: self.window.pieces,
            ..Window::new()
        };
        self.drained = false;
    }

    /// The device was reset, or its last user is gone: running, without a session.
    pub(crate) fn reset(&mut self, device: &mut T) {
        self.machine.reset(&mut Of(device));
        self.forget_session();
        self.owner = None;
    }

    /// The phase of the session, for people, and the bytes of its stream so far; `setup` before the first record was accepted.
    pub(crate) fn progress(&self) -> (&'static str, u64) {
        match self.session() {
            Some(session) => (
                session.phase().map_or("setup", Phase::name),
                session.bytes(),
            ),
            None => (NO_PHASE, 0),
        }
    }

    /// How many sessions have begun since the instance was made. Who finds more than before knows of a session that it has not
    /// seen.
    pub(crate) fn sessions(&self) -> u64 {
        self.machine.sessions()
    }

    /// Whether the session of this name goes on.
    pub(crate) fn is_session(&self, id: SessionId) -> bool {
        self.machine.is_in(id.0)
    }

    /// The saving session, if there is one, and where the region stands in it.
    pub(crate) fn any_saving(&mut self) -> Option<(&mut Saving, &mut Window)> {
        Some((self.machine.saving_mut()?, &mut self.window))
    }

    /// The saving session of this name, if it goes on.
    pub(crate) fn saving(&mut self, id: SessionId) -> Option<&mut Saving> {
        match self.is_session(id) {
            true => self.machine.saving_mut(),
            false => None,
        }
    }

    /// What is left of pre-copy; `None` outside of it.
    pub(crate) fn precopy_left(&self, device: &mut T) -> Option<Left> {
        self.machine.precopy_left(&Of(device))
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
        let saving = self.machine.saving();
        let news = saving.is_some_and(|saving| saving.is_readable(&Of(device)));
        self.drained = !news;
        news
    }

    /// Bytes that are to be transferred until the device is saved, at most. Never 0.
    pub(crate) fn data_size(&self, values: &Values<'_>, device: &mut T) -> usize {
        let memory = device.memory().map(Memory::to_come).unwrap_or_default();
        let size = self.machine.data_size(values, &Of(device));
        size.saturating_add(memory.framed())
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

impl<T: Device> Migratable for Of<'_, T> {
    fn incoming(&self) -> Result<Incoming<T>> {
        Ok(Incoming {
            device: self.0.incoming()?,
            memory: self.0.memory().map(Memory::incoming).transpose()?,
        })
    }

    fn start_sending(&mut self) {
        self.0.start_sending();
    }

    fn send_rest(&mut self) {
        if let Some(memory) = self.0.memory() {
            memory.start_sending();
        }
    }

    fn stop_sending(&mut self) {
        self.0.stop_sending();
        if let Some(memory) = self.0.memory() {
            memory.stop_sending();
        }
    }

    fn resume(&mut self) {
        self.0.resume();
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

/// The errno of a state that was not reached: `EIO` in the error state, `EINVAL` where no way leads there and when the stream is
/// not complete, otherwise the device's own.
fn not_reached(refused: Refused<Error>) -> Error {
    match refused {
        Refused::Failed => EIO,
        Refused::NoPath | Refused::Incomplete => EINVAL,
        Refused::Device(error) => error,
    }
}
