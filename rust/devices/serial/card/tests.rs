// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Ports behind one function: decoding, interrupts, time.

use super::*;
use crate::serial::registers::{fcr, ier, lcr, offset};
use crate::serial::FifoDepth;
use crate::serial::{timeout, PortCount};

const MSI_CONTROL: u16 = 0x42;

fn card(ports: PortCount, msi: bool) -> Card {
    let mut card = Card::new(Config {
        ports,
        fifo_depth: FifoDepth::Sixteen,
        auto_flow: true,
        msi,
        compact_state: false,
    });
    for port in 0..u16::from(ports.get()) {
        write(&mut card, port, offset::LCR, 0x03);
    }
    card
}

fn write(card: &mut Card, port: u16, register: u8, value: u8) {
    card.write_bar0(port * 8 + u16::from(register), &[value]);
}

fn read(card: &mut Card, port: u16, register: u8) -> u8 {
    let mut data = [0xaa];
    card.read_bar0(port * 8 + u16::from(register), &mut data);
    data[0]
}

/// Bit 3 of the status register.
fn interrupt_status(card: &mut Card) -> bool {
    let mut status = [0];
    card.read_config(0x06, &mut status);
    status[0] & 0x08 != 0
}

fn set_command(card: &mut Card, command: u16) {
    card.write_config(0x04, &command.to_le_bytes());
}

fn raise(card: &mut Card, port: u16) {
    write(card, port, offset::IER, ier::THRE);
}

fn lower(card: &mut Card, port: u16) {
    write(card, port, offset::IER, 0);
}

#[test]
fn a_card_takes_two_and_a_half_kibibytes_at_most() {
    assert!(core::mem::size_of::<Card>() <= 2560);
}

#[test]
fn each_port_has_its_own_eight_registers_and_far_end() {
    let mut card = card(PortCount::Four, false);
    for port in 0..4 {
        write(&mut card, port, offset::SCR, 0x40 + port as u8);
        write(&mut card, port, offset::DATA, 0x80 + port as u8);
    }
    for port in 0..4 {
        assert_eq!(read(&mut card, port, offset::SCR), 0x40 + port as u8);
        assert_eq!(read(&mut card, port, offset::DATA), 0x80 + port as u8);
        assert_eq!(read(&mut card, port, offset::LSR), 0x60);
    }
}

#[test]
fn nothing_answers_beyond_the_bar() {
    for ports in PortCount::ALL {
        let mut card = card(ports, false);
        let size = ports.bar_size();
        for offset in [size, size + 7, 0x100, u16::MAX] {
            let mut data = [0; 4];
            card.write_bar0(offset, &[0x55; 4]);
            card.read_bar0(offset, &mut data);
            assert_eq!(data, [0xff; 4]);
        }
        // An access over the end reaches what is before it.
        card.write_bar0(size - 1, &[0x12, 0x34]);
        let mut data = [0; 2];
        card.read_bar0(size - 1, &mut data);
        assert_eq!(data, [0x12, 0xff]);
    }
}

#[test]
fn a_wide_access_is_one_byte_access_after_the_other() {
    let mut wide = card(PortCount::Two, false);
    let mut narrow = wide.clone();
    // THR, IER, FCR, LCR of the first port; then all of the second.
    let values = [0x11, 0x02, 0x01, 0x03];
    wide.write_bar0(0, &values);
    wide.write_bar0(8, &[0x22, 0x0f, 0xc1, 0x03, 0x03, 0x00, 0x00, 0x77]);
    for (at, value) in (0..).zip(values) {
        narrow.write_bar0(at, &[value]);
    }
    for (at, value) in (8..).zip([0x22, 0x0f, 0xc1, 0x03, 0x03, 0x00, 0x00, 0x77]) {
        narrow.write_bar0(at, &[value]);
    }
    for _ in 0..3 {
        let mut data = [0; 16];
        wide.read_bar0(0, &mut data);
        for (at, value) in (0..).zip(data) {
            let mut byte = [0];
            narrow.read_bar0(at, &mut byte);
            assert_eq!(byte, [value], "register {at:#x}");
        }
    }
}

