// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What `--json` prints, against the schema that documents it. What needs a device is tested in the test machine.

use std::fs;

use jsonschema::Validator;
use serde_json::{json, Value as Json};

use crate::host::{info, list, Host, Ran, FIXED, FLEXIBLE};

const SCHEMA: &str = include_str!("../../../../Documentation/vfio-migrate.schema.json");

/// The part of the schema about one command.
fn validator(definition: &str) -> Validator {
    let mut schema: Json = serde_json::from_str(SCHEMA).unwrap();
    let schema = schema.as_object_mut().unwrap();
    assert!(schema["$defs"][definition].is_object(), "{definition}");
    schema.remove("anyOf");
    schema.insert("$ref".to_string(), json!(format!("#/$defs/{definition}")));
    jsonschema::validator_for(&Json::Object(schema.clone())).unwrap()
}

#[track_caller]
fn assert_valid(definition: &str, document: &Json) {
    let validator = validator(definition);
    let errors: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{definition}: {document:#}: {errors:#?}");
}

/// One document, as the schema has it.
#[track_caller]
fn document(host: &Host, status: i32, definition: &str, arguments: &[&str]) -> Json {
    let ran = host.run(&[&["--json"], arguments].concat());
    assert_eq!(ran.status, status, "{ran:?}");
    let document = ran.json();
    assert_valid(definition, &document);
    document
}

#[track_caller]
fn lines(ran: &Ran) -> Vec<Json> {
    let lines = ran.out.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {ran:?}")))
        .collect()
}

#[test]
fn the_schema_is_one() {
    let schema: Json = serde_json::from_str(SCHEMA).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    for document in [
        json!({"error": {"message": "m", "status": 3, "reasons": []}}),
        json!({"compatible": true}),
        json!({"types": [{}]}),
    ] {
        assert!(!jsonschema::is_valid(&schema, &document), "{document}");
    }
}

#[test]
fn every_answer_is_as_the_schema_has_it() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2, "msi": true})));
    let other = host.file("other.json", r#"{"model": "m", "params": {}}"#);
    document(&host, 0, "types", &["types"]);
    document(&host, 0, "info", &["info", "card-any"]);
    document(&host, 0, "info", &["info", FLEXIBLE]);
    document(&host, 0, "params", &["params", FLEXIBLE]);
    document(&host, 0, "check", &["check", &source, "card-any"]);
    document(&host, 0, "check", &["check", &source, FLEXIBLE]);
    document(&host, 1, "check", &["check", &source, "card-1"]);
    document(&host, 1, "check", &["check", &other, "card-1"]);
    document(
        &host,
        0,
        "prepare",
        &["prepare", "--dry-run", &source, FLEXIBLE],
    );
    let writes = document(&host, 0, "prepare", &["prepare", &source, FLEXIBLE]);
    assert_eq!(
        writes["changes"],
        json!([{"name": "ports", "from": 1, "to": 2}])
    );
    let state = host.file("state", b"\x89\xffVFIO\r\n\x01\0");
    document(&host, 1, "inspect", &["inspect", &state]);
    let migration = host.path(format!("sys/bus/mdev/devices/{FLEXIBLE}/migration"));
    for (name, text) in [("state", "RUNNING"), ("phase", "none"), ("bytes", "0")] {
        fs::write(migration.join(name), format!("{text}\n")).unwrap();
    }
    document(&host, 0, "watch", &["watch", "--once", FLEXIBLE]);
}

