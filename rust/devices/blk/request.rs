// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a chain asks of the device, and doing it (virtio 1.2, 5.2.6).
//!
//! A request is a header of 16 bytes that the device reads (type le32, reserved le32, sector le64), data in
//! one direction, and one byte of status that the device writes, the last one that it can. How these are spread over buffers
//! does not matter (2.7.4).

use core::fmt;

use super::config::{Config, Serial, SECTOR_BYTES};
use crate::virtio::{Chain, ChainReader, GuestMemory, RingError};

/// Feature bits of a block device (5.2.3).
pub mod feature {
    /// A buffer of data has a largest size.
    pub const SIZE_MAX: u64 = 1 << 1;
    /// A request has a largest number of buffers of data.
    pub const SEG_MAX: u64 = 1 << 2;
    /// It is read-only.
    pub const RO: u64 = 1 << 5;
    /// The size of a block is given.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// It can flush.
    pub const FLUSH: u64 = 1 << 9;
    /// It has several queues.
    pub const MQ: u64 = 1 << 12;
    /// It can discard.
    pub const DISCARD: u64 = 1 << 13;
    /// It can write zeroes.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// The most buffers of data in a request.
pub const MAX_SEGMENTS: u32 = 126;

/// The largest buffer of data in bytes, as drivers are told.
pub const MAX_SEGMENT_BYTES: u32 = 64 * 1024;

/// The most data of a request, in whatever buffers, and the most bytes of the medium that it discards or writes zeroes to, in
/// whatever ranges: 8 MiB. A longer one is an I/O error. So no request takes longer than others wait for.
pub const MAX_REQUEST_BYTES: u64 = 8 << 20;

/// The most ranges that one request discards or writes zeroes to.
pub const MAX_DISCARD_SEGMENTS: usize = 16;

/// The most sectors of each of them, as drivers are told.
pub const MAX_DISCARD_SECTORS: u32 = 1024;

const _: () = assert!(
    MAX_DISCARD_SEGMENTS as u64 * MAX_DISCARD_SECTORS as u64 * SECTOR_BYTES as u64
        <= MAX_REQUEST_BYTES,
    "a driver that keeps to the limits is served"
);

/// The most bytes that a [`Backend`] is asked to zero at once: 1 MiB.
const ZERO_PIECE: u64 = 1 << 20;

/// Types of request.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// The flag of a range to be zeroed that lets it be freed.
const UNMAP: u32 = 1 << 0;

const HEADER_BYTES: usize = 16;
const RANGE_BYTES: usize = 16;

/// The answer to a request: the status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// The medium could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoError;

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the medium could not be read or written")
    }
}

impl core::error::Error for IoError {}

/// Bytes that requests read and write. Offsets and lengths are checked against the capacity before, and are
/// multiples of a sector, as far as the buffer that was lent for them is.
///
/// A backend takes its own lock in each call, and nobody holds it meanwhile; guest memory is not accessed in one.
pub trait Backend {
    /// Reads all of `into` at `offset`.
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), IoError>;

    /// Writes all of `from` at `offset`.
    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), IoError>;

    /// `len` bytes at `offset`, 1 MiB at most, are zeroes from now on. `free`: what holds them may be given back.
    fn zero(&mut self, offset: u64, len: u64, free: bool) -> Result<(), IoError>;

    /// What was written stays.
    fn flush(&mut self) -> Result<(), IoError>;
}

impl<B: Backend + ?Sized> Backend for &mut B {
    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        (**self).read(offset, into)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), IoError> {
        (**self).write(offset, from)
    }

    fn zero(&mut self, offset: u64, len: u64, free: bool) -> Result<(), IoError> {
        (**self).zero(offset, len, free)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        (**self).flush()
    }
}

/// What requests have to know of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    capacity: u64,
    read_only: bool,
    serial: Serial,
}

