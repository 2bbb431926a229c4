// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Observers: those who are told how a client's migration goes on, beside it.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::client::*;
use crate::migration::*;
use crate::program::Program;

const EPERM: u32 = 1;
const ENOSPC: u32 = 28;
const PROGRESS: u32 = 0xff01;

/// What an observer says of itself.
const OBSERVER: &[u8] = b"{\"capabilities\":{\"rust-vfio-mdev.example/observer\":true}}\0";

/// Phases.
const NONE: u32 = 0;
const SETUP: u32 = 1;
const IN_PRE_COPY: u32 = 2;
const IN_STOP_COPY: u32 = 3;

fn observer(program: &Program) -> Client {
    let mut observer = program.connect();
    let heard = observer.ask(VERSION, &version(0, 0, OBSERVER));
    let heard = String::from_utf8(heard.expect("a version")).expect("UTF-8");
    assert!(
        heard.contains("\"rust-vfio-mdev.example/observer\":true"),
        "{heard}"
    );
    observer
}

/// State, phase, bytes, sessions, and why something was refused.
type Told = (u32, u32, u64, u64, String);

fn told(data: &[u8]) -> Told {
    let word = |at: usize| u32::from_ne_bytes(data[at..at + 4].try_into().expect("four"));
    let long = |at: usize| u64::from_ne_bytes(data[at..at + 8].try_into().expect("eight"));
    let text = String::from_utf8(data[24..].to_vec()).expect("UTF-8");
    (word(0), word(4), long(8), long(16), text)
}

/// Waits for news.
fn next(observer: &mut Client) -> Told {
    told(&observer.feature(GET | PROGRESS, &[]).expect("progress"))
}

fn nothing(state: u32, sessions: u64) -> Told {
    (state, NONE, 0, sessions, String::new())
}

#[test]
fn an_observer_sees_the_phases_of_the_client_s_migration() {
    let (program, other) = (Program::start(&[]), Program::start(&[]));
    let (mut client, mut destination) = (program.client(), other.client());
    let (mut source, mut target) = (observer(&program), observer(&other));
    assert_eq!(next(&mut source), nothing(RUNNING, 0));
    assert_eq!(next(&mut target), nothing(RUNNING, 0));

    client.go(PRE_COPY).expect("pre-copy");
    let begun = next(&mut source);
    assert_eq!(begun, (PRE_COPY, IN_PRE_COPY, 0, 1, String::new()));
    let first = client.all_saved(4096);
    let read = next(&mut source);
    assert_eq!(
        read,
        (PRE_COPY, IN_PRE_COPY, first.len() as u64, 1, String::new())
    );
    client.go(STOP_COPY).expect("stop-and-copy");
    let stopped = next(&mut source);
    assert_eq!(
        stopped,
        (
            STOP_COPY,
            IN_STOP_COPY,
            first.len() as u64,
            1,
            String::new()
        )
    );
    let second = client.all_saved(4096);
    let all = (first.len() + second.len()) as u64;
    assert_eq!(
        next(&mut source),
        (STOP_COPY, IN_STOP_COPY, all, 1, String::new())
    );
    client.go(STOP).expect("stop");
    assert_eq!(next(&mut source), nothing(STOP, 1));

    destination.go(RESUMING).expect("resuming");
    assert_eq!(next(&mut target), (RESUMING, SETUP, 0, 1, String::new()));
    destination.load(&first).expect("pre-copy");
    let taken = next(&mut target);
    assert_eq!(
        taken,
        (RESUMING, IN_PRE_COPY, first.len() as u64, 1, String::new())
    );
    destination.load(&second).expect("stop-and-copy");
    assert_eq!(
        next(&mut target),
        (RESUMING, IN_STOP_COPY, all, 1, String::new())
    );
    destination.go(RUNNING).expect("running");
    assert_eq!(next(&mut target), nothing(RUNNING, 1));

    // What is refused is told with its reason, and the end of the client ends its session.
    destination.go(RESUMING).expect("resuming");
    assert_eq!(next(&mut target), (RESUMING, SETUP, 0, 2, String::new()));
    assert_eq!(destination.load(&second[1..]), Err(EINVAL));
    let reason = destination.refusal();
    let refused = next(&mut target);
    assert_eq!(
        (refused.0, refused.1, &refused.4),
        (RESUMING, SETUP, &reason)
    );
    assert!(!reason.is_empty());
    drop(destination);
    assert_eq!(next(&mut target), (RUNNING, NONE, 0, 2, reason));
}

