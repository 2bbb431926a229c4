// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Configuration space, as a guest's PCI code sees it.

use super::*;
use crate::serial::{Card, FifoDepth};
use std::vec;
use std::vec::Vec;

fn card(ports: PortCount, msi: bool) -> Card {
    Card::new(Config {
        ports,
        fifo_depth: FifoDepth::Sixteen,
        auto_flow: true,
        msi,
        compact_state: false,
    })
}

fn read<const N: usize>(card: &mut Card, offset: u16) -> [u8; N] {
    let mut data = [0xaa; N];
    card.read_config(offset, &mut data);
    data
}

fn read16(card: &mut Card, offset: u16) -> u16 {
    u16::from_le_bytes(read(card, offset))
}

fn read32(card: &mut Card, offset: u16) -> u32 {
    u32::from_le_bytes(read(card, offset))
}

fn space(card: &mut Card) -> Vec<u8> {
    read::<256>(card, 0).to_vec()
}

#[test]
fn the_header_is_that_of_qemus_family() {
    for (ports, device) in [
        (PortCount::One, 2),
        (PortCount::Two, 3),
        (PortCount::Four, 4),
    ] {
        let mut card = card(ports, false);
        let mut expected = vec![0; 256];
        expected[0x00..0x02].copy_from_slice(&[0x36, 0x1b]);
        expected[0x02] = device;
        expected[0x08..0x0c].copy_from_slice(&[0x01, 0x02, 0x00, 0x07]);
        expected[0x10] = 0x01;
        expected[0x2c..0x30].copy_from_slice(&[0xf4, 0x1a, 0x00, 0x11]);
        expected[0x3d] = 0x01;
        assert_eq!(space(&mut card), expected);
    }
}

#[test]
fn a_guest_finds_one_io_bar_of_eight_bytes_a_port() {
    for (ports, size) in [
        (PortCount::One, 8),
        (PortCount::Two, 16),
        (PortCount::Four, 32),
    ] {
        let mut card = card(ports, true);
        card.write_config(0x10, &[0xff; 4]);
        let sized = read32(&mut card, 0x10);
        assert_eq!(sized & 3, 1);
        assert_eq!(!(sized & !3) + 1, size);
        card.write_config(0x10, &0xc0a0_u32.to_le_bytes());
        assert_eq!(read32(&mut card, 0x10), 0xc0a1);
        // The other BARs and the ROM do not exist.
        for offset in (0x14..0x28).step_by(4).chain([0x30]) {
            card.write_config(offset, &[0xff; 4]);
            assert_eq!(read32(&mut card, offset), 0);
        }
    }
}

#[test]
fn the_command_register_stores_io_master_serr_and_interrupt_disable() {
    let mut card = card(PortCount::One, false);
    card.write_config(0x04, &[0xff; 2]);
    assert_eq!(read16(&mut card, 0x04), 0x0505);
    card.write_config(0x05, &[0]);
    assert_eq!(read16(&mut card, 0x04), 0x0005);
    card.write_config(0x04, &[0]);
    assert_eq!(read16(&mut card, 0x04), 0);
}

/// Which bits a guest can change, without MSI and with it.
#[test]
fn only_the_documented_bits_can_be_written() {
    for msi in [false, true] {
        let mut card = card(PortCount::Four, msi);
        let before = space(&mut card);
        card.write_config(0, &[0xff; 256]);
        let ones = space(&mut card);
        card.write_config(0, &[0; 256]);
        let zeroes = space(&mut card);
        assert_eq!(zeroes, before);

        let mut writable = vec![0; 256];
        writable[0x04..0x06].copy_from_slice(&[0x05, 0x05]);
        writable[0x10..0x14].copy_from_slice(&[0xe0, 0xff, 0xff, 0xff]);
        writable[0x3c] = 0xff;
        if msi {
            writable[0x42] = 0x01;
            writable[0x44..0x4e].fill(0xff);
            writable[0x44] = 0xfc;
        }
        let changed: Vec<u8> = ones.iter().zip(&zeroes).map(|(a, b)| a ^ b).collect();
        assert_eq!(changed, writable);
    }
}

