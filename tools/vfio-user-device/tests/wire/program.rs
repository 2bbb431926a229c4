// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The program, started for a test.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Instant;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{kill_process, waitpid, Pid, Signal, WaitOptions};

use crate::client::{Client, SOON};

/// The program under test.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-user-device"));
    command.stdin(Stdio::null());
    command
}

/// The program with a socket that the test made: whoever connects is heard, whether the program has come so far or not.
pub struct Program {
    child: Child,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

impl Program {
    /// Starts it with these arguments.
    pub fn start(arguments: &[&str]) -> Self {
        Self::with_stderr(arguments, Stdio::inherit())
    }

    /// Starts it with these arguments and this standard error.
    pub fn with_stderr(arguments: &[&str], stderr: Stdio) -> Self {
        Self::with(arguments, |command| {
            command.stderr(stderr);
        })
    }

    fn with(arguments: &[&str], more: impl FnOnce(&mut Command)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("device.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let mut command = command();
        command.args(["--fd", "3"]).args(arguments);
        more(&mut command);
        Self {
            child: with_fd(command, listener.into()),
            socket,
            _directory: directory,
        }
    }

    /// Starts it with these arguments. It says on a socket when clients may come.
    pub fn told(arguments: &[&str], ready: &Path) -> Self {
        Self::with(arguments, |command| {
            command.env("NOTIFY_SOCKET", ready).stderr(Stdio::null());
        })
    }

    /// A connection on which nothing was said.
    pub fn connect(&self) -> Client {
        Client::new(UnixStream::connect(&self.socket).expect("a connection"))
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client that has agreed with the program on a version.
    pub fn client(&self) -> Client {
        let mut client = self.connect();
        client.agree();
        client
    }

    /// What it says on standard error, which is a pipe.
    pub fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("a pipe")
    }

    /// Descriptors that the program has open. It has done all that was asked of it before: call it after a reply.
    pub fn descriptors(&self) -> usize {
        descriptors(&self.child)
    }

    /// Sees that it comes to have so many open: what nobody has a use for is closed beside all else.
    pub fn has_descriptors(&self, count: usize) {
        let end = Instant::now() + SOON;
        while self.descriptors() != count {
            assert!(Instant::now() < end, "{} descriptors", self.descriptors());
        }
    }

    /// Stops it. It goes on when it gets SIGCONT.
    // Not all tests that use this file do that.
    #[allow(dead_code)]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(Pid::from_child(&self.child)), WaitOptions::UNTRACED);
        let stopped = stopped.expect("the program runs");
        assert!(stopped.is_some_and(|(_, status)| status.stopped()));
    }

    /// Kilobytes of memory that it has had at most.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(&self.child)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits for its end.
    pub fn end(mut self) -> ExitStatus {
        self.child.wait().expect("the program ends")
    }
}

/// Descriptors that a program has open.
pub fn descriptors(child: &Child) -> usize {
    let path = format!("/proc/{}/fd", child.id());
    fs::read_dir(path).expect("the program runs").count()
}

/// Kilobytes of memory that a program has had at most.
pub fn peak_memory(child: &Child) -> u64 {
    let path = format!("/proc/{}/status", child.id());
    let status = fs::read_to_string(path).expect("the program runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.parse().ok())
        .expect("VmHWM")
}

/// Sends a program a signal.
pub fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the program runs");
}

/// Starts a command with a descriptor as its number 3.
pub fn with_fd(mut command: Command, fd: OwnedFd) -> Child {
    let mapping = FdMapping {
        parent_fd: fd,
        child_fd: 3,
    };
    command.fd_mappings(vec![mapping]).expect("one mapping");
    command.spawn().expect("the program starts")
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
