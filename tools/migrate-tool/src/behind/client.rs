// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A client that says exactly what it is told to, and tells exactly what came.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::scaled;
use guest_tests::vfio::event_fd::DEADLINE;
use guest_tests::vfio::Event;
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use vfio_uapi::Errno;
use vfio_user_protocol::request::{Action, IrqData};
use vfio_user_protocol::{answer, Access, Framer, Limits, Proposal, Request, SetIrqs};

/// A connection on which both sides have agreed.
pub struct Client(UnixStream);

/// The body of a reply, or what was refused.
pub type Answer = std::result::Result<Vec<u8>, Errno>;

impl Client {
    /// Becomes the client.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("the socket")?;
        let limit: Duration = scaled(DEADLINE);
        stream.set_read_timeout(Some(limit))?;
        let mut client = Self(stream);
        let version = Request::Version(Proposal::bare(0, 0));
        client
            .ask(&version, &[])?
            .map_err(|error| anyhow::anyhow!("the program does not agree: {error:?}"))?;
        Ok(client)
    }

    /// Sends a request with descriptors, and waits for its reply.
    pub fn ask(&mut self, request: &Request<'_>, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        let mut bytes = Vec::new();
        request.encode(1, false, &mut bytes);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(fds));
            ensure!(fits, "{} descriptors", fds.len());
        }
        let slices = [IoSlice::new(&bytes)];
        let sent = sendmsg(&self.0, &slices, &mut ancillary, SendFlags::NOSIGNAL)?;
        self.0.write_all(&bytes[sent..])?;

        let mut framer = Framer::new(Limits::DEFAULT.message_len());
        while framer.message().is_none() {
            let mut buffer = vec![0; framer.wanted()];
            let length = self.0.read(&mut buffer).context("no reply")?;
            ensure!(length > 0, "the program has ended the connection");
            let taken = framer.push(&buffer[..length]);
            ensure!(taken.is_ok(), "the reply has no sound header");
        }
        let (header, body) = framer.message().context("no reply")?;
        ensure!(
            header.is_reply() && header.command == request.command() as u16,
            "{header:?} is no answer"
        );
        Ok(match header.error() {
            None => Ok(body.to_vec()),
            Some(number) => Err(Errno::from_raw(number as i32)),
        })
    }

    /// Reads registers.
    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Result<Answer> {
        let access = Access {
            offset,
            region,
            count,
        };
        let answered = self.ask(&Request::Read(access), &[])?;
        let data = |body: Vec<u8>| {
            let data = answer::registers(&body, &access).map(<[u8]>::to_vec);
            data.map_err(|refusal| anyhow::anyhow!("{refusal}"))
        };
        answered.map_or_else(|error| Ok(Err(error)), |body| data(body).map(Ok))
    }

    /// Writes registers.
    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<Answer> {
        let access = Access {
            offset,
            region,
            count: data.len() as u32,
        };
        self.ask(&Request::Write(access, data), &[])
    }

    /// Ties the one interrupt of an index to an eventfd.
    pub fn interrupt(&mut self, index: u32, event: &Event) -> Result<Answer> {
        let wish = SetIrqs {
            index,
            start: 0,
            count: 1,
            action: Action::Trigger,
            data: IrqData::EventFd,
        };
        self.ask(&Request::SetIrqs(wish), &[event.as_fd()])
    }

    /// Ties INTx to an eventfd.
    pub fn intx(&mut self, event: &Event) -> Result<Answer> {
        self.interrupt(guest_tests::vfio::interrupt::INTX, event)
    }

    /// Says something more and is gone.
    pub fn leave(mut self, words: &[u8]) -> Result<()> {
        self.0.write_all(words).context("the last words")
    }
}
