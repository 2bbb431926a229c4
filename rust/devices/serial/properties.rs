// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What holds for every sequence of accesses.

use super::config::Chip;
use super::fifo::Symbol;
use super::registers::{fcr, lcr, lsr, mcr, offset};
use super::uart::Uart;
use super::*;
use proptest::prelude::*;
use proptest::test_runner::Config as Runs;
use std::collections::VecDeque;
use std::format;
use std::vec;
use std::vec::Vec;

/// How many runs a property gets; `PROPTEST_CASES` asks for more (or fewer) than proptest's own 256.
fn runs() -> Runs {
    let runs = Runs::default();
    Runs {
        // Under an interpreter every step takes long.
        cases: if cfg!(miri) { 2 } else { runs.cases },
        failure_persistence: None,
        ..runs
    }
}

fn any_config() -> impl Strategy<Value = Config> {
    let ports = prop::sample::select(&PortCount::ALL[..]);
    let fifo_depth = prop::sample::select(&FifoDepth::ALL[..]);
    (ports, fifo_depth, any::<[bool; 3]>()).prop_map(
        |(ports, fifo_depth, [auto_flow, msi, compact_state])| Config {
            ports,
            fifo_depth,
            auto_flow,
            msi,
            compact_state,
        },
    )
}

/// What can be done to a card from outside.
#[derive(Clone, Debug)]
enum Step {
    Read(u16, usize),
    Write(u16, Vec<u8>),
    ReadConfig(u16, usize),
    WriteConfig(u16, Vec<u8>),
    /// Many bytes for one port.
    Burst(u16, u16),
    Pass(u64),
    TimeoutElapsed,
    TakeMsi,
    Rekick,
    Reset,
}

/// A register of some port, mostly an existing one.
fn any_register() -> impl Strategy<Value = u16> {
    prop_oneof![20 => 0u16..32, 1 => any::<u16>()]
}

/// Bytes for registers, with those that switch modes more often than chance has them.
fn any_value() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => any::<u8>(),
        1 => prop::sample::select(&[0x00, 0x01, 0x03, 0x07, 0x0f, 0x10, 0x22, 0x21, 0x43, 0x83, 0xc1][..]),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let config_offset = prop_oneof![
        4 => prop::sample::select(&[0x04, 0x06, 0x10, 0x3c, 0x40, 0x42, 0x44, 0x48, 0x4c][..]),
        1 => any::<u16>(),
        1 => 0u16..260,
    ];
    let config_offset_2 = config_offset.clone();
    prop_oneof![
        30 => (any_register(), 1usize..3).prop_map(|(at, len)| Step::Read(at, len)),
        1 => (any_register(), 0usize..40).prop_map(|(at, len)| Step::Read(at, len)),
        30 => (any_register(), prop::collection::vec(any_value(), 1..3))
            .prop_map(|(at, data)| Step::Write(at, data)),
        1 => (any_register(), prop::collection::vec(any_value(), 0..40))
            .prop_map(|(at, data)| Step::Write(at, data)),
        3 => (config_offset, 0usize..9).prop_map(|(at, len)| Step::ReadConfig(at, len)),
        4 => (config_offset_2, prop::collection::vec(any_value(), 0..5))
            .prop_map(|(at, data)| Step::WriteConfig(at, data)),
        4 => (0u16..4, 1u16..400).prop_map(|(port, count)| Step::Burst(port, count)),
        6 => prop_oneof![Just(1), 1u64..1_000_000, 1u64..30_000_000_000].prop_map(Step::Pass),
        1 => Just(Step::TimeoutElapsed),
        4 => Just(Step::TakeMsi),
        1 => Just(Step::Rekick),
        1 => prop_oneof![1 => Just(Step::Reset), 9 => Just(Step::TakeMsi)],
    ]
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any_step(), 0..120)
}

/// A card and its embedder's clock.
struct Bench {
    card: Card,
    now: u64,
}

impl Bench {
    fn new(card: Card, now: u64) -> Bench {
        let mut bench = Bench { card, now };
        bench.card.set_time(now);
        bench
    }

