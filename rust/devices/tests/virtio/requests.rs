// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Requests of a block device.

use crate::driver::Buffer;
use crate::machine::Machine;
use crate::memory::{Blocks, Limited};
use devices::blk::{Config, Medium, Serial, BLOCK_BYTES, MAX_REQUEST_BYTES};

pub const IN: u32 = 0;
pub const OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

const SECTORS: u64 = 2048;

const RO: u64 = 1 << 5;
/// DISCARD and WRITE_ZEROES.
const ZEROES: u64 = 0x6000;

fn config() -> Config {
    let mut config = Config::new(1);
    config.write_zeroes = true;
    config.serial = Serial::try_from("disk-0123456789").unwrap();
    config
}

fn machine() -> Machine {
    Machine::on(&config())
}

/// The same buffer in pieces.
fn pieces(address: u64, lens: &[u32], writable: bool) -> Vec<Buffer> {
    let mut at = address;
    let piece = |&len: &u32| {
        at += u64::from(len);
        (at - u64::from(len), len, writable)
    };
    lens.iter().map(piece).collect()
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// Has these bytes written from the sector on.
fn write(machine: &mut Machine, sector: u64, bytes: &[u8]) -> u8 {
    let data = machine.data();
    machine.memory.put(data, bytes);
    machine
        .request(OUT, sector, &[(data, bytes.len() as u32, false)], false)
        .1
}

/// Has so many bytes read.
fn read(machine: &mut Machine, sector: u64, len: u32) -> Vec<u8> {
    let data = machine.data();
    machine.memory.put(data, &vec![0x5a; len as usize]);
    let answer = machine.request(IN, sector, &[(data, len, true)], false);
    assert_eq!(answer, (len + 1, OK));
    machine.memory.get(data, len as usize).to_vec()
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

#[test]
fn what_was_written_is_read_however_it_lies_in_memory() {
    let mut machine = machine();
    let data = machine.data();
    let bytes = pattern(10 * 512, 1);
    for (indirect, lens) in [
        (false, vec![5120]),
        (true, vec![512; 10]),
        (true, vec![1, 4095, 1000, 24]),
        (false, vec![3, 5117]),
    ] {
        machine.memory.put(data, &bytes);
        let buffers = pieces(data, &lens, false);
        assert_eq!(machine.request(OUT, 60, &buffers, indirect), (1, OK));
        machine.memory.put(data, &[0; 5120]);
        let buffers = pieces(data, &lens, true);
        assert_eq!(machine.request(IN, 60, &buffers, indirect), (5121, OK));
        assert_eq!(machine.memory.get(data, 5120), bytes);
    }
    // It crosses a boundary of blocks: two of them exist now.
    let medium = machine.disk.medium();
    let exist: Vec<u32> = (0..32)
        .filter(|block| medium.is_allocated(*block))
        .collect();
    assert_eq!(exist, [0, 1]);
    assert_eq!(read(&mut machine, 59, 512), [0; 512]);
    assert_eq!(read(&mut machine, 70, 512), [0; 512]);
}

#[test]
fn header_and_status_may_be_anywhere() {
    let mut machine = machine();
    let heap = machine.heap;
    // Header in three buffers, data in the last of them as well, status together with data.
    machine.memory.put(heap, &IN.to_le_bytes());
    machine.memory.put(heap + 0x100, &[0; 8]);
    machine.memory.put(heap + 0x200, &[0; 4]);
    let buffers = [
        (heap, 4, false),
        (heap + 0x100, 8, false),
        (heap + 0x200, 4, false),
        (heap + 0x400, 500, true),
        (heap + 0x800, 13, true),
    ];
    machine.memory.put(heap + 0x400, &[0xff; 1024 + 32]);
    machine.submit(0, &buffers, None);
    machine.notify(0);
    machine.serve();
    assert_eq!(
        machine.queues[0].reap(&machine.memory).map(|done| done.1),
        Some(513)
    );
    assert_eq!(machine.memory.get(heap + 0x400, 501)[499..], [0, 0xff]);
    assert_eq!(machine.memory.get(heap + 0x800, 14)[11..], [0, OK, 0xff]);

    let bytes = pattern(512, 9);
    machine.memory.put(heap, &OUT.to_le_bytes());
    machine.memory.put(heap + 16, &bytes);
    machine.submit(0, &[(heap, 528, false), (heap + 0x800, 1, true)], None);
    machine.notify(0);
    machine.serve();
    assert!(machine.queues[0].reap(&machine.memory).is_some());
    assert_eq!(read(&mut machine, 0, 512), bytes);
}

#[test]
fn what_is_not_on_the_medium_is_an_error_and_changes_nothing() {
    let mut machine = machine();
    for (sector, len) in [
        (SECTORS, 512),
        (SECTORS - 1, 1024),
        (u64::MAX, 512),
        (u64::MAX / 512 + 1, 512),
        (0, 511),
        (0, 513),
    ] {
        let data = machine.data();
        machine.memory.put(data, &[0x77; 1024]);
        let answer = machine.request(OUT, sector, &[(data, len, false)], false);
        assert_eq!(answer, (1, IOERR), "{sector} {len}");
        let answer = machine.request(IN, sector, &[(data, len, true)], false);
        assert_eq!(answer, (0, IOERR), "{sector} {len}");
        assert_eq!(machine.memory.get(data, 1024), [0x77; 1024]);
    }
    assert_eq!(machine.disk.medium().allocated(), 0);
    assert_eq!(write(&mut machine, SECTORS - 1, &[1; 512]), OK);
    assert_eq!(read(&mut machine, SECTORS - 1, 512), [1; 512]);
}

#[test]
fn a_request_has_a_largest_size() {
    let mut config = Config::new(16);
    config.queue_size = 256.try_into().unwrap();
    let mut machine = Machine::on(&config);
    // One buffer of the guest's memory, many times over.
    let data = machine.data();
    let len = 1 << 20;
    let most = (MAX_REQUEST_BYTES / len) as usize;
    let buffers = vec![(data, len as u32, true); most];
    assert_eq!(
        machine.request(IN, 0, &buffers, true),
        (((most as u32) << 20) + 1, OK)
    );
    let mut more = buffers.clone();
    more.push((data, 512, true));
    assert_eq!(machine.request(IN, 0, &more, true), (0, IOERR));
}

#[test]
fn memory_that_is_not_there_is_an_error_of_the_request() {
    let mut machine = machine();
    let data = machine.data();
    let nowhere = 0x4000_0000;
    let answer = machine.request(OUT, 0, &[(data, 4096, false), (nowhere, 512, false)], false);
    assert_eq!(answer, (1, IOERR));
    let answer = machine.request(IN, 0, &[(data, 4096, true), (nowhere, 512, true)], false);
    // What came before it was written, and a driver may rely on that much.
    assert_eq!(answer, (4096, IOERR));
    assert_eq!(machine.error, None);
    // Where even the answer has no place, the device needs a reset.
    let buffers = [(data, 16, false), (nowhere, 1, true)];
    machine.submit(0, &buffers, None);
    machine.notify(0);
    machine.serve();
    assert!(machine.error.is_some());
}

#[test]
fn a_medium_that_cannot_grow_is_an_error_and_the_rest_goes_on() {
    let mut machine = machine();
    let blocks = Blocks::with(32, Limited(1));
    assert!(machine.disk.replace(blocks).is_ok());
    assert_eq!(write(&mut machine, 0, &[1; 512]), OK);
    assert_eq!(write(&mut machine, 64, &[1; 512]), IOERR);
    assert_eq!(write(&mut machine, 1, &[2; 512]), OK);
    assert_eq!(read(&mut machine, 64, 512), [0; 512]);
}

#[test]
fn the_serial_number_is_answered() {
    let mut machine = machine();
    let data = machine.data();
    for (room, written) in [(20, 21), (8, 9), (64, 20)] {
        machine.memory.put(data, &[0xff; 64]);
        let answer = machine.request(GET_ID, 0, &[(data, room, true)], false);
        assert_eq!(answer, (written, OK));
        let bytes = b"disk-0123456789\0\0\0\0\0";
        let len = bytes.len().min(room as usize);
        assert_eq!(machine.memory.get(data, len), &bytes[..len]);
        assert!(machine
            .memory
            .get(data + 20, 44)
            .iter()
            .all(|byte| *byte == 0xff));
    }
}

#[test]
fn flush_succeeds_and_what_is_unknown_is_unsupported() {
    let mut machine = machine();
    assert_eq!(machine.request(FLUSH, 0, &[], true), (1, OK));
    for kind in [2, 3, 5, 7, 10, 12, 14, 16, u32::MAX] {
        assert_eq!(machine.request(kind, 0, &[], false), (1, UNSUPP), "{kind}");
    }
}

/// Has ranges zeroed.
fn zero(machine: &mut Machine, kind: u32, ranges: &[Vec<u8>]) -> u8 {
    let data = machine.data();
    let bytes = ranges.concat();
    machine.memory.put(data, &bytes);
    let (len, status) = machine.request(kind, 0, &[(data, bytes.len() as u32, false)], false);
    assert_eq!(len, 1);
    status
}

#[test]
fn zeroed_ranges_read_zeroes_and_whole_blocks_are_freed_if_they_may_be() {
    let sectors = (BLOCK_BYTES / 512) as u32;
    for (kind, flags, frees) in [
        (DISCARD, 0, true),
        (WRITE_ZEROES, 1, true),
        (WRITE_ZEROES, 0, false),
    ] {
        let mut machine = machine();
        let all = pattern(4 * BLOCK_BYTES, 3);
        assert_eq!(write(&mut machine, 0, &all), OK);
        // From the middle of the first block to the middle of the last; and one that does not exist.
        let from = sectors / 2;
        let ranges = [
            range(from.into(), 3 * sectors, flags),
            range(10 * u64::from(sectors), 1, flags),
        ];
        assert_eq!(zero(&mut machine, kind, &ranges), OK);
        let start = from as usize * 512;
        let mut expected = all.clone();
        expected[start..start + 3 * BLOCK_BYTES].fill(0);
        assert_eq!(read(&mut machine, 0, all.len() as u32), expected);
        let medium = machine.disk.medium();
        let exist: Vec<bool> = (0..4).map(|block| medium.is_allocated(block)).collect();
        assert_eq!(exist, [true, !frees, !frees, true], "{kind} {flags}");
        assert!(!medium.is_allocated(10));
    }
}

#[test]
fn no_more_is_zeroed_than_what_a_request_moves() {
    let mut machine = Machine::on(&Config {
        write_zeroes: true,
        ..Config::new(16)
    });
    let last = (MAX_REQUEST_BYTES / 512) as u32;
    assert_eq!(write(&mut machine, 0, &[7; 512]), OK);
    assert_eq!(write(&mut machine, last.into(), &[7; 512]), OK);
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(zero(&mut machine, kind, &[range(0, last + 1, 0)]), IOERR);
        assert_eq!(zero(&mut machine, kind, &[range(0, u32::MAX, 0)]), IOERR);
        // Together, and the same place over and over.
        let whole = range(0, last, 0);
        let more = [whole.clone(), range(0, 1, 0)];
        assert_eq!(zero(&mut machine, kind, &more), IOERR);
        assert_eq!(zero(&mut machine, kind, &vec![whole; 16]), IOERR);
    }
    assert_eq!(read(&mut machine, 0, 512), [7; 512]);
    assert_eq!(zero(&mut machine, WRITE_ZEROES, &[range(0, last, 0)]), OK);
    assert_eq!(read(&mut machine, 0, 512), [0; 512]);
    assert_eq!(read(&mut machine, last.into(), 512), [7; 512]);
    // As many ranges, as large as drivers are told.
    let ranges: Vec<_> = (0..16).map(|n| range(n * 1024 + 1, 1024, 0)).collect();
    assert_eq!(zero(&mut machine, DISCARD, &ranges), OK);
    assert_eq!(read(&mut machine, last.into(), 512), [0; 512]);
}

#[test]
fn a_range_that_is_wrong_spares_all_of_them() {
    let mut machine = machine();
    assert_eq!(write(&mut machine, 0, &[7; 1024]), OK);
    let good = range(0, 2, 0);
    for (kind, bad, status) in [
        (DISCARD, range(SECTORS - 1, 2, 0), IOERR),
        (DISCARD, range(u64::MAX, 1, 0), IOERR),
        (DISCARD, range(0, 1, 1), UNSUPP),
        (WRITE_ZEROES, range(0, 1, 2), UNSUPP),
        (WRITE_ZEROES, vec![0; 8], IOERR),
    ] {
        assert_eq!(zero(&mut machine, kind, &[good.clone(), bad]), status);
    }
    assert_eq!(zero(&mut machine, DISCARD, &vec![good.clone(); 17]), IOERR);
    assert_eq!(machine.request(DISCARD, 0, &[], false), (1, IOERR));
    assert_eq!(read(&mut machine, 0, 1024), [7; 1024]);
    assert_eq!(zero(&mut machine, DISCARD, &vec![good; 16]), OK);
    assert_eq!(read(&mut machine, 0, 1024), [0; 1024]);
}

#[test]
fn what_was_not_negotiated_is_unsupported() {
    let mut machine = Machine::off(&config());
    machine.start(!ZEROES);
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(zero(&mut machine, kind, &[range(0, 1, 0)]), UNSUPP);
    }
}

