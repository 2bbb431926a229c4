// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saving and loading a card.
//!
//! A saved card is one section for the card and one for each port. Framing (lengths, flags,
//! checksums) is somebody else's business. All integers are little-endian; a field that is not named
//! is zero.
//!
//! [`SectionId::CARD`], 24 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | PCI device ID |
//! | 2 | 1 | number of ports |
//! | 3 | 1 | FIFO depth in bytes |
//! | 4 | 1 | bit 0: has MSI; bit 1: MSI enabled; bit 2: 16750 without automatic flow control |
//! | 5 | 1 | interrupt line register |
//! | 6 | 2 | command register |
//! | 8 | 4 | BAR 0, address bits |
//! | 12 | 2 | MSI data |
//! | 16 | 8 | MSI address |
//!
//! [`SectionId::port`], 456 bytes; [`SectionId::compact_port`], the same without the zeroes at its end, where
//! [`Config::compact_state`] says so:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | interrupt enable register |
//! | 1 | 1 | FIFO control register: enable, DMA mode, 64 bytes, trigger |
//! | 2 | 1 | line control register |
//! | 3 | 1 | modem control register |
//! | 4 | 1 | line status register: the error bits 1–4 |
//! | 5 | 1 | modem status register: the delta bits 0–3 |
//! | 6 | 1 | scratch register |
//! | 7 | 1 | bit 0: transmitter-empty interrupt pending; bit 1: character time-out pending; bit 2: RTS held by automatic flow control; bit 3: MSI message due |
//! | 8 | 2 | divisor latch |
//! | 10 | 1 | characters in the receiver |
//! | 11 | 1 | characters in the transmitter |
//! | 12 | 2 | characters at the far end |
//! | 16 | 8 | nanoseconds until the character time-out; 0: none is wanted |
//! | 24 | 8 | nanoseconds until the spacing line is a break; 0: it will not be one |
//! | 32 | 8 | which characters in the receiver are breaks (bit i: the i-th oldest) |
//! | 40 | 32 | which characters at the far end are breaks, likewise |
//! | 72 | 64 | the characters in the receiver, oldest first |
//! | 136 | 64 | the characters in the transmitter, oldest first |
//! | 200 | 256 | the characters at the far end, oldest first |

use super::card::{Card, Port};
use super::config::{Config, MAX_PORTS};
use super::far_end::FAR_END_BYTES;
use super::fifo::Symbol;
use super::pci::Pci;
use super::registers::{fcr, lsr, msr};
use super::timeout;
use super::uart::FIFO_BYTES;

mod error;
mod fields;
mod section;
#[cfg(test)]
mod tests;

pub use error::LoadError;
pub use section::{
    saved_bytes, Section, SectionId, CARD_SECTION_BYTES, MAX_SAVED_BYTES, MAX_SECTIONS,
    MAX_SECTION_BYTES, PORT_SECTION_BYTES,
};

use fields::{Reader, Writer};

/// Bits of the card section's flags.
mod card_flags {
    pub(super) const HAS_MSI: u8 = 0x01;
    pub(super) const MSI_ENABLED: u8 = 0x02;
    pub(super) const NO_AUTO_FLOW: u8 = 0x04;
    pub(super) const MASK: u8 = HAS_MSI | MSI_ENABLED | NO_AUTO_FLOW;
}

/// Bits of a port section's flags.
mod port_flags {
    pub(super) const THRE_PENDING: u8 = 0x01;
    pub(super) const TIMEOUT_PENDING: u8 = 0x02;
    pub(super) const RTS_HELD: u8 = 0x04;
    pub(super) const MESSAGE_DUE: u8 = 0x08;
    pub(super) const MASK: u8 = THRE_PENDING | TIMEOUT_PENDING | RTS_HELD | MESSAGE_DUE;
}

/// Takes one section of a card that is saved; its error ends the saving.
pub type Emit<'a, E> = dyn FnMut(SectionId, &[u8]) -> Result<(), E> + 'a;

