// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saving and loading the state of a device without a virtual machine, by protocol v1 or v2 (linux/vfio.h). The stream is the
//! same: what one saved, the other loads.
//!
//! Device state lives from open to close: what is loaded is gone when the device is closed. So this is for trying out
//! whether a device saves, and whether another one accepts what was saved.

use std::io::{self, Read};
use std::path::Path;

use vfio_uapi::{Device, Errno};

use crate::error::{Error, Result};
use crate::sysfs::{Instance, Parameters, Sysfs};

mod open;
mod v1;
mod v2;

/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// How state is moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// By the migration region, its data section read and written.
    V1,
    /// By the migration region, its data section mapped.
    V1Mmap,
    /// By the state requests and the data file of Linux 5.18.
    #[default]
    V2,
}

/// An instance whose device is open.
pub struct Opened {
    /// The device.
    pub device: Device,
    /// The instance.
    pub instance: Instance,
}

/// How far a transfer is: bytes so far, and the bytes to expect if that is known.
pub type Progress<'p> = dyn FnMut(u64, Option<u64>) + 'p;

/// How much was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Bytes while the device ran.
    pub pre_copy: u64,
    /// Bytes after it had stopped.
    pub stop_copy: u64,
}

fn errno(what: &str, error: Errno) -> String {
    format!("{what}: {} ({error:?})", error.desc())
}

impl Opened {
    /// Opens the device of an instance: by its own file and an iommufd where the kernel has both, else by its group and a
    /// type1 container.
    pub fn open(sysfs: &Sysfs, instance: Instance) -> Result<Self> {
        if !sysfs.is_live() {
            return Err(Error::failed(
                "devices can be opened on this host only: leave out --sysfs",
            ));
        }
        let device = open::open(&instance)?;
        Ok(Self { device, instance })
    }

    /// Whether it can save while it runs. Every device can by protocol v1, if only nothing. Fails if it cannot be migrated by
    /// this protocol at all.
    pub fn has_pre_copy(&self, protocol: Protocol) -> Result<bool> {
        match protocol {
            Protocol::V1 | Protocol::V1Mmap => v1::Carrier::find(self, false).map(|_| true),
            Protocol::V2 => v2::has_pre_copy(self),
        }
    }

    /// Something that the driver refused, with its reason.
    fn failure(&self, what: &str, error: Errno) -> Error {
        let what = errno(&format!("{}: {what}", self.instance.uuid), error);
        let what = match self.instance.reason().as_str() {
            "" => what,
            reason => format!("{what}: {reason}"),
        };
        match error {
            Errno::EBUSY => Error::failed(what)
                .and("; end the migration by the other protocol first, or reset the device"),
            _ => Error::refused(what),
        }
    }

    /// Saves the state, of the running device first if `pre_copy`, and leaves the device stopped. If it fails, the device
    /// runs again.
    pub fn save(
        &self,
        protocol: Protocol,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        if pre_copy && !self.has_pre_copy(protocol)? {
            return Err(Error::failed(format!(
                "{}: the device does not save while it runs: leave out --pre-copy",
                self.instance.uuid
            )));
        }
        match protocol {
            Protocol::V1 => v1::Carrier::find(self, false)?.save(pre_copy, sink, progress),
            Protocol::V1Mmap => v1::Carrier::find(self, true)?.save(pre_copy, sink, progress),
            Protocol::V2 => {
                v2::probe(self)?;
                v2::save(self, pre_copy, sink, progress)
            }
        }
    }

    /// Starts to load a state.
    pub fn load(&self, protocol: Protocol) -> Result<Loading<'_>> {
        let by_region = |mmap| {
            let carrier = v1::Carrier::find(self, mmap)?;
            carrier.start_loading()?;
            Ok(Way::Region(carrier))
        };
        let way = match protocol {
            Protocol::V1 => by_region(false)?,
            Protocol::V1Mmap => by_region(true)?,
            Protocol::V2 => {
                v2::probe(self)?;
                Way::File(v2::Resuming::start(self)?)
            }
        };
        Ok(Loading {
            opened: self,
            way,
            bytes: 0,
        })
    }
}

/// Where a state goes.
enum Way<'o> {
    Region(v1::Carrier<'o>),
    File(v2::Resuming),
}

/// A state that is being loaded.
pub struct Loading<'o> {
    opened: &'o Opened,
    way: Way<'o>,
    bytes: u64,
}

impl Loading<'_> {
    /// Gives the device the next bytes. A refusal has the driver's reason.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.way {
            Way::Region(carrier) => carrier.push(bytes)?,
            Way::File(resuming) => resuming.push(self.opened, bytes)?,
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Gives the device all of a file.
    pub fn push_all(
        &mut self,
        input: &mut dyn Read,
        name: &str,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    self.push(&buffer[..len])?;
                    progress(self.bytes, None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::file(Path::new(name), &error)),
            }
        }
    }

    /// Ends the loading and lets the device run with the state. Returns how many bytes it was.
    pub fn finish(self) -> Result<u64> {
        match self.way {
            Way::Region(carrier) => carrier.finish_loading()?,
            Way::File(resuming) => resuming.finish(self.opened)?,
        }
        Ok(self.bytes)
    }
}
