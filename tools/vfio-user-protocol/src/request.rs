// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a client asks for.
//!
//! A body may be longer than the structure that it begins with: some clients pad it, and the rest is not looked at.

use crate::feature::Feature;
use crate::header::{Command, Header};
use crate::refusal::Refusal;
use crate::version::{self, Proposal};
use crate::wire::{len32, Reader, Writer};
use crate::{Limits, PAGE};
use alloc::vec::Vec;

#[cfg(test)]
mod tests;

/// Most writes in one `WRITE_MULTI`.
pub const MAX_WRITES: usize = 200;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// What both sides can.
    Version(Proposal),
    /// The server may reach memory.
    DmaMap(DmaMap),
    /// The server may no longer reach memory.
    DmaUnmap(DmaUnmap),
    /// What the device has.
    Info {
        /// Most bytes of reply that the client takes.
        argsz: u32,
    },
    /// What a region is.
    RegionInfo {
        /// Most bytes of reply that the client takes.
        argsz: u32,
        /// Which region.
        index: u32,
    },
    /// Descriptors that stand for parts of a region.
    RegionIoFds {
        /// Most bytes of reply that the client takes.
        argsz: u32,
        /// Which region.
        index: u32,
    },
    /// What an interrupt is.
    IrqInfo {
        /// Most bytes of reply that the client takes.
        argsz: u32,
        /// Which interrupt.
        index: u32,
    },
    /// How interrupts are told.
    SetIrqs(SetIrqs<'a>),
    /// Reading registers.
    Read(Access),
    /// Writing registers.
    Write(Access, &'a [u8]),
    /// Several writes of registers.
    WriteMulti(WriteMulti<'a>),
    /// Back to power-on state.
    Reset,
    /// A feature is read, written or asked for.
    Feature(Feature<'a>),
    /// The next bytes of saved state.
    MigDataRead {
        /// How many.
        size: u32,
    },
    /// The next bytes of a state to load.
    MigDataWrite(&'a [u8]),
    /// How much is left to save while the device runs.
    PrecopyInfo,
}

/// Memory that the server may reach. Addresses and sizes are whole pages, and no sum overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMap {
    /// Whether it may be read.
    pub readable: bool,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether the client says that it can be reached by the descriptor: there has to be one then.
    pub wants_file: bool,
    /// Where it begins in the file of the descriptor.
    pub offset: u64,
    /// Where it begins for the device.
    pub address: u64,
    /// Bytes; not 0.
    pub size: u64,
}

impl DmaMap {
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    /// The descriptor can be mapped.
    const MMAP: u32 = 4;
    /// The descriptor can be read and written.
    const FILE: u32 = 8;
    const LEN: u32 = 32;

    fn decode(body: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let (_argsz, flags) = (reader.u32()?, reader.u32()?);
        let known = Self::READ | Self::WRITE | Self::MMAP | Self::FILE;
        if flags & !known != 0 || flags & (Self::READ | Self::WRITE) == 0 {
            return Err(Refusal::Flags);
        }
        let map = Self {
            readable: flags & Self::READ != 0,
            writable: flags & Self::WRITE != 0,
            wants_file: flags & (Self::MMAP | Self::FILE) != 0,
            offset: reader.u64()?,
            address: reader.u64()?,
            size: reader.u64()?,
        };
        range(map.address, map.size)?;
        // A file's last offset is a signed number.
        let end = map.offset.checked_add(map.size);
        end.filter(|end| i64::try_from(*end).is_ok())
            .ok_or(Refusal::Overflow)?;
        if (map.address | map.size | map.offset) & (PAGE - 1) != 0 {
            return Err(Refusal::Alignment);
        }
        Ok(map)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let bit = |set, bit| if set { bit } else { 0 };
        let flags = bit(self.readable, Self::READ)
            | bit(self.writable, Self::WRITE)
            | bit(self.wants_file, Self::FILE);
        out.put32(Self::LEN)
            .put32(flags)
            .put64(self.offset)
            .put64(self.address)
            .put64(self.size);
    }
}

/// Whether a range has bytes, and its last one an address.
fn range(address: u64, size: u64) -> Result<(), Refusal> {
    let last = size.checked_sub(1).ok_or(Refusal::Count)?;
    address.checked_add(last).ok_or(Refusal::Overflow)?;
    Ok(())
}

/// Memory that the server may no longer reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaUnmap {
    /// As the client said it: the reply repeats it.
    pub argsz: u32,
    /// Everything that was mapped. Address and size are 0 then.
    pub all: bool,
    /// Where it begins for the device.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

impl DmaUnmap {
    /// As the kernel's interface has it. There is no bit for a bitmap of dirty pages (bit 0): that is asked for by features.
    const ALL: u32 = 2;

    fn decode(body: &[u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let (argsz, flags) = (reader.u32()?, reader.u32()?);
        let (address, size) = (reader.u64()?, reader.u64()?);
        let all = match flags {
            0 => {
                range(address, size)?;
                false
            }
            Self::ALL if address == 0 && size == 0 => true,
            _ => return Err(Refusal::Flags),
        };
        Ok(Self {
            argsz,
            all,
            address,
            size,
        })
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put32(self.argsz)
            .put32(if self.all { Self::ALL } else { 0 })
            .put64(self.address)
            .put64(self.size);
    }
}

/// What is done with interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// They are held back.
    Mask,
    /// They are let through again.
    Unmask,
    /// They are raised, or told how they are to be told.
    Trigger,
}

/// To which of the interrupts, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqData<'a> {
    /// All that are named.
    None,
    /// Those whose byte is not 0; there are as many bytes as interrupts are named.
    Bool(&'a [u8]),
    /// By the descriptors that came with the message, one each; by none at all if none came.
    EventFd,
}

/// How interrupts are told. The last one named has a number that does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetIrqs<'a> {
    /// Which kind of interrupt.
    pub index: u32,
    /// The first of them.
    pub start: u32,
    /// How many.
    pub count: u32,
    /// What is done.
    pub action: Action,
    /// To which, and by what.
    pub data: IrqData<'a>,
}

impl<'a> SetIrqs<'a> {
    const LEN: u32 = 20;
    const NONE: u32 = 1;
    const BOOL: u32 = 2;
    const EVENTFD: u32 = 4;
    const MASK: u32 = 8;
    const UNMASK: u32 = 16;
    const TRIGGER: u32 = 32;

    fn decode(body: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let (argsz, flags, index) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (start, count) = (reader.u32()?, reader.u32()?);
        if argsz < Self::LEN {
            return Err(Refusal::ArgSize);
        }
        start.checked_add(count).ok_or(Refusal::Overflow)?;
        let data_bits = Self::NONE | Self::BOOL | Self::EVENTFD;
        let data = match flags & data_bits {
            Self::NONE => IrqData::None,
            Self::BOOL if reader.rest().len() == count as usize => IrqData::Bool(reader.rest()),
            Self::BOOL => return Err(Refusal::Count),
            Self::EVENTFD => IrqData::EventFd,
            _ => return Err(Refusal::Flags),
        };
        let action = match flags & !data_bits {
            Self::MASK => Action::Mask,
            Self::UNMASK => Action::Unmask,
            Self::TRIGGER => Action::Trigger,
            _ => return Err(Refusal::Flags),
        };
        Ok(Self {
            index,
            start,
            count,
            action,
            data,
        })
    }

    fn put(&self, out: &mut Vec<u8>) {
        let (data, bytes) = match self.data {
            IrqData::None => (Self::NONE, &[][..]),
            IrqData::Bool(bytes) => (Self::BOOL, bytes),
            IrqData::EventFd => (Self::EVENTFD, &[][..]),
        };
        let action = match self.action {
            Action::Mask => Self::MASK,
            Action::Unmask => Self::UNMASK,
            Action::Trigger => Self::TRIGGER,
        };
        out.put32(Self::LEN + len32(bytes.len()))
            .put32(data | action)
            .put32(self.index)
            .put32(self.start)
            .put32(self.count)
            .put(bytes);
    }
}

/// Registers. The last one has an offset that does not overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// From where on in the region.
    pub offset: u64,
    /// Which region.
    pub region: u32,
    /// How many bytes.
    pub count: u32,
}

impl Access {
    fn decode(reader: &mut Reader<'_>, limits: &Limits) -> Result<Self, Refusal> {
        let access = Self {
            offset: reader.u64()?,
            region: reader.u32()?,
            count: reader.u32()?,
        };
        if access.count > limits.max_data_xfer_size {
            return Err(Refusal::TooMuch);
        }
        let end = access.offset.checked_add(u64::from(access.count));
        end.ok_or(Refusal::Overflow)?;
        Ok(access)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put64(self.offset).put32(self.region).put32(self.count);
    }
}

/// Several writes of registers, of up to 8 bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteMulti<'a> {
    entries: &'a [u8],
}