#[test]
fn bytes_are_told_of_ten_times_a_second_and_the_last_of_them_too() {
    let program = Program::start(&["--m-num-ports", "4"]);
    let mut client = program.client();
    let mut watching = observer(&program);
    next(&mut watching);
    let began = Instant::now();
    client.go(STOP_COPY).expect("stop-and-copy");
    let watcher = std::thread::spawn(move || {
        let mut all = vec![next(&mut watching)];
        while all.last().is_some_and(|told| told.0 != RUNNING) {
            all.push(next(&mut watching));
        }
        all
    });
    let mut bytes = 0;
    while !client.saved(1).expect("a byte").is_empty() {
        bytes += 1;
        std::thread::yield_now();
    }
    client.go(RUNNING).expect("running");
    let told = watcher.join().expect("a thread");
    let most = began.elapsed().as_millis() / 100 + 3;
    assert!(told.len() as u128 <= most, "{} times: {told:?}", told.len());
    assert!(told.iter().all(|told| told.2 <= bytes));
    assert!(bytes > 100);
}

#[test]
fn an_observer_is_no_client_and_keeps_nobody_out() {
    let program = Program::start(&[]);
    let mut first = observer(&program);
    assert_eq!(next(&mut first), nothing(RUNNING, 0));
    // Whoever comes is the client, and it says what it said without an observer.
    let mut client = program.client();
    client.write(0, 7, &[0x42]).expect("a write");
    assert_eq!(client.feature(GET | PROGRESS, &[]), Err(ENOTTY));
    let mut second = program.connect();
    second.raw(&sound(5, VERSION, &version(0, 0, QEMU)));
    assert_eq!(second.answer().expect("a reply").result, Err(EBUSY));
    // Whoever is the client cannot become an observer.
    assert_eq!(client.ask(VERSION, &version(0, 0, OBSERVER)), Err(EBUSY));
    drop(client);
    let mut client = program.client();
    client.go(PRE_COPY).expect("pre-copy");
    assert_eq!(
        next(&mut first),
        (PRE_COPY, IN_PRE_COPY, 0, 1, String::new())
    );
    drop(first);
    client.go(RUNNING).expect("running");
    assert_eq!(client.read(0, 7, 1), Ok(vec![0x42]));
}

#[test]
fn four_observe_and_their_descriptors_go_with_them() {
    let program = Program::start(&[]);
    let mut client = program.client();
    client.in_step();
    let before = program.descriptors();
    for _ in 0..50 {
        let mut four: Vec<Client> = (0..4).map(|_| observer(&program)).collect();
        let mut fifth = program.connect();
        assert_eq!(fifth.ask(VERSION, &version(0, 0, OBSERVER)), Err(ENOSPC));
        fifth.is_closed();
        assert_eq!(program.descriptors(), before + 4);
        client.go(PRE_COPY).expect("pre-copy");
        for one in &mut four {
            assert_eq!(next(one).0, PRE_COPY);
            // It waits for more, and goes: in the middle of nothing, and of a message.
            one.raw(&sound(9, FEATURE, &words(&[64, GET | PROGRESS])));
        }
        client.go(RUNNING).expect("running");
        four[0].raw(&sound(9, FEATURE, &words(&[64, GET | PROGRESS]))[..19]);
        drop(four);
        // Those who are gone have made room when another one is taken.
        while program.descriptors() > before {
            client.in_step();
        }
    }
}

