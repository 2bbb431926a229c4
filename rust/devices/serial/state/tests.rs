// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The layout of a saved card, and what is refused of it.

use super::*;
use crate::serial::registers::offset;
use crate::serial::{FifoDepth, PortCount};
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

type Sections = Vec<(u16, Vec<u8>)>;

fn config(ports: PortCount, fifo_depth: FifoDepth, msi: bool) -> Config {
    Config {
        ports,
        fifo_depth,
        auto_flow: true,
        msi,
        compact_state: false,
    }
}

/// The most capable card.
const LARGE: Config = Config {
    ports: PortCount::Four,
    fifo_depth: FifoDepth::SixtyFour,
    auto_flow: true,
    msi: true,
    compact_state: false,
};

fn save(card: &Card) -> Sections {
    let mut sections = Vec::new();
    card.save::<()>(&mut |id, payload| {
        sections.push((id.get(), payload.to_vec()));
        Ok(())
    })
    .expect("the sink takes everything");
    sections
}

fn load(config: &Config, sections: &Sections) -> Result<Incoming, LoadError> {
    let mut incoming = Incoming::new(config);
    for (id, payload) in sections {
        assert!(incoming.section(*id, payload)?);
    }
    Ok(incoming)
}

/// A card with something in every field.
fn busy_card() -> Card {
    let mut card = Card::new(LARGE);
    card.set_time(1_000_000);
    card.write_config(0x3c, &[11]);
    card.write_config(0x10, &0xc0e0_u32.to_le_bytes());
    card.write_config(0x04, &0x0505_u16.to_le_bytes());
    card.write_config(0x44, &0x8899_aabc_ccdd_eef0_u64.to_le_bytes());
    card.write_config(0x4c, &0x4321_u16.to_le_bytes());
    card.write_config(0x42, &[1]);
    let port = 8 * 2;
    // Divisor 0x0102; 64-byte FIFOs, DMA mode, trigger level 16; 8 data bits.
    card.write_bar0(port + 3, &[0x80]);
    card.write_bar0(port, &[0x02, 0x01, 0x69]);
    card.write_bar0(port + 3, &[0x03]);
    card.write_bar0(port + 4, &[0x0b]);
    card.write_bar0(port + 7, &[0x5c]);
    // Fill the receiver, let two bytes and a break wait at the far end.
    for byte in 1..=66 {
        card.write_bar0(port, &[byte]);
    }
    card.write_bar0(port + 3, &[0x43]);
    card.set_time(2_000_000_000);
    card.write_bar0(port + 1, &[0x3f]);
    card
}

#[test]
fn sections_come_in_order_and_have_the_documented_lengths() {
    for ports in PortCount::ALL {
        let config = config(ports, FifoDepth::Sixteen, false);
        let sections = save(&Card::new(config));
        let found: Vec<_> = sections.iter().map(|(id, p)| (*id, p.len())).collect();
        let expected = [(1, 24), (16, 456), (17, 456), (18, 456), (19, 456)];
        assert_eq!(found, expected[..=usize::from(ports.get())]);
        let total: usize = found.iter().map(|(_, len)| len).sum();
        assert_eq!(saved_bytes(&config), total);
        assert!(total <= MAX_SAVED_BYTES && sections.len() <= MAX_SECTIONS);
    }
    assert_eq!(MAX_SAVED_BYTES, 24 + 4 * 456);
    assert_eq!((MAX_SECTIONS, MAX_SECTION_BYTES), (5, 456));
}

#[test]
fn compact_ports_lack_only_the_zeroes_at_their_end() {
    let mut card = busy_card();
    let fixed = save(&card);
    card.set_compact_state(true);
    let compact = save(&card);
    assert_eq!(compact[0], fixed[0]);
    for ((id, long), (compact_id, short)) in fixed[1..].iter().zip(&compact[1..]) {
        assert_eq!(*compact_id, id + 16);
        assert!(short.len() < long.len());
        assert_ne!(short.last(), Some(&0));
        assert_eq!(long[..short.len()], short[..]);
        assert!(long[short.len()..].iter().all(|&byte| byte == 0));
    }
    let compact_config = *card.config();
    let incoming = load(&compact_config, &compact).expect("the card's own state");
    let mut other = Card::new(compact_config);
    incoming.apply_to(&mut other).expect("a complete state");
    other.set_compact_state(false);
    assert_eq!(save(&other), fixed);
}

