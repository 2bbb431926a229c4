// SPDX-License-Identifier: GPL-2.0 OR MIT

//! States of every kind of card of every release still load into the card, which goes on where the
//! recorded one was. `examples/record_cards.rs` has recorded them; what is expected here is what a
//! guest sees of a 16550A or 16750 that was used so, by their data sheets.

use devices::serial::{Card, Config, FifoDepth, Incoming, PortCount};
use migration::stream::{
    Handler, Known, Reader, Refusal, SectionHeader, SetupRecord, DEVICE_SECTIONS,
};
use migration::value::{Param, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const SECOND: u64 = 1_000_000_000;

/// When the card that is loaded wakes up, on a clock of its own.
const START: u64 = 77 * SECOND;

/// The recorded cards, by name.
fn recorded(release: &str) -> BTreeMap<String, Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(release);
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        assert_eq!(path.extension().and_then(|e| e.to_str()), Some("stream"));
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        all.insert(name, std::fs::read(path).unwrap());
    }
    all
}

/// What a name promises of the card.
fn config_of(name: &str) -> Config {
    let has = |word: &str| name.split('-').any(|part| part == word);
    let ports = name.split('-').next().unwrap().parse::<u64>().unwrap();
    Config {
        ports: PortCount::try_from(ports).unwrap(),
        fifo_depth: match has("64") {
            true => FifoDepth::SixtyFour,
            false => FifoDepth::Sixteen,
        },
        auto_flow: !has("no"),
        msi: has("msi"),
        compact_state: has("compact"),
    }
}

/// Loads a state as a driver does: the setup record decides which card it is, then come its sections.
#[derive(Default)]
struct Loading {
    config: Option<Config>,
    incoming: Option<Incoming>,
    complete: bool,
}

/// The card that has these parameters in effect.
fn config_from(record: &SetupRecord<'_>) -> Option<Config> {
    let mut config = Config::new(PortCount::One);
    for Param { name, value } in record.params() {
        match (name, value) {
            ("num-ports", Value::Int(ports)) => config.ports = PortCount::try_from(ports).ok()?,
            ("fifo-depth", Value::Int(bytes)) => config.fifo_depth = bytes.try_into().ok()?,
            ("msi", Value::Bool(given)) => config.msi = given,
            ("compact-state", Value::Bool(given)) => config.compact_state = given,
            ("auto-flow", Value::Bool(given)) => config.auto_flow = given,
            _ => return None,
        }
    }
    Some(config)
}

impl Handler for Loading {
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
        if record.model != "rust-vfio-mdev.example/pci/serial" {
            return Err(Refusal::invalid("another model"));
        }
        let config = config_from(record).ok_or(Refusal::unsupported("an unknown parameter"))?;
        self.config = Some(config);
        self.incoming = Some(Incoming::new(&config));
        Ok(())
    }

    fn section_header(&mut self, _: &SectionHeader) -> Result<Known, Refusal> {
        Ok(Known::Yes)
    }

    fn section(&mut self, header: &SectionHeader, payload: &[u8]) -> Result<(), Refusal> {
        let incoming = self.incoming.as_mut().ok_or(Refusal::invalid("no setup"))?;
        match incoming.section(header.id - DEVICE_SECTIONS.start(), payload) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::unsupported("an unknown section")),
            Err(_) => Err(Refusal::invalid("a section that is not good")),
        }
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.complete = self.incoming.as_ref().is_some_and(Incoming::is_complete);
        Ok(())
    }
}

/// The card that a state makes.
fn load(name: &str, state: &[u8]) -> Card {
    let mut loading = Loading::default();
    let mut reader = Reader::new();
    let mut scratch = [0; 4096];
    if let Err(error) = reader.push(state, &mut scratch, &mut loading) {
        panic!("{name}: {error}");
    }
    assert!(reader.is_complete() && loading.complete, "{name}");
    assert_eq!(loading.config, Some(config_of(name)), "{name}");
    let mut card = Card::new(config_of(name));
    card.set_time(START);
    let incoming = loading.incoming.unwrap();
    incoming.apply_to(&mut card).unwrap();
    card.rekick();
    card
}

