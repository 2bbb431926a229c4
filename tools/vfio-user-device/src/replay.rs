// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device's configuration space as commands for QEMU's monitor.
//!
//! QEMU has a copy of its own of the base addresses, the command register and MSI, which is what the guest sees and what accesses are
//! led by. Its `vfio-user-pci` neither saves it nor loads it (11.1). So after a migration that copy is the one of a machine that was
//! just switched on, and the device behind the socket is where the guest left it. The commands here write to QEMU's copy what the
//! device has, by the ports that a guest uses: 0xcf8 takes the address of a register, 0xcfc and up are the register.

use std::fmt;
use std::str::FromStr;

/// Bytes of a configuration space that QEMU is told of.
pub const CONFIG_BYTES: usize = 256;

/// Offsets of registers.
mod register {
    pub(super) const COMMAND: u8 = 0x04;
    pub(super) const CACHE_LINE_SIZE: u8 = 0x0c;
    pub(super) const LATENCY_TIMER: u8 = 0x0d;
    pub(super) const HEADER_TYPE: u8 = 0x0e;
    pub(super) const BAR0: u8 = 0x10;
    pub(super) const ROM: u8 = 0x30;
    pub(super) const CAPABILITIES: u8 = 0x34;
    pub(super) const INTERRUPT_LINE: u8 = 0x3c;
    pub(super) const INTERRUPT_PIN: u8 = 0x3d;
}

/// Base addresses of a function that is no bridge.
const BARS: u8 = 6;
/// Bits of the command register.
const IO_SPACE: u16 = 1;
/// The lowest bit of a base address in I/O space.
const IN_IO_SPACE: u32 = 1;
/// Capabilities.
const MSI: u8 = 0x05;
const MSIX: u8 = 0x11;
/// Bits of MSI's control register, and of MSI-X's.
const MSI_ENABLE: u16 = 1;
const MSI_64BIT: u16 = 1 << 7;
const MSI_MASKS: u16 = 1 << 8;
const MSIX_ENABLE: u16 = 1 << 15;

/// Where a device is in its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    bus: u8,
    slot: u8,
    function: u8,
}

/// What is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a PCI device; it should be as in 00:05.0")]
pub struct NoAddress(String);

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let parse = || {
            let (bus, rest) = text.split_once(':')?;
            let (slot, function) = rest.split_once('.')?;
            let hex = |text: &str, digits: usize, most: u8| {
                let sound =
                    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                let number = u8::from_str_radix(text, 16).ok().filter(|_| sound)?;
                (number <= most).then_some(number)
            };
            Some(Self {
                bus: hex(bus, 2, u8::MAX)?,
                slot: hex(slot, 2, 31)?,
                function: hex(function, 1, 7)?,
            })
        };
        parse().ok_or_else(|| NoAddress(text.to_string()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.slot, self.function)
    }
}

impl Address {
    /// What port 0xcf8 takes to lead to the four bytes around a register.
    fn selector(self, register: u8) -> u32 {
        let [bus, slot, function] = [self.bus, self.slot, self.function].map(u32::from);
        (1 << 31) | (bus << 16) | (slot << 11) | (function << 8) | u32::from(register & !3)
    }
}

/// Why a configuration space cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotReplay {
    /// It is too short, or its capabilities lead astray.
    #[error("the device's configuration space makes no sense")]
    Senseless,
    /// A bridge.
    #[error("the device is a bridge")]
    Bridge,
    /// The table of MSI-X is QEMU's own, and gone.
    #[error("the guest has MSI-X enabled, whose table only QEMU had; let it use INTx or MSI")]
    MsiX,
}

/// A configuration space.
#[derive(Clone, Debug)]
pub struct ConfigSpace([u8; CONFIG_BYTES]);

impl ConfigSpace {
    /// What a device says its configuration space is.
    pub fn new(bytes: &[u8]) -> Result<Self, CannotReplay> {
        let bytes = bytes.try_into().map_err(|_| CannotReplay::Senseless)?;
        let space = Self(bytes);
        match space.byte(register::HEADER_TYPE) & 0x7f {
            0 => Ok(space),
            _ => Err(CannotReplay::Bridge),
        }
    }

    fn byte(&self, at: u8) -> u8 {
        self.0[usize::from(at)]
    }

