// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Messages that are cut, too long, too many, or none.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::client::*;
use crate::program::Program;

#[test]
fn k01_messages_come_in_any_pieces() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let bytes = sound(9, GET_REGION_INFO, &words(&[32, 0, 7, 0, 0, 0, 0, 0]));
    let info = words(&[32, 3, 7, 0, 256, 0, 0, 0]);
    for split in 1..bytes.len() {
        client.raw(&bytes[..split]);
        client.raw(&bytes[split..]);
        let answer = client.answer().expect("a reply");
        assert_eq!(answer.result, Ok(info.clone()), "split at {split}");
    }
    for byte in &bytes {
        client.raw(&[*byte]);
    }
    assert_eq!(client.answer().expect("a reply").result, Ok(info));
    client.in_step();
}

#[test]
fn k02_and_k03_lengths_that_no_message_has_end_the_connection_without_memory_for_them() {
    let program = Program::start(&[]);
    let before = {
        program.client().in_step();
        program.peak_memory()
    };
    for size in [0, 1, 15, (1 << 20) + (64 << 10) + 1, 1 << 31, u32::MAX] {
        for command in [VERSION, REGION_READ, REGION_WRITE, 99] {
            let mut client = program.client();
            client.raw(&message(5, command, size, 0, &[0; 8]));
            let answer = client.answer().expect("a reply");
            assert_eq!((answer.id, answer.command), (5, command));
            assert_eq!(answer.result, Err(EINVAL), "{size}");
            client.is_closed();
        }
    }
    program.client().in_step();
    let after = program.peak_memory();
    assert!(after < before + 1024, "{before} kB grew to {after} kB");
}

#[test]
fn k04_bodies_that_are_too_short_are_refused_and_longer_ones_borne_in_step() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for command in [2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 18, 19] {
        for length in [0, 3] {
            let refused = client.ask(command, &vec![0; length]);
            assert_eq!(refused, Err(EINVAL), "command {command}, {length} bytes");
        }
    }
    client.in_step();
    let long = [words(&[16, 0, 0, 0]), vec![7; 8]].concat();
    assert_eq!(client.ask(GET_INFO, &long), Ok(words(&[16, 3, 9, 5])));
    // As SPDK's client does.
    let long = [words(&[64, 0, 0, 0, 0, 0, 0, 0]), vec![0; 4000]].concat();
    let info = words(&[32, 3, 0, 0, 8, 0, 0, 0]);
    assert_eq!(client.ask(GET_REGION_INFO, &long), Ok(info));
    assert_eq!(client.ask(RESET, &[1, 2, 3]), Ok(vec![]));
    client.in_step();
}

#[test]
fn k05_and_k06_types_other_than_a_request_are_refused_and_reserved_flags_not_looked_at() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for kind in 1..=15 {
        client.raw(&message(3, GET_INFO, 32, kind, &words(&[16, 0, 0, 0])));
        let answer = client.answer().expect("a reply");
        assert_eq!(answer.result, Err(EINVAL), "type {kind}");
    }
    let mut bytes = message(3, GET_INFO, 32, 0xffff_ffe0, &words(&[16, 0, 0, 0]));
    bytes[12..16].copy_from_slice(&77u32.to_ne_bytes());
    client.raw(&bytes);
    let answer = client.answer().expect("a reply");
    assert_eq!(answer.result, Ok(words(&[16, 3, 9, 5])));
    client.in_step();
}

#[test]
fn k07_and_k08_commands_that_are_no_client_s_are_refused_with_their_bodies() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for command in [0, 14, 20, 99, u16::MAX] {
        assert_eq!(client.ask(command, &[0xff; 100]), Err(ENOSYS), "{command}");
    }
    for command in [11, 12] {
        let body = [longs(&[0, 4]), vec![1; 4]].concat();
        assert_eq!(client.ask(command, &body), Err(EINVAL), "{command}");
    }
    client.in_step();
}

#[test]
fn k09_who_wants_no_reply_gets_none_whatever_happens() {
    let program = Program::start(&[]);
    let mut client = program.client();
    // Scratch register of the first port.
    client.tell(REGION_WRITE, &[access(0, 7, 1), vec![0x5a]].concat());
    client.tell(REGION_WRITE, &access(0, 1 << 40, 0));
    client.tell(99, b"unknown");
    client.tell(GET_INFO, &words(&[0, 0, 0, 0]));
    client.tell(VERSION, &version(0, 0, QEMU));
    client.tell(FEATURE, &words(&[8, 1]));
    client.tell(RESET, &[]);
    client.tell(REGION_WRITE, &[access(0, 7, 1), vec![0xa5]].concat());
    client.nothing_came();
    assert_eq!(client.read(0, 7, 1), Ok(vec![0xa5]));
    client.raw(&message(1, RESET, 4, NO_REPLY, &[]));
    client.is_closed();
}

