// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saved states: what is taken, what is refused and with which words, and what is left when a session ends early.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::Stdio;

use migration::stream::{write_end, write_section, write_setup, Phase, Sink, DEVICE_SECTIONS};
use migration::value::{Param, Value};

use crate::client::*;
use crate::migration::*;
use crate::program::Program;

const MODEL: &str = "rust-vfio-mdev.example/pci/serial";

/// A stream in memory.
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    type Error = std::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn record(phase: Phase, model: &str, params: &[Param<'_>]) -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    write_setup(&mut bytes, phase, model, params.iter().copied()).expect("a record");
    bytes.0
}

fn section(id: u16, mandatory: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    let id = DEVICE_SECTIONS.start() + id;
    write_section(&mut bytes, id, mandatory, payload).expect("a section");
    bytes.0
}

fn end() -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    write_end(&mut bytes).expect("an end");
    bytes.0
}

const fn param<'a>(name: &'a str, value: Value<'a>) -> Param<'a> {
    Param { name, value }
}

const ONE_PORT: Param<'static> = param("num-ports", Value::Int(1));
const TWO_PORTS: Param<'static> = param("num-ports", Value::Int(2));
const DEEP: Param<'static> = param("fifo-depth", Value::Int(64));
const MSI: Param<'static> = param("msi", Value::Bool(true));
const COMPACT: Param<'static> = param("compact-state", Value::Bool(true));
/// What the card has that the program makes without being told otherwise.
const SAME: [Param<'static>; 3] = [ONE_PORT, MSI, COMPACT];

/// A loading session that is sure to be refused, and was: nothing more is taken, nothing was loaded, nothing leads out but a reset.
fn is_refused(client: &mut Client) {
    let reason = client.refusal();
    assert_eq!(client.load(b"more"), Err(ENODEV));
    for state in [STOP, RUNNING, STOP_COPY] {
        assert_eq!(client.go(state), Err(EINVAL));
        assert_eq!(client.state(), RESUMING);
    }
    assert_eq!(client.refusal(), reason, "the first reason is the one");
    client.in_step();
    is_filled(client);
    assert_eq!(client.ask(RESET, &[]), Ok(vec![]));
    assert_eq!(client.state(), RUNNING);
}

#[test]
fn k35_parameters_that_do_not_fit_are_refused_in_each_phase_with_the_driver_s_words() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let other = param("flow", Value::Str("hardware"));
    let three = param("num-ports", Value::Int(3));
    let text = param("num-ports", Value::Str("1"));
    let number = param("msi", Value::Int(1));
    let new = param("new", Value::Bool(true));
    // Model, parameters, and what of each reason has to be there.
    let cases: [(&str, &[Param<'_>], &[&str]); 9] = [
        (
            "other.example/pci/serial",
            &SAME,
            &[
                "model: source is other.example/pci/serial, this device is ",
                MODEL,
            ],
        ),
        (
            MODEL,
            &[ONE_PORT, MSI, COMPACT, other],
            &["flow: source has \"hardware\""],
        ),
        (
            MODEL,
            &[three, MSI, COMPACT],
            &["num-ports: source has 3", "1, 2, 4"],
        ),
        (MODEL, &[text, MSI, COMPACT], &["num-ports: ", "int"]),
        (MODEL, &[ONE_PORT, number, COMPACT], &["msi: ", "bool"]),
        (MODEL, &[MSI, COMPACT], &["num-ports: source lacks it"]),
        (
            MODEL,
            &[ONE_PORT, COMPACT],
            &["msi: source has off, this device has on"],
        ),
        (
            MODEL,
            &[TWO_PORTS, MSI, COMPACT],
            &["num-ports: source has 2, this device has 1"],
        ),
        (
            MODEL,
            &[TWO_PORTS, DEEP, new],
            &[
                "num-ports: source has 2",
                "fifo-depth: source has 64",
                "new: source has on",
                "msi: source has off",
            ],
        ),
    ];
    for (model, params, reasons) in cases {
        for phase in [Phase::PreCopy, Phase::StopCopy] {
            // The record alone; and as the second one, after one that is good.
            let mut before = vec![vec![]];
            if phase == Phase::StopCopy {
                before.push(record(Phase::PreCopy, MODEL, &SAME));
            }
            for good in before {
                fill(&mut client);
                client.go(RESUMING).expect("a session");
                assert_eq!(client.load(&good), Ok(()));
                assert_eq!(client.refusal(), "");
                let bad = record(phase, model, params);
                let (last, first) = bad.split_last().expect("a record");
                assert_eq!(client.load(first), Ok(()), "it is judged as a whole");
                assert_eq!(client.load(&[*last]), Err(EINVAL));
                let reason = client.refusal();
                let is_changed = "model or parameters changed between pre-copy and stop-and-copy";
                let wanted = match good.as_slice() {
                    [] => reasons,
                    _ => &[is_changed][..],
                };
                for wanted in wanted {
                    assert!(reason.contains(wanted), "{wanted:?}: {reason:?}");
                }
                is_refused(&mut client);
            }
        }
    }
}

#[test]
fn k35_streams_that_are_not_good_are_refused_at_the_write_that_shows_it() {
    let program = Program::start(&[]);
    let mut client = program.client();
    fill(&mut client);
    let stream = client.save();
    let setup = record(Phase::StopCopy, MODEL, &SAME).len();
    // A wrong byte anywhere: in the record, in a section's head, in its payload, in a checksum, in the end.
    for at in (0..stream.len())
        .step_by(7)
        .chain([setup, stream.len() - 1])
    {
        let mut bad = stream.clone();
        bad[at] ^= 0x40;
        client.go(RESUMING).expect("a session");
        let results: Vec<_> = bad.chunks(64).map(|piece| client.load(piece)).collect();
        match results.iter().position(Result::is_err) {
            Some(first) => {
                assert!(first >= at / 64, "byte {at} was refused before it came");
                assert!(matches!(results[first], Err(EINVAL | ENOMEM)));
                assert!(results[first + 1..]
                    .iter()
                    .all(|later| *later == Err(ENODEV)));
                is_refused(&mut client);
            }
            // A length that says more is to come, and nothing does.
            None => {
                assert_eq!(client.go(STOP), Err(EINVAL), "byte {at}");
                assert!(!client.refusal().is_empty());
                is_filled(&mut client);
                assert_eq!(client.ask(RESET, &[]), Ok(vec![]));
            }
        }
        fill(&mut client);
    }
    // Cut anywhere.
    for length in (0..stream.len()).step_by(11) {
        client.go(RESUMING).expect("a session");
        assert_eq!(client.load(&stream[..length]), Ok(()));
        for state in [STOP, RUNNING] {
            assert_eq!(client.go(state), Err(EINVAL), "cut at {length}");
        }
        assert!(!client.refusal().is_empty());
        // It can still come.
        assert_eq!(client.load(&stream[length..]), Ok(()));
        client.go(RUNNING).expect("all of it came");
        is_filled(&mut client);
        fill(&mut client);
    }
    // More behind the end.
    client.go(RESUMING).expect("a session");
    assert_eq!(client.load(&stream), Ok(()));
    assert_eq!(client.load(&[0]), Err(EINVAL));
    is_refused(&mut client);
}

#[test]
fn k35_sections_that_are_not_the_card_s_are_refused() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let setup = record(Phase::StopCopy, MODEL, &SAME);
    for (what, rest, errno, reason) in [
        ("unknown", section(0x300, true, b"?"), EINVAL, "section"),
        (
            "oversize",
            section(1, true, &[0; 4000]),
            ENOMEM,
            "has 4000 bytes, this device reads",
        ),
        ("a card of zeroes", section(1, true, &[0; 24]), EINVAL, ""),
        (
            "incomplete",
            end(),
            EINVAL,
            "a section that the state needs is missing",
        ),
    ] {
        fill(&mut client);
        client.go(RESUMING).expect("a session");
        assert_eq!(client.load(&setup), Ok(()));
        let result = client.load(&rest);
        let found = client.refusal();
        assert_eq!(result, Err(errno), "{what}: {found}");
        assert!(
            !found.is_empty() && found.contains(reason),
            "{what}: {found}"
        );
        is_refused(&mut client);
    }
    // One that may be left out is.
    let stream = {
        fill(&mut client);
        client.save()
    };
    client.go(RESUMING).expect("a session");
    let with_more = [
        &stream[..setup.len()],
        &section(0x300, false, &[7; 4000]),
        &stream[setup.len()..],
    ];
    assert_eq!(client.load(&with_more.concat()), Ok(()));
    client.go(RUNNING).expect("loaded");
    is_filled(&mut client);
}

#[test]
fn why_something_was_refused_is_told_on_standard_error() {
    let mut program = Program::with_stderr(&[], Stdio::piped());
    let mut lines = BufReader::new(program.stderr()).lines();
    let mut client = program.client();
    client.go(RESUMING).expect("a session");
    let bad = record(Phase::StopCopy, MODEL, &[TWO_PORTS, MSI, COMPACT]);
    assert_eq!(client.load(&bad), Err(EINVAL));
    let mut line = || lines.next().expect("a line").expect("UTF-8");
    let wanted = "vfio-user-device: refused: num-ports: source has 2, this device has 1";
    assert_eq!(line(), wanted);
    // What follows from it is no news; something else is.
    assert_eq!(client.load(&bad), Err(ENODEV));
    assert_eq!(client.go(9), Err(EINVAL));
    assert_eq!(
        line(),
        "vfio-user-device: refused: 9 is not a migration state"
    );
    // The next client does not find it.
    drop(client);
    assert_eq!(program.client().refusal(), "");
}

#[test]
fn k36_the_end_of_a_client_ends_its_session_and_leaves_the_registers() {
    let program = Program::start(&[]);
    let mut client = program.client();
    fill(&mut client);
    let stream = client.save();
    client.write(0, 7, &[0x11]).expect("a write");
    fill(&mut client);
    for state in [
        STOP,
        STOP_COPY,
        RESUMING,
        RUNNING_P2P,
        PRE_COPY,
        PRE_COPY_P2P,
    ] {
        client.go(state).expect("a state");
        match state {
            // All of another state but its last byte.
            RESUMING => client
                .load(&stream[..stream.len() - 1])
                .expect("most of it"),
            STOP_COPY | PRE_COPY => assert!(client.saved(5).is_ok_and(|some| some.len() == 5)),
            _ => {}
        }
        drop(client);
        client = program.client();
        assert_eq!(client.state(), RUNNING, "after {state}");
        assert_eq!(client.saved(8), Err(EINVAL));
        assert_eq!(client.load(&stream[stream.len() - 1..]), Err(EINVAL));
        is_filled(&mut client);
        fill(&mut client);
    }
    // And what was loaded is there for whoever comes next.
    client.go(RESUMING).expect("a session");
    client.write(0, 7, &[0]).expect("a write");
    client.load(&stream).expect("a state");
    client.go(STOP).expect("loaded");
    drop(client);
    is_filled(&mut program.client());
}

/// The transmitter's interrupt, which is there whenever it is enabled.
fn ask_for_interrupts(client: &mut Client) {
    for (register, value) in [(1, 0), (4, 0x0b), (1, 2)] {
        client.write(0, register, &[value]).expect("a write");
    }
}

#[test]
fn k26_a_device_that_stands_still_answers_and_has_no_effects() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let stream = client.save();
    for state in [STOP, STOP_COPY, RESUMING] {
        client.go(state).expect("a state");
        // QEMU writes the command register and sets interrupts up while it loads.
        client.write(CONFIG, 4, &[1, 0]).expect("a write");
        assert_eq!(client.read(CONFIG, 4, 2), Ok(vec![1, 0]));
        let interrupt = event();
        client
            .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
            .expect("INTx");
        ask_for_interrupts(&mut client);
        assert!(!signalled(&interrupt, NOW), "an interrupt in {state}");
        // Unmasking is where a level would be told again.
        client.irqs([0x11, 0, 0, 1], &[], &[]).expect("unmasked");
        client.in_step();
        assert!(!signalled(&interrupt, NOW), "an interrupt in {state}");
        if state == RESUMING {
            client.load(&stream).expect("a state");
        }
        client.go(RUNNING).expect("running");
        // What was loaded asserts nothing; the client is told once all the same, as it may believe in what the source had.
        assert!(signalled(&interrupt, NOW), "no interrupt after {state}");
        client.irqs([0x11, 0, 0, 1], &[], &[]).expect("unmasked");
        let asserted = signalled(&interrupt, NOW);
        assert_eq!(asserted, state != RESUMING);
        client.irqs([0x21, 0, 0, 0], &[], &[]).expect("off");
    }
}

