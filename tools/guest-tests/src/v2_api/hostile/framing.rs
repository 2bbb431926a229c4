// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Cases 32, 33 and 35: streams whose framing is wrong, or only looks so. The rules are those of `migration::stream`.

use super::super::check::{equal, same_bytes, Named};
use super::{recover, refuses_stream, stopped_with_content};
use crate::ktap::Suite;
use crate::stream_forge::{
    Param, Record, Section, Setup, Stream, END, MANDATORY, MAX_SECTION, MAX_SETUP, PRE_COPY,
    STOP_COPY,
};
use crate::vfio::{Errno, State};

/// An id that belongs to the device and that this one does not have.
const UNKNOWN: u16 = 0xfe00;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_32_a_wrong_magic_or_version_is_refused,
        hostile_32_a_malformed_setup_record_is_refused,
        hostile_32_another_model_or_parameter_is_refused,
        hostile_32_setup_records_in_the_wrong_place_are_refused,
        hostile_32_malformed_sections_are_refused,
        hostile_32_missing_repeated_and_resized_sections_are_refused,
        hostile_32_an_end_that_is_none_is_refused,
        hostile_32_every_damaged_byte_is_noticed,
        hostile_33_oversize_records_are_refused_before_they_arrive,
        hostile_35_a_stream_may_be_split_anywhere,
        a_newer_minor_version_is_accepted_with_what_it_adds,
        unknown_optional_sections_are_skipped,
    );
}

/// Streams that are wrong, each with what is wrong about it.
type Wrong = Vec<(String, Stream)>;

/// Checks that a card refuses every stream with `errno`, and loads the good one all the same afterwards.
fn all_refused(make: impl FnOnce(&Stream) -> Wrong, errno: Errno) -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(2)?;
    let wrong = make(&Stream::parse(&good)?);
    for (what, stream) in wrong {
        for step in [usize::MAX, 1] {
            let got = refuses_stream(&card, &stream.encode(), step)
                .map_err(|error| error.context(what.clone()))?;
            equal(&what, got, errno)?;
            recover(&card)?;
        }
    }
    card.load(&good)?;
    same_bytes("the state after the good stream", &card.save()?, &good)
}

fn hostile_32_a_wrong_magic_or_version_is_refused() -> anyhow::Result<()> {
    let make = |good: &Stream| {
        let mut wrong = Wrong::new();
        for byte in 0..8 {
            wrong.push((
                format!("magic byte {byte}"),
                good.with_setup(|setup| setup.magic[byte] ^= 0x20),
            ));
        }
        for major in [0, 2, 0x100, 0xffff] {
            wrong.push((
                format!("major version {major}"),
                good.with_setup(|setup| setup.major = major),
            ));
        }
        wrong.push((
            "garbage".into(),
            good.with_record(0, Record::Raw(vec![0x5a; 64])),
        ));
        wrong.push((
            "zeros".into(),
            good.with_record(0, Record::Raw(vec![0; 64])),
        ));
        wrong
    };
    all_refused(make, Errno::EINVAL)
}

fn hostile_32_a_malformed_setup_record_is_refused() -> anyhow::Result<()> {
    let make = |good: &Stream| {
        let mut wrong = Wrong::new();
        let mut add = |what: &str, change: &dyn Fn(&mut Setup)| {
            wrong.push((what.to_string(), good.with_setup(|setup| change(setup))));
        };
        for length in [0, 8, 24, 27] {
            add(&format!("length {length}"), &|setup| {
                setup.length = Some(length)
            });
        }
        add("a length that ends within the fields", &|setup| {
            setup.length = Some(40)
        });
        add("checksum", &|setup| setup.damage = 1);
        add("checksum, upper half", &|setup| setup.damage = 1 << 31);
        for phase in [0, 3, 255] {
            add(&format!("phase {phase}"), &|setup| setup.phase = phase);
        }
        add("the reserved byte", &|setup| setup.reserved.0 = 1);
        add("the reserved half-word", &|setup| setup.reserved.1 = 0x8000);
        add("a model longer than the record", &|setup| {
            setup.model_length = Some(0xffff)
        });
        add("a model a byte longer", &|setup| {
            setup.model_length = Some(setup.model.len() as u16 + 1)
        });
        add("an empty model", &|setup| setup.model.clear());
        add("a model that is not UTF-8", &|setup| setup.model[0] = 0xff);
        add("more parameters than there are", &|setup| {
            setup.count = Some(setup.params.len() as u16 + 1)
        });
        add("65 parameters", &|setup| setup.count = Some(65));
        add("65535 parameters", &|setup| setup.count = Some(0xffff));
        add("bytes behind the parameters", &|setup| {
            setup.tail = vec![0; 4]
        });
        add("65 real parameters", &|setup| {
            setup
                .params
                .extend((0..65).map(|number| Param::int(&format!("p{number}"), 0)));
        });
        wrong
    };
    all_refused(make, Errno::EINVAL)
}

