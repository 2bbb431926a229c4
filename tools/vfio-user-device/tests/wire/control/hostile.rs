// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Those who control devices badly: kind 40 of the hostile clients, and what of kind 39 and 35 is to be seen here.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use rustix::process::Signal;
use serde_json::json;

use super::{occupied, Many};
use crate::client::*;
use crate::migration::*;
use crate::program::command;

#[test]
fn k40_what_is_no_json_is_refused_and_the_next_message_works() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    let cases: [&[u8]; 12] = [
        b"x",
        b"\xff\xfe",
        b"}",
        b"1",
        b"null",
        b"{\"execute\"}",
        b"{\"execute\": \"quit\" \"id\": 1}",
        b"{\"execute\": 1e400}",
        b"{\"execute\": \"query-version\", \"execute\": \"quit\"}",
        b"{\"execute\": \"q\xff\"}",
        b"{\"execute\": \"an open string",
        b"{]",
    ];
    for case in cases {
        qmp.raw(&[case, b"\n"].concat());
        let answer = qmp.hear();
        assert_eq!(answer["error"]["class"], "GenericError", "{case:?}");
        qmp.in_step();
    }
    for wrong in [
        json!({"execute": "query-version", "arguments": []}),
        json!({"execute": "query-version", "arguments": {"x": 1}}),
        json!({"execute": "query-version", "params": {}}),
        json!({"execute": "query-version", "more": 1}),
        json!({"exec-oob": "query-version", "id": 1}),
        json!({}),
    ] {
        qmp.raw(wrong.to_string().as_bytes());
        let answer = qmp.hear();
        assert_eq!(answer["error"]["class"], "GenericError", "{wrong}");
        qmp.in_step();
    }
}

#[test]
fn k40_what_is_too_long_or_too_deep_ends_the_connection() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.raw("[".repeat(33).as_bytes());
    let answer = qmp.hear();
    let desc = answer["error"]["desc"].as_str().expect("a text");
    assert!(desc.contains("no deeper than 32 levels"), "{desc}");
    qmp.is_closed();
    let mut qmp = many.qmp();
    // As deep as is allowed, which is no batch.
    qmp.raw(("[".repeat(32) + &"]".repeat(32)).as_bytes());
    assert_eq!(qmp.hear()[0]["error"]["code"], -32600);
    let before = many.peak_memory();
    for begin in ["{\"execute\": \"", "", "{"] {
        let mut qmp = many.qmp();
        let line = begin.to_string() + &"a".repeat(1 << 20);
        // It may hang up in the middle of that.
        for _ in 0..64 {
            if qmp.socket.write_all(line.as_bytes()).is_err() {
                break;
            }
        }
        if begin.is_empty() {
            // A line that is nothing is passed over, however long it is.
            qmp.raw(b"\n");
            assert!(qmp.hear().get("error").is_some());
            qmp.in_step();
        }
    }
    let more = many.peak_memory() - before;
    assert!(more < 8 << 10, "{more} KiB more");
    many.qmp().in_step();
}

#[test]
fn k40_devices_that_cannot_be_are_not_made_and_nothing_is_removed_that_was_there() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    let descriptors = many.descriptors();
    let there = many.path("there");
    let listener = occupied(&there);
    let file = many.path("file");
    fs::write(&file, "mine").expect("a file");
    let link = many.path("link");
    std::os::unix::fs::symlink("nowhere", &link).expect("a link");
    for path in [&there, &file, &link, &many.path("control")] {
        let (errno, text) = qmp.refused("device-add", json!({"id": "a", "socket": path}));
        assert_eq!(errno, Some(5), "{text}");
        assert!(text.contains("something is there already"), "{text}");
        assert!(fs::symlink_metadata(path).is_ok(), "{text}");
    }
    assert_eq!(fs::read(&file).expect("a file"), b"mine");
    drop(listener);
    let long = many.path(&"x".repeat(108));
    let (_, text) = qmp.refused("device-add", json!({"id": "a", "socket": long}));
    assert!(text.contains("no more than 107 bytes"), "{text}");
    let up = many.path("no/../such");
    let (_, text) = qmp.refused("device-add", json!({"id": "a", "socket": up}));
    assert!(text.contains("no socket can be made there"), "{text}");
    let socket = many.path("a");
    for name in [
        "",
        "../a",
        "a/b",
        ".a",
        "-a",
        "a b",
        "\u{e4}",
        "a\n",
        &"a".repeat(65),
    ] {
        let (errno, text) = qmp.refused("device-add", json!({"id": name, "socket": socket}));
        assert_eq!(errno, Some(22), "{text}");
        assert!(text.starts_with("a device's name is"), "{text}");
    }
    for (params, reason) in [
        (
            json!({"num-ports": 3}),
            "num-ports: 3 is not one of 1, 2, 4",
        ),
        (json!({"num-ports": -1}), "a parameter is"),
        (json!({"num-ports": 1.5}), "a parameter is"),
        (json!({"num-ports": null}), "a parameter is"),
        (
            json!({"num-ports": "2"}),
            "num-ports: the value is not of type int",
        ),
        (json!({"msi": "on"}), "msi: the value is not of type bool"),
        (
            json!({"colour": "red"}),
            "colour: rust-vfio-mdev.example/pci/serial has no such",
        ),
        (
            json!({"auto-flow": false}),
            "auto-flow: off requires fifo-depth 64, not 16",
        ),
    ] {
        let wish = json!({"id": "a", "socket": socket, "params": params});
        let (_, text) = qmp.refused("device-add", wish);
        assert!(text.contains(reason), "{text}");
    }
    let twice = format!(
        r#"{{"execute":"device-add","arguments":{{"id":"a","socket":{},"params":{{"msi":true,"msi":false}}}}}}"#,
        json!(socket)
    );
    qmp.raw(twice.as_bytes());
    assert_eq!(qmp.hear()["error"]["desc"], "msi: it is given twice");
    let model = json!({"id": "a", "socket": socket, "model": "example.org/other"});
    assert_eq!(qmp.refused("device-add", model).0, Some(22));
    let version = json!({"id": "a", "socket": socket, "version": "v9"});
    assert_eq!(qmp.refused("device-add", version).0, Some(22));
    assert!(!socket.exists());
    assert_eq!(qmp.ok("query-devices", json!({})), json!([]));
    assert_eq!(many.descriptors(), descriptors);
    // The name is still to be had, once.
    qmp.add(&many, "a");
    let again = json!({"id": "a", "socket": many.path("b")});
    assert_eq!(qmp.refused("device-add", again).0, Some(17));
    assert!(!many.path("b").exists());
}

