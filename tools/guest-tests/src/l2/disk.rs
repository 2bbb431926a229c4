// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Disks of the guest, each with threads that write and verify it for ever.
//!
//! The guest keeps in its memory what every block should hold, so that a disk and a memory that do not belong together are
//! found as surely as a block that is lost.

mod area;
mod block;
mod files;
mod pace;

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use rustix::fs::OFlags;

use area::Area;
pub use area::RUN;
use block::Block;
pub use block::BLOCK;
use files::Files;
use pace::Pace;

use super::card::text;
use super::line::{DiskReport, Line};

/// Where the kernel shows disks.
const DISKS: &str = "/sys/block";
/// What the guest's driver calls them.
const NAME: &str = "vd";
/// Blocks that each writer of a disk has, if the disk is large enough.
const AREA: u64 = 512;
/// Bytes that a writer with a rate writes at once: a request that is worth its while in an emulated machine.
pub const PIECE: usize = 256 << 10;
/// Blocks that are read and not looked at.
const FETCHED: usize = 128;

/// A disk, and who writes it.
pub struct Disk {
    number: u8,
    /// The name that the driver gave it.
    name: String,
    writers: Vec<Writer>,
    /// Blocks that were read and not looked at.
    fetched: Vec<Block>,
    /// Files that were on it when the guest booted.
    kept: Option<Line>,
}

/// A thread, and what it works on.
struct Writer {
    shared: Arc<Shared>,
    /// Somebody was told what it stopped for.
    told: bool,
}

struct Shared {
    work: Mutex<Kind>,
    /// The thread is to stand still. Set before somebody else locks `work`, which the thread would not let go of for long
    /// otherwise; cleared with it locked.
    held: AtomicBool,
    /// It need not stand still any more.
    go_on: Condvar,
    /// Why it stopped for good.
    fault: Mutex<Option<String>>,
    /// Steps done and verified.
    steps: AtomicU32,
}

enum Kind {
    Area(Area),
    Files(Files),
}

impl Kind {
    fn step(&mut self) -> Result<()> {
        match self {
            Kind::Area(area) => area.step(),
            Kind::Files(files) => files.step(),
        }
    }

    /// For how long there is nothing to be done.
    fn wait(&self) -> Option<Duration> {
        match self {
            Kind::Area(area) => area.wait(),
            Kind::Files(_) => None,
        }
    }

    fn verify_all(&mut self) -> Result<u32> {
        match self {
            Kind::Area(area) => area.verify_all(),
            Kind::Files(files) => files.verify_all(),
        }
    }

    fn written(&self) -> u32 {
        match self {
            Kind::Area(area) => area.written(),
            Kind::Files(files) => files.written(),
        }
    }
}

