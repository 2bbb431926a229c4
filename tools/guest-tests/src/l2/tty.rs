// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What `setserial` does: ask the guest's serial driver about a port, tell it what the port is, or have it look again.
//!
//! Source: linux/serial.h, asm-generic/ioctls.h.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `PORT_16550A`: the driver uses 16 bytes of each FIFO.
pub const PORT_16550A: i32 = 4;

/// `struct serial_struct`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// One of the `PORT_` numbers.
    pub kind: i32,
    /// `N` of ttySN.
    pub line: i32,
    /// First I/O port.
    pub port: u32,
    /// Interrupt number.
    pub irq: i32,
    /// `ASYNC_` flags.
    pub flags: i32,
    /// Bytes that the driver writes at once; 0 leaves it as it is.
    pub xmit_fifo_size: i32,
    /// Not used here.
    pub custom_divisor: i32,
    /// Highest rate in baud.
    pub baud_base: i32,
    /// In hundredths of a second.
    pub close_delay: u16,
    /// 0: by I/O ports.
    pub io_type: u8,
    reserved: u8,
    hub6: i32,
    /// In hundredths of a second.
    pub closing_wait: u16,
    closing_wait2: u16,
    iomem_base: usize,
    iomem_reg_shift: u16,
    port_high: u32,
    iomap_base: usize,
}

// The kernel writes as many bytes.
const _: () = assert!(size_of::<Settings>() == 72);

const TIOCGSERIAL: u32 = 0x541e;
const TIOCSSERIAL: u32 = 0x541f;
const TIOCSERCONFIG: u32 = 0x5453;

nix::ioctl_read_bad!(
    /// `TIOCGSERIAL`.
    get_serial,
    TIOCGSERIAL,
    Settings
);
nix::ioctl_write_ptr_bad!(
    /// `TIOCSSERIAL`.
    set_serial,
    TIOCSSERIAL,
    Settings
);
nix::ioctl_none_bad!(
    /// `TIOCSERCONFIG`.
    configure_serial,
    TIOCSERCONFIG
);

const TIOCMGET: u32 = 0x5415;
/// In what `TIOCMGET` gives: the port is clear to send.
const TIOCM_CTS: i32 = 0x020;

nix::ioctl_read_bad!(
    /// `TIOCMGET`.
    get_modem_lines,
    TIOCMGET,
    i32
);

/// Whether the port's "clear to send" input is active, read from the port now.
pub fn clear_to_send(tty: &File) -> io::Result<bool> {
    let mut lines = 0;
    // SAFETY: The kernel writes an `int` to the pointer and nothing elsewhere.
    unsafe { get_modem_lines(tty.as_raw_fd(), &mut lines) }?;
    Ok(lines & TIOCM_CTS != 0)
}

/// How the driver uses the port.
pub fn settings(tty: &File) -> io::Result<Settings> {
    let mut settings = Settings {
        kind: 0,
        line: 0,
        port: 0,
        irq: 0,
        flags: 0,
        xmit_fifo_size: 0,
        custom_divisor: 0,
        baud_base: 0,
        close_delay: 0,
        io_type: 0,
        reserved: 0,
        hub6: 0,
        closing_wait: 0,
        closing_wait2: 0,
        iomem_base: 0,
        iomem_reg_shift: 0,
        port_high: 0,
        iomap_base: 0,
    };
    // SAFETY: The kernel writes a `struct serial_struct`, which has this layout, to the pointer and nothing elsewhere.
    unsafe { get_serial(tty.as_raw_fd(), &mut settings) }?;
    Ok(settings)
}

/// Tells the driver how to use the port. It believes it.
pub fn configure(tty: &File, settings: &Settings) -> io::Result<()> {
    // SAFETY: The kernel reads a `struct serial_struct`, which has this layout, from the pointer. Its addresses of memory-mapped
    // registers are those that the kernel gave; a port with I/O type 0 has none.
    unsafe { set_serial(tty.as_raw_fd(), settings) }?;
    Ok(())
}

/// Has the driver detect anew what the port is. Characters in its FIFOs are lost.
pub fn detect(tty: &File) -> io::Result<()> {
    // SAFETY: There is no argument.
    unsafe { configure_serial(tty.as_raw_fd()) }?;
    Ok(())
}
