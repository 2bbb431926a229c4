// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a port is plugged into: a loop-back plug with a memory.
//!
//! It returns what it is sent, in order, and knows when the receiver has no room: then it waits, and
//! when its own memory is full it makes the transmitter wait. So a byte that is missing at the
//! receiver was lost by somebody else.
//!
//! The modem lines of the plug are wires: CTS from RTS, DSR and DCD from DTR, RI never rings.

use super::fifo::{Fifo, Symbol};
use super::registers::{mcr, msr};

/// How many symbols the far end of a port can hold.
pub const FAR_END_BYTES: usize = 256;

/// The far end of one port.
#[derive(Clone, Debug)]
pub(super) struct FarEnd {
    waiting: Fifo<FAR_END_BYTES, { FAR_END_BYTES / 8 }>,
}

impl FarEnd {
    pub(super) const fn new() -> FarEnd {
        FarEnd {
            waiting: Fifo::new(),
        }
    }

    /// Whether the line to the far end is blocked by its flow control.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting.is_full()
    }

    /// Whether the far end has nothing to send.
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many symbols wait.
    pub(super) const fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The far end receives. `false`: it has no room.
    #[must_use]
    pub(super) fn receive(&mut self, symbol: Symbol) -> bool {
        self.waiting.push(symbol)
    }

    /// The far end sends what it received first.
    pub(super) fn send(&mut self) -> Option<Symbol> {
        self.waiting.pop()
    }

    /// What waits, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Symbol> + '_ {
        self.waiting.iter()
    }

    /// Holds what another one holds.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.waiting.copy_from(&other.waiting);
    }

    /// Forgets everything that waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// The port's modem inputs, as bits of the modem status register, when it drives its outputs as
    /// these bits of the modem control register say.
    pub(super) const fn modem_inputs(outputs: u8) -> u8 {
        let mut inputs = 0;
        if outputs & mcr::RTS != 0 {
            inputs |= msr::CTS;
        }
        if outputs & mcr::DTR != 0 {
            inputs |= msr::DSR | msr::DCD;
        }
        inputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_256_bytes_and_returns_them_in_order() {
        let mut far = FarEnd::new();
        for i in 0..256u32 {
            assert!(!far.is_full());
            assert!(far.receive(Symbol::Byte(i as u8)));
        }
        assert!(far.is_full());
        assert!(!far.receive(Symbol::Byte(0)));
        for i in 0..256u32 {
            assert_eq!(far.send(), Some(Symbol::Byte(i as u8)));
        }
        assert_eq!(far.send(), None);
    }

    #[test]
    fn the_plug_wires_rts_to_cts_and_dtr_to_dsr_and_dcd() {
        assert_eq!(FarEnd::modem_inputs(0), 0);
        assert_eq!(FarEnd::modem_inputs(mcr::RTS), msr::CTS);
        assert_eq!(FarEnd::modem_inputs(mcr::DTR), msr::DSR | msr::DCD);
        assert_eq!(FarEnd::modem_inputs(mcr::OUT1 | mcr::OUT2), 0);
    }
}