#[test]
fn k26_time_stands_still_with_the_device() {
    let program = Program::start(&[]);
    let mut client = program.client();
    // 300 baud: a time-out of 133 ms.
    for (register, value) in [(3, 0x83), (0, 0x80), (1, 1), (3, 3), (2, 0x81), (1, 1)] {
        client.write(0, register, &[value]).expect("a write");
    }
    client.write(0, 0, b"U").expect("a character");
    client.go(STOP_COPY).expect("a state");
    let first = client.all_saved(4096);
    // The state that is saved later is the same, however much later that is.
    client.go(STOP).expect("a state");
    client.go(STOP_COPY).expect("a state");
    assert_eq!(client.all_saved(4096), first);
    client.go(RESUMING).expect("a state");
    client.load(&first).expect("a state");
    client.go(STOP_COPY).expect("a state");
    assert_eq!(client.all_saved(4096), first);
    assert_eq!(
        client.read(0, 2, 1),
        Ok(vec![0xc1]),
        "the time-out has come"
    );
    let interrupt = event();
    client
        .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
        .expect("INTx");
    client.go(RUNNING).expect("running");
    assert!(signalled(&interrupt, SOON), "no time-out");
    assert_eq!(client.read(0, 0, 1), Ok(b"U".to_vec()));
}

