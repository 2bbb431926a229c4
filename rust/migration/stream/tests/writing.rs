// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What is written is what the format describes.

use super::raw::{raw_section, stop_copy};
use super::*;
use std::vec;

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