impl<'a> WriteMulti<'a> {
    /// Bytes of one of them, eight of which are its data.
    const ENTRY: usize = 24;

    fn decode(body: &'a [u8], limits: &Limits) -> Result<Self, Refusal> {
        if !limits.write_multiple {
            return Err(Refusal::NotAgreed);
        }
        let mut reader = Reader::new(body);
        let count = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        let entries = reader.rest();
        if count > MAX_WRITES {
            return Err(Refusal::TooMuch);
        }
        if entries.len() != count * Self::ENTRY {
            return Err(Refusal::Count);
        }
        let writes = Self { entries };
        match writes.iter().count() == count {
            true => Ok(writes),
            false => Err(Refusal::Count),
        }
    }

    /// The writes, in order: where to, and eight bytes of which the first [`Access::count`] are written.
    pub fn iter(&self) -> impl Iterator<Item = (Access, [u8; 8])> + 'a {
        let limits = Limits {
            max_data_xfer_size: 8,
            write_multiple: true,
        };
        let entry = move |entry: &[u8]| {
            let mut reader = Reader::new(entry);
            let access = Access::decode(&mut reader, &limits).ok()?;
            Some((access, reader.bytes().ok()?))
        };
        self.entries.chunks_exact(Self::ENTRY).map_while(entry)
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.put64((self.entries.len() / Self::ENTRY) as u64)
            .put(self.entries);
    }
}

