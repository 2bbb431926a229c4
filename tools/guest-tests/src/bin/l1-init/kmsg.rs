// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The kernel log: read record by record with its levels, and written to when a test starts or ends, so that a reader of the
//! log knows which test a line belongs to.

use crate::link::Link;
use anyhow::{Context, Result};
use lab_protocol::{Frame, Report, MARK};
use rustix::fs::{open, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Longest record that the kernel hands out (PRINTKRB_RECORD_MAX in kernel/printk).
const RECORD_MAX: usize = 8192;

/// /dev/kmsg, read from the oldest record on.
pub struct KernelLog {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl KernelLog {
    /// Opens the log for reading and writing.
    pub fn open() -> Result<Self> {
        let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(Self {
            reader: open("/dev/kmsg", flags | OFlags::RDONLY, Mode::empty())
                .context("/dev/kmsg")?,
            writer: open("/dev/kmsg", flags | OFlags::WRONLY, Mode::empty())
                .context("/dev/kmsg")?,
        })
    }

    /// Sends every record that is there.
    pub fn forward(&mut self, link: &mut Link) -> Result<()> {
        let mut record = [0; RECORD_MAX];
        loop {
            match rustix::io::read(&self.reader, &mut record) {
                Ok(n) => link.send(&Frame::Kmsg(record[..n].to_vec())),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE) => link.send(&Frame::Report(Report::Trouble {
                    text: "kernel log records were overwritten before they could be read".into(),
                })),
                Err(e) => return Err(e).context("cannot read /dev/kmsg"),
            }
        }
    }

    /// Writes `lab: <text>` at level info.
    pub fn mark(&self, text: &str) -> Result<()> {
        // Without the newline the record would stay open for a continuation, and be readable only after the next one.
        let line = format!("<6>{MARK}{text}\n");
        rustix::io::write(&self.writer, line.as_bytes()).context("cannot write to /dev/kmsg")?;
        Ok(())
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
