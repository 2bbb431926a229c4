// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The byte stream between two devices, whatever carries it: made piece by piece while a device is saved, and taken apart as it
//! arrives while one is loaded.
//!
//! A device's state has two parts. What can only be saved once the device has stopped is small and
//! bounded: [`Device::save`] emits all of it, and it is held in memory. **Bulk state**, a disk or a
//! memory, can be of any size. It is sent section by section while the device runs, what changed
//! meanwhile again, and the rest after the stop: [`Device::next_section`] gives one section at a
//! time, into the only buffer that there is for it.
//!
//! ```text
//! pre-copy      = setup(phase 1) bulk*
//! stop-and-copy = setup(phase 2) bulk* saved* end
//! ```
//!
//! [`Saving`] makes the stream and knows how much of it is left; whoever reads it holds a [`Chunk`]
//! with the bytes that are on their way, so that they can be copied without a lock and come again if
//! that failed. [`Resuming`] takes the stream, into a copy of the state that replaces the device's
//! only when all of it has come. [`machine`] has the states that a device passes through with them.

use crate::model::Values;
use crate::stream::{self, Refusal, SliceFull, WriteError};
use core::fmt;

pub mod machine;
mod resuming;
mod saving;

#[cfg(test)]
mod tests;

pub use crate::stream::Phase;
pub use resuming::{CommitError, Resuming};
pub use saving::{Chunk, Left, Saving};

/// There is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// Memory that a session keeps bytes in, as much as it takes; it need not be contiguous for the machine.
pub trait Buffer {
    /// Nothing yet, and no memory.
    fn empty() -> Self;
    /// What was put in.
    fn bytes(&self) -> &[u8];
    /// The same, to be changed.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Room for so many bytes more.
    fn reserve(&mut self, more: usize) -> Result<(), NoMemory>;
    /// Puts bytes behind the others: all, or none.
    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory>;
    /// Has at least so many bytes; those that are new are 0.
    fn lengthen(&mut self, len: usize) -> Result<(), NoMemory>;
    /// Forgets all but so many bytes.
    fn truncate(&mut self, len: usize);
}

#[cfg(any(test, feature = "alloc"))]
impl Buffer for alloc::vec::Vec<u8> {
    fn empty() -> Self {
        Self::new()
    }

    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn reserve(&mut self, more: usize) -> Result<(), NoMemory> {
        self.try_reserve(more).map_err(|_| NoMemory)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        self.try_reserve(bytes.len()).map_err(|_| NoMemory)?;
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn lengthen(&mut self, len: usize) -> Result<(), NoMemory> {
        if let Some(more) = len.checked_sub(self.len()) {
            self.try_reserve(more).map_err(|_| NoMemory)?;
            self.resize(len, 0);
        }
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        Self::truncate(self, len);
    }
}

/// Why a piece of the stream could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no memory.
    NoMemory,
    /// The device model breaks a limit of the format, for this reason.
    Record(&'static str),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "there is no memory",
            Self::Record(problem) => problem,
        })
    }
}

const PAYLOAD: &str = "the payload has not the length of its section";

impl From<WriteError<NoMemory>> for Failure {
    fn from(error: WriteError<NoMemory>) -> Self {
        match error {
            WriteError::Sink(NoMemory) => Self::NoMemory,
            WriteError::Record(problem) => Self::Record(problem),
            WriteError::PayloadLength => Self::Record(PAYLOAD),
        }
    }
}

impl From<WriteError<SliceFull>> for Failure {
    fn from(error: WriteError<SliceFull>) -> Self {
        match error {
            WriteError::Record(problem) => Self::Record(problem),
            WriteError::Sink(SliceFull) | WriteError::PayloadLength => Self::Record(PAYLOAD),
        }
    }
}

/// How much is saved: payloads, without framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedSize {
    /// Bytes in all sections together, without framing.
    pub bytes: usize,
    /// Number of sections.
    pub sections: usize,
}

impl SavedSize {
    /// So many sections, each of so many bytes.
    pub const fn of(sections: usize, bytes: usize) -> Self {
        Self {
            bytes: sections.saturating_mul(bytes),
            sections,
        }
    }

