// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Runs every fuzz target for a bounded number of executions, from the seeds in `corpus/` and always the same random numbers.
//!
//! The input of a crash is kept in the directory `fuzz` of the results (environment variable `LAB_RESULTS`; a directory of
//! Cargo's if there is none), and the failure names it. `scripts/fuzz run --bin TARGET -- FILE` runs the target on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fuzz::migrating::{self, Outcome};
use migration::stream::SetupRecord;
use vfio_migrate::inspect::inspect;
use vfio_migrate::json::{read_info, read_source, Bump};
use vfio_user_protocol::{Framer, Limits, Request};

// What the instrumentation of this program calls is in libFuzzer, which asks for a target.
libfuzzer_sys::fuzz_target!(|_input: &[u8]| {});

/// Where this package is.
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

fn corpus(target: &str) -> PathBuf {
    Path::new(PACKAGE).join("corpus").join(target)
}

/// Where the inputs of crashes go.
fn artifacts() -> PathBuf {
    let results = std::env::var_os("LAB_RESULTS").map(PathBuf::from);
    let directory = results.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let directory = directory.join("fuzz");
    fs::create_dir_all(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    directory
}

/// Runs a target `executions` times.
fn run(target: &str, program: &str, executions: u64, more: &[&str]) {
    // What is found on the way: the corpus that is kept stays as it is.
    let found = Path::new(env!("CARGO_TARGET_TMPDIR")).join(target);
    if found.exists() {
        fs::remove_dir_all(&found).expect("what an earlier run found cannot be removed");
    }
    fs::create_dir(&found).expect("no directory for what is found");
    let prefix = artifacts().join(format!("{target}-"));
    let output = Command::new(program)
        .args([
            format!("-runs={executions}"),
            "-seed=1".to_string(),
            "-print_final_stats=1".to_string(),
            format!("-artifact_prefix={}", prefix.display()),
        ])
        .args(more)
        .args([&found, &corpus(target)])
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    let tail = || {
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    };
    if !output.status.success() {
        let written = text
            .lines()
            .find_map(|line| line.split_once("Test unit written to "));
        let input = written.map_or("none", |(_, path)| path);
        panic!("{target}: {}; input: {input}\n{}", output.status, tail());
    }
    let done = text.lines().find_map(|line| {
        let number = line.strip_prefix("stat::number_of_executed_units:")?;
        number.trim().parse::<u64>().ok()
    });
    assert!(
        done.is_some_and(|done| done >= executions),
        "{target}: {done:?} of {executions} executions\n{}",
        tail()
    );
}

#[test]
fn documents_of_any_kind() {
    let words = format!("-dict={PACKAGE}/json.dict");
    run("json", env!("CARGO_BIN_EXE_json"), 100_000, &[&words]);
}

#[test]
fn setup_records_of_any_kind() {
    run(
        "setup_record",
        env!("CARGO_BIN_EXE_setup_record"),
        500_000,
        &[],
    );
}

#[test]
fn saved_states_of_any_kind() {
    run("stream", env!("CARGO_BIN_EXE_stream"), 100_000, &[]);
}

#[test]
fn clients_of_any_kind() {
    run("vfio_user", env!("CARGO_BIN_EXE_vfio_user"), 200_000, &[]);
}

#[test]
fn migrations_of_any_kind_between_two_programs() {
    run(
        "vfio_user_migration",
        env!("CARGO_BIN_EXE_vfio_user_migration"),
        10_000,
        &["-max_len=512"],
    );
}

#[test]
fn disks_of_any_guest() {
    run(
        "vfio_user_disk",
        env!("CARGO_BIN_EXE_vfio_user_disk"),
        2_000,
        &["-max_len=512", "-rss_limit_mb=512"],
    );
}

#[test]
fn accesses_to_registers_of_any_kind() {
    run(
        "pci_registers",
        env!("CARGO_BIN_EXE_pci_registers"),
        100_000,
        &["-max_len=1024"],
    );
}

#[test]
fn rings_of_any_kind() {
    run(
        "virtio_ring",
        env!("CARGO_BIN_EXE_virtio_ring"),
        100_000,
        &["-max_len=2048"],
    );
}

#[test]
fn requests_of_any_kind() {
    run(
        "blk_request",
        env!("CARGO_BIN_EXE_blk_request"),
        20_000,
        &["-max_len=512"],
    );
}

#[test]
fn saved_disks_of_any_kind() {
    run("blk_state", env!("CARGO_BIN_EXE_blk_state"), 50_000, &[]);
}

/// The seeds of a target: names and contents.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = corpus(target);
    let entries = fs::read_dir(&directory).expect("the corpus is not there");
    let read = entries.map(|entry| {
        let entry = entry.expect("the corpus cannot be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, fs::read(entry.path()).expect("a seed cannot be read"))
    });
    read.collect()
}

/// Whether the steps with this name have done that. Each is to come to what its name has beyond those of its kind.
fn is_what_it_says(name: &str, outcome: &Outcome) -> bool {
    let Outcome {
        loaded,
        refused,
        saved,
        busy,
        given_up,
        read_ahead,
        remote,
        reconnected,
        served,
        interrupts,
        told,
        taken_away,
    } = *outcome;
    let Some((kind, how)) = name.split_once('-') else {
        return false;
    };
    let is_kind = match kind {
        "migrated" => loaded > 0 && saved >= loaded && refused == 0,
        "refused" => loaded == 0 && refused > 0,
        "busy" => busy > 0,
        "served" => served > 3 && interrupts > 1,
        "told" => told > 0 && served > 0,
        "taken" => taken_away > 0,
        "abandoned" => loaded == 0 && saved == 0 && refused == 0 && given_up > 0,
        _ => false,
    };
    is_kind
        && match how {
            "by-remote-calls" => remote >= 2 && given_up == 0,
            // Read ahead, and loaded nevertheless.
            "in-pre-copy" if kind == "migrated" => read_ahead > 0 && given_up == 0,
            // Both sides have given theirs up.
            "in-pre-copy" => read_ahead > 0 && given_up >= 2,
            // What came before was forgotten with the client, and all of it was sent to the next one.
            "over-a-reconnection" => reconnected > 0 && given_up == 1,
            "there-and-back" => loaded >= 2 && saved >= 2 && given_up == 0,
            // In pre-copy at the source, with the log, and at the destination.
            "at-work" => read_ahead > 0 && served > 3 && told > 0 && given_up == 0,
            "in-two-queues" | "of-a-medium-that-is-freed" | "what-was-written" => true,
            // They were done when the memory was there again.
            "away-while-requests-wait" => taken_away > 1 && served > 2,
            "remote-save" => remote > 0 && given_up > 0,
            "damaged" | "damaged-behind-checksums" | "incomplete" | "other-parameters" => true,
            _ => false,
        }
}

#[test]
fn every_seed_is_what_its_name_says() {
    let arena = Bump::new();
    for (name, seed) in seeds("json") {
        let (info, list) = (read_info(&arena, &seed), read_source(&arena, &seed));
        let is = (info.is_ok(), list.is_ok());
        let kind = name.split('-').next();
        // What is compatible with a source says what that is.
        let wanted = (
            kind == Some("info"),
            matches!(kind, Some("list" | "compatible")),
        );
        assert_eq!(is, wanted, "{name}: {info:?} {list:?}");
    }
    for (name, seed) in seeds("setup_record") {
        let record = SetupRecord::parse(&seed);
        assert_eq!(
            record.is_err(),
            name.starts_with("damaged-"),
            "{name}: {record:?}"
        );
    }
    for (name, seed) in seeds("vfio_user") {
        let mut framer = Framer::new(Limits::DEFAULT.message_len());
        let (mut rest, mut is_sound) = (&seed[..], true);
        while !rest.is_empty() && is_sound {
            match framer.push(rest) {
                Ok(taken) => rest = &rest[taken..],
                Err(_) => is_sound = false,
            }
            let limits = Limits {
                write_multiple: true,
                ..Limits::DEFAULT
            };
            match framer.message() {
                Some((header, body)) => is_sound &= Request::decode(&header, body, &limits).is_ok(),
                None => is_sound = false,
            }
            framer.next();
        }
        assert_eq!(is_sound, !name.starts_with("refused-"), "{name}");
    }
    for (name, seed) in seeds("vfio_user_migration") {
        let outcome = migrating::run_serial(&seed);
        assert!(is_what_it_says(&name, &outcome), "{name}: {outcome:?}");
    }
    for (name, seed) in seeds("vfio_user_disk") {
        let outcome = migrating::run_disk(&seed);
        assert!(
            is_what_it_says(&name, &outcome),
            "disk, {name}: {outcome:?}"
        );
    }
    for (name, seed) in seeds("stream") {
        let contents = inspect(&mut &seed[..]).expect("reading memory does not fail");
        let damage = contents.damage;
        assert_eq!(
            damage.is_some(),
            name.starts_with("damaged-"),
            "{name}: {damage:?}"
        );
    }
}
