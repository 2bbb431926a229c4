// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the files of types and instances say, and that they agree with each other.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use serde_json::{json, Value as Json};
use vfio_uapi::mdev::MdevType;

use crate::host::{any, definitions, get, info, instance, run, set, Scratch, MODEL};

pub const TYPES: [&str; 4] = [
    "mdev_serial-1",
    "mdev_serial-2",
    "mdev_serial-4",
    "mdev_serial-any",
];

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        every_type_has_its_migration_information,
        migration_information_reads_the_same_in_pieces,
        device_models_lists_the_versions,
        a_new_instance_has_the_initial_values,
        plain_files_and_compatible_agree,
        compatible_is_one_object_however_it_is_read,
        files_have_the_documented_modes,
        the_tool_reads_the_table_that_the_driver_printed,
    );
}

fn every_type_has_its_migration_information() -> Result<()> {
    for name in TYPES {
        let ty = MdevType::find(name)?;
        let info: Json =
            serde_json::from_str(&ty.attribute("migration_info.json")?).context(name)?;
        let models = info["models"].as_object().context("models")?;
        equal(
            "models of a type",
            models.keys().map(String::as_str).collect::<Vec<_>>(),
            vec![MODEL],
        )?;
        let generation = info["generation"].as_str().context("generation")?;
        ensure!(!generation.is_empty(), "{name}: an empty generation");
        let params = models[MODEL]["params"].as_object().context("params")?;
        for (param, def) in params {
            let kind = def["type"].as_str().context("type")?;
            let init = &def["init_value"];
            let fits = match kind {
                "bool" => init.is_boolean(),
                "int" => init.is_u64(),
                "str" => init.is_string(),
                _ => false,
            };
            ensure!(
                fits,
                "{name}: {param}: init_value {init} is not of type {kind}"
            );
        }
        // The fixed types allow what their names say.
        if let Some(ports) = name
            .strip_prefix("mdev_serial-")
            .and_then(|ports| ports.parse::<u64>().ok())
        {
            equal(
                name,
                params["num-ports"]["allowed_values"].clone(),
                json!([ports]),
            )?;
        } else {
            equal(
                name,
                params["num-ports"]["allowed_values"].clone(),
                json!([1, 2, 4]),
            )?;
        }
    }
    Ok(())
}

/// The files are read by offset, so that they may be longer than a page.
fn migration_information_reads_the_same_in_pieces() -> Result<()> {
    use std::os::unix::fs::FileExt;
    let path = MdevType::find("mdev_serial-any")?
        .path()
        .join("migration_info.json");
    let whole = fs::read(&path)?;
    let file = fs::File::open(&path)?;
    for step in [1, 7, 100] {
        let mut pieces = Vec::new();
        let mut buffer = vec![0; step];
        loop {
            match file.read_at(&mut buffer, pieces.len() as u64)? {
                0 => break,
                len => pieces.extend_from_slice(&buffer[..len]),
            }
        }
        equal(format!("read in steps of {step}"), &pieces, &whole)?;
    }
    equal(
        "read behind the end",
        file.read_at(&mut [0; 16], whole.len() as u64 + 5)?,
        0,
    )
}

fn device_models_lists_the_versions() -> Result<()> {
    let text = MdevType::find("mdev_serial-1")?.attribute("migration_device_models")?;
    equal("migration_device_models", text, format!("{MODEL}:\nv1\nv2"))
}

