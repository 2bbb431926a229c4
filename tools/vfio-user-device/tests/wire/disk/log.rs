// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The log of the memory that the disk writes to.

use std::os::fd::AsFd;

use super::driver::*;
use crate::client::*;
use crate::migration::*;

const START: u32 = SET | 6;
const STOP_LOG: u32 = SET | 7;
const REPORT: u32 = GET | 8;

/// No page.
const NONE: [u64; 0] = [];

/// A log of everything.
fn everything() -> Vec<u8> {
    [longs(&[4096]), words(&[0, 0])].concat()
}

/// The pages of these places in the memory, in order.
fn pages(places: &[(u64, u64)]) -> Vec<u64> {
    let pages = places
        .iter()
        .flat_map(|(at, len)| at / 4096..=(at + len - 1) / 4096);
    pages.collect()
}

#[test]
fn a_report_has_the_pages_that_were_written_since_the_last_one() {
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    guest.write(0, &pattern(8192, 1));
    assert!(guest.client.feature(START, &everything()).is_ok());
    assert_eq!(
        guest.pages_written(),
        NONE,
        "what was before does not count"
    );
    // What the device reads it does not write.
    guest.write(0, &pattern(8192, 2));
    assert_eq!(guest.pages_written(), pages(&[(RING, 1), (STATUS, 1)]));
    assert_eq!(guest.pages_written(), NONE);
    guest.read(0, 8192);
    let all = pages(&[(RING, 1), (STATUS, 1), (DATA, 8192)]);
    assert_eq!(guest.pages_written(), all);
    // A page is told by whichever question it is in, and by no other one.
    guest.read(0, 8192);
    let report = |guest: &mut Guest, at: u64, len: u64, page: u64| {
        let asked = longs(&[BASE + at, len, page]);
        let reply = guest.client.feature(REPORT, &asked).expect("a report");
        u64::from_ne_bytes(reply[24..32].try_into().expect("a word"))
    };
    assert_eq!(report(&mut guest, DATA, 4096, 4096), 1);
    assert_eq!(report(&mut guest, 0, 1 << 21, 1 << 16), 1 | (1 << 16));
    assert_eq!(guest.pages_written(), NONE);
    assert_eq!(guest.client.feature(STOP_LOG, &[]), Ok(vec![]));
    guest.read(0, 8192);
    assert!(guest.client.feature(START, &everything()).is_ok());
    assert_eq!(guest.pages_written(), NONE, "a new log is empty");
}

#[test]
fn a_reset_and_memory_that_goes_leave_what_was_written() {
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    assert!(guest.client.feature(START, &everything()).is_ok());
    guest.read(0, 4096);
    assert_eq!(guest.client.ask(RESET, &[]), Ok(vec![]));
    let body = crate::memory::unmap(0, BASE, SIZE);
    assert_eq!(guest.client.ask(DMA_UNMAP, &body), Ok(body));
    let all = pages(&[(RING, 1), (STATUS, 1), (DATA, 4096)]);
    assert_eq!(guest.pages_written(), all);
}

#[test]
fn only_ranges_that_are_logged_are_told_of() {
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    let start = [
        longs(&[4096]),
        words(&[1, 0]),
        longs(&[BASE + DATA, 1 << 20]),
    ]
    .concat();
    assert!(guest.client.feature(START, &start).is_ok());
    guest.read(0, 4096);
    let ask = |guest: &mut Guest, at: u64| {
        let asked = longs(&[BASE + at, 4096, 4096]);
        guest.client.feature(REPORT, &asked).map(|reply| reply[24])
    };
    assert_eq!(ask(&mut guest, DATA), Ok(1));
    assert_eq!(ask(&mut guest, DATA), Ok(0));
    assert_eq!(ask(&mut guest, RING), Err(EINVAL));
}

#[test]
fn requests_that_go_nowhere_do_not_use_up_the_log() {
    const HIGH: u64 = 1 << 40;
    let program = start(&[]);
    let mut guest = Guest::on(&program);
    let more = crate::memory::memory(1 << 20);
    let answer = guest
        .client
        .ask_with(DMA_MAP, &range(3, 0, HIGH, 1 << 20), &[more.as_fd()]);
    assert_eq!(answer.result, Ok(vec![]));
    assert!(guest.client.feature(START, &everything()).is_ok());
    // Where there is no memory, each far from the others: more than the log keeps apart.
    for n in 1..4200 {
        assert_eq!(guest.read_to(HIGH + (n << 27)), 1, "an I/O error");
    }
    for page in [3, 200] {
        assert_eq!(guest.read_to(HIGH + page * 4096), 0);
    }
    let asked = longs(&[HIGH, 1 << 20, 4096]);
    let reply = guest.client.feature(REPORT, &asked).expect("a report");
    let bits = (0..256).filter(|bit| reply[24 + bit / 8] & (1 << (bit % 8)) != 0);
    assert_eq!(bits.collect::<Vec<_>>(), [3, 200]);
}
