// SPDX-License-Identifier: GPL-2.0 OR MIT

use std::collections::BTreeMap;

use devices::serial::{Card, Config, PortCount};
use proptest::prelude::*;

use super::*;

/// What the commands make of a configuration space that starts blank: what was written to each byte of it last.
struct Machine {
    selector: u32,
    written: BTreeMap<u8, u8>,
    commands: Vec<u16>,
}

impl Machine {
    fn run(address: &str, selector: u32, lines: &[String]) -> Self {
        let address: Address = address.parse().expect("an address");
        let mut machine = Self {
            selector,
            written: BTreeMap::new(),
            commands: Vec::new(),
        };
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let ["o", width, port, value] = words[..] else {
                panic!("{line}");
            };
            let number = |text: &str| {
                u32::from_str_radix(text.strip_prefix("0x").expect("hexadecimal"), 16)
                    .expect("a number")
            };
            let (port, value) = (number(port), number(value));
            let bytes = match width {
                "/b" => 1,
                "/h" => 2,
                "/w" => 4,
                _ => panic!("{line}"),
            };
            if port == 0xcf8 {
                assert_eq!(bytes, 4);
                machine.selector = value;
                continue;
            }
            let register = (machine.selector & 0xfc) as u8 + (port - 0xcfc) as u8;
            assert_eq!(machine.selector, address.selector(register), "{line}");
            assert_eq!(u32::from(register) % bytes, 0, "{line}");
            for (n, byte) in value.to_le_bytes()[..bytes as usize].iter().enumerate() {
                machine.written.insert(register + n as u8, *byte);
            }
            if register == 4 {
                machine.commands.push(value as u16);
            }
        }
        machine
    }
}

fn space_of(card: &mut Card) -> ConfigSpace {
    let mut bytes = [0; CONFIG_BYTES];
    card.read_config(0, &mut bytes);
    ConfigSpace::new(&bytes).expect("a configuration space")
}

#[test]
fn addresses_are_those_that_lspci_prints() {
    for (text, selector) in [
        ("00:00.0", 0x8000_0010),
        ("00:05.0", 0x8000_2810),
        ("ff:1f.7", 0x80ff_ff10),
    ] {
        let address: Address = text.parse().expect("an address");
        assert_eq!(address.selector(0x10), selector);
        assert_eq!(address.to_string(), text);
    }
    for text in [
        "",
        "5",
        "0:5.0",
        "00:20.0",
        "00:05.8",
        "00:05",
        "00:+5.0",
        "0000:00:05.0",
        "00:05.00",
        "é:05.0",
    ] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
}

proptest! {
    /// Another card of the same kind that is written to so has the same configuration space, whatever a guest has done to the first.
    #[test]
    fn a_fresh_card_that_is_written_to_so_is_as_the_first(
        msi: bool,
        writes in proptest::collection::vec((0u16..64, any::<u32>()), 0..40),
        selector: u32,
    ) {
        let config = Config {
            msi,
            ..Config::new(PortCount::Two)
        };
        let mut card = Card::new(config);
        for (dword, value) in writes {
            card.write_config(dword * 4, &value.to_le_bytes());
        }
        let space = space_of(&mut card);
        let lines = space.commands("00:05.0".parse().expect("an address"), selector);
        let lines = lines.expect("commands");
        let machine = Machine::run("00:05.0", !selector, &lines);
        prop_assert_eq!(machine.selector, selector);
        let commands = machine.commands;
        prop_assert!(commands.len() == 2 && commands[0] == 0);
        let mut fresh = Card::new(config);
        for (at, byte) in machine.written {
            fresh.write_config(at.into(), &[byte]);
        }
        prop_assert_eq!(space_of(&mut fresh).0, space.0);
    }

    /// Nothing that a device says is its configuration space does harm.
    #[test]
    fn any_bytes_lead_to_commands_or_a_refusal(bytes: [u8; CONFIG_BYTES]) {
        if let Ok(space) = ConfigSpace::new(&bytes) {
            let _ = space.commands("00:05.0".parse().expect("an address"), 0);
            let _ = space.uses_intx();
            prop_assert!(space.port(0, 7).is_none_or(|port| port <= 0xffff));
        }
    }
}

#[test]
fn what_cannot_be_replayed_says_why() {
    assert_eq!(ConfigSpace::new(&[]).err(), Some(CannotReplay::Senseless));
    let mut bytes = [0; CONFIG_BYTES];
    bytes[0x0e] = 1;
    assert_eq!(ConfigSpace::new(&bytes).err(), Some(CannotReplay::Bridge));
    bytes[0x0e] = 0x80;
    bytes[0x34] = 0x40;
    let address = "00:05.0".parse().expect("an address");
    let commands = |bytes: &[u8; CONFIG_BYTES]| {
        let space = ConfigSpace::new(bytes).expect("a function");
        space.commands(address, 0).map(|lines| lines.len())
    };
    bytes[0x40..0x44].copy_from_slice(&[MSIX, 0, 3, 0x80]);
    assert_eq!(commands(&bytes), Err(CannotReplay::MsiX));
    bytes[0x43] = 0;
    assert!(commands(&bytes).is_ok());
    // A list that leads to itself, and one that leads into the header.
    for next in [0x40, 0x10] {
        bytes[0x41] = next;
        assert_eq!(commands(&bytes), Err(CannotReplay::Senseless));
    }
    // One whose registers would be behind the end.
    bytes[0x34] = 0xfc;
    bytes[0xfc..].copy_from_slice(&[MSI, 0, 0x80, 0]);
    assert_eq!(commands(&bytes), Err(CannotReplay::Senseless));
}

#[test]
fn a_port_is_where_the_guest_reaches_it() {
    let mut card = Card::new(Config::new(PortCount::Two));
    card.write_config(0x10, &0xc000u32.to_le_bytes());
    assert_eq!(space_of(&mut card).port(0, 7), None, "not decoded");
    assert_eq!(space_of(&mut card).uses_intx(), Ok(true));
    card.write_config(4, &[1, 0]);
    let space = space_of(&mut card);
    assert_eq!(space.port(0, 7), Some(0xc007));
    assert_eq!(space.port(1, 7), None, "no such base address");
    assert_eq!(space.port(6, 7), None, "no base address");
    assert_eq!(end_of_interrupt(0xc007), ["i /b 0xc007", "i /b 0xc007"]);
}
