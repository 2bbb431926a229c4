// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The configuration space of a function, as guests access it.

use super::access::Access;
use super::builder::{bar_offset, Bar};
use super::registers as reg;
use super::registers::{bar, command, status};

/// Size of configuration space in bytes.
pub const CONFIG_SPACE_BYTES: u16 = 256;

/// How many base address registers a function has.
pub const MAX_BARS: usize = 6;

const BYTES: usize = CONFIG_SPACE_BYTES as usize;

/// The configuration space of a function. Some 600 bytes.
///
/// Bits that can be written are zero after reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSpace {
    bytes: [u8; BYTES],
    /// Which bits guests can write.
    writable: [u8; BYTES],
    bars: [Option<Bar>; MAX_BARS],
}

impl ConfigSpace {
    pub(super) const fn empty() -> ConfigSpace {
        ConfigSpace {
            bytes: [0; BYTES],
            writable: [0; BYTES],
            bars: [None; MAX_BARS],
        }
    }

    pub(super) fn set_u8(&mut self, at: u8, value: u8) {
        if let Some(byte) = self.bytes.get_mut(usize::from(at)) {
            *byte = value;
        }
    }

    pub(super) fn set_u16(&mut self, at: u8, value: u16) {
        self.set(at, &value.to_le_bytes());
    }

    pub(super) fn set_u32(&mut self, at: u8, value: u32) {
        self.set(at, &value.to_le_bytes());
    }

    fn set(&mut self, at: u8, value: &[u8]) {
        let place = self.bytes.iter_mut().skip(usize::from(at));
        for (to, from) in place.zip(value) {
            *to = *from;
        }
    }

    /// More bits that guests can write.
    pub(super) fn allow(&mut self, at: u8, mask: &[u8]) {
        let place = self.writable.iter_mut().skip(usize::from(at));
        for (to, from) in place.zip(mask) {
            *to |= *from;
        }
    }

    pub(super) fn set_bar(&mut self, index: usize, bar: Bar) {
        if let Some(place) = self.bars.get_mut(index) {
            *place = Some(bar);
        }
    }

    /// Whether a register is a BAR or the upper half of one.
    pub(super) fn bar_uses(&self, index: usize) -> bool {
        let lower = index.checked_sub(1).and_then(|lower| self.bar(lower));
        self.bar(index).is_some() || matches!(lower, Some(Bar::Memory64 { .. }))
    }

    pub(super) fn clear_writable(&mut self) {
        for (byte, mask) in self.bytes.iter_mut().zip(&self.writable) {
            *byte &= !mask;
        }
    }

    /// Back to what it was after power-on.
    pub fn reset(&mut self) {
        self.clear_writable();
    }

    /// Reads. `interrupting`: whether the function asks for an interrupt by its pin, which the status
    /// register shows whether or not the command register lets it be asserted (PCI 6.2.3).
    ///
    /// Beyond the 256 bytes: zeroes.
    pub fn read(&self, access: Access, interrupting: bool) -> u32 {
        let mut value = access.of_bytes(&self.bytes);
        if interrupting && access.touches(u32::from(reg::STATUS), 1) {
            let shift = (u32::from(reg::STATUS) - access.offset()) * 8;
            value |= u32::from(status::INTERRUPT) << shift;
        }
        value
    }

    /// Writes. Bits that cannot be written keep their value; what lies beyond the 256 bytes is ignored.
    pub fn write(&mut self, access: Access, value: u32) {
        let start = access.offset() as usize;
        let places = self.bytes.iter_mut().zip(&self.writable).skip(start);
        let values = value.to_le_bytes();
        for ((byte, mask), new) in places.zip(values).take(access.width().bytes() as usize) {
            *byte = (*byte & !mask) | (new & mask);
        }
    }

    /// A byte as it is stored. Beyond the end: zero.
    pub fn byte(&self, at: u8) -> u8 {
        self.bytes.get(usize::from(at)).copied().unwrap_or(0)
    }

    /// Two bytes as they are stored.
    pub fn word(&self, at: u8) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at.saturating_add(1))])
    }

    /// Four bytes as they are stored.
    pub fn dword(&self, at: u8) -> u32 {
        let high = self.word(at.saturating_add(2));
        (u32::from(high) << 16) | u32::from(self.word(at))
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.word(reg::COMMAND)
    }

    /// Whether the function may access memory: by DMA, and by messages.
    pub fn bus_master(&self) -> bool {
        self.command() & command::MASTER != 0
    }

    /// Whether the command register lets the pin be asserted.
    pub fn intx_enabled(&self) -> bool {
        self.command() & command::INTX_DISABLE == 0
    }

    /// What a base address register decodes. `None`: it is none, or the upper half of one.
    pub fn bar(&self, index: usize) -> Option<Bar> {
        self.bars.get(index).copied().flatten()
    }

    /// The address in a base address register.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let low = self.dword(bar_offset(index));
        Some(match self.bar(index)? {
            Bar::Io { .. } => u64::from(low & !bar::IO_FLAGS),
            Bar::Memory32 { .. } => u64::from(low & !bar::MEMORY_FLAGS),
            Bar::Memory64 { .. } => {
                let high = self.dword(bar_offset(index.saturating_add(1)));
                (u64::from(high) << 32) | u64::from(low & !bar::MEMORY_FLAGS)
            }
        })
    }

    /// All 256 bytes as they are stored: what a saved state has of them.
    pub fn stored(&self) -> &[u8; BYTES] {
        &self.bytes
    }

    /// Whether another function of the same layout stored this. `Err`: at this offset it differs in a bit that no guest can write, so
    /// it is another layout.
    pub fn check(&self, stored: &[u8; BYTES]) -> Result<(), u8> {
        let bytes = self.bytes.iter().zip(stored).zip(&self.writable);
        for (at, ((own, other), mask)) in (0u8..=u8::MAX).zip(bytes) {
            if (own ^ other) & !mask != 0 {
                return Err(at);
            }
        }
        Ok(())
    }

    /// Takes over what another function of the same layout stored. `Err`: as in [`ConfigSpace::check`], and nothing was taken over.
    pub fn restore(&mut self, stored: &[u8; BYTES]) -> Result<(), u8> {
        self.check(stored)?;
        self.bytes = *stored;
        Ok(())
    }
}
