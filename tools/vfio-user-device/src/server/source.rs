// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where clients come from.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use rustix::fs::{fchmod, Mode};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{listen, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Longest path that a unix socket can have.
const MAX_PATH: usize = 107;

/// Connections that may wait to be taken. The system has a limit of its own, which counts if it is lower.
const BACKLOG: i32 = 4096;

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
        Listener::at(path, None).map(Self::Listener)
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

impl Listener {
    /// Makes a socket at this path, where nothing must be yet. Who may connect follows from `mode`, and otherwise from the umask.
    pub fn at(path: &Path, mode: Option<Mode>) -> Result<Self> {
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            bail!(
                "{}: the path of a socket has no more than {MAX_PATH} bytes, and this one {length}",
                path.display()
            );
        }
        let socket = bind(path, mode).map_err(|error| match error {
            Errno::ADDRINUSE => anyhow::anyhow!(
                "{}: something is there already; remove it if no program uses it, or give another path",
                path.display()
            ),
            _ => {
                let error = io::Error::from(error);
                anyhow::anyhow!("{}: no socket can be made there: {error}", path.display())
            }
        })?;
        let identity = identity(path).with_context(|| path.display().to_string())?;
        let mut listener = Listener {
            socket: socket.into(),
            made: None,
        };
        listener.made = identity.map(|identity| (path.to_path_buf(), identity));
        nonblocking(&listener.socket)?;
        Ok(listener)
    }

    /// Who has come, if somebody has.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match self.socket.accept() {
            Ok((socket, _)) => Ok(Some(socket.into())),
            // It went as it came.
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Readable when somebody has come.
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(path: &Path, mode: Option<Mode>) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    if let Some(mode) = mode {
        // The file is made with the socket's mode, so that nobody finds it with another one.
        fchmod(&socket, mode)?;
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    if let Err(error) = listen(&socket, BACKLOG) {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(socket)
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

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | Interrupted | WouldBlock)
}
