// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A copy engine of the driver `mdev_copy`, made for one test and gone after it, and memory for it.

use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::ensure;

use super::check::{equal, Named};
use crate::kernel;
use crate::ktap::scaled;
use crate::mdev::{Mdev, MdevType};
use crate::module::Loaded;
use crate::vfio::event_fd::DEADLINE;
use crate::vfio::interrupt::{MSIX, TRIGGER};
use crate::vfio::{abi, Access, Device, Dma, Event, IrqSet, Mapping, State};

/// The driver.
pub const DRIVER: &str = "mdev_copy";
/// Region of its registers.
pub const BAR0: u32 = abi::VFIO_PCI_BAR0_REGION_INDEX;

/// Bytes in a page of x86.
pub const PAGE: u64 = 4096;
/// Where the memory is for the device.
pub const MEMORY: u64 = 0x1_0000_0000;
/// Bytes of it.
pub const LENGTH: u64 = 64 * PAGE;
/// The most that it copies at once, in bytes.
pub const MOST: u32 = 65536;

/// Bytes of BAR 0.
pub const BAR_LENGTH: u64 = 65536;
/// Where its scratch memory is in BAR 0, which can be mapped.
pub const SCRATCH: u64 = 4096;
/// Bytes of that.
pub const SCRATCH_LENGTH: usize = 61440;
/// With a length: what is copied comes from the scratch memory.
pub const FROM_SCRATCH: u32 = 1 << 31;
/// With a length: it goes there.
pub const TO_SCRATCH: u32 = 1 << 30;

/// Offsets of its registers.
mod offset {
    pub(super) const FROM: u64 = 0;
    pub(super) const TO: u64 = 8;
    pub(super) const LENGTH: u64 = 16;
    pub(super) const COMMAND: u64 = 20;
    pub(super) const STATUS: u64 = 24;
    pub(super) const COUNT: u64 = 28;
}

/// Commands.
const COPY: u32 = 1;
const FAIL: u32 = 2;

/// What the device says of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nothing was asked for.
    None,
    /// It is to be made.
    Due,
    /// It was made.
    Done,
    /// It was not possible.
    Failed,
}

/// The driver, for several engines.
pub type Driver = Arc<Loaded>;

/// Loads the driver.
pub fn driver() -> anyhow::Result<Driver> {
    Loaded::new(DRIVER).map(Arc::new)
}

/// An open copy engine with memory. Dropping it closes the device, removes the instance, and unloads the driver after the last one.
#[derive(Debug)]
pub struct Copier {
    device: Device,
    /// Its memory, in which this process copies bytes.
    pub memory: Arc<Mapping>,
    /// The instance behind the device.
    pub instance: Mdev,
    _driver: Driver,
}

impl Copier {
    /// A new engine, opened by its own file where the kernel has such files.
    pub fn new() -> anyhow::Result<Self> {
        Self::opened(&driver()?, kernel::usual_access())
    }

    /// A new engine, opened as told.
    pub fn opened(driver: &Driver, access: Access) -> anyhow::Result<Self> {
        kernel::needs_access(access)?;
        let instance = MdevType::find("mdev_copy-1")?.create()?;
        let device = access.open(&instance)?;
        let memory = Arc::new(Mapping::of_memory(LENGTH as usize).named("memory")?);
        device
            .map_dma(MEMORY, &memory, Dma::ReadWrite)
            .named("memory for the device")?;
        Ok(Self {
            device,
            memory,
            instance,
            _driver: driver.clone(),
        })
    }

    /// A new engine that has failed, opened as told.
    pub fn failed(access: Access) -> anyhow::Result<Self> {
        let copier = Self::opened(&driver()?, access)?;
        copier.fail()?;
        equal("state", copier.state(), Ok(State::Error))?;
        Ok(copier)
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self
            .device
            .write(BAR0, offset, bytes)
            .named(format!("write of {offset:#x}"))?;
        equal("bytes written", written, bytes.len())
    }

    fn word(&self, offset: u64) -> anyhow::Result<u32> {
        let mut bytes = [0; 4];
        let read = self
            .device
            .read(BAR0, offset, &mut bytes)
            .named(format!("read of {offset:#x}"))?;
        equal("bytes read", read, 4)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Says what to copy.
    pub fn aim(&self, from: u64, to: u64, length: u32) -> anyhow::Result<()> {
        self.put(offset::FROM, &from.to_le_bytes())?;
        self.put(offset::TO, &to.to_le_bytes())?;
        self.put(offset::LENGTH, &length.to_le_bytes())
    }

    /// Asks for the copy: it has been made when this returns, if the device may.
    pub fn ask(&self) -> anyhow::Result<()> {
        self.put(offset::COMMAND, &COPY.to_le_bytes())
    }

    /// Makes the device fail.
    pub fn fail(&self) -> anyhow::Result<()> {
        self.put(offset::COMMAND, &FAIL.to_le_bytes())
    }

    /// What it says of the last copy.
    pub fn status(&self) -> anyhow::Result<Status> {
        Ok(match self.word(offset::STATUS)? {
            0 => Status::None,
            1 => Status::Due,
            2 => Status::Done,
            3 => Status::Failed,
            other => anyhow::bail!("the status is {other}"),
        })
    }

    /// How many copies have ended.
    pub fn count(&self) -> anyhow::Result<u32> {
        self.word(offset::COUNT)
    }

    /// Waits until something is so, at most [`DEADLINE`]: a register's change is told to nobody.
    pub fn await_that(
        &self,
        what: &str,
        mut is_so: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + scaled(DEADLINE);
        while !is_so()? {
            ensure!(Instant::now() < end, "{what} does not happen");
            thread::yield_now();
        }
        Ok(())
    }

    /// Waits until so many more copies have ended, which others ask for.
    pub fn await_copies(&self, more: u32) -> anyhow::Result<()> {
        let wanted = self.count()? + more;
        self.await_that("another copy", || Ok(self.count()? >= wanted))
    }

    /// Asks for a copy, and returns what became of it.
    pub fn copy(&self, from: u64, to: u64, length: u32) -> anyhow::Result<Status> {
        self.aim(from, to, length)?;
        self.ask()?;
        self.status()
    }

    /// Asks for a copy that has to be made.
    pub fn copies(&self, from: u64, to: u64, length: u32) -> anyhow::Result<()> {
        equal(
            format!("{length} bytes from {from:#x} to {to:#x}"),
            self.copy(from, to, length)?,
            Status::Done,
        )
    }

    /// Puts bytes at an address of the device's.
    pub fn fill(&self, iova: u64, bytes: &[u8]) {
        self.memory.put((iova - MEMORY) as usize, bytes);
    }

    /// The bytes at an address of the device's.
    pub fn at(&self, iova: u64, length: usize) -> Vec<u8> {
        self.memory.get((iova - MEMORY) as usize, length)
    }

    /// Signals its message to a new eventfd.
    pub fn message(&self) -> anyhow::Result<Event> {
        Ok(Event::of(&self.device, MSIX)?)
    }

    /// Takes its eventfd away, without disabling messages.
    pub fn silence(&self) -> anyhow::Result<()> {
        self.device
            .set_irqs(&IrqSet::eventfd(MSIX, TRIGGER, -1))
            .named("no eventfd")
    }

    /// Closes the device, and keeps the instance.
    pub fn close(self) -> Mdev {
        self.instance
    }

    /// The open device, by itself.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl Deref for Copier {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}