fn hostile_32_another_model_or_parameter_is_refused() -> anyhow::Result<()> {
    let make = |good: &Stream| {
        let mut wrong = Wrong::new();
        let mut add = |what: &str, change: &dyn Fn(&mut Setup)| {
            wrong.push((what.to_string(), good.with_setup(|setup| change(setup))));
        };
        add("another model", &|setup| {
            setup.model = b"other.example/pci/serial".to_vec()
        });
        add("the model with a suffix", &|setup| setup.model.push(b'x'));
        add("the model cut", &|setup| {
            setup.model.truncate(setup.model.len() - 1)
        });
        add("an unknown parameter", &|setup| {
            setup.params.push(Param::int("no-such-thing", 1))
        });
        add("an unknown text", &|setup| {
            setup.params.push(Param::text("no-such-text", "on"))
        });
        add("a parameter twice", &|setup| {
            setup.params.push(setup.params[0].clone())
        });
        add("no parameters", &|setup| setup.params.clear());
        for ports in [0, 1, 3, 4, 5, u64::MAX] {
            add(&format!("{ports} ports"), &|setup| {
                if let Some(param) = setup.param("num-ports") {
                    param.value = ports.to_le_bytes().to_vec();
                }
            });
        }
        for (what, name) in [
            ("a name that is not UTF-8", &b"\xff\xfe"[..]),
            ("an empty name", b""),
            ("a name with =", b"a=b"),
            ("a name with /", b"../etc"),
            ("a reserved name", b"version"),
        ] {
            add(what, &|setup| {
                setup.params.push(Param {
                    kind: 2,
                    name: name.to_vec(),
                    value: vec![0; 8],
                })
            });
        }
        for (what, kind, value) in [
            ("kind 0", 0, vec![0; 8]),
            ("kind 4", 4, vec![0; 8]),
            ("a short int", 2, vec![0; 7]),
            ("a long int", 2, vec![0; 9]),
            ("a bool of 2", 1, vec![2]),
            ("an empty bool", 1, vec![]),
            ("a text that is not UTF-8", 3, vec![0xc0, 0x80]),
            ("a text with a newline", 3, b"a\nb".to_vec()),
        ] {
            add(what, &|setup| {
                setup.params[0] = Param {
                    kind,
                    value: value.clone(),
                    ..setup.params[0].clone()
                }
            });
        }
        wrong
    };
    all_refused(make, Errno::EINVAL)
}

/// The setup record of a stream, for another phase.
fn setup_of(stream: &Stream, phase: u8) -> Record {
    let mut copy = stream.with_setup(|setup| setup.phase = phase);
    copy.records.swap_remove(0)
}

fn hostile_32_setup_records_in_the_wrong_place_are_refused() -> anyhow::Result<()> {
    let make = |good: &Stream| {
        let (first, second) = (setup_of(good, PRE_COPY), setup_of(good, STOP_COPY));
        let end = good.records.len() - 1;
        let changed = good
            .with_record(0, first.clone())
            .with_setup(|setup| setup.minor = 1);
        vec![
            ("no setup record".to_string(), good.without_record(0)),
            (
                "a section first".into(),
                good.with_record(0, good.records[1].clone()),
            ),
            (
                "stop-and-copy twice".into(),
                good.with_record(1, second.clone()),
            ),
            (
                "stop-and-copy twice, at the end".into(),
                good.with_record(end, second),
            ),
            (
                "pre-copy twice".into(),
                good.with_record(0, first.clone())
                    .with_record(0, first.clone()),
            ),
            (
                "pre-copy after stop-and-copy".into(),
                good.with_record(1, first),
            ),
            ("setup records that differ".into(), changed),
        ]
    };
    all_refused(make, Errno::EINVAL)
}

