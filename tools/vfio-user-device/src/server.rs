// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The loop that waits for clients, signals and time.
//!
//! A device has one client at a time. Whoever comes while there is one waits in the socket's queue until that one is gone.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::time::{clock_gettime, ClockId};

use crate::connection::{Connection, End, Read};
use crate::device::Device;
use crate::host::{Host, Next, Outgoing};

/// Messages that are carried out before signals are looked at again.
const BATCH: usize = 64;

/// Longest path that a unix socket can have.
const MAX_PATH: usize = 107;

/// Where clients come from.
#[derive(Debug)]
pub enum Source {
    /// A socket that they connect to.
    Listener(Listener),
    /// The one client is there.
    Client(OwnedFd),
}

/// A socket that clients connect to. One that was made here goes when the program ends.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    /// Where it was made, and which file that is.
    made: Option<(PathBuf, (u64, u64))>,
}

impl Source {
    /// Makes a socket at this path, where nothing must be yet.
    pub fn at(path: &Path) -> Result<Self> {
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            bail!(
                "{}: the path of a socket has no more than {MAX_PATH} bytes, and this one {length}",
                path.display()
            );
        }
        let socket = UnixListener::bind(path).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => anyhow::anyhow!(
                "{}: something is there already; remove it if no program uses it, or give another path",
                path.display()
            ),
            _ => anyhow::anyhow!("{}: no socket can be made there: {error}", path.display()),
        })?;
        let identity = identity(path).with_context(|| path.display().to_string())?;
        let mut listener = Listener { socket, made: None };
        listener.made = identity.map(|identity| (path.to_path_buf(), identity));
        nonblocking(&listener.socket)?;
        Ok(Self::Listener(listener))
    }

    /// Takes a socket that whoever started the program made: one that listens, or one with a client at its other end.
    pub fn inherited(fd: OwnedFd) -> Result<Self> {
        let kind = (socket_domain(&fd), socket_type(&fd));
        if kind != (Ok(AddressFamily::UNIX), Ok(SocketType::STREAM)) {
            bail!("it is not a unix stream socket");
        }
        if socket_acceptconn(&fd) == Ok(true) {
            let socket = UnixListener::from(fd);
            nonblocking(&socket)?;
            return Ok(Self::Listener(Listener { socket, made: None }));
        }
        Ok(Self::Client(fd))
    }
}

fn nonblocking(socket: &UnixListener) -> Result<()> {
    socket.set_nonblocking(true).context("the socket")
}

/// Which file a socket's path is.
fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let meta = fs::symlink_metadata(path)?;
    let is_socket = meta.file_type().is_socket();
    Ok(is_socket.then(|| (meta.dev(), meta.ino())))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, made)) = &self.made {
            // Somebody may have put another one there.
            if identity(path).ok().flatten() == Some(*made) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// The system's time.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

/// Serves a device until a signal comes through `signals`, or the only client is gone. A client that leaves replies unread for
/// `patience` is dropped.
pub fn serve<D: Device>(
    host: &mut Host<D>,
    source: Source,
    signals: &UnixStream,
    patience: Duration,
) -> Result<()> {
    let listener = match source {
        Source::Client(fd) => {
            return client(host, Connection::new(fd), signals, patience).map(drop)
        }
        Source::Listener(listener) => listener,
    };
    loop {
        let mut files = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(&listener.socket, PollFlags::IN),
        ];
        wait(&mut files, None)?;
        if !files[0].revents().is_empty() {
            return Ok(());
        }
        let accepted = match listener.socket.accept() {
            Ok((socket, _)) => socket,
            // It went as it came.
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error).context("no client can be taken"),
        };
        if client(host, Connection::new(accepted.into()), signals, patience)? == Left::Signal {
            return Ok(());
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}

/// Why there is no client any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It is gone.
    Client,
    /// The program is to end.
    Signal,
}

/// Serves one client.
fn client<D: Device>(
    host: &mut Host<D>,
    connection: Connection,
    signals: &UnixStream,
    patience: Duration,
) -> Result<Left> {
    host.connected(now_ns());
    let left = converse(host, connection, signals, patience);
    host.disconnected(now_ns());
    left
}

fn converse<D: Device>(
    host: &mut Host<D>,
    mut connection: Connection,
    signals: &UnixStream,
    patience: Duration,
) -> Result<Left> {
    let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    // When the client is given up, while replies wait for room.
    let mut give_up_at: Option<u64> = None;
    let mut closes = false;
    loop {
        let now = now_ns();
        let left = [
            host.wake_after_ns(now),
            give_up_at.map(|at| at.saturating_sub(now)),
        ];
        let timeout = left.into_iter().flatten().min();
        let interest = match connection.is_full() {
            // Whoever does not read what he is told is not listened to.
            true => PollFlags::OUT,
            false => PollFlags::IN,
        };
        let mut files = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(connection.as_fd(), interest),
        ];
        wait(&mut files, timeout)?;
        if !files[0].revents().is_empty() {
            return Ok(Left::Signal);
        }
        let is_ready = !files[1].revents().is_empty();
        host.tick(now_ns());
        if is_ready {
            for _ in 0..BATCH {
                if !connection.is_full() && !closes {
                    match step(host, &mut connection) {
                        Ok(Some(Next::Continue)) => {}
                        Ok(Some(Next::Close)) => closes = true,
                        Ok(None) => break,
                        Err(End::Gone) => return Ok(Left::Client),
                        Err(End::Lost(error)) => {
                            let mut out = Outgoing::default();
                            Host::<D>::refuse_frame(&error.header, &mut out);
                            connection.queue(out);
                            closes = true;
                        }
                    }
                }
                match connection.send() {
                    Ok(0) => {}
                    Ok(_) => give_up_at = None,
                    Err(_) => return Ok(Left::Client),
                }
                if connection.is_full() || closes {
                    break;
                }
            }
        }
        let now = now_ns();
        if !connection.is_full() {
            give_up_at = None;
            if closes {
                return Ok(Left::Client);
            }
        } else if now >= *give_up_at.get_or_insert(now.saturating_add(patience_ns)) {
            return Ok(Left::Client);
        }
    }
}

/// Carries one message out, if a whole one is there.
fn step<D: Device>(host: &mut Host<D>, connection: &mut Connection) -> Result<Option<Next>, End> {
    match connection.read()? {
        Read::Wait => Ok(None),
        Read::Message => {
            let mut out = Outgoing::default();
            let next = connection.take(|header, body, descriptors| {
                host.message(header, body, descriptors, now_ns(), &mut out)
            });
            connection.queue(out);
            Ok(next)
        }
    }
}

/// Waits for one of the files, for no longer than so many nanoseconds.
fn wait(files: &mut [PollFd<'_>], timeout_ns: Option<u64>) -> Result<()> {
    let timeout = timeout_ns.map(|left| Timespec {
        tv_sec: (left / 1_000_000_000) as _,
        tv_nsec: (left % 1_000_000_000) as _,
    });
    match poll(files, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("poll"),
    }
}
