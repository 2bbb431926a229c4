// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Ports set up by hand, as `setserial` does it, on a card that no driver of the guest has bound: each is what somebody says it
//! is, and the driver looks for nothing else.
//!
//! That is how a driver uses a card that knows no UART with 64-byte FIFOs: it never sets the bit that would enable them.
//! It differs from a kernel without CONFIG_SERIAL_8250_16550A_VARIANTS in that no detection runs at all; that one's would stop
//! at the 16550A.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use rustix::fs::OFlags;

use super::card;
use super::tty::{self, PORT_16550A};

/// Kernel command line of a guest that does so: its driver of PCI cards does not start.
pub const OPTIONS: &str = " initcall_blacklist=serial_pci_driver_init lab.by-hand=1";

/// The first ttyS that the kernel keeps for no port of its own.
const FIRST_LINE: u32 = 4;
/// Registers of a port, in bytes.
pub const PORT_BYTES: u64 = 8;
/// The clock of a 16550A on a PC, as a rate in baud.
const BAUD_BASE: i32 = 115_200;

/// Makes ttySN the ports of the card at `place` in sysfs, N from `line` on or from 4, and returns the numbers.
pub fn set_up(place: &Path, line: Option<u32>) -> Result<Vec<u32>> {
    // What a driver does when it binds: I/O space is decoded from now on, and the interrupt is routed.
    fs::write(place.join("enable"), "1").context("the card cannot be enabled")?;
    let irq = card::text(&place.join("irq"))?.parse().context("irq")?;
    let bar = card::bar0(place)?;
    let first = line.unwrap_or(FIRST_LINE);
    let mut lines = Vec::new();
    for (line, port) in (first..).zip(bar.step_by(PORT_BYTES as usize)) {
        let path = format!("/dev/ttyS{line}");
        // A port that is none yet can be opened, to make it one.
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
        let file = options.open(&path).with_context(|| path.clone())?;
        let mut settings = tty::settings(&file).with_context(|| path.clone())?;
        ensure!(settings.kind == 0, "{path} is a port already: {settings:?}");
        settings.kind = PORT_16550A;
        settings.port = port.try_into().context("I/O port")?;
        settings.irq = irq;
        settings.baud_base = BAUD_BASE;
        settings.io_type = 0;
        tty::configure(&file, &settings)
            .with_context(|| format!("{path} cannot be set up as {settings:?}"))?;
        lines.push(line);
    }
    Ok(lines)
}