impl Card {
    /// Saves the card: hands out one section after the other, and stops at the first error. The card
    /// itself is unchanged.
    pub fn save<E>(&self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let mut card = [0; CARD_SECTION_BYTES];
        write_card(self, &mut card);
        emit(SectionId::CARD, &card)?;
        let mut payload = [0; PORT_SECTION_BYTES];
        // Where the last port's fields ended.
        let mut used = 0;
        for (i, port) in self.ports().iter().enumerate() {
            let (stale, _) = payload.split_at_mut(used);
            stale.fill(0);
            write_port(port, self.now(), &mut payload);
            used = used_bytes(port);
            match self.config().compact_state {
                false => emit(SectionId::PORTS[i], &payload)?,
                true => emit(
                    SectionId::COMPACT_PORTS[i],
                    without_trailing_zeroes(payload.get(..used).unwrap_or(&payload)),
                )?,
            }
        }
        Ok(())
    }
}

/// Where a port's fields end that can be other than zero.
fn used_bytes(port: &Port) -> usize {
    const RECEIVED: usize = PORT_SECTION_BYTES - FAR_END_BYTES - 2 * FIFO_BYTES;
    const TO_TRANSMIT: usize = RECEIVED + FIFO_BYTES;
    const FAR_AWAY: usize = TO_TRANSMIT + FIFO_BYTES;
    const BREAKS: usize = RECEIVED - (FIFO_BYTES + FAR_END_BYTES) / 8;

    let uart = &port.uart;
    match (uart.far.len(), uart.tx.len(), uart.rx.len()) {
        (0, 0, 0) => BREAKS,
        (0, 0, received) => RECEIVED + received,
        (0, to_transmit, _) => TO_TRANSMIT + to_transmit,
        (far_away, ..) => FAR_AWAY + far_away,
    }
}

/// What is left when the zeroes at the end are cut off; at least one byte.
fn without_trailing_zeroes(payload: &[u8]) -> &[u8] {
    let whole = payload.rchunks_exact(WORD).take_while(|word| is_zero(word));
    let (start, _) = payload.split_at(payload.len() - whole.count() * WORD);
    let last = start.iter().rposition(|&byte| byte != 0).unwrap_or(0);
    payload.get(..=last).unwrap_or(payload)
}

fn write_card(card: &Card, payload: &mut [u8; CARD_SECTION_BYTES]) {
    let config = card.config();
    let pci = &card.pci;
    let mut flags = 0;
    if config.msi {
        flags |= card_flags::HAS_MSI;
    }
    if pci.msi_enable {
        flags |= card_flags::MSI_ENABLED;
    }
    if !config.auto_flow {
        flags |= card_flags::NO_AUTO_FLOW;
    }
    let mut out = Writer::new(payload);
    out.u16(config.ports.device_id());
    out.u8(config.ports.get());
    out.u8(config.fifo_depth.get());
    out.u8(flags);
    out.u8(pci.interrupt_line);
    out.u16(pci.command);
    out.u32(pci.bar0);
    out.u16(pci.msi_data);
    out.u16(0);
    out.u64(pci.msi_address);
}

fn write_port(port: &Port, now: u64, payload: &mut [u8; PORT_SECTION_BYTES]) {
    let uart = &port.uart;
    let mut flags = 0;
    for (set, flag) in [
        (uart.thre_pending, port_flags::THRE_PENDING),
        (uart.timeout_pending, port_flags::TIMEOUT_PENDING),
        (uart.rts_held, port_flags::RTS_HELD),
        (port.message_due, port_flags::MESSAGE_DUE),
    ] {
        if set {
            flags |= flag;
        }
    }
    let mut out = Writer::new(payload);
    out.u8(uart.ier);
    out.u8(uart.fcr);
    out.u8(uart.lcr);
    out.u8(uart.mcr);
    out.u8(uart.errors);
    out.u8(uart.deltas);
    out.u8(uart.scr);
    out.u8(flags);
    out.u16(uart.divisor);
    out.u8(uart.rx.len() as u8);
    out.u8(uart.tx.len() as u8);
    out.u16(uart.far.len() as u16);
    out.u16(0);
    for due in [uart.deadline, uart.break_due] {
        out.u64(due.map_or(0, |due| due.saturating_sub(now).max(1)));
    }
    out.breaks(uart.rx.iter(), FIFO_BYTES / 8);
    out.breaks(uart.far.iter(), FAR_END_BYTES / 8);
    out.bytes(uart.rx.iter(), FIFO_BYTES);
    out.bytes(uart.tx.iter(), FIFO_BYTES);
    out.bytes(uart.far.iter(), FAR_END_BYTES);
}

