// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The medium in blocks, and which of them are still to be sent.
//!
//! While a medium is being sent, two sets say what is left. `first`: the blocks that existed when it began, and
//! were not sent yet. `dirty`: what was written since, and is not in `first`. Sending takes `first` in order and then
//! `dirty`; a block leaves its set before it is copied, so that what is written after the copy puts it back.
//! So the first part only shrinks, and the second one starts empty and grows with what the guest writes.

use core::fmt;

use super::bitmap::Bitmap;
use super::request::{Backend, IoError};
use super::state::{
    block_section, zero_section, SectionId, BLOCK_SECTION_BYTES, ZERO_SECTION_BYTES,
};

/// Size of a block in bytes: what is allocated, tracked and sent at once. A section with one, its header and its
/// checksum fits into 64 KiB.
pub const BLOCK_BYTES: usize = 32 * 1024;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// There is no memory for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSpace;

impl fmt::Display for NoSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no memory for a block")
    }
}

impl core::error::Error for NoSpace {}

/// Memory in blocks of [`BLOCK_BYTES`], which exist once something was written to them. Whoever calls keeps block numbers
/// below [`Medium::blocks`], and `at` and length inside of the block.
pub trait Medium {
    /// How many blocks there are.
    fn blocks(&self) -> u32;

    /// How many of them exist.
    fn allocated(&self) -> u32;

    /// Whether a block exists.
    fn is_allocated(&self, block: u32) -> bool;

    /// Reads from a block. One that does not exist reads zeroes.
    fn read(&self, block: u32, at: usize, into: &mut [u8]);

    /// Writes to a block. One that does not exist is made first, of zeroes.
    fn write(&mut self, block: u32, at: usize, from: &[u8]) -> Result<(), NoSpace>;

    /// A block does not exist any longer.
    fn free(&mut self, block: u32);
}

/// How many `u64` a set of so many blocks takes.
pub const fn words_for(blocks: u32) -> usize {
    blocks.div_ceil(u64::BITS) as usize
}

/// A medium, and what of it is to be sent. `W` is memory for a bit a block, such as a `[u64]` of
/// [`words_for`] elements.
#[derive(Clone, Debug)]
pub struct Disk<M, W> {
    medium: M,
    sending: bool,
    first: Bitmap<W>,
    dirty: Bitmap<W>,
}

impl<M: Medium, W: AsRef<[u64]> + AsMut<[u64]>> Disk<M, W> {
    /// A medium with two sets of its blocks, whatever they hold. `None`: there is not a bit for each block.
    pub fn new(medium: M, first: W, dirty: W) -> Option<Disk<M, W>> {
        let (first, dirty) = (Bitmap::new(first), Bitmap::new(dirty));
        let room = first.capacity().min(dirty.capacity());
        (room >= u64::from(medium.blocks())).then_some(Disk {
            medium,
            sending: false,
            first,
            dirty,
        })
    }

    /// The medium.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Another medium takes its place, of whatever size, and nothing is being sent afterwards. `Err`: there is not a bit for each
    /// of its blocks, and it is given back.
    pub fn replace(&mut self, medium: M) -> Result<M, M> {
        let room = self.first.capacity().min(self.dirty.capacity());
        if u64::from(medium.blocks()) > room {
            return Err(medium);
        }
        self.stop_sending();
        Ok(core::mem::replace(&mut self.medium, medium))
    }

    /// Begins sending the medium, as it is now and as it will be. To be called on the way into pre-copy, and on
    /// the way into stop-and-copy if there was none; again: from the start. Takes a look at each block.
    pub fn start_sending(&mut self) {
        self.stop_sending();
        self.sending = true;
        for block in 0..self.medium.blocks() {
            if self.medium.is_allocated(block) {
                self.first.insert(block);
            }
        }
    }

    /// Ends sending: what is written is of no interest any longer.
    pub fn stop_sending(&mut self) {
        self.sending = false;
        self.first.clear();
        self.dirty.clear();
    }

