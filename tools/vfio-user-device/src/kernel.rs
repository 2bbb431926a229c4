// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device of the kernel as what is behind the socket: whatever a client asks for is asked of the driver.
//!
//! The device is open while there is a client that speaks the protocol, and closed when that one is gone, as with a monitor that
//! uses it without a program between: a device that somebody else has open is refused with `EBUSY`. What becomes of its registers
//! is the driver's business.
//!
//! A client is as untrusted as one of a model. What it sends is checked here before the kernel sees it, and the kernel checks it
//! again. The descriptor of the device is never given away: whoever has it can do more than the protocol lets a client do. So
//! nothing of a region can be mapped.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use ::migration::fsm::State;
use rustix::io::{pread, pwrite};
use vfio_uapi::{Device, Dma};
use vfio_user_protocol::feature::Feature;
use vfio_user_protocol::progress::Phase;
use vfio_user_protocol::refusal::errno::{EBUSY, EINVAL, EIO, ENODEV};
use vfio_user_protocol::{Access, DmaMap, DmaUnmap, Limits, Progress, SetIrqs};

use crate::backend::{Backend, Info, IrqInfo};
use crate::device::Region;
use crate::memory::Memory;
use crate::model::Owner;

mod describe;
mod irqs;
mod migration;
mod remote;
mod target;

use describe::Description;
use migration::Data;
pub use target::Target;

/// A device of the kernel.
#[derive(Debug)]
pub struct Kernel {
    target: Target,
    /// Open for the client.
    open: Option<Open>,
    /// Why something was refused last.
    reason: String,
    /// Whether nobody has been told of that yet.
    is_news: bool,
    /// Who has taken the device out of RUNNING.
    owner: Option<Owner>,
    /// Sessions of remote calls so far.
    sessions: u64,
    /// How often saving or loading has begun.
    begun: u64,
}

/// What a client has set up.
#[derive(Debug)]
struct Open {
    /// Through which the state goes. Closed before the device.
    data: Option<Data>,
    device: Device,
    /// The state that the driver was last found in.
    state: State,
    /// How far what is being loaded has come.
    loaded: Phase,
    /// Bytes that went through the file of the state.
    moved: u64,
    description: Description,
    /// The ranges that the client named.
    memory: Memory,
    /// Where those are that the kernel knows of.
    mapped: BTreeSet<u64>,
}

/// An error of the kernel, as the number that it is.
fn number(error: vfio_uapi::Errno) -> u32 {
    // None of them is negative.
    u32::try_from(error as i32).unwrap_or(EIO)
}

/// An error of reading or writing, as the number that it is.
fn io_number(error: rustix::io::Errno) -> u32 {
    u32::try_from(error.raw_os_error()).unwrap_or(EIO)
}

impl Kernel {
    /// The device, which is opened once to see whether it can be served. An error says why it cannot.
    pub fn new(target: Target) -> Result<Self, String> {
        let mut kernel = Self {
            target,
            open: None,
            reason: String::new(),
            is_news: false,
            owner: None,
            sessions: 0,
            begun: 0,
        };
        match kernel.claim() {
            Ok(()) => {
                kernel.open = None;
                Ok(kernel)
            }
            Err(_) => Err(kernel.reason),
        }
    }

    fn open(&mut self) -> Result<&mut Open, u32> {
        self.open.as_mut().ok_or(ENODEV)
    }

    /// What is told to a client that asks why, and to whoever started the program.
    fn refuse(&mut self, reason: String, errno: u32) -> u32 {
        self.reason = reason;
        self.is_news = true;
        errno
    }

    /// What its bus calls the device.
    pub fn name(&self) -> &str {
        self.target.name()
    }

    /// Back to power-on state, which ends whoever's session there is.
    fn reset_device(&mut self) -> Result<(), u32> {
        let open = self.open()?;
        open.device.reset().map_err(number)?;
        open.data = None;
        open.state = State::Running;
        self.owner = None;
        Ok(())
    }

    fn description(&self) -> Option<&Description> {
        self.open.as_ref().map(|open| &open.description)
    }
}

impl Backend for Kernel {
    fn connected(&mut self, _system_ns: u64) {}

    /// Opens the device.
    fn claim(&mut self) -> Result<(), u32> {
        self.reason.clear();
        let opened = self.target.open();
        let device = opened.map_err(|(error, what)| self.refuse(what, number(error)))?;
        let description = Description::of(&device).map_err(|what| {
            let reason = format!("{}: {what}", self.target.name());
            self.refuse(reason, EIO)
        })?;
        self.open = Some(Open {
            data: None,
            device,
            state: State::Running,
            loaded: Phase::None,
            moved: 0,
            description,
            memory: Memory::default(),
            mapped: BTreeSet::new(),
        });
        Ok(())
    }

    /// Closes the device. The kernel ends what was set up with it.
    fn disconnected(&mut self, _system_ns: u64) {
        self.open = None;
        self.owner = None;
    }

    fn tell_time(&mut self, _system_ns: u64) {}

    fn settle(&mut self) {}

    fn wake_after_ns(&self, _system_ns: u64) -> Option<u64> {
        None
    }

