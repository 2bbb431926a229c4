// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The device on a D-Bus: as busctl and gdbus see it, and as QEMU's dbus-vmstate does.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::client::*;
use crate::migration::*;
use crate::program::{command, Program};

mod many;

const NAME: &str = "example.rust_vfio_mdev.VfioUserDevice";
const CARD0: &str = "/example/rust_vfio_mdev/card0";
const DEVICE: &str = "example.rust_vfio_mdev.Device1";
const VMSTATE: &str = "org.qemu.VMState1";
const VMSTATE_PATH: &str = "/org/qemu/VMState1";

/// A process that ends with the test.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bus of the test's own.
struct Bus {
    address: String,
    daemon: Kept,
    directory: tempfile::TempDir,
}

impl Bus {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listen = format!("unix:path={}/bus", directory.path().display());
        let mut daemon = Command::new("dbus-daemon");
        daemon
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .args(["--address", &listen])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut daemon = Kept(daemon.spawn().expect("dbus-daemon"));
        let stdout = daemon.0.stdout.take().expect("a pipe");
        let mut address = String::new();
        // It prints its address when it listens there.
        BufReader::new(stdout)
            .read_line(&mut address)
            .expect("an address");
        Self {
            address: address.trim_end().to_string(),
            daemon,
            directory,
        }
    }

    /// The program with a card on this bus, when it is there.
    fn program(&self, arguments: &[&str]) -> Program {
        let (ready, path) = self.ready();
        let on_bus = ["--dbus-address", &self.address];
        let arguments = [&on_bus, arguments].concat();
        let program = Program::told(&arguments, &path);
        Self::wait_until(&ready);
        program
    }

    /// A socket on which a program says that it is ready.
    fn ready(&self) -> (UnixDatagram, PathBuf) {
        let directory = tempfile::tempdir_in(self.directory.path()).expect("a directory");
        // It goes with that of the bus.
        let path = directory.keep().join("ready");
        let socket = UnixDatagram::bind(&path).expect("a socket to be told on");
        socket.set_read_timeout(Some(SOON)).expect("a limit");
        (socket, path)
    }

    fn wait_until(ready: &UnixDatagram) {
        let mut told = [0; 16];
        let len = ready.recv(&mut told).expect("it is ready");
        assert_eq!(&told[..len], b"READY=1");
    }

    fn card(&self) -> Program {
        self.program(&["--dbus-vmstate-id", "card0"])
    }

    fn busctl(&self, arguments: &[&str]) -> Output {
        let mut busctl = Command::new("busctl");
        busctl
            .arg(format!("--address={}", self.address))
            .args(["--json=short", "--timeout=30"])
            .args(arguments);
        busctl.output().expect("busctl")
    }

    /// What busctl prints, which must be satisfied.
    fn told(&self, arguments: &[&str]) -> Value {
        let output = self.busctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        match output.stdout.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&output.stdout).expect("JSON"),
        }
    }

    fn property(&self, name: &str) -> Value {
        self.told(&["get-property", NAME, CARD0, DEVICE, name])["data"].clone()
    }

    fn call(&self, method: &[&str]) -> Value {
        self.told(&[&["call", NAME, CARD0, DEVICE], method].concat())["data"].clone()
    }

    /// Why a call is refused.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.busctl(&[&["--", "call"], arguments].concat());
        assert!(!output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    /// What those on the bus want to hear.
    fn rules(&self) -> String {
        let rules = self.told(&[
            "call",
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus.Debug.Stats",
            "GetAllMatchRules",
        ]);
        rules.to_string()
    }

    /// The connections that QEMU would find.
    fn carried(&self) -> Vec<String> {
        let found = self.told(&[
            "call",
            "org.freedesktop.DBus",
            "/org/freedesktop/DBus",
            "org.freedesktop.DBus",
            "ListQueuedOwners",
            "s",
            VMSTATE,
        ]);
        let owners = found["data"][0].as_array().expect("names");
        let owners = owners.iter().map(|owner| owner.as_str().expect("a name"));
        owners.map(str::to_string).collect()
    }

    /// The state that a device gives to QEMU.
    fn saved(&self, owner: &str) -> Vec<u8> {
        let saved = self.told(&["call", owner, VMSTATE_PATH, VMSTATE, "Save"]);
        assert_eq!(saved["type"], "ay");
        let bytes = saved["data"][0].as_array().expect("bytes");
        let byte = |byte: &Value| byte.as_u64().expect("a byte") as u8;
        bytes.iter().map(byte).collect()
    }
}

