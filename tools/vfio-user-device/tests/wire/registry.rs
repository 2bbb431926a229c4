// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Many devices in one program, without any binding to remote calls.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use migration::fsm::State;
use vfio_user_device::instance::{Limits, Offer};
use vfio_user_device::model::Owner;
use vfio_user_device::registry::*;

use crate::client::*;
use crate::migration::*;

/// Longer than anything takes that goes well.
const LIMIT: Duration = Duration::from_secs(30);

/// A registry, and a directory for its sockets.
struct Room {
    registry: Registry,
    directory: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self::with_disks_of(4096)
    }

    fn with_disks_of(max_mib: u64) -> Self {
        Self {
            registry: Registry::new(Settings {
                offer: Offer::new(&Limits::NONE),
                patience: LIMIT,
                max_mib,
            }),
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    fn wish(&self, name: &str, params: &[(&str, ParamValue)]) -> NewDevice {
        let param = |(name, value): &(&str, ParamValue)| (name.to_string(), value.clone());
        NewDevice {
            name: name.to_string().try_into().expect("a name"),
            model: None,
            version: None,
            params: params.iter().map(param).collect(),
            endpoint: Endpoint::Path(self.directory.path().join(name)),
        }
    }

    fn add(&self, name: &str) {
        self.registry
            .add(self.wish(name, &[]))
            .expect("a new device");
    }

    /// A client of a device that has agreed with it on a version.
    fn client(&self, name: &str) -> Client {
        let socket = UnixStream::connect(self.directory.path().join(name));
        let mut client = Client::new(socket.expect("a connection"));
        client.agree();
        client
    }

    fn saved(&self, name: &str) -> Vec<u8> {
        let mut stream = Vec::new();
        let saving = self.registry.save(name).expect("a session");
        let count = saving.write_to(&mut stream).expect("a stream");
        assert_eq!(count, stream.len() as u64);
        stream
    }

    fn load(&self, name: &str, stream: &[u8]) -> Result<(), Error> {
        let mut loading = self.registry.load(name)?;
        loading.push(stream)?;
        loading.finish()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.registry.clear();
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> (u32, String) {
    let error = result.expect_err("it is refused");
    (error.errno(), error.to_string())
}

#[test]
fn devices_come_and_go() {
    let room = Room::new();
    room.add("a");
    let two = [
        ("num-ports", ParamValue::Int(2)),
        ("msi", ParamValue::Bool(false)),
    ];
    let info = room.registry.add(room.wish("b", &two)).expect("a device");
    let values: Vec<_> = info.params.iter().map(|param| &param.value).collect();
    let (on, off) = (&ParamValue::Bool(true), &ParamValue::Bool(false));
    assert_eq!(
        values,
        [&ParamValue::Int(2), &ParamValue::Int(16), off, on, on]
    );
    let names = |room: &Room| {
        let list = room.registry.list();
        let names = list.iter().map(|info| info.name.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&room), ["a", "b"]);
    // Each is what it is, on its own socket.
    let size = |client: &mut Client| client.read(0, 15, 1).map(|_| ());
    assert_eq!(size(&mut room.client("a")), Err(EINVAL));
    let mut b = room.client("b");
    assert_eq!(size(&mut b), Ok(()));
    // Names and sockets are given once, and what is refused leaves nothing.
    let again = room.registry.add(room.wish("a", &[]));
    assert_eq!(
        reason(again),
        (
            EEXIST,
            "a: a device of this name is there already".to_string()
        )
    );
    let mut same_place = room.wish("c", &[]);
    same_place.endpoint = Endpoint::Path(room.directory.path().join("a"));
    let (_, text) = reason(room.registry.add(same_place));
    assert!(text.contains("something is there already"), "{text}");
    let wrong = room.wish("c", &[("num-ports", ParamValue::Int(3))]);
    assert_eq!(
        reason(room.registry.add(wrong)),
        (EINVAL, "num-ports: 3 is not one of 1, 2, 4".to_string())
    );
    let wrong = room.wish("c", &[("num-ports", ParamValue::Str("2".into()))]);
    assert_eq!(
        reason(room.registry.add(wrong)),
        (
            EINVAL,
            "num-ports: the value is not of type int".to_string()
        )
    );
    assert!(!room.directory.path().join("c").exists());
    // Somebody uses it.
    assert_eq!(
        reason(room.registry.remove("b", false)),
        (
            EBUSY,
            "b: a vfio-user client is connected to the device".to_string()
        )
    );
    b.in_step();
    room.registry.remove("b", true).expect("by force");
    b.is_closed();
    assert!(!room.directory.path().join("b").exists());
    assert_eq!(names(&room), ["a"]);
    assert_eq!(
        reason(room.registry.info("b")),
        (ENOENT, "b: there is no such device".to_string())
    );
    room.client("a").in_step();
}

#[test]
fn a_remote_call_saves_what_a_client_saves() {
    let room = Room::new();
    room.add("a");
    let mut client = room.client("a");
    // Nothing that grows older.
    for (register, value) in [(3, 3), (4, 3), (7, 0x77)] {
        client.write(0, register, &[value]).expect("a write");
    }
    let by_client = client.save();
    // With the client connected, which has no session; and without one.
    assert_eq!(room.saved("a"), by_client);
    assert_eq!(client.read(0, 7, 1), Ok(vec![0x77]));
    drop(client);
    assert_eq!(room.saved("a"), by_client);
    // And in pieces of one byte.
    let mut saving = room.registry.save("a").expect("a session");
    let mut stream = Vec::new();
    loop {
        let piece = saving.next(1).expect("a byte");
        if piece.is_empty() {
            break;
        }
        stream.extend(piece);
    }
    saving.finish().expect("an end");
    assert_eq!(stream, by_client);
}

#[test]
fn what_is_loaded_is_there_under_a_connected_client() {
    let room = Room::new();
    room.add("source");
    room.add("destination");
    fill(&mut room.client("source"));
    let stream = room.saved("source");
    let mut client = room.client("destination");
    room.load("destination", &stream).expect("it loads");
    is_filled(&mut client);
    assert_eq!(client.state(), RUNNING);
}

#[test]
fn a_write_that_nobody_waited_for_is_saved() {
    let room = Room::new();
    room.add("a");
    let mut client = room.client("a");
    for value in 0..=255u8 {
        // More than are carried out at a time, and the last one is what is to be saved.
        for write in [value.wrapping_add(1), value] {
            let body = [&access(0, 7, 1), &[write][..]].concat();
            client.tell(REGION_WRITE, &body);
        }
    }
    let stream = room.saved("a");
    room.add("b");
    room.load("b", &stream).expect("it loads");
    assert_eq!(room.client("b").read(0, 7, 1), Ok(vec![255]));
}

#[test]
fn the_second_session_is_refused_both_ways() {
    let room = Room::new();
    room.add("a");
    let mut client = room.client("a");
    for state in [STOP, STOP_COPY, RESUMING, PRE_COPY] {
        client.go(state).expect("a state");
        let busy = (
            EBUSY,
            "a: the vfio-user client migrates the device".to_string(),
        );
        assert_eq!(reason(room.registry.save("a")), busy);
        assert_eq!(reason(room.registry.load("a")), busy);
        assert_eq!(reason(room.registry.reset("a")), busy);
        assert_eq!(client.state(), state);
        // Without taking anything of it out of RESUMING, which is not left incomplete.
        match state {
            RESUMING => client.ask(RESET, &[]).map(|_| ()).expect("a reset"),
            _ => client.go(RUNNING).expect("running"),
        }
    }
    fill(&mut client);
    let stream = client.save();
    let mut saving = room.registry.save("a").expect("a session");
    let info = room.registry.info("a").expect("a device");
    assert_eq!(
        (info.state, info.owner, info.has_client),
        (State::StopCopy, Some(Owner::Remote), true)
    );
    for state in [RUNNING, STOP, STOP_COPY, RESUMING, PRE_COPY] {
        assert_eq!(client.go(state), Err(EBUSY));
    }
    assert_eq!(client.saved(16), Err(EBUSY));
    assert_eq!(client.load(&stream), Err(EBUSY));
    assert_eq!(
        client.refusal(),
        "a remote call saves or loads the device".to_string()
    );
    let busy = (
        EBUSY,
        "a: another remote call saves or loads the device".to_string(),
    );
    assert_eq!(reason(room.registry.save("a")), busy);
    assert_eq!(reason(room.registry.load("a")), busy);
    // Its registers answer, its end does not end the session, and the next one finds it as it is.
    is_filled(&mut client);
    drop(client);
    let mut client = room.client("a");
    assert_eq!(client.state(), STOP_COPY);
    assert_eq!(client.go(RUNNING), Err(EBUSY));
    assert_eq!(saving.next(16).expect("bytes"), stream[..16]);
    drop(saving);
    // Whoever is gone is in nobody's way.
    client.in_step();
    let loading = room.registry.load("a").expect("a session");
    assert_eq!(client.state(), RESUMING);
    drop(loading);
    room.saved("a");
    assert_eq!(client.state(), RUNNING);
    assert_eq!(client.read(0, 7, 1), Ok(vec![0x77]));
    client.go(STOP_COPY).expect("the device is free");
}

#[test]
fn a_reset_ends_a_session() {
    let room = Room::new();
    room.add("a");
    let mut client = room.client("a");
    let mut saving = room.registry.save("a").expect("a session");
    client.ask(RESET, &[]).expect("a reset");
    assert_eq!(client.state(), RUNNING);
    let gone = (ENODEV, "a: the device was reset meanwhile".to_string());
    assert_eq!(reason(saving.next(16)), gone);
    // Nor does it end the next one.
    client.go(STOP_COPY).expect("a session");
    assert_eq!(reason(saving.finish()), gone);
    assert_eq!(client.state(), STOP_COPY);
}

#[test]
fn a_stream_that_is_refused_changes_nothing() {
    let room = Room::new();
    room.add("a");
    let two = [("num-ports", ParamValue::Int(2))];
    room.registry
        .add(room.wish("b", &two))
        .expect("a new device");
    fill(&mut room.client("a"));
    let other = room.saved("b");
    let (errno, text) = reason(room.load("a", &other));
    assert_eq!(errno, EINVAL);
    assert_eq!(text, "a: num-ports: source has 2, this device has 1");
    let mine = room.saved("a");
    let cut = &mine[..mine.len() - 1];
    assert_eq!(reason(room.load("a", cut)).0, EINVAL);
    let mut flipped = mine.clone();
    flipped[mine.len() / 2] ^= 1;
    assert_eq!(reason(room.load("a", &flipped)).0, EINVAL);
    assert_eq!(
        reason(room.load("a", &[&mine[..], b"x"].concat())).0,
        EINVAL
    );
    assert_eq!(room.saved("a"), mine);
    let info = room.registry.info("a").expect("a device");
    assert_eq!((info.state, info.owner), (State::Running, None));
    is_filled(&mut room.client("a"));
}

#[test]
fn a_destination_is_prepared_for_its_source() {
    let room = Room::new();
    let four = [
        ("num-ports", ParamValue::Int(4)),
        ("msi", ParamValue::Bool(false)),
        ("fifo-depth", ParamValue::Int(64)),
    ];
    let source = room.registry.add(room.wish("source", &four));
    let source = source.expect("a device");
    let in_effect = source.params.iter().filter(|param| param.in_effect);
    let mut list = SourceList {
        model: source.model.clone(),
        params: in_effect
            .map(|param| (param.name.clone(), param.value.clone()))
            .collect(),
    };
    let names: Vec<&str> = list.params.iter().map(|(name, _)| &name[..]).collect();
    assert_eq!(names, ["num-ports", "fifo-depth", "compact-state"]);
    room.add("destination");
    let mut client = room.client("destination");
    let prepared = room.registry.prepare("destination", list.clone());
    assert_eq!(
        reason(prepared),
        (
            EBUSY,
            "destination: a vfio-user client is connected to the device".to_string()
        )
    );
    fill(&mut client);
    let stream = room.saved("source");
    assert_eq!(reason(room.load("destination", &stream)).0, EINVAL);
    room.registry.check(&list).expect("there is one");
    let watch = room.registry.subscribe().expect("events");
    drop(client);
    while room.registry.info("destination").expect("one").has_client {
        watch.wait(LIMIT).expect("the client goes");
    }
    let info = room.registry.prepare("destination", list.clone());
    let info = info.expect("it is prepared");
    assert_eq!(info.params, source.params);
    room.load("destination", &stream).expect("it loads");
    let mut client = room.client("destination");
    assert!(client.read(0, 31, 1).is_ok(), "it has four ports");
    drop(client);
    // What no device here can have is refused with all reasons, and nothing changes.
    list.params = vec![
        ("num-ports".to_string(), ParamValue::Int(3)),
        ("colour".to_string(), ParamValue::Str("red".to_string())),
    ];
    let (errno, text) = reason(room.registry.check(&list));
    assert_eq!(errno, EINVAL);
    assert!(
        text.contains("num-ports") && text.contains("colour"),
        "{text}"
    );
    list.model = "example.org/other".to_string();
    assert_eq!(reason(room.registry.check(&list)).0, EINVAL);
    let info = room.registry.info("destination").expect("a device");
    assert_eq!(info.params, source.params);
}

#[test]
fn whoever_wants_to_know_learns_of_changes() {
    let room = Room::new();
    let watch = room.registry.subscribe().expect("events");
    let name = |name: &str| DeviceName::try_from(name.to_string()).expect("a name");
    room.add("a");
    assert_eq!(watch.take(), Some(Event::Added(name("a"))));
    assert_eq!(watch.take(), None);
    // A client that changes the device again and again causes one event until it was taken.
    let mut client = room.client("a");
    for _ in 0..100 {
        client.go(STOP).expect("stop");
        client.go(RUNNING).expect("running");
    }
    client.go(STOP).expect("stop");
    assert_eq!(watch.take(), Some(Event::Changed(name("a"))));
    assert_eq!(watch.take(), None);
    let info = room.registry.info("a").expect("a device");
    assert_eq!((info.state, info.owner), (State::Stop, Some(Owner::Client)));
    room.registry.remove("a", true).expect("its end");
    let events: Vec<Event> = std::iter::from_fn(|| watch.take()).collect();
    assert_eq!(events.last(), Some(&Event::Removed(name("a"))));
    assert!(events.len() <= 2, "{events:?}");
    // There is a bounded number of them for one that is never asked, which says that some are missing.
    for _ in 0..2100 {
        room.add("b");
        room.registry.remove("b", false).expect("its end");
    }
    assert_eq!(watch.take(), Some(Event::Lost));
    assert_eq!(watch.take(), None);
    room.add("b");
    assert_eq!(watch.take(), Some(Event::Added(name("b"))));
}

#[test]
fn a_device_whose_only_client_goes_is_removed() {
    let room = Room::new();
    let watch = room.registry.subscribe().expect("events");
    let (mine, its) = UnixStream::pair().expect("a pair");
    let mut wish = room.wish("a", &[]);
    wish.endpoint = Endpoint::Fd(its.into());
    let info = room.registry.add(wish).expect("a device");
    assert_eq!(info.socket, None);
    let mut client = Client::new(mine);
    client.agree();
    assert!(matches!(watch.take(), Some(Event::Added(_))));
    drop(client);
    loop {
        match watch.wait(LIMIT).expect("an end") {
            Event::Changed(_) => {}
            event => {
                assert!(matches!(event, Event::Removed(_)), "{event:?}");
                break;
            }
        }
    }
    assert_eq!(reason(room.registry.info("a")).0, ENOENT);
}

/// The model of the disk.
const DISK: &str = crate::disk::MODEL;

#[test]
fn cards_and_disks_are_in_one_program() {
    let room = Room::new();
    room.add("card");
    let disk = |name: &str, mib: u64, model: &str| NewDevice {
        model: Some(model.to_string()),
        ..room.wish(name, &[("capacity-mib", ParamValue::Int(mib))])
    };
    let info = room.registry.add(disk("a", 8, DISK)).expect("a disk");
    assert_eq!(info.model, DISK);
    room.registry.add(disk("b", 9, DISK)).expect("a disk");
    // Each is what it is: a card's state is no disk's, and parameters belong to a model.
    let (card, a) = (room.saved("card"), room.saved("a"));
    let (errno, why) = reason(room.load("a", &card));
    assert_eq!(errno, EINVAL);
    assert!(why.contains("model: source is"), "{why}");
    let (_, why) = reason(room.load("b", &a));
    assert_eq!(why, "b: capacity-mib: source has 8, this device has 9");
    let (_, why) = reason(room.registry.add(disk("c", 8, "example.org/disk")));
    assert!(why.contains("and not example.org/disk"), "{why}");
    let (_, why) = reason(
        room.registry
            .add(disk("c", 8, "rust-vfio-mdev.example/pci/serial")),
    );
    assert!(why.contains("has no such parameter"), "{why}");
    // A destination is prepared, if it is of the source's model.
    let source = |name: &str| {
        let info = room.registry.info(name).expect("a device");
        let params = info.params.into_iter().filter(|param| param.in_effect);
        SourceList {
            model: info.model,
            params: params.map(|param| (param.name, param.value)).collect(),
        }
    };
    for name in ["card", "a"] {
        assert_eq!(room.registry.reasons(&source(name)), [""; 0]);
    }
    let mut unknown = source("a");
    unknown.model = "example.org/disk".to_string();
    assert_eq!(room.registry.reasons(&unknown).len(), 1);
    let (_, why) = reason(room.registry.prepare("b", source("card")));
    assert!(why.contains("model: source is"), "{why}");
    room.registry.prepare("b", source("a")).expect("prepared");
    room.load("b", &a).expect("loaded");
    assert_eq!(room.saved("b"), a);
}

#[test]
fn all_disks_together_are_no_larger_than_they_may_be() {
    let room = Room::with_disks_of(100);
    let disk = |name: &str, mib: u64| {
        let params = [("capacity-mib", ParamValue::Int(mib))];
        let model = Some(crate::disk::MODEL.to_string());
        room.registry.add(NewDevice {
            model,
            ..room.wish(name, &params)
        })
    };
    let no_room = |mib, left| Error::NoRoom {
        mib,
        left,
        most: 100,
    };
    disk("one", 60).expect("a disk");
    let refused = disk("two", 41).expect_err("too large");
    assert_eq!(refused, no_room(41, 40));
    assert_eq!(
        refused.to_string(),
        "there is room for a disk of 40 MiB, and not of 41: all disks have 100 MiB at most (--max-mib)"
    );
    assert_eq!(refused.errno(), 28, "ENOSPC");
    disk("two", 40).expect("a disk");
    // A card is none.
    room.add("card");
    // One that has become smaller leaves room, one that would become larger takes it, and one that is gone has none.
    let source = |mib| {
        let source = [
            ("capacity-mib", ParamValue::Int(mib)),
            ("num-queues", ParamValue::Int(1)),
            ("queue-size", ParamValue::Int(128)),
        ];
        SourceList {
            model: crate::disk::MODEL.to_string(),
            params: source.map(|(name, value)| (name.to_string(), value)).into(),
        }
    };
    let prepare = |name: &str, mib| room.registry.prepare(name, source(mib)).map(drop);
    assert_eq!(prepare("one", 61), Err(no_room(61, 60)));
    let client = room.client("one");
    let busy = prepare("one", 10).expect_err("somebody uses it");
    assert!(busy.is_busy(), "{busy}");
    assert_eq!(prepare("two", 41), Err(no_room(41, 40)));
    drop(client);
    room.registry.remove("one", true).expect("its end");
    assert_eq!(prepare("two", 101), Err(no_room(101, 100)));
    assert_eq!(prepare("two", 10), Ok(()));
    disk("one", 90).expect("a disk");
    // What could not be made for another reason has taken nothing.
    room.registry.remove("one", false).expect("its end");
    let taken = room.directory.path().join("one");
    std::fs::write(&taken, "").expect("a file");
    let refused = disk("one", 90).expect_err("no place for its socket");
    assert!(matches!(refused, Error::Socket(_)), "{refused}");
    disk("three", 90).expect("a disk");
}
