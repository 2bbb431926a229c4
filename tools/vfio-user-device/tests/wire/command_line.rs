// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the program is told, and what it prints.

use std::fs;
use std::process::{Output, Stdio};

use serde_json::{json, Value};

use crate::program::{command, with_fd};

fn run(arguments: &[&str]) -> Output {
    command()
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// The one line that a failure is told in.
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    let line = text.strip_suffix('\n').expect("a line");
    assert!(!line.contains('\n'), "{arguments:?}: {text}");
    line.strip_prefix("vfio-user-device: ")
        .expect("its name")
        .to_string()
}

fn information(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--print-migration-info-json"]].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

const MODEL: &str = "rust-vfio-mdev.example/pci/serial";
const DISK: &str = crate::disk::MODEL;

#[test]
fn the_information_is_stable_and_follows_what_shapes_it() {
    let whole = information(&[]);
    assert_eq!(information(&[]), whole);
    assert_eq!(
        information(&["--m-num-ports=2"]),
        whole,
        "it is not about this card"
    );
    assert_eq!(information(&["--max-ports=4"]), whole);
    let model = &whole["models"][MODEL];
    assert_eq!(
        model["param_order"],
        json!([
            "num-ports",
            "fifo-depth",
            "msi",
            "compact-state",
            "auto-flow"
        ])
    );
    assert_eq!(
        model["params"]["num-ports"]["allowed_values"],
        json!([1, 2, 4])
    );
    assert_eq!(model["params"]["msi"]["off_value"], json!(false));
    assert_eq!(
        model["versions"]["v1"],
        json!({"msi": false, "compact-state": false})
    );
    assert_eq!(model["init_version"], json!("v2"));

    let less = information(&["--max-ports=2"]);
    let ports = &less["models"][MODEL]["params"]["num-ports"];
    assert_eq!(ports["allowed_values"], json!([1, 2]));
    let generations = [&whole, &less, &information(&["--max-ports=1"])];
    let generations =
        generations.map(|info| info["generation"].as_str().expect("text").to_string());
    assert!(generations[0] != generations[1] && generations[1] != generations[2]);
}

#[test]
fn k41_parameters_that_cannot_be_had_are_told_in_one_line_and_no_socket_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    let path = socket.to_str().expect("UTF-8");
    for (arguments, why) in [
        (&["--m-unknown=1"][..], "--m-unknown"),
        (
            &["--m-num-ports=1", "--m-num-ports=2"],
            "cannot be used multiple times",
        ),
        (&["--m-num-ports"], "a value is required"),
        (&["--m-num-ports="], "num-ports: the value is not a number"),
        (&["--m-num-ports=3"], "num-ports: 3 is not one of 1, 2, 4"),
        (
            &["--m-num-ports=-1"],
            "num-ports: the value is not a number",
        ),
        (
            &["--m-num-ports=on"],
            "num-ports: the value is not a number",
        ),
        (
            &["--m-msi=true"],
            "msi: the value is neither 'on' nor 'off'",
        ),
        (
            &["--m-msi", "on\n\n"],
            "msi: the value is neither 'on' nor 'off'",
        ),
        (
            &["--m-auto-flow=off"],
            "auto-flow: off requires fifo-depth 64, not 16",
        ),
        (
            &["--m-auto-flow=off", "--m-fifo-depth=16"],
            "requires fifo-depth 64",
        ),
        (
            &["--max-ports=2", "--m-num-ports=4"],
            "num-ports: 4 is not one of 1, 2",
        ),
        (&["--max-ports=3"], "invalid value '3'"),
        (
            &["--migration-version=v9"],
            "version: v9 is not one of v1, v2",
        ),
        (
            &["--migration-model=example.org/disk"],
            "this program has rust-vfio-mdev.example/pci/serial and rust-vfio-mdev.example/pci/blk, and not example.org/disk",
        ),
        (
            &["--m-capacity-mib=64"],
            "--m-capacity-mib: rust-vfio-mdev.example/pci/serial has no such parameter; it is one of rust-vfio-mdev.example/pci/blk, which --migration-model=rust-vfio-mdev.example/pci/blk makes",
        ),
        (
            &["--migration-model", DISK, "--m-num-ports=2"],
            "--m-num-ports: rust-vfio-mdev.example/pci/blk has no such parameter",
        ),
        (
            &["--migration-model", DISK, "--m-capacity-mib=4097"],
            "capacity-mib: 4097 is not one of 1-4096",
        ),
        (
            &["--migration-model", DISK, "--max-capacity-mib=9", "--m-capacity-mib=10"],
            "capacity-mib: 10 is not one of 1-9",
        ),
        (
            &["--migration-model", DISK, "--m-read-only=on", "--m-write-zeroes=on"],
            "write-zeroes: on requires read-only off",
        ),
        (&["--migration-model", DISK, "--m-serial=\u{e4}"], "serial: "),
        (&["--migration-model", DISK, "--migration-version=v1"], "version"),
        (&["--max-capacity-mib=0"], "invalid value '0'"),
        (&["--max-capacity-mib=4097"], "invalid value '4097'"),
        (&["--fd=7"], "cannot be used with"),
        (&["more"], "'more' cannot be used"),
        (&["serve", "--control=c"], "'serve' cannot be used"),
    ] {
        let all = [&["--socket-path", path], arguments].concat();
        let line = refused(&all);
        assert!(line.contains(why), "{arguments:?}: {line}");
        assert!(!socket.exists(), "{arguments:?} left a socket");
        // The information is not printed either, with what could not be started.
        if !arguments[0].starts_with("--fd") {
            refused(&[&["--print-migration-info-json"], arguments].concat());
        }
    }
    refused(&[]);
}

