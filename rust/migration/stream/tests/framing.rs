// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Every rule of the format, one at a time.

use super::*;
use crate::crc::Crc32;
use std::string::ToString;
use std::vec;

/// A setup record put together by hand, so that it may be wrong.
#[derive(Clone)]
struct RawSetup {
    magic: [u8; 8],
    major: u16,
    minor: u16,
    len: Option<u32>,
    phase: u8,
    reserved: [u16; 2],
    model: Vec<u8>,
    count: u16,
    params: Vec<u8>,
}

impl RawSetup {
    fn new(phase: Phase) -> Self {
        Self {
            magic: MAGIC,
            major: 1,
            minor: 0,
            len: None,
            phase: phase as u8,
            reserved: [0; 2],
            model: MODEL.into(),
            count: 0,
            params: Vec::new(),
        }
    }

    fn param(mut self, kind: u8, name: &[u8], value: &[u8]) -> Self {
        self.count += 1;
        self.params.push(kind);
        self.params.push(name.len() as u8);
        self.params.extend((value.len() as u16).to_le_bytes());
        self.params.extend(name);
        self.params.extend(value);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let len = 28 + self.model.len() + self.params.len();
        let mut out = self.magic.to_vec();
        out.extend(self.major.to_le_bytes());
        out.extend(self.minor.to_le_bytes());
        out.extend(self.len.unwrap_or(len as u32).to_le_bytes());
        out.extend([self.phase, self.reserved[0] as u8]);
        out.extend((self.model.len() as u16).to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(self.reserved[1].to_le_bytes());
        out.extend(&self.model);
        out.extend(&self.params);
        out.extend(Crc32::of(&out).to_le_bytes());
        out
    }

    fn error(&self) -> StreamError {
        error(&self.bytes())
    }
}

/// A section put together by hand.
fn raw_section(id: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = id.to_le_bytes().to_vec();
    out.extend(flags.to_le_bytes());
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(payload);
    out.extend(Crc32::of(&out).to_le_bytes());
    out
}

fn error(bytes: &[u8]) -> StreamError {
    read(bytes).0.expect_err("the stream was accepted")
}

fn stop_copy() -> RawSetup {
    RawSetup::new(Phase::StopCopy)
}

fn with_end(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(raw_section(0, 1, b""));
    bytes
}

#[test]
fn a_stream_with_everything_in_it_is_read() {
    assert_eq!(read(&sample()), (Ok(()), sample_events()));
}

#[test]
fn the_bytes_are_those_the_format_describes() {
    let by_hand = stop_copy()
        .param(2, b"ports", &4u64.to_le_bytes())
        .param(1, b"msi", &[1])
        .param(3, b"label", "größe 1".as_bytes());
    let mut expected = by_hand.bytes();
    expected.extend(raw_section(0x101, 1, b"first"));
    expected.extend(raw_section(0x102, 0, b""));
    expected.extend(raw_section(0, 1, b""));

    let mut written = Bytes::default();
    setup(&mut written, Phase::StopCopy, MODEL, &PARAMS);
    write_section(&mut written, 0x101, true, b"first").unwrap();
    write_section(&mut written, 0x102, false, b"").unwrap();
    write_end(&mut written).unwrap();
    assert_eq!(written.0, expected);
}

#[test]
fn sizes_are_known_before_writing() {
    for count in 0..=PARAMS.len() {
        let params = &PARAMS[..count];
        let mut out = Bytes::default();
        setup(&mut out, Phase::PreCopy, MODEL, params);
        assert_eq!(setup_len(MODEL, params.iter().copied()), out.0.len());
    }
    for len in [0, 1, 7, 8, 1000, MAX_SECTION_LEN] {
        let mut counter = Counter::default();
        write_section(&mut counter, 0x100, true, &vec![0; len]).unwrap();
        assert_eq!(counter.bytes, section_len(len));
    }
    let mut counter = Counter::default();
    write_end(&mut counter).unwrap();
    assert_eq!(counter.bytes, END_LEN);
}

#[test]
fn a_device_without_parameters_works() {
    let (result, events) = read(&with_end(stop_copy().bytes()));
    assert_eq!(result, Ok(()));
    let expected = Event::Setup(Phase::StopCopy, MODEL.to_string(), vec![]);
    assert_eq!(events, [expected, Event::End]);
}

#[test]
fn pre_copy_alone_is_not_complete() {
    let mut bytes = RawSetup::new(Phase::PreCopy).bytes();
    assert_eq!(error(&bytes), StreamError::Truncated);
    bytes.extend(raw_section(0x100, 1, b"x"));
    assert_eq!(error(&bytes), StreamError::Truncated);
    assert_eq!(error(&with_end(bytes)), StreamError::EndInPreCopy);
}

#[test]
fn nothing_at_all_is_not_complete() {
    assert_eq!(error(b""), StreamError::Truncated);
}

#[test]
fn sections_before_a_setup_record_are_refused() {
    assert_eq!(
        error(&raw_section(0x100, 0, b"payload")),
        StreamError::BadMagic
    );
    assert_eq!(error(&raw_section(0, 1, b"")), StreamError::BadMagic);
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
fn a_wrong_checksum_is_refused() {
    let mut bytes = stop_copy().bytes();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(error(&bytes), StreamError::SetupChecksum);

    let mut section = raw_section(0x100, 0, b"payload");
    *section.last_mut().unwrap() ^= 1;
    let bytes = [stop_copy().bytes(), section].concat();
    assert_eq!(error(&bytes), StreamError::SectionChecksum(0x100));
}

#[test]
fn skipped_sections_have_their_checksum_tested() {
    let mut section = raw_section(0x300, 0, b"payload");
    section[9] ^= 1;
    let bytes = [stop_copy().bytes(), section].concat();
    assert_eq!(error(&bytes), StreamError::SectionChecksum(0x300));
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
fn refused_sections_and_a_refused_end_are_named() {
    let mut recorder = Recorder::new();
    recorder.refuse = Some(Event::Section(Phase::PreCopy, 0x101, true, b"first".into()));
    let (result, _) = read_with(&sample(), recorder);
    let error = result.unwrap_err();
    assert_eq!(
        error,
        StreamError::SectionRefused {
            id: 0x101,
            refusal: REFUSAL
        }
    );
    assert_eq!(error.to_string(), "section 0x0101: not today");
    assert_eq!(error.class(), ErrorClass::Invalid);

    let mut recorder = Recorder::new();
    recorder.refuse = Some(Event::End);
    let (result, _) = read_with(&sample(), recorder);
    assert_eq!(result, Err(StreamError::EndRefused(REFUSAL)));
}

#[test]
fn a_section_can_be_refused_before_its_payload_comes() {
    struct Strict(Recorder);

    impl Handler for Strict {
        fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
            self.0.setup(record)
        }

        fn section_header(&mut self, header: &SectionHeader) -> Result<Known, Refusal> {
            match header.len {
                4 => Ok(Known::Yes),
                _ => Err(Refusal::unsupported("another length")),
            }
        }

        fn section(&mut self, header: &SectionHeader, payload: &[u8]) -> Result<(), Refusal> {
            self.0.section(header, payload)
        }

        fn end(&mut self) -> Result<(), Refusal> {
            self.0.end()
        }
    }

    let mut handler = Strict(Recorder::new());
    let mut reader = Reader::new();
    let mut scratch = [0; 256];
    let good = [stop_copy().bytes(), raw_section(0x100, 1, b"four")].concat();
    reader.push(&good, &mut scratch, &mut handler).unwrap();
    let bad = raw_section(0x101, 1, b"five5");
    let error = reader.push(&bad[..8], &mut scratch, &mut handler);
    let refusal = Refusal::unsupported("another length");
    let expected = StreamError::SectionRefused { id: 0x101, refusal };
    assert_eq!(error, Err(expected));
    assert_eq!(expected.class(), ErrorClass::Unsupported);
    assert_eq!(handler.0.events.len(), 2);
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

#[test]
fn unknown_sections_are_skipped_if_optional_and_refused_if_mandatory() {
    for id in [0x0001, 0x00ff, 0x0200, 0xfeff, 0xff00, 0xffff] {
        let optional = [stop_copy().bytes(), raw_section(id, 0, b"new")].concat();
        let (result, events) = read(&with_end(optional));
        assert_eq!(result, Ok(()));
        assert_eq!(events.len(), 2);

        let mandatory = [stop_copy().bytes(), raw_section(id, 1, b"new")].concat();
        assert_eq!(error(&mandatory), StreamError::UnknownMandatory(id));
        assert_eq!(error(&mandatory).class(), ErrorClass::Unsupported);
    }
}

#[test]
fn undefined_flags_are_refused() {
    for bit in 1..16 {
        let flags = (1 << bit) | 1;
        let bytes = [stop_copy().bytes(), raw_section(0x100, flags, b"")].concat();
        assert_eq!(
            error(&bytes),
            StreamError::SectionFlags { id: 0x100, flags }
        );
    }
}

#[test]
fn sections_too_long_are_refused_at_their_header() {
    // Known, unknown and never to be known, and all of them before a byte of payload.
    for id in [0x100u16, 0x300, 0xfff0] {
        let mut bytes = stop_copy().bytes();
        let len = MAX_SECTION_LEN as u32 + 1;
        bytes.extend(id.to_le_bytes());
        bytes.extend(0u16.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        let expected = StreamError::SectionTooLong {
            id,
            len,
            max: MAX_SECTION_LEN,
        };
        assert_eq!(error(&bytes), expected);
        assert_eq!(expected.class(), ErrorClass::TooBig);
    }
    let longest = vec![7; MAX_SECTION_LEN];
    let bytes = [stop_copy().bytes(), raw_section(0x100, 1, &longest)].concat();
    assert_eq!(read(&with_end(bytes)).0, Ok(()));
}

#[test]
fn records_longer_than_the_buffer_are_refused_at_their_header() {
    let setup = stop_copy().bytes();
    let mut small = vec![0; setup.len()];
    let mut reader = Reader::new();
    let short = setup.len() - 1;
    assert_eq!(
        reader.push(&setup[..24], &mut small[..short], &mut Recorder::new()),
        Err(StreamError::SetupTooLong {
            len: setup.len() as u32,
            max: short
        })
    );

    let mut reader = Reader::new();
    let mut recorder = Recorder::new();
    reader.push(&setup, &mut small, &mut recorder).unwrap();
    let unknown = raw_section(0x300, 0, &[0; 100]);
    reader.push(&unknown, &mut small, &mut recorder).unwrap();
    let known = raw_section(0x100, 0, &[0; 100]);
    assert_eq!(
        reader.push(&known[..8], &mut small, &mut recorder),
        Err(StreamError::SectionTooLong {
            id: 0x100,
            len: 100,
            max: small.len()
        })
    );
}

#[test]
fn a_buffer_that_shrinks_is_an_error_and_no_panic() {
    let stream = sample();
    for first in 1..stream.len() {
        let mut reader = Reader::new();
        let mut recorder = Recorder::new();
        let mut scratch = vec![0; 2000];
        let (before, after) = stream.split_at(first);
        reader.push(before, &mut scratch, &mut recorder).unwrap();
        let result = reader.push(after, &mut [], &mut recorder);
        if let Err(error) = result {
            assert_eq!(error.class(), ErrorClass::TooBig, "{error}");
        } else {
            // Only the end section was left, which needs no buffer.
            assert!(stream.len() - first <= END_LEN);
        }
    }
}

#[test]
fn a_malformed_end_is_refused() {
    for end in [
        raw_section(0, 0, b""),
        raw_section(0, 1, b"x"),
        raw_section(0, 0, b"x"),
    ] {
        let bytes = [stop_copy().bytes(), end].concat();
        assert_eq!(error(&bytes), StreamError::BadEnd);
    }
}

#[test]
fn bytes_after_the_end_are_refused_in_the_same_piece_and_in_the_next() {
    let mut bytes = sample();
    bytes.push(0);
    assert_eq!(error(&bytes), StreamError::AfterEnd);

    let mut reader = Reader::new();
    let mut recorder = Recorder::new();
    let mut scratch = vec![0; 2000];
    reader.push(&sample(), &mut scratch, &mut recorder).unwrap();
    assert!(reader.is_complete());
    reader.push(b"", &mut scratch, &mut recorder).unwrap();
    assert!(reader.is_complete());
    assert_eq!(
        reader.push(b"x", &mut scratch, &mut recorder),
        Err(StreamError::AfterEnd)
    );
    assert!(!reader.is_complete());
    assert_eq!(reader.finish(), Err(StreamError::AfterEnd));
}

#[test]
fn an_error_poisons_the_reader() {
    let mut reader = Reader::new();
    let mut recorder = Recorder::new();
    let mut scratch = vec![0; 2000];
    let first = reader.push(b"not a stream", &mut scratch, &mut recorder);
    assert_eq!(first, Err(StreamError::BadMagic));
    for piece in [&b""[..], b"x", &sample()] {
        let again = reader.push(piece, &mut scratch, &mut recorder);
        assert_eq!(again, Err(StreamError::Poisoned));
        assert_eq!(StreamError::Poisoned.class(), ErrorClass::Poisoned);
    }
    assert_eq!(reader.error(), Some(StreamError::BadMagic));
    assert_eq!(reader.finish(), Err(StreamError::BadMagic));
    assert_eq!(recorder.events, []);
}

#[test]
fn the_reader_tells_phase_and_bytes() {
    let mut reader = Reader::new();
    let mut recorder = Recorder::new();
    let mut scratch = vec![0; 2000];
    let setups = [
        RawSetup::new(Phase::PreCopy).bytes(),
        RawSetup::new(Phase::StopCopy).bytes(),
    ];
    assert_eq!(reader.phase(), None);
    let mut bytes = 0;
    for (setup, phase) in setups.iter().zip([Phase::PreCopy, Phase::StopCopy]) {
        reader.push(setup, &mut scratch, &mut recorder).unwrap();
        bytes += setup.len() as u64;
        assert_eq!(reader.phase(), Some(phase));
        assert_eq!(reader.bytes(), bytes);
    }
}

#[test]
fn the_reader_is_small() {
    assert!(core::mem::size_of::<Reader>() <= 160);
}

mod writing {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_not_written() {
        let refuse = |model: &str, params: &[Param<'_>]| {
            let mut out = Bytes::default();
            let result = write_setup(&mut out, Phase::StopCopy, model, params.iter().copied());
            assert!(matches!(result, Err(WriteError::Record(_))), "{model:?}");
            assert!(out.0.is_empty());
        };
        let on = |name| Param {
            name,
            value: Value::Bool(true),
        };
        refuse("", &[]);
        refuse("a b", &[]);
        refuse(&"m".repeat(129), &[]);
        refuse(MODEL, &[on("a=b")]);
        refuse(MODEL, &[on("")]);
        refuse(MODEL, &[on("n"); 65]);
        let value = Value::Str("two\nlines");
        refuse(MODEL, &[Param { name: "n", value }]);
        let name = "n".repeat(64);
        let value = "v".repeat(64);
        let big = Param {
            name: &name,
            value: Value::Str(&value),
        };
        refuse(MODEL, &[big; 32]);

        let mut out = Bytes::default();
        for id in [0, 1, 0xff, 0xff00, 0xff89] {
            let result = write_section(&mut out, id, false, b"");
            assert!(matches!(result, Err(WriteError::Record(_))));
        }
        let result = write_section(&mut out, 0x100, false, &vec![0; MAX_SECTION_LEN + 1]);
        assert!(matches!(result, Err(WriteError::Record(_))));
        assert!(out.0.is_empty());
    }

    #[test]
    fn a_payload_may_be_written_in_pieces() {
        let mut whole = Bytes::default();
        write_section(&mut whole, 0x100, true, b"payload").unwrap();

        let mut pieces = Bytes::default();
        let mut section = SectionWriter::begin(&mut pieces, 0x100, true, 7).unwrap();
        for piece in [&b"pay"[..], b"", b"load"] {
            section.put(piece).unwrap();
        }
        section.finish().unwrap();
        assert_eq!(pieces.0, whole.0);
    }

    #[test]
    fn a_payload_of_another_length_is_refused() {
        let mut out = Bytes::default();
        let mut section = SectionWriter::begin(&mut out, 0x100, true, 4).unwrap();
        assert_eq!(section.put(b"12345"), Err(WriteError::PayloadLength));
        section.put(b"123").unwrap();
        assert_eq!(section.finish(), Err(WriteError::PayloadLength));
    }

    #[test]
    fn a_full_slice_fails_and_keeps_what_it_has() {
        let mut buffer = [0; 40];
        let mut sink = SliceSink::new(&mut buffer);
        write_end(&mut sink).unwrap();
        let result = write_section(&mut sink, 0x100, true, &[0; 20]);
        assert!(matches!(result, Err(WriteError::Sink(_))));
        assert_eq!(&sink.written()[..END_LEN], raw_section(0, 1, b""));
    }
}
