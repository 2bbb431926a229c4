// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device that a program emulates, which is reached by vfio-user.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use std::cell::RefCell;
use vfio_uapi::{abi, Errno, State};
use vfio_user_protocol::feature::{number, Feature, Operation};
use vfio_user_protocol::{answer, Access, Framer, Limits, Proposal, Refusal, Request};

use super::{errno, Card, Loading, Progress, Protocol, Saved, Way, CHUNK};
use crate::error::{describe, Error, Result};
use crate::inspect::SERIAL_MODEL;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Vendor and device identifiers of the serial cards.
const SERIAL_IDS: [[u8; 4]; 3] = [[0x36, 0x1b, 2, 0], [0x36, 0x1b, 3, 0], [0x36, 0x1b, 4, 0]];

/// Why a request was not carried out.
enum Trouble {
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
type Answered<T> = std::result::Result<T, Trouble>;

/// A connection on which both sides have agreed.
struct Client {
    socket: UnixStream,
    framer: Framer,
    next: u16,
    /// Most bytes of data in one message.
    most: u32,
}

impl Client {
    fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            framer: Framer::new(Limits::DEFAULT.message_len()),
            next: 0,
            most: Limits::DEFAULT.max_data_xfer_size,
        }
    }

    /// Both sides say what they can.
    fn agree(&mut self) -> Answered<()> {
        let body = self.ask(&Request::Version(Proposal::bare(0, 0)))?;
        let theirs = answer::version(&body)?;
        self.most = self.most.min(theirs.max_data_xfer_size);
        Ok(())
    }

    /// Sends a request and takes the body of its reply.
    fn ask(&mut self, request: &Request<'_>) -> Answered<Vec<u8>> {
        self.next = self.next.wrapping_add(1);
        let mut bytes = Vec::new();
        request.encode(self.next, false, &mut bytes);
        let until = Instant::now() + LIMIT;
        self.send(&bytes, until)?;
        self.receive(until)?;
        let (header, body) = match self.framer.message() {
            Some((header, body)) => (header, body.to_vec()),
            None => return Err(Trouble::Lost("the program's answer is cut".to_string())),
        };
        self.framer.next();
        if !header.is_reply()
            || header.id != self.next
            || header.command != request.command() as u16
        {
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
                Ok(len) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    let pushed = self.framer.push(bytes);
                    pushed.map_err(|error| Trouble::Lost(error.to_string()))?;
                }
                Err(error) => passing(&error)?,
            }
        }
        Ok(())
    }

    /// The data of a feature.
    fn feature(&mut self, number: u16, operation: Operation, data: &[u8]) -> Answered<Vec<u8>> {
        let body = self.ask(&Request::Feature(Feature {
            argsz: self.most,
            number,
            operation,
            data,
        }))?;
        Ok(answer::feature(&body)?.to_vec())
    }

    fn number(&mut self, feature: u16) -> Answered<u64> {
        let data = self.feature(feature, Operation::Get, &[])?;
        Ok(answer::number(&data)?)
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

/// A program that this one is the client of.
pub struct Program {
    client: RefCell<Client>,
    name: String,
}

impl Program {
    /// Becomes the client of the program that listens at this path. `name` is what messages call it.
    pub fn connect(path: &Path, name: &str) -> Result<Self> {
        let failed = |what: &str| Error::failed(format!("{name}: {what}"));
        let socket = UnixStream::connect(path).map_err(|error| {
            let what = describe(&error);
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    failed(&format!("no program listens there: {what}: start one"))
                }
                _ => failed(&what),
            }
        })?;
        let mut client = Client::new(socket);
        client.agree().map_err(|trouble| match trouble {
            Trouble::Refused(Errno::EBUSY) => failed(
                "the device is in use (EBUSY): end the program that is its client, or choose another one",
            ),
            Trouble::Refused(error) => failed(&errno("the program does not agree", error)),
            Trouble::Lost(what) => failed(&what),
        })?;
        Ok(Self {
            client: RefCell::new(client),
            name: name.to_string(),
        })
    }

    fn lost(&self, what: &str) -> Error {
        Error::failed(format!("{}: {what}", self.name))
    }

    /// Something that was refused, with the reason if the program tells it.
    fn failure(&self, what: &str, trouble: Trouble) -> Error {
        let error = match trouble {
            Trouble::Refused(error) => error,
            Trouble::Lost(lost) => return self.lost(&lost),
        };
        let what = errno(&format!("{}: {what}", self.name), error);
        let mut client = self.client.borrow_mut();
        let reason = client.feature(number::REFUSAL, Operation::Get, &[]);
        let reason = reason.ok().and_then(|text| String::from_utf8(text).ok());
        Error::refused(match reason.as_deref() {
            None | Some("") => what,
            Some(reason) => format!("{what}: {reason}"),
        })
    }

    fn flags(&self) -> Result<u64> {
        let flags = self.client.borrow_mut().number(number::MIGRATION);
        flags.map_err(|trouble| match trouble {
            // A server may answer either.
            Trouble::Refused(Errno::ENOTTY | Errno::EINVAL) => {
                self.lost("the device cannot be migrated by vfio-user")
            }
            Trouble::Refused(error) => self.lost(&errno("its migration features", error)),
            Trouble::Lost(what) => self.lost(&what),
        })
    }

    fn switch(&self, target: State) -> Result<()> {
        let data = [target as u32, 0].map(u32::to_ne_bytes).concat();
        let operation = Operation::Set;
        let mut client = self.client.borrow_mut();
        let reached = client.feature(number::MIG_DEVICE_STATE, operation, &data);
        drop(client);
        let what = format!("the device does not go to {target:?}");
        reached
            .map(drop)
            .map_err(|trouble| self.failure(&what, trouble))
    }

    /// Moves what there is to read.
    fn pump(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        count: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut bytes = 0;
        loop {
            let mut client = self.client.borrow_mut();
            let size = client.most.min(CHUNK as u32);
            let body = client.ask(&Request::MigDataRead { size });
            drop(client);
            let body = body.map_err(|error| self.failure("the state cannot be read", error))?;
            let data = answer::saved(&body, size);
            let data = data.map_err(|refusal| self.failure("", refusal.into()))?;
            if data.is_empty() {
                return Ok(());
            }
            sink(data)?;
            bytes += data.len() as u64;
            count(bytes);
        }
    }

    fn save_phases(
        &self,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        let expected = self.client.borrow_mut().number(number::MIG_DATA_SIZE).ok();
        let mut saved = Saved::default();
        if pre_copy {
            self.switch(State::PreCopy)?;
            self.pump(sink, &mut |bytes| {
                saved.pre_copy = bytes;
                progress(bytes, None);
            })?;
        }
        self.switch(State::StopCopy)?;
        let before = saved.pre_copy;
        self.pump(sink, &mut |bytes| {
            saved.stop_copy = bytes;
            let expected = expected.map(|expected| expected.saturating_add(before));
            progress(before + bytes, expected);
        })?;
        self.switch(State::Stop)?;
        Ok(saved)
    }

    /// Fails for a protocol that there is not.
    fn check(&self, protocol: Protocol) -> Result<()> {
        match protocol {
            Protocol::V2 => Ok(()),
            Protocol::V1 | Protocol::V1Mmap => Err(self
                .lost("vfio-user has no migration region, and so no protocol v1: leave that out")),
        }
    }

    /// Gives the device the next bytes of a state.
    pub(super) fn push(&self, bytes: &[u8]) -> Result<()> {
        let most = self.client.borrow().most as usize;
        for piece in bytes.chunks(most.clamp(1, CHUNK)) {
            let taken = self.client.borrow_mut().ask(&Request::MigDataWrite(piece));
            taken.map_err(|trouble| self.failure("the state is refused", trouble))?;
        }
        Ok(())
    }

    /// The loaded state takes effect.
    pub(super) fn finish(&self) -> Result<()> {
        self.switch(State::Stop)?;
        self.switch(State::Running)
    }

    fn access<T>(&self, answered: Answered<T>) -> Result<T> {
        answered.map_err(|trouble| {
            let what = "a register cannot be accessed";
            match trouble {
                Trouble::Refused(error) => self.lost(&errno(what, error)),
                Trouble::Lost(lost) => self.lost(&lost),
            }
        })
    }
}

