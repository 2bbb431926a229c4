// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Following a migration in progress: of an instance by its pollable files `state`, `phase` and `bytes`, and of the device of a
//! program by what it tells observers.
//!
//! sysfs does not wake who polls a file that is removed. That the instance has gone is heard from the kernel's uevents. A session
//! may be over before anybody has looked: `sessions` counts those that have begun.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{bind, netlink, socket_with, AddressFamily, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::input::{is_there, regular};
use crate::operand::Device;
use crate::sysfs::Instance;

mod program;

pub use program::Observer;

/// The pollable files, in the order of [`Sample`].
const FILES: [&str; 3] = ["state", "phase", "bytes"];

/// The file that counts sessions.
const SESSIONS: &str = "sessions";

/// What the phase is while nothing is saved or loaded.
pub const NO_PHASE: &str = "none";

/// What the files say at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The state of protocol v2.
    pub state: String,
    /// The phase of the stream, or `none`.
    pub phase: String,
    /// Bytes of the stream so far.
    pub bytes: u64,
    /// How many sessions have begun, if the driver counts them.
    pub sessions: Option<u64>,
}

/// Finds out from samples that a session is over: the one in progress, or else the next one.
#[derive(Debug, Default)]
pub struct End {
    /// The count of the first sample.
    first: Option<Option<u64>>,
    begun: bool,
}

impl End {
    /// Whether it is over at this sample.
    pub fn is_reached(&mut self, sample: &Sample) -> bool {
        let first = *self.first.get_or_insert(sample.sessions);
        let busy = sample.phase != NO_PHASE;
        self.begun |= busy || sample.sessions > first;
        self.begun && !busy
    }
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Something may have changed.
    Changed,
    /// Nobody reads what is written about it.
    NoReader,
}

/// Whatever can be watched.
pub enum Subject {
    /// An instance.
    Instance(Watch),
    /// The device of a program.
    Program(Observer),
}

impl Subject {
    /// Starts to watch a device.
    pub fn new(device: Device) -> Result<Self> {
        Ok(match device {
            Device::Instance(instance) => Self::Instance(Watch::new(instance)?),
            Device::Socket { path, name } => Self::Program(Observer::new(&path, &name)?),
        })
    }

    /// How things are now; `None` if it has gone.
    pub fn sample(&mut self) -> Result<Option<Sample>> {
        match self {
            Self::Instance(watch) => watch.sample(),
            Self::Program(observer) => observer.sample(),
        }
    }

    /// Waits until something may be different, or it may have gone, or nobody reads `output` any more.
    pub fn wait(&mut self, output: impl AsFd) -> Result<Wake> {
        match self {
            Self::Instance(watch) => watch.wait(output),
            Self::Program(observer) => observer.wait(output),
        }
    }

    /// What to say when it has gone.
    pub const fn farewell(&self) -> &'static str {
        match self {
            Self::Instance(_) => "the instance was removed",
            Self::Program(_) => "the program has ended, or the device was removed",
        }
    }
}

/// Waits for one of the files.
fn polled(files: &mut [PollFd<'_>]) -> Result<()> {
    loop {
        match poll(files, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let error = crate::error::describe(&io::Error::from(error));
                return Err(Error::failed(format!("poll: {error}")));
            }
        }
    }
}

/// Whether nobody is at the other end of the file.
fn is_gone(file: &PollFd<'_>) -> bool {
    file.revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// The open files of an instance.
pub struct Watch {
    instance: Instance,
    files: [File; 3],
    /// Absent where the driver does not count sessions.
    sessions: Option<File>,
    /// Where uevents arrive; absent where they cannot be had, as in some containers.
    uevents: Option<OwnedFd>,
}

/// The multicast group of the kernel's own uevents (linux/netlink.h, lib/kobject_uevent.c).
const KERNEL_UEVENTS: u32 = 1;

fn uevents() -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    bind(&socket, &netlink::SocketAddrNetlink::new(0, KERNEL_UEVENTS))?;
    Ok(socket)
}

impl Watch {
    /// Starts to watch an instance.
    pub fn new(instance: Instance) -> Result<Self> {
        instance.check_migratable()?;
        let open = |name| {
            let path = instance.file(name);
            regular(&path).map_err(|error| Error::file(&path, &error))
        };
        let [state, phase, bytes] = FILES;
        // Before the first look, so that nothing is missed between the two.
        let uevents = uevents().ok();
        let files = [open(state)?, open(phase)?, open(bytes)?];
        let sessions = match is_there(&instance.file(SESSIONS))? {
            true => Some(open(SESSIONS)?),
            false => None,
        };
        Ok(Self {
            instance,
            files,
            sessions,
            uevents,
        })
    }

