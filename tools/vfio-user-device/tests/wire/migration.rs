// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Features and saved state: what a device answers that cannot be migrated by this protocol.

use crate::client::*;
use crate::program::Program;

const GET: u32 = 1 << 16;
const SET: u32 = 1 << 17;
const PROBE: u32 = 1 << 18;

#[test]
fn features_that_the_device_has_not_are_refused_as_the_kernel_does() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for feature in [1, 2, 6, 7, 8, 9, 0xffff] {
        for flags in [PROBE, PROBE | GET, PROBE | SET, PROBE | GET | SET, GET, SET] {
            let body = [words(&[64, flags | feature]), vec![0; 24]].concat();
            assert_eq!(
                client.ask(FEATURE, &body),
                Err(ENOTTY),
                "{feature} {flags:#x}"
            );
        }
    }
    client.in_step();
}

#[test]
fn k30_features_without_sense_are_refused_in_step() {
    let program = Program::start(&[]);
    let mut client = program.client();
    for length in 0..8 {
        assert_eq!(client.ask(FEATURE, &vec![0xff; length]), Err(EINVAL));
    }
    for flags in [0, GET | SET, GET | (1 << 19), (1 << 31) | PROBE] {
        assert_eq!(client.ask(FEATURE, &words(&[64, flags | 1])), Err(EINVAL));
    }
    for argsz in [0, 7] {
        assert_eq!(client.ask(FEATURE, &words(&[argsz, GET | 1])), Err(EINVAL));
    }
    client.in_step();
}

#[test]
fn k31_to_k38_as_far_as_a_device_answers_that_cannot_be_migrated() {
    let program = Program::start(&[]);
    let mut client = program.client();
    client.write(0, 7, &[0x77]).expect("a write");
    // States (31), the log (38): with and without the data that they need.
    for state in [0, 3, 8, u32::MAX] {
        let body = words(&[16, SET | 2, state, 0]);
        assert_eq!(client.ask(FEATURE, &body), Err(ENOTTY), "state {state}");
    }
    for (flags, data) in [
        (SET | 6, longs(&[0, u64::MAX])),
        (SET | 6, longs(&[1 << 63, 0])),
        (SET | 7, vec![]),
        (GET | 8, longs(&[0, u64::MAX, 1])),
        (GET | 8, longs(&[0, 0, 0])),
    ] {
        let body = [words(&[32, flags]), data].concat();
        assert_eq!(client.ask(FEATURE, &body), Err(ENOTTY), "{flags:#x}");
    }
    // State to read (33) and to write (34), in any amount.
    for (argsz, size) in [(8, 0), (16, 8), (15, 8), (0, 0), (u32::MAX, u32::MAX)] {
        assert_eq!(
            client.ask(MIG_DATA_READ, &words(&[argsz, size])),
            Err(EINVAL)
        );
    }
    for (size, data) in [(0, &b""[..]), (4, b"data"), (5, b"data"), (u32::MAX, b"")] {
        let body = [&words(&[8, size]), data].concat();
        assert_eq!(client.ask(MIG_DATA_WRITE, &body), Err(EINVAL));
    }
    assert_eq!(
        client.ask(PRECOPY_INFO, &words(&[24, 0, 0, 0, 0, 0])),
        Err(EINVAL)
    );
    client.in_step();
    assert_eq!(client.read(0, 7, 1), Ok(vec![0x77]));
    // A reset (37): power-on state.
    assert_eq!(client.ask(RESET, &[]), Ok(vec![]));
    assert_eq!(client.read(0, 7, 1), Ok(vec![0]));
}
