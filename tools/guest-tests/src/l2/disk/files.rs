// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A file system on a disk, in which files are written, replaced and read again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use rustix::fs::{fadvise, Advice};
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

use super::block::{Block, BLOCK};

/// Makes a file system, as the guest has it.
const MAKE: [&str; 2] = ["/bin/busybox", "mke2fs"];
/// How many files there are at most.
const FILES: u32 = 24;
/// The most blocks of a file.
const LONGEST: u32 = 24;

/// Files on a disk, and what every one of them should hold.
pub struct Files {
    place: PathBuf,
    writer: u32,
    generations: Vec<u32>,
    next: u32,
}

impl Files {
    /// Mounts the file system on `disk` at `place`, and takes up and verifies the files on it; makes a file system if there is none.
    pub fn new(disk: &Path, place: PathBuf, writer: u32) -> Result<Self> {
        let there = has_file_system(disk)?;
        if !there {
            make(disk)?;
        }
        fs::create_dir_all(&place)?;
        mount(disk, &place, "ext4", MountFlags::empty(), None)
            .with_context(|| format!("the file system on {} cannot be mounted", disk.display()))?;
        let mut files = Self {
            place,
            writer,
            generations: vec![0; FILES as usize],
            next: 0,
        };
        if there {
            files.take_up()?;
        }
        Ok(files)
    }

    /// Takes up the files that there are, in the generation that each of them says it is of.
    fn take_up(&mut self) -> Result<()> {
        for number in 0..FILES {
            let path = self.path(number);
            if !path.exists() {
                continue;
            }
            let mut first = Block::ZERO;
            File::open(&path)
                .and_then(|mut file| file.read_exact(&mut first.0))
                .with_context(|| format!("{} cannot be read", path.display()))?;
            let generation = first.generation();
            ensure!(generation > 0, "{} holds nothing", path.display());
            self.generations[number as usize] = generation;
            self.verify(number)?;
        }
        Ok(())
    }

    /// Unmounts the file system; nothing can be done with the files any more.
    pub fn put_away(&mut self) -> Result<()> {
        unmount(&self.place, UnmountFlags::empty())
            .with_context(|| format!("{} cannot be unmounted", self.place.display()))
    }

    /// How often all files together were written.
    pub fn generations(&self) -> u32 {
        self.generations.iter().sum()
    }

    /// Replaces a file and verifies another one.
    pub fn step(&mut self) -> Result<()> {
        let number = self.next % FILES;
        self.next += 1;
        self.replace(number)?;
        // Written longest ago, of those that there are.
        self.verify((number + 1) % FILES)
    }

    /// Has the disk write everything back, and verifies every file from the disk.
    pub fn verify_all(&mut self) -> Result<u32> {
        rustix::fs::sync();
        fs::write("/proc/sys/vm/drop_caches", "3").context("drop_caches")?;
        for number in 0..FILES {
            self.verify(number)?;
        }
        Ok(self.written())
    }

    /// Files that there are.
    pub fn written(&self) -> u32 {
        self.generations
            .iter()
            .filter(|generation| **generation > 0)
            .count() as u32
    }

    /// Writes the next generation of a file beside it, and has it take its place once it is on the disk.
    fn replace(&mut self, number: u32) -> Result<()> {
        let generation = self.generations[number as usize] + 1;
        let (path, new) = (self.path(number), self.place.join("new"));
        let write = || -> Result<()> {
            let mut file = File::create(&new)?;
            let mut block = Block::ZERO;
            for part in 0..length(number, generation) {
                block.fill(self.writer, number * LONGEST + part, generation);
                file.write_all(&block.0)?;
            }
            file.sync_all()?;
            fs::rename(&new, &path)?;
            Ok(())
        };
        write().with_context(|| format!("{} cannot be written", path.display()))?;
        self.generations[number as usize] = generation;
        Ok(())
    }

    fn verify(&self, number: u32) -> Result<()> {
        let generation = self.generations[number as usize];
        if generation == 0 {
            return Ok(());
        }
        let path = self.path(number);
        let read = || -> Result<Vec<u8>> {
            let mut file = OpenOptions::new().read(true).open(&path)?;
            // From the disk, not from the cache.
            fadvise(&file, 0, None, Advice::DontNeed)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().with_context(|| format!("{} cannot be read", path.display()))?;
        let blocks = length(number, generation);
        ensure!(
            bytes.len() == blocks as usize * BLOCK,
            "{} should have {blocks} blocks and has {} bytes",
            path.display(),
            bytes.len()
        );
        let mut block = Block::ZERO;
        for (part, content) in (0..).zip(bytes.chunks_exact(BLOCK)) {
            block.0.copy_from_slice(content);
            block
                .check(self.writer, number * LONGEST + part, generation)
                .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn path(&self, number: u32) -> PathBuf {
        self.place.join(format!("file{number}"))
    }
}

/// Blocks of a file; another number in each generation.
fn length(number: u32, generation: u32) -> u32 {
    1 + (number * 5 + generation * 7) % LONGEST
}

/// There is a file system on the disk: the magic number of ext2 and what came after it stands where it belongs (56 bytes behind the
/// begin of the superblock, which is 1024 bytes behind that of the disk).
fn has_file_system(disk: &Path) -> Result<bool> {
    let mut magic = [0; 2];
    File::open(disk)
        .and_then(|file| file.read_exact_at(&mut magic, 1024 + 56))
        .with_context(|| format!("{} cannot be read", disk.display()))?;
    Ok(u16::from_le_bytes(magic) == 0xef53)
}

/// Makes a file system.
fn make(disk: &Path) -> Result<()> {
    let output = Command::new(MAKE[0])
        .args([MAKE[1], "-b", "4096"])
        .arg(disk)
        .stdin(Stdio::null())
        .output()
        .context(MAKE[0])?;
    ensure!(
        output.status.success(),
        "no file system can be made on {}: {}",
        disk.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
