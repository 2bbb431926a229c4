// SPDX-License-Identifier: GPL-2.0 OR MIT

//! FIFOs on, off, reset, full; and what waits where.

use super::*;

#[test]
fn what_is_sent_comes_back_in_order() {
    for mut chip in [Chip::ready(), Chip::with_fifos(), Chip::with_long_fifos()] {
        let mut back = Vec::new();
        for byte in 0..=255 {
            chip.write(offset::DATA, byte);
            back.extend(chip.drain());
        }
        assert!(back.into_iter().eq(0..=255));
    }
}

#[test]
fn a_full_receiver_makes_the_far_end_wait_and_a_full_far_end_the_transmitter() {
    for (mut chip, fifo) in [
        (Chip::ready(), 1),
        (Chip::with_fifos(), 16),
        (Chip::with_long_fifos(), 64),
    ] {
        for i in 0..fifo + FAR_END_BYTES {
            chip.write(offset::DATA, i as u8);
            assert_eq!(chip.read(offset::LSR), 0x61, "after {i}");
        }
        assert_eq!(chip.uart.rx.len(), fifo);
        assert!(chip.uart.far.is_full());
        for i in 0..fifo {
            chip.write(offset::DATA, (fifo + FAR_END_BYTES + i) as u8);
            // Neither THRE nor TEMT.
            assert_eq!(chip.read(offset::LSR), 0x01, "after {i} more");
        }
        assert_eq!(chip.uart.tx.len(), fifo);

        // One byte read lets one byte move at every station, but the transmitter is not yet empty.
        assert_eq!(chip.read(offset::DATA), 0);
        assert_eq!(chip.uart.tx.len(), fifo - 1);
        let empty = if fifo == 1 { 0x60 } else { 0 };
        assert_eq!(chip.read(offset::LSR), 0x01 | empty);

        let back = chip.drain();
        let expected: Vec<u8> = (1..2 * fifo + FAR_END_BYTES).map(|i| i as u8).collect();
        assert_eq!(back, expected);
        assert_eq!(chip.read(offset::LSR), 0x60);
    }
}

#[test]
fn a_byte_for_a_full_fifo_is_lost_and_the_others_are_not() {
    let mut chip = Chip::with_fifos();
    let sent = chip.fill();
    chip.write(offset::DATA, 0xee);
    let back = chip.drain();
    assert_eq!(back.len(), sent);
    assert!(back.iter().enumerate().all(|(i, &byte)| byte == i as u8));
}

#[test]
fn a_byte_for_a_holding_register_in_use_replaces_it() {
    let mut chip = Chip::ready();
    let sent = chip.fill();
    chip.write(offset::DATA, 0xee);
    let back = chip.drain();
    assert_eq!(back.len(), sent);
    assert_eq!(back.last(), Some(&0xee));
}

#[test]
fn an_empty_receiver_reads_as_zero() {
    for mut chip in [Chip::ready(), Chip::with_fifos()] {
        chip.send([7]);
        assert_eq!(chip.read(offset::DATA), 7);
        assert_eq!(chip.read(offset::DATA), 0);
    }
}

#[test]
fn switching_fifos_on_and_off_empties_them_but_not_the_far_end() {
    let mut chip = Chip::with_fifos();
    chip.fill();
    chip.write(offset::IIR_FCR, 0);
    // 0..16 was in the receiver; 16 is the first of the far end's, 272.. were in the transmitter.
    let back = chip.drain();
    let expected: Vec<u8> = (16..16 + FAR_END_BYTES).map(|i| i as u8).collect();
    assert_eq!(back, expected);

    chip.fill();
    chip.write(offset::IIR_FCR, fcr::ENABLE);
    let expected: Vec<u8> = (1..1 + FAR_END_BYTES).map(|i| i as u8).collect();
    assert_eq!(chip.drain(), expected);
}

