// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Many devices of one program, which come and go by calls.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use rustix::process::{kill_process, Pid, Signal};
use serde_json::{json, Value};

use super::{Bus, Kept, Listener, DEVICE, NAME, VMSTATE, VMSTATE_PATH};
use crate::client::*;
use crate::program::command;

const ROOT: &str = "/example/rust_vfio_mdev";
const CARD: &str = "rust-vfio-mdev.example/pci/serial";
const MANAGER: &str = "example.rust_vfio_mdev.Manager1";

/// A program without a device, which is on the bus.
fn serve(bus: &Bus) -> Kept {
    let (ready, path) = bus.ready();
    let mut serve = command();
    serve
        .args(["serve", "--dbus-address", &bus.address])
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let serving = Kept(serve.spawn().expect("the program starts"));
    Bus::wait_until(&ready);
    serving
}

/// Ends it as a service manager does.
fn end(mut serving: Kept) -> ExitStatus {
    let pid = Pid::from_child(&serving.0);
    kill_process(pid, Signal::TERM).expect("the program runs");
    serving.0.wait().expect("the program ends")
}

/// Calls a method of the manager.
fn manage(bus: &Bus, method: &[&str]) -> Value {
    bus.told(&[&["call", NAME, ROOT, MANAGER], method].concat())["data"].clone()
}

fn socket(bus: &Bus, name: &str) -> PathBuf {
    bus.directory.path().join(name)
}

fn add(bus: &Bus, name: &str) -> Value {
    let socket = socket(bus, name);
    let socket = socket.to_str().expect("UTF-8");
    manage(
        bus,
        &[
            "AddDevice",
            "ssa{sv}a{sv}",
            name,
            socket,
            "1",
            "num-ports",
            "u",
            "2",
            "0",
        ],
    )
}

fn paths(bus: &Bus) -> Vec<String> {
    let objects = bus.told(&[
        "call",
        NAME,
        ROOT,
        "org.freedesktop.DBus.ObjectManager",
        "GetManagedObjects",
    ]);
    let objects = objects["data"][0].as_object().expect("objects").clone();
    let mut paths: Vec<String> = objects.into_iter().map(|(path, _)| path).collect();
    paths.sort();
    paths
}

fn client(bus: &Bus, name: &str) -> Client {
    let stream = UnixStream::connect(socket(bus, name)).expect("a connection");
    let mut client = Client::new(stream);
    client.agree();
    client
}

#[test]
fn devices_come_and_go_and_whoever_listens_is_told() {
    let bus = Bus::start();
    let serving = serve(&bus);
    assert!(paths(&bus).is_empty());
    let listener = Listener::at(&bus, ROOT);
    assert_eq!(add(&bus, "card0"), json!([format!("{ROOT}/card0")]));
    let told = listener.hears("InterfacesAdded");
    assert!(
        told.contains("card0") && told.contains(DEVICE) && told.contains("<uint64 2>"),
        "{told}"
    );
    add(&bus, "card-1");
    assert_eq!(
        paths(&bus),
        [format!("{ROOT}/card0"), format!("{ROOT}/card_2d1")]
    );
    // Each is a device of its own, to clients and to QEMUs.
    let (mut first, mut second) = (client(&bus, "card0"), client(&bus, "card-1"));
    first.write(0, 7, &[0x11]).expect("a write");
    second.write(0, 7, &[0x22]).expect("a write");
    assert_eq!(first.read(0, 7, 1), Ok(vec![0x11]));
    let mut ids: Vec<Value> = bus
        .carried()
        .iter()
        .map(|owner| {
            bus.told(&["get-property", owner, VMSTATE_PATH, VMSTATE, "Id"])["data"].clone()
        })
        .collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, ["card-1", "card0"]);

    // One that is in use stays, unless that does not matter.
    let remove = [NAME, ROOT, MANAGER, "RemoveDevice", "sb", "card0", "false"];
    let said = bus.refused(&remove);
    assert!(said.contains("a vfio-user client is connected"), "{said}");
    manage(&bus, &["RemoveDevice", "sb", "card0", "true"]);
    let told = listener.hears("InterfacesRemoved");
    assert!(told.contains("card0"), "{told}");
    assert!(!socket(&bus, "card0").exists());
    assert_eq!(paths(&bus), [format!("{ROOT}/card_2d1")]);
    assert_eq!(second.read(0, 7, 1), Ok(vec![0x22]));
    let said = bus.refused(&remove);
    assert!(said.contains("no such device"), "{said}");
    assert!(end(serving).success());
    assert!(!socket(&bus, "card-1").exists());
}

/// A call of AddDevice with the card's usual parameters.
fn addition(bus: &Bus, name: &str) -> zbus::Message {
    let none = HashMap::<&str, zbus::zvariant::Value<'_>>::new();
    let socket = socket(bus, name);
    let call = zbus::Message::method_call(ROOT, "AddDevice").and_then(|call| {
        call.destination(NAME)?.interface(MANAGER)?.build(&(
            name,
            socket.to_str().expect("UTF-8"),
            &none,
            &none,
        ))
    });
    call.expect("a call")
}

/// How many devices QEMU would find.
fn carried(connection: &zbus::blocking::Connection) -> usize {
    let bus = "org.freedesktop.DBus";
    let reply = connection.call_method(
        Some(bus),
        "/org/freedesktop/DBus",
        Some(bus),
        "ListQueuedOwners",
        &VMSTATE,
    );
    // Nobody has the name before the first.
    let owners = reply.map(|reply| reply.body().deserialize::<Vec<String>>().expect("names"));
    owners.map_or(0, |owners| owners.len())
}

