// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where the output goes, and what may be in it.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::host::{end, info, list, Host, Ran, FIXED, FLEXIBLE, MODEL};

/// A saved state that is sound.
const STATE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../fuzz/corpus/stream/stop-and-copy"
);

/// Standard output that nobody reads any more.
fn no_reader() -> Stdio {
    let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let pipe = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    pipe.into()
}

/// Standard output on a disk that is full.
fn full() -> Stdio {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    full.into()
}

/// A command of each kind, and its answer.
struct Case {
    arguments: Vec<String>,
    status: i32,
    /// Whether the exit status is the answer; else the output is.
    answers: bool,
}

fn cases(host: &Host) -> Vec<Case> {
    let source = host.file("source.json", list(json!({"ports": 2, "msi": true})));
    let one = host.file("one.json", info("1"));
    let two = host.file("two.json", info("2"));
    let damaged = host.file("damaged", b"\x89\xffVFIO\r\n\x01\0");
    let mut cases = Vec::new();
    let mut add = |answers, status, arguments: &[&str]| {
        for json in [false, true] {
            let mut arguments: Vec<String> =
                arguments.iter().map(|word| word.to_string()).collect();
            arguments.extend(json.then(|| "--json".to_string()));
            cases.push(Case {
                arguments,
                status,
                answers,
            });
        }
    };
    add(true, 0, &["check", &source, &two]);
    add(true, 0, &["check", &source, FLEXIBLE]);
    add(true, 1, &["check", &source, &one]);
    add(true, 0, &["select", &source, &one, &two]);
    add(true, 1, &["select", &source, &one]);
    add(true, 0, &["prepare", "--dry-run", &source, FLEXIBLE]);
    add(true, 0, &["prepare", &source, FLEXIBLE]);
    add(true, 1, &["prepare", &source, FIXED]);
    add(true, 0, &["inspect", STATE]);
    add(true, 1, &["inspect", &damaged]);
    add(false, 0, &["types"]);
    add(false, 0, &["info", "card-any"]);
    add(false, 0, &["params", FIXED]);
    for shell in ["bash", "zsh", "fish"] {
        add(false, 0, &["completions", shell]);
    }
    add(false, 0, &["man"]);
    let callout = ["callout", "-u", FIXED, "-p", "card0", "-t", "card-1"];
    for action in ["capabilities", "attributes"] {
        let asked = ["-e", "get", "-a", action];
        add(false, 0, &[&callout[..], &asked[..]].concat());
    }
    add(false, 0, &["--help"]);
    add(false, 0, &["--version"]);
    cases
}

impl Case {
    fn run(&self, host: &Host, out: Stdio) -> Ran {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut command = host.command(&arguments);
        let child = command.stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }
}

#[test]
fn a_reader_that_has_gone_changes_no_answer() {
    let host = Host::new();
    for case in cases(&host) {
        let heard = case.run(&host, Stdio::piped());
        assert_eq!(heard.status, case.status, "{:?}: {heard:?}", case.arguments);
        let ran = case.run(&host, no_reader());
        assert_eq!(ran.status, case.status, "{:?}: {ran:?}", case.arguments);
        assert_eq!(ran.err, heard.err, "{:?}", case.arguments);
    }
}

#[test]
fn a_full_disk_changes_no_answer() {
    let host = Host::new();
    for case in cases(&host) {
        let ran = case.run(&host, full());
        let status = if case.answers { case.status } else { 2 };
        assert_eq!(ran.status, status, "{:?}: {ran:?}", case.arguments);
        assert_eq!(ran.err.lines().count(), 1, "{:?}: {ran:?}", case.arguments);
        // One line is enough; where the answer has a reason on standard error, it is that.
        if case.run(&host, Stdio::piped()).err.is_empty() {
            ran.says("vfio-migrate: standard output: No space left on device (ENOSPC)");
        }
    }
}

