// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Devices of programs: saved, loaded and copied by vfio-user.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vfio_user_device::host::Host as Served;
use vfio_user_device::instance::{Kind, Limits, Offer, Wish};
use vfio_user_device::model::Model;
use vfio_user_device::serial::SerialCard;
use vfio_user_device::server::{serve, Manner, Signals, Source};

use crate::host::{Host, FIXED};

/// The device program, as far as it is behind its command line.
pub struct Program {
    pub word: String,
    stop: Option<UnixStream>,
    serves: Option<JoinHandle<()>>,
}

impl Program {
    /// A card whose parameters are these, in the order of its table, at a socket of this name.
    pub fn start(host: &Host, name: &str, params: &'static [(usize, &'static str)]) -> Self {
        let socket = host.path(name);
        let listener = UnixListener::bind(&socket).unwrap();
        let (stop, signals) = UnixStream::pair().unwrap();
        let serves = thread::spawn(move || {
            let params = params.iter().map(|(at, text)| (*at, text.to_string()));
            let wish = Wish {
                params: params.collect(),
                ..Wish::default()
            };
            let offer = Offer::new(&Limits::NONE);
            let ty = offer.ty(Kind::Serial);
            let values = wish.values(&ty).unwrap();
            let mut card = Served::new(Model::new(SerialCard::power_on(&values), values));
            let source = Source::inherited(OwnedFd::from(listener)).unwrap();
            let manner = Manner {
                patience: Duration::from_secs(30),
                label: String::new(),
            };
            serve(&mut card, source, &mut Signals(&signals), manner).unwrap();
        });
        Self {
            word: format!("vfio-user:{}", socket.display()),
            stop: Some(stop),
            serves: Some(serves),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Something to be read is what a signal is.
        drop(self.stop.take());
        if let Some(serves) = self.serves.take() {
            let _ = serves.join();
        }
    }
}

pub const PORTS: usize = 0;
const FIFO: usize = 1;
const MSI: usize = 2;
const COMPACT: usize = 3;
const FLOW: usize = 4;

/// A recorded stream.
fn recorded(name: &str) -> std::path::PathBuf {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rust/devices/tests/data/0.1.0");
    directory.join(format!("{name}.stream"))
}

#[test]
fn what_was_put_into_a_card_is_found_in_the_other_one() {
    let host = Host::new();
    let (one, two) = (
        Program::start(&host, "one", &[(PORTS, "2")]),
        Program::start(&host, "two", &[(PORTS, "2")]),
    );
    let copied = host
        .run(&["copy", "--exercise", &one.word, &two.word])
        .expect(0);
    let found = copied.out.trim_end();
    assert!(
        found.ends_with("; found again: 2 ports and 64 characters"),
        "{found}"
    );
    let document = host
        .run(&["copy", "--json", &two.word, &one.word])
        .expect(0)
        .json();
    assert_eq!(document["accepted"], true);
    assert!(document["pre_copy_bytes"].as_u64() > Some(0));

    // Saved and loaded, by files and by pipes. A program keeps its state, so it is the same again.
    let (first, second) = (host.path("first"), host.path("second"));
    let first = first.display().to_string();
    let second = second.display().to_string();
    host.run(&["save", "--exercise", "--pre-copy", &one.word, &first])
        .expect(0)
        .says("in pre-copy and");
    host.run(&["inspect", &first]).expect(0).says("num-ports=2");
    host.run(&["load", &two.word, &first])
        .expect(0)
        .says("accepted: ");
    host.run(&["save", "--pre-copy", &two.word, &second])
        .expect(0);
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    let piped = host
        .command(&["save", "--pre-copy", &two.word])
        .output()
        .unwrap();
    assert_eq!(piped.stdout, fs::read(&first).unwrap());
    host.run_with(&["load", &one.word], &piped.stdout).expect(0);
}

#[test]
fn what_a_driver_has_saved_loads_into_a_program() {
    let host = Host::new();
    let all: &'static [(usize, &'static str)] = &[
        (PORTS, "4"),
        (FIFO, "64"),
        (MSI, "on"),
        (COMPACT, "on"),
        (FLOW, "off"),
    ];
    let program = Program::start(&host, "s", all);
    let state = recorded("4-ports-fifo-64-no-flow-msi-compact");
    let state = state.display().to_string();
    let loaded = host
        .run(&["load", "--json", &program.word, &state])
        .expect(0)
        .json();
    let length = fs::metadata(&state).unwrap().len();
    assert_eq!(loaded["bytes"].as_u64(), Some(length));
}