    /// Does a step; returns everything that can be seen of it.
    fn step(&mut self, step: &Step) -> Vec<u8> {
        let mut seen = Vec::new();
        match step {
            Step::Read(at, len) => {
                seen = vec![0; *len];
                self.card.read_bar0(*at, &mut seen);
            }
            Step::Write(at, data) => self.card.write_bar0(*at, data),
            Step::ReadConfig(at, len) => {
                seen = vec![0; *len];
                self.card.read_config(*at, &mut seen);
            }
            Step::WriteConfig(at, data) => self.card.write_config(*at, data),
            Step::Burst(port, count) => {
                for byte in 0..*count {
                    self.card.write_bar0(port * 8, &[byte as u8]);
                }
            }
            Step::Pass(ns) => {
                self.now += ns;
                self.card.set_time(self.now);
            }
            Step::TimeoutElapsed => self.card.timeout_elapsed(),
            Step::TakeMsi => seen.push(self.card.take_msi().into()),
            Step::Rekick => self.card.rekick(),
            Step::Reset => self.card.reset(),
        }
        seen.push(self.card.intx_asserted().into());
        seen.extend(self.card.timeout_ns().unwrap_or(0).to_le_bytes());
        seen
    }
}

fn check_rules(card: &Card) -> Result<(), TestCaseError> {
    let depth = usize::from(card.config().fifo_depth.get());
    for port in &card.ports {
        prop_assert_eq!(port.uart.broken_rule(), None);
        prop_assert!(port.uart.rx.len() <= depth);
        prop_assert!(port.uart.tx.len() <= depth);
        prop_assert!(port.uart.far.len() <= FAR_END_BYTES);
    }
    // What the card keeps beside its ports follows from them.
    let interrupting = card.ports.iter().any(|port| port.uart.interrupting());
    let mut status = [0; 1];
    card.clone().read_config(6, &mut status);
    prop_assert_eq!(status[0] & 8 != 0, interrupting && card.pci.uses_intx());
    let due = card
        .ports
        .iter()
        .filter_map(|port| port.uart.next_due())
        .min();
    let told = due.map(|due| due.saturating_sub(card.now()).max(1));
    prop_assert_eq!(card.timeout_ns(), told);
    prop_assert_eq!(card.pci.broken_rule(card.config()), None);
    if let Some(ns) = card.timeout_ns() {
        prop_assert!((1..30_000_000_000).contains(&ns));
    }
    Ok(())
}

fn save(card: &Card) -> Vec<(u16, Vec<u8>)> {
    let mut sections = Vec::new();
    card.save::<()>(&mut |id, payload| {
        sections.push((id.get(), payload.to_vec()));
        Ok(())
    })
    .expect("the sink takes everything");
    sections
}

fn load(config: &Config, sections: &[(u16, Vec<u8>)]) -> Result<Incoming, LoadError> {
    let mut incoming = Incoming::new(config);
    for (id, payload) in sections {
        incoming.section(*id, payload)?;
    }
    Ok(incoming)
}