    fn word(&self, at: u8) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at.wrapping_add(1))])
    }

    fn dword(&self, at: u8) -> u32 {
        let high = u32::from(self.word(at.wrapping_add(2)));
        (high << 16) | u32::from(self.word(at))
    }

    /// Where capabilities are, each with its kind.
    fn capabilities(&self) -> Result<Vec<(u8, u8)>, CannotReplay> {
        let mut found = Vec::new();
        let mut at = self.byte(register::CAPABILITIES) & !3;
        while at != 0 {
            // Each has four bytes at least, behind the header.
            if at < 0x40 || found.len() >= (CONFIG_BYTES - 0x40) / 4 {
                return Err(CannotReplay::Senseless);
            }
            found.push((at, self.byte(at)));
            at = self.byte(at.wrapping_add(1)) & !3;
        }
        Ok(found)
    }

    fn capability(&self, kind: u8) -> Result<Option<u8>, CannotReplay> {
        let found = self.capabilities()?;
        Ok(found
            .into_iter()
            .find(|(_, is)| *is == kind)
            .map(|(at, _)| at))
    }

    /// Whether the guest gets interrupts by the pin.
    pub fn uses_intx(&self) -> Result<bool, CannotReplay> {
        let enabled = |kind, bit: u16| {
            let at = self.capability(kind)?;
            Ok(at.is_some_and(|at| self.word(at.wrapping_add(2)) & bit != 0))
        };
        let by_message = enabled(MSI, MSI_ENABLE)? || enabled(MSIX, MSIX_ENABLE)?;
        Ok(self.byte(register::INTERRUPT_PIN) != 0 && !by_message)
    }

    /// Refuses a guest's use of the device that cannot be replayed.
    pub fn check(&self) -> Result<(), CannotReplay> {
        let at = self.capability(MSIX)?;
        match at.is_some_and(|at| self.word(at.wrapping_add(2)) & MSIX_ENABLE != 0) {
            true => Err(CannotReplay::MsiX),
            false => Ok(()),
        }
    }

    /// The port that a register of a base address has, if the guest can reach it.
    pub fn port(&self, bar: u32, offset: u64) -> Option<u32> {
        let bar = u8::try_from(bar).ok().filter(|bar| *bar < BARS)?;
        let base = self.dword(register::BAR0 + 4 * bar);
        let is_on = self.word(register::COMMAND) & IO_SPACE != 0 && base & IN_IO_SPACE != 0;
        let offset = u32::try_from(offset).ok().filter(|_| is_on)?;
        (base & !3)
            .checked_add(offset)
            .filter(|port| *port <= 0xffff)
    }

    /// The commands that give QEMU's copy what this one has. `selector` is what port 0xcf8 has before, and has afterwards: the guest
    /// may have been stopped between the two writes of one access.
    ///
    /// The command register is first cleared, and set last: nothing is moved while it is reached, and a device that gets its right to
    /// send messages back sends those that it owes.
    pub fn commands(&self, address: Address, selector: u32) -> Result<Vec<String>, CannotReplay> {
        let mut writes = Writes {
            address,
            lines: Vec::new(),
        };
        writes.word(register::COMMAND, 0);
        for at in [register::CACHE_LINE_SIZE, register::LATENCY_TIMER] {
            writes.byte(at, self.byte(at));
        }
        for bar in 0..BARS {
            let at = register::BAR0 + 4 * bar;
            writes.dword(at, self.dword(at));
        }
        writes.dword(register::ROM, self.dword(register::ROM));
        let line = register::INTERRUPT_LINE;
        writes.byte(line, self.byte(line));
        self.check()?;
        if let Some(at) = self.capability(MSI)? {
            self.msi(at, &mut writes)?;
        }
        let command = register::COMMAND;
        writes.word(command, self.word(command));
        writes.lines.push(format!("o /w 0xcf8 {selector:#x}"));
        Ok(writes.lines)
    }

    /// Address, data and masks of MSI, and then its control register.
    fn msi(&self, at: u8, writes: &mut Writes) -> Result<(), CannotReplay> {
        let control = self.word(at.wrapping_add(2));
        let is_64bit = control & MSI_64BIT != 0;
        let data = if is_64bit { 12 } else { 8 };
        let end = data + if control & MSI_MASKS != 0 { 8 } else { 2 };
        if usize::from(at) + usize::from(end) > CONFIG_BYTES {
            return Err(CannotReplay::Senseless);
        }
        for low in (4..data).step_by(4) {
            writes.dword(at + low, self.dword(at + low));
        }
        writes.word(at + data, self.word(at + data));
        if control & MSI_MASKS != 0 {
            writes.dword(at + data + 4, self.dword(at + data + 4));
        }
        writes.word(at + 2, control);
        Ok(())
    }
}

/// Writes to registers, as commands.
struct Writes {
    address: Address,
    lines: Vec<String>,
}

impl Writes {
    fn put(&mut self, at: u8, width: char, value: u32) {
        let selector = self.address.selector(at);
        let port = 0xcfc + u32::from(at & 3);
        self.lines.push(format!("o /w 0xcf8 {selector:#x}"));
        self.lines.push(format!("o /{width} {port:#x} {value:#x}"));
    }

    fn byte(&mut self, at: u8, value: u8) {
        self.put(at, 'b', value.into());
    }

    fn word(&mut self, at: u8, value: u16) {
        self.put(at, 'h', value.into());
    }

    fn dword(&mut self, at: u8, value: u32) {
        self.put(at, 'w', value);
    }
}

/// The command with which QEMU takes back an interrupt that it raised: it takes the next access to a register for the end of the
/// interrupt. Twice: one that was on its way when the first was carried out has come by then.
pub fn end_of_interrupt(port: u32) -> Vec<String> {
    vec![format!("i /b {port:#x}"); 2]
}

#[cfg(test)]
mod tests;