fn hostile_32_malformed_sections_are_refused() -> anyhow::Result<()> {
    let make = |good: &Stream| {
        let mut wrong = Wrong::new();
        for index in 0..good.sections().count() {
            let mut add = |what: &str, change: &dyn Fn(&mut Section)| {
                wrong.push((
                    format!("{what} of section {index}"),
                    good.with_section(index, |section| change(section)),
                ));
            };
            add("checksum", &|section| section.damage = 1);
            for bit in 1..16 {
                add(&format!("flag bit {bit}"), &|section| {
                    section.flags |= 1 << bit
                });
            }
            add("a length one short", &|section| {
                section.length = Some(section.payload.len() as u32 - 1)
            });
            add("an unknown id", &|section| section.id = UNKNOWN);
        }
        for id in [1, 0xff, UNKNOWN, 0xfeff] {
            let unknown = Record::Section(Section::new(id, MANDATORY, b"something new"));
            wrong.push((
                format!("mandatory section {id:#x}"),
                good.with_record(1, unknown),
            ));
        }
        let magic = Record::Section(Section::new(0xff89, 0, b"half a magic"));
        wrong.push((
            "a section that starts like a setup record".into(),
            good.with_record(1, magic),
        ));
        wrong
    };
    all_refused(make, Errno::EINVAL)
}

fn hostile_32_missing_repeated_and_resized_sections_are_refused() -> anyhow::Result<()> {
    let make = |good: &Stream| {
        let mut wrong = Wrong::new();
        for index in 0..good.sections().count() {
            wrong.push((
                format!("section {index} missing"),
                good.without_record(1 + index),
            ));
            let again = good.with_record(1, good.records[1 + index].clone());
            wrong.push((format!("section {index} twice"), again));
            let short = good.with_section(index, |section| {
                section.payload.truncate(section.payload.len() - 1)
            });
            wrong.push((format!("section {index} a byte short"), short));
            wrong.push((
                format!("section {index} empty"),
                good.with_section(index, |section| section.payload.clear()),
            ));
        }
        // Ports 2 and 3 of a card that has two.
        let last = good.sections().count();
        if let Record::Section(port) = &good.records[last] {
            for beyond in 1..=2 {
                let other = Record::Section(Section {
                    id: port.id + beyond,
                    ..port.clone()
                });
                wrong.push((
                    format!("{beyond} ports beyond the last"),
                    good.with_record(1 + last, other),
                ));
            }
        }
        wrong
    };
    all_refused(make, Errno::EINVAL)
}

fn hostile_32_an_end_that_is_none_is_refused() -> anyhow::Result<()> {
    let make = |good: &Stream| {
        let last = good.records.len() - 1;
        let replaced = |end: Section| {
            good.without_record(last)
                .with_record(last, Record::Section(end))
        };
        let end = Section::new(END, MANDATORY, b"");
        let pre_copy = Stream {
            records: vec![setup_of(good, PRE_COPY), Record::Section(end.clone())],
        };
        vec![
            (
                "an end with content".to_string(),
                replaced(Section::new(END, MANDATORY, b"x")),
            ),
            (
                "an optional end".into(),
                replaced(Section::new(END, 0, b"")),
            ),
            (
                "an end with a wrong checksum".into(),
                replaced(Section {
                    damage: 4,
                    ..end.clone()
                }),
            ),
            ("an end in pre-copy".into(), pre_copy),
            (
                "an end after the setup record".into(),
                good.with_record(1, Record::Section(end.clone())),
            ),
            (
                "an end twice".into(),
                good.with_record(last, Record::Section(end)),
            ),
            (
                "a byte after the end".into(),
                good.with_record(last + 1, Record::Raw(vec![0])),
            ),
            (
                "the stream twice".into(),
                Stream {
                    records: [&good.records[..], &good.records].concat(),
                },
            ),
        ]
    };
    all_refused(make, Errno::EINVAL)
}

