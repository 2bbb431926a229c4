// SPDX-License-Identifier: GPL-2.0 OR MIT

//! States that were recorded of every kind of card of every release: each loads into a program with that card, which saves the same
//! bytes again; and no other card takes it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::client::*;
use crate::migration::*;
use crate::program::Program;

/// The recorded streams, by the names of their cards.
fn recorded() -> BTreeMap<String, Vec<u8>> {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rust/devices/tests/data/0.1.0");
    let streams = std::fs::read_dir(directory).expect("the recorded streams");
    let streams = streams.map(|entry| {
        let path = entry.expect("a file").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.expect("a name").to_string();
        (name, std::fs::read(path).expect("a stream"))
    });
    streams.collect()
}

/// The parameters of a card, by its name, and their values.
fn parameters(name: &str) -> [(&'static str, String); 5] {
    let words: Vec<&str> = name.split('-').collect();
    let switch = |is_on: bool| if is_on { "on" } else { "off" }.to_string();
    let has = |word| words.contains(&word);
    [
        ("num-ports", words[0].to_string()),
        ("fifo-depth", words[3].to_string()),
        ("msi", switch(has("msi"))),
        ("compact-state", switch(has("compact"))),
        ("auto-flow", switch(!has("no"))),
    ]
}

/// A program with this card.
fn program(name: &str) -> Program {
    let option = |(name, value)| format!("--m-{name}={value}");
    let arguments = parameters(name).map(option);
    Program::start(&arguments.each_ref().map(String::as_str))
}

#[test]
fn a_recorded_state_comes_back_byte_for_byte() {
    let all = recorded();
    assert_eq!(all.len(), 36);
    for (name, stream) in &all {
        let program = program(name);
        let mut client = program.client();
        client.go(RESUMING).expect("a session");
        assert_eq!(client.load(stream), Ok(()), "{name}: {}", client.refusal());
        client.go(STOP_COPY).expect("loaded, and saved again");
        let again = client.all_saved(1000);
        // The recorded card was still running when its first record was made.
        let length = stream[12..16].try_into().map(u32::from_le_bytes);
        let first = length.expect("four bytes") as usize;
        assert!(again == stream[first..], "{name}: other bytes");
        client.go(RUNNING).expect("it runs");
        client.go(PRE_COPY).expect("it runs");
        assert!(
            client.all_saved(1000) == stream[..first],
            "{name}: another record"
        );
        client.go(RUNNING).expect("it runs");
        assert_eq!(client.read(0, 7, 1), Ok(vec![0x5a]), "{name}: scratch");
        client.go(RESUMING).expect("a session");
        assert_eq!(client.load(stream), Ok(()));
        client.go(RUNNING).expect("it runs");
        // The first character that waits, as the recording has it.
        assert_eq!(client.read(0, 0, 1), Ok(vec![0x20]), "{name}");
    }
}

#[test]
fn no_card_takes_the_state_of_another_kind() {
    let all = recorded();
    for name in all.keys() {
        let program = program(name);
        let mut client = program.client();
        let here = parameters(name);
        for (other, stream) in &all {
            client.go(RESUMING).expect("a session");
            let result = client.load(stream);
            let there = parameters(other);
            let differences: Vec<String> = there
                .iter()
                .zip(&here)
                .filter(|(there, here)| there != here)
                .map(|((param, there), (_, here))| {
                    format!("{param}: source has {there}, this device has {here}")
                })
                .collect();
            match differences.as_slice() {
                [] => assert_eq!((result, other), (Ok(()), name)),
                differences => {
                    assert_eq!(result, Err(EINVAL), "{other} in {name}");
                    let found = client.refusal();
                    for difference in differences {
                        assert!(found.contains(difference), "{difference}: {found}");
                    }
                    assert_eq!(found.split("; ").count(), differences.len(), "{found}");
                }
            }
            assert_eq!(client.ask(RESET, &[]), Ok(vec![]));
        }
    }
}
