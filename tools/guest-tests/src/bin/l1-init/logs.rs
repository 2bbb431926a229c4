// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A program's LOGDIR: its files go to the host while they grow, so that what a program wrote is there even if the machine
//! dies under it.

use crate::link::Link;
use anyhow::Result;
use lab_protocol::{Frame, CHUNK};
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that may wait for the host while files are read.
const QUEUE: usize = 1 << 20;

/// A directory of log files and how much of each has been sent.
pub struct LogDir {
    path: PathBuf,
    sent: HashMap<PathBuf, u64>,
}

impl LogDir {
    /// Makes the directory for a program.
    pub fn create(label: &str) -> std::io::Result<Self> {
        let path = Path::new("/run/logs").join(label.replace(
            |c: char| !c.is_ascii_alphanumeric() && !"-_./".contains(c),
            "_",
        ));
        fs::create_dir_all(&path)?;
        Ok(Self {
            path,
            sent: HashMap::new(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends what was added since the last time. A file that got shorter is sent anew.
    pub fn export(&mut self, run: u32, link: &mut Link) -> Result<()> {
        let mut files = Vec::new();
        list(&self.path, &mut files);
        for file in files {
            let Ok(name) = file.strip_prefix(&self.path) else {
                continue;
            };
            let name = name.to_path_buf();
            self.export_file(run, &file, name, link)?;
        }
        Ok(())
    }

    /// A file may vanish or be unreadable at any time while its program runs: what cannot be read is left out.
    fn export_file(&mut self, run: u32, file: &Path, name: PathBuf, link: &mut Link) -> Result<()> {
        let Ok(handle) = File::open(file) else {
            return Ok(());
        };
        let Ok(length) = handle.metadata().map(|m| m.len()) else {
            return Ok(());
        };
        let path = name.to_string_lossy().into_owned();
        let known = self.sent.contains_key(&name);
        let offset = self.sent.entry(name).or_insert(0);
        if length < *offset {
            *offset = 0;
        } else if known && length == *offset {
            return Ok(());
        }
        let mut bytes = vec![0; CHUNK];
        loop {
            let n = handle.read_at(&mut bytes, *offset).unwrap_or(0);
            if n == 0 && *offset > 0 {
                return Ok(());
            }
            link.send(&Frame::File {
                run,
                offset: *offset,
                path: path.clone(),
                bytes: bytes[..n].to_vec(),
            });
            link.drain_to(QUEUE)?;
            *offset += n as u64;
            if n == 0 {
                return Ok(());
            }
        }
    }

    /// Gives the memory back.
    pub fn remove(self) -> std::io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}
