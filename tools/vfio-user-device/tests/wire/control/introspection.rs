// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the program says of itself.

use std::collections::BTreeSet;

use serde_json::{json, Value};
use vfio_user_device::control::commands::COMMANDS;

use super::Many;
use crate::program::command;

#[test]
fn the_schema_has_the_commands_that_there_are() {
    let many = Many::start(&["--max-ports=2"]);
    let mut qmp = many.qmp();
    let schema = qmp.ok("query-schema", json!({}));
    let definitions = schema["$defs"].as_object().expect("definitions");
    let in_schema: BTreeSet<&str> = definitions
        .keys()
        .filter_map(|name| name.strip_suffix(".arguments"))
        .collect();
    let commands = qmp.ok("query-commands", json!({}));
    let commands: BTreeSet<&str> = commands
        .as_array()
        .expect("commands")
        .iter()
        .map(|command| command["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(commands, in_schema);
    assert_eq!(commands.len(), COMMANDS.len());
    for name in in_schema {
        assert!(definitions.contains_key(&format!("{name}.returns")));
    }
    // And the argument names: what it does not know is refused by the program, too.
    for name in commands {
        let (errno, text) = qmp.refused(name, json!({"no-such-argument": 1}));
        assert_eq!(errno, None);
        assert!(text.contains("no-such-argument"), "{name}: {text}");
        let known = &definitions[&format!("{name}.arguments")]["properties"];
        for argument in known.as_object().expect("arguments").keys() {
            // A value that no argument has.
            let (_, text) = qmp.refused(name, json!({argument.as_str(): [[0.5]]}));
            assert!(text.contains("invalid type"), "{name} {argument}: {text}");
        }
    }
}

#[test]
fn migration_information_is_what_the_program_prints() {
    let many = Many::start(&["--max-ports=2"]);
    let printed = command()
        .args(["--print-migration-info-json", "--max-ports=2"])
        .output()
        .expect("the program");
    let printed: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let mut qmp = many.qmp();
    assert_eq!(qmp.ok("query-migration-info", json!({})), printed);
    let source =
        json!({"model": "rust-vfio-mdev.example/pci/serial", "params": {"num-ports": 4, "x": "y"}});
    let check = qmp.ok("migration-check", json!({"source": source}));
    assert_eq!(check["compatible"], false);
    let reasons = check["reasons"].as_array().expect("reasons");
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    let source = json!({"model": "rust-vfio-mdev.example/pci/serial", "params": {"num-ports": 2}});
    let check = qmp.ok("migration-check", json!({"source": source}));
    assert_eq!(check, json!({"compatible": true, "reasons": []}));
}