#[test]
fn each_fifo_can_be_reset_alone() {
    let mut chip = Chip::with_fifos();
    chip.fill();
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::RESET_TX);
    assert_eq!(chip.read(offset::LSR), 0x61);
    assert_eq!(chip.drain().len(), 16 + FAR_END_BYTES);

    chip.fill();
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::RESET_RX);
    let back = chip.drain();
    assert_eq!(back.len(), FAR_END_BYTES + 16);
    assert_eq!(back[0], 16);
}

#[test]
fn resets_do_not_stick() {
    let mut chip = Chip::with_fifos();
    let all = fcr::ENABLE | fcr::RESET_RX | fcr::RESET_TX;
    chip.write(offset::IIR_FCR, all);
    chip.send([1, 2, 3]);
    assert_eq!(chip.drain(), [1, 2, 3]);
}

#[test]
fn other_bits_are_not_programmed_without_the_enable_bit() {
    let mut chip = Chip::ready();
    chip.send([5]);
    // Resets the receiver, if anything.
    chip.write(offset::IIR_FCR, fcr::RESET_RX | fcr::TRIGGER | fcr::DMA);
    assert_eq!(chip.uart.fcr, 0);
    assert_eq!(chip.drain(), [5]);
}

#[test]
fn trigger_levels_are_those_of_the_mode() {
    for (make, levels) in [
        (Chip::with_fifos as fn() -> Chip, [1, 4, 8, 14]),
        (Chip::with_long_fifos, [1, 16, 32, 56]),
    ] {
        for (code, level) in levels.into_iter().enumerate() {
            let mut chip = make();
            chip.write(offset::IIR_FCR, fcr::ENABLE | ((code as u8) << 6));
            chip.write(offset::IER, ier::RDA);
            for sent in 1..=16.max(level) {
                chip.send([sent]);
                let expected = if sent < level { iir::NONE } else { iir::RDA };
                assert_eq!(chip.iir() & 0x0f, expected, "{sent} of {level}");
                assert_eq!(chip.uart.interrupting(), sent >= level);
            }
            // The request goes away as soon as the level is not met.
            while chip.uart.rx.len() >= usize::from(level) {
                assert_eq!(chip.iir() & 0x0f, iir::RDA);
                chip.read(offset::DATA);
            }
            assert_eq!(chip.iir() & 0x0f, iir::NONE);
        }
    }
}

#[test]
fn iir_shows_the_fifo_mode() {
    let mut chip = Chip::ready();
    assert_eq!(chip.iir(), 0x01);
    chip.write(offset::IIR_FCR, fcr::ENABLE);
    assert_eq!(chip.iir(), 0xc1);
    assert_eq!(Chip::with_long_fifos().iir(), 0xe1);
}

#[test]
fn the_64_byte_bit_is_locked_without_dlab() {
    let mut chip = Chip::new(FifoDepth::SixtyFour);
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::FIFO64);
    assert_eq!(chip.iir(), 0xc1);
    chip.write(offset::LCR, lcr::DLAB);
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::FIFO64);
    assert_eq!(chip.iir(), 0xe1);
    // Neither cleared nor set without DLAB, even while the FIFOs are off.
    chip.write(offset::LCR, 0);
    chip.write(offset::IIR_FCR, fcr::ENABLE);
    assert_eq!(chip.iir(), 0xe1);
    chip.write(offset::IIR_FCR, 0);
    assert_eq!(chip.iir(), 0x01);
    chip.write(offset::IIR_FCR, fcr::ENABLE);
    assert_eq!(chip.iir(), 0xe1);
    chip.write(offset::LCR, lcr::DLAB);
    chip.write(offset::IIR_FCR, 0);
    chip.write(offset::LCR, 0);
    chip.write(offset::IIR_FCR, fcr::ENABLE);
    assert_eq!(chip.iir(), 0xc1);
}

#[test]
fn a_16550a_has_no_64_byte_bit() {
    let mut chip = Chip::new(FifoDepth::Sixteen);
    chip.write(offset::LCR, lcr::DLAB);
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::FIFO64);
    assert_eq!(chip.iir(), 0xc1);
    chip.write(offset::LCR, 0x03);
    chip.fill();
    assert_eq!(chip.uart.tx.len(), 16);
}