/// Arguments for busctl that give a method bytes.
fn bytes(method: &str, bytes: &[u8]) -> Vec<String> {
    let numbers = bytes.iter().map(u8::to_string);
    let head = [
        method.to_string(),
        "ay".to_string(),
        bytes.len().to_string(),
    ];
    head.into_iter().chain(numbers).collect()
}

#[test]
fn the_device_can_be_introspected_by_clients_that_others_wrote() {
    let bus = Bus::start();
    let _card = bus.program(&["--dbus-vmstate-id", "card-0", "--m-num-ports=2"]);
    let path = "/example/rust_vfio_mdev/card_2d0";
    let introspected = bus.busctl(&["--json=off", "introspect", NAME, path, DEVICE]);
    let text = String::from_utf8(introspected.stdout).expect("UTF-8");
    for member in [
        ".Save",
        ".Load",
        ".Prepare",
        ".Reset",
        ".Freeze",
        ".Thaw",
        ".Replay",
        ".Name",
        ".Model",
        ".State",
        ".Owner",
        ".Parameters",
        ".ParametersInEffect",
        ".HasClient",
        ".LastRefusal",
        ".SocketPath",
        ".Version",
        ".Frozen",
    ] {
        let line = text
            .lines()
            .find(|line| line.split_whitespace().next() == Some(member));
        assert!(line.is_some(), "{member}: {text}");
    }
    let gdbus = Command::new("gdbus")
        .args(["introspect", "--address", &bus.address, "--dest", NAME])
        .args(["--object-path", path, "--only-properties"])
        .output()
        .expect("gdbus");
    let text = String::from_utf8(gdbus.stdout).expect("UTF-8");
    assert!(gdbus.status.success(), "{text}");
    for line in [
        "readonly s Name = 'card-0';",
        "readonly s Model = 'rust-vfio-mdev.example/pci/serial';",
        "readonly b HasClient = false;",
        "readonly s State = 'RUNNING';",
        "readonly s Owner = '';",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("'num-ports': <uint64 2>"), "{text}");
    let objects = bus.told(&[
        "call",
        NAME,
        "/example/rust_vfio_mdev",
        "org.freedesktop.DBus.ObjectManager",
        "GetManagedObjects",
    ]);
    let objects = objects["data"][0].as_object().expect("objects");
    assert_eq!(objects.keys().collect::<Vec<_>>(), [path], "{objects:?}");
}

/// A gdbus that listens.
struct Listener {
    lines: Receiver<String>,
    _monitor: Kept,
}

impl Listener {
    fn new(bus: &Bus) -> Self {
        Self::at(bus, CARD0)
    }

    /// One that listens to an object.
    fn at(bus: &Bus, path: &str) -> Self {
        let mut monitor = Command::new("gdbus");
        monitor
            .args(["monitor", "--address", &bus.address, "--dest", NAME])
            .args(["--object-path", path])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut monitor = Kept(monitor.spawn().expect("gdbus"));
        let stdout = BufReader::new(monitor.0.stdout.take().expect("a pipe"));
        let (tell, lines) = channel();
        thread::spawn(move || {
            let lines = stdout.lines().map_while(Result::ok);
            lines.for_each(|line| drop(tell.send(line)));
        });
        let listener = Self {
            lines,
            _monitor: monitor,
        };
        // It asks the bus for the device's signals after it has said that there is somebody who could send them.
        let rule = format!("type='signal',path='{path}'");
        let end = Instant::now() + SOON;
        while !bus.rules().contains(&rule) {
            assert!(Instant::now() < end, "gdbus does not listen");
        }
        listener
    }

