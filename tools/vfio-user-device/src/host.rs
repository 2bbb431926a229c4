// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device and its one client: requests in, replies out.

use std::os::fd::OwnedFd;

use migration::clock::Clock;
use migration::fsm::Arc;
use migration::model::Values;
use vfio_user_protocol::feature::{number, Feature};
use vfio_user_protocol::refusal::errno::{EBUSY, EINVAL};
use vfio_user_protocol::{
    Access, Capabilities, Header, Limits, Proposal, RegionInfo, Reply, Request,
};

use crate::device::{accesses, Device, NUM_REGIONS};
use crate::irq::{self, Irqs, NUM_INDICES};
use crate::memory::{Memory, MAX_MAPS};

mod features;
#[cfg(test)]
mod tests;

use features::{action, state_data, wanted_state, Action, Migration};

/// Most descriptors that are taken with one message.
pub const MAX_MSG_FDS: usize = 16;

/// What this server can.
pub const CAPABILITIES: Capabilities = Capabilities {
    max_msg_fds: MAX_MSG_FDS as u32,
    max_data_xfer_size: Limits::DEFAULT.max_data_xfer_size,
    max_dma_maps: MAX_MAPS,
};

/// `GET_INFO`: it can be reset, and is a PCI device.
const DEVICE_FLAGS: u32 = 3;

/// A message that goes out.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Its bytes; none if nothing is sent.
    pub bytes: Vec<u8>,
    /// The descriptor that goes with it.
    pub file: Option<OwnedFd>,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    Continue,
    /// It is closed once the reply has been sent.
    Close,
}

/// Descriptors that came with a message.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// Those that came where they belong: with the header.
    pub fds: Vec<OwnedFd>,
    /// There were more than can be taken, or some came with later bytes. They are closed already.
    pub lost: bool,
}

/// A device, and what its client has set up.
pub struct Host<'v, D: Device> {
    device: D,
    /// The values that its migration parameters have.
    values: Values<'v>,
    migration: Migration<D::Incoming>,
    /// Stands still while there is no client, and while the device does not run.
    clock: Clock,
    /// The time last told to the device.
    now_ns: u64,
    irqs: Irqs,
    memory: Memory,
    /// What was agreed on with the client, once it was.
    agreed: Option<Limits>,
}

impl<'v, D: Device> Host<'v, D> {
    /// A device with these parameters, without a client.
    pub fn new(device: D, values: Values<'v>) -> Self {
        Self {
            device,
            values,
            migration: Migration::default(),
            clock: Clock::new(),
            now_ns: 0,
            irqs: Irqs::default(),
            memory: Memory::default(),
            agreed: None,
        }
    }

    /// A client has come. The device is as the last one left it, and runs.
    pub fn connected(&mut self, system_ns: u64) {
        self.migration.reason.clear();
        self.clock.start(system_ns);
    }

    /// The client is gone, and what it set up with it: a session is over, and what was being loaded forgotten. The device keeps its
    /// registers.
    pub fn disconnected(&mut self, system_ns: u64) {
        self.tell_time(system_ns);
        self.clock.stop(system_ns);
        self.migration.close(&mut self.device);
        self.irqs = Irqs::default();
        self.memory.clear();
        self.agreed = None;
    }

    /// Time has passed: lets happen what is due.
    pub fn tick(&mut self, system_ns: u64) {
        self.tell_time(system_ns);
        self.settle();
    }

    /// Nanoseconds until the device wants [`Host::tick`], if it does.
    pub fn wake_after_ns(&self, system_ns: u64) -> Option<u64> {
        if !self.clock.is_running() {
            return None;
        }
        let due = self.now_ns.saturating_add(self.device.wake_after_ns()?);
        Some(due.saturating_sub(self.clock.at(system_ns)))
    }

    fn tell_time(&mut self, system_ns: u64) {
        if self.clock.is_running() {
            self.now_ns = self.clock.at(system_ns);
            self.device.set_time(self.now_ns);
        }
    }

    /// Brings what the device asserts to the client. A device that is not running has no effects.
    fn settle(&mut self) {
        if self.migration.is_running() {
            self.irqs.deliver(&mut self.device);
        }
    }

    /// The reason of the last message's refusal, if it was one that has to do with migration.
    pub fn take_refusal(&mut self) -> Option<&str> {
        self.migration.take_news()
    }

