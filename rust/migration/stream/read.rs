// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reading a stream that arrives in pieces.

use super::record::{Fields, SetupHead};
use super::{
    Phase, Refusal, SectionHeader, SetupRecord, StreamError, CRC_LEN, DEVICE_SECTIONS, END_ID,
    MAGIC, MANDATORY, MAX_SECTION_LEN, SECTION_HEAD_LEN, SETUP_HEAD_LEN,
};
use crate::crc::Crc32;

/// Whether a handler knows a section's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its payload is collected and given to [`Handler::section`].
    Yes,
    /// It is skipped if optional; if mandatory the stream is refused.
    No,
}

/// What becomes of a stream's content.
///
/// Whatever a handler is given has passed its checksum and is well formed as far as the format
/// goes; the values in it are still anybody's.
pub trait Handler {
    /// Decides whether the source's model and parameters suit this device. Called once a phase,
    /// before anything of the phase is accepted.
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal>;

    /// Says whether a section is known, before its payload has come. May refuse it, for example for
    /// its length.
    fn section_header(&mut self, header: &SectionHeader) -> Result<Known, Refusal>;

    /// Takes a section it said it knows.
    fn section(&mut self, header: &SectionHeader, payload: &[u8]) -> Result<(), Refusal>;

    /// The stream is complete. Decides whether the state is.
    fn end(&mut self) -> Result<(), Refusal>;
}

/// Where a [`Reader`] collects a record.
pub trait Scratch {
    /// The length of the longest record that there can be room for.
    fn most(&self) -> usize;

    /// Room for a record of this length. Bytes of it that were written before are kept. `None` if there is none, after all.
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;
}

/// A buffer of fixed length.
impl Scratch for [u8] {
    fn most(&self) -> usize {
        self.len()
    }

    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.get_mut(..len)
    }
}

/// What is being collected.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// A section header or the magic of a setup record, into `head`.
    Start,
    /// The fixed part of a setup record, into `head`.
    SetupHead,
    /// A setup record of this length, into the caller's buffer.
    Setup(usize),
    /// A section's payload, into the caller's buffer if it is known.
    Payload(SectionHeader, Known),
    /// A section's checksum, into `head`; the payload is in the caller's buffer if known.
    Checksum(SectionHeader, Known),
    /// Nothing more.
    Done,
}

/// Reads a stream in pieces of any size, down to single bytes.
///
/// Its own state is a few dozen bytes. Records are collected in a buffer that the caller lends:
/// the same one, with its content kept, for every piece of a stream. Each record is judged by its
/// header before it is collected, so a record that is too long for the buffer is refused there.
#[derive(Debug)]
pub struct Reader {
    stage: Stage,
    /// Bytes collected in this stage.
    have: usize,
    /// The header of the record being read.
    head: [u8; SETUP_HEAD_LEN],
    /// Checksum of the section being read.
    crc: Crc32,
    /// The phase of the last setup record accepted, and its digest if another one may follow.
    setup: Option<(Phase, Option<u32>)>,
    /// Bytes taken since the start.
    bytes: u64,
    error: Option<StreamError>,
}

impl Reader {
    /// A reader at the start of a stream.
    pub const fn new() -> Self {
        Self {
            stage: Stage::Start,
            have: 0,
            head: [0; SETUP_HEAD_LEN],
            crc: Crc32::new(),
            setup: None,
            bytes: 0,
            error: None,
        }
    }

    /// Takes the next piece of the stream; all of it, unless it fails.
    ///
    /// `scratch` is the same buffer in every call. [`MAX_SECTION_LEN`] bytes take every stream;
    /// less is enough for a device whose sections and setup record are shorter.
    ///
    /// After an error the reader is poisoned: every further piece is refused.
    pub fn push<H: Handler + ?Sized>(
        &mut self,
        input: &[u8],
        scratch: &mut [u8],
        handler: &mut H,
    ) -> Result<(), StreamError> {
        self.push_into(input, scratch, handler)
    }

    /// Takes the next piece of the stream, as [`Reader::push`] does, with a buffer that may grow.
    pub fn push_into<S: Scratch + ?Sized, H: Handler + ?Sized>(
        &mut self,
        input: &[u8],
        scratch: &mut S,
        handler: &mut H,
    ) -> Result<(), StreamError> {
        if self.error.is_some() {
            return Err(StreamError::Poisoned);
        }
        let result = self.take(input, scratch, handler);
        self.error = result.err();
        result
    }

