// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The guest of a client: its memory, what its driver has put there, and what is known of that.
//!
//! A byte of memory has one address for the card, so whoever knows what a byte was knows what the log has to have.

use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use rustix::io::{pread, pwrite};
use vfio_user_protocol::feature::LoggingReport;
use vfio_user_protocol::{DmaMap, DmaUnmap};

use super::step::Step;

/// Where memory is for the card.
pub(super) const ADDRESS: u64 = 0x1_0000;
/// How much there is: a step's number tells any byte of it.
pub(super) const SIZE: usize = 0x1_0000;
/// A page, which is mapped or not.
pub(super) const PAGE: usize = 4096;

/// Where a request's header and status are, in pages of their own, and its data.
const HEADER: usize = 0x4000;
const STATUS: usize = 0x5000;
const DATA: usize = 0x8000;

/// Kinds of request: those that exist, and one that does not.
const KINDS: [u32; 7] = [0, 1, 4, 8, 11, 13, 77];

/// Where the ring of a queue is.
pub(super) const fn ring_at(queue: u16) -> usize {
    queue as usize * PAGE
}

/// A packed ring as its driver keeps it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ring {
    /// Descriptors; none before it is set up.
    pub(super) size: u16,
    next: u16,
    wrap: bool,
}

impl Ring {
    /// One that was just set up.
    pub(super) fn new(size: u16) -> Self {
        Self {
            size,
            next: 0,
            wrap: true,
        }
    }
}

/// A range that the card may reach.
struct Map {
    first: u64,
    size: u64,
    /// Whether it may write there, and can.
    writable: bool,
}

/// The guest.
pub(super) struct Guest {
    pub(super) file: OwnedFd,
    maps: Vec<Map>,
    /// What the memory was when it was last looked at. Beyond the end of a file that was made shorter there are zeroes.
    known: Vec<u8>,
    /// Room for looking at it.
    spare: Vec<u8>,
    /// If there is a log: what a byte was when its page was told last.
    told: Option<Vec<u8>>,
    pub(super) rings: [Ring; 2],
    /// Requests that are with the card: where their first descriptor's flags are, and the lap.
    waiting: Vec<(usize, bool)>,
}

impl Guest {
    pub(super) fn new() -> Self {
        let file = memfd_create("memory", MemfdFlags::CLOEXEC).expect("memory");
        ftruncate(&file, SIZE as u64).expect("its size");
        Self {
            file,
            maps: Vec::new(),
            known: vec![0; SIZE],
            spare: vec![0; SIZE],
            told: None,
            rings: [Ring::default(); 2],
            waiting: Vec::new(),
        }
    }

    /// The pages of a step.
    pub(super) fn pages(step: &Step) -> Range<usize> {
        let first = usize::from(step.number & 0xf) * PAGE;
        let len = (1 + usize::from((step.number >> 4) & 0xf)) * PAGE;
        first..(first + len).min(SIZE)
    }