/// An access to registers, if it is one that a message has room for.
fn place(region: u32, offset: u64, len: usize) -> Access {
    Access {
        offset,
        region,
        count: u32::try_from(len).unwrap_or(u32::MAX),
    }
}

impl Card for Program {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn model(&self) -> Result<String> {
        let mut id = [0; 4];
        self.read(abi::VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut id)?;
        Ok(match SERIAL_IDS.contains(&id) {
            true => SERIAL_MODEL.to_string(),
            false => format!(
                "device {:02x}{:02x}:{:02x}{:02x}",
                id[1], id[0], id[3], id[2]
            ),
        })
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let asked = place(region, offset, data.len());
        let body = self.client.borrow_mut().ask(&Request::Read(asked));
        let body = self.access(body)?;
        let found = self.access(answer::registers(&body, &asked).map_err(Trouble::from))?;
        // As many as were asked for.
        data.copy_from_slice(found);
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let asked = place(region, offset, data.len());
        let body = self.client.borrow_mut().ask(&Request::Write(asked, data));
        let body = self.access(body)?;
        self.access(answer::written(&body, &asked).map_err(Trouble::from))
    }

    fn region_size(&self, index: u32) -> Result<u64> {
        let asked = Request::RegionInfo { argsz: 32, index };
        let body = self.client.borrow_mut().ask(&asked);
        let body = self.access(body)?;
        self.access(answer::region_size(&body).map_err(Trouble::from))
    }

    fn has_pre_copy(&self, protocol: Protocol) -> Result<bool> {
        self.check(protocol)?;
        Ok(self.flags()? & u64::from(abi::VFIO_MIGRATION_PRE_COPY) != 0)
    }

    fn save(
        &self,
        protocol: Protocol,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        if pre_copy && !self.has_pre_copy(protocol)? {
            return Err(self.lost("the device does not save while it runs: leave out --pre-copy"));
        }
        self.check(protocol)?;
        self.flags()?;
        let saved = self.save_phases(pre_copy, sink, progress);
        if saved.is_err() {
            // The first error is the one to report.
            let _ = self.switch(State::Running);
        }
        saved
    }

    fn load(&self, protocol: Protocol) -> Result<Loading<'_>> {
        self.check(protocol)?;
        self.flags()?;
        self.switch(State::Resuming)?;
        Ok(Loading::new(Way::Socket(self)))
    }
}
