// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Modem lines, loop mode, automatic flow control.

use super::*;

#[test]
fn the_plug_answers_rts_with_cts_and_dtr_with_dsr_and_dcd() {
    let mut chip = Chip::ready();
    for (outputs, inputs) in [
        (mcr::RTS, msr::CTS | 0x01),
        (mcr::RTS | mcr::DTR, msr::CTS | msr::DSR | msr::DCD | 0x0a),
        (mcr::DTR, msr::DSR | msr::DCD | 0x01),
        (mcr::OUT1 | mcr::OUT2, 0x0a),
    ] {
        chip.write(offset::MCR, outputs);
        assert_eq!(chip.read(offset::MSR), inputs, "MCR {outputs:#x}");
        assert_eq!(chip.read(offset::MSR), inputs & 0xf0);
    }
}

#[test]
fn changes_are_collected_until_they_are_read() {
    let mut chip = Chip::ready();
    chip.write(offset::IER, ier::MS);
    chip.write(offset::MCR, mcr::RTS);
    chip.write(offset::MCR, 0);
    assert_eq!(chip.iir(), iir::MS);
    assert_eq!(chip.iir(), iir::MS);
    assert_eq!(chip.read(offset::MSR), 0x01);
    assert_eq!(chip.iir(), iir::NONE);
}

#[test]
fn loop_mode_connects_the_four_outputs_to_the_four_inputs() {
    for outputs in 0..16u8 {
        let mut chip = Chip::ready();
        chip.write(offset::MCR, mcr::LOOP | outputs);
        let expected = [
            (mcr::RTS, msr::CTS),
            (mcr::DTR, msr::DSR),
            (mcr::OUT1, msr::RI),
            (mcr::OUT2, msr::DCD),
        ]
        .iter()
        .filter(|(output, _)| outputs & output != 0)
        .fold(0, |all, (_, input)| all | input);
        assert_eq!(chip.read(offset::MSR) & 0xf0, expected);
    }
}

#[test]
fn only_the_trailing_edge_of_ring_counts() {
    let mut chip = Chip::ready().looped();
    chip.write(offset::MCR, mcr::LOOP | mcr::OUT1);
    assert_eq!(chip.read(offset::MSR), msr::RI);
    chip.write(offset::MCR, mcr::LOOP);
    assert_eq!(chip.read(offset::MSR), msr::TERI);
    assert_eq!(chip.read(offset::MSR), 0);
    // The plug never rings, so leaving loop mode is a trailing edge too.
    chip.write(offset::MCR, mcr::LOOP | mcr::OUT1);
    chip.write(offset::MCR, mcr::OUT1);
    assert_eq!(chip.read(offset::MSR), msr::TERI);
}

#[test]
fn modem_interrupts_work_in_loop_mode() {
    let mut chip = Chip::ready().looped();
    chip.write(offset::IER, ier::MS);
    for (output, delta) in [(mcr::RTS, 0x11), (mcr::DTR, 0x22), (mcr::OUT2, 0x88)] {
        chip.write(offset::MCR, mcr::LOOP | output);
        assert_eq!(chip.iir(), iir::MS);
        assert_eq!(chip.read(offset::MSR), delta);
        chip.write(offset::MCR, mcr::LOOP);
        assert_eq!(chip.read(offset::MSR), delta & 0x0f);
        assert_eq!(chip.iir(), iir::NONE);
    }
}

#[test]
fn in_loop_mode_nothing_reaches_the_far_end_and_nothing_comes_from_there() {
    let mut chip = Chip::with_fifos();
    chip.send(0..20);
    chip.write(offset::MCR, mcr::LOOP);
    assert_eq!(chip.drain().len(), 16);
    chip.send([0x55]);
    assert_eq!(chip.drain(), [0x55]);
    assert_eq!(chip.uart.far.len(), 4);
    // What waited there comes when the line is connected again.
    chip.write(offset::MCR, 0);
    assert_eq!(chip.drain(), [16, 17, 18, 19]);
}

#[test]
fn bytes_that_the_transmitter_held_go_to_its_own_receiver_in_loop_mode() {
    let mut chip = Chip::with_fifos();
    chip.fill();
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::RESET_RX);
    // The far end refilled the receiver, and the transmitter the far end: it is empty.
    chip.send(100..116);
    assert_eq!(chip.uart.tx.len(), 16);
    for _ in 0..10 {
        chip.write(offset::MCR, 0);
    }
    chip.write(offset::MCR, mcr::LOOP);
    assert!(chip.uart.tx.is_empty());
    // The receiver was full: every byte overran.
    assert_eq!(chip.read(offset::LSR), 0x63);
    assert!(chip.drain().into_iter().eq(16..32));
}