    /// Answers a length that no message has.
    pub fn refuse_frame(header: &Header, out: &mut Outgoing) {
        if !header.no_reply() {
            header.put_error(&mut out.bytes, EINVAL);
        }
    }

    /// Answers somebody who came while there is a client: the device is in use.
    pub fn refuse_other(header: &Header, out: &mut Outgoing) {
        if !header.no_reply() {
            header.put_error(&mut out.bytes, EBUSY);
        }
    }

    /// Carries one message out and puts the answer into `out`, if one is wanted.
    pub fn message(
        &mut self,
        header: &Header,
        body: &[u8],
        descriptors: Descriptors,
        system_ns: u64,
        out: &mut Outgoing,
    ) -> Next {
        self.tell_time(system_ns);
        let limits = self.agreed.unwrap_or(Limits::DEFAULT);
        let request = match Request::decode(header, body, &limits) {
            _ if descriptors.lost => Err(EINVAL),
            Ok(request) => Ok(request),
            Err(refusal) => Err(refusal.errno()),
        };
        let is_version = matches!(request, Ok(Request::Version(_)));
        let (mut next, mut file) = (Next::Continue, None);
        let result = request.and_then(|request| {
            let fds = descriptors.fds;
            self.request(request, fds, header, system_ns, &mut file, &mut out.bytes)
        });
        self.settle();
        if let Err(errno) = result {
            out.bytes.clear();
            header.put_error(&mut out.bytes, errno);
            file = None;
            // Nobody goes on before both agreed; what was no version at all can be said again.
            if self.agreed.is_none() && (is_version || header.command != 1) {
                next = Next::Close;
            }
        }
        if header.no_reply() {
            out.bytes.clear();
            file = None;
        }
        out.file = file;
        next
    }

    fn request(
        &mut self,
        request: Request<'_>,
        mut fds: Vec<OwnedFd>,
        header: &Header,
        system_ns: u64,
        file: &mut Option<OwnedFd>,
        out: &mut Vec<u8>,
    ) -> Result<(), u32> {
        if self.agreed.is_none() && !matches!(request, Request::Version(_)) {
            return Err(EINVAL);
        }
        match &request {
            Request::SetIrqs(_) => {}
            Request::DmaMap(_) if fds.len() <= 1 => {}
            // SPDK sends one along.
            Request::DmaUnmap(_) => fds.clear(),
            _ if fds.is_empty() => {}
            _ => return Err(EINVAL),
        }
        let (data, data_of_feature, saved);
        let reply = match request {
            Request::Version(proposal) => {
                data = self.agree(&proposal)?;
                Reply::Version {
                    minor: 0,
                    data: &data,
                }
            }
            Request::DmaMap(map) => {
                self.memory.map(&map, fds.pop())?;
                Reply::Done
            }
            Request::DmaUnmap(unmap) => {
                self.memory.unmap(&unmap)?;
                Reply::Unmapped(unmap)
            }
            Request::Info { .. } => Reply::Info {
                flags: DEVICE_FLAGS,
                regions: NUM_REGIONS,
                irqs: NUM_INDICES,
            },
            Request::RegionInfo { argsz, index } => {
                let reply = Reply::RegionInfo(self.region_info(argsz, index, file)?);
                // It borrows the device's areas.
                reply.encode(header, out);
                return Ok(());
            }
            Request::RegionIoFds { index, .. } if index < NUM_REGIONS => Reply::NoIoFds { index },
            Request::RegionIoFds { .. } => return Err(EINVAL),
            Request::IrqInfo { index, .. } => {
                let (count, flags) = irq::info(&self.device.irqs(), index).ok_or(EINVAL)?;
                Reply::IrqInfo {
                    flags,
                    index,
                    count,
                }
            }
            Request::SetIrqs(irqs) => {
                let counts = self.device.irqs();
                self.irqs.apply(&irqs, fds, &counts)?;
                Reply::Done
            }
            Request::Read(access) => {
                let data = self.read(&access)?;
                Reply::Read(access, &data).encode(header, out);
                return Ok(());
            }
            Request::Write(access, data) => {
                self.write(&access, data)?;
                Reply::Written(access)
            }
            Request::WriteMulti(writes) => {
                let mut done = 0;
                for (access, data) in writes.iter() {
                    let data = data.get(..access.count as usize).unwrap_or_default();
                    if self.write(&access, data).is_err() {
                        break;
                    }
                    done += 1;
                }
                Reply::MultiWritten(done)
            }
            Request::Reset => {
                self.migration.reset(&mut self.device);
                self.device.reset();
                self.run_clock(system_ns);
                Reply::Done
            }
            Request::Feature(feature) => {
                data_of_feature = self.feature(&feature, system_ns)?;
                Reply::Feature(Feature {
                    data: data_of_feature.as_deref().unwrap_or(feature.data),
                    ..feature
                })
            }
            Request::MigDataRead { size } => {
                saved = self.migration.read(&mut self.device, size as usize)?;
                Reply::MigData(&saved)
            }
            Request::MigDataWrite(bytes) => {
                let (values, device) = (&self.values, &self.device);
                self.migration.write(values, device, bytes)?;
                Reply::Done
            }
            Request::PrecopyInfo => {
                let (initial, dirty) = self.migration.precopy_left(&self.device)?;
                Reply::PrecopyInfo { initial, dirty }
            }
        };
        reply.encode(header, out);
        Ok(())
    }

