// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saving and loading a device.
//!
//! A saved device is the registers (one section for the device, one for its vectors, one for each queue), and the medium in any
//! number of sections, also before those. Framing (lengths, flags, checksums) is somebody else's business.
//! All integers are little-endian; a field that is not named is zero.
//!
//! [`SectionId::DEVICE`], 312 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | capacity in MiB |
//! | 2 | 2 | number of queues |
//! | 4 | 2 | descriptors of a queue |
//! | 6 | 1 | bit 0: read-only; bit 1: discards and writes zeroes |
//! | 8 | 20 | serial number |
//! | 32 | 256 | configuration space |
//! | 288 | 4 | `device_feature_select` |
//! | 292 | 4 | `driver_feature_select` |
//! | 296 | 8 | features that the driver accepted |
//! | 304 | 2 | `config_msix_vector` |
//! | 306 | 1 | `device_status` |
//! | 307 | 1 | `config_generation` |
//! | 308 | 1 | interrupt status |
//! | 310 | 2 | `queue_select` |
//!
//! [`SectionId::VECTORS`], 8 bytes and 16 for each vector:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | bit i: the message of vector i was not sent yet |
//! | 8 + 16 i | 8 | address |
//! | 16 + 16 i | 4 | data |
//! | 20 + 16 i | 4 | bit 0: masked |
//!
//! [`SectionId::queue`], 32 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | size |
//! | 2 | 1 | bit 0: enabled; bit 1: wrap counter of the next place |
//! | 4 | 2 | vector |
//! | 6 | 2 | index of the next place |
//! | 8 | 8 | address of the descriptors |
//! | 16 | 8 | address of the driver's event suppression structure |
//! | 24 | 8 | address of the device's event suppression structure |
//!
//! [`SectionId::BLOCK`], 8 bytes and [`BLOCK_BYTES`]: number of the block (4), then, at 8, what it holds.
//!
//! [`SectionId::ZERO`], 8 bytes: number of a block (4), how many from it on (4) do not exist.

use super::config::{MAX_QUEUES, MAX_VECTORS};
use super::device::{Device, Function};
use super::disk::{Medium, BLOCK_BYTES};
use super::Config;
use crate::fields::{Reader, Writer};
use crate::pci::{MsixEntry, MsixState};
use crate::virtio::{FunctionState, QueueState, TransportState};

mod error;
mod incoming;

pub use error::{LoadError, SaveError};
pub use incoming::Incoming;

/// Names a section of a saved device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(u16);

/// The number of the first queue's section.
const FIRST_QUEUE: u16 = 0x10;

impl SectionId {
    /// The device: its kind, and its registers beside those of vectors and queues.
    pub const DEVICE: SectionId = SectionId(1);
    /// The vectors.
    pub const VECTORS: SectionId = SectionId(2);
    /// A block of the medium.
    pub const BLOCK: SectionId = SectionId(0x40);
    /// A row of blocks that do not exist.
    pub const ZERO: SectionId = SectionId(0x41);

    /// A queue, counted from 0. `None`: no device has so many.
    pub const fn queue(index: usize) -> Option<SectionId> {
        match index < MAX_QUEUES {
            true => Some(SectionId(FIRST_QUEUE + index as u16)),
            false => None,
        }
    }

    /// The number, for the stream.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// What a number names, if anything of a block device.
    pub fn of(number: u16) -> Option<SectionId> {
        let queue = number.checked_sub(FIRST_QUEUE).map(usize::from);
        match SectionId(number) {
            known @ (Self::DEVICE | Self::VECTORS | Self::BLOCK | Self::ZERO) => Some(known),
            _ => queue.and_then(SectionId::queue),
        }
    }

    /// Whether it tells of the medium.
    pub const fn is_of_medium(self) -> bool {
        matches!(self, Self::BLOCK | Self::ZERO)
    }

    /// The queue whose section it is.
    fn queue_index(self) -> Option<usize> {
        let index = usize::from(self.0.checked_sub(FIRST_QUEUE)?);
        (index < MAX_QUEUES).then_some(index)
    }

    /// The length of the payload that it has in a device of this kind.
    pub fn len(self, config: &Config) -> usize {
        match self {
            Self::DEVICE => DEVICE_SECTION_BYTES,
            Self::VECTORS => vectors_bytes(config),
            Self::BLOCK => BLOCK_SECTION_BYTES,
            Self::ZERO => ZERO_SECTION_BYTES,
            _ => QUEUE_SECTION_BYTES,
        }
    }
}

/// Length of the payload of [`SectionId::DEVICE`].
const DEVICE_SECTION_BYTES: usize = 312;
/// Length of the payload of [`SectionId::queue`].
const QUEUE_SECTION_BYTES: usize = 32;
/// Length of the payload of [`SectionId::BLOCK`].
pub const BLOCK_SECTION_BYTES: usize = BLOCK_HEAD_BYTES + BLOCK_BYTES;
/// Length of the payload of [`SectionId::ZERO`].
pub const ZERO_SECTION_BYTES: usize = 8;
/// The longest payload of a section.
pub const MAX_SECTION_BYTES: usize = BLOCK_SECTION_BYTES;
/// Bytes of a block's section before the block.
const BLOCK_HEAD_BYTES: usize = 8;
/// The longest payload of [`SectionId::VECTORS`].
const MAX_VECTORS_BYTES: usize = 8 + VECTOR_BYTES * MAX_VECTORS;
const VECTOR_BYTES: usize = 16;

