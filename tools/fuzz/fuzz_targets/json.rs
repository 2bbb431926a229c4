// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Documents from other hosts: migration information and parameter lists.
//!
//! What is read prints, and what is printed reads as the same. What is not read is told in one line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use migration::info::{MigrationInfo, ParameterList};
use vfio_migrate::json::{read_info, read_source, Bump, ReadError};

fuzz_target!(|input: &[u8]| {
    migration_information(input);
    parameter_list(input);
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