impl<'a> Request<'a> {
    /// Takes a whole message.
    pub fn decode(header: &Header, body: &'a [u8], limits: &Limits) -> Result<Self, Refusal> {
        if !header.is_request() {
            return Err(Refusal::NotARequest);
        }
        let mut reader = Reader::new(body);
        Ok(match Command::try_from(header.command)? {
            Command::Version => Self::Version(Proposal::decode(body)?),
            Command::DmaMap => Self::DmaMap(DmaMap::decode(body)?),
            Command::DmaUnmap => Self::DmaUnmap(DmaUnmap::decode(body)?),
            Command::GetInfo => {
                let (argsz, _) = of_length(&mut reader, 16)?;
                Self::Info { argsz }
            }
            Command::GetRegionInfo => {
                let (argsz, index) = of_length(&mut reader, 32)?;
                Self::RegionInfo { argsz, index }
            }
            Command::GetRegionIoFds => {
                let (argsz, index) = of_length(&mut reader, 16)?;
                Self::RegionIoFds { argsz, index }
            }
            Command::GetIrqInfo => {
                let (argsz, index) = of_length(&mut reader, 16)?;
                Self::IrqInfo { argsz, index }
            }
            Command::SetIrqs => Self::SetIrqs(SetIrqs::decode(body)?),
            Command::RegionRead => Self::Read(Access::decode(&mut reader, limits)?),
            Command::RegionWrite => {
                let access = Access::decode(&mut reader, limits)?;
                let data = reader.rest();
                if data.len() != access.count as usize {
                    return Err(Refusal::Count);
                }
                Self::Write(access, data)
            }
            command @ (Command::DmaRead | Command::DmaWrite) => {
                return Err(Refusal::ServersCommand(command as u16))
            }
            Command::Reset => Self::Reset,
            Command::WriteMulti => Self::WriteMulti(WriteMulti::decode(body, limits)?),
            Command::Feature => Self::Feature(Feature::decode(body)?),
            Command::MigDataRead => {
                let (argsz, size) = (reader.u32()?, reader.u32()?);
                if size > limits.max_data_xfer_size {
                    return Err(Refusal::TooMuch);
                }
                if argsz.checked_sub(8).is_none_or(|room| room < size) {
                    return Err(Refusal::ArgSize);
                }
                Self::MigDataRead { size }
            }
            Command::MigDataWrite => {
                let (_argsz, size) = (reader.u32()?, reader.u32()?);
                if size > limits.max_data_xfer_size {
                    return Err(Refusal::TooMuch);
                }
                let data = reader.rest().get(..size as usize);
                Self::MigDataWrite(data.ok_or(Refusal::Count)?)
            }
            Command::PrecopyInfo => {
                if reader.u32()? < 24 {
                    return Err(Refusal::ArgSize);
                }
                Self::PrecopyInfo
            }
        })
    }