#[test]
fn a_message_that_was_lost_on_the_way_is_raised_again() {
    let (from, to) = (Program::start(&[]), Program::start(&[]));
    let (mut source, mut destination) = (from.client(), to.client());
    for client in [&mut source, &mut destination] {
        client.write(CONFIG, 4, &[5, 0]).expect("a write");
    }
    // MSI is on, and a port interrupts.
    source.write(CONFIG, 0x42, &[1]).expect("MSI");
    let message = event();
    source
        .irqs([0x24, 1, 0, 1], &[], &[message.as_fd()])
        .expect("MSI");
    ask_for_interrupts(&mut source);
    assert!(signalled(&message, NOW));
    source.go(PRE_COPY).expect("a state");
    let mut stream = source.all_saved(3);
    source.go(STOP_COPY).expect("a state");
    stream.extend(source.all_saved(3));
    let message = event();
    destination
        .irqs([0x24, 1, 0, 1], &[], &[message.as_fd()])
        .expect("MSI");
    destination.go(RESUMING).expect("a state");
    for piece in stream.chunks(5) {
        destination.load(piece).expect("a state");
    }
    destination.go(STOP).expect("loaded");
    assert!(
        !signalled(&message, NOW),
        "a message of a device that stands still"
    );
    destination.go(RUNNING).expect("running");
    assert!(signalled(&message, NOW), "the message is lost");
}
