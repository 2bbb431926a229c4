// SPDX-License-Identifier: GPL-2.0 OR MIT

//! MSI: up to 32 messages that differ in the low bits of their data (PCI 6.8.1).

use super::builder::{BuildError, Builder};
use super::messages::{first, one, Gate, Messages};
use super::registers::{capability, msi};
use super::space::ConfigSpace;

/// The most vectors that MSI has.
const MAX: u16 = 32;

/// The MSI capability of a function: where it lies, and what it has to send.
///
/// It is the 64-bit form. The registers are in the function's [`ConfigSpace`]; after a write to that,
/// [`Msi::update`] is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msi {
    offset: u8,
    count: u16,
    maskable: bool,
    gate: Gate,
    messages: Messages,
}

impl Msi {
    /// Adds the capability to a function: `count` vectors (1, 2, 4, 8, 16 or 32), with mask bits or without.
    pub fn add_to(
        builder: &mut Builder,
        count: u16,
        maskable: bool,
        gate: Gate,
    ) -> Result<Msi, BuildError> {
        if !count.is_power_of_two() || count > MAX {
            return Err(BuildError::Vectors(count));
        }
        let log = count.trailing_zeros() as u16;
        let mut control = msi::ADDRESS_64 | (log << msi::CAPABLE_SHIFT);
        // control 2, address 8, data 2, reserved 2, mask 4, pending 4
        let mut body = [0; 22];
        let mut writable = [0; 22];
        let [low, high] = (msi::ENABLE | msi::ENABLED).to_le_bytes();
        let fixed = [
            low, high, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ];
        for (to, from) in writable.iter_mut().zip(fixed) {
            *to = from;
        }
        let mut len = 12;
        if maskable {
            control |= msi::MASKABLE;
            len = body.len();
            let masks = (first(count) as u32).to_le_bytes();
            for (to, from) in writable.iter_mut().skip(14).zip(masks) {
                *to = from;
            }
        }
        for (to, from) in body.iter_mut().zip(control.to_le_bytes()) {
            *to = from;
        }
        let body = body.get(..len).unwrap_or_default();
        let writable = writable.get(..len).unwrap_or_default();
        Ok(Msi {
            offset: builder.capability(capability::MSI, body, writable)?,
            count,
            maskable,
            gate,
            messages: Messages::default(),
        })
    }

    /// The offset of the message control word.
    pub fn control_offset(&self) -> u8 {
        self.offset.saturating_add(2)
    }

    fn control(&self, space: &ConfigSpace) -> u16 {
        space.word(self.control_offset())
    }

    /// Whether messages take the place of the pin.
    pub fn enabled(&self, space: &ConfigSpace) -> bool {
        self.control(space) & msi::ENABLE != 0
    }

    /// How many vectors are in use: what the guest enabled, and not more than there are.
    pub fn vectors_enabled(&self, space: &ConfigSpace) -> u16 {
        let log = (self.control(space) & msi::ENABLED) >> msi::ENABLED_SHIFT;
        // At most 1 << 7.
        (1 << log).min(self.count)
    }

    /// Where messages are written to.
    pub fn address(&self, space: &ConfigSpace) -> u64 {
        let low = space.dword(self.offset.saturating_add(4));
        let high = space.dword(self.offset.saturating_add(8));
        (u64::from(high) << 32) | u64::from(low)
    }

    /// What is written there for a vector: the number of the vector is in the low bits.
    pub fn data(&self, vector: u16, space: &ConfigSpace) -> u16 {
        let used = self.vectors_enabled(space) - 1;
        (space.word(self.offset.saturating_add(12)) & !used) | (vector & used)
    }

    fn open(&self, space: &ConfigSpace) -> u64 {
        let masks = match self.maskable {
            true => space.dword(self.offset.saturating_add(16)),
            false => 0,
        };
        match self.gate {
            _ if !space.bus_master() => 0,
            Gate::Routes => self.messages.routes(),
            Gate::Registers if self.enabled(space) => first(self.count) & !u64::from(masks),
            Gate::Registers => 0,
        }
    }

    /// An interrupt of a vector. While messages are not enabled by the registers, which then decide,
    /// it is dropped: the pin is what interrupts. One beyond those in use goes out as the last of them.
    pub fn fire(&mut self, vector: u16, space: &ConfigSpace) {
        if self.gate == Gate::Registers && !self.enabled(space) {
            return;
        }
        let last = match self.gate {
            Gate::Registers => self.vectors_enabled(space) - 1,
            Gate::Routes => self.count - 1,
        };
        self.messages.fire(one(vector.min(last)), self.open(space));
    }

    /// To be called after each write to configuration space: what was pending may go now.
    pub fn update(&mut self, space: &ConfigSpace) {
        if self.gate == Gate::Registers && !self.enabled(space) {
            self.messages.clear();
        }
        self.messages.open(self.open(space));
    }

    /// Messages of this vector lead somewhere, or no longer.
    pub fn set_route(&mut self, vector: u16, leads_somewhere: bool, space: &ConfigSpace) {
        self.messages.set_route(vector, leads_somewhere);
        self.messages.open(self.open(space));
    }

    /// The vectors whose messages are to be sent now, a bit each; each is told once.
    pub fn take_due(&mut self) -> u64 {
        self.messages.take_due()
    }

    /// The vectors that wait for being unmasked, a bit each: the pending bits of PCI 6.8.1.8.
    pub fn pending(&self) -> u64 {
        self.messages.pending()
    }

    /// Back to what it was after power-on. Routes stay: they are not the function's.
    pub fn reset(&mut self) {
        self.messages.clear();
    }
}
