// SPDX-License-Identifier: GPL-2.0 OR MIT

//! State that goes to files and comes from them.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use rustix::pipe::pipe;
use serde_json::json;

use super::Many;
use crate::client::*;
use crate::migration::*;

/// Registers that do not grow older.
fn put(client: &mut Client) {
    for (register, value) in [(3, 3), (4, 3), (7, 0x77)] {
        client.write(0, register, &[value]).expect("a write");
    }
}

#[test]
fn a_device_is_saved_to_a_file_and_loaded_from_it() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.add(&many, "a");
    qmp.add(&many, "b");
    let mut client = many.client("a");
    put(&mut client);
    let stream = client.save();
    let (file, other) = (many.path("state"), many.path("other"));
    let saved = qmp.ok("device-save", json!({"id": "a", "file": file}));
    assert_eq!(saved, json!({"bytes": stream.len()}));
    // Byte for byte what a client saves, and nobody else's to read.
    assert_eq!(fs::read(&file).expect("a file"), stream);
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = qmp.ok("device-load", json!({"id": "b", "file": file}));
    assert_eq!(loaded, saved);
    assert_eq!(many.client("b").read(0, 7, 1), Ok(vec![0x77]));
    // What is there is not written over.
    let again = qmp.refused("device-save", json!({"id": "a", "file": file}));
    assert_eq!(again.0, Some(17), "{again:?}");
    assert_eq!(fs::read(&file).expect("a file"), stream);
    // And of what fails, no file is left.
    client.go(STOP).expect("stop");
    let busy = qmp.refused("device-save", json!({"id": "a", "file": other}));
    let reason = "a: the vfio-user client migrates the device".to_string();
    assert_eq!(busy, (Some(16), reason));
    assert!(!other.exists());
    client.go(RUNNING).expect("running");
    let nowhere = many.path("no/such/directory");
    let (errno, text) = qmp.refused("device-save", json!({"id": "a", "file": nowhere}));
    assert_eq!(errno, Some(2), "{text}");
    // The device goes on after all of that.
    assert_eq!(client.state(), RUNNING);
    fs::write(&other, &stream[..stream.len() - 3]).expect("a file");
    let (errno, text) = qmp.refused("device-load", json!({"id": "b", "file": other}));
    assert_eq!(errno, Some(22), "{text}");
    assert_eq!(many.client("b").read(0, 7, 1), Ok(vec![0x77]));
    for wrong in [
        json!({"id": "a"}),
        json!({"id": "a", "file": "x", "fd": "y"}),
    ] {
        let (errno, text) = qmp.refused("device-save", wrong);
        assert_eq!(
            (errno, &text[..]),
            (None, "one of 'file' and 'fd' is to be given")
        );
    }
}

#[test]
fn state_goes_through_descriptors() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    qmp.add(&many, "a");
    qmp.add(&many, "b");
    put(&mut many.client("a"));
    let mut file = tempfile::tempfile().expect("a file");
    let getfd = |name: &str| json!({"execute": "getfd", "arguments": {"fdname": name}}).to_string();
    qmp.raw_with(getfd("to").as_bytes(), &[file.as_fd()]);
    assert_eq!(qmp.hear(), json!({"return": {}}));
    qmp.ok("device-save", json!({"id": "a", "fd": "to"}));
    // It was taken.
    let (_, text) = qmp.refused("closefd", json!({"fdname": "to"}));
    assert_eq!(text, "to: there is no descriptor of this name");
    let mut stream = Vec::new();
    file.rewind().expect("a file");
    file.read_to_end(&mut stream).expect("a stream");
    let (reader, writer) = pipe().expect("a pipe");
    qmp.raw_with(getfd("from").as_bytes(), &[reader.as_fd()]);
    qmp.hear();
    drop(reader);
    // In two pieces, the second of which comes later.
    rustix::io::write(&writer, &stream[..50]).expect("a pipe");
    let load = json!({"execute": "device-load", "arguments": {"id": "b", "fd": "from"}});
    qmp.raw(load.to_string().as_bytes());
    let mut other = many.qmp();
    loop {
        let devices = other.ok("query-devices", json!({"id": "b"}));
        if devices[0]["state"] == "resuming" {
            assert_eq!(devices[0]["owner"], "remote");
            break;
        }
    }
    // The other ones work meanwhile, and so does what is being loaded, but for a second session.
    other.ok("device-reset", json!({"id": "a"}));
    let busy = "b: another remote call saves or loads the device".to_string();
    let save = json!({"id": "b", "file": many.path("x")});
    assert_eq!(other.refused("device-save", save), (Some(16), busy));
    let mut client = many.client("b");
    assert_eq!(client.go(STOP_COPY), Err(EBUSY));
    rustix::io::write(&writer, &stream[50..]).expect("a pipe");
    drop(writer);
    assert_eq!(qmp.hear(), json!({"return": {"bytes": stream.len()}}));
    assert_eq!(client.read(0, 7, 1), Ok(vec![0x77]));
    client.go(STOP_COPY).expect("the device is free");
}

#[test]
fn who_does_not_get_on_is_given_up() {
    let many = Many::start(&["--client-patience=1"]);
    let mut qmp = many.qmp();
    qmp.add(&many, "a");
    let mut client = many.client("a");
    put(&mut client);
    let (reader, writer) = pipe().expect("a pipe");
    // Full, so that not a byte goes in.
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe");
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe");
    let getfd = json!({"execute": "getfd", "arguments": {"fdname": "x"}}).to_string();
    qmp.raw_with(getfd.as_bytes(), &[writer.as_fd()]);
    qmp.hear();
    let (errno, text) = qmp.refused("device-save", json!({"id": "a", "fd": "x"}));
    assert_eq!(
        (errno, &text[..]),
        (Some(110), "the descriptor: the other end does not get on")
    );
    // Nor is anybody waited for who never begins.
    qmp.raw_with(getfd.as_bytes(), &[reader.as_fd()]);
    qmp.hear();
    drop(File::from(reader));
    client.go(STOP_COPY).expect("the device is free");
    client.go(RUNNING).expect("running");
    assert_eq!(client.read(0, 7, 1), Ok(vec![0x77]));
    let fifo = many.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a fifo");
    let (errno, text) = qmp.refused("device-load", json!({"id": "a", "file": fifo}));
    assert!(matches!(errno, Some(22 | 110)), "{text}");
    qmp.in_step();
}