    /// The guest or its driver writes.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = (at + bytes.len()).min(SIZE);
        let bytes = &bytes[..end - at];
        // What is behind the end of the file is nowhere, and the file is not to become longer.
        let len = rustix::fs::fstat(&self.file).map_or(0, |stat| stat.st_size as usize);
        let bytes = &bytes[..bytes.len().min(len.saturating_sub(at))];
        assert_eq!(pwrite(&self.file, bytes, at as u64), Ok(bytes.len()));
        let range = at..at + bytes.len();
        self.known[range.clone()].copy_from_slice(bytes);
        if let Some(told) = &mut self.told {
            told[range].copy_from_slice(bytes);
        }
    }

    /// The file gets another length.
    pub(super) fn resize(&mut self, len: usize) {
        ftruncate(&self.file, len as u64).expect("a length");
        for bytes in [Some(&mut self.known), self.told.as_mut()]
            .into_iter()
            .flatten()
        {
            bytes[len..].fill(0);
        }
    }

    /// The guest has come from another machine: its memory, and its driver with what it waits for.
    pub(super) fn become_that(&mut self, other: &Guest) {
        self.resize(SIZE);
        self.put(0, &other.known);
        self.rings = other.rings;
        self.waiting.clone_from(&other.waiting);
    }

    /// The driver sets a queue up, and waits for nothing of what it asked for before.
    pub(super) fn new_ring(&mut self, queue: u16, size: u16) {
        self.rings[usize::from(queue)] = Ring::new(size);
        self.waiting.clear();
        self.put(ring_at(queue), &[0; PAGE]);
    }

    /// Whether a request is with the card.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The driver makes a request available, as the step says. Which queue it is in.
    pub(super) fn request(&mut self, step: &Step) -> Option<u16> {
        let [kind, len, fill, how] = step.bytes;
        let queue = u16::from(how & 1);
        let Ring { size, wrap, .. } = self.rings[usize::from(queue)];
        if size == 0 {
            return None;
        }
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        let sector = u64::from(step.number);
        let mut len = usize::from(len) * 256 % (SIZE - DATA);
        match kind {
            1 => self.put(DATA, &vec![fill; len]),
            11 | 13 => {
                let count = len as u32 / 256;
                let words = [sector as u32, 0, count, (fill & 1).into()];
                let range: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                self.put(DATA, &range);
                len = range.len();
            }
            _ => {}
        }
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()];
        self.put(HEADER, &header.concat());
        self.put(STATUS, &[0xff]);
        let writes = if matches!(kind, 0 | 8) { 2 } else { 0 };
        let first = self.describe(queue, HEADER, 16, 1);
        if len > 0 {
            self.describe(queue, DATA, len, 1 | writes);
        }
        self.describe(queue, STATUS, 1, 2);
        self.waiting.push((first, wrap));
        Some(queue)
    }

    /// The next descriptor of a ring; where its flags are.
    fn describe(&mut self, queue: u16, at: usize, len: usize, flags: u16) -> usize {
        let Ring { size, next, wrap } = self.rings[usize::from(queue)];
        let place = ring_at(queue) + usize::from(next) * 16;
        let flags = flags | if wrap { 0x80 } else { 0x8000 };
        let address = (ADDRESS + at as u64).to_le_bytes();
        let (len, flags) = ((len as u32).to_le_bytes(), flags.to_le_bytes());
        self.put(place, &[&address[..], &len, &[0, 0], &flags].concat());
        self.rings[usize::from(queue)] = match next + 1 == size {
            true => Ring {
                size,
                next: 0,
                wrap: !wrap,
            },
            false => Ring {
                size,
                next: next + 1,
                wrap,
            },
        };
        place + 14
    }

    /// The client has given the card a range, of its memory if there was a descriptor.
    pub(super) fn mapped(&mut self, map: &DmaMap, has_file: bool) {
        self.maps.push(Map {
            first: map.address,
            size: map.size,
            writable: map.writable && has_file,
        });
    }

    /// The client has taken a range back.
    pub(super) fn unmapped(&mut self, unmap: &DmaUnmap) {
        let is_it = |map: &Map| unmap.all || (map.first, map.size) == (unmap.address, unmap.size);
        assert!(unmap.all || self.maps.iter().any(is_it));
        self.maps.retain(|map| !is_it(map));
    }

    /// The client is gone.
    pub(super) fn is_off(&mut self) {
        self.maps.clear();
        self.told = None;
    }

    /// Whether the card may write a page.
    fn is_writable(&self, at: usize) -> bool {
        let address = ADDRESS + at as u64;
        let has =
            |map: &Map| map.writable && (map.first..=map.first + (map.size - 1)).contains(&address);
        self.maps.iter().any(has)
    }

    /// Sees that nothing was written but where the card may, if it may. How many requests are done that were not before.
    pub(super) fn look(&mut self, may_write: bool) -> usize {
        let mut now = std::mem::take(&mut self.spare);
        let mut done = 0;
        while let Ok(len @ 1..) = pread(&self.file, &mut now[done..], done as u64) {
            done += len;
        }
        now[done..].fill(0);
        let pages = now.chunks(PAGE).zip(self.known.chunks(PAGE));
        for (at, (now, known)) in (0..).step_by(PAGE).zip(pages) {
            let is_allowed = || may_write && self.is_writable(at);
            assert!(now == known || is_allowed(), "{at:#x} was written");
        }
        self.spare = std::mem::replace(&mut self.known, now);
        let (known, waiting) = (&self.known, self.waiting.len());
        self.waiting.retain(|(at, lap)| {
            let flags = u16::from_le_bytes([known[*at], known[at + 1]]);
            flags & 0x8080 != if *lap { 0x8080 } else { 0 }
        });
        waiting - self.waiting.len()
    }

    /// A log begins.
    pub(super) fn log_begins(&mut self) {
        self.told = Some(self.known.clone());
    }

    /// A log ends.
    pub(super) fn log_ends(&mut self) {
        self.told = None;
    }

    /// Sees that a report has whatever has changed. How many pages it has.
    pub(super) fn was_told(&mut self, asked: &LoggingReport, bitmap: &[u8]) -> usize {
        let told = self.told.as_mut().expect("a report of no log");
        let is_told = |address: u64| {
            let bit = (address - asked.iova) / asked.page_size;
            bitmap[(bit / 8) as usize] & (1 << (bit % 8)) != 0
        };
        let last = asked.iova + (asked.length - 1);
        let has = |address: u64| (asked.iova..=last).contains(&address);
        let pages = self.known.chunks(PAGE).zip(told.chunks_mut(PAGE));
        for (first, (now, told)) in (ADDRESS..).step_by(PAGE).zip(pages) {
            if now == told {
                continue;
            }
            for (address, (now, told)) in (first..).zip(now.iter().zip(told.iter())) {
                let is_due = now != told && has(address);
                assert!(
                    !is_due || is_told(address),
                    "{address:#x} was written, not told"
                );
            }
            // A page that was asked for in part is told again.
            if has(first) && has(first + (PAGE as u64 - 1)) {
                told.copy_from_slice(now);
            }
        }
        bitmap.iter().map(|byte| byte.count_ones() as usize).sum()
    }
}