/// A card that is being loaded: takes its sections, in any order, and touches no live card until all
/// of them were good.
#[derive(Clone, Debug)]
pub struct Incoming {
    card: Card,
    /// Bit 0: the card's section came; bit 1 + i: port i's did.
    seen: u8,
}

impl Incoming {
    /// Expects a card of this kind. The value is some 2 KiB: build it where it is to live.
    pub const fn new(config: &Config) -> Incoming {
        Incoming {
            card: Card::new(*config),
            seen: 0,
        }
    }

    /// Forgets what came, and expects a card of this kind, in place.
    pub fn restart(&mut self, config: &Config) {
        self.card.reconfigure(*config);
        self.seen = 0;
    }

    /// Takes a section. `Ok(false)`: this is no section of a serial card, and was ignored; whether
    /// that matters is the framing's decision. A section that is refused changes nothing.
    pub fn section(&mut self, id: u16, payload: &[u8]) -> Result<bool, LoadError> {
        let Some((section, form)) = SectionId::kind(id) else {
            return Ok(false);
        };
        if form.is_some_and(|compact| compact != self.card.config().compact_state) {
            return Ok(false);
        }
        if let Section::Port(index) = section {
            let ports = self.card.config().ports.get();
            if index >= usize::from(ports) {
                return Err(LoadError::NoSuchPort { index, ports });
            }
        }
        let bit = seen_bit(section);
        if self.seen & bit != 0 {
            return Err(LoadError::Duplicate(section));
        }
        match section {
            Section::Card => self.load_card(payload)?,
            Section::Port(index) => self.load_port(index, payload)?,
        }
        self.seen |= bit;
        Ok(true)
    }

    /// Whether every section came.
    pub fn is_complete(&self) -> bool {
        self.missing().is_none()
    }

    /// The card as it is known so far; what has not come is in power-on state.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Gives the loaded state to a card, which keeps its clock. An error leaves the card unchanged.
    pub fn apply_to(&self, card: &mut Card) -> Result<(), LoadError> {
        if let Some(section) = self.missing() {
            return Err(LoadError::Missing(section));
        }
        if card.config() != self.card.config() {
            return Err(LoadError::OtherCard);
        }
        self.check_messages()?;
        let (then, now) = (self.card.now(), card.now());
        card.pci.clone_from(&self.card.pci);
        for (to, from) in card.ports_mut().iter_mut().zip(self.card.ports()) {
            to.uart.copy_from(&from.uart);
            to.message_due = from.message_due;
            for due in [&mut to.uart.deadline, &mut to.uart.break_due] {
                *due = due.map(|due| now.saturating_add(due.saturating_sub(then)));
            }
        }
        card.adopt_ports();
        Ok(())
    }

    fn missing(&self) -> Option<Section> {
        let ports = usize::from(self.card.config().ports.get());
        core::iter::once(Section::Card)
            .chain((0..ports).map(Section::Port))
            .find(|&section| self.seen & seen_bit(section) == 0)
    }

    fn load_card(&mut self, payload: &[u8]) -> Result<(), LoadError> {
        let section = Section::Card;
        let payload = exactly::<CARD_SECTION_BYTES>(section, payload)?;
        let config = self.card.config();
        let mut input = Reader::new(payload);
        let mut pci = Pci::new();

        let expect = |what, expected: u16, found: u16| {
            if expected == found {
                Ok(())
            } else {
                Err(LoadError::Config {
                    what,
                    expected,
                    found,
                })
            }
        };
        expect("PCI device ID", config.ports.device_id(), input.u16())?;
        expect(
            "number of ports",
            u16::from(config.ports.get()),
            u16::from(input.u8()),
        )?;
        expect(
            "FIFO depth",
            u16::from(config.fifo_depth.get()),
            u16::from(input.u8()),
        )?;
        let flags = bits(section, "flags", input.u8(), card_flags::MASK)?;
        let has_msi = flags & card_flags::HAS_MSI != 0;
        expect("MSI capability", u16::from(config.msi), u16::from(has_msi))?;
        let auto_flow = flags & card_flags::NO_AUTO_FLOW == 0;
        expect(
            "automatic flow control",
            u16::from(config.auto_flow),
            u16::from(auto_flow),
        )?;

        pci.msi_enable = flags & card_flags::MSI_ENABLED != 0;
        pci.interrupt_line = input.u8();
        pci.command = input.u16();
        pci.bar0 = input.u32();
        pci.msi_data = input.u16();
        zero(section, input.u16())?;
        pci.msi_address = input.u64();
        if let Some(rule) = pci.broken_rule(config) {
            return Err(LoadError::Inconsistent { section, rule });
        }
        self.card.pci = pci;
        Ok(())
    }