impl Geometry {
    /// That of a device of this kind.
    pub const fn of(config: &Config) -> Geometry {
        Geometry {
            capacity: config.capacity.bytes(),
            read_only: config.read_only,
            serial: config.serial,
        }
    }

    /// The offset of a range in bytes, if the range is on the medium.
    fn range(&self, sector: u64, len: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR_BYTES.into())?;
        (offset.checked_add(len)? <= self.capacity).then_some(offset)
    }
}

/// Why a request did not succeed: its status.
type Failed = Status;

/// Data could not be moved between guest and medium.
fn failed<E>(_: E) -> Failed {
    Status::IoError
}

/// Does what a chain asks, and answers it. Returns how many bytes were written from the start of the
/// chain's writable part. `Err`: it cannot be answered.
pub(super) fn execute<M, B>(
    chain: &Chain,
    features: u64,
    geometry: &Geometry,
    memory: &mut M,
    backend: &mut B,
    scratch: &mut [u8],
) -> Result<u32, RingError>
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
{
    let mut request = Request {
        chain,
        features,
        geometry,
        memory,
        backend,
        scratch,
        written: 0,
    };
    request.answer()
}

/// A request that is being done.
struct Request<'r, M: ?Sized, B: ?Sized> {
    chain: &'r Chain,
    features: u64,
    geometry: &'r Geometry,
    memory: &'r mut M,
    backend: &'r mut B,
    scratch: &'r mut [u8],
    /// Bytes written from the start of the writable part.
    written: u64,
}

