// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The chip, register by register.

use super::*;
use crate::serial::config::{self, FifoDepth};
use crate::serial::far_end::FAR_END_BYTES;
use std::vec::Vec;

mod fifos;
mod interrupts;
mod line;
mod modem;

/// A kind of UART with everything that it can have.
fn kind(depth: FifoDepth) -> config::Chip {
    config::Chip {
        depth,
        auto_flow: true,
    }
}

/// A UART on a bench, with a clock.
pub(super) struct Chip {
    pub(super) uart: Uart,
    pub(super) now: u64,
}

impl Chip {
    pub(super) fn new(depth: FifoDepth) -> Chip {
        Chip {
            uart: Uart::new(kind(depth)),
            now: 0,
        }
    }

    /// A 16550A with 8 data bits and FIFOs off.
    pub(super) fn ready() -> Chip {
        let mut chip = Chip::new(FifoDepth::Sixteen);
        chip.write(offset::LCR, 0x03);
        chip
    }

    /// A 16550A with 8 data bits and FIFOs on.
    pub(super) fn with_fifos() -> Chip {
        let mut chip = Chip::ready();
        chip.write(offset::IIR_FCR, fcr::ENABLE);
        chip
    }

    /// A 16750 with 8 data bits and 64-byte FIFOs on.
    pub(super) fn with_long_fifos() -> Chip {
        let mut chip = Chip::new(FifoDepth::SixtyFour);
        chip.write(offset::LCR, lcr::DLAB);
        chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::FIFO64);
        chip.write(offset::LCR, 0x03);
        chip
    }

    /// A chip in loop mode, where its own receiver gets what it sends.
    pub(super) fn looped(mut self) -> Chip {
        self.write(offset::MCR, mcr::LOOP);
        self
    }

    #[track_caller]
    pub(super) fn read(&mut self, register: u8) -> u8 {
        let value = self.uart.read(register, self.now);
        assert_eq!(self.uart.broken_rule(), None);
        value
    }

    #[track_caller]
    pub(super) fn write(&mut self, register: u8, value: u8) {
        self.uart.write(register, value, self.now);
        assert_eq!(self.uart.broken_rule(), None);
    }

    pub(super) fn pass(&mut self, ns: u64) {
        self.now += ns;
        self.uart.expire(self.now);
        assert_eq!(self.uart.broken_rule(), None);
    }

    pub(super) fn send(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.write(offset::DATA, byte);
        }
    }

    /// Fills the receiver FIFO, the far end and the transmitter FIFO with the numbers from 0.
    pub(super) fn fill(&mut self) -> usize {
        let mut sent = 0;
        while self.uart.tx.len() < self.uart.capacity() {
            self.write(offset::DATA, sent as u8);
            sent += 1;
        }
        sent
    }

    /// Reads until no data is ready.
    pub(super) fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.read(offset::LSR) & lsr::DR != 0 {
            bytes.push(self.read(offset::DATA));
        }
        bytes
    }

    /// A break of just the length that it needs.
    pub(super) fn send_break(&mut self) {
        let line_control = self.uart.lcr;
        self.write(offset::LCR, line_control | lcr::BREAK);
        self.pass(timeout::break_ns(self.uart.divisor, line_control));
        self.write(offset::LCR, line_control);
    }

    pub(super) fn iir(&mut self) -> u8 {
        self.read(offset::IIR_FCR)
    }
}

#[test]
fn power_on_state_is_that_of_the_data_sheet() {
    for depth in FifoDepth::ALL {
        let mut chip = Chip::new(depth);
        let registers = [offset::IER, offset::LCR, offset::MCR, offset::MSR];
        assert_eq!(registers.map(|r| chip.read(r)), [0; 4]);
        assert_eq!(chip.iir(), 0x01);
        assert_eq!(chip.read(offset::LSR), 0x60);
        assert!(!chip.uart.interrupting());
    }
}

#[test]
fn reset_brings_power_on_state_back() {
    let mut chip = Chip::with_long_fifos();
    chip.write(offset::MCR, 0x3f & !mcr::LOOP);
    chip.write(offset::IER, 0x0f);
    chip.write(offset::SCR, 0x77);
    chip.write(offset::LCR, 0xc3);
    chip.write(offset::DATA, 1);
    chip.write(offset::LCR, 0x03);
    chip.fill();
    chip.uart.reset(kind(FifoDepth::Sixteen));
    let fresh = Uart::new(kind(FifoDepth::Sixteen));
    assert_eq!(
        std::format!("{:?}", strip(&chip.uart)),
        std::format!("{:?}", strip(&fresh))
    );
    assert_eq!(chip.drain(), []);
}

/// Everything of a UART but the stale contents of its queues.
fn strip(uart: &Uart) -> Uart {
    let mut uart = uart.clone();
    assert!(uart.rx.is_empty() && uart.tx.is_empty() && uart.far.is_empty());
    uart.rx = Fifo::new();
    uart.tx = Fifo::new();
    uart.far = FarEnd::new();
    uart
}

