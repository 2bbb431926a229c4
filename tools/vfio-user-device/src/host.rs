// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device and its one client: requests in, replies out.

use std::os::fd::OwnedFd;

use vfio_user_protocol::feature::Feature;
use vfio_user_protocol::refusal::errno::{EBUSY, EINVAL};
use vfio_user_protocol::{
    Access, Capabilities, Header, Limits, Proposal, RegionInfo, Reply, Request,
};

use crate::backend::Backend;
use crate::memory::MAX_MAPS;

#[cfg(test)]
mod tests;

/// Most descriptors that are taken with one message.
pub const MAX_MSG_FDS: usize = 16;

/// What this server can.
pub const CAPABILITIES: Capabilities = Capabilities {
    max_msg_fds: MAX_MSG_FDS as u32,
    max_data_xfer_size: Limits::DEFAULT.max_data_xfer_size,
    max_dma_maps: MAX_MAPS,
};

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
    /// There were more than can be taken, some came with later bytes, or some were foreign. None of them are left.
    pub lost: bool,
    /// Some were neither memory nor an eventfd.
    pub foreign: bool,
}

/// Why descriptors are refused that nobody has a use for.
const FOREIGN: &str = "a descriptor is neither an eventfd nor memory: a memfd, or a file in /dev/shm or of huge pages \
    (QEMU: memory-backend-memfd, or memory-backend-file there, with share=on)";

/// What is behind the socket, and what was agreed on with its client.
pub struct Host<B: Backend> {
    backend: B,
    /// What was agreed on with the client, once it was.
    agreed: Option<Limits>,
    /// Why the last message was refused, if the backend was not asked.
    refusal: Option<&'static str>,
}

impl<B: Backend> Host<B> {
    /// A device without a client.
    pub fn new(backend: B) -> Self {
        Self {
            backend,
            agreed: None,
            refusal: None,
        }
    }

    /// A client has come.
    pub fn connected(&mut self, system_ns: u64) {
        self.backend.connected(system_ns);
    }

    /// The client is gone, and what it set up with it.
    pub fn disconnected(&mut self, system_ns: u64) {
        self.backend.disconnected(system_ns);
        self.agreed = None;
    }

    /// Time has passed: lets happen what is due.
    pub fn tick(&mut self, system_ns: u64) {
        self.backend.tell_time(system_ns);
        self.backend.settle();
    }

    /// Nanoseconds until the device wants [`Host::tick`], if it does.
    pub fn wake_after_ns(&self, system_ns: u64) -> Option<u64> {
        self.backend.wake_after_ns(system_ns)
    }

    /// Whether there is something that the device does by itself.
    pub fn has_work(&self) -> bool {
        self.backend.has_work()
    }

    /// Lets the device do a part of that. Says what people should know.
    pub fn work(&mut self) -> Option<String> {
        let news = self.backend.work();
        self.backend.settle();
        news
    }

    /// The reason of the last message's refusal, if it was one that people should know.
    pub fn take_refusal(&mut self) -> Option<&str> {
        match self.refusal.take() {
            Some(refusal) => Some(refusal),
            None => self.backend.take_refusal(),
        }
    }

    /// What is behind the socket.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// What is behind the socket, to do something with it that no client asked for.
    pub fn backend_mut(&mut self) -> &mut B {
        &mut self.backend
    }

    /// Answers a length that no message has.
    pub fn refuse_frame(header: &Header, out: &mut Outgoing) {
        if !header.no_reply() {
            header.put_error(&mut out.bytes, EINVAL);
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
        self.backend.tell_time(system_ns);
        let limits = self.agreed.unwrap_or(Limits::DEFAULT);
        let request = match Request::decode(header, body, &limits) {
            _ if descriptors.lost => {
                self.refusal = descriptors.foreign.then_some(FOREIGN);
                Err(EINVAL)
            }
            Ok(request) => Ok(request),
            Err(refusal) => Err(refusal.errno()),
        };
        let is_version = matches!(request, Ok(Request::Version(_)));
        let (mut next, mut file) = (Next::Continue, None);
        let result = request.and_then(|request| {
            let fds = descriptors.fds;
            self.request(request, fds, header, system_ns, &mut file, &mut out.bytes)
        });
        self.backend.settle();
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
                self.backend.dma_map(&map, fds.pop())?;
                Reply::Done
            }
            Request::DmaUnmap(unmap) => {
                self.backend.dma_unmap(&unmap)?;
                Reply::Unmapped(unmap)
            }
            Request::Info { .. } => {
                let info = self.backend.info();
                Reply::Info {
                    flags: info.flags,
                    regions: info.regions,
                    irqs: info.irqs,
                }
            }
            Request::RegionInfo { argsz, index } => {
                let reply = Reply::RegionInfo(self.region_info(argsz, index, file)?);
                // It borrows the device's areas.
                reply.encode(header, out);
                return Ok(());
            }
            Request::RegionIoFds { index, .. } if index < self.backend.info().regions => {
                Reply::NoIoFds { index }
            }
            Request::RegionIoFds { .. } => return Err(EINVAL),
            Request::IrqInfo { index, .. } => {
                let irq = self.backend.irq(index).ok_or(EINVAL)?;
                Reply::IrqInfo {
                    flags: irq.flags,
                    index,
                    count: irq.count,
                }
            }
            Request::SetIrqs(irqs) => {
                self.backend.set_irqs(&irqs, fds)?;
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
                self.backend.reset(system_ns)?;
                Reply::Done
            }
            Request::Feature(feature) => {
                let limits = self.agreed.unwrap_or(Limits::DEFAULT);
                data_of_feature = self.backend.feature(&feature, &limits, system_ns)?;
                Reply::Feature(Feature {
                    data: data_of_feature.as_deref().unwrap_or(feature.data),
                    ..feature
                })
            }
            Request::MigDataRead { size } => {
                saved = self.backend.saved(size as usize)?;
                Reply::MigData(&saved)
            }
            Request::MigDataWrite(bytes) => {
                self.backend.load(bytes)?;
                Reply::Done
            }
            Request::PrecopyInfo => {
                let (initial, dirty) = self.backend.precopy_left()?;
                Reply::PrecopyInfo { initial, dirty }
            }
        };
        reply.encode(header, out);
        Ok(())
    }

    fn agree(&mut self, proposal: &Proposal) -> Result<String, u32> {
        if self.agreed.is_some() {
            return Err(EBUSY);
        }
        if proposal.major != vfio_user_protocol::version::MAJOR {
            return Err(EINVAL);
        }
        self.backend.claim()?;
        self.agreed = Some(CAPABILITIES.limits(proposal));
        Ok(CAPABILITIES.answer(proposal))
    }

    fn region_info(
        &self,
        argsz: u32,
        index: u32,
        file: &mut Option<OwnedFd>,
    ) -> Result<RegionInfo<'_>, u32> {
        if index >= self.backend.info().regions {
            return Err(EINVAL);
        }
        let region = self.backend.region(index);
        let mut flags = match (region.size, region.read_only) {
            (0, _) => 0,
            (_, true) => RegionInfo::READ,
            (_, false) => RegionInfo::READ | RegionInfo::WRITE,
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
            index if index < self.backend.info().regions => self.backend.region(index).size,
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
        self.backend.read(access, &mut data)?;
        Ok(data)
    }

    fn write(&mut self, access: &Access, data: &[u8]) -> Result<(), u32> {
        self.reach(access)?;
        self.backend.write(access, data)
    }
}
