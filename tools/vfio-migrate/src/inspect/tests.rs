// SPDX-License-Identifier: GPL-2.0 OR MIT

use migration::crc::Crc32;
use migration::stream::{write_end, write_section, write_setup, Sink};

use super::*;

struct Bytes(Vec<u8>);

impl Sink for Bytes {
    type Error = std::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Two phases, three sections, and where each record starts.
fn stream() -> (Vec<u8>, Vec<u64>) {
    let params = [
        Param {
            name: "num-ports",
            value: Value::Int(2),
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
    let mut out = Bytes(Vec::new());
    let mut starts = Vec::new();
    for phase in [Phase::PreCopy, Phase::StopCopy] {
        starts.push(out.0.len() as u64);
        assert!(write_setup(&mut out, phase, SERIAL_MODEL, params.into_iter()).is_ok());
    }
    for (id, mandatory, payload) in [
        (0x0101, true, &b"card"[..]),
        (0x0110, true, b"port"),
        (0x0f00, false, b""),
    ] {
        starts.push(out.0.len() as u64);
        assert!(write_section(&mut out, id, mandatory, payload).is_ok());
    }
    starts.push(out.0.len() as u64);
    assert!(write_end(&mut out).is_ok());
    (out.0, starts)
}

#[test]
fn every_record_is_listed_with_its_place() {
    let (bytes, starts) = stream();
    let contents = inspect(&mut &bytes[..]).unwrap();
    assert!(contents.damage.is_none());
    assert_eq!(contents.bytes, bytes.len() as u64);
    assert_eq!(
        contents
            .records
            .iter()
            .map(|(start, _)| *start)
            .collect::<Vec<_>>(),
        starts
    );
    let Record::Setup {
        phase: Phase::PreCopy,
        model,
        params,
        ..
    } = &contents.records[0].1
    else {
        panic!("{contents:?}");
    };
    assert_eq!(model, SERIAL_MODEL);
    assert_eq!(
        params[2],
        OwnedParam {
            name: "label".into(),
            kind: Kind::Str,
            text: "größe".into()
        }
    );
    assert_eq!(params[0].value(), Value::Int(2));
    let names: Vec<_> = contents.records[2..]
        .iter()
        .map(|(_, record)| match record {
            Record::Section {
                name, mandatory, ..
            } => (name.as_deref(), *mandatory),
            _ => (None, true),
        })
        .collect();
    assert_eq!(
        names,
        [
            (Some("card"), true),
            (Some("port 0"), true),
            (None, false),
            (None, true)
        ]
    );
    assert_eq!(contents.records[5].1, Record::End);
}

/// A setup record as a later minor version of the format may have it: longer by these bytes.
fn with_more(record: &[u8], more: &[u8]) -> Vec<u8> {
    let mut out = record[..record.len() - 4].to_vec();
    out.extend(more);
    out[10..12].copy_from_slice(&1u16.to_le_bytes());
    let len = out.len() as u32 + 4;
    out[12..16].copy_from_slice(&len.to_le_bytes());
    let checksum = Crc32::of(&out);
    out.extend(checksum.to_le_bytes());
    out
}

#[test]
fn records_behind_a_longer_setup_record_are_listed_with_their_places() {
    let (bytes, starts) = stream();
    let starts: Vec<usize> = starts.into_iter().map(|start| start as usize).collect();
    for more in [&b""[..], b"?", &[0x55; 300]] {
        let mut longer = with_more(&bytes[..starts[1]], more);
        longer.extend(with_more(&bytes[starts[1]..starts[2]], more));
        longer.extend(&bytes[starts[2]..]);
        let contents = inspect(&mut &longer[..]).unwrap();
        assert!(contents.damage.is_none(), "{:?}", contents.damage);
        let found: Vec<usize> = contents
            .records
            .iter()
            .map(|(start, _)| *start as usize)
            .collect();
        let moved = |(record, start): (usize, &usize)| start + record.min(2) * more.len();
        assert_eq!(
            found,
            starts.iter().enumerate().map(moved).collect::<Vec<_>>()
        );
        let Record::Setup { len, .. } = &contents.records[0].1 else {
            panic!("{contents:?}");
        };
        assert_eq!(*len as usize, starts[1] + more.len());
        // Damage is found behind them, too.
        let last = longer.len() - 1;
        longer[last] ^= 1;
        let (place, _) = inspect(&mut &longer[..]).unwrap().damage.unwrap();
        assert_eq!(place as usize, starts[5] + 2 * more.len());
    }
}

#[test]
fn damage_is_found_in_the_record_where_it_is() {
    let (bytes, starts) = stream();
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x10;
        let contents = inspect(&mut &damaged[..]).unwrap();
        let record = starts
            .iter()
            .rev()
            .find(|start| **start <= place as u64)
            .copied()
            .unwrap();
        let (start, error) = contents
            .damage
            .unwrap_or_else(|| panic!("no damage found at {place}"));
        assert_eq!(start, record, "{error} at {place}");
    }
}

#[test]
fn a_state_cut_off_anywhere_is_incomplete() {
    let (bytes, _) = stream();
    for len in 0..bytes.len() {
        assert!(
            inspect(&mut &bytes[..len]).unwrap().damage.is_some(),
            "{len}"
        );
    }
}