proptest! {
    #![proptest_config(runs())]

    #[test]
    fn no_sequence_of_accesses_panics_or_breaks_a_rule(
        config in any_config(),
        steps in any_steps(),
    ) {
        let mut bench = Bench::new(Card::new(config), 0);
        for step in &steps {
            bench.step(step);
            check_rules(&bench.card)?;
        }
    }

    #[test]
    fn a_card_loaded_at_any_point_goes_on_as_the_saved_one(
        config in any_config(),
        before in any_steps(),
        after in any_steps(),
        other_clock in 0u64..1 << 60,
    ) {
        let mut source = Bench::new(Card::new(config), 0);
        for step in &before {
            source.step(step);
        }
        let sections = save(&source.card);
        let incoming = load(&config, &sections).expect("a saved card loads");
        let mut destination = Bench::new(Card::new(config), other_clock);
        incoming.apply_to(&mut destination.card).expect("every section came");
        prop_assert_eq!(save(&destination.card), sections);
        // The clock may be ahead of what the embedder told last, by time-outs that it was told of.
        destination.now = destination.card.now();
        source.now = source.card.now();
        for step in &after {
            prop_assert_eq!(source.step(step), destination.step(step), "{:?}", step);
        }
        prop_assert_eq!(save(&destination.card), save(&source.card));
    }

    #[test]
    fn a_changed_state_is_refused_without_effect_or_makes_a_sound_card(
        config in any_config(),
        before in any_steps(),
        after in any_steps(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any_value()), 1..4),
        misplaced in prop::option::of((any::<prop::sample::Index>(), any::<u16>())),
        cut in prop::option::weighted(0.1, (any::<prop::sample::Index>(), 0usize..600)),
    ) {
        let mut source = Bench::new(Card::new(config), 0);
        for step in &before {
            source.step(step);
        }
        let mut sections = save(&source.card);
        for (section, byte, value) in changes {
            let (_, payload) = section.get_mut(&mut sections);
            *byte.get_mut(payload) = value;
        }
        if let Some((section, id)) = misplaced {
            section.get_mut(&mut sections).0 = id % 24;
        }
        if let Some((section, len)) = cut {
            section.get_mut(&mut sections).1.resize(len, 0);
        }
        let mut destination = Bench::new(Card::new(config), 0);
        destination.step(&Step::Burst(0, 20));
        let untouched = format!("{:?}", destination.card);
        let loaded = load(&config, &sections)
            .and_then(|incoming| incoming.apply_to(&mut destination.card));
        match loaded {
            Err(_) => prop_assert_eq!(format!("{:?}", destination.card), untouched),
            Ok(()) => {
                check_rules(&destination.card)?;
                for step in &after {
                    destination.step(step);
                    check_rules(&destination.card)?;
                }
            }
        }
    }

    #[test]
    fn noise_is_refused(
        config in any_config(),
        id in 0u16..24,
        noise in prop::collection::vec(any::<u8>(), 456),
        len in 0usize..460,
    ) {
        let mut incoming = Incoming::new(&config);
        let before = format!("{incoming:?}");
        for len in [len, CARD_SECTION_BYTES, PORT_SECTION_BYTES] {
            // Its reserved fields alone make it certain that noise is no section.
            let mut noise = noise.clone();
            noise.resize(len, 0x55);
            if let Some(byte) = noise.get_mut(14) {
                *byte |= 1;
            }
            prop_assert!(!matches!(incoming.section(id, &noise), Ok(true)));
            prop_assert_eq!(format!("{:?}", incoming), before.clone());
        }
    }

    #[test]
    fn it_does_not_matter_in_how_many_steps_time_is_told(
        config in any_config(),
        steps in any_steps(),
        parts in prop::collection::vec(0u64..10_000_000_000, 0..6),
    ) {
        let mut once = Bench::new(Card::new(config), 0);
        for step in &steps {
            once.step(step);
        }
        once.now = once.card.now();
        let mut often = Bench::new(once.card.clone(), once.now);
        for &part in &parts {
            often.now += part;
            often.card.set_time(often.now);
        }
        once.card.set_time(often.now);
        prop_assert_eq!(save(&once.card), save(&often.card));
        prop_assert_eq!(once.card.take_msi(), often.card.take_msi());
    }

    #[test]
    fn an_access_that_needs_no_time_does_the_same_without(
        config in any_config(),
        steps in any_steps(),
    ) {
        let mut always = Bench::new(Card::new(config), 0);
        let mut lazy = Bench::new(Card::new(config), 0);
        for step in &steps {
            if let Step::Pass(ns) = step {
                always.now += ns;
                always.card.set_time(always.now);
                // Its timer expires.
                let due = lazy.card.timeout_ns().map(|ns| lazy.card.now() + ns);
                if due.is_some_and(|due| due <= always.now) {
                    lazy.card.set_time(always.now);
                }
                continue;
            }
            if let Step::TimeoutElapsed = step {
                continue;
            }
            let needed = match step {
                Step::Read(at, len) => lazy.card.reading_needs_time(*at, *len),
                Step::Write(at, data) => lazy.card.writing_needs_time(*at, data),
                Step::Burst(..) => true,
                _ => lazy.card.config_needs_time(),
            };
            if needed {
                lazy.card.set_time(always.now);
            }
            // When they want to be woken is compared below: one of them may have been told an earlier time.
            let seen = [&mut always, &mut lazy].map(|bench| {
                let mut seen = bench.step(step);
                seen.truncate(seen.len() - 8);
                let due = bench.card.timeout_ns().map(|ns| bench.card.now() + ns);
                (seen, due)
            });
            prop_assert_eq!(&seen[0], &seen[1], "{:?}", step);
        }
        lazy.card.set_time(always.now);
        prop_assert_eq!(save(&lazy.card), save(&always.card));
    }

    #[test]
    fn a_wide_access_is_one_byte_access_after_the_other(
        config in any_config(),
        steps in any_steps(),
    ) {
        let mut wide = Bench::new(Card::new(config), 0);
        let mut narrow = Bench::new(Card::new(config), 0);
        for step in &steps {
            let seen = wide.step(step);
            match step {
                Step::Read(at, len) => {
                    for (i, &byte) in seen.iter().take(*len).enumerate() {
                        let at = at.saturating_add(i as u16);
                        prop_assert_eq!(narrow.step(&Step::Read(at, 1))[0], byte);
                    }
                }
                Step::Write(at, data) => {
                    for (i, &byte) in data.iter().enumerate() {
                        narrow.step(&Step::Write(at.saturating_add(i as u16), vec![byte]));
                    }
                }
                other => {
                    narrow.step(other);
                }
            }
            prop_assert_eq!(save(&wide.card), save(&narrow.card));
        }
    }
}

