// SPDX-License-Identifier: GPL-2.0

//! DMA logging: which pages of the guest's memory the device wrote.
//!
//! A user may ask for any range up to the whole address space, so nothing is kept for a range: a bit a page, in chunks that are
//! made when something in them is written. What finds no memory for a chunk is remembered as one range that takes all of it
//! in, and reported as if all of that had been written: too much is copied again then, and nothing is lost.

use core::ops::Range as Span;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

/// The pages that are tracked, in bytes: the smallest that the log can be asked for, and what it answers, whatever was asked.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Words of a chunk: a page of bits, for 128 MiB.
pub(crate) const WORDS: usize = 512;

/// Pages of a chunk.
const CHUNK_PAGES: u64 = WORDS as u64 * u64::BITS as u64;

/// The most chunks: those of 512 GiB that were written to. What is written elsewhere is remembered as if there were no memory.
const MAX_CHUNKS: usize = 4096;

/// Whether writes are left out of every log, for tests that have to fail then.
static DROPS: Atomic<i32> = Atomic::new(0);

/// Leaves what devices write from now on out of every log, or does not any longer.
pub(crate) fn drop_bits(drops: bool) {
    DROPS.store(drops.into(), Relaxed);
}

/// Whether it does.
pub(crate) fn drops_bits() -> bool {
    DROPS.load(Relaxed) != 0
}

/// A range of I/O virtual addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Range {
    /// The range of `length` bytes from `first`. `EINVAL` when it is empty or wraps.
    pub(crate) fn new(first: u64, length: u64) -> Result<Self> {
        let last = first
            .checked_add(length.checked_sub(1).ok_or(EINVAL)?)
            .ok_or(EINVAL)?;
        Ok(Self { first, last })
    }

    /// What is in both.
    fn and(self, other: Self) -> Option<Self> {
        let both = Self {
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        };
        (both.first <= both.last).then_some(both)
    }

    /// The smallest range that both are in.
    fn hull(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// What is left of it behind another one.
    pub(crate) fn after(self, other: Self) -> Option<Self> {
        let first = other.last.checked_add(1)?;
        (first <= self.last).then_some(Self { first, ..self })
    }

    /// The range without another one; as it is if that lies in its middle.
    fn without(self, other: Self) -> Option<Self> {
        let (starts, ends) = (other.first <= self.first, other.last >= self.last);
        match (starts, ends) {
            (true, true) => None,
            (true, false) if other.last >= self.first => Some(Self {
                // Below `self.last`.
                first: other.last + 1,
                ..self
            }),
            (false, true) if other.first <= self.last => Some(Self {
                // Above `self.first`.
                last: other.first - 1,
                ..self
            }),
            _ => Some(self),
        }
    }
}

/// Bits of the pages of one chunk.
struct Chunk {
    /// Which pages: those from here times [`CHUNK_PAGES`].
    number: u64,
    words: KVec<u64>,
}

/// Pages of one chunk that were written.
pub(crate) struct Taken {
    /// What of the address space they were looked for in.
    pub(crate) within: Range,
    /// The number of the first page of the chunk.
    first_page: u64,
}

impl Taken {
    /// The parts of the address space that the bits stand for, as far as they were asked for.
    pub(crate) fn ranges<'a>(&self, words: &'a [u64]) -> impl Iterator<Item = Range> + 'a {
        let (within, first_page) = (self.within, self.first_page);
        runs(words).filter_map(move |run| {
            // Below 2^52 both: a page's number.
            let (first, end) = (first_page + run.start, first_page + run.end);
            let pages = Range {
                first: first * PAGE_BYTES,
                last: (end - 1) * PAGE_BYTES + (PAGE_BYTES - 1),
            };
            pages.and(within)
        })
    }
}

/// The rows of bits that are set.
fn runs(words: &[u64]) -> impl Iterator<Item = Span<u64>> + '_ {
    let total = words.len() as u64 * u64::from(u64::BITS);
    let mut at = 0;
    // The first bit from `at` on that is set, or that is clear.
    let find = move |at: u64, set: bool| {
        let mut at = at;
        while at < total {
            // Below the number of words.
            let word = words.get((at / 64) as usize).copied().unwrap_or(0);
            let word = if set { word } else { !word };
            let rest = word >> (at % 64);
            if rest != 0 {
                return at + u64::from(rest.trailing_zeros());
            }
            at = (at / 64 + 1) * 64;
        }
        total
    };
    core::iter::from_fn(move || {
        let start = find(at, true);
        at = find(start, false);
        (start < at).then_some(start..at)
    })
}

/// The ranges whose writes are logged, in ascending order and without overlap, and what was written there.
pub(crate) struct DirtyLog {
    ranges: KVec<Range>,
    /// In ascending order.
    chunks: KVVec<Chunk>,
    /// What was written and is in no chunk, and what lies between.
    rest: Option<Range>,
}

impl DirtyLog {
    /// Checks what the user asked for. `EINVAL` for a page size that is not a power of two or below 4 KiB, for no range, and
    /// for a range that is empty or backwards.
    pub(crate) fn new(page_size: u64, ranges: KVec<Range>) -> Result<Self> {
        // The core turns a range without length at address 0 into one of the whole address space, which nobody can ask for.
        let empty = |range: &Range| range.last < range.first || range.last == u64::MAX;
        let backwards = ranges.iter().any(empty);
        if !page_size.is_power_of_two() || page_size < PAGE_BYTES || ranges.is_empty() || backwards
        {
            return Err(EINVAL);
        }
        Ok(Self {
            ranges,
            chunks: KVVec::new(),
            rest: None,
        })
    }

