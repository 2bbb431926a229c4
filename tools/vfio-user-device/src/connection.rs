// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Messages and descriptors on a socket.
//!
//! Nothing here waits. What is read next never goes beyond the message that is being collected, so that descriptors belong to the
//! message whose bytes they came with; and a reply leaves in one piece where the socket has room for it, as clients read its header
//! in one go.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{ioctl_fionread, Errno};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use vfio_user_protocol::{FrameError, Framer, Header, Limits};

use crate::host::{Descriptors, Outgoing, MAX_MSG_FDS};

use foreign::is_known;
pub use foreign::Foreign;

mod foreign;

/// Why nothing more comes.
#[derive(Debug)]
pub enum End {
    /// The client closed the connection, or it broke.
    Gone,
    /// The client said something that cannot be followed any further.
    Lost(FrameError),
}

/// What reading came to.
#[derive(Debug)]
pub enum Read {
    /// A whole message is there.
    Message,
    /// It goes on when more has come.
    Wait,
}

/// A socket that a client is at the other end of.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    framer: Framer,
    descriptors: Descriptors,
    /// Where those go that nobody has a use for.
    foreign: Foreign,
    /// Bytes that were read.
    heard: u64,
    /// What goes out, the first of which may have been sent in part.
    out: VecDeque<Outgoing>,
    sent: usize,
}

impl Connection {
    /// Takes up a connection.
    pub fn new(socket: OwnedFd, foreign: Foreign) -> Self {
        Self {
            socket,
            framer: Framer::new(Limits::DEFAULT.message_len()),
            descriptors: Descriptors::default(),
            foreign,
            heard: 0,
            out: VecDeque::new(),
            sent: 0,
        }
    }

    /// Reads what has come of the message that is being collected.
    pub fn read(&mut self) -> Result<Read, End> {
        let mut buffer = vec![0; self.framer.wanted().min(64 << 10)];
        loop {
            if self.framer.message().is_some() {
                return Ok(Read::Message);
            }
            let wanted = self.framer.wanted();
            if buffer.len() < wanted {
                buffer.resize(wanted, 0);
            }
            let Some(part) = buffer.get_mut(..wanted) else {
                return Ok(Read::Wait);
            };
            let taken = match self.receive(part) {
                Ok(0) => return Err(End::Gone),
                Ok(taken) => taken,
                Err(Errno::AGAIN) => return Ok(Read::Wait),
                Err(Errno::INTR) => continue,
                Err(_) => return Err(End::Gone),
            };
            self.heard = self.heard.saturating_add(taken as u64);
            let bytes = buffer.get(..taken).unwrap_or_default();
            self.framer.push(bytes).map_err(End::Lost)?;
        }
    }

    fn receive(&mut self, bytes: &mut [u8]) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_MSG_FDS))];
        let room = match self.foreign.has_room() {
            true => &mut space[..],
            false => &mut [],
        };
        let mut ancillary = RecvAncillaryBuffer::new(room);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(bytes)];
        let received = recvmsg(&self.socket, &mut parts, &mut ancillary, flags)?;
        // Reading stops where the body begins, and the kernel gives descriptors along with the byte that they were sent with, or
        // with bytes before that are read in the same go.
        let with_header = self.framer.is_before_body();
        let mut foreign = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    match is_known(&fd) {
                        true if with_header => self.descriptors.fds.push(fd),
                        true => self.descriptors.lost = true,
                        false => foreign.push(fd),
                    }
                }
            }
        }
        if !foreign.is_empty() {
            self.descriptors.lost = true;
            self.descriptors.foreign = true;
            self.foreign.close(foreign);
        }
        // A header that comes in pieces may bring some with each of them.
        let too_many = self.descriptors.fds.len() > MAX_MSG_FDS;
        if too_many || received.flags.contains(ReturnFlags::CTRUNC) {
            self.descriptors.lost = true;
        }
        if self.descriptors.lost {
            self.descriptors.fds.clear();
        }
        Ok(received.bytes)
    }

    /// The message that is whole, for whoever carries it out; the next one is collected afterwards.
    pub fn take<R>(
        &mut self,
        carry_out: impl FnOnce(&Header, &[u8], Descriptors) -> R,
    ) -> Option<R> {
        let descriptors = std::mem::take(&mut self.descriptors);
        let (header, body) = self.framer.message()?;
        let result = carry_out(&header, body, descriptors);
        self.framer.next();
        Some(result)
    }

    /// The message that is whole, if one is.
    pub fn message(&self) -> Option<(Header, &[u8])> {
        self.framer.message()
    }

    /// From the next message on, none may be longer than so many bytes.
    pub fn limit(&mut self, most: usize) {
        self.framer = Framer::new(most);
    }

    /// Bytes that were read so far.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Bytes that have come and were not read yet.
    pub fn unread(&self) -> u64 {
        ioctl_fionread(&self.socket).unwrap_or(0)
    }

    /// Whether a whole message is there, and was not carried out.
    pub fn has_message(&self) -> bool {
        self.framer.message().is_some()
    }

    /// Whether the client has closed the connection, though not all that it said may have been read.
    pub fn has_ended(&self) -> bool {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut files = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        poll(&mut files, Some(&now)) == Ok(1)
    }

    /// Queues a message. An empty one is none.
    pub fn queue(&mut self, message: Outgoing) {
        if !message.bytes.is_empty() {
            self.out.push_back(message);
        }
    }

    /// Whether something waits for room in the socket.
    pub fn is_full(&self) -> bool {
        !self.out.is_empty()
    }

    /// Sends what there is room for, and says how many bytes that was.
    pub fn send(&mut self) -> Result<usize, End> {
        let mut moved = 0;
        while let Some(message) = self.out.front() {
            let rest = message.bytes.get(self.sent..).unwrap_or_default();
            // The descriptor goes with the first byte.
            let file = message.file.as_ref().filter(|_| self.sent == 0);
            match send(&self.socket, rest, file) {
                Ok(sent) => {
                    moved += sent;
                    self.sent += sent;
                    if self.sent >= message.bytes.len() {
                        self.out.pop_front();
                        self.sent = 0;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return Err(End::Gone),
            }
        }
        Ok(moved)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn send(socket: &OwnedFd, bytes: &[u8], file: Option<&OwnedFd>) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let files = file.map(AsFd::as_fd);
    if let Some(file) = &files {
        // There is room for one.
        ancillary.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(file)));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)
}
