// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `org.qemu.VMState1`: by this QEMU's object `dbus-vmstate` has the state of a device travel in the guest's own migration.
//!
//! QEMU finds its helpers by asking the bus for everybody who owns that name or queues for it, and each of them has one object, at
//! one path. So each device has a connection to the bus of its own. Source: QEMU docs/interop/dbus-vmstate.rst.

use std::sync::Arc;

use enumflags2::BitFlags;
use zbus::blocking::connection::Builder;
use zbus::blocking::Connection;
use zbus::fdo::RequestNameReply;

use super::carrier::Carrier;
use super::error::Error;

/// The name that QEMU asks for.
const NAME: &str = "org.qemu.VMState1";
/// Where it looks.
const PATH: &str = "/org/qemu/VMState1";
/// Most bytes that it carries for one device.
pub const MAX_STATE: usize = 1 << 20;

/// A device, as QEMU's `dbus-vmstate` sees it.
struct VmState(Arc<Carrier>);

#[zbus::interface(name = "org.qemu.VMState1")]
impl VmState {
    /// What the state is called in the guest's migration.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> String {
        self.0.name().to_string()
    }

    /// Saves the device.
    fn save(&self) -> Result<Vec<u8>, Error> {
        self.0.save(MAX_STATE)
    }

    /// Loads the device, which stands still until somebody thaws it.
    fn load(&self, data: Vec<u8>) -> Result<(), Error> {
        if data.len() > MAX_STATE {
            let text = format!("a state has no more than {MAX_STATE} bytes");
            return Err(Error::TooLong(text));
        }
        self.0.load_frozen(&data)
    }
}

/// Offers a device to the QEMUs of a bus. It is offered as long as the connection lives.
pub(super) fn offer(address: &str, carrier: Arc<Carrier>) -> zbus::Result<Connection> {
    let builder = Builder::address(address)?.serve_at(PATH, VmState(carrier))?;
    let connection = builder.build()?;
    // Whoever queues is found as well as who has it.
    let reply = connection.request_name_with_flags(NAME, BitFlags::empty())?;
    match reply {
        RequestNameReply::PrimaryOwner
        | RequestNameReply::InQueue
        | RequestNameReply::AlreadyOwner => Ok(connection),
        RequestNameReply::Exists => Err(zbus::Error::NameTaken),
    }
}