#[test]
fn registers_answer_whatever_the_command_register_says() {
    let mut card = card(PortCount::One, false);
    set_command(&mut card, 0);
    write(&mut card, 0, offset::SCR, 0x33);
    assert_eq!(read(&mut card, 0, offset::SCR), 0x33);
}

#[test]
fn intx_is_the_or_of_all_ports() {
    let mut card = card(PortCount::Four, true);
    for port in 0..4 {
        assert!(!card.intx_asserted() && !interrupt_status(&mut card));
        raise(&mut card, port);
        assert!(card.intx_asserted() && interrupt_status(&mut card));
        raise(&mut card, (port + 1) % 4);
        lower(&mut card, port);
        assert!(card.intx_asserted());
        lower(&mut card, (port + 1) % 4);
    }
    assert!(!card.intx_asserted());
}

#[test]
fn interrupt_disable_holds_the_pin_and_not_the_status() {
    let mut card = card(PortCount::One, false);
    raise(&mut card, 0);
    set_command(&mut card, 0x0400);
    assert!(!card.intx_asserted());
    assert!(interrupt_status(&mut card));
    set_command(&mut card, 0);
    assert!(card.intx_asserted());
}

#[test]
fn enabling_msi_takes_the_pin_away() {
    let mut card = card(PortCount::One, true);
    raise(&mut card, 0);
    card.write_config(MSI_CONTROL, &[1, 0]);
    assert!(!card.intx_asserted());
    assert!(!interrupt_status(&mut card));
    card.write_config(MSI_CONTROL, &[0, 0]);
    assert!(card.intx_asserted());
    assert!(!card.take_msi());
}

/// A card whose MSI is active and has nothing to say.
fn with_msi(ports: PortCount) -> Card {
    let mut card = card(ports, true);
    set_command(&mut card, 0x0004);
    card.write_config(MSI_CONTROL, &[1, 0]);
    assert!(!card.take_msi());
    card
}

#[test]
fn every_rising_line_sends_one_message() {
    let mut card = with_msi(PortCount::Four);
    for port in 0..4 {
        raise(&mut card, port);
        assert!(card.take_msi());
        assert!(!card.take_msi());
    }
    // Still up: no edge. Down and up again: an edge.
    raise(&mut card, 2);
    assert!(!card.take_msi());
    lower(&mut card, 2);
    assert!(!card.take_msi());
    raise(&mut card, 2);
    assert!(card.take_msi());
    // Several at once are one message.
    for port in 0..2 {
        lower(&mut card, port);
        raise(&mut card, port);
    }
    assert!(card.take_msi());
    assert!(!card.take_msi());
}

#[test]
fn an_edge_inside_a_wide_access_counts() {
    let mut card = with_msi(PortCount::One);
    raise(&mut card, 0);
    assert!(card.take_msi());
    // IER off, then on again for modem status, which is pending from the write to MCR before.
    write(&mut card, 0, offset::MCR, 0x01);
    let mut data = [0; 3];
    card.read_bar0(0, &mut data);
    assert_eq!(data[2], 0x02);
    assert!(!card.take_msi());
    card.write_bar0(0, &[0x55, ier::RDA]);
    assert!(card.take_msi());
}

#[test]
fn a_message_needs_bus_mastering_and_waits_for_it() {
    let mut card = with_msi(PortCount::Two);
    set_command(&mut card, 0);
    raise(&mut card, 1);
    assert!(!card.take_msi());
    assert!(!card.intx_asserted());
    set_command(&mut card, 0x0004);
    assert!(card.take_msi());
}

#[test]
fn what_was_pending_is_sent_when_msi_is_enabled() {
    let mut card = card(PortCount::One, true);
    set_command(&mut card, 0x0004);
    raise(&mut card, 0);
    assert!(!card.take_msi());
    card.write_config(MSI_CONTROL, &[1, 0]);
    assert!(card.take_msi());
    // Writing the same again is no edge.
    card.write_config(MSI_CONTROL, &[1, 0]);
    assert!(!card.take_msi());
}