#[test]
fn what_does_not_fit_is_refused_in_the_driver_s_words_with_what_to_do() {
    let host = Host::new();
    let program = Program::start(&host, "s", &[(MSI, "off")]);
    let state = recorded("2-ports-fifo-64-msi").display().to_string();
    let refused = host.run(&["load", &program.word, &state]).expect(1);
    assert_eq!(refused.err.lines().count(), 1, "{refused:?}");
    let word = &program.word;
    let refused = refused
        .says(&format!(
            "{word}: the state is refused: Invalid argument (EINVAL): "
        ))
        .says("num-ports: source has 2, this device has 1")
        .says("fifo-depth: source has 64, this device has 16")
        .says("msi: source has on, this device has off")
        .says(&format!(
            "`vfio-migrate command-line {state} PROGRAM` tells how"
        ));
    assert!(refused.out.is_empty());
    let other = Program::start(&host, "t", &[(PORTS, "4")]);
    host.run(&["copy", &other.word, word])
        .expect(1)
        .says("num-ports: source has 4, this device has 1")
        .says(&format!("`vfio-migrate save {} STATE`", other.word))
        .says("`vfio-migrate command-line STATE PROGRAM`");
    // The source runs again, and the destination takes something else.
    host.run(&[
        "save",
        &other.word,
        &host.path("four").display().to_string(),
    ])
    .expect(0);
    let cut = fs::read(recorded("1-ports-fifo-16")).unwrap();
    host.run_with(&["load", word], &cut[..cut.len() - 1])
        .expect(1);
    host.run_with(&["load", word], &cut)
        .expect(1)
        .says("compact-state");
}

#[test]
fn a_device_that_somebody_uses_is_busy() {
    let host = Host::new();
    let program = Program::start(&host, "s", &[]);
    let path = host.path("s");
    let mut client = vfio_user_client(&path);
    let state = host.path("state").display().to_string();
    let busy = host.run(&["save", &program.word, &state]).expect(2);
    assert_eq!(busy.err.lines().count(), 1);
    busy.says("the device is in use (EBUSY): end the program that is its client");
    assert!(!Path::new(&state).exists());
    client.shutdown(std::net::Shutdown::Both).unwrap();
    client = vfio_user_client(&path);
    drop(client);
    host.run(&["save", &program.word, &state]).expect(0);
}

/// Somebody who has agreed with the program.
fn vfio_user_client(path: &Path) -> UnixStream {
    use std::io::{Read, Write};
    let mut socket = UnixStream::connect(path).unwrap();
    // VERSION 0.0 without data, written out.
    let mut message = Vec::new();
    for half in [1u16, 1] {
        message.extend(half.to_ne_bytes());
    }
    for word in [20u32, 0, 0, 0] {
        message.extend(word.to_ne_bytes());
    }
    socket.write_all(&message).unwrap();
    socket.read_exact(&mut [0; 16]).unwrap();
    socket
}

#[test]
fn sockets_without_a_program_and_words_without_sense_are_told() {
    let host = Host::new();
    let nobody = host.path("nobody");
    drop(UnixListener::bind(&nobody).unwrap());
    let nobody = format!("vfio-user:{}", nobody.display());
    let missing = format!("vfio-user:{}", host.path("missing").display());
    let state = host.path("state").display().to_string();
    for (word, what) in [
        (
            &nobody,
            "no program listens there: Connection refused (ECONNREFUSED): start one",
        ),
        (
            &missing,
            "no program listens there: No such file or directory (ENOENT): start one",
        ),
        (&format!("vfio-user:{}", "x".repeat(108)), "must be shorter"),
        (&"vfio-user:".to_string(), "give the path of a socket"),
    ] {
        let failed = host.run(&["save", word, &state]).expect(2).says(what);
        assert_eq!(failed.err.lines().count(), 1, "{failed:?}");
    }
    let program = Program::start(&host, "s", &[]);
    host.run(&["copy", &program.word, &program.word])
        .expect(2)
        .says("the same device");
    let again = format!(
        "vfio-user:{}",
        host.path("../").join(host.path("s")).display()
    );
    host.run(&["copy", &program.word, &again])
        .expect(2)
        .says("the same device");
    host.run(&["watch", "--once", &missing])
        .expect(2)
        .says("no program listens there");
    host.run(&["save", "--protocol", "v1", &program.word, &state])
        .expect(2)
        .says("no protocol v1");
    host.run(&["copy", "--to", "v1-mmap", &program.word, &nobody])
        .expect(2);
    host.run(&["params", &program.word])
        .expect(2)
        .says("can be saved, loaded, copied and watched, and nothing else here");
    assert!(!Path::new(&state).exists());
    // An instance is opened on this host only; that is found out before a program is troubled.
    host.run(&["copy", FIXED, &program.word])
        .expect(2)
        .says("--sysfs");
}

#[test]
fn what_is_no_device_program_is_found_out() {
    use std::io::{Read, Write};
    let host = Host::new();
    let state = host.path("state").display().to_string();
    // Ends at once; answers something else; answers too much; says a length that no message has.
    let answers: [&'static [u8]; 4] = [
        b"",
        b"\x09\x00\x01\x00\x14\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\0\0\0\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x01\x00\x01\x00\x0f\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00",
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        let path = host.path(format!("other{n}"));
        let listener = UnixListener::bind(&path).unwrap();
        let other = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            client.read_exact(&mut [0; 20]).unwrap();
            client.write_all(answer).unwrap();
        });
        let word = format!("vfio-user:{}", path.display());
        let failed = host.run(&["save", &word, &state]).expect(2);
        assert_eq!(failed.err.lines().count(), 1, "{failed:?}");
        failed.says(&word);
        other.join().unwrap();
    }
}
