// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Following a migration in progress, by the pollable files `state`, `phase` and `bytes` of an instance.
//!
//! sysfs does not wake who polls a file that is removed. That the instance has gone is heard from the kernel's uevents.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::net::{bind, netlink, socket_with, AddressFamily, SocketFlags, SocketType};

use crate::error::{Error, Result};
use crate::input::regular;
use crate::sysfs::Instance;

/// The files, in the order of [`Sample`].
const FILES: [&str; 3] = ["state", "phase", "bytes"];

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
}

/// The open files of an instance.
pub struct Watch {
    instance: Instance,
    files: [File; 3],
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
        Ok(Self {
            instance,
            files,
            uevents,
        })
    }

    /// What the files say now; `None` if the instance was removed.
    pub fn sample(&self) -> Result<Option<Sample>> {
        let mut texts = Vec::new();
        for (name, file) in FILES.iter().zip(&self.files) {
            match read(file) {
                Ok(text) => texts.push(text),
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => {
                    return Ok(None)
                }
                Err(error) => return Err(Error::file(&self.instance.file(name), &error)),
            }
        }
        let [state, phase, bytes] = <[String; 3]>::try_from(texts)
            .map_err(|_| Error::failed("the files of the instance cannot be read"))?;
        let bytes = bytes.parse().map_err(|_| {
            let path = self.instance.file("bytes");
            Error::failed(format!("{}: not a number: {bytes}", path.display()))
        })?;
        Ok(Some(Sample {
            state,
            phase,
            bytes,
        }))
    }

    /// Waits until one of the files has changed since it was read last, or may have gone.
    pub fn wait(&self) -> Result<()> {
        let mut fds: Vec<PollFd<'_>> = self
            .files
            .iter()
            .map(|file| PollFd::new(file, PollFlags::PRI))
            .collect();
        if let Some(uevents) = &self.uevents {
            fds.push(PollFd::new(uevents, PollFlags::IN));
        }
        loop {
            match poll(&mut fds, None) {
                Ok(_) => {
                    self.drain_uevents();
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    let error = io::Error::from(error);
                    return Err(Error::failed(format!(
                        "poll: {}",
                        crate::error::describe(&error)
                    )));
                }
            }
        }
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
