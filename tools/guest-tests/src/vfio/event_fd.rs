// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Event file descriptors: how the kernel signals an interrupt, and how a user asks for one to be unmasked.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use anyhow::{bail, ensure, Context};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Device, IrqSet};
use crate::ktap::scaled;

/// How long a test waits for an event that has to come.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// An eventfd.
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    /// A new eventfd with nothing signalled.
    pub fn new() -> super::Result<Self> {
        Ok(Self(EventFd::from_value_and_flags(
            0,
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?))
    }

    /// Ties a new eventfd to interrupt 0 of `index` of a device: [`super::interrupt::INTX`] and the like.
    pub fn of(device: &Device, index: u32) -> super::Result<Self> {
        let event = Self::new()?;
        device.set_irqs(&IrqSet::eventfd(
            index,
            super::interrupt::TRIGGER,
            event.number(),
        ))?;
        Ok(event)
    }

    /// The number for the data of an ioctl.
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Waits until it is signalled, at most [`DEADLINE`]; returns how often since the last call.
    pub fn wait(&self) -> anyhow::Result<u64> {
        ensure!(
            readable(self.0.as_fd(), DEADLINE)?,
            "no interrupt within {} s",
            scaled(DEADLINE).as_secs()
        );
        self.0.read().context("eventfd")
    }

    /// How often it was signalled since the last call; 0 if it was not.
    pub fn count(&self) -> anyhow::Result<u64> {
        match self.0.read() {
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN) => Ok(0),
            Err(error) => bail!("eventfd: {error}"),
        }
    }

    /// Signals it.
    pub fn signal(&self) -> anyhow::Result<()> {
        self.0.write(1).context("eventfd")?;
        Ok(())
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until `fd` can be read; false if that does not happen within `time` (before [`scaled`]).
pub fn readable(fd: BorrowedFd<'_>, time: Duration) -> anyhow::Result<bool> {
    Ok(events(fd, PollFlags::POLLIN, time)?
        .intersects(PollFlags::POLLIN | PollFlags::POLLERR | PollFlags::POLLHUP))
}

/// Polls `fd` for `wanted`, at most `time` (before [`scaled`]); returns what is there.
pub fn events(fd: BorrowedFd<'_>, wanted: PollFlags, time: Duration) -> anyhow::Result<PollFlags> {
    let timeout = PollTimeout::try_from(scaled(time)).context("the time to wait")?;
    let mut list = [PollFd::new(fd, wanted)];
    loop {
        match poll(&mut list, timeout) {
            Ok(_) => return Ok(list[0].revents().unwrap_or(PollFlags::empty())),
            Err(Errno::EINTR) => {}
            Err(error) => bail!("poll: {error}"),
        }
    }
}
