// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which code of our modules ran, on a kernel that keeps a record of that (CONFIG_KCOV, Documentation/dev-tools/kcov.rst): what the
//! main thread of a test program has the kernel do. Interrupts, the kernel's own threads and other threads of a test are not in it.
//!
//! At its end the program prints what there is to standard error, a line for each module: `coverage: MODULE OFFSET…`, in hexadecimal,
//! from the start of the module's code. A line of its own ends them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use anyhow::{Context, Result};
use nix::sys::mman::{mmap, munmap, MapFlags, ProtFlags};

/// The kernel's file.
const FILE: &str = "/sys/kernel/debug/kcov";

/// The modules of ours.
const MODULES: [&str; 5] = [
    "rust_vfio",
    "mdev_serial",
    "mdev_blk",
    "mdev_scratch",
    "mdev_copy",
];

/// Words of a record. What comes after it is full is lost, until it is read.
const WORDS: usize = 1 << 21;

/// How a record starts every line that the program prints.
const LINE: &str = lab_protocol::COVERAGE;

mod ioctl {
    nix::ioctl_write_int_bad!(
        init_trace,
        nix::request_code_read!(b'c', 1, size_of::<libc::c_ulong>())
    );
    nix::ioctl_write_int_bad!(enable, nix::request_code_none!(b'c', 100));
}

/// A record of where this thread was in the kernel.
struct Record {
    _file: File,
    words: NonNull<u64>,
    /// By module: offsets in its code.
    seen: BTreeMap<&'static str, BTreeSet<u64>>,
}

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

impl Record {
    fn start() -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(FILE)
            .context(FILE)?;
        let words = i32::try_from(WORDS)?;
        // SAFETY: The request takes a number.
        unsafe { ioctl::init_trace(file.as_raw_fd(), words) }.context("KCOV_INIT_TRACE")?;
        let size = NonZeroUsize::new(WORDS * size_of::<u64>()).context("no words")?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new mapping at an address that the kernel chooses replaces nothing.
        let start = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, &file, 0) };
        let start = start.context("mmap")?;
        let record = Self {
            _file: file,
            words: start.cast(),
            seen: BTreeMap::new(),
        };
        // SAFETY: The request takes a number: 0 is KCOV_TRACE_PC.
        unsafe { ioctl::enable(record._file.as_raw_fd(), 0) }.context("KCOV_ENABLE")?;
        Ok(record)
    }

    fn word(&self, index: usize) -> u64 {
        assert!(index < WORDS);
        // SAFETY: The word lies within the mapping. The kernel writes to it only during this thread's system calls; volatile, for the
        // compiler knows nothing of that.
        unsafe { self.words.add(index).read_volatile() }
    }

    /// Files what was recorded, for modules at these places, and empties the record.
    fn file(&mut self, places: &Places) {
        let count = usize::try_from(self.word(0))
            .unwrap_or(WORDS)
            .min(WORDS - 1);
        // A loop is recorded once for every turn, so what was seen is marked first: with a bit for each byte of the code, which is
        // looked at 64 at a time, as hardly any has a mark.
        let ours = || {
            places
                .iter()
                .filter(|(name, _)| MODULES.contains(&name.as_str()))
        };
        let start = ours().map(|(_, code)| code.start).min().unwrap_or(0);
        let end = ours().map(|(_, code)| code.end).max().unwrap_or(0);
        let mut marks = Marks::new(end - start);
        for index in 1..=count {
            marks.set(self.word(index).wrapping_sub(start));
        }
        for offset in marks.iter() {
            let address = start + offset;
            // A module's data is no part of its code, and may lie beyond that of another, of ours or not: the nearest is meant.
            let of = places.iter().filter(|(_, code)| code.contains(&address));
            let Some((nearest, code)) = of.max_by_key(|(_, code)| code.start) else {
                continue;
            };
            if let Some(module) = MODULES.into_iter().find(|module| module == nearest) {
                self.seen
                    .entry(module)
                    .or_default()
                    .insert(address - code.start);
            }
        }
        // SAFETY: As in `word`: the first word is the number of those that follow.
        unsafe { self.words.write_volatile(0) };
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: The mapping is this value's, and nothing refers to it any more.
        let _ = unsafe { munmap(self.words.cast::<c_void>(), WORDS * size_of::<u64>()) };
    }
}

/// A set of small numbers.
struct Marks(Vec<u64>);

impl Marks {
    /// An empty set of numbers below this one.
    fn new(end: u64) -> Self {
        Self(vec![
            0;
            usize::try_from(end.div_ceil(u64::BITS.into()))
                .unwrap_or(0)
        ])
    }

    /// Adds a number, if it can be in the set.
    fn set(&mut self, number: u64) {
        let word = usize::try_from(number / u64::from(u64::BITS)).ok();
        if let Some(word) = word.and_then(|word| self.0.get_mut(word)) {
            *word |= 1 << (number % u64::from(u64::BITS));
        }
    }

    /// What is in the set, in order.
    fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let marked = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        marked.flat_map(|(at, word)| {
            let first = at as u64 * u64::from(u64::BITS);
            let bits = (0..u64::BITS).filter(move |bit| (word >> bit) & 1 == 1);
            bits.map(move |bit| first + u64::from(bit))
        })
    }
}

/// Where the code of all loaded modules is.
type Places = Vec<(String, Range<u64>)>;

fn places() -> Places {
    let place = |module: String| {
        let read = |file: &str| fs::read_to_string(format!("/sys/module/{module}/{file}")).ok();
        let start = read("sections/.text")?;
        let start = u64::from_str_radix(start.trim().strip_prefix("0x")?, 16).ok()?;
        let size: u64 = read("coresize")?.trim().parse().ok()?;
        Some((module, start..start + size))
    };
    let modules = fs::read_dir("/sys/module").into_iter().flatten().flatten();
    modules
        .filter_map(|module| place(module.file_name().into_string().ok()?))
        .collect()
}

/// Starts to record where this thread is in the kernel, if the kernel can.
pub fn start() {
    if fs::exists(FILE).unwrap_or(false) {
        match Record::start() {
            Ok(record) => RECORD.set(Some(record)),
            Err(error) => eprintln!("no coverage: {error:#}"),
        }
    }
}

/// Files what this thread has recorded, before modules move.
pub fn file() {
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            record.file(&places());
        }
    });
}

/// Unloads a module: what is recorded meanwhile is of where it was.
pub fn unloading<T>(unload: impl FnOnce() -> T) -> T {
    let before = places();
    file();
    let result = unload();
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            record.file(&before);
        }
    });
    result
}

/// Prints what was recorded.
pub fn print() {
    file();
    let Some(record) = RECORD.take() else {
        return;
    };
    for (module, offsets) in &record.seen {
        let offsets: Vec<String> = offsets.iter().map(|offset| format!("{offset:x}")).collect();
        eprintln!("{LINE}{module} {}", offsets.join(" "));
    }
    eprintln!("{}", lab_protocol::COVERAGE_END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_once_and_in_order() {
        let mut marks = Marks::new(130);
        for number in [129, 0, 63, 64, 0, 129, 192, u64::MAX] {
            marks.set(number);
        }
        assert_eq!(marks.iter().collect::<Vec<_>>(), [0, 63, 64, 129]);
        assert_eq!(Marks::new(0).iter().count(), 0);
    }
}