    fn load_port(&mut self, index: usize, payload: &[u8]) -> Result<(), LoadError> {
        let section = Section::Port(index);
        match (self.card.config().compact_state, payload) {
            (false, _) => {
                exactly::<PORT_SECTION_BYTES>(section, payload)?;
            }
            // There is one way to write it: nothing is left to cut off.
            (true, [.., 0]) if payload.len() > 1 => return Err(LoadError::Unused { section }),
            (true, _) if (1..=PORT_SECTION_BYTES).contains(&payload.len()) => {}
            (true, _) => {
                return Err(LoadError::Length {
                    section,
                    expected: PORT_SECTION_BYTES,
                    found: payload.len(),
                })
            }
        }
        let chip = self.card.config().chip();
        // The index was compared with the number of ports. What has not come is in power-on state, and is again if it is refused.
        if let Some(port) = self.card.ports_mut().get_mut(index) {
            read_port(section, port, payload)
                .and_then(|()| match port.uart.broken_rule() {
                    Some(rule) => Err(LoadError::Inconsistent { section, rule }),
                    None => Ok(()),
                })
                .inspect_err(|_| *port = Port::new(chip))?;
        }
        self.card.adopt_ports();
        Ok(())
    }

    /// A message can be due only where one can be sent. It takes two sections to tell.
    fn check_messages(&self) -> Result<(), LoadError> {
        if self.card.pci.msi_active() {
            return Ok(());
        }
        match self.card.ports().iter().position(|port| port.message_due) {
            Some(index) => Err(LoadError::Inconsistent {
                section: Section::Port(index),
                rule: "MSI message due though MSI is not active",
            }),
            None => Ok(()),
        }
    }
}

/// Reads a port at time 0. What is not there was cut off, and is zero.
fn read_port(section: Section, port: &mut Port, payload: &[u8]) -> Result<(), LoadError> {
    let chip = port.uart.chip;
    let mut input = Reader::new(payload);
    let uart = &mut port.uart;
    uart.ier = bits(
        section,
        "interrupt enable register",
        input.u8(),
        chip.ier_mask(),
    )?;
    uart.fcr = read_fcr(section, input.u8(), chip.fifo64_mask())?;
    uart.lcr = input.u8();
    uart.mcr = bits(
        section,
        "modem control register",
        input.u8(),
        chip.mcr_mask(),
    )?;
    uart.errors = bits(section, "line status register", input.u8(), lsr::ERRORS)?;
    uart.deltas = bits(section, "modem status register", input.u8(), msr::DELTAS)?;
    uart.scr = input.u8();
    let flags = bits(section, "flags", input.u8(), port_flags::MASK)?;
    uart.thre_pending = flags & port_flags::THRE_PENDING != 0;
    uart.timeout_pending = flags & port_flags::TIMEOUT_PENDING != 0;
    uart.rts_held = flags & port_flags::RTS_HELD != 0;
    port.message_due = flags & port_flags::MESSAGE_DUE != 0;
    uart.divisor = input.u16();

    let fifo = usize::from(chip.depth.get());
    let received = count(section, "receiver", u16::from(input.u8()), fifo)?;
    let to_transmit = count(section, "transmitter", u16::from(input.u8()), fifo)?;
    let far_away = count(section, "far end", input.u16(), FAR_END_BYTES)?;
    zero(section, input.u16())?;
    uart.deadline = delay(section, input.u64())?;
    uart.break_due = delay(section, input.u64())?;

    let received_breaks = input.slice(FIFO_BYTES / 8);
    let far_breaks = input.slice(FAR_END_BYTES / 8);
    symbols(
        section,
        received,
        input.slice(FIFO_BYTES),
        received_breaks,
        |symbol| uart.rx.push(symbol),
    )?;
    symbols(
        section,
        to_transmit,
        input.slice(FIFO_BYTES),
        &[],
        |symbol| uart.tx.push(symbol),
    )?;
    symbols(
        section,
        far_away,
        input.slice(FAR_END_BYTES),
        far_breaks,
        |symbol| uart.far.receive(symbol),
    )?;
    uart.adopt_lines();
    Ok(())
}

