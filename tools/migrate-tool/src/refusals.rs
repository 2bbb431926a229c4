// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Values that are refused, each with its errno and a reason, and without an effect.

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::{equal, refused};
use serde_json::Value as Json;
use vfio_uapi::mdev::Mdev;
use vfio_uapi::{Errno, State};

use crate::host::{any, definitions, get, open, set, unchanged, values};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        values_of_the_wrong_type_are_refused,
        values_that_are_not_allowed_are_refused,
        over_long_values_are_refused,
        values_with_a_nul_or_newline_inside_are_refused,
        one_trailing_newline_is_accepted,
        a_value_that_breaks_a_requirement_is_refused,
        hardware_parameters_are_busy_while_the_device_is_open,
        runtime_parameters_change_while_the_device_is_open,
        no_parameter_changes_while_state_is_saved_or_loaded,
        unknown_versions_and_models_are_refused,
        read_only_files_are_read_only,
        a_success_clears_the_reason,
        parameters_outlive_the_open_device,
    );
}

/// Fails unless the write is refused with `errno`, a reason that starts with the name of the file, and no effect.
fn refuses(instance: &Mdev, name: &str, text: impl AsRef<[u8]>, errno: Errno) -> Result<()> {
    let text = text.as_ref();
    let before = values(instance)?;
    let shown: String = String::from_utf8_lossy(text).chars().take(40).collect();
    refused(
        format!("{name}: {shown:?}"),
        set(instance, name, text),
        errno,
    )?;
    unchanged(instance, &before)?;
    let reason = get(instance, "error")?;
    ensure!(
        reason.starts_with(&format!("{name}: ")),
        "{name}: {shown:?}: the reason is {reason:?}"
    );
    Ok(())
}

/// The names of the parameters of this type.
fn of_kind(instance: &Mdev, kind: &str) -> Result<Vec<String>> {
    let all = definitions(instance)?;
    let is_it = |(name, def): (String, Json)| (def["type"] == kind).then_some(name);
    Ok(all.into_iter().filter_map(is_it).collect())
}

fn values_of_the_wrong_type_are_refused() -> Result<()> {
    let instance = any()?;
    for name in of_kind(&instance, "bool")? {
        for text in [
            "\n", "true", "false", "1", "0", "On", "OFF", "o", "onn", " on", "on ",
        ] {
            refuses(&instance, &name, text, Errno::EINVAL)?;
        }
    }
    for name in of_kind(&instance, "int")? {
        for text in [
            "\n", "on", "one", "-1", "+1", "01", "0x1", "1.0", "1e0", " 1", "1 ", "1,2", "1-2",
            "\u{661}",
        ] {
            refuses(&instance, &name, text, Errno::EINVAL)?;
        }
    }
    for name in definitions(&instance)?.keys() {
        refuses(&instance, name, [0xff, 0xfe], Errno::EINVAL)?;
    }
    Ok(())
}

fn values_that_are_not_allowed_are_refused() -> Result<()> {
    let instance = any()?;
    for (name, text) in [
        ("num-ports", "0"),
        ("num-ports", "3"),
        ("num-ports", "5"),
        ("num-ports", "18446744073709551615"),
        ("num-ports", "18446744073709551616"),
        ("fifo-depth", "0"),
        ("fifo-depth", "17"),
        ("fifo-depth", "4294967312"),
    ] {
        refuses(&instance, name, text, Errno::EINVAL)?;
    }
    let fixed = crate::host::instance("mdev_serial-2")?;
    refuses(&fixed, "num-ports", "1", Errno::EINVAL)?;
    refuses(&fixed, "num-ports", "4", Errno::EINVAL)
}

fn over_long_values_are_refused() -> Result<()> {
    let instance = any()?;
    for name in definitions(&instance)?.keys() {
        for len in [65, 256, 4095] {
            refuses(&instance, name, vec![b'1'; len], Errno::EINVAL)?;
        }
    }
    for name in ["version", "device_model"] {
        refuses(&instance, name, vec![b'v'; 4000], Errno::EINVAL)?;
    }
    Ok(())
}

