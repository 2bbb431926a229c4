// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What every message begins with.

use crate::refusal::Refusal;
use crate::wire::{len32, Reader, Writer};
use alloc::vec::Vec;

/// A command by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Command {
    /// Both sides say what they can.
    Version = 1,
    /// Memory that the server may reach.
    DmaMap = 2,
    /// Memory that it may no longer.
    DmaUnmap = 3,
    /// What the device has.
    GetInfo = 4,
    /// What a region is.
    GetRegionInfo = 5,
    /// Descriptors that stand for parts of a region.
    GetRegionIoFds = 6,
    /// What an interrupt is.
    GetIrqInfo = 7,
    /// How an interrupt is told.
    SetIrqs = 8,
    /// Reading registers.
    RegionRead = 9,
    /// Writing registers.
    RegionWrite = 10,
    /// The server reads memory.
    DmaRead = 11,
    /// The server writes memory.
    DmaWrite = 12,
    /// Back to power-on state.
    Reset = 13,
    /// Several writes of registers.
    WriteMulti = 15,
    /// Features: migration, DMA logging.
    Feature = 16,
    /// Saved state, from the server.
    MigDataRead = 17,
    /// Saved state, to the server.
    MigDataWrite = 18,
    /// How much is left to save while the device runs.
    PrecopyInfo = 19,
}

impl TryFrom<u16> for Command {
    type Error = Refusal;

    fn try_from(number: u16) -> Result<Self, Refusal> {
        Ok(match number {
            1 => Self::Version,
            2 => Self::DmaMap,
            3 => Self::DmaUnmap,
            4 => Self::GetInfo,
            5 => Self::GetRegionInfo,
            6 => Self::GetRegionIoFds,
            7 => Self::GetIrqInfo,
            8 => Self::SetIrqs,
            9 => Self::RegionRead,
            10 => Self::RegionWrite,
            11 => Self::DmaRead,
            12 => Self::DmaWrite,
            13 => Self::Reset,
            15 => Self::WriteMulti,
            16 => Self::Feature,
            17 => Self::MigDataRead,
            18 => Self::MigDataWrite,
            19 => Self::PrecopyInfo,
            _ => return Err(Refusal::NoCommand(number)),
        })
    }
}

/// Bits of the flags that are the message's type.
const TYPE: u32 = 0xf;
/// The type of a reply.
const REPLY: u32 = 1;
/// The client wants no reply.
const NO_REPLY: u32 = 1 << 4;
/// The reply says that something went wrong.
const ERROR: u32 = 1 << 5;

/// What a message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's number for it, which its reply has, too.
    pub id: u16,
    /// The number of the command.
    pub command: u16,
    /// Bytes of the message, with the header.
    pub size: u32,
    flags: u32,
    error: u32,
}

impl Header {
    /// Bytes that a header has.
    pub const LEN: usize = 16;

    /// Takes a header.
    pub fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let mut reader = Reader::new(bytes);
        let mut fields = || {
            Ok::<_, Refusal>(Self {
                id: reader.u16()?,
                command: reader.u16()?,
                size: reader.u32()?,
                flags: reader.u32()?,
                error: reader.u32()?,
            })
        };
        // There are as many bytes as that takes.
        fields().unwrap_or(Self {
            id: 0,
            command: 0,
            size: 0,
            flags: 0,
            error: 0,
        })
    }

    /// Whether it begins a request. Flags that mean nothing in one are not looked at, nor is the error number.
    pub const fn is_request(&self) -> bool {
        self.flags & TYPE == 0
    }

    /// Whether it begins a reply.
    pub const fn is_reply(&self) -> bool {
        self.flags & TYPE == REPLY
    }

    /// Whether its sender wants no reply, be it one of success or of failure.
    pub const fn no_reply(&self) -> bool {
        self.flags & NO_REPLY != 0
    }

    /// The error number, if it begins a reply that says that something went wrong. That may be 0.
    pub const fn error(&self) -> Option<u32> {
        if self.is_reply() && self.flags & ERROR != 0 {
            Some(self.error)
        } else {
            None
        }
    }

    /// Appends the header of a request with a body of so many bytes.
    pub(crate) fn put_request(
        out: &mut Vec<u8>,
        id: u16,
        command: Command,
        no_reply: bool,
        body: usize,
    ) {
        let flags = if no_reply { NO_REPLY } else { 0 };
        out.put16(id)
            .put16(command as u16)
            .put32(len32(Self::LEN + body))
            .put32(flags)
            .put32(0);
    }

    /// Appends the header of the reply to this request, with a body of so many bytes.
    pub(crate) fn put_reply(&self, out: &mut Vec<u8>, body: usize) {
        out.put16(self.id)
            .put16(self.command)
            .put32(len32(Self::LEN + body))
            .put32(REPLY)
            .put32(0);
    }

    /// Appends the whole reply that says that this request failed: it has no body.
    pub fn put_error(&self, out: &mut Vec<u8>, errno: u32) {
        out.put16(self.id)
            .put16(self.command)
            .put32(len32(Self::LEN))
            .put32(REPLY | ERROR)
            .put32(errno);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_protocol_has_them() {
        let mut bytes = [0; Header::LEN];
        bytes[0..2].copy_from_slice(&0x1234u16.to_ne_bytes());
        bytes[2..4].copy_from_slice(&9u16.to_ne_bytes());
        bytes[4..8].copy_from_slice(&32u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&0x10u32.to_ne_bytes());
        bytes[12..16].copy_from_slice(&77u32.to_ne_bytes());
        let header = Header::parse(&bytes);
        assert_eq!((header.id, header.command, header.size), (0x1234, 9, 32));
        assert!(header.is_request() && header.no_reply());
        assert_eq!(header.error(), None);
    }

    #[test]
    fn a_reply_has_the_request_s_number_and_command() {
        let mut request = Vec::new();
        Header::put_request(&mut request, 3, Command::Reset, false, 0);
        let request = Header::parse(request.first_chunk().expect("a header"));
        let (mut reply, mut error) = (Vec::new(), Vec::new());
        request.put_reply(&mut reply, 5);
        request.put_error(&mut error, 22);
        let reply = Header::parse(reply.first_chunk().expect("a header"));
        let error = Header::parse(error.first_chunk().expect("a header"));
        assert_eq!((reply.id, reply.command, reply.size), (3, 13, 21));
        assert!(reply.is_reply() && reply.error().is_none());
        assert_eq!((error.id, error.command, error.size), (3, 13, 16));
        assert_eq!(error.error(), Some(22));
    }

    #[test]
    fn every_command_has_its_number_back() {
        for number in 0..=u16::MAX {
            match Command::try_from(number) {
                Ok(command) => assert_eq!(command as u16, number),
                Err(refusal) => assert_eq!(refusal, Refusal::NoCommand(number)),
            }
        }
    }
}