#[test]
fn a_pipeline_has_the_answer() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2})));
    let one = host.file("one.json", info("1"));
    // The reader is gone before, while or after the answer is printed.
    let script = r#"set -o pipefail; for n in {1..100}; do "$@" | true; echo $?; done"#;
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash", env!("CARGO_BIN_EXE_vfio-migrate")]);
    let ran = Ran::of(bash.args(["check", &source, &one]).output().unwrap());
    assert_eq!((ran.out, ran.err), ("1\n".repeat(100), String::new()));
}

#[test]
fn a_watch_ends_with_its_reader() {
    let host = Host::new();
    let instance = host.path("sys/bus/mdev/devices").join(FIXED);
    for (name, text) in [("state", "RUNNING"), ("phase", "none"), ("bytes", "0")] {
        fs::write(instance.join("migration").join(name), text).unwrap();
    }
    let mut watch = host.command(&["watch", FIXED]);
    let child = watch.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "state RUNNING       phase none           0 B\n");
    // Nothing changes any more.
    drop(out);
    let ran = end(child);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
}

#[test]
fn standard_error_that_is_full_changes_no_answer() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2})));
    for (arguments, status) in [
        (&["check", "/nonexistent", &source][..], 2),
        (&["prepare", &source, FIXED], 1),
        (&["select", &source, &source], 2),
        (&["nonsense"], 2),
    ] {
        for err in [full(), no_reader()] {
            let mut command = host.command(arguments);
            let ran = command.stdout(Stdio::null()).stderr(err).status().unwrap();
            assert_eq!(ran.code(), Some(status), "{arguments:?}");
        }
    }
}

/// Ends the line, clears the screen (twice), and writes backwards.
const HOSTILE: &str = "x\nyes  forged\u{1b}[2J\u{9b}2J\u{202e}\u{7f}";

/// Nothing for a terminal to obey.
#[track_caller]
fn harmless(what: &str, ran: &Ran) {
    for text in [&ran.out, &ran.err] {
        let bad = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(bad), "{what}: {ran:?}");
        assert!(!text.contains("\nyes  forged"), "{what}: {ran:?}");
        assert!(!text.starts_with("yes  forged"), "{what}: {ran:?}");
    }
}

#[test]
fn names_of_files_cannot_write_to_the_terminal() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2})));
    let good = host.file(&format!("{HOSTILE}-good.json"), info("2"));
    let bad = host.file(&format!("{HOSTILE}-bad.json"), info("1"));
    let broken = host.file(&format!("{HOSTILE}-broken.json"), "{");
    let missing = host.path(HOSTILE).display().to_string();
    let damaged = host.file(&format!("{HOSTILE}-state"), b"\x89\xffVFIO\r\n\x01\0");
    let directory = host.path("").display().to_string();
    for (arguments, status) in [
        (&["select", &source, &good, &bad][..], 0),
        (&["select", &source, &broken], 2),
        (&["select", &source, &directory], 2),
        (&["check", &source, &broken], 2),
        (&["check", &missing, &good], 2),
        (&["check", &source, &missing], 2),
        (&["info", &missing], 2),
        (&["inspect", &damaged], 1),
        (&["inspect", &missing], 2),
        (&["prepare", &source, &missing], 2),
        (&["params", &missing], 2),
        (&["man", &missing], 2),
        (&["load", FIXED, &missing], 2),
        // Wrong usage repeats the words.
        (&[&missing], 2),
        (&["check", &missing], 2),
        (&["check", &source, &good, &missing], 2),
        (&["save", "--protocol", &missing, FIXED], 2),
        (&["completions", &missing], 2),
    ] {
        for json in [None, Some("--json")] {
            let arguments: Vec<&str> = arguments.iter().copied().chain(json).collect();
            let ran = host.run(&arguments);
            assert_eq!(ran.status, status, "{arguments:?}: {ran:?}");
            harmless(&format!("{arguments:?}"), &ran);
        }
    }
    // The name is still that of the file.
    let ran = host.run(&["select", "--json", &source, &good]);
    assert_eq!(ran.json()["name"], good);
}

