// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Fuzz targets for what comes from outside: migration information, parameter lists, saved states. Each runs a bounded number
//! of executions on inputs that are mutations of good ones.
//!
//! `FUZZ_EXECUTIONS` sets how many (default 20 000 a target), `FUZZ_SEED` where the random numbers start; a failure names both
//! the seed and the execution.

use migration::info::MigrationInfo;
use migration::stream::{
    write_end, write_section, write_setup, Handler, Known, Phase, Reader, Refusal, SectionHeader,
    SetupRecord, Sink,
};
use migration::value::{Param, Value};
use vfio_migrate::inspect::inspect;
use vfio_migrate::json::{read_info, read_source, Bump};

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs `target` on mutations of the seeds.
fn fuzz(seeds: &[Vec<u8>], words: &[&[u8]], mut target: impl FnMut(&[u8])) {
    let seed = number("FUZZ_SEED", 0x2545_f491_4f6c_dd1d).max(1);
    let mut random = Random(seed);
    for execution in 0..number("FUZZ_EXECUTIONS", 20_000) {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, seeds, words, &mut random);
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&input)));
        if let Err(panic) = result {
            eprintln!(
                "FUZZ_SEED={seed} execution {execution}: {:?}",
                String::from_utf8_lossy(&input)
            );
            std::panic::resume_unwind(panic);
        }
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let len = 1 + random.below(16);
    let end = input.len().min(at + len);
    match random.below(8) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let piece = other[from..other.len().min(from + 4 * len)].to_vec();
            input.splice(at..end, piece);
        }
        _ => {
            let word = words[random.below(words.len())];
            input.splice(at..end.min(at + random.below(4)), word.iter().copied());
        }
    }
}

fn documents() -> Vec<Vec<u8>> {
    let documents: [&str; 4] = [
        r#"{"generation": "1f", "models": {"example.org/pci/card": {"params": {
            "num-queues": {"type": "int", "allowed_values": [1, "4-8"], "minimum": 1, "maximum": 8, "init_value": 4, "off_value": 1},
            "msi": {"type": "bool", "allowed_values": [false, true], "init_value": true, "off_value": false, "runtime": true,
                    "requires": {"num-queues": [4, "5-8"]}},
            "label": {"type": "str", "allowed_values": ["a", "gr\u00f6\u00dfe"], "init_value": "a", "description": "any \"text\""}},
            "versions": {"v1": {"msi": false}, "v2": {"msi": true}}, "init_version": "v2"}}}"#,
        r#"{"models": {"a": {"params": {}}, "b": {"params": {"n": {"type": "int", "minimum": 3, "init_value": 3}}}}}"#,
        r#"{"model": "example.org/pci/card", "params": {"num-queues": 8, "msi": true, "label": "a"}}"#,
        r#"{"name": "host", "x": [1, 2.5e3, -7, null, {"y": [[]]}], "models": {"a": {"params": {}}}}"#,
    ];
    documents
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect()
}

const WORDS: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\"type\"",
    b"\"int\"",
    b"\"params\"",
    b"\"models\"",
    b"\"off_value\"",
    b"null",
    b"true",
    b"18446744073709551616",
    b"-1",
    b"1e999",
    b"\"0-18446744073709551615\"",
    b"\"8-4\"",
    b"\"custom\"",
    b"\n",
];

fn is_one_short_line(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 4096, "{} bytes of message", text.len());
}

#[test]
fn migration_information_of_any_kind() {
    fuzz(&documents(), &WORDS, |input| {
        let arena = Bump::new();
        match read_info(&arena, input) {
            Err(error) => is_one_short_line(&error.to_string()),
            Ok(info) => {
                let generation = info.generation.unwrap_or_default();
                let printed = MigrationInfo {
                    generation,
                    types: info.types,
                }
                .to_string();
                let again = read_info(&arena, arena.alloc_str(&printed).as_bytes())
                    .unwrap_or_else(|error| panic!("{error}: {printed}"));
                let again = MigrationInfo {
                    generation,
                    types: again.types,
                }
                .to_string();
                assert_eq!(again, printed);
            }
        }
    });
}

#[test]
fn parameter_lists_of_any_kind() {
    fuzz(&documents(), &WORDS, |input| {
        let arena = Bump::new();
        match read_source(&arena, input) {
            Err(error) => is_one_short_line(&error.to_string()),
            Ok(source) => {
                let names = source.params.iter().map(|param| param.name);
                let mut names: Vec<&str> = names.collect();
                names.sort_unstable();
                assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
            }
        }
    });
}

