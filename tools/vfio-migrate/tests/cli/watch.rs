// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Watching the device of a program, beside its client.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;

use serde_json::{json, Value};

use crate::host::Host;
use crate::vfio_user::{Program, PORTS};

/// A running `watch --json`. Ended when dropped.
struct Watcher {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watcher {
    fn start(host: &Host, more: &[&str], word: &str) -> Self {
        let mut command = host.command(&[&["watch", "--json"], more, &[word]].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn status(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn idle(sessions: u64) -> Value {
    json!({"state": "RUNNING", "phase": "none", "bytes": 0, "sessions": sessions})
}

#[test]
fn the_device_of_a_program_is_watched_while_its_client_migrates_it() {
    let host = Host::new();
    let program = Program::start(&host, "s", &[(PORTS, "2")]);
    let mut watcher = Watcher::start(&host, &["--until-end"], &program.word);
    assert_eq!(watcher.next(), idle(0));
    // It is no client, so that another one is.
    let state = host.path("state").display().to_string();
    host.run(&["save", "--pre-copy", &program.word, &state])
        .expect(0);
    // However much of it is seen, the last is that nothing is saved any longer, whether the client has let the device run or not.
    let mut seen = vec![watcher.next()];
    while seen.last().is_some_and(|last| last["phase"] != "none") {
        seen.push(watcher.next());
    }
    assert_eq!(watcher.status(), Some(0));
    assert!(
        seen.iter().all(|sample| sample["sessions"] == 1),
        "{seen:?}"
    );
    let once = host.run(&["watch", "--once", &program.word]).expect(0);
    assert_eq!(
        once.out,
        "state RUNNING       phase none           0 B  sessions 1\n"
    );
    let document = host
        .run(&["watch", "--once", "--json", &program.word])
        .expect(0)
        .json();
    assert_eq!(document, idle(1));
}

#[test]
fn a_watch_ends_with_the_program() {
    let host = Host::new();
    let program = Program::start(&host, "s", &[]);
    let mut watcher = Watcher::start(&host, &[], &program.word);
    assert_eq!(watcher.next(), idle(0));
    drop(program);
    assert_eq!(watcher.next(), Value::Null);
    assert_eq!(watcher.status(), Some(0));
}

#[test]
fn more_than_there_is_room_for_are_told() {
    let host = Host::new();
    let program = Program::start(&host, "s", &[]);
    let _watchers: Vec<Watcher> = (0..4)
        .map(|_| {
            let mut watcher = Watcher::start(&host, &[], &program.word);
            assert_eq!(watcher.next(), idle(0));
            watcher
        })
        .collect();
    let failed = host.run(&["watch", &program.word]).expect(2);
    assert_eq!(failed.err.lines().count(), 1, "{failed:?}");
    failed.says("as many watch the device as the program lets (ENOSPC)");
}

#[test]
fn a_program_that_lets_nobody_watch_is_recognised() {
    let host = Host::new();
    // What a server may answer to VERSION 0.0, of message 1: that it can something else, that it is busy, nothing, or nonsense.
    let header = |size: u32, flags: u32, error: u32| {
        let words = [size, flags, error].map(u32::to_ne_bytes).concat();
        [[1u16, 1].map(u16::to_ne_bytes).concat(), words].concat()
    };
    let other = b"\0\0\0\0{\"capabilities\":{\"max_msg_fds\":8}}\0";
    let mut able = header(16 + other.len() as u32, 1, 0);
    able.extend(other);
    for (n, (answer, what)) in [
        (able, "the program lets nobody watch"),
        (header(16, 0x21, 16), "lets nobody watch beside it (EBUSY)"),
        (
            header(16, 0x21, 22),
            "the program does not agree: Invalid argument (EINVAL)",
        ),
        (Vec::new(), "the program has ended the connection"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "is not one of 16",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let path = host.path(format!("other{n}"));
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            // Header, numbers, and what an observer says of itself.
            client.read_exact(&mut [0; 20]).unwrap();
            let mut data = Vec::new();
            BufReader::new(&client).read_until(0, &mut data).unwrap();
            assert!(String::from_utf8_lossy(&data).contains("rust-vfio-mdev.example/observer"));
            client.write_all(&answer).unwrap();
        });
        let word = format!("vfio-user:{}", path.display());
        let failed = host.run(&["watch", &word]).expect(2);
        assert_eq!(failed.err.lines().count(), 1, "{failed:?}");
        failed.says(&word).says(what);
        server.join().unwrap();
    }
}
