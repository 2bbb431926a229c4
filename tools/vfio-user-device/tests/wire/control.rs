// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Many devices in one program, controlled by JSON.

mod documented;
mod files;
mod hostile;
mod introspection;
mod json_rpc;
mod qmp;
mod speaker;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

use rustix::process::{prlimit, Pid, Resource, Rlimit, Signal};

use crate::client::Client;
use crate::program::{command, descriptors, peak_memory, send};
use speaker::Speaker;

/// The program that serves many devices.
pub struct Many {
    child: Child,
    pub directory: tempfile::TempDir,
}

impl Many {
    /// Starts it with these options beside the two sockets. It is ready when this returns.
    pub fn start(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // It says when clients may come.
        let ready = directory.path().join("ready");
        let socket = std::os::unix::net::UnixDatagram::bind(&ready).expect("a socket");
        let mut command = command();
        command.arg("serve");
        for option in ["control", "json-rpc"] {
            let path = directory.path().join(option);
            command.arg(format!("--{option}={}", path.display()));
        }
        let child = command
            .args(options)
            .env("NOTIFY_SOCKET", &ready)
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut text = [0; 16];
        let len = socket.recv(&mut text).expect("it gets ready");
        assert_eq!(&text[..len], b"READY=1");
        Self { child, directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Somebody on a socket, who has said and heard nothing.
    pub fn speaker(&self, socket: &str) -> Speaker {
        let socket = UnixStream::connect(self.path(socket));
        Speaker::new(socket.expect("a connection"))
    }

    /// Somebody with whom QMP was agreed on.
    pub fn qmp(&self) -> Speaker {
        let mut qmp = self.speaker("control");
        let greeting = qmp.hear();
        assert_eq!(greeting["QMP"]["capabilities"], serde_json::json!([]));
        qmp.ok("qmp_capabilities", serde_json::json!({}));
        qmp
    }

    /// A client of a device, whose socket has the device's name.
    pub fn client(&self, name: &str) -> Client {
        let socket = UnixStream::connect(self.path(name));
        let mut client = Client::new(socket.expect("a connection"));
        client.agree();
        client
    }

    /// Descriptors that the program has open.
    pub fn descriptors(&self) -> usize {
        descriptors(&self.child)
    }

    /// Its threads.
    pub fn threads(&self) -> usize {
        let path = format!("/proc/{}/task", self.child.id());
        std::fs::read_dir(path).expect("the program runs").count()
    }

    /// Kilobytes of memory that it has had at most.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(&self.child)
    }

    /// From now on it has no more than so many descriptors, counted from number 0.
    pub fn limit_descriptors(&self, most: u64) {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        let pid = Some(Pid::from_child(&self.child));
        prlimit(pid, Resource::Nofile, limit).expect("a limit");
    }

    pub fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("the program ends")
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A socket that is there already.
pub fn occupied(path: &std::path::Path) -> UnixListener {
    UnixListener::bind(path).expect("a socket")
}
