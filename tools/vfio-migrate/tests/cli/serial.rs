// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A parameter whose values are text of bounded length.

use jsonschema::Validator;
use serde_json::{json, Value as Json};

use crate::host::{Host, FIXED};
use crate::programs::program;

/// Migration information of a disk whose serial number may be so long.
fn disk(serial: &str) -> String {
    format!(
        r#"{{"models": {{"example.org/pci/disk": {{"params": {{
            "mib": {{"type": "int", "allowed_values": ["1-64"], "init_value": 64}},
            "serial": {{"type": "str", {serial}, "init_value": "", "off_value": ""}}}}}}}}}}"#
    )
}

const LONG: &str = r#""max_length": 20"#;
const SHORT: &str = r#""max_length": 4"#;
const ANY: &str = r#""description": "as somebody else has it""#;

fn source(host: &Host, params: Json) -> String {
    let list = json!({"model": "example.org/pci/disk", "params": params});
    host.file("source.json", list.to_string())
}

#[test]
fn check_and_select_tell_who_has_room_for_it() {
    let host = Host::new();
    let [long, short, any] = [("long", LONG), ("short", SHORT), ("any", ANY)]
        .map(|(name, serial)| host.file(name, disk(serial)));
    let of = |serial: &str| source(&host, json!({"mib": 64, "serial": serial}));
    host.run(&["check", &of("WD-1234"), &long]).expect(0);
    host.run(&["check", &of("WD-1234"), &any]).expect(0);
    host.run(&["check", &of("WD-1234"), &short]).expect(1).says(
        "serial: source has \"WD-1234\", this device allows printable ASCII of up to 4 characters",
    );
    for destination in [&long, &short] {
        host.run(&["check", &of("größ"), destination]).expect(1);
        // A source that knows no such parameter.
        host.run(&["check", &source(&host, json!({"mib": 64})), destination])
            .expect(0);
    }
    let chosen = host.run(&["select", &of("WD-1234"), &short, &any, &long]);
    let rows: Vec<String> = chosen.expect(0).out.lines().map(str::to_string).collect();
    let verdict = |path: &str| {
        let row = rows.iter().find(|row| row.contains(&format!(" {path} ")));
        row.map(|row| row.split_whitespace().next().unwrap().to_string())
    };
    assert_eq!(
        [&long, &short, &any].map(|path| verdict(path)),
        ["yes", "no", "yes"].map(|word| Some(word.to_string())),
        "{rows:?}"
    );
}

#[test]
fn info_shows_the_length_and_prints_it_again() {
    let host = Host::new();
    let document = disk(LONG);
    let path = host.file("disk", &document);
    host.run(&["info", &path])
        .expect(0)
        .says("printable ASCII of up to 20 characters");
    let printed = host.run(&["info", "--json", &path]).expect(0).json();
    let given: Json = serde_json::from_str(&document).unwrap();
    let serial = |info: &Json| info["models"]["example.org/pci/disk"]["params"]["serial"].clone();
    assert_eq!(serial(&printed), serial(&given));
    assert!(serial(&given)["max_length"] == 20);
    let schema = include_str!("../../../../Documentation/vfio-migrate.schema.json");
    let schema: Validator =
        jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    assert!(schema.is_valid(&printed), "{printed:#}");
}

#[test]
fn a_program_is_started_with_it_or_without() {
    let host = Host::new();
    let path = program(&host, "program", &disk(LONG));
    let with = source(&host, json!({"mib": 8, "serial": "WD 1234"}));
    let line = host.run(&["command-line", "--json", &with, &path]);
    assert_eq!(
        line.expect(0).json()["arguments"],
        json!(["--m-mib=8", "--m-serial=WD 1234"])
    );
    let without = source(&host, json!({"mib": 8}));
    let line = host.run(&["command-line", &without, &path]).expect(0);
    assert_eq!(line.out, format!("{path} --m-mib=8 --m-serial=\n"));
    let long = source(&host, json!({"mib": 8, "serial": "123456789012345678901"}));
    let refused = host.run(&["command-line", &long, &path]).expect(1);
    assert!(refused.out.is_empty(), "{refused:?}");
    refused.says("allows printable ASCII of up to 20 characters");
    // Of another model altogether.
    host.run(&["command-line", FIXED, &path]).expect(1);
}
