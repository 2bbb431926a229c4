// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Shared by the tests of the stream: a sink and a handler that keep what they get.

use super::*;
use crate::value::{Param, Value};
use std::string::{String, ToString};
use std::vec::Vec;

mod any_stream;
mod raw;
mod sections;
mod setup_record;
mod writing;

/// A sink that cannot fail.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    type Error = core::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// What a handler was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Setup(Phase, String, Vec<String>),
    Section(Phase, u16, bool, Vec<u8>),
    End,
}

/// Knows the sections of these ids, accepts everything but what it is told to refuse.
struct Recorder {
    known: RangeInclusive<u16>,
    refuse: Option<Event>,
    events: Vec<Event>,
}

const REFUSAL: Refusal = Refusal::invalid("not today");

impl Recorder {
    fn new() -> Self {
        Self {
            known: 0x100..=0x1ff,
            refuse: None,
            events: Vec::new(),
        }
    }

    fn note(&mut self, event: Event) -> Result<(), Refusal> {
        if self.refuse.as_ref() == Some(&event) {
            return Err(REFUSAL);
        }
        self.events.push(event);
        Ok(())
    }
}

impl Handler for Recorder {
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
        self.note(Event::Setup(
            record.phase,
            record.model.to_string(),
            record.params().map(|param| param.to_string()).collect(),
        ))
    }

    fn section_header(&mut self, header: &SectionHeader) -> Result<Known, Refusal> {
        assert!(DEVICE_SECTIONS.contains(&header.id));
        match self.known.contains(&header.id) {
            true => Ok(Known::Yes),
            false => Ok(Known::No),
        }
    }

    fn section(&mut self, header: &SectionHeader, payload: &[u8]) -> Result<(), Refusal> {
        assert_eq!(header.len, payload.len());
        self.note(Event::Section(
            header.phase,
            header.id,
            header.mandatory,
            payload.to_vec(),
        ))
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.note(Event::End)
    }
}

/// Reads a stream that comes in one piece.
fn read(bytes: &[u8]) -> (Result<(), StreamError>, Vec<Event>) {
    read_with(bytes, Recorder::new())
}

fn read_with(bytes: &[u8], mut recorder: Recorder) -> (Result<(), StreamError>, Vec<Event>) {
    let mut scratch = std::vec![0; MAX_SECTION_LEN];
    let mut reader = Reader::new();
    let result = reader
        .push(bytes, &mut scratch, &mut recorder)
        .and_then(|()| reader.finish());
    assert_eq!(result.is_ok(), reader.is_complete());
    (result, recorder.events)
}

fn setup(out: &mut Bytes, phase: Phase, model: &str, params: &[Param<'_>]) {
    write_setup(out, phase, model, params.iter().copied()).unwrap();
}

const MODEL: &str = "example.org/pci/card";

const PARAMS: [Param<'static>; 3] = [
    Param {
        name: "ports",
        value: Value::Int(4),
    },
    Param {
        name: "msi",
        value: Value::Bool(true),
    },
    Param {
        name: "label",
        value: Value::Str("größe 1"),
    },
];

/// A stream with everything in it.
fn sample() -> Vec<u8> {
    let mut out = Bytes::default();
    setup(&mut out, Phase::PreCopy, MODEL, &PARAMS);
    write_section(&mut out, 0x101, true, b"first").unwrap();
    write_section(&mut out, 0x300, false, b"a later version wrote this").unwrap();
    setup(&mut out, Phase::StopCopy, MODEL, &PARAMS);
    write_section(&mut out, 0x101, true, b"").unwrap();
    write_section(&mut out, 0x102, false, &[0xa5; 1000]).unwrap();
    write_end(&mut out).unwrap();
    out.0
}

fn sample_events() -> Vec<Event> {
    let setup = |phase| {
        let params = ["ports=4", "msi=on", "label=größe 1"];
        let params = params.map(String::from).to_vec();
        Event::Setup(phase, MODEL.to_string(), params)
    };
    std::vec![
        setup(Phase::PreCopy),
        Event::Section(Phase::PreCopy, 0x101, true, b"first".to_vec()),
        setup(Phase::StopCopy),
        Event::Section(Phase::StopCopy, 0x101, true, Vec::new()),
        Event::Section(Phase::StopCopy, 0x102, false, [0xa5; 1000].to_vec()),
        Event::End,
    ]
}
