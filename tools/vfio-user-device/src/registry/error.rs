// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Why a wish was not fulfilled.

use vfio_user_protocol::refusal::errno::{EBUSY, EEXIST, EINVAL, EIO, ENODEV, ENOENT, ENOSPC};

use super::MAX_DEVICES;
use crate::instance::NotOffered;
use crate::model::Refusal;

/// Why a wish was not fulfilled. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no device of this name.
    #[error("{0}: there is no such device")]
    NoDevice(String),
    /// There is one of this name.
    #[error("{0}: a device of this name is there already")]
    Exists(String),
    /// There are as many as there can be.
    #[error("there are {MAX_DEVICES} devices already; remove one first")]
    Full,
    /// The disks would be larger together than they may be.
    #[error("there is room for a disk of {left} MiB, and not of {mib}: all disks have {most} MiB at most (--max-mib)")]
    NoRoom {
        /// What is wished for, in MiB.
        mib: u64,
        /// What the others leave.
        left: u64,
        /// What all may have.
        most: u64,
    },
    /// What is wished for makes no sense, or is not offered.
    #[error("{0}")]
    Invalid(String),
    /// The socket cannot be had.
    #[error("{0}")]
    Socket(String),
    /// The system has no more of something.
    #[error("{0}")]
    System(String),
    /// The device refuses, with an error number.
    #[error("{device}: {}", .refusal.reason)]
    Refused {
        /// Which one.
        device: String,
        /// Why.
        refusal: Refusal,
    },
    /// The device has ended meanwhile.
    #[error("{0}: the device has been removed meanwhile")]
    Gone(String),
}

impl Error {
    /// The error number of Linux that says most of it.
    pub fn errno(&self) -> u32 {
        match self {
            Self::NoDevice(_) => ENOENT,
            Self::Exists(_) => EEXIST,
            Self::Full | Self::NoRoom { .. } => ENOSPC,
            Self::Invalid(_) => EINVAL,
            Self::Socket(_) | Self::System(_) => EIO,
            Self::Refused { refusal, .. } => refusal.errno,
            Self::Gone(_) => ENODEV,
        }
    }

    /// Whether somebody else has the device.
    pub fn is_busy(&self) -> bool {
        self.errno() == EBUSY
    }
}

impl From<NotOffered> for Error {
    fn from(error: NotOffered) -> Self {
        Self::Invalid(error.to_string())
    }
}
