// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A bit a block.

const BITS: u32 = u64::BITS;

/// A set of blocks in memory that the embedder provides, and how many it has.
#[derive(Clone, Debug)]
pub(super) struct Bitmap<W> {
    words: W,
    count: u32,
    /// No block below this is in the set.
    lowest: u32,
}

impl<W: AsRef<[u64]> + AsMut<[u64]>> Bitmap<W> {
    /// The empty set.
    pub(super) fn new(words: W) -> Bitmap<W> {
        let mut bitmap = Bitmap {
            words,
            count: 0,
            lowest: 0,
        };
        bitmap.clear();
        bitmap
    }

    /// How many blocks there is room for.
    pub(super) fn capacity(&self) -> u64 {
        self.words.as_ref().len() as u64 * u64::from(BITS)
    }

    /// How many blocks are in it.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn clear(&mut self) {
        self.words.as_mut().fill(0);
        self.count = 0;
        self.lowest = 0;
    }

    pub(super) fn contains(&self, block: u32) -> bool {
        let word = self.words.as_ref().get((block / BITS) as usize);
        word.is_some_and(|word| word & (1 << (block % BITS)) != 0)
    }

    /// Puts a block in. Returns whether it was not there before.
    pub(super) fn insert(&mut self, block: u32) -> bool {
        let bit = 1 << (block % BITS);
        match self.words.as_mut().get_mut((block / BITS) as usize) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                self.count += 1;
                self.lowest = self.lowest.min(block);
                true
            }
            _ => false,
        }
    }

    pub(super) fn remove(&mut self, block: u32) {
        let bit = 1 << (block % BITS);
        if let Some(word) = self.words.as_mut().get_mut((block / BITS) as usize) {
            if *word & bit != 0 {
                *word &= !bit;
                self.count -= 1;
            }
        }
    }

    /// The lowest block in it.
    pub(super) fn first(&mut self) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let start = self.lowest / BITS;
        let words = self.words.as_ref().get(start as usize..)?;
        let found = (start..)
            .zip(words)
            .find(|(_, word)| **word != 0)
            .map(|(index, word)| index * BITS + word.trailing_zeros());
        self.lowest = found.unwrap_or(self.lowest);
        found
    }
}
