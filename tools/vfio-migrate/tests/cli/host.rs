// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A tree that is laid out as sysfs is, and runs of the program on it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{kill_process, Pid, Signal};
use serde_json::{json, Value as Json};
use tempfile::TempDir;

pub const FIXED: &str = "5f0c8a51-7a1e-4b8a-9d5c-0c1f5a7e0001";
pub const FLEXIBLE: &str = "5f0c8a51-7a1e-4b8a-9d5c-0c1f5a7e0002";
pub const MODEL: &str = "example.org/pci/card";

/// Migration information of a card that allows these numbers of ports.
pub fn info(ports: &str) -> String {
    let init = ports.split(',').next().unwrap();
    format!(
        r#"{{"generation": "g", "models": {{"{MODEL}": {{"params": {{
            "ports": {{"type": "int", "allowed_values": [{ports}], "init_value": {init}, "description": "How many\u001b[31m ports"}},
            "msi": {{"type": "bool", "init_value": true, "off_value": false}}}},
            "versions": {{"v1": {{"msi": false}}, "v2": {{"msi": true}}}}, "init_version": "v2"}}}}}}"#
    )
}

/// A tree with one parent, two types and an instance of each.
pub struct Host {
    directory: TempDir,
}

impl Host {
    pub fn new() -> Self {
        let host = Self {
            directory: TempDir::new().unwrap(),
        };
        let parent = host.path("sys/devices/virtual/card/card0");
        for directory in ["sys/class/mdev_bus", "sys/bus/mdev/devices"] {
            fs::create_dir_all(host.path(directory)).unwrap();
        }
        for (ty, ports, uuid) in [("card-1", "1", FIXED), ("card-any", "1, 2, 4", FLEXIBLE)] {
            let path = parent.join("mdev_supported_types").join(ty);
            fs::create_dir_all(&path).unwrap();
            for (name, text) in [
                ("migration_info.json", info(ports)),
                ("name", format!("Card {ty}\n")),
                ("available_instances", "7\n".to_string()),
                ("device_api", "vfio-pci\n".to_string()),
            ] {
                fs::write(path.join(name), text).unwrap();
            }
            let instance = parent.join(uuid);
            fs::create_dir_all(instance.join("migration")).unwrap();
            for (name, text) in [
                ("device_model", MODEL),
                ("version", "v2"),
                ("ports", "1"),
                ("msi", "on"),
                ("error", ""),
            ] {
                fs::write(instance.join("migration").join(name), format!("{text}\n")).unwrap();
            }
            symlink(
                format!("../mdev_supported_types/{ty}"),
                instance.join("mdev_type"),
            )
            .unwrap();
            let link = host.path("sys/bus/mdev/devices").join(uuid);
            symlink(format!("../../../devices/virtual/card/card0/{uuid}"), link).unwrap();
        }
        symlink(
            "../../devices/virtual/card/card0",
            host.path("sys/class/mdev_bus/card0"),
        )
        .unwrap();
        host
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name).display().to_string()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-migrate"));
        command
            .arg("--sysfs")
            .arg(self.path("sys"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // A program that has seen enough does not read on.
            let _ = pipe.write_all(&input);
        });
        let ran = end(child);
        writer.join().unwrap();
        ran
    }

    pub fn value(&self, uuid: &str, name: &str) -> String {
        let path = self
            .path("sys/bus/mdev/devices")
            .join(uuid)
            .join("migration")
            .join(name);
        fs::read_to_string(path).unwrap().trim_end().to_string()
    }
}

/// A run that has not ended after this long hangs.
const LONG: Duration = Duration::from_secs(60);

/// Waits for the end of a run.
#[track_caller]
pub fn end(child: Child) -> Ran {
    let process = Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    let waiter = thread::spawn(move || sender.send(child.wait_with_output()));
    let output = ended.recv_timeout(LONG).unwrap_or_else(|_| {
        kill_process(process, Signal::KILL).unwrap();
        panic!("the program hangs");
    });
    waiter.join().unwrap().unwrap();
    Ran::of(output.unwrap())
}

#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// An answer: this status, and a failure is one line.
    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        if status == 2 {
            assert_eq!(self.err.lines().count(), 1, "{self:?}");
            assert!(self.err.starts_with("vfio-migrate: "), "{self:?}");
        }
        self
    }

    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(
            self.out.contains(words) || self.err.contains(words),
            "{words:?} is not in {self:?}"
        );
        self
    }

    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub fn list(params: Json) -> String {
    json!({"model": MODEL, "params": params}).to_string()
}

/// A FIFO of this name.
pub fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}