#[test]
fn disabling_msi_drops_what_was_due() {
    let mut card = with_msi(PortCount::One);
    raise(&mut card, 0);
    card.write_config(MSI_CONTROL, &[0, 0]);
    assert!(!card.take_msi());
    assert!(card.intx_asserted());
}

#[test]
fn rekick_sends_a_message_for_work_that_is_pending_and_only_then() {
    let mut card = with_msi(PortCount::Two);
    card.rekick();
    assert!(!card.take_msi());
    raise(&mut card, 1);
    assert!(card.take_msi());
    card.rekick();
    assert!(card.take_msi());
    assert!(!card.take_msi());
    lower(&mut card, 1);
    card.rekick();
    assert!(!card.take_msi());

    let mut intx = super::tests::card(PortCount::One, true);
    raise(&mut intx, 0);
    intx.rekick();
    assert!(!intx.take_msi());
}

/// FIFOs with a high trigger level, and the interrupt enabled.
fn prepare_timeout(card: &mut Card, port: u16) {
    write(card, port, offset::IIR_FCR, fcr::ENABLE | 0xc0);
    write(card, port, offset::IER, ier::RDA);
}

#[test]
fn the_shortest_time_out_of_all_ports_is_wanted() {
    let delay = timeout::delay_ns(12, 0x03);
    let mut card = card(PortCount::Two, false);
    prepare_timeout(&mut card, 0);
    prepare_timeout(&mut card, 1);
    assert_eq!(card.timeout_ns(), None);

    card.set_time(1_000);
    write(&mut card, 0, offset::DATA, 1);
    assert_eq!(card.timeout_ns(), Some(delay));
    card.set_time(1_500);
    write(&mut card, 1, offset::DATA, 1);
    assert_eq!(card.timeout_ns(), Some(delay - 500));

    card.set_time(1_000 + delay - 1);
    assert!(!card.intx_asserted());
    assert_eq!(card.timeout_ns(), Some(1));
    card.set_time(1_000 + delay);
    assert!(card.intx_asserted());
    assert_eq!(card.timeout_ns(), Some(500));
    assert_eq!(read(&mut card, 0, offset::IIR_FCR), 0xcc);
    assert_eq!(read(&mut card, 1, offset::IIR_FCR), 0xc1);
    read(&mut card, 0, offset::DATA);
    assert!(!card.intx_asserted());
    card.set_time(2_000 + delay);
    assert_eq!(read(&mut card, 1, offset::IIR_FCR), 0xcc);
    assert_eq!(card.timeout_ns(), None);
}

#[test]
fn a_busy_port_does_not_delay_another_ports_time_out() {
    let delay = timeout::delay_ns(12, 0x03);
    let mut card = card(PortCount::Two, false);
    prepare_timeout(&mut card, 0);
    prepare_timeout(&mut card, 1);
    write(&mut card, 0, offset::DATA, 1);
    for step in 1..=10 {
        card.set_time(step * delay / 10);
        write(&mut card, 1, offset::DATA, 2);
        read(&mut card, 1, offset::DATA);
    }
    assert_eq!(read(&mut card, 0, offset::IIR_FCR), 0xcc);
}

#[test]
fn the_generation_changes_with_the_due_time_and_only_then() {
    let mut card = card(PortCount::One, false);
    prepare_timeout(&mut card, 0);
    let idle = card.timeout_generation();
    read(&mut card, 0, offset::LSR);
    assert_eq!(card.timeout_generation(), idle);
    write(&mut card, 0, offset::DATA, 1);
    let armed = card.timeout_generation();
    assert_ne!(armed, idle);
    card.set_time(100);
    read(&mut card, 0, offset::LSR);
    assert_eq!(card.timeout_generation(), armed);
    write(&mut card, 0, offset::DATA, 2);
    let again = card.timeout_generation();
    assert_ne!(again, armed);
    card.reset();
    assert_ne!(card.timeout_generation(), again);
    assert_eq!(card.timeout_ns(), None);
}

