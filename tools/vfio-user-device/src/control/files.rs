// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Files that state goes to and comes from.
//!
//! A pipe may have nobody at its other end, and the device stands still meanwhile: whoever does not get on for as long as clients
//! are waited for is given up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};

use super::envelope::Fault;
use crate::registry::{Saving, TransferError};

/// What a pipe takes in one piece if it takes anything.
const PIECE: usize = 4096;

/// For errors without a number.
const EIO: u32 = 5;
const ETIMEDOUT: u32 = 110;

fn io_fault(name: &str, error: &io::Error) -> Fault {
    let errno = error.raw_os_error().and_then(|errno| errno.try_into().ok());
    let otherwise = match error.kind() {
        io::ErrorKind::TimedOut => ETIMEDOUT,
        _ => EIO,
    };
    Fault::File {
        what: format!("{name}: {error}"),
        errno: errno.unwrap_or(otherwise),
    }
}

/// Why a transfer failed: the device's reason, or that of the file with this name.
pub fn fault(name: &str, error: TransferError) -> Fault {
    match error {
        TransferError::Device(error) => Fault::Device(error),
        TransferError::Io(error) => io_fault(name, &error),
    }
}

/// Saves a device to a file that is made for it, readable for nobody else. Where one is already, it stays; if saving fails, none is
/// left.
pub fn save(saving: Saving, path: &Path) -> Result<u64, Fault> {
    let name = path.display().to_string();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Fault::File {
            what: format!("{name}: something is there already; remove it, or give another path"),
            errno: vfio_user_protocol::refusal::errno::EEXIST,
        },
        _ => io_fault(&name, &error),
    })?;
    let saved = saving.write_to(&mut file);
    let synced = saved.and_then(|bytes| {
        file.sync_all().map_err(TransferError::Io)?;
        Ok(bytes)
    });
    synced.map_err(|error| {
        let _ = fs::remove_file(path);
        fault(&name, error)
    })
}

/// Opens a file to load from. It is not waited for, whatever it is.
pub fn open(path: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.map_err(|error| io_fault(&path.display().to_string(), &error.into()))
}

/// Waits until the file is ready, for no longer than this.
fn wait(file: &File, flags: PollFlags, patience: Duration) -> io::Result<()> {
    let patience = Timespec {
        tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut files = [PollFd::from_borrowed_fd(file.as_fd(), flags)];
    match poll(&mut files, Some(&patience))? {
        0 => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the other end does not get on",
        )),
        _ => Ok(()),
    }
}

/// Writes to a descriptor.
#[derive(Debug)]
pub struct Writer {
    file: File,
    patience: Duration,
}

impl Writer {
    /// Takes a descriptor.
    pub fn new(fd: OwnedFd, patience: Duration) -> Self {
        let file = fd.into();
        Self { file, patience }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            wait(&self.file, PollFlags::OUT, self.patience)?;
            let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
            match self.file.write(piece) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads from a descriptor.
#[derive(Debug)]
pub struct Reader {
    file: File,
    patience: Duration,
}

impl Reader {
    /// Takes a descriptor.
    pub fn new(fd: OwnedFd, patience: Duration) -> Self {
        let file = fd.into();
        Self { file, patience }
    }
}

impl Read for Reader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            wait(&self.file, PollFlags::IN, self.patience)?;
            match self.file.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}
