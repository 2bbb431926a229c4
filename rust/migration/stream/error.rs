// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Why a stream is refused.

use super::{FormatVersion, Phase, FORMAT};
use core::fmt;

/// What kind of failure an error is; the caller gives each kind its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The bytes are not what they should be. For EINVAL.
    Invalid,
    /// They are well formed, but something newer or of another kind. For EINVAL, or EOPNOTSUPP.
    Unsupported,
    /// More than the reader is willing to hold. For ENOMEM.
    TooBig,
    /// An earlier error ended the stream. For ENODEV.
    Poisoned,
}

/// A [`Handler`](super::Handler) does not take what the stream holds.
///
/// The reason is one for a log. A handler that has more to say (which parameter differs, and how)
/// keeps it, and its owner finds it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the caller makes its errno from.
    pub class: ErrorClass,
    /// Why, in a few words.
    pub reason: &'static str,
}

impl Refusal {
    /// The values are not acceptable.
    pub const fn invalid(reason: &'static str) -> Self {
        Self {
            class: ErrorClass::Invalid,
            reason,
        }
    }

    /// The values ask for what this device does not have.
    pub const fn unsupported(reason: &'static str) -> Self {
        Self {
            class: ErrorClass::Unsupported,
            reason,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

/// Why a stream is refused: one variant a cause. Prints as one line without a full stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// No setup record where one has to be.
    BadMagic,
    /// The format's major version is another.
    UnsupportedFormat(FormatVersion),
    /// The setup record says it is shorter than its fixed fields.
    SetupTooShort {
        /// The length it says.
        len: u32,
    },
    /// The setup record says it is longer than can be taken.
    SetupTooLong {
        /// The length it says.
        len: u32,
        /// The longest that is taken: what the format allows or the caller's buffer holds.
        max: usize,
    },
    /// The setup record's checksum is wrong.
    SetupChecksum,
    /// The setup record's phase is no phase.
    BadPhase(u8),
    /// A field of the setup record that is zero in this format version is not.
    ReservedField,
    /// The device model is not well formed; why.
    BadModel(&'static str),
    /// More parameters than the format allows.
    TooManyParams(u16),
    /// A parameter is not well formed.
    BadParam {
        /// Which one, counted from 0.
        index: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A parameter has the name of an earlier one.
    DuplicateParam {
        /// Which one, counted from 0.
        index: u16,
    },
    /// Bytes between the last parameter and the checksum of the setup record.
    SetupTrailing,
    /// The handler does not take the setup record.
    SetupRefused(Refusal),
    /// A setup record where none may be: a second one of the same phase.
    UnexpectedSetup(Phase),
    /// The setup records of the two phases disagree.
    SetupChanged,
    /// A section with flags that are not defined.
    SectionFlags {
        /// The section's id.
        id: u16,
        /// Its flags.
        flags: u16,
    },
    /// A section says it is longer than can be taken.
    SectionTooLong {
        /// The section's id.
        id: u16,
        /// The length it says.
        len: u32,
        /// The longest that is taken: what the format allows or the caller's buffer holds.
        max: usize,
    },
    /// The section has to be understood, and is not known here.
    UnknownMandatory(u16),
    /// The section's checksum is wrong.
    SectionChecksum(u16),
    /// The handler does not take the section.
    SectionRefused {
        /// The section's id.
        id: u16,
        /// Why.
        refusal: Refusal,
    },
    /// An end section in the pre-copy phase.
    EndInPreCopy,
    /// An end section that has a payload or is not mandatory.
    BadEnd,
    /// The handler finds the state incomplete or inconsistent as a whole.
    EndRefused(Refusal),
    /// Bytes after the end section.
    AfterEnd,
    /// The stream stops before its end section.
    Truncated,
    /// The caller's buffer has no room for a record: it is smaller than in the call before, or there is no memory.
    NoRoom,
    /// An earlier error ended the stream.
    Poisoned,
}

impl StreamError {
    /// What kind of failure it is.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::UnsupportedFormat(_) | Self::UnknownMandatory(_) => ErrorClass::Unsupported,
            Self::SetupTooLong { .. } | Self::SectionTooLong { .. } | Self::NoRoom => {
                ErrorClass::TooBig
            }
            Self::SetupRefused(refusal)
            | Self::SectionRefused { refusal, .. }
            | Self::EndRefused(refusal) => refusal.class,
            Self::Poisoned => ErrorClass::Poisoned,
            _ => ErrorClass::Invalid,
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic => f.write_str("no setup record where one has to be"),
            Self::UnsupportedFormat(version) => {
                write!(f, "format version {version}, this reader knows {FORMAT}")
            }
            Self::SetupTooShort { len } => {
                write!(f, "a setup record of {len} bytes is too short")
            }
            Self::SetupTooLong { len, max } => {
                write!(f, "a setup record of {len} bytes, at most {max} are taken")
            }
            Self::SetupChecksum => f.write_str("the setup record's checksum is wrong"),
            Self::BadPhase(phase) => write!(f, "the setup record's phase is {phase}"),
            Self::ReservedField => f.write_str("a reserved field of the setup record is not 0"),
            Self::BadModel(problem) => write!(f, "the device model {problem}"),
            Self::TooManyParams(count) => write!(f, "{count} parameters are too many"),
            Self::BadParam { index, problem } => write!(f, "parameter {index} {problem}"),
            Self::DuplicateParam { index } => {
                write!(f, "parameter {index} has the name of an earlier one")
            }
            Self::SetupTrailing => f.write_str("the setup record is longer than its fields"),
            Self::SetupRefused(refusal) => refusal.fmt(f),
            Self::UnexpectedSetup(phase) => write!(f, "a second setup record for {phase}"),
            Self::SetupChanged => {
                f.write_str("model or parameters changed between pre-copy and stop-and-copy")
            }
            Self::SectionFlags { id, flags } => {
                write!(f, "section {id:#06x} has unknown flags {flags:#06x}")
            }
            Self::SectionTooLong { id, len, max } => {
                write!(
                    f,
                    "section {id:#06x} of {len} bytes, at most {max} are taken"
                )
            }
            Self::UnknownMandatory(id) => write!(f, "mandatory section {id:#06x} is not known"),
            Self::SectionChecksum(id) => write!(f, "the checksum of section {id:#06x} is wrong"),
            Self::SectionRefused { id, refusal } => write!(f, "section {id:#06x}: {refusal}"),
            Self::EndInPreCopy => f.write_str("the stream ends in pre-copy"),
            Self::BadEnd => f.write_str("the end section is malformed"),
            Self::EndRefused(refusal) => refusal.fmt(f),
            Self::AfterEnd => f.write_str("bytes after the end section"),
            Self::Truncated => f.write_str("the stream stops before its end section"),
            Self::NoRoom => f.write_str("there is no room for a record"),
            Self::Poisoned => f.write_str("an earlier error ended the stream"),
        }
    }
}