#[test]
fn a_port_is_taken_only_in_the_form_that_the_card_has() {
    let mut card = busy_card();
    let fixed = save(&card);
    card.set_compact_state(true);
    let compact = save(&card);
    let config = |compact_state| Config {
        compact_state,
        ..LARGE
    };
    for (form, other) in [(false, &compact), (true, &fixed)] {
        let mut incoming = Incoming::new(&config(form));
        let (id, payload) = &other[1];
        assert_eq!(incoming.section(*id, payload), Ok(false));
    }
}

#[test]
fn a_compact_port_has_one_way_to_be_written() {
    let section = Section::Port(0);
    let config = Config {
        compact_state: true,
        ..LARGE
    };
    let mut card = Card::new(config);
    card.write_bar0(7, &[1]);
    let (id, payload) = save(&card).swap_remove(1);
    let mut incoming = Incoming::new(&config);
    let mut longer = payload.clone();
    longer.push(0);
    assert_eq!(
        incoming.section(id, &longer),
        Err(LoadError::Unused { section })
    );
    longer.resize(PORT_SECTION_BYTES + 1, 1);
    for wrong in [&longer[..], &[]] {
        assert_eq!(
            incoming.section(id, wrong),
            Err(LoadError::Length {
                section,
                expected: PORT_SECTION_BYTES,
                found: wrong.len()
            })
        );
    }
    assert_eq!(incoming.section(id, &payload), Ok(true));
}

#[test]
fn section_ids_name_the_card_and_the_ports() {
    assert_eq!(SectionId::CARD.to_string(), "card");
    assert_eq!(SectionId::port(3).expect("a port").to_string(), "port 3");
    assert_eq!(SectionId::port(3).expect("a port").get(), 19);
    assert_eq!(SectionId::port(4), None);
}

#[test]
fn the_card_section_is_laid_out_as_documented() {
    let (id, payload) = save(&busy_card()).swap_remove(0);
    assert_eq!(id, 1);
    let expected = [
        0x04, 0x00, // device ID
        4, 64,   // ports, FIFO depth
        0x03, // has MSI, enabled
        11,   // interrupt line
        0x05, 0x05, // command
        0xe0, 0xc0, 0x00, 0x00, // BAR 0
        0x21, 0x43, 0, 0, // MSI data
        0xf0, 0xee, 0xdd, 0xcc, 0xbc, 0xaa, 0x99, 0x88, // MSI address
    ];
    assert_eq!(payload, expected);
}

#[test]
fn a_port_section_is_laid_out_as_documented() {
    let mut card = busy_card();
    card.set_time(2_000_001_000);
    let (id, payload) = save(&card).swap_remove(3);
    assert_eq!(id, 18);
    let mut expected = vec![0; 456];
    let head = [
        0x3f, // IER
        0x69, // FCR
        0x43, // LCR
        0x0b, // MCR
        0x00, // LSR errors: the break is not at the top
        0x0b, // MSR deltas: DCD, DSR, CTS
        0x5c, // scratch
        0x0b, // transmitter empty, time-out, message due
        0x02, 0x01, // divisor
        64, 0, // receiver, transmitter
        3, 0, // far end
    ];
    expected[..14].copy_from_slice(&head);
    expected[40] = 0b100; // the third at the far end is a break
    for (to, byte) in expected[72..136].iter_mut().zip(1..) {
        *to = byte;
    }
    expected[200..202].copy_from_slice(&[65, 66]);
    assert_eq!(payload, expected);
}

#[test]
fn delays_are_saved_as_what_is_left_of_them() {
    let mut card = Card::new(LARGE);
    card.set_time(500);
    card.write_bar0(3, &[0x03]);
    card.write_bar0(2, &[0x01]);
    card.write_bar0(0, &[0x77]);
    card.write_bar0(3, &[0x43]);
    card.set_time(700);
    let payload = save(&card).swap_remove(1).1;
    // 9600 baud, ten bits.
    let time_out = 4 * 10_000_000_000_u64 / 9_600 - 200;
    let until_break = 10_000_000_000_u64 / 9_600 - 200;
    assert_eq!(payload[16..24], time_out.to_le_bytes());
    assert_eq!(payload[24..32], until_break.to_le_bytes());
    // They go on from there by another clock.
    let mut other = Card::new(LARGE);
    other.set_time(1 << 40);
    load(&LARGE, &save(&card))
        .and_then(|incoming| incoming.apply_to(&mut other))
        .expect("a saved card loads");
    assert_eq!(other.timeout_ns(), Some(until_break));
    other.set_time((1 << 40) + until_break);
    assert_eq!(other.timeout_ns(), Some(4 * 10_000_000_000 / 9_600));
}