fn values_with_a_nul_or_newline_inside_are_refused() -> Result<()> {
    let instance = any()?;
    let mut files = values(&instance)?;
    for name in ["version", "device_model"] {
        files.insert(name.to_string(), get(&instance, name)?);
    }
    for (name, value) in files {
        for text in [
            format!("{value}\0"),
            format!("\0{value}"),
            format!("{value}\0\n"),
            format!("{value}\n\n"),
            format!("\n{value}"),
            format!("{value}\r\n"),
            format!("{value}\n{value}"),
        ] {
            refuses(&instance, &name, text, Errno::EINVAL)?;
        }
    }
    Ok(())
}

fn one_trailing_newline_is_accepted() -> Result<()> {
    let instance = any()?;
    for (name, text) in [
        ("num-ports", "2"),
        ("num-ports", "1\n"),
        ("fifo-depth", "64\n"),
        ("msi", "off\n"),
        ("msi", "on"),
        ("compact-state", "off\n"),
        ("version", "v1\n"),
        ("version", "v2"),
        ("device_model", "rust-vfio-mdev.example/pci/serial\n"),
    ] {
        set(&instance, name, text).with_context(|| format!("{name}: {text:?}"))?;
        equal(
            name,
            get(&instance, name)?,
            text.trim_end_matches('\n').to_string(),
        )?;
    }
    Ok(())
}

/// The value of a parameter in sysfs that JSON gives as this.
fn in_sysfs(value: &Json) -> String {
    match value {
        Json::Bool(true) => "on".into(),
        Json::Bool(false) => "off".into(),
        Json::String(text) => text.clone(),
        number => number.to_string(),
    }
}

fn a_value_that_breaks_a_requirement_is_refused() -> Result<()> {
    let instance = any()?;
    let all = definitions(&instance)?;
    let allowed_values = |name: &str| {
        let values = all[name]["allowed_values"].as_array();
        values.with_context(|| format!("allowed_values of {name}"))
    };
    let mut tried = 0;
    for (name, def) in &all {
        let Some(requires) = def.get("requires").and_then(Json::as_object) else {
            continue;
        };
        let off = &def["off_value"];
        let effective = allowed_values(name)?.iter().find(|value| *value != off);
        let (off, effective) = (
            in_sysfs(off),
            in_sysfs(effective.context("a value that is not off")?),
        );
        for (other, wanted) in requires {
            let wanted = wanted.as_array().context("requires")?;
            let bad = allowed_values(other)?
                .iter()
                .find(|value| !wanted.contains(value));
            let (bad, good) = (
                in_sysfs(bad.context("a value that breaks it")?),
                in_sysfs(wanted.first().context("a value that does")?),
            );
            // Without what it requires it can be off only.
            set(&instance, other, &bad).context("the other one")?;
            let reason = format!("{name}: {effective} requires {other} {good}, not {bad}");
            refuses(&instance, name, &effective, Errno::EINVAL)?;
            equal("reason", get(&instance, "error")?, reason.clone())?;
            set(&instance, name, &off).context("off")?;
            // With it, it can be on; and then the other one cannot go.
            set(&instance, other, &good).context("the other one")?;
            set(&instance, name, &effective).context("with what it requires")?;
            let before = values(&instance)?;
            refused(other, set(&instance, other, &bad), Errno::EINVAL)?;
            equal("reason", get(&instance, "error")?, reason)?;
            unchanged(&instance, &before)?;
            set(&instance, name, &off).context("off again")?;
            set(&instance, other, &bad).context("the other one, free again")?;
            tried += 1;
        }
    }
    ensure!(
        tried > 0,
        "no parameter of this driver requires another one"
    );
    Ok(())
}

/// A value other than the one it has, which is allowed.
fn another(instance: &Mdev, name: &str) -> Result<String> {
    let here = get(instance, name)?;
    let all = match name {
        "num-ports" => ["1", "2"],
        "fifo-depth" => ["16", "64"],
        _ => ["on", "off"],
    };
    Ok(all
        .into_iter()
        .find(|value| *value != here)
        .unwrap_or_default()
        .to_string())
}