impl<M, B> Request<'_, M, B>
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
{
    fn answer(&mut self) -> Result<u32, RingError> {
        let Some(room) = self.chain.writable_bytes().checked_sub(1) else {
            return Err(RingError::Request("a request has no room for its status"));
        };
        let mut header = [0; HEADER_BYTES];
        if self.chain.readable_bytes() < header.len() as u64 {
            return Err(RingError::Request("a request has no header"));
        }
        let mut data = self.chain.reader();
        data.read(self.memory, &mut header)?;
        let header = u128::from_le_bytes(header);
        let (kind, sector) = (header as u32, (header >> 64) as u64);
        let status = match self.perform(kind, sector, &mut data, room) {
            Ok(()) => Status::Ok,
            Err(status) => status,
        };

        let mut place = self.chain.writer();
        if !place.skip(room) {
            return Err(RingError::Request("a request has no room for its status"));
        }
        place.write(self.memory, &[status as u8])?;
        if self.written == room {
            self.written += 1;
        }
        // More than 4 GiB can be writable, but no request writes as much.
        Ok(u32::try_from(self.written).unwrap_or(u32::MAX))
    }

    fn perform(
        &mut self,
        kind: u32,
        sector: u64,
        data: &mut ChainReader<'_>,
        room: u64,
    ) -> Result<(), Failed> {
        let given = self.chain.readable_bytes() - HEADER_BYTES as u64;
        match kind {
            kind::IN => self.read(sector, room),
            kind::OUT => self.write(sector, data, given),
            kind::FLUSH => self.backend.flush().map_err(failed),
            kind::GET_ID => self.id(room),
            kind::DISCARD if self.features & feature::DISCARD != 0 => self.zero(data, given, true),
            kind::WRITE_ZEROES if self.features & feature::WRITE_ZEROES != 0 => {
                self.zero(data, given, false)
            }
            _ => Err(Status::Unsupported),
        }
    }

    /// The offset of the data of a request, if there can be such data.
    fn place(&self, sector: u64, len: u64) -> Result<u64, Failed> {
        if len % u64::from(SECTOR_BYTES) != 0 || len > MAX_REQUEST_BYTES {
            return Err(Status::IoError);
        }
        self.geometry.range(sector, len).ok_or(Status::IoError)
    }

    fn read(&mut self, sector: u64, len: u64) -> Result<(), Failed> {
        let mut offset = self.place(sector, len)?;
        let mut out = self.chain.writer();
        while self.written < len {
            let piece = piece(self.scratch, len - self.written)?;
            self.backend.read(offset, piece).map_err(failed)?;
            out.write(self.memory, piece).map_err(failed)?;
            // As long as the piece that was left, at most.
            offset += piece.len() as u64;
            self.written += piece.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, sector: u64, data: &mut ChainReader<'_>, len: u64) -> Result<(), Failed> {
        let mut offset = self.place(sector, len)?;
        if self.geometry.read_only {
            return Err(Status::IoError);
        }
        let mut left = len;
        while left > 0 {
            let piece = piece(self.scratch, left)?;
            data.read(self.memory, piece).map_err(failed)?;
            self.backend.write(offset, piece).map_err(failed)?;
            offset += piece.len() as u64;
            left -= piece.len() as u64;
        }
        Ok(())
    }

    fn id(&mut self, room: u64) -> Result<(), Failed> {
        let serial = self.geometry.serial;
        let len = usize::try_from(room)
            .unwrap_or(usize::MAX)
            .min(Serial::BYTES);
        let bytes = serial.bytes().get(..len).ok_or(Status::IoError)?;
        self.chain
            .writer()
            .write(self.memory, bytes)
            .map_err(failed)?;
        self.written = len as u64;
        Ok(())
    }

    /// Discards ranges, or writes zeroes to them: all of them, or none if one of them is wrong.
    fn zero(&mut self, data: &mut ChainReader<'_>, len: u64, discard: bool) -> Result<(), Failed> {
        let mut bytes = [0; MAX_DISCARD_SEGMENTS * RANGE_BYTES];
        let bytes = match usize::try_from(len) {
            Ok(len) if len % RANGE_BYTES == 0 && len > 0 => bytes.get_mut(..len),
            _ => None,
        };
        let bytes = bytes.ok_or(Status::IoError)?;
        data.read(self.memory, bytes).map_err(failed)?;
        let ranges = || bytes.chunks_exact(RANGE_BYTES).map(Range::of);
        for range in ranges() {
            let known = if discard { 0 } else { UNMAP };
            if range.flags & !known != 0 {
                return Err(Status::Unsupported);
            }
            let on_medium = self.geometry.range(range.sector, range.bytes());
            if self.geometry.read_only || on_medium.is_none() {
                return Err(Status::IoError);
            }
        }
        // Each is on the medium, and there are few.
        if ranges().map(|range| range.bytes()).sum::<u64>() > MAX_REQUEST_BYTES {
            return Err(Status::IoError);
        }
        for range in ranges() {
            let free = discard || range.flags & UNMAP != 0;
            let at = self.geometry.range(range.sector, range.bytes());
            let mut at = at.ok_or(Status::IoError)?;
            let mut left = range.bytes();
            while left > 0 {
                // Up to the next multiple, so that blocks are whole ones.
                let piece = (ZERO_PIECE - at % ZERO_PIECE).min(left);
                self.backend.zero(at, piece, free).map_err(failed)?;
                at += piece;
                left -= piece;
            }
        }
        Ok(())
    }
}

/// A range to be zeroed.
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

impl Range {
    fn of(bytes: &[u8]) -> Range {
        let mut whole = [0; RANGE_BYTES];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        let value = u128::from_le_bytes(whole);
        Range {
            sector: value as u64,
            sectors: (value >> 64) as u32,
            flags: (value >> 96) as u32,
        }
    }

    fn bytes(&self) -> u64 {
        u64::from(self.sectors) * u64::from(SECTOR_BYTES)
    }
}

/// Room for the next piece of data: at least one byte, if the buffer that was lent has any.
fn piece(scratch: &mut [u8], left: u64) -> Result<&mut [u8], Failed> {
    let len = usize::try_from(left)
        .unwrap_or(usize::MAX)
        .min(scratch.len());
    match scratch.get_mut(..len) {
        Some(piece) if !piece.is_empty() => Ok(piece),
        _ => Err(Status::IoError),
    }
}
