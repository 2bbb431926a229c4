// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The file through which the state of a device is read and written.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::unistd;

use crate::abi::{self, ioctl, Argument, Bytes};
use crate::memory::Page;
use crate::{Errno, Result};

/// An open data file. It can outlive its session and its device.
#[derive(Debug)]
pub struct DataFd(OwnedFd);

/// The answer to VFIO_MIG_GET_PRECOPY_INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrecopyInfo {
    /// VFIO_PRECOPY_INFO_*
    pub flags: u32,
    /// Initial data that is left, in bytes.
    pub initial: u64,
    /// Changes since, in bytes.
    pub dirty: u64,
}

impl DataFd {
    /// A data file that a SET of the state returned.
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self(file)
    }

    /// Reads once.
    pub fn read(&self, bytes: &mut [u8]) -> Result<usize> {
        unistd::read(&self.0, bytes)
    }

    /// Writes once.
    pub fn write(&self, bytes: &[u8]) -> Result<usize> {
        unistd::write(&self.0, bytes)
    }

    /// Reads once into an address where nothing is mapped.
    pub fn read_to_nowhere(&self, length: usize) -> Result<usize> {
        // SAFETY: Nothing is mapped at UNMAPPED, so the kernel can write nowhere; it answers EFAULT.
        let result = unsafe { libc::read(self.0.as_raw_fd(), abi::UNMAPPED as *mut _, length) };
        Errno::result(result).map(|length| length as usize)
    }

    /// Reads once, `length` bytes, into memory that ends after `bytes`.
    pub fn read_to_edge(&self, bytes: &mut [u8], length: usize) -> Result<usize> {
        let start = Page::SIZE - bytes.len();
        let mut page = Page::holding(bytes, start)?;
        // SAFETY: The buffer ends with the page, behind which nothing can be accessed: the kernel stops there.
        let result = unsafe {
            libc::read(
                self.0.as_raw_fd(),
                (page.address() + start) as *mut _,
                length,
            )
        };
        page.copy_to(bytes, start);
        Errno::result(result).map(|length| length as usize)
    }

    /// Writes once from an address where nothing is mapped.
    pub fn write_from_nowhere(&self, length: usize) -> Result<usize> {
        // SAFETY: The kernel only reads the buffer, and nothing is mapped at UNMAPPED; it answers EFAULT.
        let result = unsafe { libc::write(self.0.as_raw_fd(), abi::UNMAPPED as *const _, length) };
        Errno::result(result).map(|length| length as usize)
    }

    /// Reads in steps of `step` bytes until the end of the file, or ENOMSG says that there is nothing now.
    pub fn read_all(&self, step: usize) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; step];
        loop {
            match self.read(&mut buffer) {
                Ok(0) | Err(Errno::ENOMSG) => return Ok(all),
                Ok(length) => all.extend_from_slice(&buffer[..length]),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes everything, in steps of at most `step` bytes.
    pub fn write_all(&self, bytes: &[u8], step: usize) -> Result<()> {
        for piece in bytes.chunks(step) {
            let mut rest = piece;
            while !rest.is_empty() {
                match self.write(rest)? {
                    0 => return Err(Errno::EIO),
                    length => rest = &rest[length..],
                }
            }
        }
        Ok(())
    }

    /// VFIO_MIG_GET_PRECOPY_INFO with `flags` in the flags member.
    pub fn precopy_info_with(&self, flags: u32) -> Result<PrecopyInfo> {
        let mut info = Bytes::new()
            .word(abi::PRECOPY_INFO_SIZE as u32)
            .word(flags)
            .long(u64::MAX)
            .long(u64::MAX);
        self.ioctl(
            abi::VFIO_MIG_GET_PRECOPY_INFO,
            Argument::Bytes(info.bytes_mut()),
        )?;
        Ok(PrecopyInfo {
            flags: info.word_at(4),
            initial: info.long_at(8),
            dirty: info.long_at(16),
        })
    }

    /// VFIO_MIG_GET_PRECOPY_INFO.
    pub fn precopy_info(&self) -> Result<PrecopyInfo> {
        self.precopy_info_with(0)
    }

    /// Calls an ioctl with any argument.
    pub fn ioctl(&self, request: u32, argument: Argument<'_>) -> Result<i32> {
        ioctl(self.0.as_fd(), request, argument)
    }
}

impl AsFd for DataFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