#[test]
fn documents_cannot_write_to_the_terminal() {
    let host = Host::new();
    let hostile = json!(HOSTILE).to_string();
    // Whatever the reader takes of it: no string may arrive as it is.
    let bare = &hostile[1..hostile.len() - 1];
    let source = host.file("source.json", list(json!({"ports": 2})));
    let texts = [
        info("2").replacen('{', &format!(r#"{{"name": {hostile}, "#), 1),
        info("2").replace(MODEL, bare),
        info("2").replace("\"ports\"", &hostile),
        info("2").replace("How many", bare),
        info("2").replace("\"v2\"", &hostile),
        info("2").replace("\"g\"", &hostile),
        info("2").replace("\"int\"", &hostile),
        info("2").replace("[2]", &format!("[{hostile}]")),
        info("2").replace("\"generation\"", &hostile),
        list(json!({"ports": 2})).replace("\"ports\"", &hostile),
        list(json!({"ports": HOSTILE})),
        list(json!({"ports": 2})).replace(MODEL, bare),
    ];
    for (index, text) in texts.iter().enumerate() {
        let path = host.file(&format!("{index}.json"), text);
        for arguments in [
            &["check", &source, &path][..],
            &["check", &path, "card-any"],
            &["select", &source, &path],
            &["info", &path],
            &["prepare", &path, FLEXIBLE],
        ] {
            for json in [None, Some("--json")] {
                let arguments: Vec<&str> = arguments.iter().copied().chain(json).collect();
                harmless(text, &host.run(&arguments));
            }
        }
        let line = text.replace('\n', " ");
        harmless(
            text,
            &host.run_with(&["select", &source, "-"], line.as_bytes()),
        );
    }
}

#[test]
fn sysfs_cannot_write_to_the_terminal() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 4})));
    let card = host.path("sys/devices/virtual/card/card0");
    let types = card.join("mdev_supported_types");
    let instance = |name: &str| card.join(FLEXIBLE).join("migration").join(name);
    // What is changed, one after the other, and made as it was.
    let files: Vec<PathBuf> = [
        "name",
        "available_instances",
        "device_api",
        "migration_info.json",
    ]
    .iter()
    .map(|name| types.join("card-any").join(name))
    .chain(["device_model", "version", "ports", "msi", "error"].map(instance))
    .collect();
    let everything = |what: &str| {
        for arguments in [
            &["types"][..],
            &["info", "card-any"],
            &["info", FLEXIBLE],
            &["info", "nothing"],
            &["params", FLEXIBLE],
            &["check", &source, FLEXIBLE],
            &["check", FLEXIBLE, "card-any"],
            &["prepare", "--dry-run", &source, FLEXIBLE],
            &["prepare", &source, FLEXIBLE],
            &["watch", "--once", FLEXIBLE],
        ] {
            for json in [None, Some("--json")] {
                let arguments: Vec<&str> = arguments.iter().copied().chain(json).collect();
                harmless(&format!("{what}: {arguments:?}"), &host.run(&arguments));
            }
        }
    };
    for (name, text) in [("state", "RUNNING"), ("phase", "none"), ("bytes", "0")] {
        fs::write(instance(name), text).unwrap();
    }
    for file in &files {
        let before = fs::read(file).unwrap();
        fs::write(file, HOSTILE.as_bytes()).unwrap();
        everything(&file.display().to_string());
        fs::write(file, before).unwrap();
    }
    for name in ["state", "phase", "bytes"] {
        fs::write(instance(name), HOSTILE).unwrap();
        everything(name);
        fs::write(instance(name), "0").unwrap();
    }
    let name = std::ffi::OsStr::from_bytes(HOSTILE.as_bytes());
    fs::create_dir(types.join(name)).unwrap();
    everything("the name of a type");
}