#[test]
fn k10_replies_that_nobody_reads_stop_the_reading_and_then_the_connection() {
    let program = Program::start(&["--client-patience", "1"]);
    let mut client = program.client();
    client.socket.set_write_timeout(None).expect("a socket");
    let bytes = sound(1, REGION_READ, &access(CONFIG, 0, 256)).repeat(100);
    // It takes no more than the sockets hold, and then drops who does not read: writing fails in the end.
    let mut written = 0;
    while client.socket.write_all(&bytes).is_ok() {
        written += bytes.len();
        assert!(written < 64 << 20, "replies are collected without bound");
    }
    let mut other = program.client();
    other.in_step();
    assert!(program.peak_memory() < 64 << 10);
}

#[test]
fn k11_a_thousand_requests_at_once_are_answered_in_order() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let mut bytes = Vec::new();
    for n in 0..1000u32 {
        // All of them with one of two numbers.
        let command = [GET_INFO, GET_IRQ_INFO][(n % 2) as usize];
        bytes.extend(sound((n % 2) as u16, command, &words(&[16, 0, 1, 0])));
    }
    let mut writer = client.socket.try_clone().expect("a socket");
    let sender = std::thread::spawn(move || writer.write_all(&bytes));
    for n in 0..1000u16 {
        let answer = client.answer().expect("a reply");
        assert_eq!(answer.id, n % 2);
        assert_eq!(answer.command, [GET_INFO, GET_IRQ_INFO][(n % 2) as usize]);
        assert!(answer.result.is_ok());
    }
    sender.join().expect("a thread").expect("all was taken");
    client.in_step();
}

#[test]
fn k12_the_end_in_the_middle_of_anything_leaves_nothing_behind() {
    let program = Program::start(&[]);
    program.client().in_step();
    let mut client = program.client();
    client.in_step();
    let before = program.descriptors();
    drop(client);
    let bytes = sound(1, SET_IRQS, &words(&[20, 0x24, 0, 0, 1]));
    for length in 1..bytes.len() {
        for half in [false, true] {
            let mut client = program.client();
            let event = event();
            client.raw_with(&bytes[..length], &[event.as_fd()]);
            if half {
                client.socket.shutdown(Shutdown::Write).expect("a socket");
                client.is_closed();
            }
        }
    }
    let mut client = program.client();
    client.in_step();
    assert_eq!(program.descriptors(), before);
}

#[test]
fn k13_descriptors_where_none_belong_are_closed() {
    let program = Program::start(&[]);
    let mut client = program.client();
    client.in_step();
    let before = program.descriptors();
    let files: Vec<OwnedFd> = (0..253).map(|_| event()).collect();
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let one = &fds[..1];
    for (command, body) in [
        (GET_INFO, words(&[16, 0, 0, 0])),
        (REGION_READ, access(0, 0, 1)),
        (RESET, vec![]),
        (VERSION, version(0, 0, QEMU)),
        (99, vec![]),
    ] {
        let answer = client.ask_with(command, &body, one);
        assert!(answer.result.is_err(), "command {command}");
    }
    // Two for one range of memory, more than one message may have, and as many as one can.
    for count in [2, 16, 17, 253] {
        let answer = client.ask_with(DMA_MAP, &range(3, 0, 0, 4096), &fds[..count]);
        assert_eq!(answer.result, Err(EINVAL), "{count} descriptors");
    }
    // With a byte of the header, and with a later one.
    let bytes = sound(1, SET_IRQS, &words(&[20, 0x24, 0, 0, 1]));
    for (split, result) in [
        (1, Ok(vec![])),
        (15, Ok(vec![])),
        (16, Err(EINVAL)),
        (20, Err(EINVAL)),
    ] {
        client.raw(&bytes[..split]);
        client.raw_with(&bytes[split..], one);
        let answer = client.answer().expect("a reply");
        assert_eq!(answer.result, result, "with byte {split}");
        if result.is_ok() {
            client.irqs([0x21, 0, 0, 0], &[], &[]).expect("off");
        }
    }
    // SPDK sends one when memory goes.
    assert!(client.ask(DMA_MAP, &range(3, 0, 0, 4096)).is_ok());
    let unmap = [words(&[24, 0]), longs(&[0, 4096])].concat();
    let answer = client.ask_with(DMA_UNMAP, &unmap, one);
    assert_eq!(answer.result, Ok(unmap));
    client.in_step();
    assert_eq!(program.descriptors(), before);
}

