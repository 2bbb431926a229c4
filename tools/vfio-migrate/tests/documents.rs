// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The examples of the documentation are what a driver prints, and what the program reads.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

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

/// The program on a tree that is laid out as sysfs is.
fn run(sysfs: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vfio-migrate"));
    let command = command.arg("--sysfs").arg(sysfs).args(arguments);
    command.output().unwrap()
}

/// An instance in a tree that is laid out as sysfs is: its type's document, and its files.
fn instance(document: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, &'static str) {
    const UUID: &str = "5f0c8a51-7a1e-4b8a-9d5c-0c1f5a7e0003";
    let directory = tempfile::TempDir::new().unwrap();
    let ty = directory.path().join("card0/mdev_supported_types/card-1");
    let instance = directory.path().join("bus/mdev/devices").join(UUID);
    fs::create_dir_all(&ty).unwrap();
    fs::create_dir_all(instance.join("migration")).unwrap();
    fs::write(ty.join("migration_info.json"), document).unwrap();
    symlink(ty, instance.join("mdev_type")).unwrap();
    for (name, text) in files {
        fs::write(instance.join("migration").join(name), format!("{text}\n")).unwrap();
    }
    (directory, UUID)
}

#[test]
fn an_instance_s_value_that_no_stream_can_carry_is_a_reason() {
    let document = r#"{"models": {"m": {"params": {"label": {"type": "str", "init_value": "", "off_value": ""}}}}}"#;
    let long = "l".repeat(65);
    let (sysfs, uuid) = instance(document, &[("device_model", "m"), ("label", &long)]);
    let shown = run(sysfs.path(), &["params", uuid]);
    assert!(shown.status.success(), "{shown:?}");
    let file = sysfs.path().join("info.json");
    fs::write(&file, document).unwrap();
    let refused = run(sysfs.path(), &["check", uuid, file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8(refused.stdout).unwrap();
    assert!(
        said.contains("label: the source's value is longer than 64 bytes"),
        "{said}"
    );
}

#[test]
fn a_model_known_by_its_versions_is_set_up_by_writing_the_version() {
    let document = r#"{"models": {"m": {"versions": ["1", "2"]}}}"#;
    let (sysfs, uuid) = instance(
        document,
        &[("device_model", "m"), ("version", "1"), ("error", "")],
    );
    let source = sysfs.path().join("source.json");
    fs::write(&source, r#"{"model": "m", "version": "2"}"#).unwrap();
    let source = source.to_str().unwrap();
    assert!(run(sysfs.path(), &["check", source, uuid]).status.success());
    let prepared = run(sysfs.path(), &["prepare", source, uuid]);
    assert!(prepared.status.success(), "{prepared:?}");
    let file = sysfs
        .path()
        .join("bus/mdev/devices")
        .join(uuid)
        .join("migration/version");
    assert_eq!(fs::read_to_string(file).unwrap().trim_end(), "2");
    fs::write(source, r#"{"model": "m", "version": "3"}"#).unwrap();
    assert_eq!(
        run(sysfs.path(), &["check", source, uuid]).status.code(),
        Some(1)
    );
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
        fs::write(&path, document(generation)).unwrap();
        let output = run(
            directory.path(),
            &["--json", "info", path.to_str().unwrap()],
        );
        let shown: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shown.get("generation").cloned(), wanted);
    }
}
