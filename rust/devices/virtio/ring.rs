// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Packed rings (virtio 1.2, section 2.8), from the device's side.
//!
//! A descriptor is 16 bytes: address le64, length le32, buffer ID le16, flags le16. The two event
//! suppression structures are 4 bytes each: offset le16, which is not used without event indices, and
//! flags le16, of which one byte matters.
//!
//! # Bytes, one at a time
//!
//! * A driver makes a chain available by the flags of its first descriptor. In the usual case only AVAIL changes, which is
//!   in the low byte with all the other flags that matter. Where a place was skipped as part of a chain before, USED
//!   changes too, and half of the change looks like "not available": the notification that follows makes us look again.
//! * The flags are read first, then, after a barrier, the rest.
//! * We complete by everything but the high byte of the flags, a barrier, and then that one byte. AVAIL
//!   keeps its value meanwhile, since the chain was made available with it.

use core::fmt;

use super::chain::{Chain, MAX_DESCRIPTORS};
use super::memory::{Barrier, Fault, GuestMemory};

/// The largest queue that is allowed, in descriptors (2.8).
pub const MAX_QUEUE_SIZE: u16 = 1 << 15;

const DESCRIPTOR_BYTES: u64 = 16;
/// Where the flags of a descriptor are.
const FLAGS: u64 = 14;
/// Where what we write of one begins: its length.
const LENGTH: u64 = 8;
/// Where the flags of an event suppression structure are.
const EVENT_FLAGS: u64 = 2;
/// How many descriptors of an indirect table are read at once.
const TABLE_PIECE: usize = 16;

mod flag {
    pub(super) const NEXT: u16 = 1 << 0;
    pub(super) const WRITE: u16 = 1 << 1;
    pub(super) const INDIRECT: u16 = 1 << 2;
    pub(super) const AVAIL: u16 = 1 << 7;
    pub(super) const USED: u16 = 1 << 15;
}

/// Flags of an event suppression structure.
mod event {
    pub(super) const ENABLE: u8 = 0;
    pub(super) const DISABLE: u8 = 1;
    pub(super) const MASK: u8 = 3;
}

/// Why a ring is not served any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The ring, or an indirect table, could not be accessed.
    Fault,
    /// A buffer has no bytes.
    EmptyBuffer,
    /// A buffer goes past the end of the address space.
    AddressOverflow,
    /// A buffer that the device reads follows one that it writes.
    ReadableAfterWritable,
    /// A chain is longer than the ring, or than [`MAX_DESCRIPTORS`].
    ChainTooLong,
    /// A descriptor refers to a table, and that was not negotiated.
    IndirectNotNegotiated,
    /// A descriptor that refers to a table is part of a chain.
    IndirectInChain,
    /// A descriptor in a table refers to a table.
    IndirectInTable,
    /// A table's length is not that of 1 to [`MAX_DESCRIPTORS`] descriptors.
    TableLength(u32),
    /// What the chain holds is no request of the device, for this reason, and cannot be answered.
    Request(&'static str),
}

impl From<Fault> for RingError {
    fn from(_: Fault) -> Self {
        RingError::Fault
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fault => "a ring could not be accessed",
            Self::EmptyBuffer => "a descriptor has length 0",
            Self::AddressOverflow => "a buffer goes past the end of the address space",
            Self::ReadableAfterWritable => "a readable buffer follows a writable one",
            Self::ChainTooLong => "a descriptor chain is too long",
            Self::IndirectNotNegotiated => "an indirect descriptor, which was not negotiated",
            Self::IndirectInChain => "an indirect descriptor is part of a chain",
            Self::IndirectInTable => "an indirect descriptor in an indirect table",
            Self::TableLength(len) => {
                return write!(f, "an indirect table cannot have {len} bytes");
            }
            Self::Request(problem) => problem,
        })
    }
}

impl core::error::Error for RingError {}

/// Where a ring is, checked: addresses are aligned, and no part goes past the end of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlace {
    size: u16,
    descriptors: u64,
    driver: u64,
    device: u64,
}

impl RingPlace {
    /// The ring of `size` descriptors with its three parts at these addresses. `Err`: this is wrong.
    pub const fn new(
        size: u16,
        descriptors: u64,
        driver: u64,
        device: u64,
    ) -> Result<RingPlace, &'static str> {
        if size == 0 || size > MAX_QUEUE_SIZE {
            return Err("a ring has 1 to 32768 descriptors");
        }
        if descriptors % 16 != 0 {
            return Err("the descriptor area is not aligned to 16 bytes");
        }
        if driver % 4 != 0 || device % 4 != 0 {
            return Err("an event suppression area is not aligned to 4 bytes");
        }
        let len = size as u64 * DESCRIPTOR_BYTES;
        // An aligned area of 4 bytes cannot wrap.
        if descriptors.checked_add(len - 1).is_none() {
            return Err("the descriptor area goes past the end of the address space");
        }
        Ok(RingPlace {
            size,
            descriptors,
            driver,
            device,
        })
    }

    /// The number of descriptors.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// The address of a descriptor.
    const fn descriptor(&self, index: u16) -> u64 {
        // The place of the last one was checked.
        self.descriptors + index as u64 * DESCRIPTOR_BYTES
    }
}