    /// Carries out what is asked of a feature, and gives the data that the reply has in the place of the request's.
    fn feature(&mut self, feature: &Feature<'_>, system_ns: u64) -> Result<Option<Vec<u8>>, u32> {
        match (action(feature)?, feature.number) {
            (Action::Nothing, _) => Ok(None),
            (Action::Get, _) => {
                let limits = self.agreed.unwrap_or(Limits::DEFAULT);
                let (values, device) = (&self.values, &self.device);
                let data = self.migration.get(feature, values, device, &limits);
                data.map(Some)
            }
            (Action::Set, number::MIG_DEVICE_STATE) => {
                self.set_state(wanted_state(feature)?, system_ns)?;
                Ok(Some(state_data(self.migration.machine.state())))
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
        }
        Ok(())
    }

    /// The device's clock goes while it runs.
    fn run_clock(&mut self, system_ns: u64) {
        match self.migration.is_running() {
            true => self.clock.start(system_ns),
            false => self.clock.stop(system_ns),
        }
    }

    fn agree(&mut self, proposal: &Proposal) -> Result<String, u32> {
        if self.agreed.is_some() {
            return Err(EBUSY);
        }
        if proposal.major != vfio_user_protocol::version::MAJOR {
            return Err(EINVAL);
        }
        self.agreed = Some(CAPABILITIES.limits(proposal));
        Ok(CAPABILITIES.answer(proposal))
    }

    fn region_info(
        &self,
        argsz: u32,
        index: u32,
        file: &mut Option<OwnedFd>,
    ) -> Result<RegionInfo<'_>, u32> {
        if index >= NUM_REGIONS {
            return Err(EINVAL);
        }
        let region = self.device.region(index);
        let mut flags = match region.size {
            0 => 0,
            _ => RegionInfo::READ | RegionInfo::WRITE,
        };
        let mut offset = 0;
        if let Some((fd, from)) = region.file {
            *file = Some(fd.try_clone_to_owned().map_err(|_| EINVAL)?);
            flags |= RegionInfo::MMAP;
            offset = from;
        }
        Ok(RegionInfo {
            argsz,
            index,
            flags,
            size: region.size,
            offset,
            areas: region.areas,
        })
    }

    /// Whether the registers are there.
    fn reach(&self, access: &Access) -> Result<(), u32> {
        let size = match access.region {
            index if index < NUM_REGIONS => self.device.region(index).size,
            _ => 0,
        };
        let end = access.offset.checked_add(access.count.into());
        match size > 0 && end.is_some_and(|end| end <= size) {
            true => Ok(()),
            false => Err(EINVAL),
        }
    }

    fn read(&mut self, access: &Access) -> Result<Vec<u8>, u32> {
        self.reach(access)?;
        let mut data = vec![0; access.count as usize];
        for part in accesses(access.region, access.offset, data.len()) {
            let at = access.offset + part.start as u64;
            if let Some(bytes) = data.get_mut(part) {
                self.device.read(access.region, at, bytes);
            }
        }
        Ok(data)
    }

    fn write(&mut self, access: &Access, data: &[u8]) -> Result<(), u32> {
        self.reach(access)?;
        for part in accesses(access.region, access.offset, data.len()) {
            let at = access.offset + part.start as u64;
            if let Some(bytes) = data.get(part) {
                self.device.write(access.region, at, bytes);
            }
        }
        Ok(())
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}
