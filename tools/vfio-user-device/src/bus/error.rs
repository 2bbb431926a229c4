// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Why a call was not carried out, as D-Bus has it: a name for programs, and a text for people.

use crate::registry;

/// Why a call was not carried out.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "example.rust_vfio_mdev.Error")]
pub enum Error {
    /// The bus's own.
    #[zbus(error)]
    Bus(zbus::Error),
    /// There is no such device, or it has gone meanwhile.
    NoDevice(String),
    /// A device or a socket is there already.
    Exists(String),
    /// Somebody else migrates or uses the device.
    Busy(String),
    /// What is wished for makes no sense, or is not offered.
    Invalid(String),
    /// The device does not take the state, or cannot be saved.
    Refused(String),
    /// The state is longer than the bus carries.
    TooLong(String),
    /// The system has no more of something.
    System(String),
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        use registry::Error as E;
        let text = error.to_string();
        match error {
            _ if error.is_busy() => Self::Busy(text),
            E::NoDevice(_) | E::Gone(_) => Self::NoDevice(text),
            E::Exists(_) => Self::Exists(text),
            E::Invalid(_) => Self::Invalid(text),
            E::Refused { .. } => Self::Refused(text),
            E::Full | E::NoRoom { .. } | E::Socket(_) | E::System(_) => Self::System(text),
        }
    }
}

impl From<crate::replay::CannotReplay> for Error {
    fn from(error: crate::replay::CannotReplay) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A property has no names of its own for what can go wrong.
pub(super) fn of_property(error: registry::Error) -> zbus::fdo::Error {
    zbus::fdo::Error::Failed(error.to_string())
}
