// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Page faults that this process serves itself (userfaultfd(2)), and so decides how long an access by the kernel takes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use crate::abi::Bytes;
use crate::{Errno, Mapping, Result};

/// `_IOWR(UFFDIO, number, size)` of linux/userfaultfd.h.
const fn request(number: u32, size: u32) -> u32 {
    (3 << 30) | (size << 16) | (0xaa << 8) | number
}

const UFFDIO_REGISTER: u32 = request(0x00, 32);
const UFFDIO_ZEROPAGE: u32 = request(0x04, 32);
const UFFDIO_API: u32 = request(0x3f, 24);
/// The version of the API.
const UFFD_API: u64 = 0xaa;
/// Faults of pages that are not there.
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
/// Length of `struct uffd_msg`, what it says of a fault, and where its address is.
const MESSAGE: usize = 32;
const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
const ADDRESS: usize = 16;

/// Bytes in a page of x86.
const PAGE: u64 = 4096;

/// Faults of memory whose pages nobody has touched. When it is dropped, the kernel serves them as usual.
#[derive(Debug)]
pub struct UserFault {
    file: OwnedFd,
    _memory: Arc<Mapping>,
}

impl UserFault {
    /// Takes over the faults of this memory.
    pub fn of(memory: &Arc<Mapping>) -> Result<Self> {
        // SAFETY: The call takes flags only, and returns a descriptor of its own.
        let number = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
        let number = Errno::result(number)? as i32;
        // SAFETY: The kernel opened it for this call.
        let file = unsafe { OwnedFd::from_raw_fd(number) };
        let this = Self {
            file,
            _memory: memory.clone(),
        };
        this.call(UFFDIO_API, Bytes::new().long(UFFD_API).long(0).long(0))?;
        let range = Bytes::new()
            .long(memory.address())
            .long(memory.len() as u64)
            .long(UFFDIO_REGISTER_MODE_MISSING)
            .long(0);
        this.call(UFFDIO_REGISTER, range)?;
        Ok(this)
    }

    /// The address of the next fault; waits for it.
    pub fn next(&self) -> Result<u64> {
        let mut message = [0; MESSAGE];
        let length = nix::unistd::read(&self.file, &mut message)?;
        let address = message[ADDRESS..].first_chunk().copied();
        match (length, message[0], address) {
            (MESSAGE, UFFD_EVENT_PAGEFAULT, Some(address)) => Ok(u64::from_ne_bytes(address)),
            _ => Err(Errno::EPROTO),
        }
    }

    /// Lets a fault find a page of zeroes.
    pub fn serve(&self, address: u64) -> Result<()> {
        let page = Bytes::new()
            .long(address / PAGE * PAGE)
            .long(PAGE)
            .long(0)
            .long(0);
        self.call(UFFDIO_ZEROPAGE, page)
    }

    fn call(&self, request: u32, mut argument: Bytes) -> Result<()> {
        let address = argument.bytes_mut().as_mut_ptr();
        // SAFETY: The argument is as long as the request says. Pages are put where nothing is yet, in memory that is only ever copied.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), request as libc::Ioctl, address) };
        Errno::result(result).map(drop)
    }
}

impl AsFd for UserFault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
