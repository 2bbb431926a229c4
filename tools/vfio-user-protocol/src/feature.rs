// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The data of `DEVICE_FEATURE`.
//!
//! The numbers are those of `include/uapi/linux/vfio.h`; data descriptors of the kernel's interface have no meaning here, and
//! state travels in messages of its own.

use crate::refusal::Refusal;
use crate::wire::{Reader, Writer};
use alloc::vec::Vec;

/// Numbers of features.
pub mod number {
    /// Whether and how the device can be migrated.
    pub const MIGRATION: u16 = 1;
    /// Its migration state.
    pub const MIG_DEVICE_STATE: u16 = 2;
    /// Starts a log of the memory that it writes to.
    pub const DMA_LOGGING_START: u16 = 6;
    /// Ends it.
    pub const DMA_LOGGING_STOP: u16 = 7;
    /// What the log holds.
    pub const DMA_LOGGING_REPORT: u16 = 8;
    /// How many bytes are saved once it stands still. QEMU asks for it; the protocol's text does not have it.
    pub const MIG_DATA_SIZE: u16 = 9;
    /// Why migrating was refused last, as text: read by a client that knows of it. It is this project's own, far from those that
    /// VFIO gives out; a server of another one has no such feature.
    pub const REFUSAL: u16 = 0xff00;
    /// How the migration goes on, and nobody but an observer reads it: see [`crate::progress`]. It is this project's own, too.
    pub const PROGRESS: u16 = 0xff01;
}

/// What is done with a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is read.
    Get,
    /// It is written.
    Set,
    /// The client asks whether it could be.
    Probe {
        /// Whether it could be read.
        get: bool,
        /// Whether it could be written.
        set: bool,
    },
}

const GET: u32 = 1 << 16;
const SET: u32 = 1 << 17;
const PROBE: u32 = 1 << 18;

/// Bytes before the data.
const HEADER: usize = 8;

/// A request for a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature<'a> {
    /// Most bytes of reply that the client takes.
    pub argsz: u32,
    /// Which feature.
    pub number: u16,
    /// What is done with it.
    pub operation: Operation,
    /// The data: what to write, or what to read of it.
    pub data: &'a [u8],
}

impl<'a> Feature<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let (argsz, flags) = (reader.u32()?, reader.u32()?);
        let (get, set) = (flags & GET != 0, flags & SET != 0);
        let operation = match (flags & !0xffff & !(GET | SET | PROBE), flags & PROBE != 0) {
            (0, true) => Operation::Probe { get, set },
            (0, false) if get && !set => Operation::Get,
            (0, false) if set && !get => Operation::Set,
            _ => return Err(Refusal::Flags),
        };
        if (argsz as usize) < HEADER {
            return Err(Refusal::ArgSize);
        }
        Ok(Self {
            argsz,
            // The mask leaves as much.
            number: (flags & 0xffff) as u16,
            operation,
            data: reader.rest(),
        })
    }

    /// The flags as they are written.
    fn flags(&self) -> u32 {
        let operation = match self.operation {
            Operation::Get => GET,
            Operation::Set => SET,
            Operation::Probe { get, set } => {
                let get = if get { GET } else { 0 };
                let set = if set { SET } else { 0 };
                PROBE | get | set
            }
        };
        operation | u32::from(self.number)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put32(self.argsz).put32(self.flags()).put(self.data);
    }

    /// Whether there is room for a reply with so many bytes of data.
    pub fn has_room(&self, data: usize) -> Result<(), Refusal> {
        match HEADER.checked_add(data) {
            Some(needed) if needed <= self.argsz as usize => Ok(()),
            _ => Err(Refusal::ArgSize),
        }
    }
}

/// Data of [`number::MIG_DEVICE_STATE`]: the state to go to, as a number. What is sent along for a data descriptor is not looked
/// at: clients put 0 or -1 there.
pub fn device_state(data: &[u8]) -> Result<u32, Refusal> {
    let mut reader = Reader::new(data);
    let state = reader.u32()?;
    reader.u32().map(|_| state)
}

/// Most ranges that a log can have, which is what fits a page of the kernel's.
pub const MAX_RANGES: u32 = 256;

/// What is to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged<'a> {
    /// The whole address space.
    Everything,
    /// These ranges: 16 bytes each.
    Ranges(&'a [u8]),
}

impl Logged<'_> {
    const RANGE: usize = 16;

    /// First address and length of each range, as they were sent.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let bytes = match self {
            Self::Everything => &[],
            Self::Ranges(bytes) => *bytes,
        };
        bytes.chunks_exact(Self::RANGE).map_while(|range| {
            let mut reader = Reader::new(range);
            Some((reader.u64().ok()?, reader.u64().ok()?))
        })
    }
}

/// Data of [`number::DMA_LOGGING_START`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggingStart<'a> {
    /// The page size that is wished for.
    pub page_size: u64,
    /// What is to be logged.
    pub logged: Logged<'a>,
}

impl<'a> LoggingStart<'a> {
    /// Bytes of the pointer that the kernel's structure has in the place of ranges.
    const POINTER: usize = 8;

    /// Takes it. Who names ranges and sends the kernel's structure, with a pointer of his own in it, has everything logged: that
    /// contains what he wants, and QEMU does so.
    pub fn decode(data: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(data);
        let (page_size, count, _) = (reader.u64()?, reader.u32()?, reader.u32()?);
        if !page_size.is_power_of_two() {
            return Err(Refusal::Alignment);
        }
        if count > MAX_RANGES {
            return Err(Refusal::TooMuch);
        }
        let rest = reader.rest();
        let logged = match rest.get(..count as usize * Logged::RANGE) {
            Some([]) => Logged::Everything,
            Some(ranges) => Logged::Ranges(ranges),
            None if rest.len() == Self::POINTER => Logged::Everything,
            None => return Err(Refusal::Count),
        };
        Ok(Self { page_size, logged })
    }
}

