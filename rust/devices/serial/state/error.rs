// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Why a saved card is refused.

use core::fmt;

use super::section::Section;

/// Why a saved card is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// A section for a port that this card does not have.
    NoSuchPort {
        /// The port, counted from 0.
        index: usize,
        /// How many this card has.
        ports: u8,
    },
    /// A section came twice.
    Duplicate(Section),
    /// A section did not come.
    Missing(Section),
    /// A section has not the length that its layout has.
    Length {
        /// Which.
        section: Section,
        /// The length of the layout.
        expected: usize,
        /// The length that came.
        found: usize,
    },
    /// The saved card is of another kind.
    Config {
        /// In what it differs.
        what: &'static str,
        /// What this card has.
        expected: u16,
        /// What the saved card had.
        found: u16,
    },
    /// The card that should take over the state is of another kind than was expected at the start.
    OtherCard,
    /// A register holds bits that the chip does not store.
    ReservedBits {
        /// Of which section.
        section: Section,
        /// Which register.
        what: &'static str,
        /// The bits.
        bits: u8,
    },
    /// A queue holds more than fits.
    Count {
        /// Of which section.
        section: Section,
        /// Which queue.
        what: &'static str,
        /// How much it holds.
        found: u16,
        /// How much fits.
        most: usize,
    },
    /// A time-out or break is farther away than the slowest line makes it.
    Timeout {
        /// Of which section.
        section: Section,
        /// How far, in nanoseconds.
        ns: u64,
    },
    /// Something is where the layout has nothing.
    Unused {
        /// In which section.
        section: Section,
    },
    /// Values that are possible, but not together.
    Inconsistent {
        /// In which section.
        section: Section,
        /// What should not be.
        rule: &'static str,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::NoSuchPort { index, ports } => {
                write!(f, "port {index}: this card has {ports}, counted from 0")
            }
            LoadError::Duplicate(section) => write!(f, "{section}: came twice"),
            LoadError::Missing(section) => write!(f, "{section}: did not come"),
            LoadError::Length {
                section,
                expected,
                found,
            } => write!(f, "{section}: {found} bytes instead of {expected}"),
            LoadError::Config {
                what,
                expected,
                found,
            } => write!(f, "card: {what} is {found}, this card has {expected}"),
            LoadError::OtherCard => f.write_str("card: changed its kind while it was loaded"),
            LoadError::ReservedBits {
                section,
                what,
                bits,
            } => write!(f, "{section}: reserved bits {bits:#04x} in the {what}"),
            LoadError::Count {
                section,
                what,
                found,
                most,
            } => write!(f, "{section}: {found} bytes in the {what}, room for {most}"),
            LoadError::Timeout { section, ns } => {
                write!(f, "{section}: time-out or break in {ns} ns is too far away")
            }
            LoadError::Unused { section } => {
                write!(f, "{section}: unused bytes are not zero")
            }
            LoadError::Inconsistent { section, rule } => write!(f, "{section}: {rule}"),
        }
    }
}

impl core::error::Error for LoadError {}
