// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The program, run on a tree that is laid out as sysfs is.

use std::fs;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use host::{info, list, Host, Ran, FIXED, FLEXIBLE, MODEL};

mod completion;
mod host;
mod inputs;
mod json;
mod output;
mod programs;
mod select;
mod serial;
mod vfio_user;
mod watch;

#[test]
fn what_is_here_is_shown() {
    let host = Host::new();
    host.run(&["types"])
        .expect(0)
        .says("card0/card-any")
        .says(FIXED);
    let types = host.run(&["types", "--json"]).expect(0).json();
    assert_eq!(types["types"][0]["available_instances"], 7);
    assert_eq!(types["types"][0]["instances"], json!([FIXED]));
    let shown = host
        .run(&["info", "card-any"])
        .expect(0)
        .says("1, 2, 4")
        .says("version v2 (new instances): msi=on");
    assert!(!shown.out.contains('\x1b'), "{shown:?}");
    host.run(&["info", "card0/card-1"]).expect(0);
    host.run(&["info", FLEXIBLE]).expect(0).says("ports");
    let params = host.run(&["params", "--json", FIXED]).expect(0).json();
    assert_eq!(
        params,
        json!({"model": MODEL, "params": {"ports": 1, "msi": true}})
    );
    host.run(&["params", FIXED]).expect(0).says("version v2");
    let empty = TempDir::new().unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_vfio-migrate"))
        .arg("--sysfs")
        .arg(empty.path())
        .arg("types")
        .output()
        .unwrap();
    Ran::of(ran)
        .expect(0)
        .says("no mdev parent device is in this copy");
}

#[test]
fn check_takes_every_kind_of_source_and_destination() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2, "msi": true})));
    let file = host.file("info.json", info("2, 4"));
    host.run(&["check", &source, &file])
        .expect(0)
        .says("compatible");
    host.run(&["check", &source, "card-any"]).expect(0);
    host.run(&["check", &source, FLEXIBLE])
        .expect(0)
        .says("ports 1 -> 2");
    host.run(&["check", FIXED, FLEXIBLE])
        .expect(0)
        .says("and prepared");
    let refused = host
        .run(&["check", &source, FIXED])
        .expect(1)
        .says("ports: source has 2, this device allows 1");
    assert!(refused.err.is_empty(), "{refused:?}");
    host.run_with(&["check", "-", &file], list(json!({"ports": 4})).as_bytes())
        .expect(0);
    host.run_with(&["check", &source, "-"], info("1").as_bytes())
        .expect(1);
    host.run(&["check", "-", "-"]).expect(2);
    let verdict = host
        .run(&["check", "--json", &source, "card-1"])
        .expect(1)
        .json();
    assert_eq!(
        verdict,
        json!({"compatible": false, "reasons": [{
            "code": "not-allowed", "parameter": "ports", "source": 2, "allowed": [1],
            "text": "ports: source has 2, this device allows 1"}]})
    );
}

#[test]
fn an_error_names_the_file_and_the_place() {
    let host = Host::new();
    let good = host.file("good.json", info("1"));
    for (name, content, what) in [
        (
            "double",
            &br#"{"model": "m", "params": {"a": 1, "a": 2}}"#[..],
            "double:1:37: params.a: the member is there twice",
        ),
        ("cut", br#"{"model": "m", "params": {"a""#, "cut off"),
        ("binary", b"\xff\xfe", "binary:1:1: not UTF-8"),
        ("empty", b"", "cut off or empty"),
        (
            "range",
            br#"{"model": "m", "params": {"a": 18446744073709551616}}"#,
            "params.a",
        ),
        ("info", br#"{"models": {}}"#, "describes a destination"),
        (
            "state",
            b"\x89\xffVFIO\r\n\x01\0",
            "not a sound saved state",
        ),
    ] {
        let path = host.file(name, content);
        host.run(&["check", &path, &good])
            .expect(2)
            .says(&path)
            .says(what);
    }
    let digits = vec![b'9'; 8 << 20];
    host.run_with(&["check", "-", &good], &digits)
        .expect(2)
        .says("(standard input):1:0: longer than");
    host.run(&["check", "/nonexistent", &good])
        .expect(2)
        .says("No such file");
    let directory = host.path("").display().to_string();
    host.run(&["check", &directory, &good])
        .expect(2)
        .says("EISDIR");
}

#[test]
fn prepare_writes_and_dry_runs_do_not() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 4})));
    let ran = host
        .run(&["prepare", "--dry-run", &source, FLEXIBLE])
        .expect(0);
    let writes: Vec<&str> = ran
        .out
        .lines()
        .map(|line| line.split(" > ").next().unwrap())
        .collect();
    assert_eq!(writes, ["printf '%s\\n' off", "printf '%s\\n' 4"]);
    assert_eq!(host.value(FLEXIBLE, "ports"), "1");
    host.run(&["prepare", &source, FLEXIBLE])
        .expect(0)
        .says("ports 1 -> 4")
        .says("msi on -> off");
    assert_eq!(
        (host.value(FLEXIBLE, "ports"), host.value(FLEXIBLE, "msi")),
        ("4".into(), "off".into())
    );
    host.run(&["prepare", &source, FIXED])
        .expect(1)
        .says("nothing was changed");
    assert_eq!(host.value(FIXED, "msi"), "on");
    host.run(&["prepare", &source, "card-any"])
        .expect(2)
        .says("not the UUID");
}

