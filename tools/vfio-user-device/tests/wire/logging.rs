// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The log of the memory that the device writes to, which is none.

use crate::client::*;
use crate::migration::*;
use crate::program::Program;

const START: u32 = SET | 6;
const STOP_LOG: u32 = SET | 7;
const REPORT: u32 = GET | 8;

/// The start of a log of these ranges.
fn start(page_size: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    let mut data = longs(&[page_size]);
    data.extend(words(&[ranges.len() as u32, 0]));
    data.extend(ranges.iter().flat_map(|range| longs(&[range.0, range.1])));
    data
}

#[test]
fn a_report_is_as_long_as_its_pages_and_empty() {
    let program = Program::start(&[]);
    let mut client = program.client();
    let whole = start(4096, &[(0, 1 << 30), (1 << 30, 1 << 30)]);
    assert_eq!(client.feature(START, &whole), Ok(whole));
    for (iova, length, page, bytes) in [
        (0, 4096, 4096, 8),
        (0, 65 * 4096, 4096, 16),
        (1 << 29, 1 << 30, 4096, 32 << 10),
        (0, 1 << 31, 1 << 21, 128),
        (3, 5, 4096, 8),
    ] {
        let asked = longs(&[iova, length, page]);
        let reply = client.feature(REPORT, &asked).expect("a report");
        assert_eq!(reply[..24], asked);
        assert_eq!(reply[24..], vec![0; bytes], "{iova:#x} {length:#x}");
        // QEMU sends the room for it along, whatever is in there.
        let with_room = [asked.clone(), vec![0xff; bytes]].concat();
        assert_eq!(client.feature(REPORT, &with_room), Ok(reply));
    }
    assert_eq!(client.feature(STOP_LOG, &[7; 16]), Ok(vec![7; 16]));
    let gone = client.feature(REPORT, &longs(&[0, 4096, 4096]));
    assert_eq!(gone, Err(EINVAL));
}

#[test]
fn a_log_of_everything_is_what_qemu_and_the_protocol_s_text_ask_for() {
    let program = Program::start(&[]);
    let mut client = program.client();
    // No ranges; ranges that are said to be somewhere in the client's own memory.
    let nowhere = [longs(&[4096]), words(&[3, 0]), longs(&[0x7fff_0000])].concat();
    for data in [start(4096, &[]), nowhere] {
        assert_eq!(client.feature(START, &data), Ok(data));
        let far = longs(&[1 << 60, 4096, 4096]);
        assert_eq!(client.feature(REPORT, &far).map(|r| r.len()), Ok(32));
        assert_eq!(client.feature(STOP_LOG, &[]), Ok(vec![]));
    }
}

#[test]
fn k38_logs_and_reports_without_sense_are_refused_before_they_are_made() {
    let program = Program::start(&[]);
    let mut client = program.client();
    // Off: nothing to report, and nothing to end.
    let report = |iova, length, page| longs(&[iova, length, page]);
    let page = report(0, 4096, 4096);
    assert_eq!(client.feature(REPORT, &page), Err(EINVAL));
    assert_eq!(client.feature(STOP_LOG, &[]), Ok(vec![]));

    let count = |count: u32| [longs(&[4096]), words(&[count, 0])].concat();
    let too_many: Vec<(u64, u64)> = (0..257).map(|n| (n << 20, 4096)).collect();
    for (what, data) in [
        ("no data", vec![]),
        ("short", vec![0; 15]),
        ("page size 0", start(0, &[])),
        ("page size 3", start(3, &[])),
        ("page size 2048", start(2048, &[(0, 4096)])),
        ("page size 2048 of everything", start(2048, &[])),
        ("ranges beyond page size", start(1 << 63, &[(0, 4096)])),
        ("2^32-1 ranges", count(u32::MAX)),
        ("one that is missing", count(1)),
        ("257 ranges", start(4096, &too_many)),
        ("empty", start(4096, &[(0, 0)])),
        ("wraps", start(4096, &[(u64::MAX - 4095, 8192)])),
        ("to the end", start(4096, &[(u64::MAX - 4095, 4096)])),
        (
            "overlap",
            start(4096, &[(0x2000, 0x2000), (0x1000, 0x2000)]),
        ),
        ("twice", start(4096, &[(0, 4096), (0, 4096)])),
        ("half a page", start(4096, &[(0, 2048)])),
        ("not at a page", start(4096, &[(1, 4096)])),
    ] {
        assert_eq!(client.feature(START, &data), Err(EINVAL), "{what}");
        assert_eq!(client.feature(REPORT, &page), Err(EINVAL), "{what}");
    }
    // In any order, as the driver's core takes them.
    let two = start(4096, &[(0x4000, 0x1000), (0, 0x1000)]);
    assert_eq!(client.feature(START, &two), Ok(two.clone()));
    assert_eq!(client.feature(START, &two), Err(EINVAL), "on already");
    for (iova, length, size) in [
        (0, 0, 4096),
        (0, 4096, 0),
        (0, 4096, 3),
        (0, 4096, 2048),
        (0, u64::MAX, 4096),
        (0, u64::MAX, 1),
        (1, u64::MAX, 4096),
        (u64::MAX, 2, 4096),
        (0, 8192, 4096),
        (0x1000, 0x1000, 4096),
        (0, 0x5000, 4096),
    ] {
        let result = client.feature(REPORT, &report(iova, length, size));
        assert_eq!(result, Err(EINVAL), "{iova:#x} {length:#x} {size}");
    }
    let short = [words(&[39, REPORT]), page.clone()].concat();
    assert_eq!(client.ask(FEATURE, &short), Err(EINVAL), "no room");
    assert_eq!(client.feature(REPORT, &page).map(|r| r.len()), Ok(32));
    // A reset leaves it on, the end of the client does not.
    assert_eq!(client.ask(RESET, &[]), Ok(vec![]));
    assert!(client.feature(REPORT, &page).is_ok());
    drop(client);
    let mut client = program.client();
    assert_eq!(client.feature(REPORT, &page), Err(EINVAL));
    client.in_step();
}
