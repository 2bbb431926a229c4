// SPDX-License-Identifier: GPL-2.0

//! The state machine of one instance, and the session that goes with its saving and resuming states.
//!
//! A session is the byte stream between two devices, whatever carries it. Saving, it is made in two pieces: the setup record
//! when pre-copy starts, and a second setup record with the whole state once the device has stopped. Resuming, it is checked
//! and taken apart as it arrives, into a copy of the state that replaces the device's only when the stream is complete.

use crate::migration::log::DirtyLog;
use crate::model::{Device, SavedSize};
use crate::reason::Reason;
use ::migration::check::verify;
use ::migration::fsm::{State, Support};
use ::migration::model::Values;
use ::migration::stream::{
    self, ErrorClass, Handler, Known, Phase, Reader, Refusal, Scratch, SectionHeader, SetupRecord,
    Sink, WriteError,
};
use core::fmt::Write;
use kernel::prelude::*;
use kernel::sync::Arc;

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
    pub(crate) log: Option<DirtyLog>,
    /// Which protocol has taken the device out of RUNNING.
    owner: Option<Protocol>,
    /// Where the migration region stands in its session.
    pub(crate) window: Window,
    /// How many sessions have begun since the instance was made; the last one's name.
    sessions: u64,
}

/// Where the migration region of protocol v1 stands in a saving session.
pub(crate) struct Window {
    /// Bytes of the piece that the user has been offered; 0 when there is none.
    pub(crate) offered: usize,
    /// Whether the user knows how long the piece is, and so may have read it.
    pub(crate) announced: bool,
}

impl Window {
    pub(crate) const fn new() -> Self {
        Self {
            offered: 0,
            announced: false,
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
            Self::Saving(saving) => saving.phase.name(),
            Self::Resuming(resuming) => resuming.reader.phase().map_or("setup", Phase::name),
        }
    }

    /// Bytes of the stream that were handed out or taken so far.
    fn bytes(&self) -> u64 {
        match self {
            Self::Saving(saving) => saving.bytes(),
            Self::Resuming(resuming) => resuming.reader.bytes(),
        }
    }
}