/// Bits of the device section's flags.
mod device_flags {
    pub(super) const READ_ONLY: u8 = 0x01;
    pub(super) const WRITE_ZEROES: u8 = 0x02;
}

/// Bits of a queue section's flags.
mod queue_flags {
    pub(super) const ENABLED: u8 = 0x01;
    pub(super) const WRAP: u8 = 0x02;
    pub(super) const MASK: u8 = ENABLED | WRAP;
}

/// Bits of a vector's flags.
mod vector_flags {
    pub(super) const MASKED: u32 = 0x1;
}

/// The registers of a block device as plain data.
pub(super) type State = FunctionState<MAX_QUEUES, MAX_VECTORS>;

/// Takes one section of a device that is saved; its error ends the saving.
pub type Emit<'a, E> = dyn FnMut(SectionId, &[u8]) -> Result<(), E> + 'a;

fn vectors_bytes(config: &Config) -> usize {
    8 + VECTOR_BYTES * (usize::from(config.queues.get()) + 1)
}

impl Device {
    /// How many sections [`Device::save`] hands out.
    pub fn saved_sections(config: &Config) -> usize {
        2 + usize::from(config.queues.get())
    }

    /// How many bytes there are in them.
    pub fn saved_bytes(config: &Config) -> usize {
        let queues = usize::from(config.queues.get());
        DEVICE_SECTION_BYTES + vectors_bytes(config) + queues * QUEUE_SECTION_BYTES
    }

    /// Saves the registers: hands out one section after the other, and stops at the first error. The medium is not
    /// part of it.
    pub fn save<E>(&self, emit: &mut Emit<'_, E>) -> Result<(), SaveError<E>> {
        let state = self.function().state().ok_or(SaveError::Busy)?;
        let mut payload = [0; DEVICE_SECTION_BYTES];
        write_device(self.config(), &state, &mut payload);
        emit(SectionId::DEVICE, &payload).map_err(SaveError::Sink)?;

        let mut payload = [0; MAX_VECTORS_BYTES];
        write_vectors(&state.msix, &mut payload);
        // All that behind it is as after reset.
        let payload = payload
            .get(..vectors_bytes(self.config()))
            .unwrap_or_default();
        emit(SectionId::VECTORS, payload).map_err(SaveError::Sink)?;

        let queues = usize::from(self.config().queues.get());
        for (index, queue) in state.transport.queues.iter().take(queues).enumerate() {
            let mut payload = [0; QUEUE_SECTION_BYTES];
            write_queue(queue, &mut payload);
            if let Some(id) = SectionId::queue(index) {
                emit(id, &payload).map_err(SaveError::Sink)?;
            }
        }
        Ok(())
    }
}

/// What of the device section is not registers: its kind.
fn write_kind(config: &Config, out: &mut Writer<'_>) {
    let mut flags = 0;
    if config.read_only {
        flags |= device_flags::READ_ONLY;
    }
    if config.write_zeroes {
        flags |= device_flags::WRITE_ZEROES;
    }
    out.u16(config.capacity.mib());
    out.u16(config.queues.get());
    out.u16(config.queue_size.get());
    out.u8(flags);
    out.u8(0);
    out.put(config.serial.bytes());
    out.u32(0);
}

/// Bytes of that.
const KIND_BYTES: usize = 32;

fn write_device(config: &Config, state: &State, payload: &mut [u8; DEVICE_SECTION_BYTES]) {
    let transport = &state.transport;
    let mut out = Writer::new(payload);
    write_kind(config, &mut out);
    out.put(&state.space);
    out.u32(transport.device_feature_select);
    out.u32(transport.driver_feature_select);
    out.u64(transport.driver_features);
    out.u16(transport.config_vector);
    out.u8(transport.status);
    out.u8(transport.generation);
    out.u8(transport.isr);
    out.u8(0);
    out.u16(transport.queue_select);
}

fn write_vectors(msix: &MsixState<MAX_VECTORS>, payload: &mut [u8; MAX_VECTORS_BYTES]) {
    let mut out = Writer::new(payload);
    out.u64(msix.pending);
    for entry in &msix.entries {
        out.u64(entry.address);
        out.u32(entry.data);
        out.u32(if entry.masked {
            vector_flags::MASKED
        } else {
            0
        });
    }
}

fn write_queue(queue: &QueueState, payload: &mut [u8; QUEUE_SECTION_BYTES]) {
    let mut flags = 0;
    if queue.enabled {
        flags |= queue_flags::ENABLED;
    }
    if queue.next_wrap {
        flags |= queue_flags::WRAP;
    }
    let mut out = Writer::new(payload);
    out.u16(queue.size);
    out.u8(flags);
    out.u8(0);
    out.u16(queue.vector);
    out.u16(queue.next_index);
    out.u64(queue.descriptors);
    out.u64(queue.driver);
    out.u64(queue.device);
}

/// Begins a block's section; returns where the block goes.
pub(super) fn block_section(payload: &mut [u8; BLOCK_SECTION_BYTES], block: u32) -> &mut [u8] {
    let (head, data) = payload.split_at_mut(BLOCK_HEAD_BYTES);
    let mut out = Writer::new(head);
    out.u32(block);
    out.u32(0);
    data
}

/// Writes a section of blocks that do not exist.
pub(super) fn zero_section(payload: &mut [u8; BLOCK_SECTION_BYTES], block: u32, count: u32) {
    let mut out = Writer::new(payload);
    out.u32(block);
    out.u32(count);
}