fn is_runtime(def: &Json) -> bool {
    def.get("runtime") == Some(&Json::Bool(true))
}

fn hardware_parameters_are_busy_while_the_device_is_open() -> Result<()> {
    let instance = any()?;
    let device = open(&instance)?;
    for (name, def) in definitions(&instance)? {
        if !is_runtime(&def) {
            refuses(&instance, &name, another(&instance, &name)?, Errno::EBUSY)?;
            // A value that would be refused anyhow is not a matter of time.
            refuses(&instance, &name, "nonsense", Errno::EINVAL)?;
        }
    }
    let before = values(&instance)?;
    refused("version", set(&instance, "version", "v1"), Errno::EBUSY)?;
    unchanged(&instance, &before)?;
    drop(device);
    let mut hardware: Vec<_> = definitions(&instance)?.into_iter().collect();
    hardware.retain(|(_, def)| !is_runtime(def));
    // What requires something comes after it.
    hardware.sort_by_key(|(_, def)| def.get("requires").is_some());
    for (name, _) in hardware {
        set(&instance, &name, another(&instance, &name)?)
            .with_context(|| format!("{name}, closed"))?;
    }
    Ok(())
}

fn runtime_parameters_change_while_the_device_is_open() -> Result<()> {
    let instance = any()?;
    let device = open(&instance)?;
    let mut changed = 0;
    for (name, def) in definitions(&instance)? {
        if is_runtime(&def) {
            for _ in 0..2 {
                let value = another(&instance, &name)?;
                set(&instance, &name, &value).with_context(|| format!("{name}, open"))?;
                equal(&name, get(&instance, &name)?, value)?;
                changed += 1;
            }
        }
    }
    equal("state", device.state(), Ok(State::Running))?;
    ensure!(changed > 0, "no parameter may change at run time");
    Ok(())
}

fn no_parameter_changes_while_state_is_saved_or_loaded() -> Result<()> {
    for state in [State::PreCopy, State::StopCopy, State::Resuming] {
        let instance = any()?;
        let device = open(&instance)?;
        let data = device
            .start(state)
            .with_context(|| format!("to {state:?}"))?;
        for name in definitions(&instance)?.keys() {
            refuses(&instance, name, another(&instance, name)?, Errno::EBUSY)
                .with_context(|| format!("{state:?}"))?;
        }
        drop(data);
    }
    Ok(())
}

fn unknown_versions_and_models_are_refused() -> Result<()> {
    let instance = any()?;
    for version in ["v0", "v3", "V1", "v1 ", "v", "custom", "none"] {
        refuses(&instance, "version", version, Errno::EINVAL)?;
    }
    for model in [
        "other.example/pci/serial",
        "rust-vfio-mdev.example/pci",
        "serial",
        "/",
        "a//b",
    ] {
        refuses(&instance, "device_model", model, Errno::EINVAL)?;
    }
    Ok(())
}

fn read_only_files_are_read_only() -> Result<()> {
    let instance = any()?;
    for name in ["state", "phase", "bytes", "sessions", "error", "compatible"] {
        let result = set(&instance, name, "0");
        // Root may open the file for writing, and then there is nothing that takes a write.
        ensure!(
            matches!(result, Err(Errno::EACCES | Errno::EPERM | Errno::EIO)),
            "a write to {name}: {result:?}"
        );
    }
    Ok(())
}

fn a_success_clears_the_reason() -> Result<()> {
    let instance = any()?;
    refuses(&instance, "msi", "maybe", Errno::EINVAL)?;
    set(&instance, "fifo-depth", "64").context("fifo-depth")?;
    equal("error", get(&instance, "error")?, String::new())
}

fn parameters_outlive_the_open_device() -> Result<()> {
    let instance = any()?;
    for (name, value) in [("num-ports", "2"), ("fifo-depth", "64"), ("msi", "off")] {
        set(&instance, name, value).context(name)?;
    }
    let before = values(&instance)?;
    for _ in 0..2 {
        drop(open(&instance)?);
        unchanged(&instance, &before)?;
    }
    Ok(())
}
