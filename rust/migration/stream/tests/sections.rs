// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The rules for sections and for the stream as a whole, one at a time.

use super::raw::{error, raw_section, stop_copy, with_end, RawSetup};
use super::*;
use std::vec;

#[test]
fn a_stream_with_everything_in_it_is_read() {
    assert_eq!(read(&sample()), (Ok(()), sample_events()));
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