/// Data of [`number::DMA_LOGGING_REPORT`]. Space for the bitmap may follow in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggingReport {
    /// The first address.
    pub iova: u64,
    /// Bytes from there.
    pub length: u64,
    /// Bytes that one bit stands for.
    pub page_size: u64,
}

impl LoggingReport {
    /// Bytes before the bitmap.
    pub const LEN: usize = 24;

    /// Takes it. Its bitmap has no more than `max_bitmap` bytes.
    pub fn decode(data: &[u8], max_bitmap: usize) -> Result<Self, Refusal> {
        let mut reader = Reader::new(data);
        let report = Self {
            iova: reader.u64()?,
            length: reader.u64()?,
            page_size: reader.u64()?,
        };
        if !report.page_size.is_power_of_two() {
            return Err(Refusal::Alignment);
        }
        let last = report.length.checked_sub(1).ok_or(Refusal::Count)?;
        report.iova.checked_add(last).ok_or(Refusal::Overflow)?;
        // Compared as words, which cannot overflow.
        if report.words() > (max_bitmap / 8) as u64 {
            return Err(Refusal::TooMuch);
        }
        Ok(report)
    }

    fn words(&self) -> u64 {
        let pages = self.length.div_ceil(self.page_size.max(1));
        pages.div_ceil(64)
    }

    /// Bytes of the bitmap: whole words of 64 bits.
    pub fn bitmap_len(&self) -> usize {
        // It was found to be small enough.
        usize::try_from(self.words()).map_or(0, |words| words.saturating_mul(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn report(iova: u64, length: u64, page_size: u64) -> Vec<u8> {
        let mut data = Vec::new();
        data.put64(iova).put64(length).put64(page_size);
        data
    }

    #[test]
    fn a_bitmap_is_counted_before_it_is_made() {
        let max = 1 << 20;
        for (iova, length, page_size, bytes) in [
            (0, 1, 4096, 8),
            (0, 64 * 4096, 4096, 8),
            (0, 64 * 4096 + 1, 4096, 16),
            (1 << 40, 32 << 30, 4096, 1 << 20),
            (0, u64::MAX, 1 << 63, 8),
        ] {
            let found = LoggingReport::decode(&report(iova, length, page_size), max);
            assert_eq!(found.map(|found| found.bitmap_len()), Ok(bytes));
        }
        for (iova, length, page_size, why) in [
            (0, 0, 4096, Refusal::Count),
            (0, 4096, 0, Refusal::Alignment),
            (0, 4096, 3, Refusal::Alignment),
            (0, u64::MAX, 1, Refusal::TooMuch),
            (0, (32 << 30) + 1, 4096, Refusal::TooMuch),
            (u64::MAX, 2, 4096, Refusal::Overflow),
        ] {
            let found = LoggingReport::decode(&report(iova, length, page_size), max);
            assert_eq!(found, Err(why), "{iova:#x} {length:#x} {page_size:#x}");
        }
    }

    /// The start of a log: a page size, how many ranges are said to follow, and what does.
    fn start(page_size: u64, count: u32, rest: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        data.put64(page_size).put32(count).put32(0).put(rest);
        data
    }

    #[test]
    fn the_start_of_a_log_has_its_ranges_or_is_of_everything() {
        let decode = |page_size, count, rest: &[u8]| {
            let data = start(page_size, count, rest);
            let found = LoggingStart::decode(&data);
            found.map(|found| match found.logged {
                Logged::Everything => None,
                logged => Some(logged.ranges().collect::<Vec<_>>()),
            })
        };
        let two = report(0x1000, 0x2000, 0x4000)
            .into_iter()
            .chain(0x8000u64.to_ne_bytes());
        let two: Vec<u8> = two.collect();
        let ranges = [(0x1000, 0x2000), (0x4000, 0x8000)];
        assert_eq!(decode(4096, 2, &two), Ok(Some(ranges.to_vec())));
        assert_eq!(decode(4096, 1, &two), Ok(Some(ranges[..1].to_vec())));
        // None, with and without the kernel's pointer; the pointer in the place of some.
        for (count, len) in [(0, 0), (0, 8), (1, 8), (256, 8)] {
            assert_eq!(decode(1 << 63, count, &vec![0xff; len]), Ok(None));
        }
        for len in [0, 7, 9, 15, 31] {
            assert_eq!(decode(4096, 2, &vec![0; len]), Err(Refusal::Count), "{len}");
        }
        let most = vec![0; 257 * 16];
        assert_eq!(
            decode(4096, 256, &most).map(|r| r.map(|r| r.len())),
            Ok(Some(256))
        );
        assert_eq!(decode(4096, 257, &most), Err(Refusal::TooMuch));
        assert_eq!(decode(4096, u32::MAX, &[0; 8]), Err(Refusal::TooMuch));
        assert_eq!(decode(0, 0, &[]), Err(Refusal::Alignment));
        assert_eq!(decode(3, 0, &[]), Err(Refusal::Alignment));
        assert_eq!(LoggingStart::decode(&[0; 15]), Err(Refusal::Short));
    }

    #[test]
    fn a_state_has_its_eight_bytes() {
        assert_eq!(device_state(&[0; 7]), Err(Refusal::Short));
        assert_eq!(device_state(&report(u64::MAX, 0, 0)), Ok(u32::MAX));
    }
}
