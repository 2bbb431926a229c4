// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How device state is framed: format version 1.0.
//!
//! A stream is a sequence of records without padding. All integers are little-endian. The carrier
//! (a data file, a region, a socket, a disk file) only has to keep the bytes and their order.
//!
//! ```text
//! stream     = [ pre-copy ] stop-and-copy
//! pre-copy      = setup(phase 1) section*
//! stop-and-copy = setup(phase 2) section* end
//! ```
//!
//! A user may enter stop-and-copy without pre-copy, so each phase starts with a **setup record**,
//! by which the destination decides whether it can take the state before it accepts a byte of it.
//! The model and parameters of both records must be the same. A stream is complete with its **end
//! section**; nothing may follow it.
//!
//! # Setup record
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic: 89 FF 56 46 49 4F 0D 0A ([`MAGIC`]) |
//! | 8 | 2 | format version, major: another one is refused |
//! | 10 | 2 | format version, minor: a higher one is accepted |
//! | 12 | 4 | length of the whole record, from the magic to the checksum; at most [`MAX_SETUP_LEN`] |
//! | 16 | 1 | phase: 1 pre-copy, 2 stop-and-copy |
//! | 17 | 1 | 0 in this minor version, ignored in a higher one |
//! | 18 | 2 | m: length of the device model in bytes |
//! | 20 | 2 | number of parameters, at most [`MAX_LISTED_PARAMS`] |
//! | 22 | 2 | 0 in this minor version, ignored in a higher one |
//! | 24 | m | device model, UTF-8 |
//! | 24 + m | | parameters, each as below |
//! | | | absent in this minor version, ignored in a higher one |
//! | length - 4 | 4 | CRC-32 ([`crate::crc`]) of all bytes before |
//!
//! One parameter (no two of a record have the same name):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | type: 1 bool, 2 int, 3 str |
//! | 1 | 1 | n: length of the name in bytes |
//! | 2 | 2 | v: length of the value in bytes |
//! | 4 | n | name, UTF-8 |
//! | 4 + n | v | value: bool 1 byte 0 or 1, int 8 bytes, str UTF-8 |
//!
//! # Section
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | id |
//! | 2 | 2 | flags: bit 0 mandatory, the others 0 |
//! | 4 | 4 | n: length of the payload, at most [`MAX_SECTION_LEN`] |
//! | 8 | n | payload |
//! | 8 + n | 4 | CRC-32 of header and payload |
//!
//! | id | meaning |
//! |---|---|
//! | 0 | end: mandatory, no payload |
//! | 0x0001-0x00ff | kept for later minor versions of this format |
//! | 0x0100-0xfeff | the device model's own ([`DEVICE_SECTIONS`]) |
//! | 0xff00-0xffff | never a section: a setup record starts with 0xff89 |
//!
//! A section whose id the reader does not know is skipped if optional, refused if mandatory.
//!
//! # Using it
//!
//! Writing is a few functions over a [`Sink`]: [`write_setup`], [`write_section`] or
//! [`SectionWriter`], [`write_end`]; [`frame_section`] frames a payload where it is; [`setup_len`], [`section_len`] and [`END_LEN`] tell sizes in
//! advance. Reading is [`Reader`], which takes the stream in pieces of any size.

use core::fmt;

mod error;
mod read;
mod record;
mod write;

#[cfg(test)]
mod tests;

pub use error::{ErrorClass, Refusal, StreamError};
pub use read::{Handler, Known, Reader, Scratch};
pub use record::{ParamList, SetupRecord};
pub use write::{
    frame_section, section_len, setup_len, write_end, write_section, write_setup, Counter,
    SectionWriter, Sink, SliceFull, SliceSink, WriteError,
};

use core::ops::RangeInclusive;

/// The first bytes of a setup record. They are not UTF-8, no section id, and damaged by transfers
/// that take the stream for text.
pub const MAGIC: [u8; 8] = *b"\x89\xffVFIO\r\n";

/// The format version that is written, and the highest that is known.
pub const FORMAT: FormatVersion = FormatVersion { major: 1, minor: 0 };

/// Longest setup record that is read or written, in bytes.
pub const MAX_SETUP_LEN: usize = 4096;

/// Longest payload of a section that is read or written, in bytes.
pub const MAX_SECTION_LEN: usize = 64 * 1024;

/// Most parameters of one setup record.
pub const MAX_LISTED_PARAMS: usize = 64;

/// The section ids that belong to the device model.
pub const DEVICE_SECTIONS: RangeInclusive<u16> = 0x0100..=0xfeff;

/// Length of the end section, in bytes.
pub const END_LEN: usize = section_len(0);

/// Bytes of a setup record before the device model.
const SETUP_HEAD_LEN: usize = 24;
/// Bytes of a section before the payload; also the part of a setup record that tells the two apart.
pub const SECTION_HEAD_LEN: usize = 8;
/// Bytes of a checksum.
const CRC_LEN: usize = 4;
/// Bytes of a parameter before its name.
const PARAM_HEAD_LEN: usize = 4;
/// The id of the end section.
const END_ID: u16 = 0;
/// The flag of a section that may not be skipped.
const MANDATORY: u16 = 1 << 0;

/// Version of the stream format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatVersion {
    /// Changes when old readers cannot read what is new.
    pub major: u16,
    /// Changes when they can, by ignoring it.
    pub minor: u16,
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The two parts of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// Saved while the device runs.
    PreCopy = 1,
    /// Saved after it has stopped.
    StopCopy = 2,
}

impl Phase {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::PreCopy => "pre-copy",
            Phase::StopCopy => "stop-and-copy",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl TryFrom<u8> for Phase {
    type Error = StreamError;

    fn try_from(number: u8) -> Result<Self, StreamError> {
        match number {
            1 => Ok(Phase::PreCopy),
            2 => Ok(Phase::StopCopy),
            _ => Err(StreamError::BadPhase(number)),
        }
    }
}

/// What is known of a section before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionHeader {
    /// The phase of the stream it belongs to.
    pub phase: Phase,
    /// What it holds.
    pub id: u16,
    /// Whether a reader that does not know the id must refuse the stream.
    pub mandatory: bool,
    /// Length of the payload in bytes.
    pub len: usize,
}