#[test]
fn a_read_only_device_changes_nothing() {
    let mut config = config();
    config.read_only = true;
    let mut machine = Machine::off(&config);
    assert_eq!(machine.offered() & (RO | ZEROES), RO);
    machine.start(u64::MAX);
    assert_eq!(write(&mut machine, 0, &[1; 512]), IOERR);
    assert_eq!(zero(&mut machine, DISCARD, &[range(0, 1, 0)]), UNSUPP);
    assert_eq!(read(&mut machine, 0, 512), [0; 512]);
    assert_eq!(machine.disk.medium().allocated(), 0);
}

#[test]
fn only_the_documented_values_make_a_device() {
    use devices::blk::{Capacity, ConfigError, QueueCount, QueueSize};
    for n in 0..5000u64 {
        assert_eq!(Capacity::try_from(n).is_ok(), (1..=4096).contains(&n));
        assert_eq!(QueueCount::try_from(n).is_ok(), (1..=16).contains(&n));
        let size = [16, 32, 64, 128, 256].contains(&n);
        assert_eq!(QueueSize::try_from(n).is_ok(), size);
    }
    assert!(Capacity::try_from(0x1_0000_0001).is_err());
    assert!(Serial::try_from("12345678901234567890").is_ok());
    assert_eq!(
        Serial::try_from("123456789012345678901"),
        Err(ConfigError::SerialLength(21))
    );
    assert_eq!(
        Serial::try_from("caf\u{e9}"),
        Err(ConfigError::SerialCharacters)
    );
    assert_eq!(
        Capacity::try_from(4096).map(|c| (c.sectors(), c.blocks())),
        Ok((8 << 20, 131_072))
    );
}