/// A value of the JSON as its file has it.
pub fn text(value: &Json) -> String {
    match value {
        Json::Bool(true) => "on".to_string(),
        Json::Bool(false) => "off".to_string(),
        Json::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn a_new_instance_has_the_initial_values() -> Result<()> {
    for ty in TYPES {
        let instance = instance(ty)?;
        for (name, def) in definitions(&instance)? {
            equal(
                format!("{ty}: {name}"),
                get(&instance, &name)?,
                text(&def["init_value"]),
            )?;
        }
        let init_version = info(&instance)?["models"][MODEL]["init_version"].clone();
        equal(
            "version",
            Json::String(get(&instance, "version")?),
            init_version,
        )?;
        equal(
            "device_model",
            get(&instance, "device_model")?,
            MODEL.to_string(),
        )?;
        equal("error", get(&instance, "error")?, String::new())?;
        equal("state", get(&instance, "state")?, "RUNNING".to_string())?;
        equal("phase", get(&instance, "phase")?, "none".to_string())?;
        equal("bytes", get(&instance, "bytes")?, "0".to_string())?;
        equal("sessions", get(&instance, "sessions")?, "0".to_string())?;
    }
    Ok(())
}

fn plain_files_and_compatible_agree() -> Result<()> {
    let instance = any()?;
    for (name, value) in [("num-ports", "4"), ("fifo-depth", "64"), ("msi", "off")] {
        set(&instance, name, value).context(name)?;
        let compatible: Json = serde_json::from_str(&get(&instance, "compatible")?)?;
        let own = &compatible["self"];
        equal(
            "mdev_type",
            own["mdev_type"].clone(),
            json!("mdev_serial-any"),
        )?;
        equal("model", own["model"].clone(), json!(MODEL))?;
        let listed = own["params"].as_object().context("params")?;
        for (name, def) in definitions(&instance)? {
            let here = get(&instance, &name)?;
            let off = def.get("off_value").map(text);
            match listed.get(&name) {
                Some(value) => {
                    equal(&name, text(value), here.clone())?;
                    ensure!(
                        off.as_ref() != Some(&here),
                        "{name} is listed, though it is off"
                    );
                }
                None => equal(format!("{name}, which is not listed"), off, Some(here))?,
            }
        }
        // What it is itself is among what is compatible, and so are the fixed types, which are named by what they fix. Both
        // take the state with these values and no others.
        let types = compatible["compatible"].as_array().context("compatible")?;
        let names: Vec<&str> = types
            .iter()
            .filter_map(|ty| ty["mdev_type"].as_str())
            .collect();
        equal(
            "types",
            names,
            vec!["mdev_serial-${num-ports}", "mdev_serial-any"],
        )?;
        for ty in types {
            let params = ty["params"].as_object().context("params")?;
            for name in definitions(&instance)?.into_keys() {
                let fitting = params
                    .get(&name)
                    .and_then(Json::as_array)
                    .context("params")?;
                let fitting: Vec<String> = fitting.iter().map(text).collect();
                equal(&name, fitting, vec![get(&instance, &name)?])?;
            }
        }
    }
    Ok(())
}

/// A parameter that is written between two reads of the file must not give a half of each.
fn compatible_is_one_object_however_it_is_read() -> Result<()> {
    let instance = any()?;
    let path = instance.path().join("migration/compatible");
    let before = fs::read(&path)?;
    for first in [1, 50, before.len() / 2, before.len() - 1] {
        let mut file = fs::File::open(&path)?;
        let mut read = vec![0; first];
        file.read_exact(&mut read)?;
        set(&instance, "num-ports", "4").context("num-ports")?;
        set(&instance, "msi", "off").context("msi")?;
        file.read_to_end(&mut read)?;
        equal(
            format!("read in two pieces, the first of {first} bytes"),
            String::from_utf8(read)?,
            String::from_utf8(before.clone())?,
        )?;
        // From the start again, it is as the parameters are now.
        file.rewind()?;
        let mut now = Vec::new();
        file.read_to_end(&mut now)?;
        let now: Json = serde_json::from_slice(&now)?;
        equal(
            "num-ports",
            now["self"]["params"]["num-ports"].clone(),
            json!(4),
        )?;
        set(&instance, "num-ports", "1").context("num-ports")?;
        set(&instance, "msi", "on").context("msi")?;
    }
    Ok(())
}

fn files_have_the_documented_modes() -> Result<()> {
    let instance = any()?;
    let directory = instance.path().join("migration");
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let mode = entry.metadata()?.permissions().mode() & 0o7777;
        let wanted = match name.as_str() {
            "compatible" | "error" | "state" | "phase" | "bytes" | "sessions" => 0o444,
            _ => 0o644,
        };
        equal(format!("mode of {name}"), mode, wanted)?;
        names.push(name);
    }
    names.sort();
    let mut wanted: Vec<String> = definitions(&instance)?.into_keys().collect();
    for name in [
        "bytes",
        "compatible",
        "device_model",
        "error",
        "phase",
        "sessions",
        "state",
        "version",
    ] {
        wanted.push(name.to_string());
    }
    wanted.sort();
    equal("files", names, wanted)
}

/// The document with the members of every object in the order of their names, as `jq -S` has them.
fn sorted(document: &Json) -> String {
    match document {
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(sorted).collect();
            format!("[{}]", items.join(","))
        }
        Json::Object(members) => {
            let members: BTreeMap<&String, &Json> = members.iter().collect();
            let member = |(name, value)| format!("{}:{}", json!(name), sorted(value));
            let members: Vec<String> = members.into_iter().map(member).collect();
            format!("{{{}}}", members.join(","))
        }
        plain => plain.to_string(),
    }
}

fn the_tool_reads_the_table_that_the_driver_printed() -> Result<()> {
    let scratch = Scratch::new()?;
    for name in TYPES {
        let printed = fs::read_to_string(MdevType::find(name)?.path().join("migration_info.json"))?;
        let read = run(["--json", "info", name])?.expect(0)?;
        equal(name, &read.out, &printed)?;
        // However somebody passed it on.
        let file = scratch.with("info.json", sorted(&serde_json::from_str(&printed)?))?;
        let file = file.display().to_string();
        let read = run(["--json", "info", &file])?.expect(0)?;
        equal(format!("{name}, sorted"), &read.out, &printed)?;
    }
    Ok(())
}