impl<T: Device> Migration<T> {
    pub(crate) const fn new() -> Self {
        Self {
            current: State::Running,
            session: None,
            log: None,
            owner: None,
            window: Window::new(),
            sessions: 0,
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

    /// The device was reset: running, without a session. The log is the user's and stays.
    pub(crate) fn reset(&mut self) {
        self.current = State::Running;
        self.session = None;
        self.owner = None;
        self.window = Window::new();
    }

    /// The last user is gone.
    pub(crate) fn close(&mut self) {
        self.reset();
        self.log = None;
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
        match &self.session {
            Some(Session::Saving(saving)) => saving.id == id,
            Some(Session::Resuming(resuming)) => resuming.id == id,
            None => false,
        }
    }

    /// The saving session, if there is one.
    pub(crate) fn any_saving(&mut self) -> Option<&mut Saving> {
        match &mut self.session {
            Some(Session::Saving(saving)) => Some(saving),
            _ => None,
        }
    }

    /// The saving session of this name, if it goes on.
    pub(crate) fn saving(&mut self, id: SessionId) -> Option<&mut Saving> {
        match &mut self.session {
            Some(Session::Saving(saving)) if saving.id == id => Some(saving),
            _ => None,
        }
    }
}

/// Bytes of a stream, shared with a reader that copies them to user space without holding a lock.
pub(crate) type Bytes = Arc<Buffer>;

/// As much memory as a stream or a section takes. A migration must not fail because the host's memory is in pieces, so it need not
/// be contiguous.
type Buffer = KVVec<u8>;

/// A session that gives the state out.
pub(crate) struct Saving {
    id: SessionId,
    phase: Phase,
    bytes: Bytes,
    /// Where in `bytes` the next read starts.
    position: usize,
    /// Bytes handed out before `bytes` was last replaced.
    earlier: u64,
    /// Bytes were handed out and could not be delivered, and are gone: the stream has a hole.
    broken: bool,
}

/// A piece of the stream that was handed out and is on its way.
pub(crate) struct Claim {
    pub(crate) bytes: Bytes,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Saving {
    /// Starts with the setup record of pre-copy.
    pub(crate) fn pre_copy(id: SessionId, values: &Values<'_>) -> Result<Self> {
        let mut bytes = Growing(KVVec::new());
        setup(&mut bytes, Phase::PreCopy, values)?;
        Self::new(id, Phase::PreCopy, bytes)
    }

    /// Starts with the whole state of a stopped device.
    pub(crate) fn stop_copy<T: Device>(
        id: SessionId,
        values: &Values<'_>,
        device: &T,
    ) -> Result<Self> {
        let mut bytes = Growing(KVVec::new());
        state(&mut bytes, values, device)?;
        Self::new(id, Phase::StopCopy, bytes)
    }

    fn new(id: SessionId, phase: Phase, bytes: Growing) -> Result<Self> {
        Ok(Self {
            id,
            phase,
            bytes: Arc::new(bytes.0, GFP_KERNEL_ACCOUNT)?,
            position: 0,
            earlier: 0,
            broken: false,
        })
    }

    /// Goes on with the whole state of the device, which has stopped now, after what of pre-copy was not read yet.
    pub(crate) fn stop<T: Device>(&mut self, values: &Values<'_>, device: &T) -> Result {
        let mut bytes = Growing(KVVec::new());
        bytes.put(self.bytes.get(self.position..).unwrap_or_default())?;
        state(&mut bytes, values, device)?;
        self.bytes = Arc::new(bytes.0, GFP_KERNEL_ACCOUNT)?;
        self.earlier += self.position as u64;
        self.position = 0;
        self.phase = Phase::StopCopy;
        Ok(())
    }

    /// Bytes handed out since the session started.
    pub(crate) fn bytes(&self) -> u64 {
        self.earlier + self.position as u64
    }

    /// Bytes not handed out yet.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// The next bytes, at most `count`, without handing them out.
    pub(crate) fn peek(&self, count: usize) -> Claim {
        Claim {
            bytes: self.bytes.clone(),
            start: self.position,
            end: self.position + count.min(self.remaining()),
        }
    }

    /// Counts bytes as handed out that [`Saving::peek`] has shown.
    pub(crate) fn consume(&mut self, count: usize) {
        self.position += count.min(self.remaining());
    }

    /// Hands out at most `count` bytes. `EIO` when the stream has a hole.
    pub(crate) fn claim(&mut self, count: usize) -> Result<Claim> {
        if self.broken {
            return Err(EIO);
        }
        let start = self.position;
        let end = start + count.min(self.remaining());
        self.position = end;
        Ok(Claim {
            bytes: self.bytes.clone(),
            start,
            end,
        })
    }

    /// Takes back what could not be delivered. Where the stream has gone on meanwhile, it has a hole.
    pub(crate) fn return_claim(&mut self, claim: &Claim) {
        if Arc::ptr_eq(&self.bytes, &claim.bytes) && self.position == claim.end {
            self.position = claim.start;
        } else {
            self.broken = true;
        }
    }
}

/// A session that takes a state in.
pub(crate) struct Resuming<T: Device> {
    id: SessionId,
    reader: Reader,
    scratch: Growing,
    incoming: KBox<T::Incoming>,
}

impl<T: Device> Resuming<T> {
    pub(crate) fn new(id: SessionId, device: &T) -> Result<Self> {
        Ok(Self {
            id,
            reader: Reader::new(),
            scratch: Growing(KVVec::new()),
            incoming: device.incoming()?,
        })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// Whether bytes were refused: no more are taken.
    pub(crate) fn has_refused(&self) -> bool {
        self.reader.error().is_some()
    }

    /// Takes the next bytes of the stream.
    ///
    /// `EINVAL` for bytes that are not a stream this device takes, `ENOMEM` for records longer than it reads, `ENODEV` after
    /// an earlier error. The reason is kept; the device is what it was.
    pub(crate) fn push(
        &mut self,
        values: &Values<'_>,
        device: &T,
        bytes: &[u8],
        reason: &mut Reason,
    ) -> Result {
        let poisoned = self.reader.error().is_some();
        let mut judge = Judge {
            values,
            device,
            incoming: &mut self.incoming,
            detail: Reason::none(),
        };
        let result = self.reader.push_into(bytes, &mut self.scratch, &mut judge);
        result.map_err(|error| {
            if !poisoned {
                match judge.detail.as_str() {
                    "" => reason.set(format_args!("{error}")),
                    detail => reason.set(format_args!("{detail}")),
                }
            }
            match error.class() {
                ErrorClass::Invalid | ErrorClass::Unsupported => EINVAL,
                ErrorClass::TooBig => ENOMEM,
                ErrorClass::Poisoned => ENODEV,
            }
        })
    }

    /// Ends the session by replacing the device's state. `EINVAL`, with the reason kept, when the stream is not complete.
    pub(crate) fn commit(&self, device: &mut T, reason: &mut Reason) -> Result {
        if let Err(error) = self.reader.finish() {
            // What made an earlier write fail is the better reason.
            if self.reader.error().is_none() {
                reason.set(format_args!("{error}"));
            }
            return Err(EINVAL);
        }
        device.commit(&self.incoming).inspect_err(|_| {
            reason.set(format_args!("the sections do not fit together"));
        })
    }
}

/// Decides about the records of an incoming stream.
struct Judge<'a, T: Device> {
    values: &'a Values<'a>,
    device: &'a T,
    incoming: &'a mut T::Incoming,
    /// More than a [`Refusal`] can say.
    detail: Reason,
}

impl<T: Device> Handler for Judge<'_, T> {
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
        for (n, reason) in verify(record.model, record.params(), self.values).enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            // What does not fit is cut.
            let _ = write!(self.detail, "{separator}{reason}");
        }
        match self.detail.as_str() {
            "" => Ok(()),
            _ => Err(Refusal::invalid(
                "the source is not compatible with this device",
            )),
        }
    }

