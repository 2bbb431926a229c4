// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which interrupt is reported, and what ends it.

use super::*;

/// A chip with every kind of interrupt pending: line status, time-out, transmitter, modem status.
fn everything_pending() -> Chip {
    let mut chip = Chip::with_fifos().looped();
    chip.write(offset::IIR_FCR, fcr::ENABLE | 0xc0);
    chip.send(0..17);
    chip.write(offset::MCR, mcr::LOOP | mcr::DTR);
    chip.pass(timeout::MAX_DELAY_NS);
    chip
}

#[test]
fn the_highest_priority_is_reported_first() {
    let mut chip = everything_pending();
    chip.write(offset::IER, 0x0f);
    assert_eq!(chip.iir(), 0xc6);
    assert_eq!(chip.iir(), 0xc6);
    assert_eq!(chip.read(offset::LSR), 0x63);
    assert_eq!(chip.iir(), 0xcc);
    // The time-out ends with the first byte, the trigger level of 14 holds for two more.
    chip.read(offset::DATA);
    assert_eq!(chip.iir(), 0xc4);
    chip.read(offset::DATA);
    assert_eq!(chip.iir(), 0xc4);
    chip.read(offset::DATA);
    assert_eq!(chip.iir(), 0xc2);
    assert_eq!(chip.iir(), 0xc0);
    assert_eq!(chip.read(offset::MSR), msr::DSR | 0x02);
    assert_eq!(chip.iir(), 0xc1);
    assert!(!chip.uart.interrupting());
}

#[test]
fn each_enable_bit_governs_its_own_kind() {
    for (enable, reported) in [
        (0, 0xc1),
        (ier::RDA, 0xcc),
        (ier::THRE, 0xc2),
        (ier::RLS, 0xc6),
        (ier::MS, 0xc0),
    ] {
        let mut chip = everything_pending();
        chip.write(offset::IER, enable);
        assert_eq!(chip.uart.interrupting(), enable != 0);
        assert_eq!(chip.iir(), reported, "IER {enable:#x}");
    }
}

#[test]
fn without_fifos_one_byte_is_received_data() {
    let mut chip = Chip::ready();
    chip.write(offset::IER, ier::RDA);
    chip.send([1]);
    assert_eq!(chip.iir(), iir::RDA);
    chip.read(offset::DATA);
    assert_eq!(chip.iir(), iir::NONE);
}

#[test]
fn an_empty_transmitter_is_reported_once() {
    let mut chip = Chip::ready();
    chip.write(offset::IER, ier::THRE);
    assert_eq!(chip.iir(), iir::THRE);
    assert_eq!(chip.iir(), iir::NONE);
    chip.send([1]);
    assert!(chip.uart.interrupting());
    assert_eq!(chip.iir(), iir::THRE);
    assert!(!chip.uart.interrupting());
}

#[test]
fn reading_iir_clears_an_empty_transmitter_only_if_it_was_reported() {
    let mut chip = Chip::ready();
    chip.write(offset::IER, ier::THRE | ier::RDA);
    chip.send([1]);
    assert_eq!(chip.iir(), iir::RDA);
    chip.read(offset::DATA);
    assert_eq!(chip.iir(), iir::THRE);
}

#[test]
fn a_transmitter_that_is_held_back_is_reported_when_its_last_byte_left() {
    let mut chip = Chip::with_fifos();
    chip.fill();
    chip.write(offset::IER, ier::THRE);
    assert_eq!(chip.iir(), 0xc1);
    for _ in 0..15 {
        chip.read(offset::DATA);
        assert_eq!(chip.iir(), 0xc1);
    }
    chip.read(offset::DATA);
    assert_eq!(chip.iir(), 0xc2);
}

#[test]
fn enabling_an_interrupt_that_is_enabled_raises_nothing() {
    let mut chip = Chip::ready();
    chip.write(offset::IER, ier::THRE);
    assert_eq!(chip.iir(), iir::THRE);
    chip.write(offset::IER, ier::THRE | ier::MS);
    assert_eq!(chip.iir(), iir::NONE);
    chip.write(offset::IER, 0);
    chip.write(offset::IER, ier::THRE);
    assert_eq!(chip.iir(), iir::THRE);
}

#[test]
fn emptying_the_transmitter_by_a_reset_is_reported() {
    let mut chip = Chip::with_fifos();
    chip.fill();
    chip.write(offset::IER, ier::THRE);
    assert_eq!(chip.iir(), 0xc1);
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::RESET_TX);
    assert_eq!(chip.iir(), 0xc2);
    // There was nothing to empty now.
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::RESET_TX);
    assert_eq!(chip.iir(), 0xc1);
}

#[test]
fn switching_the_fifos_reports_an_empty_transmitter_at_once() {
    let mut chip = Chip::ready();
    chip.write(offset::IER, ier::THRE);
    assert_eq!(chip.iir(), 0x02);
    chip.write(offset::IIR_FCR, fcr::ENABLE);
    assert_eq!(chip.iir(), 0xc2);
    chip.write(offset::IIR_FCR, 0);
    assert_eq!(chip.iir(), 0x02);
}

#[test]
fn out2_does_not_gate_the_interrupt() {
    for out2 in [0, mcr::OUT2] {
        let mut chip = Chip::ready();
        chip.write(offset::MCR, out2);
        chip.write(offset::IER, ier::THRE);
        assert!(chip.uart.interrupting());
    }
}