#[test]
fn accesses_of_any_size_and_alignment_see_the_same_bytes() {
    let mut card = card(PortCount::Two, true);
    let pattern: Vec<u8> = (0..=255).collect();
    card.write_config(0, &pattern);
    let whole = space(&mut card);
    for size in [1, 2, 3, 4, 5, 8, 256] {
        for offset in 0..256usize {
            let mut data = vec![0xaa; size];
            card.read_config(offset as u16, &mut data);
            for (i, &byte) in data.iter().enumerate() {
                let expected = whole.get(offset + i).copied().unwrap_or(0);
                assert_eq!(byte, expected, "{size} bytes at {offset:#x}");
            }
        }
    }
    // Bytewise writes come to the same as one large write.
    let mut bytewise = super::tests::card(PortCount::Two, true);
    for (offset, &byte) in pattern.iter().enumerate() {
        bytewise.write_config(offset as u16, &[byte]);
    }
    assert_eq!(space(&mut bytewise), whole);
}

#[test]
fn nothing_answers_beyond_the_space() {
    let mut card = card(PortCount::One, true);
    for offset in [256, 0x1000, u16::MAX - 1] {
        card.write_config(offset, &[0xff; 4]);
        assert_eq!(read32(&mut card, offset), 0);
    }
    // A write that begins inside ends at its end.
    card.write_config(0xfe, &[0xff; 600]);
    assert_eq!(read32(&mut card, 0x04) & 0xffff, 0);
}

#[test]
fn the_capability_list_holds_msi_only_if_there_is_one() {
    let mut without = card(PortCount::One, false);
    assert_eq!(read16(&mut without, 0x06) & 0x10, 0);
    assert_eq!(read::<1>(&mut without, 0x34), [0]);

    let mut with = card(PortCount::One, true);
    assert_eq!(read16(&mut with, 0x06) & 0x10, 0x10);
    let [at] = read(&mut with, 0x34);
    // ID, next, control: 64-bit, one message, disabled.
    assert_eq!(read::<4>(&mut with, u16::from(at)), [0x05, 0, 0x80, 0]);
}

#[test]
fn msi_address_and_data_are_stored() {
    let mut card = card(PortCount::One, true);
    card.write_config(0x44, &0xfee0_1007_u32.to_le_bytes());
    card.write_config(0x48, &0x0000_0012_u32.to_le_bytes());
    card.write_config(0x4c, &0x4321_u16.to_le_bytes());
    assert_eq!(read32(&mut card, 0x44), 0xfee0_1004);
    assert_eq!(read32(&mut card, 0x48), 0x12);
    assert_eq!(read32(&mut card, 0x4c), 0x4321);
    assert_eq!(card.pci.msi_address, 0x12_fee0_1004);
}

#[test]
fn each_broken_rule_is_found() {
    let config = |msi| Config {
        ports: PortCount::Four,
        fifo_depth: FifoDepth::Sixteen,
        auto_flow: true,
        msi,
        compact_state: false,
    };
    type Breakage = (bool, fn(&mut Pci), &'static str);
    let breakages: [Breakage; 6] = [
        (
            true,
            |p| p.command = 0x0002,
            "reserved bits in the command register",
        ),
        (
            true,
            |p| p.bar0 = 0xc010,
            "BAR 0 is not aligned to its size",
        ),
        (true, |p| p.msi_address = 2, "MSI address is not aligned"),
        (
            false,
            |p| p.msi_enable = true,
            "MSI state on a card without MSI",
        ),
        (
            false,
            |p| p.msi_address = 4,
            "MSI state on a card without MSI",
        ),
        (false, |p| p.msi_data = 1, "MSI state on a card without MSI"),
    ];
    for (msi, breakage, rule) in breakages {
        let mut pci = Pci::new();
        assert_eq!(pci.broken_rule(&config(msi)), None);
        breakage(&mut pci);
        assert_eq!(pci.broken_rule(&config(msi)), Some(rule));
    }
}