#[test]
fn k14_a_second_client_is_told_that_the_device_is_busy_and_never_mixed_with_the_first() {
    let program = Program::start(&[]);
    let mut first = program.client();
    let before = program.descriptors();
    for bytes in [
        sound(77, VERSION, &version(0, 0, QEMU)),
        sound(77, RESET, &[]),
    ] {
        let mut second = program.connect();
        second.raw(&bytes);
        let answer = second.answer().expect("a reply");
        assert_eq!((answer.id, answer.result), (77, Err(EBUSY)));
        second.is_closed();
    }
    // Who wants no reply gets none; what is no message at all ends it.
    for bytes in [
        message(77, VERSION, 20, NO_REPLY, &[0; 4]),
        message(77, VERSION, 15, 0, &[]),
    ] {
        let mut second = program.connect();
        second.raw(&bytes);
        second.is_closed();
    }
    first.write(0, 7, &[0x11]).expect("a write");
    first.in_step();
    assert_eq!(program.descriptors(), before);
}

#[test]
fn k14_who_has_said_nothing_is_the_next_client() {
    let program = Program::start(&[]);
    let mut first = program.client();
    let mut second = program.connect();
    let half = sound(77, VERSION, &version(0, 0, QEMU));
    second.raw(&half[..9]);
    first.write(0, 7, &[0x11]).expect("a write");
    drop(first);
    second.raw(&half[9..]);
    assert_eq!(second.answer().map(|answer| answer.id), Some(77));
    // The device is as the first one left it.
    assert_eq!(second.read(0, 7, 1), Ok(vec![0x11]));
    let mut third = program.connect();
    for _ in 0..100 {
        drop(program.connect());
    }
    second.in_step();
    drop(second);
    third.agree();
    third.in_step();
}

#[test]
fn k14_no_crowd_keeps_anybody_out_or_descriptors_in() {
    let program = Program::start(&[]);
    let mut first = program.client();
    let before = program.descriptors();
    let mut silent: Vec<Client> = (0..40).map(|_| program.connect()).collect();
    // Those that have waited longest make room, so somebody who speaks is answered.
    let mut second = program.connect();
    second.raw(&sound(5, VERSION, &version(0, 0, QEMU)));
    let answer = second.answer().expect("a reply");
    assert_eq!(answer.result, Err(EBUSY));
    silent[0].is_closed();
    first.in_step();
    assert!(program.descriptors() <= before + 17);
    drop((silent, second));
    drop(first);
    let mut client = program.client();
    client.in_step();
    assert_eq!(program.descriptors(), before);
}

#[test]
fn k14_a_client_that_is_gone_is_in_nobody_s_way_though_it_said_a_lot() {
    let program = Program::start(&[]);
    for _ in 0..200 {
        let mut client = program.client();
        // More than is carried out before others are looked at, and nobody wants to know what became of it.
        let write = [access(0, 7, 1), vec![0x22]].concat();
        let one = message(1, REGION_WRITE, 16 + 17, NO_REPLY, &write);
        client.raw(&one.repeat(200));
    }
    let mut client = program.client();
    assert_eq!(client.read(0, 7, 1), Ok(vec![0x22]));
}

#[test]
fn a_client_that_is_slow_with_a_message_keeps_no_time_from_the_device() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let interrupt = event();
    client
        .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
        .expect("INTx");
    // FIFOs with a trigger level of 8, received data: the character waits for its time-out.
    for (register, value) in [(3, 3), (2, 0x81), (1, 1), (0, b'U')] {
        client.write(0, register, &[value]).expect("a write");
    }
    client.raw(&sound(1, GET_INFO, &words(&[16, 0, 0, 0]))[..20]);
    let began = Instant::now();
    assert!(signalled(&interrupt, SOON), "no character time-out");
    assert!(began.elapsed() < Duration::from_secs(10));
    client.raw(&[0; 12]);
    assert!(client.answer().expect("a reply").result.is_ok());
}
