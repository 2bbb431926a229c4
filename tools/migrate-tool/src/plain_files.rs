// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What types say about parameters in plain files, and a shell that needs no more than those. Its commands are the ones in
//! Documentation/ABI/testing/sysfs-bus-mdev-migration.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use serde_json::Value as Json;
use vfio_uapi::mdev::{Mdev, MdevType};

use crate::files::{text, TYPES};
use crate::host::{any, get, info, instance, name, run, set, values, Ran, Scratch, MODEL};

const ABI: &str = include_str!("../../../Documentation/ABI/testing/sysfs-bus-mdev-migration");

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        plain_files_of_a_type_say_what_its_json_says,
        plain_files_of_a_type_are_for_everybody_to_read,
        a_shell_makes_the_parameter_list_without_json,
        a_shell_sets_an_instance_up_without_json,
    );
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    ensure!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    Ok(text.lines().map(str::to_string).collect())
}

fn names(directory: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn plain_files_of_a_type_say_what_its_json_says() -> Result<()> {
    for ty in TYPES {
        let instance = instance(ty)?;
        let model = info(&instance)?["models"][MODEL].clone();
        let params = model["params"].as_object().context("params")?;
        let path = MdevType::find(ty)?.path().to_path_buf();
        let order: Vec<String> = serde_json::from_value(model["param_order"].clone())?;
        equal(
            "migration_params",
            lines(&path.join("migration_params"))?,
            order,
        )?;
        let (off, allowed) = (
            path.join("migration_off_values"),
            path.join("migration_allowed_values"),
        );
        let all: BTreeSet<String> = params.keys().cloned().collect();
        equal("migration_allowed_values", names(&allowed)?, all)?;
        let can_be_off = params
            .iter()
            .filter(|(_, def)| def.get("off_value").is_some());
        let can_be_off: BTreeSet<String> = can_be_off.map(|(name, _)| name.clone()).collect();
        ensure!(
            !can_be_off.is_empty() && can_be_off.len() < params.len(),
            "{can_be_off:?}"
        );
        equal("migration_off_values", names(&off)?, can_be_off)?;
        for (name, def) in params {
            let listed = def["allowed_values"].as_array().context("allowed_values")?;
            let listed: Vec<String> = listed.iter().map(text).collect();
            equal(format!("{ty}: {name}"), lines(&allowed.join(name))?, listed)?;
            if let Some(value) = def.get("off_value") {
                equal(
                    format!("{ty}: {name}"),
                    lines(&off.join(name))?,
                    vec![text(value)],
                )?;
            }
        }
    }
    Ok(())
}

fn plain_files_of_a_type_are_for_everybody_to_read() -> Result<()> {
    let path = MdevType::find("mdev_serial-any")?.path().to_path_buf();
    let mut files = vec![path.join("migration_params")];
    for directory in ["migration_off_values", "migration_allowed_values"] {
        let directory = path.join(directory);
        files.extend(names(&directory)?.iter().map(|name| directory.join(name)));
    }
    for file in files {
        let mode = fs::metadata(&file)?.permissions().mode() & 0o7777;
        equal(file.display(), mode, 0o444)?;
    }
    Ok(())
}

/// The commands of the ABI that make a list (0) or set an instance up (1).
fn commands(which: usize) -> Result<String> {
    let mut blocks: Vec<String> = Vec::new();
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
        if block.contains("$uuid") {
            blocks.push(block);
        }
    }
    equal("commands in the ABI", blocks.len(), 2)?;
    Ok(blocks.swap_remove(which))
}

/// Has a shell carry out commands of the ABI.
fn shell(which: usize, instance: &Mdev, list: &Path) -> Result<Ran> {
    let output = Command::new("sh")
        .args(["-euc", &commands(which)?])
        .env("uuid", name(instance))
        .env("list", list)
        .stdin(Stdio::null())
        .output()
        .context("sh cannot be started")?;
    Ok(output.into())
}

/// The parameter list that the tool makes, as a shell writes it.
fn effective(instance: &Mdev) -> Result<Vec<String>> {
    let listed = run(["--json", "params", &name(instance)])?
        .expect(0)?
        .json()?;
    let listed = listed["params"].as_object().context("params")?;
    let mut listed: Vec<String> = listed
        .iter()
        .map(|(name, value): (&String, &Json)| format!("{name}={}", text(value)))
        .collect();
    listed.sort();
    Ok(listed)
}

fn a_shell_makes_the_parameter_list_without_json() -> Result<()> {
    let instance = any()?;
    for writes in [
        &[][..],
        &[
            ("num-ports", "4"),
            ("fifo-depth", "64"),
            ("auto-flow", "off"),
            ("msi", "off"),
        ],
        &[
            ("auto-flow", "on"),
            ("fifo-depth", "16"),
            ("compact-state", "off"),
        ],
    ] {
        for (name, value) in writes {
            set(&instance, name, value).context(*name)?;
        }
        let ran = shell(0, &instance, Path::new("/nonexistent"))?.expect(0)?;
        let mut made: Vec<String> = ran.out.lines().map(str::to_string).collect();
        made.sort();
        equal("the list", made, effective(&instance)?)?;
    }
    Ok(())
}

fn a_shell_sets_an_instance_up_without_json() -> Result<()> {
    let scratch = Scratch::new()?;
    let (source, destination) = (any()?, any()?);
    for writes in [
        &[
            ("num-ports", "2"),
            ("fifo-depth", "64"),
            ("auto-flow", "off"),
        ][..],
        &[
            ("auto-flow", "on"),
            ("fifo-depth", "16"),
            ("num-ports", "1"),
            ("msi", "off"),
        ],
    ] {
        for (name, value) in writes {
            set(&source, name, value).context(*name)?;
        }
        let list = shell(0, &source, Path::new("/nonexistent"))?.expect(0)?.out;
        let list = scratch.with("list", list)?;
        shell(1, &destination, &list)?.expect(0)?;
        equal("values", values(&destination)?, values(&source)?)?;
    }
    // What is refused ends it, and the driver says why.
    let list = scratch.with("list", "num-ports=3\n")?;
    let ran = shell(1, &destination, &list)?;
    ensure!(ran.status != 0, "{ran:?}");
    let reason = get(&destination, "error")?;
    ensure!(
        reason.starts_with("num-ports: 3 is not one of"),
        "{reason:?}"
    );
    Ok(())
}
