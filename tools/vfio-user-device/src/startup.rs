// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the program does before it serves anybody.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

use anyhow::{Context, Result};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use signal_hook::consts::{SIGINT, SIGTERM};

/// Has the signals that end the program come through a socket, the other end of which can be written to for the same.
pub fn signals() -> Result<(UnixStream, UnixStream)> {
    let (signals, sender) = UnixStream::pair().context("no pipe for signals")?;
    for signal in [SIGTERM, SIGINT] {
        let sender = sender.try_clone().context("no pipe for signals")?;
        signal_hook::low_level::pipe::register(signal, sender).context("signals")?;
    }
    Ok((signals, sender))
}

/// A descriptor that whoever started the program left open.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: The descriptor may not be open, which makes the call fail and does nothing else. Only 3 and up come here; nothing in
    // this program knows such a number or closes it meanwhile, and what is kept is a duplicate.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 3).context("no such descriptor is open")
}

/// Tells a service manager that clients may come, as systemd has it (sd_notify). Where nobody listens, nobody is told.
pub fn tell_ready() {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.send_to_addr(b"READY=1", &address?)
    });
    let _ = sent;
}

/// A monitor may send a descriptor for each of many pieces of memory.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // What cannot be raised is enough for most.
    let _ = setrlimit(Resource::Nofile, raised);
}