    fn section_header(&mut self, header: &SectionHeader) -> Result<Known, Refusal> {
        match device_id(header.id).and_then(|id| self.device.section_len(id)) {
            None => Ok(Known::No),
            Some(max) if header.len <= max => Ok(Known::Yes),
            Some(max) => {
                self.detail.set(format_args!(
                    "section {:#x} has {} bytes, this device reads {max}",
                    header.id, header.len
                ));
                Err(Refusal {
                    class: ErrorClass::TooBig,
                    reason: "a section is too long",
                })
            }
        }
    }

    fn section(&mut self, header: &SectionHeader, payload: &[u8]) -> Result<(), Refusal> {
        let id = device_id(header.id).ok_or(Refusal::invalid("the section is not a device's"))?;
        T::load(self.incoming, id, payload, &mut self.detail)
            .map_err(|_| Refusal::invalid("a section holds a state that the device cannot be in"))
    }

    fn end(&mut self) -> Result<(), Refusal> {
        match T::is_complete(self.incoming) {
            true => Ok(()),
            false => Err(Refusal::invalid(
                "a section that the state needs is missing",
            )),
        }
    }
}

/// The number that a device's section has in a stream: the format keeps the lowest ones for itself.
fn wire_id(id: u16) -> Result<u16> {
    stream::DEVICE_SECTIONS
        .start()
        .checked_add(id)
        .ok_or(EINVAL)
}

/// The device's number of a section in a stream.
fn device_id(wire: u16) -> Option<u16> {
    wire.checked_sub(*stream::DEVICE_SECTIONS.start())
}

/// The length of the stream that stop-and-copy will give, at most, in bytes.
pub(crate) fn stop_copy_len<T: Device>(values: &Values<'_>, device: &T) -> usize {
    let SavedSize { bytes, sections } = device.saved_size();
    stream::setup_len(values.model().name, values.effective())
        + bytes
        + sections * stream::section_len(0)
        + stream::END_LEN
}

/// A buffer that grows.
struct Growing(Buffer);

impl Sink for Growing {
    type Error = Error;

    fn put(&mut self, bytes: &[u8]) -> Result {
        Ok(self.0.extend_from_slice(bytes, GFP_KERNEL_ACCOUNT)?)
    }
}

/// Room for what a stream brings, which is mostly far less than the format allows.
impl Scratch for Growing {
    fn most(&self) -> usize {
        stream::MAX_SECTION_LEN
    }

    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.0.len() < len {
            self.0.resize(len, 0, GFP_KERNEL_ACCOUNT).ok()?;
        }
        self.0.get_mut(..len)
    }
}

/// Writes a setup record.
fn setup(out: &mut Growing, phase: Phase, values: &Values<'_>) -> Result {
    stream::write_setup(out, phase, values.model().name, values.effective()).map_err(errno)
}

/// Writes the whole of stop-and-copy.
fn state<T: Device>(out: &mut Growing, values: &Values<'_>, device: &T) -> Result {
    out.0
        .reserve(stop_copy_len(values, device), GFP_KERNEL_ACCOUNT)?;
    setup(out, Phase::StopCopy, values)?;
    device.save(&mut |id, payload| {
        stream::write_section(out, wire_id(id)?, true, payload).map_err(errno)
    })?;
    stream::write_end(out).map_err(errno)
}

/// The errno of a record that was not written: memory, or a device model that breaks the format's limits.
fn errno(error: WriteError<Error>) -> Error {
    match error {
        WriteError::Sink(error) => error,
        WriteError::Record(_) | WriteError::PayloadLength => EIO,
    }
}