/// A place in a packed ring, and the lap. `index` is below the size of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    index: u16,
    wrap: bool,
}

impl Cursor {
    /// Where a ring starts: at index 0, wrap counter 1 (2.8.1).
    pub const START: Cursor = Cursor {
        index: 0,
        wrap: true,
    };

    /// A place in a ring of `size` descriptors. `None`: it has no such place.
    pub const fn new(index: u16, wrap: bool, size: u16) -> Option<Cursor> {
        match index < size {
            true => Some(Cursor { index, wrap }),
            false => None,
        }
    }

    /// The index.
    pub const fn index(self) -> u16 {
        self.index
    }

    /// The wrap counter.
    pub const fn wrap(self) -> bool {
        self.wrap
    }

    /// `by` places further on, at most once around.
    fn advanced(self, by: u16, size: u16) -> Cursor {
        // Both are at most 1 << 15.
        let to = u32::from(self.index) + u32::from(by);
        let size = u32::from(size);
        match to.checked_sub(size) {
            // Below `size`, since `index` is and `by` is at most that.
            Some(to) => Cursor {
                index: to as u16,
                wrap: !self.wrap,
            },
            None => Cursor {
                index: to as u16,
                wrap: self.wrap,
            },
        }
    }
}

/// A ring that is being served: where it is, and where in it we are.
///
/// Requests are taken and completed one after the other, so one place is both the next to be available
/// and the next to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ring {
    place: RingPlace,
    next: Cursor,
    indirect: bool,
}

impl Ring {
    /// A ring at this place. `indirect`: descriptors can refer to tables.
    pub(super) fn new(place: RingPlace, next: Cursor, indirect: bool) -> Ring {
        Ring {
            place,
            next,
            indirect,
        }
    }

    /// The number of descriptors.
    pub fn size(&self) -> u16 {
        self.place.size
    }

    /// Where the next chain is taken.
    pub fn next(&self) -> Cursor {
        self.next
    }

    /// The flags of the next descriptor, if it is available.
    fn available(
        &self,
        memory: &mut (impl GuestMemory + ?Sized),
    ) -> Result<Option<u16>, RingError> {
        let mut bytes = [0; 2];
        memory.read(self.place.descriptor(self.next.index) + FLAGS, &mut bytes)?;
        let flags = u16::from_le_bytes(bytes);
        let (avail, used) = (flags & flag::AVAIL != 0, flags & flag::USED != 0);
        let is_available = avail == self.next.wrap && used != self.next.wrap;
        Ok(is_available.then_some(flags))
    }

    /// Whether there is no next chain.
    pub fn is_empty(&self, memory: &mut (impl GuestMemory + ?Sized)) -> Result<bool, RingError> {
        Ok(self.available(memory)?.is_none())
    }

    /// Takes the next chain into `chain`, if there is one. Nothing moves on before [`Ring::push`]: a chain
    /// that was taken is to be pushed before the next one is taken.
    pub fn pop(
        &self,
        memory: &mut (impl GuestMemory + ?Sized),
        chain: &mut Chain,
    ) -> Result<bool, RingError> {
        chain.clear();
        let mut cursor = self.next;
        let mut at = self.place.descriptor(cursor.index);
        let Some(mut flags) = self.available(memory)? else {
            return Ok(false);
        };
        memory.barrier(Barrier::Read);

        let mut rest = [0; FLAGS as usize];
        memory.read(at, &mut rest)?;
        let mut descriptor = Descriptor::of(&rest);
        if flags & flag::INDIRECT != 0 {
            if !self.indirect {
                return Err(RingError::IndirectNotNegotiated);
            }
            if flags & flag::NEXT != 0 {
                return Err(RingError::IndirectInChain);
            }
            read_table(memory, &descriptor, chain)?;
            chain.id = descriptor.id;
            chain.places = 1;
            return Ok(true);
        }
        let mut places = 1;
        loop {
            chain.push(descriptor.address, descriptor.len, flags & flag::WRITE != 0)?;
            if flags & flag::NEXT == 0 {
                break;
            }
            places += 1;
            if places > self.place.size {
                return Err(RingError::ChainTooLong);
            }
            cursor = cursor.advanced(1, self.place.size);
            at = self.place.descriptor(cursor.index);
            let mut whole = [0; DESCRIPTOR_BYTES as usize];
            memory.read(at, &mut whole)?;
            descriptor = Descriptor::of(&whole);
            flags = descriptor.flags;
            if flags & flag::INDIRECT != 0 {
                return Err(RingError::IndirectInChain);
            }
        }
        // The last descriptor has it (2.8.6).
        chain.id = descriptor.id;
        chain.places = places;
        Ok(true)
    }