#[test]
fn switching_to_16_bytes_keeps_what_64_held() {
    let mut chip = Chip::with_long_fifos();
    let sent = chip.fill();
    chip.write(offset::LCR, lcr::DLAB);
    chip.write(offset::IIR_FCR, fcr::ENABLE);
    chip.write(offset::LCR, 0x03);
    assert_eq!(chip.uart.rx.len(), 64);
    chip.write(offset::DATA, 0xee);
    let back = chip.drain();
    assert_eq!(back.len(), sent);
    assert!(back.iter().enumerate().all(|(i, &byte)| byte == i as u8));
}

#[test]
fn time_out_comes_four_characters_after_the_last_byte_came_or_was_read() {
    let delay = timeout::delay_ns(12, 0x03);
    let mut chip = Chip::with_fifos();
    chip.write(offset::IIR_FCR, fcr::ENABLE | 0xc0);
    chip.write(offset::IER, ier::RDA);
    chip.send([1, 2]);
    chip.pass(delay - 1);
    chip.send([3]);
    chip.pass(delay - 1);
    assert_eq!(chip.iir(), 0xc1);
    assert_eq!(chip.read(offset::DATA), 1);
    chip.pass(delay - 1);
    assert_eq!(chip.iir(), 0xc1);
    chip.pass(1);
    assert!(chip.uart.interrupting());
    assert_eq!(chip.iir(), 0xcc);
    // IIR does not clear it, the next byte does, and starts the time anew.
    assert_eq!(chip.iir(), 0xcc);
    assert_eq!(chip.read(offset::DATA), 2);
    assert_eq!(chip.iir(), 0xc1);
    chip.pass(delay);
    assert_eq!(chip.iir(), 0xcc);
    assert_eq!(chip.read(offset::DATA), 3);
    assert_eq!(chip.uart.deadline, None);
    chip.pass(10 * delay);
    assert_eq!(chip.iir(), 0xc1);
}

#[test]
fn a_byte_that_comes_during_a_time_out_does_not_clear_it() {
    let mut chip = Chip::with_fifos();
    chip.write(offset::IIR_FCR, fcr::ENABLE | 0xc0);
    chip.write(offset::IER, ier::RDA);
    chip.send([1]);
    chip.pass(timeout::MAX_DELAY_NS);
    chip.send([2]);
    assert_eq!(chip.iir(), 0xcc);
    assert_eq!(chip.uart.deadline, None);
}

#[test]
fn time_out_is_not_reported_unless_enabled() {
    let mut chip = Chip::with_fifos();
    chip.write(offset::IIR_FCR, fcr::ENABLE | 0xc0);
    chip.send([1]);
    chip.pass(timeout::MAX_DELAY_NS);
    assert_eq!(chip.iir(), 0xc1);
    chip.write(offset::IER, ier::RDA);
    assert_eq!(chip.iir(), 0xcc);
}

#[test]
fn without_fifos_there_is_no_time_out() {
    let mut chip = Chip::ready();
    chip.send([1]);
    assert_eq!(chip.uart.deadline, None);
}

#[test]
fn a_receiver_reset_takes_the_time_out_along() {
    let mut chip = Chip::with_fifos();
    chip.write(offset::IIR_FCR, fcr::ENABLE | 0xc0);
    chip.write(offset::IER, ier::RDA);
    chip.send([1]);
    chip.pass(timeout::MAX_DELAY_NS);
    chip.write(offset::IIR_FCR, fcr::ENABLE | fcr::RESET_RX | 0xc0);
    assert_eq!(chip.iir(), 0xc1);
    assert_eq!(chip.uart.deadline, None);
}

#[test]
fn a_divisor_of_zero_still_has_a_time_out() {
    let mut chip = Chip::with_fifos();
    chip.write(offset::LCR, lcr::DLAB | 0x03);
    chip.write(0, 0);
    chip.write(1, 0);
    chip.write(offset::LCR, 0x03);
    chip.send([1]);
    assert_eq!(chip.uart.deadline, Some(timeout::delay_ns(1, 0x03)));
}
