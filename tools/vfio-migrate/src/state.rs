// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saving and loading the state of a device without a virtual machine, by protocol v1 or v2 (linux/vfio.h), or by vfio-user where
//! a program emulates it. The stream is the same: what one saved, the other loads.
//!
//! The state of an instance lives from open to close: what is loaded is gone when the device is closed. So this is for trying out
//! whether a device saves, and whether another one accepts what was saved. A program keeps its device's state.

use std::io::{self, Read};
use std::path::Path;

use vfio_uapi::{Device, Errno};

use crate::error::{Error, Result};
use crate::operand::Device as Operand;
use crate::sysfs::{Instance, Parameters, Sysfs};

pub use program::Program;

mod open;
mod program;
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

pub(crate) fn errno(what: &str, error: Errno) -> String {
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
}

/// A device whose state is moved, and whose registers can be accessed.
pub trait Card {
    /// What messages call it.
    fn name(&self) -> String;
    /// Its device model, as far as it can be told.
    fn model(&self) -> Result<String>;
    /// Reads registers.
    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<()>;
    /// Writes registers.
    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<()>;
    /// Bytes of a region.
    fn region_size(&self, index: u32) -> Result<u64>;
    /// Whether it can save while it runs. Every device can by protocol v1, if only nothing. Fails if it cannot be migrated by
    /// this protocol at all.
    fn has_pre_copy(&self, protocol: Protocol) -> Result<bool>;
    /// Saves the state, of the running device first if `pre_copy`, and leaves the device stopped. If it fails, the device
    /// runs again.
    fn save(
        &self,
        protocol: Protocol,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved>;
    /// Starts to load a state.
    fn load(&self, protocol: Protocol) -> Result<Loading<'_>>;
}

/// Opens what a word names.
pub fn open(sysfs: &Sysfs, device: Operand) -> Result<Box<dyn Card>> {
    Ok(match device {
        Operand::Instance(instance) => Box::new(Opened::open(sysfs, instance)?),
        Operand::Socket { path, name } => Box::new(Program::connect(&path, &name)?),
    })
}

impl Opened {
    fn access(&self, result: std::result::Result<usize, Errno>, wanted: usize) -> Result<()> {
        let error = match result {
            Ok(count) if count == wanted => return Ok(()),
            Ok(_) => Errno::EIO,
            Err(error) => error,
        };
        let uuid = self.instance.uuid;
        let what = errno(&format!("{uuid}: a register cannot be accessed"), error);
        Err(Error::failed(what))
    }
}

impl Card for Opened {
    fn name(&self) -> String {
        self.instance.uuid.to_string()
    }

    fn model(&self) -> Result<String> {
        self.instance.read("device_model")
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let result = self.device.read(region, offset, data);
        self.access(result, data.len())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        self.access(self.device.write(region, offset, data), data.len())
    }

    fn region_size(&self, index: u32) -> Result<u64> {
        let region = self.device.region(index);
        self.access(region.map(|_| 0), 0)?;
        Ok(region.map_or(0, |region| region.size))
    }

    fn has_pre_copy(&self, protocol: Protocol) -> Result<bool> {
        match protocol {
            Protocol::V1 | Protocol::V1Mmap => v1::Carrier::find(self, false).map(|_| true),
            Protocol::V2 => v2::has_pre_copy(self),
        }
    }

    fn save(
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

    fn load(&self, protocol: Protocol) -> Result<Loading<'_>> {
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
                Way::File(self, v2::Resuming::start(self)?)
            }
        };
        Ok(Loading::new(way))
    }
}

/// Where a state goes.
enum Way<'o> {
    Region(v1::Carrier<'o>),
    File(&'o Opened, v2::Resuming),
    Socket(&'o Program),
}

/// A state that is being loaded.
pub struct Loading<'o> {
    way: Way<'o>,
    bytes: u64,
}

impl<'o> Loading<'o> {
    fn new(way: Way<'o>) -> Self {
        Self { way, bytes: 0 }
    }

    /// Gives the device the next bytes. A refusal has the driver's reason.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.way {
            Way::Region(carrier) => carrier.push(bytes)?,
            Way::File(opened, resuming) => resuming.push(opened, bytes)?,
            Way::Socket(program) => program.push(bytes)?,
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
            Way::File(opened, resuming) => resuming.finish(opened)?,
            Way::Socket(program) => program.finish()?,
        }
        Ok(self.bytes)
    }
}