    /// Bytes that it takes in a stream.
    pub const fn framed(self) -> usize {
        self.bytes
            .saturating_add(self.sections.saturating_mul(stream::section_len(0)))
    }
}

/// How much bulk state is still to be sent, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// What was there when sending began and was not sent yet. Never grows while it is sent.
    pub initial: SavedSize,
    /// What has changed since. Nothing when sending begins.
    pub dirty: SavedSize,
}

impl Remaining {
    /// Bytes that it takes in a stream.
    pub const fn framed(self) -> usize {
        self.initial.framed().saturating_add(self.dirty.framed())
    }

    /// Whether nothing is to be sent.
    pub const fn is_nothing(self) -> bool {
        self.initial.sections == 0 && self.dirty.sections == 0
    }
}

/// Takes one section of a device that is saved: its number and payload. Its error ends the saving.
pub type Emit<'a, E> = dyn FnMut(u16, &[u8]) -> Result<(), E> + 'a;

/// What a session needs of a device. Sections are numbered by the device, from 0.
pub trait Device {
    /// Why it cannot be saved or changed.
    type Error;
    /// State that is being loaded.
    type Incoming;

    /// The error of a piece that could not be made.
    fn error(failure: Failure) -> Self::Error;

    /// The most that [`Device::save`] emits.
    fn saved_size(&self) -> SavedSize;
    /// Saves what is saved when the device has stopped, as sections.
    fn save(&self, emit: &mut Emit<'_, Self::Error>) -> Result<(), Self::Error>;

    /// The longest payload that [`Device::next_section`] gives; 0 for a device without bulk state.
    /// Does not change.
    fn max_sent_section(&self) -> usize {
        0
    }
    /// What of the bulk state is still to be sent; what would be, while nothing is being sent.
    fn remaining(&self) -> Remaining {
        Remaining::default()
    }
    /// The next section of bulk state, into `payload` of [`Device::max_sent_section`] bytes: its number and length. It
    /// counts as sent. `None` if nothing is left.
    fn next_section(&mut self, payload: &mut [u8]) -> Option<(u16, usize)> {
        let _ = payload;
        None
    }

    /// The longest payload that the section may have; `None` if it is not known.
    fn section_len(&self, id: u16) -> Option<usize>;
    /// Takes one section, which came in this phase. A refusal may have a longer reason.
    fn load(
        incoming: &mut Self::Incoming,
        phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn fmt::Write,
    ) -> Result<(), Refusal>;
    /// Whether every section that the state needs has been taken.
    fn is_complete(incoming: &Self::Incoming) -> bool;
    /// Replaces the state by what was loaded, which is complete. Changes nothing if it fails.
    fn commit(
        &mut self,
        incoming: &mut Self::Incoming,
        reason: &mut dyn fmt::Write,
    ) -> Result<(), Self::Error>;
}

/// Bytes of the stream that stop-and-copy gives beside bulk state, at most.
pub fn stop_copy_len<D: Device>(values: &Values<'_>, device: &D) -> usize {
    stream::setup_len(values.model().name, values.effective())
        .saturating_add(device.saved_size().framed())
        .saturating_add(stream::END_LEN)
}

/// Bytes that are to be transferred until the device is saved, at most: of the session if there is one, otherwise of one that
/// starts now. Never 0.
pub fn data_size<B: Buffer, D: Device>(
    values: &Values<'_>,
    device: &D,
    saving: Option<&Saving<B>>,
) -> usize {
    match saving {
        None => stop_copy_len(values, device).saturating_add(device.remaining().framed()),
        Some(saving) => {
            let left = saving.left(device).total();
            match saving.phase() {
                Phase::PreCopy => left.saturating_add(stop_copy_len(values, device)),
                Phase::StopCopy => left.max(stream::END_LEN),
            }
        }
    }
}

/// The number that a device's section has in a stream: the format keeps the lowest ones for itself.
fn wire_id(id: u16) -> Result<u16, Failure> {
    stream::DEVICE_SECTIONS
        .start()
        .checked_add(id)
        .ok_or(Failure::Record("the section id is not a device's"))
}

/// The device's number of a section in a stream.
fn device_id(wire: u16) -> Option<u16> {
    wire.checked_sub(*stream::DEVICE_SECTIONS.start())
}