mod automatic {
    use super::*;

    /// 64-byte FIFOs, automatic RTS and CTS, trigger level 16.
    fn chip() -> Chip {
        let mut chip = Chip::with_long_fifos();
        chip.write(offset::IIR_FCR, fcr::ENABLE | 0x40);
        chip.write(offset::MCR, mcr::AFE | mcr::RTS);
        chip
    }

    #[test]
    fn the_transmitter_stops_at_the_receivers_trigger_level_until_it_is_empty() {
        let mut chip = chip();
        chip.send(0..20);
        assert_eq!(chip.uart.rx.len(), 16);
        assert_eq!(chip.read(offset::LSR), 0x01);
        // RTS is inactive, so the plug's CTS is too. It is no news for the CPU.
        assert_eq!(chip.read(offset::MSR), 0);
        for byte in 0..15 {
            assert_eq!(chip.read(offset::DATA), byte);
        }
        assert_eq!(chip.uart.tx.len(), 4);
        assert_eq!(chip.read(offset::DATA), 15);
        assert_eq!(chip.uart.tx.len(), 0);
        assert_eq!(chip.read(offset::MSR), msr::CTS);
        assert!(chip.drain().into_iter().eq(16..20));
    }

    #[test]
    fn without_rts_the_plug_gives_no_cts_and_nothing_leaves() {
        let mut chip = chip();
        chip.write(offset::MCR, mcr::AFE);
        chip.send([1, 2]);
        assert_eq!(chip.read(offset::LSR), 0x00);
        chip.write(offset::MCR, mcr::AFE | mcr::RTS);
        assert_eq!(chip.read(offset::LSR), 0x61);
        assert_eq!(chip.drain(), [1, 2]);
    }

    #[test]
    fn switching_it_off_releases_the_transmitter() {
        let mut chip = chip();
        chip.send(0..20);
        chip.write(offset::MCR, mcr::RTS);
        assert_eq!(chip.read(offset::LSR), 0x61);
        assert!(chip.drain().into_iter().eq(0..20));
    }

    #[test]
    fn changes_of_cts_are_not_reported() {
        let mut chip = chip();
        chip.read(offset::MSR);
        chip.write(offset::IER, ier::MS);
        chip.write(offset::MCR, mcr::AFE);
        chip.write(offset::MCR, mcr::AFE | mcr::RTS);
        assert_eq!(chip.iir(), 0xe1);
        // The other lines still are.
        chip.write(offset::MCR, mcr::AFE | mcr::RTS | mcr::DTR);
        assert_eq!(chip.iir(), 0xe0);
    }

    #[test]
    fn it_works_inside_the_chip_in_loop_mode() {
        let mut chip = chip();
        chip.write(offset::MCR, mcr::AFE | mcr::RTS | mcr::LOOP);
        chip.send(0..70);
        // Sixteen received, the rest held: no overrun.
        assert_eq!(chip.read(offset::LSR), 0x01);
        assert_eq!(chip.uart.rx.len(), 16);
        assert_eq!(chip.uart.tx.len(), 54);
        assert!(chip.drain().into_iter().eq(0..70));
    }

    #[test]
    fn a_16750_can_be_without() {
        let mut chip = Chip::with_long_fifos();
        chip.uart.chip.auto_flow = false;
        chip.write(offset::MCR, mcr::AFE | mcr::RTS);
        assert_eq!(chip.read(offset::MCR), mcr::RTS);
        // It is a 16750 in everything else: nothing holds the transmitter, and RTS stays.
        chip.send(0..20);
        assert_eq!(chip.read(offset::LSR), 0x61);
        assert_eq!(chip.read(offset::MSR) & msr::CTS, msr::CTS);
        assert_eq!(chip.iir(), 0xe1);
        assert!(chip.drain().into_iter().eq(0..20));
    }

    #[test]
    fn a_16550a_has_none() {
        let mut chip = Chip::with_fifos();
        chip.write(offset::MCR, mcr::AFE);
        chip.send([1]);
        assert_eq!(chip.drain(), [1]);
    }
}
