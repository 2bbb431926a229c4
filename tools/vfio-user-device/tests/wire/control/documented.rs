// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The messages of Documentation/vfio-user-control.rst, as they are written there.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Stdio};

use serde_json::{json, Value};

use super::speaker::{fits, Speaker};
use crate::program::command;

const TEXT: &str = include_str!("../../../../../Documentation/vfio-user-control.rst");

/// The lines of the block of the text that is marked so.
fn block(name: &str) -> Vec<&'static str> {
    let mark = format!(".. tested: {name}\n\n::\n\n");
    let (_, rest) = TEXT.split_once(&mark).expect("the text has the block");
    let lines = rest.lines().map_while(|line| line.strip_prefix("  "));
    lines.collect()
}

/// Says what a block says, and hears what it has of that.
fn talk(speaker: &mut Speaker, name: &str) {
    let lines = block(name);
    assert!(lines.len() >= 2, "{name}");
    for line in lines {
        if let Some(said) = line.strip_prefix("C: ") {
            speaker.raw(said.as_bytes());
        } else {
            let expected = line.strip_prefix("S: ").expect("a line");
            let expected: Value = serde_json::from_str(expected).expect("JSON");
            fits("said", &expected);
            let mut heard = speaker.hear();
            if let Some(timestamp) = heard.get_mut("timestamp") {
                *timestamp = json!({"seconds": 0, "microseconds": 0});
            }
            assert_eq!(heard, expected, "{name}");
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_text_says_what_is_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let ready = directory.path().join("ready");
    let socket = UnixDatagram::bind(&ready).expect("a socket");
    let lines = block("start");
    let words = lines[0]
        .strip_prefix("$ vfio-user-device ")
        .expect("a command");
    let child = command()
        .args(words.split(' '))
        .current_dir(&directory)
        .env("NOTIFY_SOCKET", &ready)
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let _child = Killed(child);
    socket.recv(&mut [0; 16]).expect("it gets ready");
    let speaker = |name: &str| {
        let socket = UnixStream::connect(directory.path().join(name));
        Speaker::new(socket.expect("a connection"))
    };
    talk(&mut speaker("json-rpc.sock"), "json-rpc");
    let mut qmp = speaker("control.sock");
    for name in ["qmp", "migration", "models", "events"] {
        talk(&mut qmp, name);
    }
}

#[test]
fn the_text_has_all_commands() {
    for command in vfio_user_device::control::commands::COMMANDS {
        let row = TEXT.lines().any(|line| {
            let mut words = line.split([' ', ',']);
            words.any(|word| word == command.name) && !line.contains(':')
        });
        assert!(
            row || TEXT.contains(&format!("\n{} ", command.name)),
            "{}",
            command.name
        );
    }
}