#[test]
fn an_instance_that_has_the_values_is_not_written() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 1, "msi": true})));
    let file = host.path("sys/devices/virtual/card/card0").join(FLEXIBLE);
    let file = file.join("migration/ports");
    // A write would leave a newline behind it.
    fs::write(&file, "1").unwrap();
    host.run(&["prepare", &source, FLEXIBLE])
        .expect(0)
        .says("it had these values already");
    let shown = host
        .run(&["prepare", "--dry-run", &source, FLEXIBLE])
        .expect(0);
    assert_eq!(shown.out, "");
    assert_eq!(fs::read(&file).unwrap(), b"1");
    let other = host.file("other.json", list(json!({"ports": 1})));
    host.run(&["prepare", &other, FLEXIBLE]).expect(0);
    assert_eq!(fs::read(&file).unwrap(), b"1\n");
}

#[test]
fn a_value_without_text_is_written_too() {
    let host = Host::new();
    let card = host.path("sys/devices/virtual/card/card0");
    let label = r#""label": {"type": "str", "init_value": "new"}, "ports""#;
    let info = info("1, 2").replacen(r#""ports""#, label, 1);
    fs::write(
        card.join("mdev_supported_types/card-any/migration_info.json"),
        info,
    )
    .unwrap();
    let file = card.join(FLEXIBLE).join("migration/label");
    fs::write(&file, "new\n").unwrap();
    let list = list(json!({"label": "", "ports": 1, "msi": true}));
    let source = host.file("source.json", list);
    host.run(&["prepare", &source, FLEXIBLE]).expect(0);
    // sysfs calls no driver for a write of no bytes.
    assert_eq!(fs::read(&file).unwrap(), b"\n");
}

#[test]
fn an_instance_without_the_interface_is_told() {
    let host = Host::new();
    let path = host.path("sys/devices/virtual/card/card0").join(FIXED);
    fs::remove_dir_all(path.join("migration")).unwrap();
    host.run(&["params", FIXED])
        .expect(2)
        .says("does not support the migration interface");
    fs::remove_file(
        host.path("sys/devices/virtual/card/card0/mdev_supported_types/card-1/migration_info.json"),
    )
    .unwrap();
    host.run(&["info", "card-1"])
        .expect(2)
        .says("no migration_info.json");
    host.run(&["types"])
        .expect(0)
        .says("(no migration interface)");
}

#[test]
fn devices_of_another_host_are_not_opened() {
    let host = Host::new();
    let state = host.file("state", b"");
    host.run(&["save", FIXED, &state])
        .expect(2)
        .says("on this host only");
    host.run(&["load", FIXED, &state])
        .expect(2)
        .says("on this host only");
    host.run(&["copy", FIXED, FLEXIBLE])
        .expect(2)
        .says("on this host only");
}

#[test]
fn a_damaged_state_is_told_with_its_place() {
    let host = Host::new();
    let state = host.file("state", b"\x89\xffVFIO\r\n\x01\0");
    host.run(&["inspect", &state])
        .expect(1)
        .says("damaged in the record at byte 0");
    host.run_with(&["inspect"], b"nonsense, and more of it")
        .expect(1);
    let shown = host.run(&["inspect", "--json", &state]).expect(1).json();
    assert_eq!(shown["complete"], false);
}

#[test]
fn wrong_usage_is_status_2() {
    let host = Host::new();
    for arguments in [
        &["check"][..],
        &["nonsense"],
        &["select", "x"],
        &["completions", "tcsh"],
        &["watch", "--once", "--until-end", FIXED],
    ] {
        assert_eq!(host.run(arguments).status, 2, "{arguments:?}");
    }
    host.run(&["params", "no-uuid"])
        .expect(2)
        .says("not the UUID");
    host.run(&["params", "00000000-0000-4000-8000-000000000000"])
        .expect(2)
        .says("no such mdev instance");
    host.run(&["info", "nothing"])
        .expect(2)
        .says("types are card0/card-1, card0/card-any");
}

#[test]
fn help_has_examples_and_exit_statuses() {
    let host = Host::new();
    let help = host.run(&["--help"]).expect(0);
    for words in ["Examples:", "Exit status:", "vfio-migrate select"] {
        assert!(help.out.contains(words), "{words}: {}", help.out);
    }
    host.run(&["select", "--help"]).expect(0).says("Examples:");
}

#[test]
fn completions_and_manual_pages_are_made() {
    let host = Host::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = host.run(&["completions", shell]).expect(0);
        for command in ["prepare", "inspect", "watch", "until-end"] {
            assert!(ran.out.contains(command), "{shell} does not know {command}");
        }
    }
    host.run(&["man"])
        .expect(0)
        .says(".TH vfio-migrate")
        .says(".SH \"EXIT STATUS\"");
    fs::create_dir(host.path("man1")).unwrap();
    host.run(&["man", &host.path("man1").display().to_string()])
        .expect(0);
    assert!(host.path("man1/vfio-migrate.1").exists());
    assert!(host.path("man1/vfio-migrate-select.1").exists());
}
