// SPDX-License-Identifier: GPL-2.0 OR MIT

//! System calls as a 32-bit process makes them. A 64-bit one can make them too, where the kernel has them at all.

use std::arch::asm;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::sys::mman::{mmap_anonymous, munmap, MapFlags, ProtFlags};

use crate::memory::Page;
use crate::{Errno, Result};

/// `ioctl` in the table of 32-bit x86 (arch/x86/entry/syscalls/syscall_32.tbl).
const IOCTL: u64 = 54;

/// Calls ioctl `request` on `fd` as a 32-bit process does, with these bytes, in and out. A kernel without such calls
/// (CONFIG_IA32_EMULATION) ends the process.
///
/// # Panics
///
/// If there are more bytes than fit a page.
pub fn ioctl(fd: BorrowedFd<'_>, request: u32, bytes: &mut [u8]) -> Result<i32> {
    assert!(
        bytes.len() <= Page::SIZE,
        "an argument of {} bytes",
        bytes.len()
    );
    let length = NonZeroUsize::new(Page::SIZE).expect("a page is more than nothing");
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_32BIT;
    // SAFETY: A new private mapping at an address that the kernel chooses replaces nothing.
    let page = unsafe { mmap_anonymous(None, length, access, flags) }?;
    // SAFETY: The page is mapped, readable, writable and long enough, and new memory does not overlap `bytes`.
    unsafe {
        page.cast::<u8>()
            .as_ptr()
            .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
    };
    let mut result = IOCTL;
    // SAFETY: The call writes nowhere but to the page, as those of `abi`. It changes no register but the first four, which a
    // 32-bit process has no name for. The compiler keeps the one that the first argument goes to for itself.
    unsafe {
        asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) fd.as_raw_fd() as u64 => _,
            inout("rax") result,
            in("rcx") u64::from(request),
            in("rdx") page.as_ptr() as u64,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        )
    };
    // SAFETY: As above.
    unsafe {
        page.cast::<u8>()
            .as_ptr()
            .copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len())
    };
    // SAFETY: The mapping is this function's own, and no reference into it exists.
    unsafe { munmap(page, Page::SIZE) }?;
    // The result is 32 bits wide; a negative one is an errno.
    match result as i32 {
        error if error < 0 => Err(Errno::from_raw(-error)),
        value => Ok(value),
    }
}
