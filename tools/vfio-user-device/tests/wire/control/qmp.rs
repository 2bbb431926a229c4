// SPDX-License-Identifier: GPL-2.0 OR MIT

//! QMP, with a client of another project: the `qapi` crate.

use qapi::qmp::{QmpCommand, QMP};
use qapi::{qmp, Any, Command, ExecuteError, Qmp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::BufReader;
use std::os::unix::net::UnixStream;

use super::Many;
use crate::client::*;
use crate::migration::*;

macro_rules! command {
    ($type:ident, $name:literal, $ok:ty) => {
        impl Command for $type {
            type Ok = $ok;
            const NAME: &'static str = $name;
            const ALLOW_OOB: bool = false;
        }
        impl QmpCommand for $type {}
    };
}

#[derive(Debug, Serialize)]
struct DeviceAdd {
    id: String,
    socket: String,
    params: BTreeMap<String, Any>,
}
command!(DeviceAdd, "device-add", Device);

#[derive(Debug, Serialize)]
struct DeviceDel {
    id: String,
}
command!(DeviceDel, "device-del", qapi::Empty);

#[derive(Debug, Serialize)]
struct QueryDevices {}
command!(QueryDevices, "query-devices", Vec<Device>);

#[derive(Debug, Serialize)]
struct Prepare {
    id: String,
    source: Any,
}
command!(Prepare, "migration-prepare", Device);

#[derive(Debug, Deserialize, PartialEq)]
struct Device {
    id: String,
    params: BTreeMap<String, Any>,
    source: Any,
    state: String,
    client: bool,
}

type Monitor = Qmp<qapi::Stream<BufReader<UnixStream>, UnixStream>>;

/// Connects as that crate does.
fn connect(many: &Many) -> (Monitor, QMP) {
    let socket = UnixStream::connect(many.path("control")).expect("a connection");
    let reader = BufReader::new(socket.try_clone().expect("a socket"));
    let mut monitor = Qmp::new(qapi::Stream::new(reader, socket));
    let greeting = monitor.handshake().expect("a handshake");
    (monitor, greeting)
}

#[test]
fn another_project_s_client_controls_devices() {
    let mut many = Many::start(&[]);
    let (mut monitor, greeting) = connect(&many);
    assert!(greeting.capabilities.is_empty());
    let version = monitor
        .execute(&qmp::query_version {})
        .expect("the version");
    assert_eq!(version.package, greeting.version.package);
    assert!(
        version.package.starts_with("vfio-user-device "),
        "{version:?}"
    );
    let commands = monitor.execute(&qmp::query_commands {}).expect("commands");
    assert!(commands.iter().any(|command| command.name == "device-add"));
    let add = |id: &str, params: Any| DeviceAdd {
        id: id.to_string(),
        socket: many.path(id).display().to_string(),
        params: serde_json::from_value(params).expect("parameters"),
    };
    let params = json!({"num-ports": 2, "msi": false});
    let source = monitor.execute(&add("source", params)).expect("a device");
    assert_eq!(source.params["num-ports"], 2);
    assert_eq!(
        source.source,
        json!({"model": "rust-vfio-mdev.example/pci/serial", "params": {"num-ports": 2, "compact-state": true}})
    );
    monitor
        .execute(&add("destination", json!({})))
        .expect("a device");
    let prepare = Prepare {
        id: "destination".to_string(),
        source: source.source.clone(),
    };
    let destination = monitor.execute(&prepare).expect("it is prepared");
    assert_eq!(destination.params, source.params);
    assert_eq!(destination.state, "running");
    // A client of the device sees what it is.
    let mut client = many.client("destination");
    assert!(client.read(0, 15, 1).is_ok());
    let devices = monitor.execute(&QueryDevices {}).expect("devices");
    let found: Vec<_> = devices.iter().map(|d| (&d.id[..], d.client)).collect();
    assert_eq!(found, [("destination", true), ("source", false)]);
    let del = |id: &str| DeviceDel { id: id.to_string() };
    match monitor.execute(&del("destination")) {
        Err(ExecuteError::Qapi(error)) => assert_eq!(
            error.desc,
            "destination: a vfio-user client is connected to the device"
        ),
        other => panic!("{other:?}"),
    }
    match monitor.execute(&del("nobody")) {
        Err(ExecuteError::Qapi(error)) => {
            assert_eq!(error.class, qapi::ErrorClass::DeviceNotFound);
            assert_eq!(error.desc, "nobody: there is no such device");
        }
        other => panic!("{other:?}"),
    }
    client.in_step();
    monitor.execute(&del("source")).expect("its end");
    assert!(!many.path("source").exists());
    monitor.execute(&qmp::quit {}).expect("it ends");
    assert!(many.end().success());
    client.is_closed();
    for socket in ["control", "json-rpc", "destination"] {
        assert!(!many.path(socket).exists(), "{socket} is left");
    }
}

#[test]
fn nothing_goes_before_the_handshake() {
    let many = Many::start(&[]);
    let mut qmp = many.speaker("control");
    qmp.hear();
    let error = qmp.execute("query-version", json!({})).expect_err("early");
    assert_eq!(error["class"], "CommandNotFound");
    let wrong = qmp.refused("qmp_capabilities", json!({"enable": ["oob"]}));
    assert_eq!(
        wrong,
        (None, "oob: there is no such capability".to_string())
    );
    qmp.ok("qmp_capabilities", json!({}));
    qmp.in_step();
}

#[test]
fn ids_come_back_as_they_were() {
    let many = Many::start(&[]);
    let mut qmp = many.qmp();
    for id in [
        r#"null"#,
        r#"18446744073709551616"#,
        r#"{"a":[1,"b"]}"#,
        r#""\u00e4""#,
    ] {
        qmp.raw(format!(r#"{{"execute":"query-version","id":{id}}}"#).as_bytes());
        let answer = qmp.hear();
        let id: serde_json::Value = serde_json::from_str(id).expect("JSON");
        assert_eq!(answer.get("id"), Some(&id));
    }
    qmp.raw(br#"{"execute":"no-such-command","id":1}{"execute":"query-version"}"#);
    let error = qmp.hear();
    assert_eq!(error["error"]["class"], "CommandNotFound");
    assert_eq!(error["id"], 1);
    assert_eq!(qmp.hear().get("id"), None);
}

#[test]
fn what_happens_is_told_to_who_asks() {
    let many = Many::start(&[]);
    let (mut watcher, mut other) = (many.qmp(), many.qmp());
    watcher.ok("watch-events", json!({"enable": true}));
    other.add(&many, "a");
    let event = watcher.hear();
    assert_eq!(event["event"], "DEVICE_ADDED");
    assert_eq!(event["data"]["id"], "a");
    let mut client = many.client("a");
    client.go(PRE_COPY).expect("a session");
    // One tells of the client, or both in one.
    let mut event = watcher.hear();
    while event["data"]["state"] != "pre-copy" {
        assert_eq!(event["event"], "DEVICE_CHANGED");
        event = watcher.hear();
    }
    assert_eq!(event["data"]["owner"], "client");
    assert_eq!(event["data"]["client"], true);
    assert_eq!(client.load(b"x"), Err(EINVAL));
    let event = watcher.hear();
    assert_eq!(event["data"]["refusal"], "no state is being loaded");
    other.ok("device-del", json!({"id": "a", "force": true}));
    let mut event = watcher.hear();
    while event["event"] == "DEVICE_CHANGED" {
        event = watcher.hear();
    }
    assert_eq!(event["event"], "DEVICE_REMOVED");
    watcher.ok("watch-events", json!({"enable": false}));
    other.add(&many, "b");
    watcher.in_step();
}
