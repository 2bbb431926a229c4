// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The devices on a D-Bus.
//!
//! | object | interface | what |
//! |---|---|---|
//! | `/example/rust_vfio_mdev` | `org.freedesktop.DBus.ObjectManager` | which devices there are, and signals when that changes |
//! | | `example.rust_vfio_mdev.Manager1` | devices come and go |
//! | `/example/rust_vfio_mdev/NAME` | `example.rust_vfio_mdev.Device1` | one device |
//! | `/org/qemu/VMState1` | `org.qemu.VMState1` | one device, to QEMU's `dbus-vmstate`; each on a connection of its own |
//!
//! The bus's daemon says who may call. Nothing that is called waits for a client of a device.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustix::event::{poll, PollFd, PollFlags};
use zbus::blocking::Connection;
use zbus::fdo::{ObjectManager, RequestNameFlags, RequestNameReply};
use zbus::zvariant::OwnedObjectPath;

use crate::notice::line;
use crate::registry::{DeviceName, Event, Registry, Subscription};

mod carrier;
mod device;
mod error;
mod manager;
mod values;
mod vmstate;

pub use carrier::Carrier;
pub use error::Error as CallError;
pub use vmstate::MAX_STATE;

use device::Device;
use manager::Manager;

/// The name that the program has on the bus if it is not told another one.
pub const NAME: &str = "example.rust_vfio_mdev.VfioUserDevice";
/// Where the devices are.
const ROOT: &str = "/example/rust_vfio_mdev";

/// How the program is on the bus.
#[derive(Clone, Debug)]
pub struct Place {
    /// The bus's address, as D-Bus writes it.
    pub address: String,
    /// The program's name there.
    pub name: String,
    /// Whether devices come and go by calls.
    pub manages: bool,
    /// Whether QEMUs of that bus are offered the devices' states.
    pub carries: bool,
}

/// Why the program is not on the bus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such bus, or it refuses.
    #[error("{address}: {error}; is a dbus-daemon running there?")]
    Bus {
        /// Its address.
        address: String,
        /// What it says.
        error: zbus::Error,
    },
    /// Somebody else has the name.
    #[error("{0} has an owner on that bus already; choose another name with --dbus-name")]
    NameTaken(String),
    /// No name.
    #[error("{0:?} is no name that a program can have on a bus")]
    Name(String),
    /// The system has no more of something.
    #[error("{0}")]
    System(String),
}

/// A device that is on the bus.
#[derive(Debug)]
struct OnBus {
    /// The connection for QEMU, if there is one. Closed when it is dropped.
    _carried: Option<Connection>,
}

/// What the thread and the calls share.
struct Shared {
    registry: Registry,
    place: Place,
    connection: Connection,
    devices: Mutex<BTreeMap<DeviceName, OnBus>>,
    /// Held while a device comes or goes, which the thread and a call may both be about: who finds it on the bus finds all of it.
    turn: async_lock::Mutex<()>,
}

/// The devices on a bus, until it is dropped.
pub struct Bus {
    /// Closed to end the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Bus {
    /// Takes the devices of `registry` to a bus, and those that come later.
    pub fn connect(registry: &Registry, place: Place) -> Result<Self, Error> {
        let failed = |error| Error::Bus {
            address: place.address.clone(),
            error,
        };
        let no_pipe = |error| Error::System(format!("no pipe: {error}"));
        let (stop, stopped) = UnixStream::pair().map_err(no_pipe)?;
        let subscription = registry.subscribe();
        let subscription = subscription.map_err(|error| Error::System(error.to_string()))?;
        let builder = zbus::blocking::connection::Builder::address(place.address.as_str());
        let connection = builder
            .and_then(|builder| builder.serve_at(ROOT, ObjectManager)?.build())
            .map_err(failed)?;
        let shared = Arc::new(Shared {
            registry: registry.clone(),
            place: place.clone(),
            connection,
            devices: Mutex::default(),
            turn: async_lock::Mutex::default(),
        });
        if place.manages {
            let manager = Manager::new(&shared);
            let server = shared.connection.object_server();
            server.at(ROOT, manager).map_err(failed)?;
        }
        for info in registry.list() {
            zbus::block_on(shared.bring(&info.name)).map_err(failed)?;
        }
        // Whoever sees the name finds the devices.
        shared.take_name()?;
        let spawned = Builder::new().name("dbus".to_string());
        let spawned = spawned.spawn(move || shared.follow(&subscription, &stopped));
        let no_thread = |error| Error::System(format!("no thread can be started: {error}"));
        Ok(Self {
            stop: Some(stop),
            thread: Some(spawned.map_err(no_thread)?),
        })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn devices(&self) -> MutexGuard<'_, BTreeMap<DeviceName, OnBus>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_name(&self) -> Result<(), Error> {
        let name = self.place.name.as_str();
        let known = zbus::names::WellKnownName::try_from(name);
        let known = known.map_err(|_| Error::Name(name.to_string()))?;
        let flags = RequestNameFlags::DoNotQueue.into();
        match self.connection.request_name_with_flags(known, flags) {
            Ok(RequestNameReply::PrimaryOwner | RequestNameReply::AlreadyOwner) => Ok(()),
            Ok(RequestNameReply::Exists | RequestNameReply::InQueue)
            | Err(zbus::Error::NameTaken) => Err(Error::NameTaken(name.to_string())),
            Err(error) => Err(Error::Bus {
                address: self.place.address.clone(),
                error,
            }),
        }
    }

