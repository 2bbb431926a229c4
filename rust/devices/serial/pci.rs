// SPDX-License-Identifier: GPL-2.0 OR MIT

//! PCI configuration space of the card: header type 0, one I/O BAR, INTx pin A, perhaps MSI.
//!
//! Sources: PCI Local Bus 3.0, chapter 6; QEMU docs/specs/pci-serial.rst and hw/char/serial-pci.c for
//! the values; linux/pci_regs.h for the names.

use super::config::{Config, PortCount};

/// Size of configuration space in bytes.
pub const CONFIG_SPACE_BYTES: u16 = 256;

/// Command register bits.
mod command {
    pub(super) const IO: u16 = 0x0001;
    pub(super) const MASTER: u16 = 0x0004;
    pub(super) const SERR: u16 = 0x0100;
    pub(super) const INTX_DISABLE: u16 = 0x0400;
    /// What can be written. Memory space and the rest are hard-wired to zero: the card decodes no
    /// memory, and PCI 6.2.2 lets a function leave out bits that it has no use for.
    pub(super) const MASK: u16 = IO | MASTER | SERR | INTX_DISABLE;
}

/// Status register bits.
mod status {
    pub(super) const INTERRUPT: u16 = 0x0008;
    pub(super) const CAPABILITIES: u16 = 0x0010;
}

const VENDOR_ID: u16 = 0x1b36;
const SUBSYSTEM_VENDOR_ID: u16 = 0x1af4;
const SUBSYSTEM_ID: u16 = 0x1100;
const REVISION: u8 = 1;
/// Serial controller, 16550 compatible.
const CLASS: u32 = 0x07_0002;
/// INTA#.
const INTERRUPT_PIN: u8 = 1;
/// BAR 0 decodes I/O space.
const BAR_IO: u32 = 1;

/// Where the MSI capability lies.
///
/// It is the 64-bit form (PCI 6.8.1): hosts other than x86 have their doorbells above 4 GiB, and the
/// upper half costs nothing where it stays zero. One message, no mask bits: with a single message the
/// port's own interrupt enables do the masking.
const MSI_OFFSET: u8 = 0x40;
const MSI_CAPABILITY_ID: u8 = 0x05;
const MSI_ENABLE: u16 = 0x0001;
const MSI_64BIT: u16 = 0x0080;
/// Messages are dword aligned.
const MSI_ADDRESS_LOW_MASK: u32 = !3;

/// The writable part of configuration space.
#[derive(Clone, Debug)]
pub(super) struct Pci {
    pub(super) command: u16,
    pub(super) bar0: u32,
    pub(super) interrupt_line: u8,
    pub(super) msi_enable: bool,
    pub(super) msi_address: u64,
    pub(super) msi_data: u16,
}

impl Pci {
    pub(super) const fn new() -> Pci {
        Pci {
            command: 0,
            bar0: 0,
            interrupt_line: 0,
            msi_enable: false,
            msi_address: 0,
            msi_data: 0,
        }
    }

    /// Whether the function may send its message: it is enabled, and so is bus mastering, since a
    /// message is a write to memory.
    pub(super) const fn msi_active(&self) -> bool {
        self.msi_enable && self.command & command::MASTER != 0
    }

    /// Whether an interrupt would go out as INTx. Enabling MSI takes the pin away (PCI 6.8.1.3), even
    /// while bus mastering is off.
    pub(super) const fn uses_intx(&self) -> bool {
        !self.msi_enable
    }

    /// Whether the command register lets the pin be asserted.
    pub(super) const fn intx_enabled(&self) -> bool {
        self.uses_intx() && self.command & command::INTX_DISABLE == 0
    }

