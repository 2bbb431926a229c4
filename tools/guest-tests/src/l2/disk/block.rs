// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Blocks of a disk that say what they are: a block that was lost, swapped with another, written twice or torn is told apart.
//!
//! | offset | size | content |
//! |---|---|---|
//! | 0 | 8 | [`MAGIC`] |
//! | 8 | 4 | which writer, little-endian |
//! | 12 | 4 | number of the block, little-endian |
//! | 16 | 4 | generation: how often it was written, little-endian, from 1 |
//! | 20 | 4072 | what follows from these |
//! | 4092 | 4 | CRC-32 (IEEE) of everything before, little-endian |
//!
//! A block that was never written, or was zeroed since, has generation 0 and holds zeroes.

use std::sync::LazyLock;

use anyhow::{ensure, Result};

/// Bytes of a block.
pub const BLOCK: usize = 4096;

const MAGIC: &[u8; 8] = b"labblock";
const CONTENT: usize = 20;
const SUM: usize = BLOCK - 4;

/// What blocks are filled with: no two parts of it are alike.
static NOISE: LazyLock<[u8; 2 * BLOCK]> = LazyLock::new(|| {
    let (mut bytes, mut mix) = ([0; 2 * BLOCK], 1u32);
    for word in bytes.chunks_exact_mut(4) {
        mix = mix.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // The low bits of such a number come round soon.
        word.copy_from_slice(&(mix ^ (mix >> 15)).to_le_bytes());
    }
    bytes
});

/// A block in memory, where a disk that is read and written past the cache wants it.
#[derive(Clone)]
#[repr(C, align(4096))]
pub struct Block(pub [u8; BLOCK]);

impl Block {
    /// All zeroes.
    pub const ZERO: Block = Block([0; BLOCK]);

    /// Makes it block `number` of `writer`, in this generation.
    pub fn fill(&mut self, writer: u32, number: u32, generation: u32) {
        if generation == 0 {
            self.0.fill(0);
            return;
        }
        let (content, sum) = self.0.split_at_mut(SUM);
        let (head, rest) = content.split_at_mut(CONTENT);
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&writer.to_le_bytes());
        head[12..16].copy_from_slice(&number.to_le_bytes());
        head[16..].copy_from_slice(&generation.to_le_bytes());
        // Another part of it for blocks and generations that are next to each other.
        let start = number
            .wrapping_mul(1031)
            .wrapping_add(generation.wrapping_mul(257))
            .wrapping_add(writer)
            % BLOCK as u32;
        rest.copy_from_slice(&NOISE[start as usize..][..rest.len()]);
        let crc = crc32fast::hash(content);
        sum.copy_from_slice(&crc.to_le_bytes());
    }

    /// Fails, with what it holds instead, unless it is block `number` of `writer` in this generation.
    pub fn check(&self, writer: u32, number: u32, generation: u32) -> Result<()> {
        let mut expected = Block::ZERO;
        expected.fill(writer, number, generation);
        ensure!(
            self.0 == expected.0,
            "block {number} of writer {writer} should be of generation {generation} and is {}",
            self.describe()
        );
        Ok(())
    }

    /// The generation that it says it is of.
    pub fn generation(&self) -> u32 {
        self.word(16)
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// What it holds, for people.
    fn describe(&self) -> String {
        let word = |at| self.word(at);
        if self.0 == Self::ZERO.0 {
            return "zeroed".into();
        }
        if &self.0[..8] != MAGIC {
            return format!("no block: it starts with {:02x?}", &self.0[..16]);
        }
        let whole = match crc32fast::hash(&self.0[..SUM]) == word(SUM) {
            true => "whole",
            false => "damaged",
        };
        format!(
            "{whole}, block {} of writer {} in generation {}",
            word(12),
            word(8),
            word(16)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_itself_and_no_other() {
        let mut block = Block::ZERO;
        block.fill(1, 2, 3);
        block.check(1, 2, 3).unwrap();
        for (writer, number, generation) in [(0, 2, 3), (1, 3, 3), (1, 2, 2), (1, 2, 0)] {
            let error = block.check(writer, number, generation).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("whole, block 2 of writer 1 in generation 3"),
                "{error}"
            );
        }
    }

    #[test]
    fn every_changed_byte_is_found() {
        for at in 0..BLOCK {
            let mut block = Block::ZERO;
            block.fill(7, 70, 700);
            block.0[at] ^= 0x10;
            assert!(block.check(7, 70, 700).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_block_that_is_partly_of_another_generation_is_found() {
        let (mut old, mut new) = (Block::ZERO, Block::ZERO);
        for generation in 1..300 {
            old.fill(3, 5, generation);
            new.fill(3, 5, generation + 1);
            // Nowhere is a run of bytes, as long as a sector's eighth, the same in both.
            for at in (CONTENT..SUM - 64).step_by(64) {
                assert_ne!(old.0[at..at + 64], new.0[at..at + 64], "{generation}, {at}");
            }
        }
    }

    #[test]
    fn generation_0_is_zeroes() {
        let mut block = Block([0xff; BLOCK]);
        block.fill(1, 2, 0);
        assert!(block.0.iter().all(|byte| *byte == 0));
        block.check(9, 9, 0).unwrap();
    }
}