/// The other bits are not programmed while the FIFOs are off; the 64-byte bit has its own lock.
fn read_fcr(section: Section, value: u8, fifo64: u8) -> Result<u8, LoadError> {
    let mask = if value & fcr::ENABLE != 0 {
        fcr::ENABLE | fcr::DMA | fcr::TRIGGER | fifo64
    } else {
        fifo64
    };
    bits(section, "FIFO control register", value, mask)
}

/// Reads the symbols of one queue, and checks that what lies behind them is zero.
fn symbols(
    section: Section,
    count: usize,
    bytes: &[u8],
    breaks: &[u8],
    mut push: impl FnMut(Symbol) -> bool,
) -> Result<(), LoadError> {
    for i in 0..count {
        let byte = bytes.get(i).copied().unwrap_or(0);
        let marks = breaks.get(i / 8).copied().unwrap_or(0);
        let symbol = match (marks & (1 << (i % 8)) != 0, byte) {
            (true, 0) => Symbol::Break,
            (true, _) => return Err(LoadError::Unused { section }),
            (false, byte) => Symbol::Byte(byte),
        };
        // The count was compared with the room.
        let _ = push(symbol);
    }
    let unused = bytes.get(count..).unwrap_or_default();
    let marked = match breaks.get(count / 8..) {
        Some([first, rest @ ..]) => first >> (count % 8) != 0 || !is_zero(rest),
        _ => false,
    };
    if marked || !is_zero(unused) {
        return Err(LoadError::Unused { section });
    }
    Ok(())
}

/// Bytes that are looked at together.
const WORD: usize = 8;

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    let words = bytes.chunks_exact(WORD);
    words.remainder().iter().all(|&byte| byte == 0)
        && words
            .map(|word| word.try_into().map_or(1, u64::from_ne_bytes))
            .all(|word| word == 0)
}

fn seen_bit(section: Section) -> u8 {
    match section {
        Section::Card => 1,
        Section::Port(index) => 2 << (index % MAX_PORTS),
    }
}

fn exactly<const N: usize>(section: Section, payload: &[u8]) -> Result<&[u8; N], LoadError> {
    payload.try_into().map_err(|_| LoadError::Length {
        section,
        expected: N,
        found: payload.len(),
    })
}

fn bits(section: Section, what: &'static str, value: u8, mask: u8) -> Result<u8, LoadError> {
    if value & !mask == 0 {
        Ok(value)
    } else {
        Err(LoadError::ReservedBits {
            section,
            what,
            bits: value & !mask,
        })
    }
}

fn zero(section: Section, value: u16) -> Result<(), LoadError> {
    if value == 0 {
        Ok(())
    } else {
        Err(LoadError::Unused { section })
    }
}

/// A delay, from time 0.
fn delay(section: Section, ns: u64) -> Result<Option<u64>, LoadError> {
    match ns {
        0 => Ok(None),
        ns if ns > timeout::MAX_DELAY_NS => Err(LoadError::Timeout { section, ns }),
        ns => Ok(Some(ns)),
    }
}

fn count(
    section: Section,
    what: &'static str,
    found: u16,
    most: usize,
) -> Result<usize, LoadError> {
    let count = usize::from(found);
    if count <= most {
        Ok(count)
    } else {
        Err(LoadError::Count {
            section,
            what,
            found,
            most,
        })
    }
}