fn hostile_32_every_damaged_byte_is_noticed() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(1)?;
    for place in 0..good.len() {
        let mut stream = good.clone();
        stream[place] ^= 1 << (place % 8);
        let errno = refuses_stream(&card, &stream, usize::MAX)
            .map_err(|error| error.context(format!("byte {place} of {} damaged", good.len())))?;
        anyhow::ensure!(
            [Errno::EINVAL, Errno::ENOMEM].contains(&errno),
            "byte {place} damaged: {errno:?}"
        );
        recover(&card)?;
    }
    card.load(&good)
}

fn hostile_33_oversize_records_are_refused_before_they_arrive() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(1)?;
    let good = Stream::parse(&good)?;
    let known = good
        .sections()
        .next()
        .map(|section| section.id)
        .unwrap_or_default();
    let mut wrong = Wrong::new();
    for length in [MAX_SETUP + 1, 1 << 16, 1 << 31, u32::MAX] {
        wrong.push((
            format!("a setup record of {length}"),
            good.with_setup(|setup| setup.length = Some(length)),
        ));
    }
    for length in [MAX_SECTION + 1, 1 << 24, 1 << 31, u32::MAX] {
        for (id, flags) in [(known, MANDATORY), (UNKNOWN, MANDATORY), (UNKNOWN, 0)] {
            let section = Section {
                length: Some(length),
                ..Section::new(id, flags, b"the first of many")
            };
            wrong.push((
                format!("section {id:#x} of {length}"),
                good.with_record(1, Record::Section(section)),
            ));
        }
    }
    // Longer than the state can be, though not than the format allows.
    let section = good.with_section(0, |section| section.payload.resize(MAX_SECTION as usize, 0));
    wrong.push(("a section with 64 KiB of state".into(), section));
    for (what, stream) in wrong {
        for step in [usize::MAX, 1] {
            let bytes = stream.encode();
            // Up to the first bytes of the content: whoever waits for all of it has lost.
            let bytes = &bytes[..bytes.len().min(1024)];
            let errno =
                refuses_stream(&card, bytes, step).map_err(|error| error.context(what.clone()))?;
            equal(&what, errno, Errno::ENOMEM)?;
            recover(&card)?;
        }
    }
    card.load(&good.encode())
}

fn hostile_35_a_stream_may_be_split_anywhere() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(1)?;
    let out = card.start(State::StopCopy).named("to STOP_COPY")?;
    let bytes = out.read_all(1).named("read by bytes")?;
    same_bytes("the stream read by bytes", &bytes, &good)?;
    card.switch(State::Stop).named("to STOP")?;
    for place in 0..=good.len() {
        let data = card.start(State::Resuming).named("to RESUMING")?;
        for piece in [&good[..place], &good[place..]] {
            equal(
                format!("write, split at {place}"),
                data.write(piece),
                Ok(piece.len()),
            )?;
        }
        card.switch(State::Stop)
            .named(format!("to STOP, split at {place}"))?;
    }
    let data = card.start(State::Resuming).named("to RESUMING")?;
    for byte in &good {
        equal("write of a byte", data.write(&[*byte]), Ok(1))?;
    }
    card.switch(State::Stop).named("to STOP")?;
    same_bytes("the state", &card.save()?, &good)
}

fn a_newer_minor_version_is_accepted_with_what_it_adds() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(1)?;
    let stream = Stream::parse(&good)?;
    for minor in [1, 7, 0xffff] {
        let newer = stream.with_setup(|setup| {
            setup.minor = minor;
            setup.reserved = (0x5a, 0x1234);
            setup.tail = b"fields of the future".to_vec();
        });
        card.load(&newer.encode())
            .map_err(|error| error.context(format!("minor version {minor}")))?;
        same_bytes("the state", &card.save()?, &good)?;
    }
    Ok(())
}

fn unknown_optional_sections_are_skipped() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(1)?;
    let stream = Stream::parse(&good)?;
    for id in [1, 0xff, UNKNOWN, 0xfeff] {
        for size in [0, 1, 4096, MAX_SECTION as usize] {
            let extra = Record::Section(Section::new(id, 0, &vec![0xa5; size]));
            for place in 1..stream.records.len() {
                let bytes = stream.with_record(place, extra.clone()).encode();
                let what = format!("section {id:#x} of {size} before record {place}");
                card.load(&bytes)
                    .map_err(|error| error.context(what.clone()))?;
                same_bytes(what, &card.save()?, &good)?;
            }
        }
    }
    Ok(())
}