impl Disk {
    /// Starts to work on every disk that there is: on so many MiB of it, each block of which is written once to begin with, or on a
    /// part of the usual size. With `files`, the last one gets a file system.
    pub fn take_up(files: bool, mib: Option<u64>) -> Result<Vec<Disk>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(DISKS).context(DISKS)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(NAME) {
                names.push(name);
            }
        }
        names.sort();
        let last = names.len().saturating_sub(1);
        (0..)
            .zip(names)
            .map(|(number, name)| {
                Self::start(number, name, files && usize::from(number) == last, mib)
            })
            .collect()
    }

    fn start(number: u8, name: String, files: bool, mib: Option<u64>) -> Result<Self> {
        let path = Path::new("/dev").join(&name);
        let sectors: u64 = text(&Path::new(DISKS).join(&name).join("size"))?
            .parse()
            .context("size")?;
        let blocks = sectors * 512 / BLOCK as u64;
        let mut kept = None;
        let writers = if files {
            let place = PathBuf::from("/run").join(&name);
            let files = Files::new(&path, place, u32::from(number) << 8)?;
            kept = (files.written() > 0).then(|| account(number, &files));
            vec![Writer::start(Kind::Files(files))]
        } else {
            // One for each processor, so that the disk's queues are used at once. Their parts are spread over the disk.
            let count = thread::available_parallelism()?.get() as u64;
            let area = mib.map_or(AREA, |mib| (mib << 20) / BLOCK as u64 / count);
            let area = area.min(blocks / count);
            ensure!(area > 0, "{name} has {blocks} blocks");
            let start = |n: u64| -> Result<Writer> {
                let disk = open(&path)?;
                let writer = (u32::from(number) << 8) | n as u32;
                let first = u32::try_from(blocks / count * n)?;
                let mut area = Area::new(disk, writer, first, u32::try_from(area)?);
                if mib.is_some() {
                    area.cover();
                }
                Ok(Writer::start(Kind::Area(area)))
            };
            (0..count).map(start).collect::<Result<_>>()?
        };
        Ok(Self {
            number,
            name,
            writers,
            fetched: Vec::new(),
            kept,
        })
    }

    /// The files that were on it when the guest booted, all of them whole, if there were any.
    pub fn kept(&self) -> Option<&Line> {
        self.kept.as_ref()
    }

    /// Has the writers stand still for good, and unmounts the file system; the files that are on it, if there is one.
    pub fn put_away(&self) -> Result<Option<Line>> {
        let mut left = None;
        for writer in &self.writers {
            if let Kind::Files(files) = &mut *writer.shared.hold() {
                files.put_away()?;
                left = Some(account(self.number, files));
            }
        }
        Ok(left)
    }

    /// Steps done and verified, of the slowest writer.
    pub fn verified(&self) -> u32 {
        let steps = self
            .writers
            .iter()
            .map(|writer| writer.shared.steps.load(Ordering::Relaxed));
        steps.min().unwrap_or(0)
    }

    /// Its number, in the order of names.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// What a writer stopped for, if one did since this was asked last.
    pub fn new_fault(&mut self) -> Option<String> {
        let writer = self
            .writers
            .iter_mut()
            .find(|writer| !writer.told && writer.shared.fault().is_some())?;
        writer.told = true;
        writer.shared.fault()
    }

    /// Has the writers stand still, verifies everything that was ever written if that is asked for, and has them go on.
    pub fn report(&self, verify: bool) -> Result<DiskReport> {
        let mut report = DiskReport {
            disk: self.number,
            steps: self.verified(),
            interrupts: self.interrupts()?,
            // What links by id are made from. The driver asks the disk each time.
            serial: text(&Path::new(DISKS).join(&self.name).join("serial"))?,
            ..DiskReport::default()
        };
        for writer in &self.writers {
            let mut work = writer.shared.hold();
            if verify {
                match work.verify_all() {
                    Ok(verified) => report.verified += verified,
                    Err(error) => writer.shared.fail(&error),
                }
            }
            report.faults += u32::from(writer.shared.fault().is_some());
            report.written += work.written();
            writer.shared.release(work);
        }
        Ok(report)
    }

    /// Has the writers stand still until [`Disk::look`], and makes room for what [`Disk::fetch`] will read.
    pub fn rest(&mut self) {
        for writer in &self.writers {
            drop(writer.shared.hold());
        }
        // Not zeroes, which a block may hold.
        self.fetched = vec![Block([0xdb; BLOCK]); FETCHED];
    }

    /// Has the disk written in order and over and over at so many KiB a second by all its writers together, from now on. A file system
    /// stays as it is.
    pub fn pace(&self, rate: u32) {
        // The same for each, and at least a piece in a day.
        let rate = (f64::from(rate) * 1024.0 / self.writers.len() as f64).max(1.0);
        let interval = Duration::from_secs_f64(PIECE as f64 / rate);
        for writer in &self.writers {
            let mut work = writer.shared.hold();
            if let Kind::Area(area) = &mut *work {
                area.keep_to(Pace::new(interval, Instant::now()));
            }
            writer.shared.release(work);
        }
    }

    /// Reads blocks, at which the processor does not look.
    pub fn fetch(&mut self) -> Result<()> {
        let Some(writer) = self.writers.first() else {
            return Ok(());
        };
        match &mut *writer.shared.lock() {
            Kind::Area(area) => area.fetch(&mut self.fetched),
            Kind::Files(_) => Ok(()),
        }
    }

    /// Looks at what was read; the writers go on.
    pub fn look(&mut self) -> Line {
        let (mut good, mut bad) = (0, None);
        if let Some(writer) = self.writers.first() {
            if let Kind::Area(area) = &*writer.shared.lock() {
                (good, bad) = area.look(&self.fetched);
            }
        }
        self.fetched = Vec::new();
        for writer in &self.writers {
            let work = writer.shared.lock();
            writer.shared.release(work);
        }
        Line::Fetched {
            disk: self.number,
            good,
            bad: bad.unwrap_or_default(),
        }
    }

    /// Interrupts of the disk's queues that the guest's kernel handled.
    fn interrupts(&self) -> Result<u64> {
        let device = fs::canonicalize(Path::new(DISKS).join(&self.name).join("device"))?;
        let device = device
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mark = format!("{device}-req");
        let table = fs::read_to_string("/proc/interrupts").context("/proc/interrupts")?;
        let rows = table.lines().filter(|row| row.contains(&mark));
        Ok(rows
            .flat_map(|row| {
                row.split_ascii_whitespace()
                    .skip(1)
                    .map_while(|word| word.parse::<u64>().ok())
            })
            .sum())
    }
}