#[test]
fn k41_who_cannot_be_told_the_information_is_a_failure() {
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let mut child = command()
        .arg("--print-migration-info-json")
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    assert_eq!(child.wait().expect("its end").code(), Some(1));
}

#[test]
fn the_information_is_about_the_model_that_is_named_or_about_all() {
    let names = |whole: &Value| {
        let models = whole["models"].as_object().expect("models");
        // In any order, as members of an object are.
        let mut names: Vec<String> = models.keys().cloned().collect();
        names.sort();
        names
    };
    let all = information(&[]);
    assert_eq!(names(&all), [DISK, MODEL]);
    let mut generations = vec![all["generation"].clone()];
    for model in [MODEL, DISK] {
        let one = information(&["--migration-model", model]);
        assert_eq!(names(&one), [model]);
        assert_eq!(one["models"][model], all["models"][model]);
        generations.push(one["generation"].clone());
    }
    // What shapes the document is told by its generation, whatever is said of the device itself.
    let small = information(&["--migration-model", DISK, "--max-capacity-mib=48"]);
    let capacity = &small["models"][DISK]["params"]["capacity-mib"];
    assert_eq!(capacity["maximum"], 48);
    assert_eq!(capacity["init_value"], 48);
    generations.push(small["generation"].clone());
    let same = information(&[
        "--migration-model",
        DISK,
        "--max-capacity-mib=48",
        "--m-capacity-mib=7",
    ]);
    assert_eq!(same, small);
    let few = information(&["--migration-model", DISK, "--max-ports=1"]);
    assert_eq!(few["generation"], generations[2], "a disk has no ports");
    for (at, generation) in generations.iter().enumerate() {
        assert!(!generations[..at].contains(generation), "{at}");
    }
}

#[test]
fn sockets_that_cannot_be_had_are_told_in_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "kept").expect("a file");
    let path = file.to_str().expect("UTF-8");
    assert!(refused(&["--socket-path", path]).contains("something is there already"));
    assert_eq!(fs::read(&file).expect("a file"), b"kept");
    let long = format!("{}/{}", directory.path().display(), "x".repeat(120));
    assert!(refused(&["--socket-path", &long]).contains("no more than 107 bytes"));
    let nowhere = format!("{}/no/s", directory.path().display());
    assert!(refused(&["--socket-path", &nowhere]).contains("no socket can be made"));
    for (argument, why) in [
        ("--fd=9", "no such descriptor"),
        ("--fd=2", "invalid value"),
        ("--fd=x", "invalid value"),
    ] {
        let line = refused(&[argument]);
        assert!(line.contains(why), "{line}");
    }
    let mut wrong = command();
    wrong.arg("--fd=3").stderr(Stdio::piped());
    let child = with_fd(wrong, fs::File::open(&file).expect("a file").into());
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("not a unix stream socket"), "{text}");
}

#[test]
fn both_forms_of_parameters_and_any_order_are_taken() {
    for arguments in [
        &["--m-fifo-depth=64", "--m-auto-flow=off"][..],
        &["--m-auto-flow", "off", "--m-fifo-depth", "64"],
        &["--migration-version", "v1", "--m-num-ports", "4"],
        &["--migration-model", MODEL, "--m-compact-state=off"],
        &[
            "--m-capacity-mib",
            "1",
            "--migration-model",
            DISK,
            "--m-serial=",
            "--m-read-only=on",
        ],
    ] {
        information(arguments);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let mut command = command();
        command.arg("--fd=3").args(arguments);
        let mut child = with_fd(command, theirs.into());
        crate::client::Client::new(ours).agree();
        assert_eq!(child.wait().expect("its end").code(), Some(0));
    }
}

#[test]
fn the_files_for_management_tools_name_the_program_and_its_models() {
    let card = include_str!("../../../integration/50-vfio-user-device.json");
    let disk = include_str!("../../../integration/51-vfio-user-device-blk.json");
    // What the device is to QEMU, and what the program is told to be it.
    for (text, ty, option) in [
        (card, "pci-serial", None),
        (disk, "virtio-blk-pci", Some("--migration-model")),
    ] {
        let file: Value = serde_json::from_str(text).expect("JSON");
        let binary = file["binary"].as_str().expect("a path");
        assert!(binary.starts_with('/') && binary.ends_with("/vfio-user-device"));
        assert_eq!(file["type"], ty);
        let description = file["description"].as_str().expect("a text");
        let words: Vec<&str> = description.split(' ').collect();
        let at = words.iter().position(|word| word.starts_with("--"));
        assert_eq!(at.map(|at| words[at]), option);
        if let Some(at) = at {
            information(&words[at..]);
        }
    }
}
