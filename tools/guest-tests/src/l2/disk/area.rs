// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A part of a disk that one thread writes and reads, past the kernel's cache.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use rustix::fs::fdatasync;
use rustix::io::{preadv, pwritev};

use super::block::{Block, BLOCK};
use super::pace::Pace;
use super::PIECE;

/// The most blocks of one request, but for a writer with a rate.
pub const RUN: u32 = 16;
/// The most blocks of one request of such a writer.
const MOST: u32 = (PIECE / BLOCK) as u32;
/// How often a run is zeroed, and how often the disk is asked to have written everything: once in so many steps each.
const SELDOM: u32 = 16;

/// One writer's part of a disk, and what every block of it should hold.
pub struct Area {
    disk: File,
    writer: u32,
    /// Its first block on the disk.
    first: u32,
    generations: Vec<u32>,
    buffer: Vec<Block>,
    random: u32,
    /// Blocks that were written in order, if that was asked for: up to here.
    covered: u32,
    /// The rate that it keeps to, if one was set, and the block that is next then.
    pace: Option<Pace>,
    next: u32,
}

impl Area {
    /// The part of `disk`, which is open for access past the cache, that has `blocks` blocks from `first` on, all of them zeroes.
    pub fn new(disk: File, writer: u32, first: u32, blocks: u32) -> Self {
        Self {
            disk,
            writer,
            first,
            generations: vec![0; blocks as usize],
            buffer: vec![Block::ZERO; MOST as usize],
            random: writer.wrapping_mul(0x9e37_79b9) | 1,
            covered: blocks,
            pace: None,
            next: 0,
        }
    }

    /// Writes a run of blocks, or zeroes it, and verifies another one; with a rate, writes the next blocks.
    pub fn step(&mut self) -> Result<()> {
        if let Some(pace) = &mut self.pace {
            pace.done(Instant::now());
            return self.next_piece();
        }
        let left = self.generations.len() as u32 - self.covered;
        if left > 0 {
            let (start, count) = (self.covered, left.min(RUN));
            self.covered += count;
            return self.write(start, count);
        }
        let (start, count) = self.run();
        match self.below(SELDOM) {
            0 => self.zero(start, count)?,
            1 => {
                self.write(start, count)?;
                fdatasync(&self.disk).context("the disk cannot write its cache back")?;
            }
            _ => self.write(start, count)?,
        }
        let (start, count) = self.run();
        self.verify(start, count)
    }

    /// From now on its blocks are written in order and over and over, [`PIECE`] bytes at a time.
    pub fn keep_to(&mut self, pace: Pace) {
        self.pace = Some(pace);
    }

    /// For how long nothing is to be written.
    pub fn wait(&self) -> Option<Duration> {
        self.pace.as_ref()?.wait(Instant::now())
    }

    fn next_piece(&mut self) -> Result<()> {
        let (start, blocks) = (self.next, self.generations.len() as u32);
        let count = MOST.min(blocks - start);
        self.next = (start + count) % blocks;
        self.write(start, count)
    }

    /// Its blocks are written once, in order, before anything else is done.
    pub fn cover(&mut self) {
        self.covered = 0;
    }

    /// Verifies every block.
    pub fn verify_all(&mut self) -> Result<u32> {
        let blocks = self.generations.len() as u32;
        let mut start = 0;
        while start < blocks {
            let count = RUN.min(blocks - start);
            self.verify(start, count)?;
            start += count;
        }
        Ok(blocks)
    }

    /// Reads as many blocks as `buffer` has, spread over the part, and does not look at them.
    pub fn fetch(&mut self, buffer: &mut [Block]) -> Result<()> {
        for (n, block) in buffer.iter_mut().enumerate() {
            let number = self.spread(n);
            read(&self.disk, self.first + number, std::slice::from_mut(block))?;
        }
        Ok(())
    }

    /// How many of the blocks that [`Area::fetch`] read into `buffer` are what they should be, and the first that is not.
    pub fn look(&self, buffer: &[Block]) -> (u32, Option<String>) {
        let (mut good, mut bad) = (0, None);
        for (n, block) in buffer.iter().enumerate() {
            let number = self.spread(n);
            match block.check(self.writer, number, self.generations[number as usize]) {
                Ok(()) => good += 1,
                Err(error) => bad = bad.or(Some(error.to_string())),
            }
        }
        (good, bad)
    }

    /// Blocks that hold something.
    pub fn written(&self) -> u32 {
        self.generations
            .iter()
            .filter(|generation| **generation > 0)
            .count() as u32
    }

    /// A block for each `n`, of those that hold something, as far as there are any.
    fn spread(&self, n: usize) -> u32 {
        let blocks = self.generations.len();
        let start = n * 7 % blocks;
        let found = (0..blocks)
            .map(|step| (start + step) % blocks)
            .find(|number| self.generations[*number] > 0);
        found.unwrap_or(start) as u32
    }

    fn write(&mut self, start: u32, count: u32) -> Result<()> {
        for (number, block) in (start..).zip(&mut self.buffer[..count as usize]) {
            let generation = &mut self.generations[number as usize];
            *generation += 1;
            block.fill(self.writer, number, *generation);
        }
        let parts: Vec<_> = self.buffer[..count as usize]
            .iter()
            .map(|block| IoSlice::new(&block.0))
            .collect();
        let done = pwritev(&self.disk, &parts, self.offset(start))
            .with_context(|| format!("{count} blocks from {start} on cannot be written"))?;
        ensure!(
            done == count as usize * BLOCK,
            "of {count} blocks from {start} on {done} bytes were written"
        );
        Ok(())
    }

    fn zero(&mut self, start: u32, count: u32) -> Result<()> {
        super::zero_out(
            &self.disk,
            self.offset(start),
            u64::from(count) * BLOCK as u64,
        )
        .with_context(|| format!("{count} blocks from {start} on cannot be zeroed"))?;
        self.generations[start as usize..][..count as usize].fill(0);
        Ok(())
    }

    fn verify(&mut self, start: u32, count: u32) -> Result<()> {
        let buffer = &mut self.buffer[..count as usize];
        read(&self.disk, self.first + start, buffer)?;
        for (number, block) in (start..).zip(buffer) {
            block.check(self.writer, number, self.generations[number as usize])?;
        }
        Ok(())
    }

    fn offset(&self, number: u32) -> u64 {
        u64::from(self.first + number) * BLOCK as u64
    }

    /// A run of blocks, of any length a request may have.
    fn run(&mut self) -> (u32, u32) {
        let blocks = self.generations.len() as u32;
        let count = 1 + self.below(RUN.min(blocks));
        (self.below(blocks - count + 1), count)
    }

    /// A number below `end`.
    fn below(&mut self, end: u32) -> u32 {
        self.random = self
            .random
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        ((u64::from(self.random) * u64::from(end)) >> 32) as u32
    }
}

/// Reads blocks from number `first` of the disk on.
fn read(disk: &File, first: u32, blocks: &mut [Block]) -> Result<()> {
    let count = blocks.len();
    let mut parts: Vec<_> = blocks
        .iter_mut()
        .map(|block| IoSliceMut::new(&mut block.0))
        .collect();
    let done = preadv(disk, &mut parts, u64::from(first) * BLOCK as u64)
        .with_context(|| format!("{count} blocks from {first} of the disk on cannot be read"))?;
    ensure!(
        done == count * BLOCK,
        "of {count} blocks from {first} of the disk on {done} bytes were read"
    );
    Ok(())
}
