// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Word lengths, errors, break.

use super::*;

#[test]
fn word_length_masks_the_data() {
    for (code, mask) in [(0, 0x1f), (1, 0x3f), (2, 0x7f), (3, 0xff)] {
        for looped in [0, mcr::LOOP] {
            let mut chip = Chip::ready();
            chip.write(offset::LCR, code);
            chip.write(offset::MCR, looped);
            for byte in [0xff, 0xa5, 0x5a, 0x80] {
                chip.send([byte]);
                assert_eq!(chip.drain(), [byte & mask]);
            }
        }
    }
}

#[test]
fn a_shorter_word_cuts_what_is_received_and_leaves_what_was_received() {
    let mut chip = Chip::with_fifos();
    chip.send([0xff; 17]);
    chip.write(offset::LCR, 0x00);
    let back = chip.drain();
    assert_eq!(back[..16], [0xff; 16]);
    assert_eq!(back[16], 0x1f);
}

#[test]
fn overrun_without_fifos_destroys_the_byte_that_was_not_read() {
    let mut chip = Chip::ready().looped();
    chip.send([1, 2]);
    assert_eq!(chip.read(offset::LSR), 0x63);
    assert_eq!(chip.read(offset::LSR), 0x61);
    assert_eq!(chip.drain(), [2]);
}

#[test]
fn overrun_with_fifos_loses_the_new_byte() {
    for (chip, room) in [(Chip::with_fifos(), 16), (Chip::with_long_fifos(), 64)] {
        let mut chip = chip.looped();
        chip.send(0..room);
        assert_eq!(chip.read(offset::LSR), 0x61);
        chip.send([0xee]);
        // An overrun belongs to no byte in the FIFO, so bit 7 stays clear.
        assert_eq!(chip.read(offset::LSR), 0x63);
        assert_eq!(chip.read(offset::LSR), 0x61);
        assert!(chip.drain().into_iter().eq(0..room));
    }
}

#[test]
fn there_is_no_overrun_from_the_far_end() {
    let mut chip = Chip::with_fifos();
    chip.fill();
    assert_eq!(chip.read(offset::LSR) & lsr::ERRORS, 0);
}

#[test]
fn a_break_comes_back_as_a_zero_byte_with_its_indication() {
    for mut chip in [Chip::ready(), Chip::with_fifos()] {
        let in_fifo = if chip.uart.fifos_enabled() { 0x80 } else { 0 };
        chip.write(offset::IER, ier::RLS);
        chip.send_break();
        assert_eq!(chip.iir() & 0x0f, iir::RLS);
        assert_eq!(chip.read(offset::LSR), 0x79 | in_fifo);
        // Reading LSR cleared it, and the byte is left.
        assert_eq!(chip.read(offset::LSR), 0x61);
        assert_eq!(chip.iir() & 0x0f, iir::NONE);
        assert_eq!(chip.read(offset::DATA), 0);
        assert_eq!(chip.read(offset::LSR), 0x60);
    }
}

#[test]
fn a_break_must_last_for_a_character() {
    let character = timeout::break_ns(12, 0x03);
    let mut chip = Chip::ready();
    chip.write(offset::LCR, 0x03 | lcr::BREAK);
    chip.pass(character - 1);
    chip.write(offset::LCR, 0x03);
    chip.pass(character);
    assert_eq!(chip.read(offset::LSR), 0x60);

    // It is seen while it lasts, and is one break however long that is.
    chip.write(offset::LCR, 0x03 | lcr::BREAK);
    chip.pass(character);
    assert_eq!(chip.read(offset::LSR), 0x79);
    chip.read(offset::DATA);
    chip.pass(100 * character);
    // Writing the bit again does not start another.
    chip.write(offset::LCR, 0x03 | lcr::BREAK);
    chip.pass(100 * character);
    assert_eq!(chip.read(offset::LSR), 0x60);
}

#[test]
fn a_break_keeps_its_place_among_the_bytes() {
    let mut chip = Chip::with_fifos();
    chip.send([1, 2]);
    chip.send_break();
    chip.send([3, 4]);
    // The FIFO holds an error, but not at its top.
    assert_eq!(chip.read(offset::LSR), 0xe1);
    assert_eq!(chip.read(offset::LSR), 0xe1);
    assert_eq!(chip.read(offset::DATA), 1);
    assert_eq!(chip.read(offset::DATA), 2);
    assert_eq!(chip.read(offset::LSR), 0xf9);
    assert_eq!(chip.read(offset::LSR), 0x61);
    assert_eq!(chip.drain(), [0, 3, 4]);
}

#[test]
fn bytes_sent_during_a_break_are_not_lost() {
    let mut chip = Chip::with_fifos();
    chip.write(offset::LCR, 0x03 | lcr::BREAK);
    chip.send([1]);
    chip.pass(timeout::MAX_DELAY_NS);
    chip.send([2]);
    chip.write(offset::LCR, 0x03);
    assert_eq!(chip.drain(), [1, 0, 2]);
}

#[test]
fn bit_7_stays_while_a_further_error_waits_in_the_fifo() {
    let mut chip = Chip::with_fifos();
    for _ in 0..2 {
        chip.send_break();
        chip.send([1]);
    }
    assert_eq!(chip.read(offset::LSR), 0xf9);
    assert_eq!(chip.read(offset::LSR), 0xe1);
    assert_eq!([chip.read(offset::DATA), chip.read(offset::DATA)], [0, 1]);
    assert_eq!(chip.read(offset::LSR), 0xf9);
    assert_eq!(chip.read(offset::LSR), 0x61);
}

#[test]
fn a_break_waits_at_the_far_end_like_a_byte() {
    let mut chip = Chip::with_fifos();
    chip.send(0..20);
    chip.send_break();
    chip.send([21]);
    for byte in 0..20 {
        assert_eq!(chip.read(offset::LSR) & lsr::BI, 0);
        assert_eq!(chip.read(offset::DATA), byte);
    }
    assert_eq!(chip.read(offset::LSR), 0xf9);
    assert_eq!(chip.drain(), [0, 21]);
}

#[test]
fn a_full_far_end_takes_no_notice_of_a_break() {
    let mut chip = Chip::with_fifos();
    let sent = chip.fill();
    chip.send_break();
    let back = chip.drain();
    assert_eq!(back.len(), sent);
}

#[test]
fn a_break_acts_on_the_output_only_which_loop_mode_disconnects() {
    let mut chip = Chip::with_fifos().looped();
    chip.write(offset::LCR, 0x03 | lcr::BREAK);
    chip.pass(timeout::MAX_DELAY_NS);
    assert_eq!(chip.read(offset::LSR), 0x60);
    chip.send([9]);
    assert_eq!(chip.drain(), [9]);
    // It starts when the output is connected again.
    chip.write(offset::MCR, 0);
    assert_eq!(chip.read(offset::LSR), 0x60);
    chip.pass(timeout::break_ns(12, 0x03));
    assert_eq!(chip.read(offset::LSR), 0xf9);
}

#[test]
fn a_break_that_comes_at_the_last_moment_restarts_the_time_out() {
    let character = timeout::break_ns(12, 0x03);
    let delay = timeout::delay_ns(12, 0x03);
    let mut chip = Chip::with_fifos();
    chip.send([1]);
    chip.pass(delay - character);
    chip.write(offset::LCR, 0x03 | lcr::BREAK);
    chip.pass(character);
    assert_eq!(chip.uart.rx.len(), 2);
    assert!(!chip.uart.timeout_pending);
    chip.pass(delay);
    assert!(chip.uart.timeout_pending);
}