    /// The four bytes from an offset on, which is a multiple of 4. `interrupting`: whether any port asks for an interrupt.
    #[inline(never)]
    pub(super) fn dword(&self, config: &Config, offset: u8, interrupting: bool) -> u32 {
        match offset {
            0x00 => pair(VENDOR_ID, config.ports.device_id()),
            0x04 => pair(self.command, self.status(config, interrupting)),
            0x08 => (CLASS << 8) | u32::from(REVISION),
            0x10 => self.bar0 | BAR_IO,
            0x2c => pair(SUBSYSTEM_VENDOR_ID, SUBSYSTEM_ID),
            0x34 if config.msi => u32::from(MSI_OFFSET),
            0x3c => u32::from_le_bytes([self.interrupt_line, INTERRUPT_PIN, 0, 0]),
            0x40 if config.msi => pair(u16::from(MSI_CAPABILITY_ID), self.msi_control()),
            0x44 if config.msi => self.msi_address as u32,
            0x48 if config.msi => (self.msi_address >> 32) as u32,
            0x4c if config.msi => u32::from(self.msi_data),
            // No other BAR, no ROM, no other capability; cache line size, latency timer, header type
            // and self test are zero.
            _ => 0,
        }
    }

    fn status(&self, config: &Config, interrupting: bool) -> u16 {
        let mut status = 0;
        // PCI 6.2.3: shown whether or not the command register lets the pin be asserted.
        if interrupting && self.uses_intx() {
            status |= status::INTERRUPT;
        }
        if config.msi {
            status |= status::CAPABILITIES;
        }
        status
    }

    fn msi_control(&self) -> u16 {
        MSI_64BIT | if self.msi_enable { MSI_ENABLE } else { 0 }
    }

    /// Writes those of the four bytes from an offset on, which is a multiple of 4, that `lanes` has ones for. Bits that cannot be
    /// written keep their value.
    #[inline(never)]
    pub(super) fn write(&mut self, config: &Config, offset: u8, value: u32, lanes: u32) {
        let merge = |old: u32, mask: u32| (old & !(mask & lanes)) | (value & mask & lanes);
        match offset {
            0x04 => {
                let mask = u32::from(command::MASK);
                self.command = merge(u32::from(self.command), mask) as u16;
            }
            0x10 => self.bar0 = merge(self.bar0, bar0_mask(config.ports)),
            0x3c => self.interrupt_line = merge(u32::from(self.interrupt_line), 0xff) as u8,
            0x40 if config.msi => {
                let mask = u32::from(MSI_ENABLE) << 16;
                let old = if self.msi_enable { mask } else { 0 };
                self.msi_enable = merge(old, mask) != 0;
            }
            0x44 if config.msi => {
                let low = merge(self.msi_address as u32, MSI_ADDRESS_LOW_MASK);
                self.msi_address = (self.msi_address & !0xffff_ffff) | u64::from(low);
            }
            0x48 if config.msi => {
                let high = merge((self.msi_address >> 32) as u32, u32::MAX);
                self.msi_address = (u64::from(high) << 32) | (self.msi_address & 0xffff_ffff);
            }
            0x4c if config.msi => {
                self.msi_data = merge(u32::from(self.msi_data), 0xffff) as u16;
            }
            _ => {}
        }
    }

    /// Which rule a state breaks that no write can break, if any. For loaded states.
    pub(super) fn broken_rule(&self, config: &Config) -> Option<&'static str> {
        let msi_unused = !self.msi_enable && self.msi_address == 0 && self.msi_data == 0;
        let rules = [
            (
                self.command & !command::MASK == 0,
                "reserved bits in the command register",
            ),
            (
                self.bar0 & !bar0_mask(config.ports) == 0,
                "BAR 0 is not aligned to its size",
            ),
            (
                self.msi_address as u32 & !MSI_ADDRESS_LOW_MASK == 0,
                "MSI address is not aligned",
            ),
            (config.msi || msi_unused, "MSI state on a card without MSI"),
        ];
        rules
            .iter()
            .find(|(holds, _)| !holds)
            .map(|&(_, rule)| rule)
    }
}

/// The address bits of BAR 0 that can be written; the others say how large it is.
const fn bar0_mask(ports: PortCount) -> u32 {
    !(ports.bar_size() as u32 - 1)
}

/// Two 16-bit registers that share a dword, the one at the lower offset first.
fn pair(low: u16, high: u16) -> u32 {
    (u32::from(high) << 16) | u32::from(low)
}

#[cfg(test)]
mod tests;
