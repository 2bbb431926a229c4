// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The buffers of a request: first those that the device reads, then those that it writes.

use super::memory::{Fault, GuestMemory};
use super::ring::RingError;

/// The most descriptors of a chain, in the ring or in an indirect table. A device type that limits its
/// requests limits them so that they fit.
pub const MAX_DESCRIPTORS: usize = 128;

/// A buffer of the guest: not empty, and not past the end of the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    address: u64,
    len: u32,
}

impl Segment {
    const NONE: Segment = Segment { address: 0, len: 0 };

    /// Where it starts.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// The number of bytes, at least 1.
    pub const fn bytes(&self) -> u32 {
        self.len
    }
}

/// The buffers of a request, checked. Some 2 KiB: build it where it is to live, and use it again.
#[derive(Clone, Debug)]
pub struct Chain {
    segments: [Segment; MAX_DESCRIPTORS],
    /// How many the device reads; they come first.
    readable: usize,
    /// How many there are.
    len: usize,
    /// The driver's name for it.
    pub(super) id: u16,
    /// How many places in the ring it takes.
    pub(super) places: u16,
}

impl Chain {
    /// An empty one.
    pub const fn new() -> Chain {
        Chain {
            segments: [Segment::NONE; MAX_DESCRIPTORS],
            readable: 0,
            len: 0,
            id: 0,
            places: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.readable = 0;
        self.len = 0;
        self.id = 0;
        self.places = 0;
    }

    /// Adds a buffer, after checking it.
    pub(super) fn push(&mut self, address: u64, len: u32, writable: bool) -> Result<(), RingError> {
        if len == 0 {
            return Err(RingError::EmptyBuffer);
        }
        // The last byte has an address.
        if address.checked_add(u64::from(len) - 1).is_none() {
            return Err(RingError::AddressOverflow);
        }
        if !writable && self.readable < self.len {
            return Err(RingError::ReadableAfterWritable);
        }
        let place = self
            .segments
            .get_mut(self.len)
            .ok_or(RingError::ChainTooLong)?;
        *place = Segment { address, len };
        self.len += 1;
        if !writable {
            self.readable = self.len;
        }
        Ok(())
    }

    /// How many places in the ring it takes.
    pub fn places(&self) -> u16 {
        self.places
    }

    /// The buffers that the device may read.
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or_default()
    }

    /// The buffers that the device may write.
    pub fn writable(&self) -> &[Segment] {
        self.segments
            .get(self.readable..self.len)
            .unwrap_or_default()
    }

    /// How many bytes the device may read.
    pub fn readable_bytes(&self) -> u64 {
        bytes(self.readable())
    }

    /// How many bytes the device may write.
    pub fn writable_bytes(&self) -> u64 {
        bytes(self.writable())
    }

    /// Reads what the device may read, from its start.
    pub fn reader(&self) -> ChainReader<'_> {
        ChainReader(Walk::new(self.readable()))
    }

    /// Writes what the device may write, from its start.
    pub fn writer(&self) -> ChainWriter<'_> {
        ChainWriter(Walk::new(self.writable()))
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

/// At most 128 times 4 GiB.
fn bytes(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// A place in a row of buffers.
#[derive(Clone, Debug)]
struct Walk<'c> {
    segments: &'c [Segment],
    /// Bytes of the first segment that are behind us.
    done: u32,
}

impl<'c> Walk<'c> {
    fn new(segments: &'c [Segment]) -> Self {
        Walk { segments, done: 0 }
    }

    /// The next piece, in one buffer: its address, and how long it is, at most `len` bytes.
    fn next(&mut self, len: usize) -> Option<(u64, usize)> {
        let (segment, rest) = self.segments.split_first()?;
        let left = segment.len - self.done;
        let piece = u32::try_from(len).unwrap_or(u32::MAX).min(left);
        let address = segment.address + u64::from(self.done);
        if piece == left {
            self.segments = rest;
            self.done = 0;
        } else {
            self.done += piece;
        }
        Some((address, piece as usize))
    }

    fn skip(&mut self, mut len: u64) -> bool {
        while len > 0 {
            let step = usize::try_from(len).unwrap_or(usize::MAX);
            match self.next(step) {
                Some((_, piece)) => len -= piece as u64,
                None => return false,
            }
        }
        true
    }
}

/// Reads a chain's bytes in order, whatever buffers they are in. A byte that was read is not read again.
#[derive(Clone, Debug)]
pub struct ChainReader<'c>(Walk<'c>);

impl ChainReader<'_> {
    /// Fills `into`, one buffer after the other. Fails if there are not so many bytes.
    pub fn read(
        &mut self,
        memory: &mut (impl GuestMemory + ?Sized),
        mut into: &mut [u8],
    ) -> Result<(), Fault> {
        while !into.is_empty() {
            let (address, len) = self.0.next(into.len()).ok_or(Fault)?;
            let (piece, rest) = into.split_at_mut(len);
            memory.read(address, piece)?;
            into = rest;
        }
        Ok(())
    }
}

/// Writes a chain's bytes in order, whatever buffers they are in.
#[derive(Clone, Debug)]
pub struct ChainWriter<'c>(Walk<'c>);

impl ChainWriter<'_> {
    /// Leaves bytes as they are. `false`: there are not so many.
    pub fn skip(&mut self, len: u64) -> bool {
        self.0.skip(len)
    }

    /// Writes all of `from`, one buffer after the other. Fails if there is no room.
    pub fn write(
        &mut self,
        memory: &mut (impl GuestMemory + ?Sized),
        mut from: &[u8],
    ) -> Result<(), Fault> {
        while !from.is_empty() {
            let (address, len) = self.0.next(from.len()).ok_or(Fault)?;
            let (piece, rest) = from.split_at(len);
            memory.write(address, piece)?;
            from = rest;
        }
        Ok(())
    }
}