fn connected(bus: &Bus) -> zbus::blocking::Connection {
    let builder = zbus::blocking::connection::Builder::address(bus.address.as_str());
    let connection = builder.and_then(|builder| builder.build());
    connection.expect("a connection")
}

#[test]
fn whoever_is_told_of_a_device_finds_that_qemu_would_find_it() {
    let bus = Bus::start();
    let _serving = serve(&bus);
    let connection = connected(&bus);
    let rule = zbus::MatchRule::builder()
        .msg_type(zbus::message::Type::Signal)
        .member("InterfacesAdded")
        .expect("a member")
        .build();
    let mut signals = zbus::blocking::MessageIterator::for_match_rule(rule, &connection, None)
        .expect("signals can be listened to");
    for number in 1..=10 {
        // Its answer comes after the signal.
        let call = addition(&bus, &format!("card{number}"));
        connection.send(&call).expect("the call is made");
        signals.next().expect("a signal").expect("a signal");
        assert_eq!(carried(&connection), number);
    }
}

#[test]
fn whoever_added_a_device_finds_that_qemu_would_find_it() {
    let bus = Bus::start();
    let _serving = serve(&bus);
    let connection = connected(&bus);
    let mut replies = zbus::blocking::MessageIterator::from(&connection);
    for number in 1..=20 {
        let call = addition(&bus, &format!("card{number}"));
        connection.send(&call).expect("the call is made");
        let serial = call.primary_header().serial_num();
        let answer = replies.find(|message| {
            let message = message.as_ref().expect("a message");
            message.header().reply_serial() == Some(serial)
        });
        let answer = answer.expect("an answer").expect("an answer");
        assert_eq!(
            answer.message_type(),
            zbus::message::Type::MethodReturn,
            "{answer}"
        );
        assert_eq!(carried(&connection), number);
    }
}

#[test]
fn a_device_that_cannot_be_had_is_refused_with_a_reason() {
    let bus = Bus::start();
    let _serving = serve(&bus);
    add(&bus, "card0");
    let path = socket(&bus, "other");
    let path = path.to_str().expect("UTF-8");
    let taken = socket(&bus, "card0");
    let taken = taken.to_str().expect("UTF-8");
    let call = [NAME, ROOT, MANAGER, "AddDevice", "ssa{sv}a{sv}"];
    for (arguments, why) in [
        (
            &["card0", path, "0", "0"][..],
            "a device of this name is there",
        ),
        (&["a b", path, "0", "0"], "a device's name is"),
        (&["x", taken, "0", "0"], "something is there already"),
        (
            &["x", path, "1", "num-ports", "u", "3", "0"],
            "3 is not one of 1, 2, 4",
        ),
        (
            &["x", path, "1", "num-ports", "s", "two", "0"],
            "the value is not of type int",
        ),
        (
            &["x", path, "1", "num-ports", "i", "-1", "0"],
            "num-ports: the value is below 0",
        ),
        (
            &["x", path, "1", "num-ports", "d", "2", "0"],
            "neither a boolean, a number nor a string",
        ),
        (
            &["x", path, "1", "speed", "u", "3", "0"],
            "no such parameter",
        ),
        (
            &["x", path, "0", "1", "Model", "s", "other"],
            "and not other",
        ),
        (&["x", path, "0", "1", "Version", "u", "1"], "not a string"),
        (
            &["x", path, "0", "1", "Colour", "s", "red"],
            "no option Colour",
        ),
    ] {
        let said = bus.refused(&[&call[..], arguments].concat());
        assert!(said.contains(why), "{arguments:?}: {said}");
        assert_eq!(paths(&bus), [format!("{ROOT}/card0")]);
    }
}

#[test]
fn a_source_is_checked_and_a_destination_prepared() {
    let bus = Bus::start();
    let _serving = serve(&bus);
    add(&bus, "card0");
    let information = bus.told(&["get-property", NAME, ROOT, MANAGER, "MigrationInformation"]);
    let information = information["data"].as_str().expect("text");
    let information: Value = serde_json::from_str(information).expect("JSON");
    let models = information["models"].as_object().expect("models");
    // In any order, as members of an object are.
    let mut models: Vec<&String> = models.keys().collect();
    models.sort();
    assert_eq!(models, [crate::disk::MODEL, CARD]);
    let model = CARD;
    let source = |ports: &'static str| {
        [
            "sa{sv}",
            model,
            "2",
            "num-ports",
            "u",
            ports,
            "msi",
            "b",
            "true",
        ]
    };
    manage(&bus, &[&["Check"], &source("4")[..]].concat());
    let check = [NAME, ROOT, MANAGER, "Check"];
    let said = bus.refused(&[&check[..], &source("3")[..]].concat());
    assert!(said.contains("num-ports"), "{said}");
    bus.call(&[&["Prepare"], &source("4")[..]].concat());
    let effective = bus.property("ParametersInEffect");
    assert_eq!(effective["num-ports"]["data"], 4);
    assert_eq!(effective["msi"]["data"], true);
    assert!(effective.get("compact-state").is_none(), "{effective}");
    // Not while somebody uses it.
    let mut client = client(&bus, "card0");
    let device = [NAME, "/example/rust_vfio_mdev/card0", DEVICE, "Prepare"];
    let said = bus.refused(&[&device[..], &source("1")[..]].concat());
    assert!(said.contains("a vfio-user client is connected"), "{said}");
    client.write(0, 7, &[0x33]).expect("a write");
    bus.call(&["Reset"]);
    assert_eq!(client.read(0, 7, 1), Ok(vec![0]));
}
