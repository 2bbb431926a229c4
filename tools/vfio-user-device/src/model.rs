// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device model as what is behind the socket.

use std::os::fd::OwnedFd;

use migration::clock::Clock;
use migration::fsm::Arc;
use migration::model::Values;
use vfio_user_protocol::feature::{number, Feature};
use vfio_user_protocol::refusal::errno::EBUSY;
use vfio_user_protocol::{Access, DmaMap, DmaUnmap, Limits, Progress, SetIrqs};

use crate::backend::{Backend, Info, IrqInfo};
use crate::device::{accesses, Device, Region, NUM_REGIONS};
use crate::feature::{action, state_data, wanted_state, Action};
use crate::irq::{self, Irqs, NUM_INDICES};
use crate::memory::Memory;

mod activity;
mod features;
mod log;
mod owner;

use features::Migration;
pub use owner::{Owner, Purpose, Refusal, SessionName, View};

/// A device model, and what its client has set up.
pub struct Model<'v, D: Device> {
    pub(crate) device: D,
    /// The values that its migration parameters have.
    values: Values<'v>,
    migration: Migration<D::Incoming>,
    /// Who has taken the device out of RUNNING.
    owner: Option<Owner>,
    has_client: bool,
    /// Whether the client has used the device since it came. Before that it sets memory up.
    is_used: bool,
    /// Whether the device was told that it may access memory.
    is_active: bool,
    /// Stands still while there is no client, and while the device does not run.
    clock: Clock,
    /// The time last told to the device.
    now_ns: u64,
    irqs: Irqs,
    memory: Memory,
}

impl<'v, D: Device> Model<'v, D> {
    /// A device with these parameters, without a client.
    pub fn new(device: D, values: Values<'v>) -> Self {
        Self {
            device,
            values,
            migration: Migration::default(),
            owner: None,
            has_client: false,
            is_used: false,
            is_active: false,
            clock: Clock::new(),
            now_ns: 0,
            irqs: Irqs::default(),
            memory: Memory::default(),
        }
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The device fails, as nothing that a client does makes it.
    #[cfg(test)]
    pub(crate) fn fail(&mut self) {
        self.migration.machine.fail(&mut self.device);
        self.tell_active();
    }

    /// Goes to a state, through those that lie between. An error leaves the device in the last one that it reached.
    fn set_state(&mut self, target: u32, system_ns: u64) -> Result<(), u32> {
        let target = self.migration.target(target)?;
        while let Some(arc) = self.migration.next(target)? {
            let (values, device) = (&self.values, &mut self.device);
            self.migration.take(arc, values, device)?;
            if arc == Arc::ResumingToStop {
                self.irqs.device_was_loaded();
            }
            self.run_clock(system_ns);
            self.tell_active();
        }
        Ok(())
    }

    /// Registers as after power-on, which ends whoever's session there is.
    fn reset_device(&mut self, system_ns: u64) {
        self.migration.reset(&mut self.device);
        self.owner = None;
        self.device.reset();
        self.run_clock(system_ns);
        self.tell_active();
    }

    /// The device's clock goes while it runs and somebody is there.
    fn run_clock(&mut self, system_ns: u64) {
        match self.has_client && self.migration.is_running() {
            true => self.clock.start(system_ns),
            false => self.clock.stop(system_ns),
        }
    }
}

impl<D: Device> Backend for Model<'_, D> {
    /// The device is as the last client left it, and runs, unless a remote call has stopped it.
    fn connected(&mut self, system_ns: u64) {
        self.migration.reason.clear();
        self.has_client = true;
        self.run_clock(system_ns);
    }

    fn claim(&mut self) -> Result<(), u32> {
        Ok(())
    }

    /// The client's session is over, and what was being loaded forgotten. The device keeps its registers; a remote call's session is
    /// not the client's, and goes on.
    fn disconnected(&mut self, system_ns: u64) {
        self.tell_time(system_ns);
        self.has_client = false;
        self.is_used = false;
        self.tell_active();
        self.clock.stop(system_ns);
        self.migration.stop_log();
        if self.owner != Some(Owner::Remote) {
            self.close_session();
        }
        self.irqs.clear(&mut self.device);
        self.memory.clear();
    }

    fn tell_time(&mut self, system_ns: u64) {
        if self.clock.is_running() {
            self.now_ns = self.clock.at(system_ns);
            self.device.set_time(self.now_ns);
        }
    }

