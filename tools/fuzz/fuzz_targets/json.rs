// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Documents from other hosts: migration information and parameter lists.
//!
//! What is read prints, and what is printed reads as the same. What is not read is told in one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use migration::info::{MigrationInfo, ParameterList};
use vfio_migrate::json::{
    read_candidate, read_head, read_info, read_source, Bump, Offer, ReadError,
};
use vfio_migrate::select::{Selection, Verdict};

fuzz_target!(|input: &[u8]| {
    migration_information(input);
    parameter_list(input);
    candidate(input);
    candidates(input);
});

fn is_one_short_line(error: &ReadError) {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 4096, "{} bytes of message", text.len());
}

fn migration_information(input: &[u8]) {
    let arena = Bump::new();
    let info = match read_info(&arena, input) {
        Ok(info) => info,
        Err(error) => return is_one_short_line(&error),
    };
    let generation = info.generation;
    let print = |types| MigrationInfo { generation, types }.to_string();
    let printed = print(info.types);
    let again = read_info(&arena, printed.as_bytes());
    let again = again.unwrap_or_else(|error| panic!("{error}: {printed}"));
    assert_eq!(again.generation, generation);
    assert_eq!(print(again.types), printed);
}

/// Whatever is read as migration information is a candidate, and of each candidate the head can be read by itself.
fn candidate(input: &[u8]) {
    let arena = Bump::new();
    let info = read_info(&arena, input);
    let candidate = match read_candidate(&arena, input) {
        Ok(candidate) => candidate,
        Err(error) => {
            assert!(info.is_err(), "{error}");
            return is_one_short_line(&error);
        }
    };
    let head = read_head(&arena, input).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        (head.name, head.generation),
        (candidate.name, candidate.generation)
    );
    assert!(head.is_whole);
    match candidate.offer {
        Offer::Models(types) => assert!(!types.is_empty()),
        Offer::Types(types) => assert!(types.len() <= vfio_migrate::json::MAX_ENTRIES),
    }
}

/// A stream of documents: each that can be read by itself is judged, and what is refused has a reason.
fn candidates(input: &[u8]) {
    let arena = Bump::new();
    let list = br#"{"model": "example.org/pci/card", "params": {"num-ports": 2}}"#;
    let source = read_source(&arena, list).unwrap_or_else(|error| panic!("{error}"));
    let mut selection = Selection::new(&source);
    let read = selection.stream("input", input);
    read.unwrap_or_else(|error| panic!("{error}"));
    for judged in selection.finish() {
        match judged.verdict {
            Verdict::Compatible { .. } => {}
            Verdict::Refused(reasons) => assert!(!reasons.is_empty()),
            Verdict::Unreadable(why) => assert!(why.starts_with("input:"), "{why}"),
        }
    }
}

fn parameter_list(input: &[u8]) {
    let arena = Bump::new();
    let source = match read_source(&arena, input) {
        Ok(source) => source,
        Err(error) => return is_one_short_line(&error),
    };
    let mut names: Vec<&str> = source.params.iter().map(|param| param.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    let printed = ParameterList {
        model: source.model,
        params: source.params.iter().copied(),
    }
    .to_string();
    let again = read_source(&arena, printed.as_bytes());
    assert_eq!(
        again.unwrap_or_else(|error| panic!("{error}: {printed}")),
        source
    );
}
