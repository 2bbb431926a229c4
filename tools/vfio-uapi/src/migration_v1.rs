// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Migration version 1: the migration region, found as QEMU 7.2 finds it, and accessed one system call at a time.
//!
//! It starts with `struct vfio_device_migration_info` of linux/vfio.h; the data section follows where `data_offset` says.

use std::os::fd::AsFd;

use anyhow::{bail, ensure, Context};
use nix::sys::uio::{pread, pwrite};

use crate::abi::{self, Bytes};
use crate::{Device, Errno, Result};

/// Type and subtype of the region, in its capability.
pub const KIND: (u32, u32) = (
    abi::VFIO_REGION_TYPE_MIGRATION_DEPRECATED,
    abi::VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED,
);

/// `device_state`, 32 bits.
pub const DEVICE_STATE: u64 = 0;
/// Reserved, 32 bits.
pub const RESERVED: u64 = 4;
/// `pending_bytes`, 64 bits.
pub const PENDING_BYTES: u64 = 8;
/// `data_offset`, 64 bits.
pub const DATA_OFFSET: u64 = 16;
/// `data_size`, 64 bits.
pub const DATA_SIZE: u64 = 24;
/// Length of the header in bytes.
pub const HEADER: u64 = 32;

/// `VFIO_DEVICE_STATE_V1_STOP`.
pub const STOP: u32 = 0;
/// `VFIO_DEVICE_STATE_V1_RUNNING`.
pub const RUNNING: u32 = 1;
/// `VFIO_DEVICE_STATE_V1_SAVING`; alone it is stop-and-copy.
pub const SAVING: u32 = 2;
/// Pre-copy.
pub const PRE_COPY: u32 = SAVING | RUNNING;
/// `VFIO_DEVICE_STATE_V1_RESUMING`.
pub const RESUMING: u32 = 4;
/// What a device that has failed reads as.
pub const ERROR: u32 = SAVING | RESUMING;
/// `VFIO_DEVICE_STATE_MASK`.
pub const MASK: u32 = RUNNING | SAVING | RESUMING;

/// A range within the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// One capability of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// `VFIO_REGION_INFO_CAP_*`.
    pub id: u32,
    /// Version of its layout.
    pub version: u16,
    /// What follows its header, up to the next one or the end of the answer.
    pub body: Vec<u8>,
}

/// The answer to VFIO_DEVICE_GET_REGION_INFO, with capabilities.
#[derive(Clone, Debug)]
pub struct Description {
    /// VFIO_REGION_INFO_FLAG_*.
    pub flags: u32,
    /// Bytes.
    pub size: u64,
    /// Where the region starts in the device's file.
    pub start: u64,
    /// In the order of the list.
    pub capabilities: Vec<Capability>,
}

impl Description {
    /// Asks for region `index`: first without room for capabilities, again if the kernel wants more room.
    pub fn read(device: &Device, index: u32) -> Result<Self> {
        let mut length = 32;
        loop {
            let mut info =
                Bytes::new()
                    .word(length)
                    .word(0)
                    .word(index)
                    .bytes(&vec![0; length as usize - 12]);
            device.ioctl(abi::VFIO_DEVICE_GET_REGION_INFO, info.bytes_mut())?;
            let wanted = info.word_at(0);
            if wanted > length && length == 32 {
                length = wanted;
                continue;
            }
            let flags = info.word_at(4);
            let mut place = match flags & abi::VFIO_REGION_INFO_FLAG_CAPS {
                0 => 0,
                _ => info.word_at(12) as usize,
            };
            let (size, start) = (info.long_at(16), info.long_at(24));
            let bytes = info.bytes_mut();
            let mut capabilities = Vec::new();
            while place != 0 {
                let header = bytes.get(place..place + 8).ok_or(Errno::EPROTO)?;
                let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
                let next = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
                let next = next as usize;
                if next < place + 8 && next != 0 {
                    return Err(Errno::ELOOP);
                }
                let end = if next == 0 { bytes.len() } else { next };
                capabilities.push(Capability {
                    id: half(0).into(),
                    version: half(2),
                    body: bytes.get(place + 8..end).ok_or(Errno::EPROTO)?.to_vec(),
                });
                place = next;
            }
            return Ok(Self {
                flags,
                size,
                start,
                capabilities,
            });
        }
    }