#[test]
fn bytes_held_by_the_transmitter_are_saved() {
    let mut card = Card::new(config(PortCount::One, FifoDepth::Sixteen, false));
    card.write_bar0(3, &[0x03]);
    card.write_bar0(2, &[0x01]);
    for i in 0..16 + 256 + 5 {
        card.write_bar0(0, &[i as u8]);
    }
    let payload = save(&card).swap_remove(1).1;
    assert_eq!(payload[10..14], [16, 5, 0, 1]);
    assert_eq!(payload[136..144], [16, 17, 18, 19, 20, 0, 0, 0]);
    assert_eq!(payload[200..203], [16, 17, 18]);
}

#[test]
fn a_sink_that_fails_ends_the_saving() {
    for fails_at in 0..5 {
        let mut calls = 0;
        let result = busy_card().save(&mut |id, _| {
            calls += 1;
            if calls > fails_at {
                Err(id)
            } else {
                Ok(())
            }
        });
        assert!(result.is_err());
        assert_eq!(calls, fails_at + 1);
    }
}

#[test]
fn a_loaded_card_saves_the_same_bytes() {
    let sections = save(&busy_card());
    let incoming = load(&LARGE, &sections).expect("a saved card loads");
    assert!(incoming.is_complete());
    assert_eq!(save(incoming.card()), sections);
    let mut card = Card::new(LARGE);
    incoming.apply_to(&mut card).expect("complete");
    assert_eq!(save(&card), sections);
    // It may be given to several.
    let mut another = busy_card();
    another.reset();
    incoming.apply_to(&mut another).expect("complete");
    assert_eq!(save(&another), sections);
}

#[test]
fn sections_may_come_in_any_order() {
    let mut sections = save(&busy_card());
    sections.reverse();
    let incoming = load(&LARGE, &sections).expect("any order");
    assert!(incoming.is_complete());
}

#[test]
fn sections_of_others_are_left_to_the_framing() {
    let mut incoming = Incoming::new(&LARGE);
    for id in [0, 2, 15, 20, 0x100, u16::MAX] {
        assert_eq!(incoming.section(id, &[1, 2, 3]), Ok(false));
    }
    assert!(!incoming.is_complete());
}

#[test]
fn restart_forgets_what_came() {
    let mut incoming = load(&LARGE, &save(&busy_card())).expect("a saved card loads");
    let small = Config::new(PortCount::One);
    incoming.restart(&small);
    assert!(!incoming.is_complete());
    assert_eq!(save(incoming.card()), save(&Card::new(small)));
    for (id, payload) in save(&Card::new(small)) {
        assert_eq!(incoming.section(id, &payload), Ok(true));
    }
    assert!(incoming.is_complete());
}

#[test]
fn an_incomplete_card_is_not_given_away_and_what_is_missing_is_named() {
    let sections = save(&busy_card());
    for (i, name) in ["card", "port 0", "port 1", "port 2", "port 3"]
        .iter()
        .enumerate()
    {
        let mut some = sections.clone();
        some.remove(i);
        let incoming = load(&LARGE, &some).expect("what is there is good");
        assert!(!incoming.is_complete());
        let mut card = busy_card();
        let before = format!("{card:?}");
        let error = incoming.apply_to(&mut card).expect_err("incomplete");
        assert_eq!(error.to_string(), format!("{name}: did not come"));
        assert_eq!(format!("{card:?}"), before);
    }
}

#[test]
fn a_card_of_another_kind_does_not_take_it() {
    let incoming = load(&LARGE, &save(&busy_card())).expect("a saved card loads");
    for other in [
        config(PortCount::Two, FifoDepth::SixtyFour, true),
        config(PortCount::Four, FifoDepth::Sixteen, true),
        config(PortCount::Four, FifoDepth::SixtyFour, false),
    ] {
        let mut card = Card::new(other);
        assert_eq!(incoming.apply_to(&mut card), Err(LoadError::OtherCard));
    }
}