    /// Its command.
    pub fn command(&self) -> Command {
        match self {
            Self::Version(_) => Command::Version,
            Self::DmaMap(_) => Command::DmaMap,
            Self::DmaUnmap(_) => Command::DmaUnmap,
            Self::Info { .. } => Command::GetInfo,
            Self::RegionInfo { .. } => Command::GetRegionInfo,
            Self::RegionIoFds { .. } => Command::GetRegionIoFds,
            Self::IrqInfo { .. } => Command::GetIrqInfo,
            Self::SetIrqs(_) => Command::SetIrqs,
            Self::Read(_) => Command::RegionRead,
            Self::Write(..) => Command::RegionWrite,
            Self::WriteMulti(_) => Command::WriteMulti,
            Self::Reset => Command::Reset,
            Self::Feature(_) => Command::Feature,
            Self::MigDataRead { .. } => Command::MigDataRead,
            Self::MigDataWrite(_) => Command::MigDataWrite,
            Self::PrecopyInfo => Command::PrecopyInfo,
        }
    }

    /// Appends the message that asks for it, as a client does. Of a version, the numbers, and whether it is an observer's.
    pub fn encode(&self, id: u16, no_reply: bool, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        match self {
            Self::Version(proposal) => {
                version::put(&mut body, proposal.major, proposal.minor, proposal.data());
            }
            Self::DmaMap(map) => map.put(&mut body),
            Self::DmaUnmap(unmap) => unmap.put(&mut body),
            Self::Info { argsz } => {
                body.put32(*argsz).put(&[0; 12]);
            }
            Self::RegionInfo { argsz, index } => {
                body.put32(*argsz).put32(0).put32(*index).put(&[0; 20]);
            }
            Self::RegionIoFds { argsz, index } | Self::IrqInfo { argsz, index } => {
                body.put32(*argsz).put32(0).put32(*index).put32(0);
            }
            Self::SetIrqs(irqs) => irqs.put(&mut body),
            Self::Read(access) => access.put(&mut body),
            Self::Write(access, data) => {
                access.put(&mut body);
                body.put(data);
            }
            Self::WriteMulti(writes) => writes.put(&mut body),
            Self::Reset => {}
            Self::Feature(feature) => feature.put(&mut body),
            Self::MigDataRead { size } => {
                body.put32(size.saturating_add(8)).put32(*size);
            }
            Self::MigDataWrite(data) => {
                let size = len32(data.len());
                body.put32(size.saturating_add(8)).put32(size).put(data);
            }
            Self::PrecopyInfo => {
                body.put32(24).put(&[0; 20]);
            }
        }
        Header::put_request(out, id, self.command(), no_reply, body.len());
        out.put(&body);
    }
}

/// The first and third number of a structure of so many bytes, the first of which is `argsz`: room for as many in the reply.
fn of_length(reader: &mut Reader<'_>, bytes: usize) -> Result<(u32, u32), Refusal> {
    if reader.rest().len() < bytes {
        return Err(Refusal::Short);
    }
    let (argsz, _, index) = (reader.u32()?, reader.u32()?, reader.u32()?);
    match argsz as usize >= bytes {
        true => Ok((argsz, index)),
        false => Err(Refusal::ArgSize),
    }
}
