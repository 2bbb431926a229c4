// SPDX-License-Identifier: GPL-2.0 OR MIT

//! An open VFIO device: its description, its regions and its reset.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::uio::{pread, pwrite};

use crate::abi::{self, ioctl, Argument, Bytes};
use crate::dma::Memory;
use crate::{Errno, Result};

/// An open device. Dropping it closes it, then what had to stay open for it, and then lets the memory go that it could access.
#[derive(Debug)]
pub struct Device {
    file: OwnedFd,
    /// The group; dropped after the device.
    _group: Option<OwnedFd>,
    /// The container or iommufd, dropped after the group.
    memory: Memory,
}

/// The answer to VFIO_DEVICE_GET_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// VFIO_DEVICE_FLAGS_*
    pub flags: u32,
    /// Region indices 0..this may exist.
    pub regions: u32,
    /// Interrupt indices 0..this exist.
    pub interrupts: u32,
}

/// The answer to VFIO_DEVICE_GET_REGION_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The `argsz` that came back.
    pub argsz: u32,
    /// VFIO_REGION_INFO_FLAG_*
    pub flags: u32,
    /// Offset of the first capability, in bytes; 0 if there is none.
    pub capabilities: u32,
    /// Bytes.
    pub size: u64,
    /// Where the region starts in the device's file.
    pub offset: u64,
}

impl Device {
    /// A device from its file, which is closed before the group and what has its memory.
    pub(crate) fn new(file: OwnedFd, group: Option<OwnedFd>, memory: Memory) -> Self {
        Self {
            file,
            _group: group,
            memory,
        }
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// VFIO_DEVICE_GET_INFO.
    pub fn info(&self) -> Result<Info> {
        let mut info = Bytes::new().word(20).word(0).word(0).word(0).word(0);
        self.ioctl(abi::VFIO_DEVICE_GET_INFO, info.bytes_mut())?;
        Ok(Info {
            flags: info.word_at(4),
            regions: info.word_at(8),
            interrupts: info.word_at(12),
        })
    }

    /// VFIO_DEVICE_GET_REGION_INFO of region `index`.
    pub fn region(&self, index: u32) -> Result<Region> {
        let mut info = Bytes::new()
            .word(32)
            .word(0)
            .word(index)
            .word(0)
            .long(0)
            .long(0);
        self.ioctl(abi::VFIO_DEVICE_GET_REGION_INFO, info.bytes_mut())?;
        Ok(Region {
            argsz: info.word_at(0),
            flags: info.word_at(4),
            capabilities: info.word_at(12),
            size: info.long_at(16),
            offset: info.long_at(24),
        })
    }

    /// VFIO_DEVICE_RESET.
    pub fn reset(&self) -> Result<()> {
        ioctl(self.as_fd(), abi::VFIO_DEVICE_RESET, Argument::Value(0)).map(drop)
    }

    /// Reads from `offset` within region `index`.
    pub fn read(&self, index: u32, offset: u64, bytes: &mut [u8]) -> Result<usize> {
        let place = self.place(index, offset)?;
        pread(&self.file, bytes, place)
    }

    /// Writes at `offset` within region `index`.
    pub fn write(&self, index: u32, offset: u64, bytes: &[u8]) -> Result<usize> {
        let place = self.place(index, offset)?;
        pwrite(&self.file, bytes, place)
    }

    /// Reads from a region into an address where nothing is mapped.
    pub fn read_to_nowhere(&self, index: u32, offset: u64, length: usize) -> Result<usize> {
        let place = self.place(index, offset)?;
        // SAFETY: Nothing is mapped at UNMAPPED, so the kernel can write nowhere; it answers EFAULT.
        let result = unsafe {
            libc::pread(
                self.file.as_raw_fd(),
                abi::UNMAPPED as *mut _,
                length,
                place,
            )
        };
        Errno::result(result).map(|length| length as usize)
    }

    /// Writes to a region from an address where nothing is mapped.
    pub fn write_from_nowhere(&self, index: u32, offset: u64, length: usize) -> Result<usize> {
        let place = self.place(index, offset)?;
        // SAFETY: The kernel only reads the buffer, and nothing is mapped at UNMAPPED; it answers EFAULT.
        let result = unsafe {
            libc::pwrite(
                self.file.as_raw_fd(),
                abi::UNMAPPED as *const _,
                length,
                place,
            )
        };
        Errno::result(result).map(|length| length as usize)
    }

    /// Where `offset` of region `index` is in the file.
    pub fn place(&self, index: u32, offset: u64) -> Result<i64> {
        let start = self.region(index)?.offset;
        start
            .checked_add(offset)
            .and_then(|place| i64::try_from(place).ok())
            .ok_or(Errno::EOVERFLOW)
    }

    /// Calls an ioctl whose argument is a structure.
    pub fn ioctl(&self, request: u32, bytes: &mut [u8]) -> Result<()> {
        self.ioctl_with(request, Argument::Bytes(bytes)).map(drop)
    }

    /// Calls an ioctl with any argument.
    pub fn ioctl_with(&self, request: u32, argument: Argument<'_>) -> Result<i32> {
        ioctl(self.as_fd(), request, argument)
    }

    /// VFIO_DEVICE_FEATURE: `what` is the number of the feature with GET, SET or PROBE; `data` follows the header.
    pub fn feature(&self, what: u32, data: &mut [u8]) -> Result<()> {
        let argsz = (abi::FEATURE_HEADER + data.len()) as u32;
        let mut argument = Bytes::new().word(argsz).word(what).bytes(data);
        let result = self.ioctl(abi::VFIO_DEVICE_FEATURE, argument.bytes_mut());
        data.copy_from_slice(&argument.bytes_mut()[abi::FEATURE_HEADER..]);
        result
    }

    /// Opens the same open file once more.
    pub fn duplicate(&self) -> std::io::Result<OwnedFd> {
        self.file.try_clone()
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