#[test]
fn an_embedder_without_a_clock_tells_when_the_delay_is_over() {
    let mut card = card(PortCount::Two, false);
    prepare_timeout(&mut card, 0);
    prepare_timeout(&mut card, 1);
    card.timeout_elapsed();
    assert!(!card.intx_asserted());
    write(&mut card, 1, offset::DATA, 1);
    card.timeout_elapsed();
    assert_eq!(read(&mut card, 1, offset::IIR_FCR), 0xcc);
    assert_eq!(card.timeout_ns(), None);
}

#[test]
fn time_does_not_run_backwards() {
    let delay = timeout::delay_ns(12, 0x03);
    let mut card = card(PortCount::One, false);
    prepare_timeout(&mut card, 0);
    card.set_time(5_000);
    write(&mut card, 0, offset::DATA, 1);
    card.set_time(0);
    assert_eq!(card.timeout_ns(), Some(delay));
    card.set_time(u64::MAX);
    assert_eq!(card.timeout_ns(), None);
    // At the end of time a delay does not wrap.
    read(&mut card, 0, offset::DATA);
    write(&mut card, 0, offset::DATA, 1);
    assert_eq!(card.timeout_ns(), Some(1));
}

#[test]
fn a_time_out_sends_a_message() {
    let mut card = with_msi(PortCount::One);
    prepare_timeout(&mut card, 0);
    write(&mut card, 0, offset::DATA, 1);
    assert!(!card.take_msi());
    card.set_time(timeout::MAX_DELAY_NS);
    assert!(card.take_msi());
}

#[test]
fn a_break_wants_the_timer_too() {
    let mut card = card(PortCount::One, false);
    write(&mut card, 0, offset::IER, ier::RLS);
    write(&mut card, 0, offset::LCR, 0x03 | lcr::BREAK);
    assert_eq!(card.timeout_ns(), Some(timeout::break_ns(12, 0x03)));
    card.timeout_elapsed();
    assert!(card.intx_asserted());
    assert_eq!(read(&mut card, 0, offset::LSR), 0x79);
    assert_eq!(card.timeout_ns(), None);
}

#[test]
fn reset_empties_everything_and_keeps_the_kind_and_the_clock() {
    let mut card = with_msi(PortCount::Two);
    card.set_time(7_000);
    for port in 0..2 {
        prepare_timeout(&mut card, port);
        for byte in 0..=255 {
            write(&mut card, port, offset::DATA, byte);
        }
        raise(&mut card, port);
    }
    card.write_config(0x10, &0xc000_u32.to_le_bytes());
    card.reset();
    assert!(!card.take_msi());
    assert!(!card.intx_asserted());
    assert_eq!(card.timeout_ns(), None);
    assert_eq!(card.now(), 7_000);

    let mut fresh = Card::new(*card.config());
    let mut spaces = [[0; 256]; 2];
    card.read_config(0, &mut spaces[0]);
    fresh.read_config(0, &mut spaces[1]);
    assert_eq!(spaces[0], spaces[1]);
    let mut bars = [[0; 16]; 2];
    card.read_bar0(0, &mut bars[0]);
    fresh.read_bar0(0, &mut bars[1]);
    assert_eq!(bars[0], bars[1]);
    for port in 0..2 {
        assert_eq!(read(&mut card, port, offset::LSR), 0x60);
    }
}

#[test]
fn another_kind_of_card_can_take_its_place() {
    let mut card = card(PortCount::Four, true);
    write(&mut card, 3, offset::SCR, 1);
    raise(&mut card, 3);
    let config = Config::new(PortCount::One);
    card.reconfigure(config);
    assert_eq!(card.config(), &config);
    assert!(!card.intx_asserted());
    assert_eq!(read(&mut card, 3, offset::SCR), 0xff);
    card.reconfigure(Config::new(PortCount::Four));
    assert_eq!(read(&mut card, 3, offset::SCR), 0);
}
