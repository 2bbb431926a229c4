// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The card works behind the socket.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::client::*;
use crate::program::Program;

#[test]
fn what_a_port_sends_comes_back() {
    let program = Program::start(&["--m-num-ports", "2"]);
    let mut client = program.client();
    for port in [0u64, 8] {
        client.write(0, port + 3, &[3]).expect("8 data bits");
        client.write(0, port + 2, &[1]).expect("FIFOs");
    }
    for byte in 0..=255u8 {
        client.write(0, 8, &[byte]).expect("a byte is sent");
        assert_eq!(client.read(0, 8 + 5, 1).map(|lsr| lsr[0] & 1), Ok(1));
        assert_eq!(client.read(0, 8, 1), Ok(vec![byte]));
        assert_eq!(
            client.read(0, 5, 1).map(|lsr| lsr[0] & 1),
            Ok(0),
            "the other port"
        );
    }
}

/// Sends a character at this divisor and waits for its time-out; returns how long that took.
fn time_out(client: &mut Client, divisor: u8) -> Duration {
    let interrupt = event();
    client
        .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
        .expect("INTx");
    let writes = [(3, 0x83), (0, divisor), (1, 0), (3, 3), (2, 0x81), (1, 1)];
    for (register, value) in writes {
        client.write(0, register, &[value]).expect("a write");
    }
    let began = Instant::now();
    client.write(0, 0, b"U").expect("a character");
    assert!(!signalled(&interrupt, NOW), "it waits for more");
    assert!(signalled(&interrupt, SOON), "no time-out");
    let took = began.elapsed();
    assert_eq!(
        client.read(0, 2, 1),
        Ok(vec![0xcc]),
        "no character time-out"
    );
    took
}

#[test]
fn time_passes_for_the_card_without_anybody_s_doing() {
    let program = Program::start(&[]);
    let mut client = program.client();
    // Four characters of ten bits at 115200/96 = 1200 baud.
    let took = time_out(&mut client, 96);
    assert!(took >= Duration::from_micros(33_333), "{took:?}");
}

#[test]
fn the_card_s_clock_stands_still_while_nobody_is_there() {
    let program = Program::start(&[]);
    let mut client = program.client();
    // 300 baud: a time-out of 133 ms, which comes to nobody.
    for (register, value) in [
        (3, 0x83),
        (0, 0x80),
        (1, 1),
        (3, 3),
        (2, 0x81),
        (1, 1),
        (0, b'U'),
    ] {
        client.write(0, register, &[value]).expect("a write");
    }
    drop(client);
    let mut client = program.client();
    // What is being waited for is as far away as it was.
    assert_eq!(
        client.read(0, 2, 1),
        Ok(vec![0xc1]),
        "an interrupt is pending"
    );
    let interrupt = event();
    client
        .irqs([0x24, 0, 0, 1], &[], &[interrupt.as_fd()])
        .expect("INTx");
    assert!(signalled(&interrupt, SOON), "no time-out");
    assert_eq!(client.read(0, 0, 1), Ok(b"U".to_vec()));
}