/// Where the bytes of a port are, oldest first at each station. A break counts as its zero byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stations {
    receiver: Vec<u8>,
    far_end: Vec<u8>,
    transmitter: Vec<u8>,
}

impl Stations {
    fn of(uart: &Uart) -> Stations {
        let byte = |symbol| match symbol {
            Symbol::Byte(byte) => byte,
            Symbol::Break => 0,
        };
        Stations {
            receiver: uart.rx.iter().map(byte).collect(),
            far_end: uart.far.iter().map(byte).collect(),
            transmitter: uart.tx.iter().map(byte).collect(),
        }
    }

    /// All bytes in the order in which the guest will read them.
    fn line(&self) -> Vec<u8> {
        [&self.receiver[..], &self.far_end, &self.transmitter].concat()
    }
}

/// A chip's registers as far as the way of the bytes depends on them, kept by the test itself.
#[derive(Default)]
struct Modes {
    dlab: bool,
    fifos: bool,
    fifo64: bool,
    looped: bool,
}

impl Modes {
    fn capacity(&self) -> usize {
        match (self.fifos, self.fifo64) {
            (false, _) => 1,
            (true, false) => 16,
            (true, true) => 64,
        }
    }

    /// What a write does to the stations before anything moves.
    fn write(&mut self, depth: FifoDepth, register: u8, value: u8, at: &mut Stations) {
        match register {
            offset::DATA if !self.dlab => {
                if !self.fifos {
                    at.transmitter.clear();
                }
                if at.transmitter.len() < self.capacity() {
                    at.transmitter.push(value);
                }
            }
            offset::IIR_FCR => {
                let on = value & fcr::ENABLE != 0;
                let toggled = on != self.fifos;
                self.fifos = on;
                if self.dlab && depth == FifoDepth::SixtyFour {
                    self.fifo64 = value & fcr::FIFO64 != 0;
                }
                if toggled || on && value & fcr::RESET_RX != 0 {
                    at.receiver.clear();
                }
                if toggled || on && value & fcr::RESET_TX != 0 {
                    at.transmitter.clear();
                }
            }
            offset::LCR => self.dlab = value & lcr::DLAB != 0,
            offset::MCR => self.looped = value & mcr::LOOP != 0,
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(runs())]

    /// The three stations are one queue: whatever is accessed, bytes only move on in it.
    #[test]
    fn no_byte_is_lost_doubled_or_reordered_on_its_way(
        depth in prop::sample::select(&FifoDepth::ALL[..]),
        accesses in prop::collection::vec(
            prop_oneof![
                8 => (Just(offset::DATA), any::<Option<u8>>()),
                3 => (0u8..8, any_value().prop_map(Some)),
                1 => (0u8..8, Just(None)),
            ],
            0..400,
        ),
    ) {
        let mut uart = Uart::new(Chip { depth, auto_flow: true });
        uart.write(offset::LCR, 0x03, 0);
        let mut modes = Modes::default();
        for (register, access) in accesses {
            let mut expected = Stations::of(&uart);
            match access {
                Some(value) => {
                    // Eight data bits always: shorter words cut bytes, which is another test's business.
                    let value = if register == offset::LCR { value | lcr::WORD } else { value };
                    modes.write(depth, register, value, &mut expected);
                    uart.write(register, value, 0);
                }
                None => {
                    let byte = uart.read(register, 0);
                    if register == offset::DATA && !modes.dlab {
                        let first = expected.receiver.first().copied();
                        prop_assert_eq!(byte, first.unwrap_or(0));
                        expected.receiver.drain(..expected.receiver.len().min(1));
                    }
                }
            }
            let found = Stations::of(&uart);
            if modes.looped {
                prop_assert_eq!(&found.far_end, &expected.far_end);
                let held = found.transmitter.len();
                let sent = expected.transmitter.len() - held;
                prop_assert_eq!(&found.transmitter[..], &expected.transmitter[sent..]);
                let mut receiver = expected.receiver.clone();
                for &byte in &expected.transmitter[..sent] {
                    if !modes.fifos {
                        receiver.clear();
                    }
                    if receiver.len() < modes.capacity() {
                        receiver.push(byte);
                    }
                }
                prop_assert_eq!(&found.receiver, &receiver);
            } else {
                prop_assert_eq!(found.line(), expected.line());
                prop_assert!(found.receiver.len() >= expected.receiver.len());
            }
        }
    }

    /// A guest that keeps to the rules gets back what it sent, whatever else happens in between.
    #[test]
    fn a_polling_guest_gets_back_what_it_sent_across_migrations(
        config in any_config(),
        settings in prop::collection::vec((0u8..4, 0u8..4, any::<bool>(), any::<bool>()), 4),
        turns in prop::collection::vec((0u16..4, 0u8..6, 1usize..80), 0..300),
    ) {
        let mut bench = Bench::new(Card::new(config), 0);
        let ports = u16::from(config.ports.get());
        let mut in_flight = vec![VecDeque::new(); usize::from(ports)];
        let mut load_sizes = Vec::new();
        for port in 0..ports {
            let (trigger, mode, fifos, automatic) = settings[usize::from(port)];
            let long = config.fifo_depth == FifoDepth::SixtyFour && mode & 1 != 0;
            let enable = if fifos { fcr::ENABLE | (trigger << 6) } else { 0 };
            let fifo64 = if long { fcr::FIFO64 } else { 0 };
            bench.card.write_bar0(port * 8 + 3, &[0x80]);
            bench.card.write_bar0(port * 8 + 2, &[enable | fifo64]);
            bench.card.write_bar0(port * 8 + 3, &[0x03]);
            let flow = if automatic { mcr::AFE | mcr::RTS } else { mode };
            bench.card.write_bar0(port * 8 + 4, &[flow & !mcr::LOOP]);
            load_sizes.push(match (fifos, long) {
                (false, _) => 1,
                (true, false) => 16,
                (true, true) => 64,
            });
        }
        let mut next = 0u8;
        for (port, what, count) in turns {
            let port = port % ports;
            let queue = &mut in_flight[usize::from(port)];
            let mut status = [0];
            match what {
                0..=1 => {
                    bench.card.read_bar0(port * 8 + 5, &mut status);
                    if status[0] & lsr::THRE != 0 {
                        for _ in 0..count.min(load_sizes[usize::from(port)]) {
                            bench.card.write_bar0(port * 8, &[next]);
                            queue.push_back(next);
                            next = next.wrapping_add(1);
                        }
                    }
                }
                2..=3 => {
                    for _ in 0..count {
                        bench.card.read_bar0(port * 8 + 5, &mut status);
                        if status[0] & lsr::DR == 0 {
                            break;
                        }
                        prop_assert_eq!(status[0] & lsr::ERRORS, 0);
                        let mut byte = [0];
                        bench.card.read_bar0(port * 8, &mut byte);
                        prop_assert_eq!(Some(byte[0]), queue.pop_front());
                    }
                }
                4 => {
                    let incoming = load(&config, &save(&bench.card)).expect("a saved card loads");
                    let mut card = Card::new(config);
                    incoming.apply_to(&mut card).expect("every section came");
                    bench = Bench::new(card, 0);
                }
                _ => {
                    bench.step(&Step::Pass(count as u64 * 100_000));
                }
            }
        }
        // Nothing stays behind.
        for port in 0..ports {
            let queue = &mut in_flight[usize::from(port)];
            loop {
                let mut status = [0];
                bench.card.read_bar0(port * 8 + 5, &mut status);
                if status[0] & lsr::DR == 0 {
                    break;
                }
                let mut byte = [0];
                bench.card.read_bar0(port * 8, &mut byte);
                prop_assert_eq!(Some(byte[0]), queue.pop_front());
            }
            prop_assert!(queue.is_empty());
        }
    }
}
