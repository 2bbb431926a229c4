// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Why a device is not saved, and why a saved one is refused.

use core::fmt;

use super::SectionId;
use crate::virtio::RestoreError;

/// Why a device was not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveError<E> {
    /// A queue is being served.
    Busy,
    /// A section was not taken.
    Sink(E),
}

impl<E: fmt::Display> fmt::Display for SaveError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("a queue of the device is being served"),
            Self::Sink(error) => error.fmt(f),
        }
    }
}

/// Why a saved device is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// No device of this kind has a section with this number.
    NoSuchSection(u16),
    /// A section of the registers was saved while the device ran, when they can change.
    Running,
    /// A section for a queue that this device does not have.
    NoSuchQueue {
        /// The queue, counted from 0.
        index: usize,
        /// How many this device has.
        queues: u16,
    },
    /// A section of the registers came twice.
    Duplicate(SectionId),
    /// A section did not come.
    Missing(SectionId),
    /// A section has not the length that its layout has.
    Length {
        /// Which.
        section: SectionId,
        /// The length of the layout.
        expected: usize,
        /// The length that came.
        found: usize,
    },
    /// The saved device is of another kind.
    Kind,
    /// The device that should take over the state is of another kind than was expected at the start.
    OtherDevice,
    /// Bits or bytes that have no meaning are set in this section.
    Unused(SectionId),
    /// There are no such blocks.
    NoSuchBlock {
        /// The first of them.
        block: u32,
        /// How many.
        count: u32,
        /// How many this medium has.
        blocks: u32,
    },
    /// There is no memory for this block.
    NoSpace(u32),
    /// The registers are wrong.
    Registers(RestoreError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchSection(number) => write!(f, "no section has the number {number:#06x}"),
            Self::Running => f.write_str("registers were saved while the disk ran"),
            Self::NoSuchQueue { index, queues } => {
                write!(f, "queue {index} of a device that has {queues}")
            }
            Self::Duplicate(section) => write!(f, "{section} came twice"),
            Self::Missing(section) => write!(f, "{section} did not come"),
            Self::Length {
                section,
                expected,
                found,
            } => write!(f, "{section} has {found} bytes, not {expected}"),
            Self::Kind => f.write_str(
                "the saved device has another capacity, other queues, features or serial number",
            ),
            Self::OtherDevice => f.write_str("the device is another one than was expected"),
            Self::Unused(section) => write!(f, "{section}: what is not used is not zero"),
            Self::NoSuchBlock {
                block,
                count,
                blocks,
            } => write!(
                f,
                "{count} blocks from {block} on, of a medium that has {blocks}"
            ),
            Self::NoSpace(block) => write!(f, "there is no memory for block {block}"),
            Self::Registers(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LoadError {}

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SectionId::DEVICE => f.write_str("the device's section"),
            SectionId::VECTORS => f.write_str("the vectors' section"),
            SectionId::BLOCK => f.write_str("a block's section"),
            SectionId::ZERO => f.write_str("a section of zeroes"),
            _ => write!(f, "queue {}'s section", self.queue_index().unwrap_or(0)),
        }
    }
}
