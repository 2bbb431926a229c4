// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What sections a saved card has, and how long they are.

use core::fmt;

use crate::serial::config::{Config, MAX_PORTS};
use crate::serial::far_end::FAR_END_BYTES;
use crate::serial::uart::FIFO_BYTES;

/// Names a section of a saved card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(u16);

/// The number of the first port's section.
const FIRST_PORT: u16 = 0x10;

/// The number of the first port's section in compact form.
const FIRST_COMPACT_PORT: u16 = 0x20;

impl SectionId {
    /// What the card has beside its ports.
    pub const CARD: SectionId = SectionId(1);

    /// A port, counted from 0. `None`: no card has so many.
    pub const fn port(index: usize) -> Option<SectionId> {
        if index < MAX_PORTS {
            Some(SectionId(FIRST_PORT + index as u16))
        } else {
            None
        }
    }

    /// A port in compact form, counted from 0. `None`: no card has so many.
    pub const fn compact_port(index: usize) -> Option<SectionId> {
        if index < MAX_PORTS {
            Some(SectionId(FIRST_COMPACT_PORT + index as u16))
        } else {
            None
        }
    }

    /// Every port's, in order.
    pub(super) const PORTS: [SectionId; MAX_PORTS] = Self::from(FIRST_PORT);

    /// Every port's in compact form, in order.
    pub(super) const COMPACT_PORTS: [SectionId; MAX_PORTS] = Self::from(FIRST_COMPACT_PORT);

    const fn from(first: u16) -> [SectionId; MAX_PORTS] {
        let mut ids = [SectionId(first); MAX_PORTS];
        let mut i = 0;
        while i < MAX_PORTS {
            ids[i] = SectionId(first + i as u16);
            i += 1;
        }
        ids
    }

    /// The number, for the stream.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// What a number names, if anything of a serial card, and whether in compact form where there are two.
    pub(super) fn kind(number: u16) -> Option<(Section, Option<bool>)> {
        if number == Self::CARD.0 {
            return Some((Section::Card, None));
        }
        [(FIRST_PORT, false), (FIRST_COMPACT_PORT, true)]
            .into_iter()
            .find_map(|(first, compact)| {
                let index = usize::from(number.checked_sub(first)?);
                (index < MAX_PORTS).then_some((Section::Port(index), Some(compact)))
            })
    }

    /// The longest payload that a section of this number has; `None`: a card has no such section.
    pub fn max_len(number: u16) -> Option<usize> {
        match Self::kind(number)?.0 {
            Section::Card => Some(CARD_SECTION_BYTES),
            Section::Port(_) => Some(PORT_SECTION_BYTES),
        }
    }
}

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::kind(self.0) {
            Some((section, _)) => section.fmt(f),
            None => write!(f, "section {:#x}", self.0),
        }
    }
}

/// A section that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What the card has beside its ports.
    Card,
    /// A port, counted from 0.
    Port(usize),
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Section::Card => f.write_str("card"),
            Section::Port(index) => write!(f, "port {index}"),
        }
    }
}

/// Length of the card's section in bytes.
pub const CARD_SECTION_BYTES: usize = 24;

/// Length of a port's section in bytes.
pub const PORT_SECTION_BYTES: usize = 72 + 2 * FIFO_BYTES + FAR_END_BYTES;

/// Length of the longest section in bytes.
pub const MAX_SECTION_BYTES: usize = PORT_SECTION_BYTES;

/// The most sections that a card saves.
pub const MAX_SECTIONS: usize = 1 + MAX_PORTS;

/// The most bytes of payload that a card saves, over all sections.
pub const MAX_SAVED_BYTES: usize = CARD_SECTION_BYTES + MAX_PORTS * PORT_SECTION_BYTES;

/// The bytes of payload that a card of this kind saves, over all its sections.
pub const fn saved_bytes(config: &Config) -> usize {
    CARD_SECTION_BYTES + config.ports.get() as usize * PORT_SECTION_BYTES
}
