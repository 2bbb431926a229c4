// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The byte pipe to the host, never blocking for longer than the host needs to read.

use anyhow::{bail, Context, Result};
use lab_protocol::{Decoder, Frame};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// The control port with the frames that wait to be written to it.
pub struct Link {
    port: File,
    decoder: Decoder,
    outbox: VecDeque<Vec<u8>>,
    /// Bytes of the first frame in `outbox` that are written already.
    written: usize,
    queued: usize,
}

impl Link {
    /// `port` must be open for reading and writing, not blocking.
    pub fn new(port: File) -> Self {
        Self {
            port,
            decoder: Decoder::default(),
            outbox: VecDeque::new(),
            written: 0,
            queued: 0,
        }
    }

    /// Queues a frame; [`Link::flush`] writes it.
    pub fn send(&mut self, frame: &Frame) {
        let bytes = frame.encode();
        self.queued += bytes.len();
        self.outbox.push_back(bytes);
    }

    /// Bytes that wait.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Whether nothing waits to be written.
    pub fn idle(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Writes as much as the port takes now.
    pub fn flush(&mut self) -> Result<()> {
        while let Some(first) = self.outbox.front() {
            match rustix::io::write(&self.port, &first[self.written..]) {
                Ok(n) => {
                    self.written += n;
                    self.queued -= n;
                    if self.written == first.len() {
                        self.outbox.pop_front();
                        self.written = 0;
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e).context("cannot write to the control port"),
            }
        }
        Ok(())
    }

    /// Writes until at most `limit` bytes wait, however long the host takes.
    pub fn drain_to(&mut self, limit: usize) -> Result<()> {
        self.flush()?;
        while self.queued > limit {
            let mut fds = [PollFd::new(&self.port, PollFlags::OUT)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => self.flush()?,
                Err(e) => return Err(e).context("poll"),
            }
        }
        Ok(())
    }

    /// The next frame from the host, if a whole one is there.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            let mut bytes = [0; 4096];
            match rustix::io::read(&self.port, &mut bytes) {
                Ok(0) => bail!("the host closed the control port"),
                Ok(n) => self.decoder.feed(&bytes[..n]),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e).context("cannot read the control port"),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}