    /// Type and subtype, where the region has the capability for them.
    pub fn kind(&self) -> Option<(u32, u32)> {
        let body = self.body(abi::VFIO_REGION_INFO_CAP_TYPE, 8)?;
        Some((word(body, 0), word(body, 4)))
    }

    /// What can be mapped, where the region has the capability for that.
    pub fn sparse_areas(&self) -> Option<Vec<Area>> {
        let id = abi::VFIO_REGION_INFO_CAP_SPARSE_MMAP;
        let count = word(self.body(id, 8)?, 0) as usize;
        let body = self.body(id, count.checked_mul(16)?.checked_add(8)?)?;
        let area = |at: usize| Area {
            offset: long(body, 8 + at * 16),
            size: long(body, 16 + at * 16),
        };
        Some((0..count).map(area).collect())
    }

    /// The first `length` bytes of the capability `id`, where the region has one as long as that.
    fn body(&self, id: u32, length: usize) -> Option<&[u8]> {
        let found = self.capabilities.iter().find(|one| one.id == id)?;
        found.body.get(..length)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The migration region of an open device.
#[derive(Clone, Copy)]
pub struct Region<'a> {
    /// The device.
    pub device: &'a Device,
    /// Its number.
    pub index: u32,
    /// Where it starts in the device's file.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// The data section: what can be mapped, or where nothing can, all behind the header.
    pub data: Area,
}

impl<'a> Region<'a> {
    /// Finds it: the one region with the type, among all that the device says it has. Indices that do not answer are skipped.
    pub fn find(device: &'a Device) -> anyhow::Result<Self> {
        let count = device.info().context("VFIO_DEVICE_GET_INFO")?.regions;
        for index in 0..count {
            let Ok(region) = Description::read(device, index) else {
                continue;
            };
            if region.kind() != Some(KIND) {
                continue;
            }
            let data = match region.sparse_areas().as_deref() {
                Some(&[area]) => area,
                Some(areas) => bail!("{} areas can be mapped, expected one", areas.len()),
                None => Area {
                    offset: HEADER,
                    size: region.size.saturating_sub(HEADER),
                },
            };
            ensure!(region.start % 8 == 0, "starts at {:#x}", region.start);
            return Ok(Self {
                device,
                index,
                start: region.start,
                size: region.size,
                data,
            });
        }
        bail!("none of {count} regions is the migration region")
    }

    /// Where byte `offset` of the region is in the device's file.
    pub fn place(&self, offset: u64) -> i64 {
        (self.start + offset) as i64
    }

    /// Reads once.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<usize> {
        pread(self.device.as_fd(), bytes, self.place(offset))
    }

    /// Writes once.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        pwrite(self.device.as_fd(), bytes, self.place(offset))
    }

    /// Reads `N` bytes with one call; EPROTO if the call read fewer.
    fn exactly<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        match self.read(offset, &mut bytes)? {
            length if length == N => Ok(bytes),
            _ => Err(Errno::EPROTO),
        }
    }

    /// Writes all bytes with one call; EPROTO if the call wrote fewer.
    pub fn put(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.write(offset, bytes)? {
            length if length == bytes.len() => Ok(()),
            _ => Err(Errno::EPROTO),
        }
    }

    /// Reads `length` bytes with one call; EPROTO if the call read fewer.
    pub fn get(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        match self.read(offset, &mut bytes)? {
            done if done == length => Ok(bytes),
            _ => Err(Errno::EPROTO),
        }
    }

    /// Reads `device_state`.
    pub fn state(&self) -> Result<u32> {
        self.exactly(DEVICE_STATE).map(u32::from_ne_bytes)
    }

    /// Writes `device_state`.
    pub fn set_state(&self, state: u32) -> Result<()> {
        self.put(DEVICE_STATE, &state.to_ne_bytes())
    }

    /// Reads `pending_bytes`.
    pub fn pending(&self) -> Result<u64> {
        self.exactly(PENDING_BYTES).map(u64::from_ne_bytes)
    }

    /// Reads `data_offset`.
    pub fn data_offset(&self) -> Result<u64> {
        self.exactly(DATA_OFFSET).map(u64::from_ne_bytes)
    }

    /// Reads `data_size`.
    pub fn data_size(&self) -> Result<u64> {
        self.exactly(DATA_SIZE).map(u64::from_ne_bytes)
    }

    /// Writes `data_size`.
    pub fn set_data_size(&self, size: u64) -> Result<()> {
        self.put(DATA_SIZE, &size.to_ne_bytes())
    }
}
