// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What holds for every stream, and for everything that is none.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum OwnedValue {
    Bool(bool),
    Int(u64),
    Str(String),
}

#[derive(Clone, Debug)]
struct Content {
    model: String,
    params: Vec<(String, OwnedValue)>,
    /// Absent if the stream goes straight into stop-and-copy.
    pre_copy: Option<Vec<(u16, bool, Vec<u8>)>>,
    stop_copy: Vec<(u16, bool, Vec<u8>)>,
}

impl Content {
    fn params(&self) -> Vec<Param<'_>> {
        self.params
            .iter()
            .map(|(name, value)| Param {
                name,
                value: match value {
                    OwnedValue::Bool(value) => Value::Bool(*value),
                    OwnedValue::Int(value) => Value::Int(*value),
                    OwnedValue::Str(text) => Value::Str(text),
                },
            })
            .collect()
    }

    /// The stream, and what its handler is told.
    fn write(&self) -> (Vec<u8>, Vec<Event>) {
        let mut out = Bytes::default();
        let mut events = Vec::new();
        let phases = [
            (Phase::PreCopy, self.pre_copy.as_ref()),
            (Phase::StopCopy, Some(&self.stop_copy)),
        ];
        for (phase, sections) in phases {
            let Some(sections) = sections else { continue };
            let params = self.params();
            setup(&mut out, phase, &self.model, &params);
            let list = params.iter().map(Param::to_string).collect();
            events.push(Event::Setup(phase, self.model.clone(), list));
            for (id, mandatory, payload) in sections {
                let is_known = Recorder::new().known.contains(id);
                // Nothing unknown may be mandatory in a stream that is accepted.
                let mandatory = *mandatory && is_known;
                write_section(&mut out, *id, mandatory, payload).unwrap();
                if is_known {
                    events.push(Event::Section(phase, *id, mandatory, payload.clone()));
                }
            }
        }
        write_end(&mut out).unwrap();
        events.push(Event::End);
        (out.0, events)
    }
}

fn any_sections() -> impl Strategy<Value = Vec<(u16, bool, Vec<u8>)>> {
    let id = prop_oneof![0x100..=0x1ffu16, 0x200..=0xfeffu16];
    vec((id, any::<bool>(), vec(any::<u8>(), 0..300)), 0..6)
}

fn any_content() -> impl Strategy<Value = Content> {
    let value = prop_oneof![
        any::<bool>().prop_map(OwnedValue::Bool),
        any::<u64>().prop_map(OwnedValue::Int),
        "[ -~äß日]{0,20}".prop_map(OwnedValue::Str),
    ];
    let params = proptest::collection::btree_map("[a-z0-9._ä-]{1,20}", value, 0..8);
    let pre_copy = proptest::option::of(any_sections());
    (
        "[a-z.]{1,20}(/[a-z]{1,5}){0,3}",
        params,
        pre_copy,
        any_sections(),
    )
        .prop_map(|(model, params, pre_copy, stop_copy)| Content {
            model,
            params: params.into_iter().collect(),
            pre_copy,
            stop_copy,
        })
}

/// Reads the pieces that the cuts make of a stream.
fn read_cut(bytes: &[u8], cuts: &[usize]) -> (Result<(), StreamError>, Vec<Event>) {
    let mut recorder = Recorder::new();
    let mut scratch = std::vec![0; 8192];
    let mut reader = Reader::new();
    let mut from = 0;
    for to in cuts.iter().copied().chain([bytes.len()]) {
        if let Err(error) = reader.push(&bytes[from..to], &mut scratch, &mut recorder) {
            return (Err(error), recorder.events);
        }
        assert_eq!(reader.bytes(), to as u64);
        from = to;
    }
    (reader.finish(), recorder.events)
}

proptest! {
    #[test]
    fn any_split_reads_the_same(
        content in any_content(),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (bytes, events) = content.write();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(read_cut(&bytes, &cuts), (Ok(()), events));
    }

    #[test]
    fn one_byte_at_a_time_reads_the_same(content in any_content()) {
        let (bytes, events) = content.write();
        let cuts: Vec<_> = (1..bytes.len()).collect();
        prop_assert_eq!(read_cut(&bytes, &cuts), (Ok(()), events));
    }

    #[test]
    fn a_truncated_stream_is_never_complete(
        content in any_content(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (bytes, events) = content.write();
        let (result, seen) = read(&bytes[..cut.index(bytes.len())]);
        prop_assert_eq!(result, Err(StreamError::Truncated));
        prop_assert!(events.starts_with(&seen));
        prop_assert!(!seen.contains(&Event::End));
    }

    #[test]
    fn a_flipped_bit_is_never_complete(
        content in any_content(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let (mut bytes, events) = content.write();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let (result, seen) = read(&bytes);
        prop_assert!(result.is_err());
        // And what came before the flip is all that was believed.
        prop_assert!(events.starts_with(&seen));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).0.is_err());
    }

    /// Gets past the magic, the version and the checksums, to the code behind them.
    #[test]
    fn arbitrary_records_with_good_checksums_never_panic(
        body in vec(any::<u8>(), 0..200),
        model_len in 0..64u16,
        count in 0..8u16,
        sections in vec((any::<u16>(), any::<u16>(), vec(any::<u8>(), 0..50)), 0..5),
    ) {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0, 0, 0]);
        bytes.extend((28 + body.len() as u32).to_le_bytes());
        bytes.extend([2, 0]);
        bytes.extend(model_len.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(body);
        bytes.extend(crate::crc::Crc32::of(&bytes).to_le_bytes());
        for (id, flags, payload) in sections {
            let mut section = id.to_le_bytes().to_vec();
            section.extend(flags.to_le_bytes());
            section.extend((payload.len() as u32).to_le_bytes());
            section.extend(payload);
            section.extend(crate::crc::Crc32::of(&section).to_le_bytes());
            bytes.extend(section);
        }
        let whole = read(&bytes);
        let cuts: Vec<_> = (1..bytes.len()).collect();
        prop_assert_eq!(read_cut(&bytes, &cuts), whole);
    }
}

#[test]
fn every_bit_of_the_sample_matters() {
    let good = sample();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes).0.is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn every_truncation_of_the_sample_is_incomplete() {
    let good = sample();
    for len in 0..good.len() {
        assert_eq!(read(&good[..len]).0, Err(StreamError::Truncated));
    }
}
