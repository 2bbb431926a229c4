// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Device programs as destinations.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::host::{info, list, Host, FIXED, MODEL};

/// A program that prints this, if it is asked to. The document of these tests says nothing of an order, so parameters come by name.
pub fn program(host: &Host, name: &str, document: &str) -> String {
    let text = format!(
        "#!/bin/sh\n[ \"$*\" = --print-migration-info-json ] || exit 9\ncat <<'END'\n{document}\nEND\n"
    );
    let path = host.file(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_program_is_asked_what_it_offers() {
    let host = Host::new();
    let (two, four) = (
        program(&host, "two", &info("1, 2")),
        program(&host, "four", &info("4")),
    );
    host.run(&["info", &two]).expect(0).says("1, 2");
    let source = host.file("source.json", list(json!({"ports": 2, "msi": true})));
    host.run(&["check", &source, &two])
        .expect(0)
        .says("compatible; `vfio-migrate command-line")
        .says("QEMU up to 11.1 does not migrate vfio-user devices");
    let refused = host.run(&["check", &source, &four]).expect(1);
    assert!(!refused.err.contains("warning"), "{refused:?}");
    let document = host
        .run(&["check", "--json", &source, &two])
        .expect(0)
        .json();
    assert_eq!(document["compatible"], true);
    assert_eq!(document["warnings"].as_array().map(Vec::len), Some(1));
    // A file with the same words is no device, and nothing is lost by it.
    let file = host.file("offer.json", info("1, 2"));
    let checked = host.run(&["check", &source, &file]).expect(0);
    assert!(checked.err.is_empty(), "{checked:?}");

    let chosen = host
        .run(&["select", &source, &four, &two, "card-1"])
        .expect(0);
    let rows: Vec<&str> = chosen.out.lines().collect();
    assert!(rows[0].starts_with(&format!("yes  {two}")), "{rows:?}");
    assert!(rows[1].starts_with(&format!("no   {four}")), "{rows:?}");
}

#[test]
fn a_program_is_started_with_the_list_and_what_is_off() {
    let host = Host::new();
    let path = program(&host, "program", &info("1, 2"));
    let source = host.file("source.json", list(json!({"ports": 2})));
    let line = host.run(&["command-line", &source, &path]).expect(0);
    assert_eq!(line.out, format!("{path} --m-msi=off --m-ports=2\n"));
    let line = host.run(&["command-line", FIXED, &path]).expect(0);
    assert_eq!(line.out, format!("{path} --m-msi=on --m-ports=1\n"));
    let document = host.run(&["command-line", "--json", &source, &path]);
    let wanted = json!({"program": path, "arguments": ["--m-msi=off", "--m-ports=2"]});
    assert_eq!(document.expect(0).json(), wanted);

    // By a name that a shell would look for elsewhere.
    let here = host
        .command(&["command-line", &source, "program"])
        .current_dir(host.path(""))
        .output()
        .unwrap();
    let here = String::from_utf8(here.stdout).unwrap();
    assert_eq!(here, "./program --m-msi=off --m-ports=2\n");

    let other = host.file("other.json", list(json!({"ports": 4, "unknown": true})));
    let refused = host.run(&["command-line", &other, &path]).expect(1);
    assert!(refused.out.is_empty() && refused.err.lines().count() == 1);
    refused.says("ports: source has 4").says("unknown");
    host.run(&["command-line", &source, "card-any"])
        .expect(2)
        .says("not a program");
    host.run(&["command-line", &source, &host.file("offer.json", info("2"))])
        .expect(2)
        .says("not a program");
}

#[test]
fn names_and_values_that_a_shell_would_take_apart_are_quoted() {
    let host = Host::new();
    let document = info("1").replacen(
        r#""ports""#,
        r#""label": {"type": "str", "init_value": "a"}, "ports""#,
        1,
    );
    let path = program(&host, "a program", &document);
    let source = host.file("s.json", list(json!({"label": "it's $1", "ports": 1})));
    let line = host.run(&["command-line", &source, &path]).expect(0);
    let words = std::process::Command::new("sh")
        .args(["-c", &format!("printf '%s|' {}", line.out.trim_end())])
        .output()
        .unwrap();
    let words = String::from_utf8(words.stdout).unwrap();
    assert_eq!(
        words,
        format!("{path}|--m-label=it's $1|--m-msi=off|--m-ports=1|")
    );
}

#[test]
fn programs_of_several_models_and_of_versions_are_told_which() {
    let host = Host::new();
    let two = info("1").replacen(
        r#""models": {"#,
        r#""models": {"example.org/disk": {"params": {"size": {"type": "int", "init_value": 1}}}, "#,
        1,
    );
    let path = program(&host, "two-models", &two);
    let source = host.file("source.json", list(json!({"ports": 1})));
    let line = host.run(&["command-line", &source, &path]).expect(0);
    let wanted = format!("{path} --migration-model={MODEL} --m-msi=off --m-ports=1\n");
    assert_eq!(line.out, wanted);

    let versions = format!(r#"{{"models": {{"{MODEL}": {{"versions": ["v1", "v2"]}}}}}}"#);
    let path = program(&host, "versions", &versions);
    let source = host.file("v.json", list(json!({"version": "v2"})));
    let line = host.run(&["command-line", &source, &path]).expect(0);
    let wanted = format!("{path} --migration-model={MODEL} --migration-version=v2\n");
    assert_eq!(line.out, wanted);
}

#[test]
fn a_program_that_fails_or_prints_something_else_is_no_answer() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 1})));
    let prints = program(&host, "prints", "hello");
    let fails = host.file("fails", "#!/bin/sh\necho 'no such disk' >&2\nexit 1\n");
    fs::set_permissions(&fails, fs::Permissions::from_mode(0o755)).unwrap();
    host.run(&["check", &source, &prints])
        .expect(2)
        .says("prints:1:1");
    host.run(&["check", &source, &fails])
        .expect(2)
        .says("--print-migration-info-json: exit status: 1: no such disk");
    let good = program(&host, "good", &info("1"));
    let chosen = host.run(&["select", &source, &fails, &good]).expect(2);
    assert!(chosen
        .out
        .lines()
        .any(|row| row.starts_with(&format!("yes  {good}"))));
    assert!(chosen.out.contains("no such disk"), "{chosen:?}");
}