    /// Whether the end section has come and everything was accepted.
    pub const fn is_complete(&self) -> bool {
        matches!(self.stage, Stage::Done) && self.error.is_none()
    }

    /// Says what is wrong if no more pieces come: the error that ended the stream, or
    /// [`StreamError::Truncated`].
    pub const fn finish(&self) -> Result<(), StreamError> {
        match self.error {
            Some(error) => Err(error),
            None if self.is_complete() => Ok(()),
            None => Err(StreamError::Truncated),
        }
    }

    /// The phase the stream is in; `None` until a setup record was accepted.
    pub const fn phase(&self) -> Option<Phase> {
        match self.setup {
            Some((phase, _)) => Some(phase),
            None => None,
        }
    }

    /// Bytes taken since the start of the stream.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The error that ended the stream, if one did.
    pub const fn error(&self) -> Option<StreamError> {
        self.error
    }

    /// How many bytes this stage collects in all.
    const fn want(&self) -> usize {
        match &self.stage {
            Stage::Start => SECTION_HEAD_LEN,
            Stage::SetupHead => SETUP_HEAD_LEN,
            Stage::Setup(len) => *len,
            Stage::Payload(header, _) => header.len,
            Stage::Checksum(..) => CRC_LEN,
            Stage::Done => 0,
        }
    }

