// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The forge and the driver's own writer agree, though neither knows the other.

use std::convert::Infallible;

use migration::stream::{self, Phase, Sink};
use migration::value::{Param as Written, Value};

use super::*;

/// Collects what the driver's writer gives.
struct Collected(Vec<u8>);

impl Sink for Collected {
    type Error = Infallible;

    fn put(&mut self, bytes: &[u8]) -> std::result::Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// A stream with both phases, every kind of parameter and two sections.
fn written() -> Vec<u8> {
    let params = [
        Written {
            name: "num-ports",
            value: Value::Int(2),
        },
        Written {
            name: "msi",
            value: Value::Bool(true),
        },
        Written {
            name: "text",
            value: Value::Str("a b"),
        },
    ];
    let mut out = Collected(Vec::new());
    for phase in [Phase::PreCopy, Phase::StopCopy] {
        stream::write_setup(
            &mut out,
            phase,
            "some.example/thing",
            params.iter().copied(),
        )
        .expect("a setup record");
    }
    stream::write_section(&mut out, 0x100, true, b"payload").expect("a section");
    stream::write_section(&mut out, 0x101, false, b"").expect("an empty section");
    stream::write_end(&mut out).expect("the end");
    out.0
}

#[test]
fn a_stream_of_the_drivers_writer_is_taken_apart_and_put_together_again() {
    let bytes = written();
    let stream = Stream::parse(&bytes).expect("the stream is good");
    assert_eq!(stream.encode(), bytes);
    assert_eq!(stream.records.len(), 5);
    assert_eq!(stream.boundaries().last(), Some(&bytes.len()));
    let Record::Setup(setup) = &stream.records[0] else {
        panic!("no setup record")
    };
    assert_eq!((setup.phase, setup.major, setup.minor), (PRE_COPY, 1, 0));
    assert_eq!(setup.model, b"some.example/thing");
    assert_eq!(setup.params[0], Param::int("num-ports", 2));
    assert_eq!(
        setup.params[1],
        Param {
            kind: 1,
            name: b"msi".to_vec(),
            value: vec![1]
        }
    );
    assert_eq!(setup.params[2], Param::text("text", "a b"));
    let sections: Vec<_> = stream
        .sections()
        .map(|section| (section.id, section.flags, section.payload.len()))
        .collect();
    assert_eq!(sections, [(0x100, MANDATORY, 7), (0x101, 0, 0)]);
}

#[test]
fn every_change_shows_in_the_bytes() {
    let stream = Stream::parse(&written()).expect("the stream is good");
    let good = stream.encode();
    for changed in [
        stream.with_setup(|setup| setup.minor = 1),
        stream.with_setup(|setup| setup.damage = 1),
        stream.with_setup(|setup| setup.length = Some(1)),
        stream.with_setup(|setup| setup.count = Some(9)),
        stream.with_section(0, |section| section.payload[0] ^= 1),
        stream.with_section(1, |section| section.length = Some(1)),
        stream.with_record(2, Record::Raw(vec![0])),
        stream.without_record(4),
    ] {
        assert_ne!(changed.encode(), good);
    }
}

#[test]
fn a_stream_cut_anywhere_but_between_records_is_not_taken_apart() {
    let bytes = written();
    let boundaries = Stream::parse(&bytes)
        .expect("the stream is good")
        .boundaries();
    for length in 0..bytes.len() {
        assert_eq!(
            Stream::parse(&bytes[..length]).is_ok(),
            boundaries.contains(&length),
            "{length} bytes"
        );
    }
}
