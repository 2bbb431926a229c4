// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The rules for setup records, one at a time.

use super::raw::{error, stop_copy, with_end, RawSetup};
use super::*;
use crate::crc::Crc32;
use std::vec;

#[test]
fn a_device_without_parameters_works() {
    let (result, events) = read(&with_end(stop_copy().bytes()));
    assert_eq!(result, Ok(()));
    let expected = Event::Setup(Phase::StopCopy, MODEL.to_string(), vec![]);
    assert_eq!(events, [expected, Event::End]);
}

#[test]
fn another_magic_is_refused_even_where_a_section_could_be() {
    let mut setup = RawSetup::new(Phase::PreCopy);
    let good = setup.bytes();
    setup.magic[7] = b'\r';
    assert_eq!(setup.error(), StreamError::BadMagic);
    assert_eq!(
        error(&[good, setup.bytes()].concat()),
        StreamError::BadMagic
    );
}

#[test]
fn another_major_version_is_refused_and_a_higher_minor_accepted() {
    let mut setup = stop_copy();
    for major in [0, 2, u16::MAX] {
        setup.major = major;
        let version = FormatVersion { major, minor: 0 };
        assert_eq!(setup.error(), StreamError::UnsupportedFormat(version));
        assert_eq!(setup.error().class(), ErrorClass::Unsupported);
    }
    setup.major = 1;
    for minor in [0, 1, u16::MAX] {
        setup.minor = minor;
        assert_eq!(read(&with_end(setup.bytes())).0, Ok(()));
    }
}

#[test]
fn what_a_higher_minor_version_adds_is_ignored_and_refused_in_this_one() {
    let mut added = stop_copy().param(1, b"msi", &[1]);
    added.params.extend(b"something new");
    assert_eq!(added.error(), StreamError::SetupTrailing);
    added.minor = 1;
    assert_eq!(read(&with_end(added.bytes())).0, Ok(()));

    for reserved in [[1, 0], [0, 1], [0, 0x100]] {
        let mut used = stop_copy();
        used.reserved = reserved;
        assert_eq!(used.error(), StreamError::ReservedField);
        used.minor = 1;
        assert_eq!(read(&with_end(used.bytes())).0, Ok(()));
    }
}

#[test]
fn a_length_no_record_has_is_refused_at_the_header() {
    for (len, expected) in [
        (0, StreamError::SetupTooShort { len: 0 }),
        (27, StreamError::SetupTooShort { len: 27 }),
        (
            4097,
            StreamError::SetupTooLong {
                len: 4097,
                max: 4096,
            },
        ),
        (
            u32::MAX,
            StreamError::SetupTooLong {
                len: u32::MAX,
                max: 4096,
            },
        ),
    ] {
        let mut setup = stop_copy();
        setup.len = Some(len);
        assert_eq!(error(&setup.bytes()[..24]), expected);
    }
    let mut longest = stop_copy();
    longest.minor = 1;
    longest.params = vec![0; MAX_SETUP_LEN - longest.bytes().len()];
    assert_eq!(longest.bytes().len(), MAX_SETUP_LEN);
    assert_eq!(read(&with_end(longest.bytes())).0, Ok(()));
}

#[test]
fn a_phase_that_is_none_is_refused() {
    for phase in [0, 3, 0xff] {
        let mut setup = stop_copy();
        setup.phase = phase;
        assert_eq!(setup.error(), StreamError::BadPhase(phase));
    }
}

#[test]
fn malformed_models_are_refused() {
    for model in [&b""[..], b"a//b", b"a b", b"\xff", &[b'm'; 129]] {
        let mut setup = stop_copy();
        setup.model = model.to_vec();
        assert!(matches!(setup.error(), StreamError::BadModel(_)));
    }
}

#[test]
fn a_model_longer_than_its_record_is_refused() {
    let mut bytes = stop_copy().bytes();
    let covered = bytes.len() - 4;
    bytes[18] += 1;
    let crc = Crc32::of(&bytes[..covered]).to_le_bytes();
    bytes[covered..].copy_from_slice(&crc);
    assert!(matches!(error(&bytes), StreamError::BadModel(_)));
}

