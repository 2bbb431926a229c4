// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The examples of the documentation are what a driver prints, and what the program reads.

use std::process::Command;

use migration::info::{Compatible, Family, MigrationInfo};
use migration::model::{Allowed, InUse, IntRange, Model, Narrowed, ParamDef, Type, Values};
use migration::value::Value;
use serde_json::{json, Value as Json};
use vfio_migrate::json::{read_info, Bump};

const ABI: &str = include_str!("../../../Documentation/ABI/testing/sysfs-bus-mdev-migration");

/// The examples in JSON, by one of their members.
fn example(member: &str) -> Json {
    let mut found = Vec::new();
    let mut lines = ABI.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.ends_with("::") {
            continue;
        }
        let mut block = String::new();
        while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with("\t\t  ")) {
            block.push_str(line);
            block.push('\n');
        }
        if block.trim_start().starts_with('{') {
            let example: Json =
                serde_json::from_str(&block).unwrap_or_else(|error| panic!("{error}: {block}"));
            found.extend(Some(example).filter(|example| example.get(member).is_some()));
        }
    }
    assert_eq!(found.len(), 1, "examples with {member:?}");
    found.remove(0)
}

#[test]
fn the_example_of_migration_information_is_what_a_driver_prints() {
    let example = example("models");
    let text = example.to_string();
    let arena = Bump::new();
    let info = read_info(&arena, text.as_bytes()).unwrap();
    // A driver whose tables are these would build, and print this.
    assert_eq!(info.types[0].problem(), None);
    let printed = MigrationInfo {
        generation: info.generation,
        types: info.types,
    };
    let printed: Json = serde_json::from_str(&printed.to_string()).unwrap();
    assert_eq!(printed, example);
}

#[test]
fn the_example_of_compatible_is_what_a_driver_prints() {
    const NUMBERS: [IntRange; 3] = [IntRange::one(1), IntRange::one(2), IntRange::one(4)];
    static MODEL: Model<'static> = Model {
        name: "example.org/pci/card",
        params: &[
            ParamDef {
                allowed: Allowed::Int(&NUMBERS),
                ..ParamDef::new("queues", Value::Int(1))
            },
            ParamDef {
                off: Some(Value::Bool(false)),
                ..ParamDef::new("msi", Value::Bool(true))
            },
        ],
        versions: &[],
        init_version: None,
    }
    .validated();
    const fn fixed(allowed: &'static [IntRange]) -> Narrowed<'static> {
        Narrowed {
            param: "queues",
            allowed: Allowed::Int(allowed),
            init: Value::Int(allowed[0].min),
        }
    }
    const fn offer(narrowed: &'static [Narrowed<'static>]) -> Type<'static> {
        Type {
            model: &MODEL,
            narrowed,
            init_version: None,
        }
        .validated()
    }
    static FIXED: [Type<'static>; 2] = [
        offer(&[fixed(&[IntRange::one(1)])]),
        offer(&[fixed(&[IntRange::one(2)])]),
    ];
    static ANY: [Type<'static>; 1] = [Type::of(&MODEL)];
    let values = Values::new(&FIXED[1]);
    let values = values.with_text(1, b"off\n", InUse::Closed).unwrap();
    let printed = Compatible {
        mdev_type: "card-2",
        device_api: "vfio-pci",
        values: &values,
        families: &[
            Family {
                pattern: "card-${queues}",
                types: &FIXED,
            },
            Family {
                pattern: "card-any",
                types: &ANY,
            },
        ],
    };
    let printed: Json = serde_json::from_str(&printed.to_string()).unwrap();
    assert_eq!(printed, example("self"));
}

#[test]
fn a_generation_that_a_document_lacks_is_not_made_up() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("info.json");
    let document = |generation: &str| {
        let params = r#"{"p": {"type": "bool", "init_value": true}}"#;
        format!(r#"{{{generation}"models": {{"m": {{"params": {params}}}}}}}"#)
    };
    for (generation, wanted) in [("", None), (r#""generation": "","#, Some(json!("")))] {
        std::fs::write(&path, document(generation)).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_vfio-migrate"))
            .args(["--json", "info"])
            .arg(&path)
            .output()
            .unwrap();
        let shown: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shown.get("generation").cloned(), wanted);
    }
}
