// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use crate::feature::Operation;
use std::vec;

const LIMITS: Limits = Limits {
    max_data_xfer_size: 4096,
    write_multiple: true,
};

/// The request of this command with this body.
fn decode(command: u16, body: &[u8]) -> Result<Request<'_>, Refusal> {
    let mut bytes = Vec::new();
    Header::put_request(&mut bytes, 1, Command::Reset, false, body.len());
    bytes[2..4].copy_from_slice(&command.to_ne_bytes());
    let header = Header::parse(bytes.first_chunk().expect("a header"));
    Request::decode(&header, body, &LIMITS)
}

/// A body of numbers of 32 bits. A number of 64 bits is two of them on such a host, the low one first.
fn body(words: &[u32]) -> Vec<u8> {
    let mut body = Vec::new();
    for word in words {
        body.put32(*word);
    }
    body
}

/// What is wrong with this body, or nothing.
fn refusal(command: Command, words: &[u32]) -> Option<Refusal> {
    decode(command as u16, &body(words)).err()
}

#[test]
fn messages_that_are_no_requests_are_refused() {
    for kind in 1..=15u32 {
        let mut bytes = Vec::new();
        Header::put_request(&mut bytes, 1, Command::Reset, false, 0);
        bytes[8..12].copy_from_slice(&kind.to_ne_bytes());
        let header = Header::parse(bytes.first_chunk().expect("a header"));
        let decoded = Request::decode(&header, &[], &LIMITS);
        assert_eq!(decoded, Err(Refusal::NotARequest), "type {kind}");
    }
    // What means nothing in a request is not looked at.
    let mut bytes = Vec::new();
    Header::put_request(&mut bytes, 1, Command::Reset, false, 0);
    bytes[8..16].copy_from_slice(&body(&[0xffff_ffe0, 99]));
    let header = Header::parse(bytes.first_chunk().expect("a header"));
    assert_eq!(Request::decode(&header, &[], &LIMITS), Ok(Request::Reset));
}

#[test]
fn commands_that_there_are_not_are_told_from_those_of_servers() {
    for command in [0, 14, 20, 99, u16::MAX] {
        let refused = decode(command, &[1, 2, 3]);
        assert_eq!(refused, Err(Refusal::NoCommand(command)));
    }
    for command in [11, 12] {
        assert_eq!(decode(command, &[]), Err(Refusal::ServersCommand(command)));
    }
}

#[test]
fn bodies_may_be_longer_than_their_structure_and_not_shorter() {
    let sound: [(Command, &[u32]); 14] = [
        (Command::DmaMap, &[32, 1, 0, 0, 0, 0, 4096, 0]),
        (Command::DmaUnmap, &[24, 0, 0, 0, 4096, 0]),
        (Command::GetInfo, &[16, 0, 0, 0]),
        (Command::GetRegionInfo, &[32, 0, 0, 0, 0, 0, 0, 0]),
        (Command::GetRegionIoFds, &[16, 0, 0, 0]),
        (Command::GetIrqInfo, &[16, 0, 0, 0]),
        (Command::SetIrqs, &[20, 0x21, 0, 0, 0]),
        (Command::RegionRead, &[0, 0, 0, 0]),
        (Command::RegionWrite, &[0, 0, 0, 0]),
        (Command::WriteMulti, &[0, 0]),
        (Command::Feature, &[8, 1 << 16]),
        (Command::MigDataRead, &[8, 0]),
        (Command::MigDataWrite, &[8, 0]),
        (Command::PrecopyInfo, &[24]),
    ];
    for (command, words) in sound {
        let bytes = body(words);
        assert!(decode(command as u16, &bytes).is_ok(), "{command:?}");
        for short in 0..bytes.len() {
            let refused = decode(command as u16, &bytes[..short]);
            assert_eq!(refused, Err(Refusal::Short), "{command:?}, {short} bytes");
        }
    }
    let long = body(&[64, 0, 3, 0, 0, 0, 0, 0, 7, 7, 7, 7]);
    let region = Request::RegionInfo {
        argsz: 64,
        index: 3,
    };
    assert_eq!(decode(Command::GetRegionInfo as u16, &long), Ok(region));
    let info = Ok(Request::Info { argsz: 64 });
    assert_eq!(decode(Command::GetInfo as u16, &long), info);
}