struct Bytes(Vec<u8>);

impl Sink for Bytes {
    type Error = std::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn streams() -> Vec<Vec<u8>> {
    let params = [
        Param {
            name: "num-ports",
            value: Value::Int(4),
        },
        Param {
            name: "msi",
            value: Value::Bool(true),
        },
        Param {
            name: "label",
            value: Value::Str("größe"),
        },
    ];
    let stream = |phases: &[Phase], params: &[Param<'_>]| {
        let mut out = Bytes(Vec::new());
        for phase in phases {
            assert!(write_setup(
                &mut out,
                *phase,
                "example.org/pci/card",
                params.iter().copied()
            )
            .is_ok());
            assert!(write_section(&mut out, 0x0101, true, b"some state").is_ok());
            assert!(write_section(&mut out, 0x0f00, false, b"").is_ok());
        }
        assert!(write_end(&mut out).is_ok());
        out.0
    };
    vec![
        stream(&[Phase::PreCopy, Phase::StopCopy], &params),
        stream(&[Phase::StopCopy], &params[..1]),
        stream(&[Phase::StopCopy], &[]),
    ]
}

/// Corrects the checksum of the first setup record, so that what is behind it is reached.
fn with_checksum(input: &[u8]) -> Option<Vec<u8>> {
    let mut fixed = input.to_vec();
    let len = u32::from_le_bytes(fixed.get(12..16)?.try_into().ok()?) as usize;
    let covered = fixed.get(..len.checked_sub(4)?)?;
    let crc = migration::crc::Crc32::of(covered).to_le_bytes();
    fixed.get_mut(len - 4..len)?.copy_from_slice(&crc);
    Some(fixed)
}

/// Accepts everything, and counts it.
#[derive(Default, Debug, PartialEq)]
struct Count {
    setups: usize,
    sections: usize,
    ends: usize,
}

impl Handler for Count {
    fn setup(&mut self, record: &SetupRecord<'_>) -> Result<(), Refusal> {
        // What came through is well formed: it can be written again.
        let mut out = Bytes(Vec::new());
        assert!(write_setup(&mut out, record.phase, record.model, record.params()).is_ok());
        let again = SetupRecord::parse(&out.0).expect("what was written is not read");
        assert_eq!(again.model, record.model);
        assert!(again.params().eq(record.params()));
        self.setups += 1;
        Ok(())
    }

    fn section_header(&mut self, _: &SectionHeader) -> Result<Known, Refusal> {
        Ok(Known::Yes)
    }

    fn section(&mut self, _: &SectionHeader, _: &[u8]) -> Result<(), Refusal> {
        self.sections += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        self.ends += 1;
        Ok(())
    }
}

#[test]
fn saved_states_of_any_kind() {
    let words: [&[u8]; 6] = [
        b"\x89\xffVFIO\r\n",
        b"\0\0",
        b"\xff\xff",
        b"\xff\xff\xff\xff",
        b"\x01\0\x01\0",
        b"num-ports",
    ];
    let mut reached = 0;
    fuzz(&streams(), &words, |input| {
        for input in [Some(input.to_vec()), with_checksum(input)]
            .into_iter()
            .flatten()
        {
            // In one piece, byte by byte, and as the tool shows it: the same.
            let mut scratch = vec![0; 1 << 16];
            let (mut whole, mut pieces) = (Reader::new(), Reader::new());
            let (mut of_whole, mut of_pieces) = (Count::default(), Count::default());
            let first = whole
                .push(&input, &mut scratch, &mut of_whole)
                .and_then(|()| whole.finish());
            let second = input
                .iter()
                .try_for_each(|byte| pieces.push(&[*byte], &mut scratch, &mut of_pieces));
            let second = second.and_then(|()| pieces.finish());
            assert_eq!(first, second);
            assert_eq!(of_whole, of_pieces);
            let contents = inspect(&mut input.as_slice()).expect("reading memory does not fail");
            assert_eq!(contents.damage.map(|(_, error)| error), first.err());
            assert_eq!(
                contents.records.len(),
                of_whole.setups + of_whole.sections + of_whole.ends
            );
            reached += of_whole.setups;
        }
    });
    assert!(reached > 0, "no mutation got past a setup record");
}