    /// Takes a device to the bus, if it is not there. One that was removed meanwhile stays away.
    async fn bring(&self, name: &DeviceName) -> zbus::Result<()> {
        let _turn = self.turn.lock().await;
        if self.devices().contains_key(name) || self.registry.info(name.as_str()).is_err() {
            return Ok(());
        }
        let carrier = Arc::new(Carrier::new(self.registry.clone(), name.clone()));
        let device = Device::new(carrier.clone());
        // QEMU finds it before anybody else does, who might have it saved at once.
        let carried = match self.place.carries {
            true => Some(vmstate::offer(&self.place.address, carrier)?),
            false => None,
        };
        let server = self.connection.inner().object_server();
        server.at(path(name), device).await?;
        let on_bus = OnBus { _carried: carried };
        self.devices().insert(name.clone(), on_bus);
        // From here on changes are told.
        let object = server.interface(path(name)).await?;
        device::refresh(&object).await
    }

    /// Takes a device from the bus.
    async fn take_away(&self, name: &DeviceName) -> zbus::Result<()> {
        let _turn = self.turn.lock().await;
        let on_bus = self.devices().remove(name);
        let server = self.connection.inner().object_server();
        server.remove::<Device, _>(path(name)).await?;
        drop(on_bus);
        Ok(())
    }

    async fn refresh(&self, name: &DeviceName) -> zbus::Result<()> {
        let server = self.connection.inner().object_server();
        match server.interface(path(name)).await {
            Ok(object) => device::refresh(&object).await,
            // Its coming is told, too.
            Err(zbus::Error::InterfaceNotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Everything anew.
    async fn compare(&self) -> zbus::Result<()> {
        let there: Vec<DeviceName> = self.devices().keys().cloned().collect();
        let now = self.registry.list();
        for name in &there {
            if now.iter().all(|info| info.name != *name) {
                self.take_away(name).await?;
            }
        }
        for info in now {
            self.bring(&info.name).await?;
            self.refresh(&info.name).await?;
        }
        Ok(())
    }

    /// Brings to the bus what happens, until `stopped` is closed at the other end.
    fn follow(&self, subscription: &Subscription, stopped: &UnixStream) {
        let mut was_lost = false;
        loop {
            let mut files = [
                PollFd::new(stopped, PollFlags::IN),
                PollFd::new(subscription, PollFlags::IN),
            ];
            // Nothing that interrupts it is an event.
            let _ = poll(&mut files, None);
            if !files[0].revents().is_empty() {
                return;
            }
            let Some(event) = subscription.take() else {
                continue;
            };
            let done = zbus::block_on(async {
                match &event {
                    Event::Added(name) => self.bring(name).await,
                    Event::Removed(name) => self.take_away(name).await,
                    Event::Changed(name) => self.refresh(name).await,
                    Event::Lost => self.compare().await,
                }
            });
            // The devices are served, with a bus or without.
            if let (Err(error), false) = (&done, was_lost) {
                let text = line(&format!("{}: {error}", self.place.address));
                let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
            }
            was_lost = done.is_err();
        }
    }
}

/// Where a device is on the bus. What a path cannot have is written as its number: `_2d` for `-`.
fn path(name: &DeviceName) -> OwnedObjectPath {
    let mut path = format!("{ROOT}/");
    for byte in name.as_str().bytes() {
        match byte.is_ascii_alphanumeric() {
            true => path.push(char::from(byte)),
            false => path.push_str(&format!("_{byte:02x}")),
        }
    }
    // A name is not empty, and nothing else is left in it.
    OwnedObjectPath::try_from(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_path_of_its_own() {
        let path = |name: &str| path(&name.to_string().try_into().expect("a name")).to_string();
        let below = |name: &str| format!("/example/rust_vfio_mdev/{name}");
        assert_eq!(path("card0"), below("card0"));
        assert_eq!(path("a-b.c_d"), below("a_2db_2ec_5fd"));
        assert_eq!(path("a_2db"), below("a_5f2db"));
        assert_eq!(path("0"), below("0"));
    }
}
