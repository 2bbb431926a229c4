// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the kernel says from now on (`/dev/kmsg`).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::vfio::event_fd::readable;

/// For the kernel to say something. The core of VFIO asks the user of a device that goes every ten seconds, and what is said at the
/// second time is waited for, too.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longest record of /dev/kmsg (PRINTK_MESSAGE_MAX).
const LONGEST: usize = 2048;

/// The kernel's log, from the moment it was opened.
pub struct KernelLog(File);

impl KernelLog {
    /// Only what is said after this call.
    pub fn from_now() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("/dev/kmsg")?;
        Ok(Self(file))
    }

    /// The next message that is there already.
    fn next(&mut self) -> Result<Option<String>> {
        let mut record = [0; LONGEST];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]).into_owned();
                    let (_, message) = text.split_once(';').context("a record of /dev/kmsg")?;
                    // Lines after the first are about the message.
                    return Ok(message.lines().next().map(str::to_owned));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                // Records were lost, and reading goes on behind them.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => bail!("/dev/kmsg: {error}"),
            }
        }
    }

    /// Waits for a message with all of these words; fails if none comes in time. Returns it.
    pub fn wait_for(&mut self, words: &[&str]) -> Result<String> {
        let mut others = Vec::new();
        loop {
            while let Some(message) = self.next()? {
                if words.iter().all(|word| message.contains(word)) {
                    return Ok(message);
                }
                others.push(message);
            }
            ensure!(
                readable(self.0.as_fd(), DEADLINE)?,
                "the kernel did not say {words:?}; it said: {}",
                others.join(" | ")
            );
        }
    }
}