    /// What the files say now; `None` if the instance was removed.
    pub fn sample(&self) -> Result<Option<Sample>> {
        loop {
            let before = match self.count()? {
                Some(count) => count,
                None => return Ok(None),
            };
            let Some(sample) = self.look(before)? else {
                return Ok(None);
            };
            // What was read belongs to this count, and what comes after it wakes who waits.
            if self.count()? == Some(before) {
                return Ok(Some(sample));
            }
        }
    }

    /// How many sessions have begun, if that is counted; `None` if the instance was removed.
    fn count(&self) -> Result<Option<Option<u64>>> {
        match &self.sessions {
            None => Ok(Some(None)),
            Some(file) => match self.read(SESSIONS, file)? {
                None => Ok(None),
                Some(text) => self.number(SESSIONS, &text).map(|count| Some(Some(count))),
            },
        }
    }

    /// What the pollable files say.
    fn look(&self, sessions: Option<u64>) -> Result<Option<Sample>> {
        let mut texts = Vec::new();
        for (name, file) in FILES.iter().zip(&self.files) {
            match self.read(name, file)? {
                Some(text) => texts.push(text),
                None => return Ok(None),
            }
        }
        let [state, phase, bytes] = <[String; 3]>::try_from(texts)
            .map_err(|_| Error::failed("the files of the instance cannot be read"))?;
        let bytes = self.number("bytes", &bytes)?;
        Ok(Some(Sample {
            state,
            phase,
            bytes,
            sessions,
        }))
    }

    /// The text of a file; `None` if the instance was removed.
    fn read(&self, name: &str, file: &File) -> Result<Option<String>> {
        match read(file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => {
                Ok(None)
            }
            Err(error) => Err(Error::file(&self.instance.file(name), &error)),
        }
    }

    fn number(&self, name: &str, text: &str) -> Result<u64> {
        text.parse().map_err(|_| {
            let path = self.instance.file(name);
            Error::failed(format!("{}: not a number: {text}", path.display()))
        })
    }

    /// Waits until one of the files has changed since it was read last, or may have gone, or nobody reads `output` any more.
    pub fn wait(&self, output: impl AsFd) -> Result<Wake> {
        // Errors are told unasked.
        let output = PollFd::new(&output, PollFlags::empty());
        let mut fds: Vec<PollFd<'_>> = self
            .files
            .iter()
            .map(|file| PollFd::new(file, PollFlags::PRI))
            .collect();
        fds.push(output);
        if let Some(uevents) = &self.uevents {
            fds.push(PollFd::new(uevents, PollFlags::IN));
        }
        polled(&mut fds)?;
        self.drain_uevents();
        Ok(match is_gone(&fds[self.files.len()]) {
            true => Wake::NoReader,
            false => Wake::Changed,
        })
    }
}

impl Watch {
    /// Whatever they say: the files tell what is.
    fn drain_uevents(&self) {
        let mut message = [0; 4096];
        if let Some(uevents) = &self.uevents {
            // Ends when there is no more (EAGAIN). If some were lost (ENOBUFS), the files are looked at all the same.
            while rustix::io::read(uevents, &mut message).is_ok() {}
        }
    }
}

/// A line of a sysfs file from its start.
fn read(file: &File) -> io::Result<String> {
    let mut buffer = [0; 256];
    let len = file.read_at(&mut buffer, 0)?;
    let text = String::from_utf8_lossy(&buffer[..len]);
    Ok(text.trim_end_matches('\n').to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(phase: &str, sessions: impl Into<Option<u64>>) -> Sample {
        Sample {
            state: "RUNNING".to_string(),
            phase: phase.to_string(),
            bytes: 0,
            sessions: sessions.into(),
        }
    }

    /// At which of these samples the session is over.
    fn end(samples: &[Sample]) -> Option<usize> {
        let mut end = End::default();
        samples.iter().position(|sample| end.is_reached(sample))
    }

    #[test]
    fn a_session_ends_whether_it_was_seen_or_not() {
        let idle = |sessions| sample(NO_PHASE, sessions);
        let busy = |sessions| sample("pre-copy", sessions);
        // Seen, in progress from the start, and missed.
        assert_eq!(end(&[idle(3), busy(4), busy(4), idle(4)]), Some(3));
        assert_eq!(end(&[busy(4), idle(4)]), Some(1));
        assert_eq!(end(&[idle(3), idle(4)]), Some(1));
        // Those before count for nothing.
        assert_eq!(end(&[idle(3), idle(3)]), None);
        // Missed, and the next one is in progress: one is over when nothing is in progress.
        assert_eq!(end(&[idle(3), busy(5), idle(5)]), Some(2));
        assert_eq!(end(&[busy(3), busy(4), idle(4)]), Some(2));
    }

    #[test]
    fn without_a_count_it_has_to_be_seen() {
        let idle = || sample(NO_PHASE, None);
        assert_eq!(end(&[idle(), idle()]), None);
        assert_eq!(end(&[idle(), sample("setup", None), idle()]), Some(2));
    }
}