/// A register of a card.
fn read(card: &mut Card, register: u16) -> u8 {
    let mut byte = [0];
    card.read_bar0(register, &mut byte);
    byte[0]
}

fn config_space<const N: usize>(card: &mut Card, offset: u16) -> [u8; N] {
    let mut bytes = [0; N];
    card.read_config(offset, &mut bytes);
    bytes
}

#[test]
fn every_kind_of_card_of_release_0_1_0_is_there() {
    let mut names = Vec::new();
    for ports in [1, 2, 4] {
        for fifo in ["fifo-16", "fifo-64", "fifo-64-no-flow"] {
            for rest in ["", "-msi", "-compact", "-msi-compact"] {
                names.push(format!("{ports}-ports-{fifo}{rest}"));
            }
        }
    }
    names.sort();
    assert_eq!(recorded("0.1.0").into_keys().collect::<Vec<_>>(), names);
}

#[test]
fn cards_of_release_0_1_0_still_load() {
    for (name, state) in recorded("0.1.0") {
        let mut card = load(&name, &state);
        let config = config_of(&name);
        sees_the_function(&name, &mut card, &config);
        sees_a_full_receiver(&name, &mut load(&name, &state), &config);
        if config.ports.get() > 1 {
            sees_a_break_between_two_bytes(&name, &mut load(&name, &state));
        }
        if config.ports.get() > 2 {
            sees_the_modem_lines_and_a_break(&name, &mut load(&name, &state));
            sees_the_rest_of_a_time_out(&name, &mut load(&name, &state));
        }
    }
}

/// Configuration space, and an interrupt by the way that the guest has chosen.
fn sees_the_function(name: &str, card: &mut Card, config: &Config) {
    let device = [0, 0x02, 0x03, 0, 0x04][usize::from(config.ports.get())];
    assert_eq!(config_space(card, 0), [0x36, 0x1b, device, 0x00], "{name}");
    // I/O, memory, bus mastering, SERR; interrupts by pin are not disabled unless by MSI.
    let command = u16::from_le_bytes(config_space(card, 4));
    assert_eq!(command & 0x0001, 0x0001, "{name}");
    assert_eq!(config_space(card, 0x10), [0xe1, 0xc0, 0, 0], "{name}");
    assert_eq!(config_space(card, 0x3c), [11], "{name}");
    if config.msi {
        assert_eq!(
            config_space(card, 0x44),
            [0x00, 0x10, 0xe0, 0xfe, 0, 0, 0, 0],
            "{name}"
        );
        assert_eq!(config_space(card, 0x4c), [0x41, 0x40], "{name}");
        assert_eq!(config_space(card, 0x42), [0x81], "{name}");
        assert!(card.take_msi() && !card.take_msi(), "{name}");
        assert!(!card.intx_asserted(), "{name}");
    } else {
        assert!(!card.take_msi(), "{name}");
    }
}

/// The first port: nothing of what was sent is lost, and more than the FIFO holds comes back.
fn sees_a_full_receiver(name: &str, card: &mut Card, config: &Config) {
    let large = config.fifo_depth == FifoDepth::SixtyFour;
    let (depth, fifos) = if large { (64, 0xe0) } else { (16, 0xc0) };
    assert_eq!(read(card, 7), 0x5a, "{name}: scratch");
    assert_eq!(read(card, 1), 0x05, "{name}: interrupts enabled");
    assert_eq!(read(card, 3), 0x03, "{name}: line control");
    let flow = large && config.auto_flow;
    assert_eq!(
        read(card, 4),
        if flow { 0x2b } else { 0x0b },
        "{name}: modem control"
    );
    card.write_bar0(3, &[0x83]);
    assert_eq!([read(card, 0), read(card, 1)], [12, 0], "{name}: divisor");
    card.write_bar0(3, &[0x03]);
    // Data was received, and has waited for long: bit 3 tells the two apart, and either may come first.
    assert_eq!(read(card, 2) & 0xf7, fifos | 0x04, "{name}: interrupt");
    for byte in 0..if flow { depth } else { depth + 4 } {
        assert_eq!(
            read(card, 5) & 0x9f,
            0x01,
            "{name}: line status before byte {byte}"
        );
        assert_eq!(read(card, 0), 0x20 + byte, "{name}: byte {byte}");
    }
    assert_eq!(read(card, 5), 0x60, "{name}: line status");
    assert_eq!(read(card, 2), fifos | 0x01, "{name}: interrupt");
}