    /// Waits for a line with these parts.
    fn hears(&self, part: &str) -> String {
        let mut others = String::new();
        loop {
            match self.lines.recv_timeout(SOON) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => others.push_str(&line),
                Err(_) => panic!("{part} was not told, but {others}"),
            }
        }
    }
}

#[test]
fn what_changes_is_told_to_whoever_listens() {
    let bus = Bus::start();
    let card = bus.card();
    let listener = Listener::new(&bus);
    let mut client = card.client();
    let line = listener.hears("HasClient");
    assert!(
        line.contains("PropertiesChanged") && line.contains("<true>"),
        "{line}"
    );
    client.go(PRE_COPY).expect("a session");
    listener.hears("'State': <'PRE_COPY'>");
    listener.hears("'Owner': <'client'>");
    assert_eq!(client.go(9), Err(EINVAL));
    listener.hears("'LastRefusal': <'9 is not a migration state'>");
    assert_eq!(bus.property("LastRefusal"), "9 is not a migration state");
    drop(client);
    listener.hears("'HasClient': <false>");
    assert_eq!(bus.property("State"), "RUNNING");
    bus.call(&["Freeze"]);
    listener.hears("'Frozen': <true>");
    bus.call(&["Thaw"]);
    listener.hears("'Frozen': <false>");
}

/// Puts values into registers. Nothing of the device changes by itself then, as time passes.
fn mark(client: &mut Client) {
    for (register, value) in [(3, 3), (4, 3), (7, 0x77)] {
        client.write(0, register, &[value]).expect("a write");
    }
}

/// Finds what [`mark`] has put there.
fn is_marked(client: &mut Client) {
    for (register, value) in [(3, 3), (4, 3), (7, 0x77)] {
        assert_eq!(client.read(0, register, 1), Ok(vec![value]), "{register}");
    }
}

#[test]
fn qemu_finds_each_device_and_carries_the_client_s_own_stream() {
    let bus = Bus::start();
    let cards = [
        bus.card(),
        bus.program(&["--dbus-name=other.Name", "--dbus-vmstate-id=card1"]),
    ];
    let _not_carried = bus.program(&["--dbus-name=third.Name"]);
    let owners = bus.carried();
    let id = |owner: &String| {
        let id = bus.told(&["get-property", owner, VMSTATE_PATH, VMSTATE, "Id"]);
        id["data"].as_str().expect("a name").to_string()
    };
    assert_eq!(
        owners.iter().map(id).collect::<Vec<_>>(),
        ["card0", "card1"]
    );

    let mut client = cards[0].client();
    mark(&mut client);
    let own = client.save();
    assert_eq!(bus.saved(&owners[0]), own);
    assert_eq!(client.state(), RUNNING);
    is_marked(&mut client);

    // The other one gets it, and stands still until it is told to go on.
    let mut other = cards[1].client();
    let interrupt = event();
    other
        .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
        .expect("INTx");
    let load = bytes("Load", &own);
    let load: Vec<&str> = load.iter().map(String::as_str).collect();
    bus.told(&[&["call", &owners[1], VMSTATE_PATH, VMSTATE], &load[..]].concat());
    assert_eq!(other.state(), STOP);
    assert_eq!(other.go(RUNNING), Err(EBUSY), "somebody else has it");
    assert_eq!(other.read(0, 7, 1), Ok(vec![0x77]));
    assert!(!signalled(&interrupt, NOW));
    let path = CARD0.replace("card0", "card1");
    bus.told(&["call", "other.Name", &path, DEVICE, "Thaw"]);
    assert_eq!(other.state(), RUNNING);
    assert!(signalled(&interrupt, SOON), "what was loaded looks anew");
    is_marked(&mut other);
}