/// Loads a section of the busy card with some bytes replaced, and returns the reason for refusal.
fn refusal(section: usize, changes: &[(usize, &[u8])]) -> String {
    let mut sections = save(&busy_card());
    let (id, payload) = &mut sections[section];
    for (at, bytes) in changes {
        payload[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    let mut incoming = Incoming::new(&LARGE);
    let before = format!("{incoming:?}");
    let error = incoming
        .section(*id, payload)
        .expect_err("the change is refused");
    assert_eq!(format!("{incoming:?}"), before);
    error.to_string()
}

#[test]
fn a_section_that_comes_twice_is_refused() {
    let sections = save(&busy_card());
    let mut incoming = load(&LARGE, &sections).expect("a saved card loads");
    for (id, payload) in &sections {
        let error = incoming.section(*id, payload).expect_err("twice");
        assert!(matches!(error, LoadError::Duplicate(_)));
    }
    let error = incoming.section(19, &[]).expect_err("twice");
    assert_eq!(error.to_string(), "port 3: came twice");
}

#[test]
fn a_port_that_the_card_has_not_is_refused() {
    let sections = save(&busy_card());
    let mut incoming = Incoming::new(&config(PortCount::Two, FifoDepth::SixtyFour, true));
    for i in [3, 4] {
        let (id, payload) = &sections[i];
        let error = incoming.section(*id, payload).expect_err("no such port");
        let expected = format!("port {}: this card has 2, counted from 0", i - 1);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_section_of_another_length_is_refused() {
    let sections = save(&busy_card());
    for (i, name, right) in [(0, "card", 24), (1, "port 0", 456)] {
        let (id, payload) = &sections[i];
        for len in [0, 1, right - 1, right + 1, 2000] {
            let mut incoming = Incoming::new(&LARGE);
            let mut payload = payload.clone();
            payload.resize(len, 0);
            let error = incoming.section(*id, &payload).expect_err("wrong length");
            let expected = format!("{name}: {len} bytes instead of {right}");
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn a_saved_card_of_another_kind_is_refused() {
    for (change, reason) in [
        (
            (0, &[3, 0][..]),
            "card: PCI device ID is 3, this card has 4",
        ),
        ((2, &[2]), "card: number of ports is 2, this card has 4"),
        ((3, &[16]), "card: FIFO depth is 16, this card has 64"),
        ((4, &[2]), "card: MSI capability is 0, this card has 1"),
    ] {
        assert_eq!(refusal(0, &[change]), reason);
    }
}

#[test]
fn msi_state_for_a_card_without_msi_is_refused() {
    let config = config(PortCount::One, FifoDepth::Sixteen, false);
    let (id, good) = save(&Card::new(config)).swap_remove(0);
    for (at, value) in [(4, 2), (12, 1), (16, 4), (23, 0x80)] {
        let mut payload = good.clone();
        payload[at] = value;
        let error = Incoming::new(&config)
            .section(id, &payload)
            .expect_err("no MSI");
        let expected = "card: MSI state on a card without MSI";
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn impossible_values_in_the_card_section_are_refused() {
    for (change, reason) in [
        ((4, &[0x0b][..]), "card: reserved bits 0x08 in the flags"),
        (
            (6, &[0x02, 0x00]),
            "card: reserved bits in the command register",
        ),
        ((8, &[0xf0]), "card: BAR 0 is not aligned to its size"),
        ((14, &[1]), "card: unused bytes are not zero"),
        ((15, &[1]), "card: unused bytes are not zero"),
        ((16, &[0xf1]), "card: MSI address is not aligned"),
    ] {
        assert_eq!(refusal(0, &[change]), reason);
    }
}

#[test]
fn impossible_values_in_a_port_section_are_refused() {
    let far = 27_u64 * 1_000_000_000 + 999_999_999;
    type Case<'a> = (&'a [(usize, &'a [u8])], &'a str);
    let cases: &[Case<'_>] = &[
        (
            &[(0, &[0x40])],
            "port 2: reserved bits 0x40 in the interrupt enable register",
        ),
        (
            &[(1, &[0x71])],
            "port 2: reserved bits 0x10 in the FIFO control register",
        ),
        // Not programmed while the FIFOs are off.
        (
            &[(1, &[0xe8])],
            "port 2: reserved bits 0xc8 in the FIFO control register",
        ),
        (
            &[(3, &[0x80])],
            "port 2: reserved bits 0x80 in the modem control register",
        ),
        (
            &[(4, &[0xe1])],
            "port 2: reserved bits 0xe1 in the line status register",
        ),
        (
            &[(5, &[0x10])],
            "port 2: reserved bits 0x10 in the modem status register",
        ),
        (&[(7, &[0x10])], "port 2: reserved bits 0x10 in the flags"),
        (
            &[(10, &[65])],
            "port 2: 65 bytes in the receiver, room for 64",
        ),
        (
            &[(11, &[255])],
            "port 2: 255 bytes in the transmitter, room for 64",
        ),
        (
            &[(12, &[1, 1])],
            "port 2: 257 bytes in the far end, room for 256",
        ),
        (&[(14, &[0, 1])], "port 2: unused bytes are not zero"),
        (
            &[(16, &far.to_le_bytes())],
            "port 2: time-out or break in 27999999999 ns is too far away",
        ),
        (
            &[(24, &[0xff; 8])],
            "port 2: time-out or break in 18446744073709551615 ns is too far away",
        ),
        // Behind the last character, and a break that has a byte.
        (&[(199, &[1])], "port 2: unused bytes are not zero"),
        (&[(203, &[1])], "port 2: unused bytes are not zero"),
        (&[(455, &[1])], "port 2: unused bytes are not zero"),
        (&[(40, &[0x0c])], "port 2: unused bytes are not zero"),
        (&[(71, &[0x80])], "port 2: unused bytes are not zero"),
        (&[(202, &[1])], "port 2: unused bytes are not zero"),
        // The chip's own rules.
        (
            &[(16, &[1])],
            "port 2: time-out delay does not fit the receiver",
        ),
        (
            &[(11, &[1])],
            "port 2: transmitter reported empty while it holds bytes",
        ),
        (
            &[(7, &[0x06])],
            "port 2: RTS held without automatic flow control",
        ),
    ];
    for (changes, reason) in cases {
        assert_eq!(refusal(3, changes), *reason, "{changes:?}");
    }
}

#[test]
fn a_16550a_takes_nothing_that_only_a_16750_has() {
    let config = config(PortCount::One, FifoDepth::Sixteen, false);
    let (id, good) = save(&Card::new(config)).swap_remove(1);
    for (at, value, reason) in [
        (
            0,
            0x10,
            "port 0: reserved bits 0x10 in the interrupt enable register",
        ),
        (
            1,
            0x20,
            "port 0: reserved bits 0x20 in the FIFO control register",
        ),
        (
            3,
            0x20,
            "port 0: reserved bits 0x20 in the modem control register",
        ),
        (10, 17, "port 0: 17 bytes in the receiver, room for 16"),
        (11, 17, "port 0: 17 bytes in the transmitter, room for 16"),
    ] {
        let mut payload = good.clone();
        payload[at] = value;
        let error = Incoming::new(&config)
            .section(id, &payload)
            .expect_err("not a 16550A's");
        assert_eq!(error.to_string(), reason);
    }
}

#[test]
fn a_16750_without_automatic_flow_control_is_another_card() {
    let without = Config {
        auto_flow: false,
        ..LARGE
    };
    let sections = save(&Card::new(without));
    assert_eq!(sections[0].1[4], 0x05);
    let mut port = sections[1].clone();
    // Automatic flow control is on, and RTS is not.
    port.1[3] = 0x20;
    let mut incoming = Incoming::new(&without);
    assert_eq!(
        incoming
            .section(port.0, &port.1)
            .expect_err("a bit that the chip has not")
            .to_string(),
        "port 0: reserved bits 0x20 in the modem control register"
    );
    load(&without, &sections).expect("its own state");
    for (config, sections) in [(&LARGE, &sections), (&without, &save(&Card::new(LARGE)))] {
        let error = load(config, sections).expect_err("another card");
        assert!(
            error.to_string().contains("automatic flow control"),
            "{error}"
        );
    }
}

#[test]
fn a_due_message_without_msi_is_refused_when_both_sections_are_there() {
    let mut sections = save(&busy_card());
    // MSI disabled: port 2's due message has nowhere to go.
    sections[0].1[4] = 1;
    let incoming = load(&LARGE, &sections).expect("each section is good");
    let mut card = busy_card();
    let before = format!("{card:?}");
    let error = incoming.apply_to(&mut card).expect_err("inconsistent");
    assert_eq!(
        error.to_string(),
        "port 2: MSI message due though MSI is not active"
    );
    assert_eq!(format!("{card:?}"), before);
}

#[test]
fn a_refused_section_can_be_followed_by_a_good_one() {
    let sections = save(&busy_card());
    let mut incoming = Incoming::new(&LARGE);
    for (id, payload) in &sections {
        assert!(incoming.section(*id, &payload[1..]).is_err());
        assert_eq!(incoming.section(*id, payload), Ok(true));
    }
    assert_eq!(save(incoming.card()), sections);
}

#[test]
fn a_loaded_interrupt_is_asserted_at_once() {
    let mut card = Card::new(config(PortCount::One, FifoDepth::Sixteen, false));
    card.write_bar0(u16::from(offset::IER), &[0x02]);
    assert!(card.intx_asserted());
    let mut other = Card::new(*card.config());
    load(card.config(), &save(&card))
        .and_then(|incoming| incoming.apply_to(&mut other))
        .expect("a saved card loads");
    assert!(other.intx_asserted());
}