/// The second port: the break is in its place.
fn sees_a_break_between_two_bytes(name: &str, card: &mut Card) {
    assert_eq!(read(card, 8 + 7), 0xa5, "{name}: scratch");
    // Data ready, an error somewhere in the FIFO, the transmitter empty.
    assert_eq!(read(card, 8 + 5), 0xe1, "{name}: line status");
    assert_eq!(read(card, 8), b'x', "{name}");
    assert_eq!(
        read(card, 8 + 2),
        0xc6,
        "{name}: the line status interrupts"
    );
    assert_eq!(read(card, 8 + 5) & 0x11, 0x11, "{name}: break");
    assert_eq!(read(card, 8), 0, "{name}");
    assert_eq!(read(card, 8 + 5), 0x61, "{name}: line status");
    assert_eq!(read(card, 8), b'y', "{name}");
    assert_eq!(read(card, 8 + 5), 0x60, "{name}: line status");
    assert_eq!(read(card, 8 + 2), 0xc1, "{name}: nothing interrupts");
}

/// The time that 10 bits of 16 clocks take at 1.8432 MHz with divisor 65535, in nanoseconds.
const SLOWEST_CHARACTER: u64 = 10 * 16 * 65535 * SECOND / 1_843_200;

/// The third port. The line has been spacing for a second when the card is saved; it is a break when
/// a character's time is over, not before, and not at all if it ends before.
fn sees_the_modem_lines_and_a_break(name: &str, card: &mut Card) {
    assert_eq!(read(card, 16 + 7), 0x33, "{name}: scratch");
    // The transmitter is empty, which reading this has told; then the modem lines.
    assert_eq!(
        read(card, 16 + 2),
        0x02,
        "{name}: the transmitter interrupts"
    );
    assert_eq!(
        read(card, 16 + 2),
        0x00,
        "{name}: the modem lines interrupt"
    );
    // CTS, DSR and DCD are on, and have changed.
    assert_eq!(read(card, 16 + 6), 0xbb, "{name}: modem status");
    assert_eq!(read(card, 16 + 2), 0x01, "{name}: nothing interrupts");
    let left = SLOWEST_CHARACTER - SECOND;
    let mut other = card.clone();
    card.set_time(START + left - 1_000);
    assert_eq!(read(card, 16 + 5), 0x60, "{name}: no break yet");
    card.write_bar0(16 + 3, &[0x03]);
    card.set_time(START + 100 * SECOND);
    assert_eq!(read(card, 16 + 5), 0x60, "{name}: no break any more");
    other.set_time(START + left + 1_000);
    assert_eq!(read(&mut other, 16 + 5) & 0x11, 0x11, "{name}: a break");
}

/// The fourth port. The byte came ten seconds before the card was saved; four characters' time after
/// it came, it is reported, not before.
fn sees_the_rest_of_a_time_out(name: &str, card: &mut Card) {
    let left = 4 * SLOWEST_CHARACTER - 10 * SECOND;
    assert_eq!(read(card, 24 + 2), 0xc1, "{name}: nothing interrupts");
    card.set_time(START + left - 1_000);
    assert_eq!(read(card, 24 + 2), 0xc1, "{name}: too early");
    card.set_time(START + left + 1_000);
    assert_eq!(read(card, 24 + 2), 0xcc, "{name}: the character time-out");
    assert_eq!(read(card, 24), 0x42, "{name}");
    assert_eq!(read(card, 24 + 2), 0xc1, "{name}: nothing interrupts");
}