#[test]
fn scratch_register_keeps_any_byte() {
    let mut chip = Chip::ready();
    for value in 0..=255 {
        chip.write(offset::SCR, value);
        assert_eq!(chip.read(offset::SCR), value);
    }
}

#[test]
fn divisor_latch_appears_under_dlab_only() {
    let mut chip = Chip::ready();
    chip.write(offset::IER, 0x05);
    chip.write(offset::LCR, lcr::DLAB | 0x03);
    assert_eq!((chip.read(0), chip.read(1)), (12, 0));
    chip.write(0, 0x34);
    chip.write(1, 0x12);
    assert_eq!((chip.read(0), chip.read(1)), (0x34, 0x12));
    chip.write(offset::LCR, 0x03);
    assert_eq!(chip.read(offset::IER), 0x05);
    assert_eq!(chip.uart.divisor, 0x1234);
    // Nothing of it went out on the line.
    assert_eq!(chip.read(offset::LSR) & lsr::DR, 0);
}

#[test]
fn line_control_register_keeps_any_byte() {
    let mut chip = Chip::ready();
    for value in 0..=255 {
        chip.write(offset::LCR, value);
        assert_eq!(chip.read(offset::LCR), value);
    }
}

#[test]
fn only_existing_bits_of_ier_and_mcr_are_stored() {
    for (depth, ier, mcr) in [
        (FifoDepth::Sixteen, 0x0f, 0x1f),
        (FifoDepth::SixtyFour, 0x3f, 0x3f),
    ] {
        let mut chip = Chip::new(depth);
        chip.write(offset::IER, 0xff);
        chip.write(offset::MCR, 0xff);
        assert_eq!(chip.read(offset::IER), ier);
        assert_eq!(chip.read(offset::MCR), mcr);
    }
}

#[test]
fn writes_to_the_status_registers_are_ignored() {
    let mut chip = Chip::ready();
    chip.write(offset::LSR, 0xff);
    chip.write(offset::MSR, 0xff);
    assert_eq!(chip.read(offset::LSR), 0x60);
    assert_eq!(chip.read(offset::MSR), 0);
}

#[test]
fn only_three_bits_of_the_offset_are_decoded() {
    let mut chip = Chip::ready();
    chip.write(0xf8 | offset::SCR, 0x42);
    assert_eq!(chip.read(offset::SCR), 0x42);
    assert_eq!(chip.read(0x08 | offset::SCR), 0x42);
}

#[test]
fn each_broken_rule_is_found() {
    type Breakage = fn(&mut Chip);
    let breakages: [(&str, Breakage); 12] = [
        ("more received bytes than the FIFO holds", |c| {
            c.uart.fcr = 0;
            c.uart.deadline = None;
            for _ in 0..2 {
                assert!(c.uart.rx.push(Symbol::Byte(0)));
            }
        }),
        ("more bytes to transmit than the FIFO holds", |c| {
            c.uart.chip.depth = FifoDepth::Sixteen;
            for _ in 0..17 {
                assert!(c.uart.tx.push(Symbol::Byte(0)));
            }
        }),
        ("transmitter reported empty while it holds bytes", |c| {
            c.fill();
            c.uart.thre_pending = true;
        }),
        ("time-out of an empty receiver", |c| {
            c.uart.timeout_pending = true;
        }),
        ("time-out delay does not fit the receiver", |c| {
            c.uart.deadline = Some(1);
        }),
        ("break to come on a line that is not spacing", |c| {
            c.uart.break_due = Some(1);
        }),
        ("RTS held without automatic flow control", |c| {
            c.send([1]);
            c.uart.rts_held = true;
        }),
        ("RTS not held at the trigger level", |c| {
            c.send([1]);
            c.uart.mcr = mcr::AFE | mcr::RTS;
        }),
        ("CTS change noted under automatic flow control", |c| {
            c.uart.mcr = mcr::AFE;
            c.uart.deltas = msr::DELTA_CTS;
        }),
        ("break at the top of the FIFO not shown", |c| {
            assert!(c.uart.rx.push(Symbol::Break));
            c.uart.deadline = Some(1);
        }),
        (
            "bytes wait in the transmitter though they could leave",
            |c| {
                c.uart.thre_pending = false;
                assert!(c.uart.tx.push(Symbol::Byte(0)));
            },
        ),
        (
            "bytes wait at the far end though the receiver has room",
            |c| {
                assert!(c.uart.far.receive(Symbol::Byte(0)));
            },
        ),
    ];
    for (rule, breakage) in breakages {
        let mut chip = Chip::with_long_fifos();
        assert_eq!(chip.uart.broken_rule(), None);
        breakage(&mut chip);
        assert_eq!(chip.uart.broken_rule(), Some(rule));
    }
}
