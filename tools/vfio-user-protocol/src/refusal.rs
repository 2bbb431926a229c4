// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Why a request is not carried out.

use core::fmt;

/// Error numbers as Linux has them on x86 and Arm, which the protocol passes on.
pub mod errno {
    /// Who asks may not.
    pub const EPERM: u32 = 1;
    /// No such thing.
    pub const ENOENT: u32 = 2;
    /// The device is out of order.
    pub const EIO: u32 = 5;
    /// No memory.
    pub const ENOMEM: u32 = 12;
    /// It cannot be reached.
    pub const EFAULT: u32 = 14;
    /// Somebody else uses it.
    pub const EBUSY: u32 = 16;
    /// There is no such session any more.
    pub const ENODEV: u32 = 19;
    /// It is there already.
    pub const EEXIST: u32 = 17;
    /// The request makes no sense.
    pub const EINVAL: u32 = 22;
    /// There are too many files.
    pub const EMFILE: u32 = 24;
    /// The device has no such feature.
    pub const ENOTTY: u32 = 25;
    /// There are too many.
    pub const ENOSPC: u32 = 28;
    /// There is no such command.
    pub const ENOSYS: u32 = 38;
}

/// What is wrong with a request, before any device is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The message is no request: its type says reply, or nothing that there is.
    NotARequest,
    /// There is no such command.
    NoCommand(u16),
    /// The command is one that only servers give.
    ServersCommand(u16),
    /// The body is shorter than the command's structure.
    Short,
    /// `argsz` leaves no room for the reply.
    ArgSize,
    /// A flag is set that there is not, or one is missing, or two exclude each other.
    Flags,
    /// A sum is larger than a number can be.
    Overflow,
    /// An address, offset or size is not one of whole pages.
    Alignment,
    /// More data than one message may carry.
    TooMuch,
    /// The data is not as long as it is said to be.
    Count,
    /// The command was not agreed on.
    NotAgreed,
    /// There is no such phase of a migration.
    NoPhase(u32),
    /// Text that is none.
    Text,
    /// The version data is not what it should be.
    Version(&'static str),
}

impl Refusal {
    /// The error number for the client.
    pub const fn errno(self) -> u32 {
        match self {
            Self::NoCommand(_) => errno::ENOSYS,
            _ => errno::EINVAL,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARequest => f.write_str("the message is no request"),
            Self::NoCommand(number) => write!(f, "there is no command {number}"),
            Self::ServersCommand(number) => write!(f, "command {number} is given by servers"),
            Self::Short => f.write_str("the message is too short for its command"),
            Self::ArgSize => f.write_str("argsz leaves no room for the reply"),
            Self::Flags => f.write_str("the flags make no sense"),
            Self::Overflow => f.write_str("a sum overflows"),
            Self::Alignment => f.write_str("not whole pages"),
            Self::TooMuch => f.write_str("more data than max_data_xfer_size"),
            Self::Count => f.write_str("the data is not as long as it is said to be"),
            Self::NotAgreed => f.write_str("the command was not agreed on"),
            Self::NoPhase(number) => write!(f, "there is no phase {number}"),
            Self::Text => f.write_str("what should be text is none"),
            Self::Version(what) => write!(f, "version data: {what}"),
        }
    }
}

impl core::error::Error for Refusal {}