#[test]
fn k40_a_device_in_use_stays_and_its_client_s_session_is_its_own() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.add(&many, "a");
    let mut client = many.client("a");
    fill(&mut client);
    client.go(PRE_COPY).expect("a session");
    let arguments = [
        ("device-del", json!({"id": "a"})),
        ("device-reset", json!({"id": "a"})),
        ("device-save", json!({"id": "a", "file": many.path("x")})),
        ("device-load", json!({"id": "a", "file": "/dev/null"})),
        (
            "migration-prepare",
            json!({"id": "a", "source": {"model": "rust-vfio-mdev.example/pci/serial", "params": {"num-ports": 1}}}),
        ),
    ];
    for (command, arguments) in arguments {
        let (errno, text) = qmp.refused(command, arguments);
        assert_eq!(errno, Some(16), "{command}: {text}");
    }
    assert_eq!(client.state(), PRE_COPY);
    client.go(RUNNING).expect("running");
    is_filled(&mut client);
}

#[test]
fn k40_descriptors_are_bounded_and_none_is_left() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.in_step();
    let before = many.descriptors();
    let file = tempfile::tempfile().expect("a file");
    let fds = [file.as_fd(); 20];
    let (_, text) = qmp.refused("getfd", json!({"fdname": "x"}));
    assert_eq!(text, "no descriptor has come with the message");
    for count in [17, 20] {
        qmp.raw_with(b" ", &fds[..count]);
        let (_, text) = qmp.refused("getfd", json!({"fdname": "x"}));
        assert!(text.starts_with("there is room for 16"), "{text}");
        assert_eq!(many.descriptors(), before);
    }
    for _ in 0..40 {
        let getfd = json!({"execute": "getfd", "arguments": {"fdname": "x"}});
        qmp.raw_with(getfd.to_string().as_bytes(), &fds[..1]);
        assert_eq!(qmp.hear(), json!({"return": {}}));
    }
    // One that had the name is closed.
    assert_eq!(many.descriptors(), before + 1);
    let add = json!({"id": "a", "fd": "x"});
    let (_, text) = qmp.refused("device-add", add);
    assert_eq!(text, "it is not a unix stream socket");
    assert_eq!(many.descriptors(), before);
    qmp.raw_with(b" ", &fds[..5]);
    qmp.in_step();
    assert_eq!(many.descriptors(), before + 5);
    drop(qmp);
    // The thread that closes them ends, but nobody tells when.
    let mut qmp = many.qmp();
    while many.descriptors() != before {
        qmp.in_step();
    }
}