    /// How many sections [`Disk::next_section`] has still to hand out at most: of what existed when sending began, which never
    /// grows, and of what was written since. While nothing is being sent: what it would be if sending began now.
    pub fn left(&self) -> (usize, usize) {
        let (first, dirty) = match self.sending {
            true => (self.first.count(), self.dirty.count()),
            false => (self.medium.allocated(), 0),
        };
        (first as usize, dirty as usize)
    }

    /// Whether the medium is being sent.
    pub fn is_sending(&self) -> bool {
        self.sending
    }

    /// The next section to be sent, into `payload`: its kind and its length. `None`: for now, nothing is left.
    ///
    /// A section says all of a block: whoever gets several of the same block believes the last one.
    pub fn next_section(
        &mut self,
        payload: &mut [u8; BLOCK_SECTION_BYTES],
    ) -> Option<(SectionId, usize)> {
        let set = match self.first.count() {
            0 => &mut self.dirty,
            _ => &mut self.first,
        };
        let block = set.first()?;
        set.remove(block);
        if self.medium.is_allocated(block) {
            let data = block_section(payload, block);
            self.medium.read(block, 0, data);
            return Some((SectionId::BLOCK, BLOCK_SECTION_BYTES));
        }
        // A row of blocks that do not exist any longer is one section.
        let mut count = 1;
        let mut next = block.saturating_add(1);
        while set.contains(next) && !self.medium.is_allocated(next) {
            set.remove(next);
            count += 1;
            next = next.saturating_add(1);
        }
        zero_section(payload, block, count);
        Some((SectionId::ZERO, ZERO_SECTION_BYTES))
    }

    /// A block is another one now.
    fn touch(&mut self, block: u32) {
        if self.sending && !self.first.contains(block) {
            self.dirty.insert(block);
        }
    }

    /// The parts of a range: block, where in it, and length. `None`: it is not on the medium.
    fn parts(&self, offset: u64, len: u64) -> Option<impl Iterator<Item = (u32, usize, usize)>> {
        let end = offset.checked_add(len)?;
        let size = u64::from(self.medium.blocks()) * BLOCK;
        let mut at = offset;
        (end <= size).then_some(core::iter::from_fn(move || {
            let within = at % BLOCK;
            let part = (BLOCK - within).min(end - at);
            // Below the number of blocks, which is a u32.
            let block = (at / BLOCK) as u32;
            at += part;
            (part > 0).then_some((block, within as usize, part as usize))
        }))
    }
}

impl<M: Medium, W: AsRef<[u64]> + AsMut<[u64]>> Backend for Disk<M, W> {
    fn read(&mut self, offset: u64, mut into: &mut [u8]) -> Result<(), IoError> {
        let parts = self.parts(offset, into.len() as u64).ok_or(IoError)?;
        for (block, at, len) in parts {
            let (part, rest) = into.split_at_mut(len);
            self.medium.read(block, at, part);
            into = rest;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, mut from: &[u8]) -> Result<(), IoError> {
        let parts = self.parts(offset, from.len() as u64).ok_or(IoError)?;
        for (block, at, len) in parts {
            let (part, rest) = from.split_at(len);
            // Whatever became of it, it may be another block.
            self.touch(block);
            self.medium.write(block, at, part).map_err(|_| IoError)?;
            from = rest;
        }
        Ok(())
    }

    fn zero(&mut self, offset: u64, len: u64, free: bool) -> Result<(), IoError> {
        const ZEROES: [u8; 512] = [0; 512];
        let parts = self.parts(offset, len).ok_or(IoError)?;
        for (block, at, len) in parts {
            if !self.medium.is_allocated(block) {
                continue;
            }
            self.touch(block);
            if free && len == BLOCK_BYTES {
                self.medium.free(block);
                continue;
            }
            let mut done = 0;
            while let Some(zeroes) = ZEROES.get(..(len - done).min(ZEROES.len())) {
                if zeroes.is_empty() {
                    break;
                }
                self.medium
                    .write(block, at + done, zeroes)
                    .map_err(|_| IoError)?;
                done += zeroes.len();
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}