#[test]
fn who_has_a_session_keeps_the_device() {
    let bus = Bus::start();
    let card = bus.card();
    let owner = bus.carried().remove(0);
    let mut client = card.client();
    mark(&mut client);
    let stream = client.save();
    client.go(STOP_COPY).expect("a session");
    let save = [owner.as_str(), VMSTATE_PATH, VMSTATE, "Save"];
    let said = bus.refused(&save);
    assert!(
        said.contains("the vfio-user client migrates the device"),
        "{said}"
    );
    let said = bus.refused(&[NAME, CARD0, DEVICE, "Freeze"]);
    assert!(said.contains("the vfio-user client migrates"), "{said}");
    client.go(RUNNING).expect("the end of it");

    // And the other way round: one that is frozen is nobody's but the bus's, until it is saved.
    bus.call(&["Freeze"]);
    assert_eq!(bus.property("Owner"), "remote");
    assert_eq!(client.go(STOP_COPY), Err(EBUSY));
    let said = bus.refused(&[NAME, CARD0, DEVICE, "Freeze"]);
    assert!(said.contains("frozen"), "{said}");
    assert_eq!(bus.saved(&owner), stream);
    assert_eq!(bus.property("Frozen"), false);
    assert_eq!(client.state(), RUNNING);

    // A device that was loaded is not saved before it runs, and goes on when its client is gone.
    let load = bytes("Load", &stream);
    let load: Vec<&str> = load.iter().map(String::as_str).collect();
    bus.told(&[&["call", &owner, VMSTATE_PATH, VMSTATE], &load[..]].concat());
    let said = bus.refused(&save);
    assert!(said.contains("thaw it first"), "{said}");
    let listener = Listener::new(&bus);
    drop(client);
    listener.hears("'Frozen': <false>");
    assert_eq!(bus.property("State"), "RUNNING");
    is_marked(&mut card.client());
}