#[test]
fn k40_a_client_that_listens_to_nothing_is_in_nobody_s_way() {
    let many = Many::start(&["--client-patience=1"]);
    let mut deaf = many.qmp();
    deaf.raw(br#"{"execute":"watch-events","arguments":{"enable":true}}"#);
    let mut qmp = many.qmp();
    let before = many.threads();
    // More answers than there is room for in the socket.
    let wish = br#"{"execute":"query-schema"}"#.repeat(1000);
    let dropped = deaf.socket.write_all(&wish).is_err();
    for _ in 0..200 {
        qmp.add(&many, "a");
        qmp.ok("device-del", json!({"id": "a"}));
    }
    // It is given up in the end.
    while many.threads() >= before {
        qmp.in_step();
    }
    let _ = dropped;
}

#[test]
fn k40_there_are_so_many_clients_and_no_more() {
    let many = Many::start(&[]);
    let mut clients: Vec<_> = (0..64).map(|_| many.qmp()).collect();
    let mut one_more = many.speaker("control");
    let answer = one_more.hear();
    assert_eq!(
        answer["error"]["desc"],
        "there are 64 control clients already"
    );
    one_more.is_closed();
    for client in &mut clients {
        client.in_step();
    }
    let devices = json!({"execute": "query-devices", "id": 7}).to_string();
    clients.truncate(32);
    // Their seats become free when their threads have seen that.
    loop {
        let mut next = many.speaker("control");
        if next.hear().get("QMP").is_some() {
            next.ok("qmp_capabilities", json!({}));
            next.raw(devices.as_bytes());
            assert_eq!(next.hear()["return"], json!([]));
            break;
        }
    }
}

#[test]
fn k40_nobody_else_may_connect() {
    let mut many = Many::start(&[]);
    for socket in ["control", "json-rpc"] {
        let mode = fs::metadata(many.path(socket)).expect("a socket");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }
    // What is there stays, and a program that cannot have its sockets leaves none.
    let other = many.path("other");
    let started = command()
        .arg("serve")
        .arg(format!("--json-rpc={}", many.path("control").display()))
        .arg(format!("--control={}", other.display()))
        .output()
        .expect("the program");
    assert_eq!(started.status.code(), Some(1));
    let text = String::from_utf8(started.stderr).expect("a line");
    assert!(text.contains("something is there already"), "{text}");
    assert_eq!(text.lines().count(), 1);
    assert!(!other.exists());
    let mut qmp = many.qmp();
    qmp.add(&many, "a");
    many.signal(Signal::TERM);
    assert!(many.end().success());
    for socket in ["control", "json-rpc", "a"] {
        assert!(!many.path(socket).exists(), "{socket} is left");
    }
}

#[test]
fn k39_who_floods_one_device_of_a_program_reaches_no_other() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.add(&many, "flooded");
    qmp.add(&many, "other");
    let mut client = many.client("other");
    fill(&mut client);
    client.go(PRE_COPY).expect("a session");
    let hostile = many.client("flooded");
    let socket: UnixStream = hostile.socket.try_clone().expect("a socket");
    let (tell, told) = mpsc::channel();
    let flood = thread::spawn(move || {
        let mut hostile = hostile;
        let mut batch = Vec::new();
        for state in [STOP_COPY, RUNNING, RESUMING] {
            let body = words(&[16, SET | STATE, state, 0]);
            batch.extend(message(1, FEATURE, 32, NO_REPLY, &body));
            batch.extend(message(1, RESET, 16, NO_REPLY, &[]));
        }
        let batch = batch.repeat(500);
        let mut sent = 0u32;
        while hostile.socket.write_all(&batch).is_ok() {
            sent += 1;
            let _ = tell.send(sent);
        }
    });
    // It is at it.
    told.recv().expect("a flood");
    for _ in 0..500 {
        assert_eq!(client.read(0, 7, 1), Ok(vec![0x77]));
    }
    // Whoever controls them is heard, too, by both.
    qmp.ok("query-devices", json!({}));
    let (errno, _) = qmp.refused("device-del", json!({"id": "flooded"}));
    assert_eq!(errno, Some(16));
    assert_eq!(client.state(), PRE_COPY);
    client.go(RUNNING).expect("the end of the session");
    is_filled(&mut client);
    qmp.ok("device-del", json!({"id": "flooded", "force": true}));
    flood.join().expect("the flood has ended");
    drop(socket);
    client.in_step();
}

#[test]
fn k35_why_a_stream_was_refused_is_told() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.add(&many, "a");
    let two = json!({"id": "b", "socket": many.path("b"), "params": {"num-ports": 2}});
    qmp.ok("device-add", two);
    let file = many.path("state");
    qmp.ok("device-save", json!({"id": "b", "file": file}));
    let reason = "num-ports: source has 2, this device has 1";
    let refused = qmp.refused("device-load", json!({"id": "a", "file": file}));
    assert_eq!(refused, (Some(22), format!("a: {reason}")));
    let device = qmp.ok("query-devices", json!({"id": "a"}));
    assert_eq!(device[0]["refusal"], reason);
    assert_eq!(device[0]["state"], "running");
}

#[test]
fn ten_thousand_devices_leave_nothing() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.in_step();
    let before = (many.descriptors(), many.threads());
    let add = json!({"execute": "device-add", "arguments": {"id": "a", "socket": many.path("a")}});
    let del = json!({"execute": "device-del", "arguments": {"id": "a"}});
    let both = format!("{add}{del}");
    for _ in 0..10_000 {
        qmp.raw(both.as_bytes());
        assert_eq!(qmp.hear()["return"]["id"], "a");
        assert_eq!(qmp.hear(), json!({"return": {}}));
    }
    assert_eq!(many.descriptors(), before.0);
    // A thread that has told of its end has still to leave.
    while many.threads() != before.1 {
        qmp.in_step();
    }
}