#[test]
fn replies_need_room() {
    for (command, needed) in [
        (Command::GetInfo, 16),
        (Command::GetRegionInfo, 32),
        (Command::GetRegionIoFds, 16),
        (Command::GetIrqInfo, 16),
        (Command::PrecopyInfo, 24),
    ] {
        for argsz in [0, needed - 1] {
            let refused = refusal(command, &[argsz, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(refused, Some(Refusal::ArgSize), "{command:?} {argsz}");
        }
        assert_eq!(refusal(command, &[needed, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}

#[test]
fn memory_is_whole_pages_with_known_flags_and_no_sum_overflows() {
    let map = |flags, offset: u64, address: u64, size: u64| {
        let mut bytes = body(&[32, flags]);
        bytes.put64(offset).put64(address).put64(size);
        decode(Command::DmaMap as u16, &bytes).map(drop).err()
    };
    assert_eq!(map(3, 0, 0x1000, 0x1000), None);
    assert_eq!(map(1, 0, !0xfff, 0x1000), None);
    assert_eq!(map(0xf, 0x2000, 0, 1 << 40), None);
    for flags in [0, 4, 8, 0x10, 0x11, u32::MAX] {
        assert_eq!(map(flags, 0, 0, 0x1000), Some(Refusal::Flags), "{flags:#x}");
    }
    assert_eq!(map(3, 0, 0x1000, 0), Some(Refusal::Count));
    for (offset, address, size) in [
        (0, !0xfff, 0x2000),
        (0, 1 << 63, !0xfff),
        (!0xfff, 0, 0x1000),
        ((1 << 63) - 0x1000, 0, 0x1000),
    ] {
        let refused = map(3, offset, address, size);
        assert_eq!(refused, Some(Refusal::Overflow), "{offset:#x} {address:#x}");
    }
    for (offset, address, size) in [(1, 0, 0x1000), (0, 1, 0x1000), (0, 0, 0x1001)] {
        assert_eq!(map(3, offset, address, size), Some(Refusal::Alignment));
    }
}

#[test]
fn memory_goes_as_it_came_or_all_at_once() {
    let unmap = |flags, address: u64, size: u64| {
        let mut bytes = body(&[24, flags]);
        bytes.put64(address).put64(size);
        decode(Command::DmaUnmap as u16, &bytes).map(drop).err()
    };
    assert_eq!(unmap(0, 0x1000, 0x1000), None);
    assert_eq!(unmap(2, 0, 0), None);
    assert_eq!(unmap(0, 0x1000, 0), Some(Refusal::Count));
    assert_eq!(unmap(0, u64::MAX, 2), Some(Refusal::Overflow));
    for (flags, address, size) in [
        (1, 0x1000, 0x1000),
        (2, 0x1000, 0),
        (2, 0, 1),
        (3, 0, 0),
        (4, 0, 0),
    ] {
        assert_eq!(unmap(flags, address, size), Some(Refusal::Flags), "{flags}");
    }
}

#[test]
fn interrupts_have_one_action_and_one_kind_of_data() {
    let irqs = |flags, start, count, data: &[u8]| {
        let mut bytes = body(&[20, flags, 0, start, count]);
        bytes.put(data);
        decode(Command::SetIrqs as u16, &bytes).map(drop).err()
    };
    for data in [1, 4] {
        for action in [8, 16, 32] {
            assert_eq!(irqs(data | action, 0, 1, b""), None);
        }
    }
    for flags in [
        0,
        1,
        8,
        3 | 8,
        5 | 32,
        1 | 24,
        1 | 48,
        1 | 56,
        1 | 32 | 64,
        u32::MAX,
    ] {
        assert_eq!(irqs(flags, 0, 0, b""), Some(Refusal::Flags), "{flags:#x}");
    }
    assert_eq!(irqs(2 | 32, 0, 2, b"\x01\x00"), None);
    assert_eq!(irqs(2 | 32, 0, 2, b"\x01"), Some(Refusal::Count));
    assert_eq!(irqs(2 | 32, 0, 2, b"\x01\x00\x00"), Some(Refusal::Count));
    assert_eq!(irqs(2 | 32, 0, u32::MAX, b""), Some(Refusal::Count));
    assert_eq!(irqs(1 | 32, 2, u32::MAX - 1, b""), Some(Refusal::Overflow));
    assert_eq!(
        refusal(Command::SetIrqs, &[19, 0x21, 0, 0, 0]),
        Some(Refusal::ArgSize)
    );
}

#[test]
fn accesses_have_bounds_and_writes_their_data() {
    let read = |offset: u64, count| {
        let mut bytes = Vec::new();
        bytes.put64(offset).put32(7).put32(count);
        decode(Command::RegionRead as u16, &bytes).map(drop).err()
    };
    assert_eq!(read(0, 0), None);
    assert_eq!(read(u64::MAX - 4096, 4096), None);
    assert_eq!(read(0, 4097), Some(Refusal::TooMuch));
    assert_eq!(read(0, u32::MAX), Some(Refusal::TooMuch));
    assert_eq!(read(u64::MAX, 1), Some(Refusal::Overflow));
    let write = |count, data: &[u8]| {
        let mut bytes = body(&[0, 0, 0, count]);
        bytes.put(data);
        decode(Command::RegionWrite as u16, &bytes).map(drop).err()
    };
    assert_eq!(write(2, b"ab"), None);
    assert_eq!(write(2, b"a"), Some(Refusal::Count));
    assert_eq!(write(2, b"abc"), Some(Refusal::Count));
}

#[test]
fn several_writes_are_as_many_as_they_say() {
    let entry = |count| body(&[4, 0, 0, count, 0x0403_0201, 0x0807_0605]);
    let multi = |count: u64, entries: &[Vec<u8>]| {
        let mut bytes = Vec::new();
        bytes.put64(count).put(&entries.concat());
        bytes
    };
    let bytes = multi(2, &[entry(1), entry(8)]);
    let Ok(Request::WriteMulti(writes)) = decode(Command::WriteMulti as u16, &bytes) else {
        panic!("two writes are refused");
    };
    let found: Vec<_> = writes
        .iter()
        .map(|(to, data)| (to.offset, to.count, data))
        .collect();
    let data = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(found, [(4, 1, data), (4, 8, data)]);
    let most = vec![entry(4); MAX_WRITES];
    assert!(decode(15, &multi(200, &most)).is_ok());
    for (bytes, why) in [
        (multi(201, &vec![entry(4); 201]), Refusal::TooMuch),
        (multi(u64::MAX, &[]), Refusal::TooMuch),
        (multi(3, &[entry(1), entry(1)]), Refusal::Count),
        (multi(1, &[entry(1), entry(1)]), Refusal::Count),
        (multi(2, &[entry(1), entry(9)]), Refusal::Count),
    ] {
        assert_eq!(decode(15, &bytes), Err(why));
    }
    let mut header = Vec::new();
    Header::put_request(&mut header, 1, Command::WriteMulti, false, bytes.len());
    let header = Header::parse(header.first_chunk().expect("a header"));
    let not_agreed = Request::decode(&header, &bytes, &Limits::DEFAULT);
    assert_eq!(not_agreed, Err(Refusal::NotAgreed));
}

#[test]
fn features_are_read_or_written_or_asked_for() {
    let feature = |flags| {
        let bytes = body(&[16, flags]);
        decode(Command::Feature as u16, &bytes).map(|request| match request {
            Request::Feature(feature) => (feature.number, feature.operation),
            other => panic!("{other:?}"),
        })
    };
    let probe = |get, set| Operation::Probe { get, set };
    assert_eq!(feature((1 << 16) | 2), Ok((2, Operation::Get)));
    assert_eq!(feature((1 << 17) | 2), Ok((2, Operation::Set)));
    assert_eq!(feature((1 << 18) | 6), Ok((6, probe(false, false))));
    assert_eq!(feature((7 << 16) | 6), Ok((6, probe(true, true))));
    assert_eq!(
        feature((1 << 18) | 0xffff),
        Ok((0xffff, probe(false, false)))
    );
    for flags in [0, 2, 3 << 16, (1 << 16) | (1 << 19), (1 << 31) | (1 << 18)] {
        assert_eq!(feature(flags), Err(Refusal::Flags), "{flags:#x}");
    }
    assert_eq!(
        refusal(Command::Feature, &[7, 1 << 16]),
        Some(Refusal::ArgSize)
    );
}

#[test]
fn state_comes_in_pieces_that_fit() {
    for (argsz, size, why) in [
        (8, 0, None),
        (4104, 4096, None),
        (u32::MAX, 4096, None),
        (4103, 4096, Some(Refusal::ArgSize)),
        (7, 0, Some(Refusal::ArgSize)),
        (u32::MAX, 4097, Some(Refusal::TooMuch)),
        (0, u32::MAX, Some(Refusal::TooMuch)),
    ] {
        assert_eq!(refusal(Command::MigDataRead, &[argsz, size]), why);
    }
    let write = |size, data: &[u8]| {
        let mut bytes = body(&[8, size]);
        bytes.put(data);
        let request = decode(Command::MigDataWrite as u16, &bytes)?;
        match request {
            Request::MigDataWrite(data) => Ok(data.to_vec()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(write(0, b""), Ok(b"".to_vec()));
    assert_eq!(write(2, b"ab"), Ok(b"ab".to_vec()));
    assert_eq!(write(2, b"abc"), Ok(b"ab".to_vec()));
    assert_eq!(write(3, b"ab"), Err(Refusal::Count));
    assert_eq!(write(u32::MAX, b"ab"), Err(Refusal::TooMuch));
}