    fn take_refusal(&mut self) -> Option<&str> {
        let open = self.open.as_mut();
        let refusal = open.and_then(|open| open.memory.take_refusal());
        refusal.or_else(|| std::mem::take(&mut self.is_news).then_some(self.reason.as_str()))
    }

    fn progress(&self) -> Progress {
        self.migration_progress()
    }

    fn last_refusal(&self) -> &str {
        &self.reason
    }

    fn info(&self) -> Info {
        let none = Info {
            flags: 0,
            regions: 0,
            irqs: 0,
        };
        self.description().map_or(none, |found| found.info)
    }

    fn region(&self, index: u32) -> Region<'_> {
        let place = self.description().and_then(|found| found.region(index));
        place.map_or_else(Region::default, |place| Region {
            size: place.size,
            read_only: place.read_only,
            file: None,
            areas: &[],
        })
    }

    fn irq(&self, index: u32) -> Option<IrqInfo> {
        self.description()?.irq(index)
    }

    fn set_irqs(&mut self, irqs: &SetIrqs<'_>, fds: Vec<OwnedFd>) -> Result<(), u32> {
        let info = self.irq(irqs.index).ok_or(EINVAL)?;
        let sets = irqs::arguments(irqs, &fds, info.count)?;
        let device = &self.open()?.device;
        // The kernel keeps what it needs of the descriptors.
        sets.iter()
            .try_for_each(|set| device.set_irqs(set).map_err(number))
    }

    /// The kernel gets a mapping that nothing here touches. Memory without a descriptor cannot be reached.
    fn dma_map(&mut self, map: &DmaMap, fd: Option<OwnedFd>) -> Result<(), u32> {
        let open = self.open()?;
        let file = match &fd {
            Some(fd) => Some(fd.try_clone().map_err(|_| EIO)?),
            None => None,
        };
        open.memory.map(map, fd)?;
        let Some(file) = file else {
            return Ok(());
        };
        let dma = match (map.readable, map.writable) {
            (true, true) => Dma::ReadWrite,
            (_, true) => Dma::Write,
            _ => Dma::Read,
        };
        let place = i64::try_from(map.offset).ok();
        let mapped = match (place, usize::try_from(map.size)) {
            (Some(place), Ok(length)) => {
                let from = (file.as_fd(), place);
                let mapped = open.device.map_file(map.address, from, length, dma);
                mapped.map_err(number)
            }
            _ => Err(EINVAL),
        };
        match mapped {
            Ok(()) => drop(open.mapped.insert(map.address)),
            Err(_) => open.memory.unmap(&DmaUnmap {
                argsz: 0,
                all: false,
                address: map.address,
                size: map.size,
            })?,
        }
        mapped
    }

    fn dma_unmap(&mut self, unmap: &DmaUnmap) -> Result<(), u32> {
        let open = self.open()?;
        open.memory.check_whole(unmap)?;
        let gone: Vec<u64> = match unmap.all {
            true => open.mapped.iter().copied().collect(),
            false => open
                .mapped
                .get(&unmap.address)
                .copied()
                .into_iter()
                .collect(),
        };
        for address in gone {
            open.device.unmap_dma(address).map_err(number)?;
            open.mapped.remove(&address);
        }
        open.memory.unmap(unmap)
    }

    fn read(&mut self, access: &Access, data: &mut [u8]) -> Result<(), u32> {
        let open = self.open()?;
        let mut at = open.description.place(access)?;
        let mut rest = data;
        while !rest.is_empty() {
            match pread(open.device.as_fd(), &mut *rest, at) {
                Ok(0) => return Err(EIO),
                Ok(length) => {
                    at += length as u64;
                    rest = rest.get_mut(length..).unwrap_or_default();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io_number(error)),
            }
        }
        Ok(())
    }

    fn write(&mut self, access: &Access, data: &[u8]) -> Result<(), u32> {
        let open = self.open()?;
        let mut at = open.description.place(access)?;
        let mut rest = data;
        while !rest.is_empty() {
            match pwrite(open.device.as_fd(), rest, at) {
                Ok(0) => return Err(EIO),
                Ok(length) => {
                    at += length as u64;
                    rest = rest.get(length..).unwrap_or_default();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io_number(error)),
            }
        }
        Ok(())
    }

    /// The driver is in `RUNNING` then, and a session is over.
    fn reset(&mut self, _system_ns: u64) -> Result<(), u32> {
        self.reset_device()
    }

    fn feature(
        &mut self,
        feature: &Feature<'_>,
        limits: &Limits,
        _system_ns: u64,
    ) -> Result<Option<Vec<u8>>, u32> {
        self.migration_feature(feature, limits)
    }

    fn saved(&mut self, most: usize) -> Result<Vec<u8>, u32> {
        self.may_migrate(Owner::Client)?;
        self.read_state(most)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), u32> {
        self.may_migrate(Owner::Client)?;
        self.write_state(bytes)
    }

    fn precopy_left(&self) -> Result<(u64, u64), u32> {
        if self.owner == Some(Owner::Remote) {
            return Err(EBUSY);
        }
        match self.open.as_ref().and_then(|open| open.data.as_ref()) {
            Some(Data::Saved(file)) => {
                let left = file.precopy_info().map_err(number)?;
                Ok((left.initial, left.dirty))
            }
            _ => Err(EINVAL),
        }
    }
}