    /// Completes a chain: `written` bytes were written from the start of its writable part.
    pub fn push(
        &mut self,
        memory: &mut (impl GuestMemory + ?Sized),
        chain: &Chain,
        written: u32,
    ) -> Result<(), RingError> {
        let mut flags = match self.next.wrap {
            true => flag::AVAIL | flag::USED,
            false => 0,
        };
        if written > 0 {
            flags |= flag::WRITE;
        }
        let [len0, len1, len2, len3] = written.to_le_bytes();
        let [id0, id1] = chain.id.to_le_bytes();
        let [low, high] = flags.to_le_bytes();
        let at = self.place.descriptor(self.next.index);
        memory.write(at + LENGTH, &[len0, len1, len2, len3, id0, id1, low])?;
        memory.barrier(Barrier::Write);
        memory.write(at + FLAGS + 1, &[high])?;
        self.next = self.next.advanced(chain.places, self.place.size);
        Ok(())
    }

    /// Whether the driver wants to be interrupted for what was pushed. To be asked after that.
    pub fn wants_interrupt(
        &self,
        memory: &mut (impl GuestMemory + ?Sized),
    ) -> Result<bool, RingError> {
        // Otherwise it could have asked for interrupts, and looked in vain, before our write arrived.
        memory.barrier(Barrier::Full);
        let mut flags = [0];
        memory.read(self.place.driver + EVENT_FLAGS, &mut flags)?;
        let [flags] = flags;
        // Others than these are for event indices, which are not offered: rather too many than too few.
        Ok(flags & event::MASK != event::DISABLE)
    }

    /// Tells the driver that it need not notify us, or that it must. After the latter the ring has to be
    /// looked at once more: what came in between was not told.
    pub fn ask_for_notifications(
        &self,
        memory: &mut (impl GuestMemory + ?Sized),
        wanted: bool,
    ) -> Result<(), RingError> {
        let flags = match wanted {
            true => event::ENABLE,
            false => event::DISABLE,
        };
        memory.write(self.place.device + EVENT_FLAGS, &[flags])?;
        if wanted {
            memory.barrier(Barrier::Full);
        }
        Ok(())
    }
}

/// A descriptor that was read.
struct Descriptor {
    address: u64,
    len: u32,
    id: u16,
    flags: u16,
}

impl Descriptor {
    /// Of 16 bytes, or of 14: the flags are zero then.
    fn of(bytes: &[u8]) -> Descriptor {
        let mut whole = [0; DESCRIPTOR_BYTES as usize];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        let value = u128::from_le_bytes(whole);
        Descriptor {
            address: value as u64,
            len: (value >> 64) as u32,
            id: (value >> 96) as u16,
            flags: (value >> 112) as u16,
        }
    }
}

/// Reads an indirect table. Of its flags only WRITE counts, the others are reserved (2.8.7); a table in
/// a table is refused all the same, rather than taken for a buffer.
fn read_table(
    memory: &mut (impl GuestMemory + ?Sized),
    table: &Descriptor,
    chain: &mut Chain,
) -> Result<(), RingError> {
    let bad_len = RingError::TableLength(table.len);
    let size = DESCRIPTOR_BYTES as u32;
    let mut left = (table.len / size) as usize;
    if table.len % size != 0 || left == 0 || left > MAX_DESCRIPTORS {
        return Err(bad_len);
    }
    let mut at = table.address;
    if at.checked_add(u64::from(table.len) - 1).is_none() {
        return Err(RingError::AddressOverflow);
    }
    let mut buffer = [0; TABLE_PIECE * DESCRIPTOR_BYTES as usize];
    while left > 0 {
        let count = left.min(TABLE_PIECE);
        let piece = buffer
            .get_mut(..count * DESCRIPTOR_BYTES as usize)
            .ok_or(bad_len)?;
        memory.read(at, piece)?;
        for bytes in piece.chunks_exact(DESCRIPTOR_BYTES as usize) {
            let descriptor = Descriptor::of(bytes);
            if descriptor.flags & flag::INDIRECT != 0 {
                return Err(RingError::IndirectInTable);
            }
            let writable = descriptor.flags & flag::WRITE != 0;
            chain.push(descriptor.address, descriptor.len, writable)?;
        }
        left -= count;
        // The last piece may end where the address space does.
        at = at.wrapping_add(piece.len() as u64);
    }
    Ok(())
}
