// SPDX-License-Identifier: GPL-2.0 OR MIT

//! DMA logging: which pages of the guest's memory the device wrote.
//!
//! A client may ask for any range up to the whole address space, so nothing is kept for a range: a bit a page, in chunks that are made
//! when something in them is written. There is a most of them; what is written elsewhere then is remembered as one range that takes
//! all of it in, and reported as if all of that had been written: too much is copied again, and nothing is lost.

use std::collections::btree_map::{BTreeMap, Entry};

use migration::log::{Log, LogError, Range};

/// The pages that are tracked, in bytes: the smallest that a log can be asked for.
const PAGE: u64 = migration::log::MIN_PAGE;
/// Words of a chunk.
const WORDS: usize = 512;
/// Pages of a chunk, which are 128 MiB.
const CHUNK_PAGES: u64 = WORDS as u64 * 64;
/// The most chunks: those of 512 GiB that were written to, in 16 MiB.
const MAX_CHUNKS: usize = 4096;

/// A log that is on, and what was written since it was asked for last.
#[derive(Debug)]
pub(super) struct WriteLog {
    logged: Log<Vec<Range>>,
    /// By the number of their first page in [`CHUNK_PAGES`]. None is without a page.
    chunks: BTreeMap<u64, Box<[u64; WORDS]>>,
    /// What was written and is in no chunk, and what lies between.
    rest: Option<Range>,
}

impl WriteLog {
    /// Nothing was written.
    pub(super) fn new(logged: Log<Vec<Range>>) -> Self {
        Self {
            logged,
            chunks: BTreeMap::new(),
            rest: None,
        }
    }

    /// Whether every byte of the range is logged.
    pub(super) fn covers(&self, asked: Range) -> Result<(), LogError> {
        self.logged.covers(asked)
    }

    /// The device has written there. What is not logged is passed over: nobody can ask for that.
    pub(super) fn mark(&mut self, address: u64, len: usize) {
        // What is not in the address space was not written.
        let Some(last) = (len as u64).checked_sub(1) else {
            return;
        };
        let last = address.saturating_add(last);
        for page in address / PAGE..=last / PAGE {
            if !self.logged.meets(whole(page)) {
                continue;
            }
            let (number, bit) = (page / CHUNK_PAGES, page % CHUNK_PAGES);
            let has_room = self.chunks.len() < MAX_CHUNKS;
            let chunk = match self.chunks.entry(number) {
                Entry::Occupied(chunk) => chunk.into_mut(),
                Entry::Vacant(place) if has_room => place.insert(Box::new([0; WORDS])),
                Entry::Vacant(_) => {
                    let page = whole(page);
                    self.rest = Some(self.rest.map_or(page, |rest| hull(rest, page)));
                    continue;
                }
            };
            if let Some(word) = chunk.get_mut((bit / 64) as usize) {
                *word |= 1 << (bit % 64);
            }
        }
    }

    /// Takes what was written of a range out, as a bitmap of so many bytes: a bit for each page of this size from the range's first
    /// address on. A page of which only a part was asked for is told and stays.
    pub(super) fn take(&mut self, asked: Range, page_size: u64, len: usize) -> Vec<u8> {
        let mut bitmap = vec![0u64; len / 8];
        let mut tell = |written: Range| {
            let first = written.first.max(asked.first);
            let last = written.last.min(asked.last);
            // Both are in the range.
            for bit in (first - asked.first) / page_size..=(last - asked.first) / page_size {
                if let Some(word) = bitmap.get_mut((bit / 64) as usize) {
                    *word |= 1 << (bit % 64);
                }
            }
        };
        if let Some(rest) = self.rest.filter(|rest| meet(*rest, asked)) {
            tell(rest);
            self.rest = without(rest, asked);
        }
        let (first, last) = (asked.first / PAGE, asked.last / PAGE);
        let numbers = first / CHUNK_PAGES..=last / CHUNK_PAGES;
        let mut emptied = Vec::new();
        for (number, chunk) in self.chunks.range_mut(numbers) {
            for (index, word) in (0u64..).zip(chunk.iter_mut()) {
                let mut left = *word;
                while left != 0 {
                    let bit = left & left.wrapping_neg();
                    left &= !bit;
                    let page = number * CHUNK_PAGES + index * 64 + u64::from(bit.trailing_zeros());
                    if !(first..=last).contains(&page) {
                        continue;
                    }
                    let page = whole(page);
                    tell(page);
                    if asked.first <= page.first && page.last <= asked.last {
                        *word &= !bit;
                    }
                }
            }
            if chunk.iter().all(|word| *word == 0) {
                emptied.push(*number);
            }
        }
        // There is room for others now.
        for number in emptied {
            self.chunks.remove(&number);
        }
        bitmap.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

/// The page of this number.
fn whole(page: u64) -> Range {
    // An address divided by a page's size, so this is one again.
    let first = page * PAGE;
    Range {
        first,
        last: first + (PAGE - 1),
    }
}

/// Whether something is in both.
fn meet(one: Range, other: Range) -> bool {
    one.first <= other.last && other.first <= one.last
}

/// The smallest range that both are in.
fn hull(one: Range, other: Range) -> Range {
    Range {
        first: one.first.min(other.first),
        last: one.last.max(other.last),
    }
}

/// A range without another one that meets it; as it is if that lies in its middle.
fn without(range: Range, taken: Range) -> Option<Range> {
    let (starts, ends) = (taken.first <= range.first, taken.last >= range.last);
    match (starts, ends) {
        (true, true) => None,
        (true, false) => Some(Range {
            // Below the last one of the range.
            first: taken.last + 1,
            ..range
        }),
        (false, true) => Some(Range {
            // Above the first one of the range.
            last: taken.first - 1,
            ..range
        }),
        (false, false) => Some(range),
    }
}

#[cfg(test)]
mod tests;