    /// Whether every byte of a range is logged. `EINVAL` where not.
    pub(crate) fn covers(&self, asked: Range) -> Result {
        let mut next = asked.first;
        for range in &self.ranges {
            if next < range.first {
                break;
            }
            if asked.last <= range.last {
                return Ok(());
            }
            if next <= range.last {
                // Below `asked.last`, so this does not wrap. A range that follows without a gap goes on here.
                next = range.last + 1;
            }
        }
        Err(EINVAL)
    }

    /// The device has written there, or may have: to be called after that.
    pub(crate) fn mark(&mut self, written: Range) {
        self.mark_with(written, new_chunk);
    }

    /// The same, with this way to get memory for a chunk.
    pub(crate) fn mark_with(
        &mut self,
        written: Range,
        mut memory: impl FnMut() -> Result<KVec<u64>>,
    ) {
        if drops_bits() {
            return;
        }
        for index in 0..self.ranges.len() {
            let Some(range) = self.ranges.get(index).copied() else {
                return;
            };
            if range.first > written.last {
                return;
            }
            if let Some(logged) = range.and(written) {
                self.mark_logged(logged, &mut memory);
            }
        }
    }

    fn mark_logged(&mut self, written: Range, memory: &mut impl FnMut() -> Result<KVec<u64>>) {
        let last = written.last / PAGE_BYTES;
        let mut page = written.first / PAGE_BYTES;
        while page <= last {
            let number = page / CHUNK_PAGES;
            let end = ((number + 1) * CHUNK_PAGES).min(last + 1);
            match self.chunk(number, memory) {
                Ok(chunk) => {
                    for page in page..end {
                        let bit = page % CHUNK_PAGES;
                        if let Some(word) = chunk.words.get_mut((bit / 64) as usize) {
                            *word |= 1 << (bit % 64);
                        }
                    }
                }
                Err(_) => {
                    let pages = Range {
                        first: page * PAGE_BYTES,
                        last: (end - 1) * PAGE_BYTES + (PAGE_BYTES - 1),
                    };
                    self.rest = Some(self.rest.map_or(pages, |rest| rest.hull(pages)));
                }
            }
            page = end;
        }
    }

    /// The chunk of this number, which is made if there is none.
    fn chunk(
        &mut self,
        number: u64,
        memory: &mut impl FnMut() -> Result<KVec<u64>>,
    ) -> Result<&mut Chunk> {
        let found = self
            .chunks
            .binary_search_by_key(&number, |chunk| chunk.number);
        let index = match found {
            Ok(index) => index,
            Err(_) if self.chunks.len() == MAX_CHUNKS => return Err(ENOMEM),
            Err(index) => {
                let words = memory()?;
                self.chunks.reserve(1, GFP_KERNEL_ACCOUNT)?;
                let inserted = self
                    .chunks
                    .insert_within_capacity(index, Chunk { number, words });
                inserted.map_err(|_| ENOMEM)?;
                index
            }
        };
        self.chunks.get_mut(index).ok_or(ENOMEM)
    }

    /// Takes out what of a range is only known as one range.
    pub(crate) fn take_rest(&mut self, asked: Range) -> Option<Range> {
        let rest = self.rest?;
        let found = rest.and(asked)?;
        self.rest = rest.without(asked);
        Some(found)
    }

    /// Takes the bits of the first chunk that has any of a range into `words`, and says which. A page of which only a part was
    /// asked for is told and stays.
    pub(crate) fn take_chunk(&mut self, asked: Range, words: &mut [u64; WORDS]) -> Option<Taken> {
        let first = asked.first / PAGE_BYTES / CHUNK_PAGES;
        let from = self.chunks.partition_point(|chunk| chunk.number < first);
        let chunk = self.chunks.get_mut(from)?;
        let first_page = chunk.number * CHUNK_PAGES;
        let whole = Range {
            first: first_page * PAGE_BYTES,
            last: (first_page + (CHUNK_PAGES - 1)) * PAGE_BYTES + (PAGE_BYTES - 1),
        };
        let within = whole.and(asked)?;
        // The pages that are touched, and those of which all was asked for.
        let pages = |first: u64, end: u64| first - first_page..end - first_page;
        let touched = pages(within.first / PAGE_BYTES, within.last / PAGE_BYTES + 1);
        let is_whole = within.last % PAGE_BYTES == PAGE_BYTES - 1;
        let inner = pages(
            within.first.div_ceil(PAGE_BYTES),
            within.last / PAGE_BYTES + u64::from(is_whole),
        );
        for (index, (into, word)) in (0u64..).zip(words.iter_mut().zip(chunk.words.iter_mut())) {
            *into = *word & mask(&touched, index);
            *word &= !mask(&inner, index);
        }
        Some(Taken { within, first_page })
    }
}

/// Which bits of the word at `index` are in a range of bits.
fn mask(bits: &Span<u64>, index: u64) -> u64 {
    let start = bits.start.clamp(index * 64, index * 64 + 64) - index * 64;
    let end = bits.end.clamp(index * 64, index * 64 + 64) - index * 64;
    let below = |bit: u64| match bit {
        64.. => u64::MAX,
        bit => (1 << bit) - 1,
    };
    below(end) & !below(start)
}

/// Memory for a chunk: no page was written yet.
fn new_chunk() -> Result<KVec<u64>> {
    Ok(KVec::from_elem(0, WORDS, GFP_KERNEL_ACCOUNT)?)
}