    /// A device that is not running has no effects.
    fn settle(&mut self) {
        if self.migration.is_running() {
            self.irqs.deliver(&mut self.device);
        }
    }

    fn wake_after_ns(&self, system_ns: u64) -> Option<u64> {
        if !self.clock.is_running() {
            return None;
        }
        let due = self.now_ns.saturating_add(self.device.wake_after_ns()?);
        Some(due.saturating_sub(self.clock.at(system_ns)))
    }

    fn has_work(&self) -> bool {
        self.device.has_work()
    }

    fn work(&mut self) -> Option<String> {
        let error = self.serve_memory()?;
        Some(format!("the device needs a reset: {error}"))
    }

    fn take_refusal(&mut self) -> Option<&str> {
        let refusal = self.memory.take_refusal();
        refusal.or_else(|| self.migration.take_news())
    }

    fn progress(&self) -> Progress {
        self.migration.progress()
    }

    fn last_refusal(&self) -> &str {
        self.migration.reason.as_str()
    }

    fn info(&self) -> Info {
        Info {
            flags: Info::RESET | Info::PCI,
            regions: NUM_REGIONS,
            irqs: NUM_INDICES,
        }
    }

    fn region(&self, index: u32) -> Region<'_> {
        self.device.region(index)
    }

    fn irq(&self, index: u32) -> Option<IrqInfo> {
        let (count, flags) = irq::info(&self.device.irqs(), index)?;
        Some(IrqInfo { flags, count })
    }

    fn set_irqs(&mut self, irqs: &SetIrqs<'_>, fds: Vec<OwnedFd>) -> Result<(), u32> {
        self.take_up();
        self.irqs.apply(irqs, fds, &mut self.device)
    }

    fn dma_map(&mut self, map: &DmaMap, fd: Option<OwnedFd>) -> Result<(), u32> {
        let mapped = self.memory.map(map, fd);
        self.tell_active();
        mapped
    }

    fn dma_unmap(&mut self, unmap: &DmaUnmap) -> Result<(), u32> {
        let unmapped = self.memory.unmap(unmap);
        self.tell_active();
        unmapped
    }

    fn read(&mut self, access: &Access, data: &mut [u8]) -> Result<(), u32> {
        self.take_up();
        for part in accesses(access.region, access.offset, data.len()) {
            let at = access.offset + part.start as u64;
            if let Some(bytes) = data.get_mut(part) {
                self.device.read(access.region, at, bytes);
            }
        }
        Ok(())
    }

    fn write(&mut self, access: &Access, data: &[u8]) -> Result<(), u32> {
        self.take_up();
        for part in accesses(access.region, access.offset, data.len()) {
            let at = access.offset + part.start as u64;
            if let Some(bytes) = data.get(part) {
                self.device.write(access.region, at, bytes);
            }
        }
        Ok(())
    }

    fn reset(&mut self, system_ns: u64) -> Result<(), u32> {
        self.reset_device(system_ns);
        Ok(())
    }

    fn feature(
        &mut self,
        feature: &Feature<'_>,
        limits: &Limits,
        system_ns: u64,
    ) -> Result<Option<Vec<u8>>, u32> {
        match (action(feature)?, feature.number) {
            (Action::Nothing, _) => Ok(None),
            (Action::Get, _) => {
                let (values, device) = (&self.values, &self.device);
                let data = self.migration.get(feature, values, device, limits);
                data.map(Some)
            }
            (Action::Set, number::MIG_DEVICE_STATE) => {
                let wanted = wanted_state(feature)?;
                self.may_migrate(Owner::Client)?;
                let reached = self.set_state(wanted, system_ns);
                self.settle_owner(Owner::Client);
                reached?;
                Ok(Some(state_data(self.migration.machine.state().as_u32())))
            }
            (Action::Set, number::DMA_LOGGING_START) => {
                self.migration.start_log(feature.data).map(|()| None)
            }
            (Action::Set, _) => {
                self.migration.stop_log();
                Ok(None)
            }
        }
    }

    fn saved(&mut self, most: usize) -> Result<Vec<u8>, u32> {
        self.may_migrate(Owner::Client)?;
        self.migration.read(&mut self.device, most)
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), u32> {
        self.may_migrate(Owner::Client)?;
        self.migration.write(&self.values, &self.device, bytes)
    }

    fn precopy_left(&self) -> Result<(u64, u64), u32> {
        match self.owner {
            Some(Owner::Remote) => Err(EBUSY),
            _ => self.migration.precopy_left(&self.device),
        }
    }
}