#[test]
fn malformed_parameters_are_refused() {
    let int = 4u64.to_le_bytes();
    let long = [b'v'; 65];
    let cases: [(u8, &[u8], &[u8]); 15] = [
        (0, b"name", &[1]),
        (4, b"name", &[1]),
        (1, b"name", &[]),
        (1, b"name", &[2]),
        (1, b"name", &[1, 0]),
        (2, b"name", &int[..7]),
        (2, b"name", &[]),
        (3, b"name", b"two\nlines"),
        (3, b"name", b"\xc3\x28"),
        (3, b"name", &long),
        (2, b"", &int),
        (2, b"a=b", &int),
        (2, b"a/b", &int),
        (2, b"a b", &int),
        (2, &long, &int),
    ];
    for (kind, name, value) in cases {
        let setup = stop_copy().param(1, b"good", &[0]).param(kind, name, value);
        assert!(
            matches!(setup.error(), StreamError::BadParam { index: 1, .. }),
            "{kind} {name:?} {value:?}: {}",
            setup.error()
        );
    }
}

#[test]
fn parameters_longer_than_their_record_are_refused() {
    let mut setup = stop_copy().param(1, b"msi", &[1]);
    setup.count = 2;
    assert!(matches!(
        setup.error(),
        StreamError::BadParam { index: 1, .. }
    ));
    setup.params.truncate(5);
    setup.count = 1;
    assert!(matches!(
        setup.error(),
        StreamError::BadParam { index: 0, .. }
    ));
}

#[test]
fn a_parameter_given_twice_is_refused() {
    let setup = stop_copy()
        .param(1, b"msi", &[1])
        .param(2, b"ports", &4u64.to_le_bytes())
        .param(1, b"msi", &[1]);
    assert_eq!(setup.error(), StreamError::DuplicateParam { index: 2 });
}

#[test]
fn the_number_of_parameters_is_bounded() {
    let list = |count: usize| {
        (0..count).fold(stop_copy(), |setup, i| {
            setup.param(1, i.to_string().as_bytes(), &[1])
        })
    };
    assert_eq!(read(&with_end(list(64).bytes())).0, Ok(()));
    assert_eq!(list(65).error(), StreamError::TooManyParams(65));
}

#[test]
fn a_refused_setup_record_ends_the_stream() {
    for phase in [Phase::PreCopy, Phase::StopCopy] {
        let events = sample_events();
        let refused = events
            .iter()
            .position(|event| matches!(event, Event::Setup(p, ..) if *p == phase))
            .unwrap();
        let mut recorder = Recorder::new();
        recorder.refuse = Some(events[refused].clone());
        let (result, seen) = read_with(&sample(), recorder);
        assert_eq!(result, Err(StreamError::SetupRefused(REFUSAL)));
        assert_eq!(seen, events[..refused]);
    }
}

#[test]
fn setup_records_come_in_order_and_once() {
    use Phase::{PreCopy, StopCopy};
    for (first, second) in [
        (PreCopy, PreCopy),
        (StopCopy, StopCopy),
        (StopCopy, PreCopy),
    ] {
        let bytes = [RawSetup::new(first).bytes(), RawSetup::new(second).bytes()].concat();
        assert_eq!(error(&bytes), StreamError::UnexpectedSetup(second));
    }
}

#[test]
fn setup_records_that_disagree_are_refused() {
    let first = RawSetup::new(Phase::PreCopy).param(1, b"msi", &[1]);
    let mut other_model = stop_copy().param(1, b"msi", &[1]);
    other_model.model.push(b'x');
    let mut other_minor = stop_copy().param(1, b"msi", &[1]);
    other_minor.minor = 1;
    let others = [
        other_model,
        other_minor,
        stop_copy().param(1, b"msi", &[0]),
        stop_copy().param(1, b"msy", &[1]),
        stop_copy(),
    ];
    for second in others {
        let bytes = [first.bytes(), second.bytes()].concat();
        assert_eq!(error(&bytes), StreamError::SetupChanged);
    }
}