impl Writer {
    fn start(kind: Kind) -> Self {
        let shared = Arc::new(Shared {
            work: Mutex::new(kind),
            held: AtomicBool::new(false),
            go_on: Condvar::new(),
            fault: Mutex::new(None),
            steps: AtomicU32::new(0),
        });
        let work = shared.clone();
        thread::spawn(move || work.work_for_ever());
        Self {
            shared,
            told: false,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kind> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self) -> Option<String> {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The thread stops for good; the first reason counts.
    fn fail(&self, error: &anyhow::Error) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(format!("{error:#}"));
    }

    fn work_for_ever(&self) {
        loop {
            let work = self.lock();
            let held = |_: &mut Kind| self.held.load(Ordering::Relaxed);
            let mut work = self
                .go_on
                .wait_while(work, held)
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(left) = work.wait() {
                // Somebody may have it stand still meanwhile, or keep to another rate.
                drop(self.go_on.wait_timeout(work, left));
                continue;
            }
            match work.step() {
                Ok(()) => drop(self.steps.fetch_add(1, Ordering::Relaxed)),
                Err(error) => return self.fail(&error),
            }
        }
    }

    /// Has the thread stand still.
    fn hold(&self) -> MutexGuard<'_, Kind> {
        self.held.store(true, Ordering::Relaxed);
        self.lock()
    }

    /// Has the thread go on.
    fn release(&self, work: MutexGuard<'_, Kind>) {
        self.held.store(false, Ordering::Relaxed);
        drop(work);
        self.go_on.notify_all();
    }
}

/// What is to be said of files.
fn account(disk: u8, files: &Files) -> Line {
    Line::Files {
        disk,
        files: files.written(),
        generations: files.generations(),
    }
}

/// Opens a disk for access past the kernel's cache.
fn open(path: &Path) -> Result<File> {
    let flags = (OFlags::DIRECT | OFlags::CLOEXEC).bits() as i32;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags);
    options
        .open(path)
        .with_context(|| path.display().to_string())
}

/// Has a disk hold zeroes: the kernel asks it to, if it can, and writes them otherwise.
fn zero_out(disk: impl AsFd, offset: u64, bytes: u64) -> Result<()> {
    use rustix::fs::{fallocate, FallocateFlags};
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(disk, flags, offset, bytes)?)
}