#[test]
fn every_reason_is_as_the_schema_has_it() {
    let host = Host::new();
    let destination = r#"{"models": {"m": {"params": {
        "ports": {"type": "int", "allowed_values": [1, "4-8"], "init_value": 1},
        "serial": {"type": "str", "max_length": 4, "init_value": "", "off_value": ""},
        "label": {"type": "str", "allowed_values": ["x"], "init_value": "x", "off_value": "x"},
        "depth": {"type": "int", "init_value": 0, "off_value": 0, "requires": {"label": ["y"]}}}}}}"#;
    let destination = host.file("destination.json", destination);
    let mut codes = Vec::new();
    for (source, reasons) in [
        (
            json!({"model": "other", "params": {}}),
            json!([{"code": "other-model", "source": "other", "destination": "m"}]),
        ),
        (
            json!({"model": "m", "params": {"label": true, "new": "a\"b"}}),
            json!([
                {"code": "wrong-type", "parameter": "label", "source": true, "expected": "str"},
                {"code": "unknown-parameter", "parameter": "new", "source": "a\"b"},
                {"code": "missing", "parameter": "ports", "allowed": [1, "4-8"]},
            ]),
        ),
        (
            json!({"model": "m", "params": {"ports": 1, "serial": "too long"}}),
            json!([{"code": "not-allowed", "parameter": "serial", "source": "too long", "allowed": null, "max_length": 4}]),
        ),
        (
            json!({"model": "m", "params": {"ports": 2, "depth": 3}}),
            json!([
                {"code": "not-allowed", "parameter": "ports", "source": 2, "allowed": [1, "4-8"]},
                {"code": "requirement-not-met", "parameter": "depth", "source": 3, "requires": "label", "allowed": ["y"], "value": "x"},
            ]),
        ),
    ] {
        let source = host.file("source.json", source.to_string());
        let mut answer = document(&host, 1, "check", &["check", &source, &destination]);
        for reason in answer["reasons"].as_array_mut().unwrap() {
            let text = reason.as_object_mut().unwrap().remove("text").unwrap();
            assert!(
                text.as_str().is_some_and(|text| text.contains(": ")),
                "{text}"
            );
            codes.push(reason["code"].as_str().unwrap().to_string());
        }
        assert_eq!(answer["reasons"], reasons);
    }
    codes.sort();
    codes.dedup();
    assert_eq!(codes.len(), 6, "{codes:?}");
}

#[test]
fn every_row_of_select_is_as_the_schema_has_it() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2, "msi": true})));
    let cache = host.path("cache").display().to_string();
    let july = json!({"self": {"model": "m", "params": {}}, "compatible": [{"mdev_type": "t", "model": "m"}]});
    let none = json!({"self": july["self"], "compatible": []});
    let input = format!(
        "{}\n{}\n{july}\n{none}\nbroken\n{{\"models\": {{\"m\": {{\"params\": {{}}}}}}}}\n",
        info("1").replace('\n', " "),
        info("2").replace('\n', " ")
    );
    for times in ["first", "second"] {
        for cached in [&["--cache", &cache][..], &[]] {
            let arguments = [
                &["--json", "select"],
                cached,
                &[&source, "-", FIXED, "card-any"],
            ]
            .concat();
            let ran = host.run_with(&arguments, input.as_bytes());
            assert_eq!(ran.status, 2, "{ran:?}");
            let mut rows = lines(&ran);
            assert_valid("failure", &rows.pop().unwrap());
            assert_eq!(rows.len(), 8, "{times}: {rows:?}");
            rows.iter().for_each(|row| assert_valid("select", row));
        }
    }
}

/// A program that reads standard output only is told as well, by one object.
#[test]
fn a_failure_is_an_object() {
    let host = Host::new();
    let source = host.file("source.json", list(json!({"ports": 2, "msi": true})));
    let broken = host.file("broken.json", "{");
    let types = host.path("sys/devices/virtual/card/card0/mdev_supported_types");
    for (status, arguments) in [
        (2, &["check", "/nonexistent", "card-1"][..]),
        (2, &["check", "-", "-"]),
        (2, &["check", &broken, "card-1"]),
        (2, &["info", "nothing"]),
        (2, &["params", "no-uuid"]),
        (2, &["select", &source, "-", "-"]),
        (1, &["prepare", &source, FIXED]),
        (2, &["save", FIXED, &broken]),
        (2, &["load", FIXED, &broken]),
        (2, &["copy", FIXED, FLEXIBLE]),
        (2, &["inspect", "/nonexistent"]),
        (2, &["watch", "no-uuid"]),
        // Wrong usage.
        (2, &["check"]),
        (2, &["nonsense"]),
        (2, &["watch", "--once", "--until-end", FIXED]),
    ] {
        let failure = document(&host, status, "failure", arguments);
        assert_eq!(failure["error"]["status"], status, "{arguments:?}");
        let ran = host.run(&[&["--json"], arguments].concat());
        let message = failure["error"]["message"].as_str().unwrap();
        assert!(ran.err.contains(message), "{message:?} is not in {ran:?}");
    }
    let failure = document(&host, 1, "failure", &["prepare", &source, FIXED]);
    assert_eq!(failure["error"]["reasons"][0]["code"], "not-allowed");
    // An answer that tells of the failure is the only one.
    fs::write(types.join("card-1/migration_info.json"), "{").unwrap();
    let ran = host.run(&["--json", "types"]);
    assert_valid("types", &ran.json());
    assert!(ran.json()["types"][0]["error"].is_string(), "{ran:?}");
}