#[test]
fn states_that_are_none_are_refused_and_change_nothing() {
    let bus = Bus::start();
    let card = bus.card();
    let owner = bus.carried().remove(0);
    let mut client = card.client();
    fill(&mut client);
    let stream = client.save();
    let mut damaged = stream.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    for (bad, why) in [
        (&b"nothing"[..], "card0"),
        (&stream[..stream.len() - 1], "card0"),
        (&damaged, "card0"),
        (&[], "card0"),
    ] {
        for place in [
            [owner.as_str(), VMSTATE_PATH, VMSTATE],
            [NAME, CARD0, DEVICE],
        ] {
            let load = bytes("Load", bad);
            let load: Vec<&str> = load.iter().map(String::as_str).collect();
            let said = bus.refused(&[&place[..], &load[..]].concat());
            assert!(said.contains(why), "{said}");
            assert_eq!(client.state(), RUNNING, "{said}");
            is_filled(&mut client);
            fill(&mut client);
        }
    }
    // Names of errors are for programs, and longer states than QEMU has are not looked at.
    let connection = zbus::blocking::connection::Builder::address(bus.address.as_str())
        .and_then(|builder| builder.build())
        .expect("the bus");
    let load = |state: Vec<u8>| {
        let reply = connection.call_method(
            Some(owner.as_str()),
            VMSTATE_PATH,
            Some(VMSTATE),
            "Load",
            &(state,),
        );
        match reply {
            Err(zbus::Error::MethodError(name, ..)) => name.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(load(vec![0; 100]), "example.rust_vfio_mdev.Error.Refused");
    assert_eq!(
        load(vec![0; (1 << 20) + 1]),
        "example.rust_vfio_mdev.Error.TooLong"
    );
    client.go(PRE_COPY).expect("a session");
    assert_eq!(load(vec![0; 100]), "example.rust_vfio_mdev.Error.Busy");
}

#[test]
fn the_monitor_s_commands_are_those_of_the_device_s_own_registers() {
    let bus = Bus::start();
    let card = bus.card();
    let mut client = card.client();
    let freeze = |expected: &[&str]| {
        let commands = bus.call(&["Freeze"]);
        assert_eq!(commands[0], serde_json::json!(expected), "{commands}");
        bus.call(&["Thaw"]);
    };
    // A guest cannot reach it yet.
    freeze(&[]);
    client
        .write(CONFIG, 0x10, &0xc000u32.to_le_bytes())
        .expect("BAR 0");
    client.write(CONFIG, 4, &[5, 0]).expect("command");
    freeze(&["i /b 0xc007", "i /b 0xc007"]);
    client.write(CONFIG, 0x42, &[1, 0]).expect("MSI");
    freeze(&[]);
    let commands = bus.call(&["Replay", "su", "00:05.0", "4711"]);
    let commands = commands[0].as_array().expect("commands");
    assert_eq!(commands[0], "o /w 0xcf8 0x80002804");
    assert_eq!(commands[1], "o /h 0xcfc 0x0");
    assert_eq!(commands.last(), Some(&"o /w 0xcf8 0x1267".into()));
    assert!(commands.contains(&"o /w 0xcfc 0xc001".into()));
    let said = bus.refused(&[NAME, CARD0, DEVICE, "Replay", "su", "5", "0"]);
    assert!(said.contains("no address of a PCI device"), "{said}");
}

#[test]
fn a_disk_whose_registers_cannot_be_replayed_is_not_stopped_for_that() {
    let bus = Bus::start();
    let model = ["--migration-model", crate::disk::MODEL];
    let disk = bus.program(&[&["--dbus-vmstate-id", "card0"][..], &model].concat());
    let mut client = disk.client();
    let freeze = [NAME, CARD0, DEVICE, "Freeze"];
    let replay = [NAME, CARD0, DEVICE, "Replay", "su", "00:05.0", "0"];
    // By the pin QEMU could not be told that an interrupt is over.
    let said = bus.refused(&freeze);
    assert!(said.contains("without an effect"), "{said}");
    client.write(CONFIG, 0x42, &[0, 0x80]).expect("MSI-X");
    for call in [&freeze[..], &replay] {
        let said = bus.refused(call);
        assert!(said.contains("the guest has MSI-X enabled"), "{said}");
        assert_eq!(bus.property("Frozen"), false);
        assert_eq!(client.state(), RUNNING);
    }
}

#[test]
fn a_bus_that_cannot_be_had_is_told_in_one_line_and_no_socket_is_left() {
    let bus = Bus::start();
    let _card = bus.card();
    let socket = bus.directory.path().join("s");
    let path = socket.to_str().expect("UTF-8");
    let nowhere = format!("unix:path={}/nowhere", bus.directory.path().display());
    for (arguments, why) in [
        (
            &["--dbus-address", &nowhere][..],
            "is a dbus-daemon running there?",
        ),
        (&["--dbus-address", "nonsense"], "--dbus-address"),
        (&["--dbus-address", &bus.address], "choose another name"),
        (
            &["--dbus-address", &bus.address, "--dbus-name", "nonsense"],
            "no name that a program can have",
        ),
        (
            &["--dbus-address", &bus.address, "--dbus-vmstate-id", "a,b"],
            "--dbus-vmstate-id: a device's name is",
        ),
        (&["--dbus-vmstate-id", "card1"], "--dbus-address"),
    ] {
        let output = command()
            .args(["--socket-path", path])
            .args(arguments)
            .output()
            .expect("the program runs");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains(why), "{arguments:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!socket.exists(), "{arguments:?} left a socket");
    }
}

#[test]
fn a_device_outlives_its_bus() {
    let bus = Bus::start();
    let card = bus.card();
    let mut client = card.client();
    fill(&mut client);
    let Bus { daemon, .. } = bus;
    drop(daemon);
    is_filled(&mut client);
    fill(&mut client);
    drop(client);
    is_filled(&mut card.client());
    card.signal(rustix::process::Signal::TERM);
    assert!(card.end().success());
}