#[test]
fn what_an_observer_wants_of_the_device_is_refused_and_nothing_of_it_happens() {
    let program = Program::start(&[]);
    let mut client = program.client();
    fill(&mut client);
    let before = program.descriptors();
    let mut bad = observer(&program);
    let (ram, event) = (crate::memory::memory(4096), event());
    for (command, body) in [
        (GET_INFO, words(&[16, 0, 0, 0])),
        (REGION_READ, access(0, 0, 1)),
        (REGION_WRITE, [access(0, 7, 1), vec![1]].concat()),
        (DMA_MAP, range(3, 0, 0, 4096)),
        (SET_IRQS, words(&[20, 0x21, 0, 0, 0])),
        (RESET, vec![]),
        (FEATURE, words(&[64, SET | STATE, STOP, 0])),
        (FEATURE, words(&[64, GET | STATE])),
        (MIG_DATA_READ, words(&[16, 8])),
        (MIG_DATA_WRITE, words(&[8, 0])),
        (PRECOPY_INFO, words(&[24, 0, 0, 0, 0, 0])),
    ] {
        assert_eq!(bad.ask(command, &body), Err(EPERM), "command {command}");
        bad.tell(command, &body);
    }
    assert_eq!(bad.ask(VERSION, &version(0, 0, OBSERVER)), Err(EBUSY));
    assert_eq!(bad.ask(99, &[]), Err(ENOSYS));
    assert_eq!(bad.feature(SET | PROGRESS, &[]), Err(EINVAL));
    assert_eq!(bad.feature(PROBE | GET | PROGRESS, &[]), Ok(vec![]));
    // With descriptors, without room, and without wanting a reply.
    let body = words(&[64, GET | PROGRESS]);
    for fd in [ram.as_fd(), event.as_fd()] {
        assert_eq!(bad.ask_with(FEATURE, &body, &[fd]).result, Err(EINVAL));
    }
    assert_eq!(bad.ask(FEATURE, &words(&[31, GET | PROGRESS])), Err(EINVAL));
    bad.tell(FEATURE, &body);
    assert_eq!(next(&mut bad), nothing(RUNNING, 0));
    assert_eq!(program.descriptors(), before + 1);
    // A length that no message of an observer has.
    bad.raw(&message(5, REGION_WRITE, 4097, 0, &[]));
    assert_eq!(bad.answer().expect("a reply").result, Err(EINVAL));
    bad.is_closed();
    is_filled(&mut client);
    assert_eq!(client.state(), RUNNING);
    client.in_step();
}

#[test]
fn observers_that_flood_and_do_not_read_are_dropped_and_hold_nobody_up() {
    let program = Program::start(&["--client-patience", "1"]);
    let mut client = program.client();
    fill(&mut client);
    let floods: Vec<_> = (0..4)
        .map(|n| {
            let mut bad = observer(&program);
            bad.socket.set_write_timeout(None).expect("a socket");
            // Refused each; or all of them the same question, of which none but the first is heard.
            let one = match n {
                0 => sound(1, FEATURE, &words(&[64, GET | PROGRESS])),
                _ => sound(1, GET_INFO, &words(&[16, 0, 0, 0])),
            };
            std::thread::spawn(move || {
                let bytes = one.repeat(100);
                let mut written = 0;
                while bad.socket.write_all(&bytes).is_ok() {
                    written += bytes.len();
                    assert!(written < 64 << 20, "replies are collected without bound");
                }
                n
            })
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(30);
    let is_over = |n: usize| floods[n].is_finished();
    while !(1..4).all(is_over) {
        assert!(Instant::now() < until, "somebody who does not read is kept");
        client.write(0, 7, &[0x77]).expect("a write");
        client.in_step();
    }
    // Whoever waits for news is not dropped, and is when the device is gone.
    assert!(!floods[0].is_finished());
    let saved = client.save();
    client.go(RESUMING).expect("resuming");
    client.load(&saved).expect("a state");
    client.go(RUNNING).expect("running");
    is_filled(&mut client);
    assert!(program.peak_memory() < 64 << 10);
    drop(program);
    for flood in floods {
        flood.join().expect("it ends");
    }
}