    fn take<S: Scratch + ?Sized, H: Handler + ?Sized>(
        &mut self,
        mut input: &[u8],
        scratch: &mut S,
        handler: &mut H,
    ) -> Result<(), StreamError> {
        // One turn a record part. The end of a part needs no further input, so an empty payload is
        // through as soon as its header is.
        loop {
            if matches!(self.stage, Stage::Done) {
                return if input.is_empty() {
                    Ok(())
                } else {
                    Err(StreamError::AfterEnd)
                };
            }
            let missing = self.want().saturating_sub(self.have);
            let (piece, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
            self.collect(piece, scratch)?;
            input = rest;
            if piece.len() < missing {
                return Ok(());
            }
            self.stage = self.part_done(scratch, handler)?;
        }
    }

    /// Stores a piece of the part being collected.
    fn collect<S: Scratch + ?Sized>(
        &mut self,
        piece: &[u8],
        scratch: &mut S,
    ) -> Result<(), StreamError> {
        let from = self.have;
        let to = from.saturating_add(piece.len());
        let place = match &self.stage {
            Stage::Start | Stage::SetupHead | Stage::Checksum(..) => self.head.get_mut(from..to),
            Stage::Setup(len) | Stage::Payload(SectionHeader { len, .. }, Known::Yes) => {
                scratch.room(*len).and_then(|room| room.get_mut(from..to))
            }
            Stage::Payload(_, Known::No) | Stage::Done => Some(&mut [][..]),
        };
        let place = place.ok_or(StreamError::NoRoom)?;
        if place.len() == piece.len() {
            place.copy_from_slice(piece);
        }
        if matches!(self.stage, Stage::Payload(..)) {
            self.crc.update(piece);
        }
        self.have = to;
        // Widening: usize has at most 64 bits on every target.
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        Ok(())
    }

    /// Judges a part that is all there; returns what to collect next.
    fn part_done<S: Scratch + ?Sized, H: Handler + ?Sized>(
        &mut self,
        scratch: &mut S,
        handler: &mut H,
    ) -> Result<Stage, StreamError> {
        match self.stage {
            Stage::Start => self.start(scratch, handler),
            Stage::SetupHead => self.setup_head(scratch),
            Stage::Setup(len) => self.setup_record(len, scratch, handler),
            Stage::Payload(header, known) => {
                self.have = 0;
                Ok(Stage::Checksum(header, known))
            }
            Stage::Checksum(header, known) => self.section(&header, known, scratch, handler),
            Stage::Done => Ok(Stage::Done),
        }
    }

    /// The first bytes of a record: tells setup records and sections apart.
    fn start<S: Scratch + ?Sized, H: Handler + ?Sized>(
        &mut self,
        scratch: &mut S,
        handler: &mut H,
    ) -> Result<Stage, StreamError> {
        let head = self
            .head
            .get(..SECTION_HEAD_LEN)
            .ok_or(StreamError::BadMagic)?;
        if head == MAGIC {
            // The bytes collected stay: they are the start of the record.
            return Ok(Stage::SetupHead);
        }
        let Some((phase, _)) = self.setup else {
            return Err(StreamError::BadMagic);
        };
        if head.get(..2) == MAGIC.get(..2) {
            return Err(StreamError::BadMagic);
        }
        self.crc = Crc32::new();
        self.crc.update(head);
        let (header, flags, len) = section_header(head, phase).ok_or(StreamError::BadMagic)?;
        let known = judge(&header, flags, len, scratch.most(), handler)?;
        self.have = 0;
        Ok(Stage::Payload(header, known))
    }

    fn setup_head<S: Scratch + ?Sized>(&mut self, scratch: &mut S) -> Result<Stage, StreamError> {
        let (_, len) = SetupHead::parse(&self.head, scratch.most())?;
        scratch
            .room(len)
            .and_then(|room| room.get_mut(..SETUP_HEAD_LEN))
            .ok_or(StreamError::NoRoom)?
            .copy_from_slice(&self.head);
        Ok(Stage::Setup(len))
    }

    fn setup_record<S: Scratch + ?Sized, H: Handler + ?Sized>(
        &mut self,
        len: usize,
        scratch: &mut S,
        handler: &mut H,
    ) -> Result<Stage, StreamError> {
        let bytes = scratch.room(len).ok_or(StreamError::NoRoom)?;
        let record = SetupRecord::parse(bytes)?;
        match (self.setup, record.phase) {
            (None, _) => {}
            (Some((Phase::PreCopy, digest)), Phase::StopCopy) => {
                if Some(record.digest()) != digest {
                    return Err(StreamError::SetupChanged);
                }
            }
            (Some(_), phase) => return Err(StreamError::UnexpectedSetup(phase)),
        }
        handler.setup(&record).map_err(StreamError::SetupRefused)?;
        let digest = (record.phase == Phase::PreCopy).then(|| record.digest());
        self.setup = Some((record.phase, digest));
        self.have = 0;
        Ok(Stage::Start)
    }

    fn section<S: Scratch + ?Sized, H: Handler + ?Sized>(
        &mut self,
        header: &SectionHeader,
        known: Known,
        scratch: &mut S,
        handler: &mut H,
    ) -> Result<Stage, StreamError> {
        let sum = Fields(&self.head).u32();
        if sum != Some(self.crc.value()) {
            return Err(StreamError::SectionChecksum(header.id));
        }
        self.have = 0;
        if header.id == END_ID {
            handler.end().map_err(StreamError::EndRefused)?;
            return Ok(Stage::Done);
        }
        if known == Known::Yes {
            let payload = scratch.room(header.len).ok_or(StreamError::NoRoom)?;
            let refused = |refusal| StreamError::SectionRefused {
                id: header.id,
                refusal,
            };
            handler.section(header, payload).map_err(refused)?;
        }
        Ok(Stage::Start)
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes a section header apart: header, raw flags, raw length.
fn section_header(head: &[u8], phase: Phase) -> Option<(SectionHeader, u16, u32)> {
    let mut fields = Fields(head);
    let id = fields.u16()?;
    let flags = fields.u16()?;
    let len = fields.u32()?;
    let header = SectionHeader {
        phase,
        id,
        mandatory: flags & MANDATORY != 0,
        // Widening on every target that has files.
        len: len as usize,
    };
    Some((header, flags, len))
}

/// Judges a section by its header.
fn judge<H: Handler + ?Sized>(
    header: &SectionHeader,
    flags: u16,
    len: u32,
    room: usize,
    handler: &mut H,
) -> Result<Known, StreamError> {
    let id = header.id;
    let too_long = |max| StreamError::SectionTooLong { id, len, max };
    if flags & !MANDATORY != 0 {
        return Err(StreamError::SectionFlags { id, flags });
    }
    if header.len > MAX_SECTION_LEN {
        return Err(too_long(MAX_SECTION_LEN));
    }
    if id == END_ID {
        return match (header.phase, header.mandatory, header.len) {
            (Phase::PreCopy, ..) => Err(StreamError::EndInPreCopy),
            (Phase::StopCopy, true, 0) => Ok(Known::Yes),
            (Phase::StopCopy, ..) => Err(StreamError::BadEnd),
        };
    }
    let known = if DEVICE_SECTIONS.contains(&id) {
        let refused = |refusal| StreamError::SectionRefused { id, refusal };
        handler.section_header(header).map_err(refused)?
    } else {
        Known::No
    };
    match known {
        Known::No if header.mandatory => Err(StreamError::UnknownMandatory(id)),
        Known::Yes if header.len > room => Err(too_long(room)),
        known => Ok(known),
    }
}
