// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Talking to a program that emulates a device, by vfio-user.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{recv, RecvFlags};
use vfio_uapi::Errno;
use vfio_user_protocol::feature::{Feature, Operation};
use vfio_user_protocol::{answer, Command, Framer, Limits, Proposal, Refusal, Request};

use crate::error::describe;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a request was not carried out.
pub enum Trouble {
    /// The program refuses it.
    Refused(Errno),
    /// There is no answer, or none that makes sense.
    Lost(String),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Lost(format!("the program's answer makes no sense: {refusal}"))
    }
}

/// What a request comes to.
pub type Answered<T> = std::result::Result<T, Trouble>;

/// What has come of a reply.
pub enum Heard {
    /// It is not whole.
    Nothing,
    /// Its body.
    Reply(Vec<u8>),
    /// The program has ended the connection.
    End,
}

/// A connection to a program.
pub struct Client {
    socket: UnixStream,
    framer: Framer,
    next: u16,
    /// Most bytes of data in one message.
    pub most: u32,
}

impl Client {
    /// Connects to the program that listens at this path. An error says what to do about it.
    pub fn connect(path: &Path) -> std::result::Result<Self, String> {
        let socket = UnixStream::connect(path).map_err(|error| {
            let what = describe(&error);
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    format!("no program listens there: {what}: start one")
                }
                _ => what,
            }
        })?;
        Ok(Self {
            socket,
            framer: Framer::new(Limits::DEFAULT.message_len()),
            next: 0,
            most: Limits::DEFAULT.max_data_xfer_size,
        })
    }

    /// Both sides say what they can. Gives what the program says.
    pub fn agree(&mut self, ours: Proposal) -> Answered<Proposal> {
        let body = self.ask(&Request::Version(ours))?;
        let theirs = answer::version(&body)?;
        self.most = self.most.min(theirs.max_data_xfer_size);
        Ok(theirs)
    }

    /// Sends a request and takes the body of its reply.
    pub fn ask(&mut self, request: &Request<'_>) -> Answered<Vec<u8>> {
        let until = Instant::now() + LIMIT;
        self.request(request, until)?;
        self.receive(until)?;
        self.reply(request.command())
    }

    /// Sends a request. Its reply is waited for by who wants it.
    pub fn tell(&mut self, request: &Request<'_>) -> Answered<()> {
        self.request(request, Instant::now() + LIMIT)
    }

    fn request(&mut self, request: &Request<'_>, until: Instant) -> Answered<()> {
        self.next = self.next.wrapping_add(1);
        let mut bytes = Vec::new();
        request.encode(self.next, false, &mut bytes);
        self.send(&bytes, until)
    }

    /// The body of the reply, which is whole, to the last request.
    fn reply(&mut self, command: Command) -> Answered<Vec<u8>> {
        let (header, body) = match self.framer.message() {
            Some((header, body)) => (header, body.to_vec()),
            None => return Err(Trouble::Lost("the program's answer is cut".to_string())),
        };
        self.framer.next();
        if !header.is_reply() || header.id != self.next || header.command != command as u16 {
            let what = "the program answers something that it was not asked";
            return Err(Trouble::Lost(what.to_string()));
        }
        match header.error() {
            None => Ok(body),
            // A server may leave open which one.
            Some(0) => Err(Trouble::Refused(Errno::EIO)),
            Some(number) => Err(Trouble::Refused(Errno::from_raw(number as i32))),
        }
    }

    /// Takes what has come of the reply to a request that was told: its body when it is whole. To be called when the socket is
    /// readable.
    pub fn hear(&mut self, command: Command) -> Answered<Heard> {
        let mut buffer = vec![0; self.framer.wanted()];
        match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Ok(Heard::End),
            Ok((_, len)) => self.push(buffer.get(..len).unwrap_or_default())?,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return Err(lost(&error.into())),
        }
        match self.framer.message() {
            None => Ok(Heard::Nothing),
            Some(_) => self.reply(command).map(Heard::Reply),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Answered<()> {
        let pushed = self.framer.push(bytes);
        pushed
            .map(drop)
            .map_err(|error| Trouble::Lost(error.to_string()))
    }

    fn send(&mut self, mut bytes: &[u8], until: Instant) -> Answered<()> {
        while !bytes.is_empty() {
            let left = left(until)?;
            let written = self.socket.set_write_timeout(Some(left));
            match written.and_then(|()| self.socket.write(bytes)) {
                Ok(0) => return Err(lost(&io::ErrorKind::WriteZero.into())),
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error) => passing(&error)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, until: Instant) -> Answered<()> {
        let mut buffer = Vec::new();
        while self.framer.message().is_none() {
            buffer.resize(self.framer.wanted(), 0);
            let left = left(until)?;
            let read = self.socket.set_read_timeout(Some(left));
            match read.and_then(|()| self.socket.read(&mut buffer)) {
                Ok(0) => return Err(Trouble::Lost("the program has ended the connection".into())),
                Ok(len) => self.push(buffer.get(..len).unwrap_or_default())?,
                Err(error) => passing(&error)?,
            }
        }
        Ok(())
    }

    /// The data of a feature.
    pub fn feature(&mut self, number: u16, operation: Operation, data: &[u8]) -> Answered<Vec<u8>> {
        let body = self.ask(&Request::Feature(Feature {
            argsz: self.most,
            number,
            operation,
            data,
        }))?;
        Ok(answer::feature(&body)?.to_vec())
    }

    /// The data of a feature that is one number of 64 bits.
    pub fn number(&mut self, feature: u16) -> Answered<u64> {
        let data = self.feature(feature, Operation::Get, &[])?;
        Ok(answer::number(&data)?)
    }
}

/// Readable when something has come.
impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What is left of the time.
fn left(until: Instant) -> Answered<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(late()),
        false => Ok(left),
    }
}

fn late() -> Trouble {
    let seconds = LIMIT.as_secs();
    Trouble::Lost(format!(
        "the program does not answer within {seconds} seconds"
    ))
}

fn lost(error: &io::Error) -> Trouble {
    Trouble::Lost(describe(error))
}

/// Whether it can be tried again.
fn passing(error: &io::Error) -> Answered<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        // The time is up.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(late()),
        _ => Err(lost(error)),
    }
}
