// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The files that a client's memory is in.
//!
//! A program has so many descriptors, and its devices share them. So a file is kept once, however many ranges are in it (behind an
//! IOMMU of the guest's, those are many), a client has a number of them, and the last ones of the program are for others.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::fs::{OFlags, Stat};
use rustix::process::{getrlimit, Resource};

/// Most files that the memory of one client is in. A machine of QEMU's has one for each module of memory, of which ACPI has 256, and
/// some more for what cards have; vhost-user has 512, too.
pub const MAX_FILES: usize = 512;

/// A client gets none of the last ones: one in so many of the program's descriptors is kept back.
const RESERVED: u64 = 4;

/// What tells a file from others. Two descriptors of the same one, opened alike, are the same to whoever reads and writes by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    device: u64,
    inode: u64,
    mode: u32,
    page: u64,
}

impl Identity {
    /// That of a file, and how it was opened.
    pub fn new(stat: &Stat, mode: OFlags) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            mode: mode.bits(),
            page: u64::try_from(stat.st_blksize).unwrap_or(0),
        }
    }
}

/// A file that is kept.
#[derive(Debug)]
pub struct File {
    /// Its descriptor.
    pub fd: OwnedFd,
    /// Bytes of its pages, where those are huge.
    pub page: u64,
}

/// Why a file is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The client has as many as it may have.
    Client,
    /// The program has few descriptors left.
    Program,
}

impl Refused {
    /// In words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Client => {
                "DMA_MAP: the client's memory is in 512 files already, which is the most that a client may have"
            }
            Self::Program => {
                "DMA_MAP: the program has few descriptors left, which are for other clients; raise its limit (RLIMIT_NOFILE)"
            }
        }
    }
}

/// The files of one client. Whoever holds one of them keeps it open.
#[derive(Debug, Default)]
pub struct Files {
    known: BTreeMap<Identity, Weak<File>>,
}

impl Files {
    /// Keeps a file, or finds that there is one that is the same.
    pub fn keep(&mut self, fd: OwnedFd, identity: Identity) -> Result<Arc<File>, Refused> {
        // One that is still open keeps its number; another file cannot have it.
        if let Some(known) = self.known.get(&identity).and_then(Weak::upgrade) {
            return Ok(known);
        }
        self.known.retain(|_, file| file.strong_count() > 0);
        if self.known.len() >= MAX_FILES {
            return Err(Refused::Client);
        }
        // The lowest number that is free is taken: all before this one were in use.
        let number = u64::try_from(fd.as_raw_fd()).unwrap_or(u64::MAX);
        let limit = getrlimit(Resource::Nofile).current;
        if limit.is_some_and(|limit| number >= limit - limit / RESERVED) {
            return Err(Refused::Program);
        }
        let page = identity.page;
        let file = Arc::new(File { fd, page });
        self.known.insert(identity, Arc::downgrade(&file));
        Ok(file)
    }
}
