// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Debian's mdevctl with the callout script that comes with the project: parameters of instances that are there, and starting
//! one that somebody uses. Documentation/mdevctl.rst shows the same commands.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use guest_tests::vfio::{interrupt, Event};
use serde_json::{json, Value as Json};
use uuid::Uuid;
use vfio_uapi::mdev::Mdev;

use crate::capacity::free;
use crate::host::{any, get, name, open, set, unchanged, values, Scratch};
use crate::mdevctl::{command, mdevctl, Defined, PARENT};
use crate::uevents::Uevents;

/// Values that are all others than those of a new instance, in an order in which they can be set.
const WANTED: [(&str, &str); 5] = [
    ("num-ports", "2"),
    ("fifo-depth", "64"),
    ("msi", "off"),
    ("compact-state", "off"),
    ("auto-flow", "off"),
];

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        mdevctl_stores_the_parameters_of_a_running_instance,
        mdevctl_lists_the_parameters_of_a_running_instance,
        mdevctl_changes_a_running_instance,
        mdevctl_changes_an_open_instance_as_far_as_that_goes,
        mdevctl_changes_an_instance_wholly_or_not_at_all,
        mdevctl_starts_nothing_that_would_be_refused,
        mdevctl_says_that_an_open_instance_is_there_already,
        mdevctl_waits_for_who_opened_the_device_before_it_was_set_up,
        the_callout_script_leaves_other_types_alone,
    );
}

/// What mdevctl knows of an instance.
fn dump(uuid: &str, which: &[&str]) -> Result<Json> {
    let arguments = [&["list", "--uuid", uuid, "--dumpjson"], which].concat();
    let ran = mdevctl(&arguments)?.expect(0)?;
    serde_json::from_str(&ran.out).with_context(|| format!("{:?}", ran.out))
}

/// The attributes of a definition, in their order.
fn attributes(definition: &Json) -> Result<Vec<(String, String)>> {
    let list = definition["attrs"].as_array().context("no attributes")?;
    let pairs = list.iter().filter_map(Json::as_object).flatten();
    Ok(pairs
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_string()))
        .collect())
}

/// A definition of an instance of the type with these attributes.
fn definition(attrs: &[(&str, &str)]) -> String {
    let attrs: Vec<Json> = attrs
        .iter()
        .map(|(name, value)| json!({ format!("migration/{name}"): value }))
        .collect();
    json!({"mdev_type": "mdev_serial-any", "start": "manual", "attrs": attrs}).to_string()
}

fn set_wanted(instance: &Mdev) -> Result<()> {
    for (name, value) in WANTED {
        set(instance, name, value).with_context(|| format!("{name}={value}"))?;
    }
    Ok(())
}

/// `auto-flow` requires something of `fifo-depth`: by name it would come before that.
fn mdevctl_stores_the_parameters_of_a_running_instance() -> Result<()> {
    let instance = any()?;
    set_wanted(&instance)?;
    let (uuid, before) = (instance.uuid(), values(&instance)?);
    mdevctl(&["define", "--uuid", &uuid.to_string()])?.expect(0)?;
    let defined = Defined { uuid };
    let stored = attributes(&dump(&defined.name(), &["--defined"])?)?;
    let wanted: Vec<(String, String)> = WANTED
        .iter()
        .map(|(name, value)| (format!("migration/{name}"), value.to_string()))
        .collect();
    equal("attributes", stored, wanted)?;
    instance.remove()?;
    let again = defined.start()?;
    unchanged(&again, &before)
}

fn mdevctl_lists_the_parameters_of_a_running_instance() -> Result<()> {
    let instance = any()?;
    set_wanted(&instance)?;
    let listed = attributes(&dump(&name(&instance), &[])?)?;
    for (param, value) in WANTED {
        let attribute = (format!("migration/{param}"), value.to_string());
        ensure!(
            listed.contains(&attribute),
            "{attribute:?} is not in {listed:?}"
        );
    }
    Ok(())
}

/// Has mdevctl change a running instance.
fn modify_live(instance: &Mdev, attrs: &[(&str, &str)], more: &[&str]) -> Result<crate::host::Ran> {
    let scratch = Scratch::new()?;
    let file = scratch.with("live.json", definition(attrs))?;
    let (uuid, file) = (name(instance), file.display().to_string());
    let arguments = ["modify", "--live", "--uuid", &uuid, "--jsonfile", &file];
    mdevctl(&[&arguments, more].concat())
}

fn mdevctl_changes_a_running_instance() -> Result<()> {
    let defined = Defined::new("mdev_serial-any")?;
    let instance = defined.start()?;
    modify_live(&instance, &WANTED, &[])?.expect(0)?;
    for (param, value) in WANTED {
        equal(param, get(&instance, param)?, value.to_string())?;
    }
    equal(
        "stored attributes",
        attributes(&dump(&defined.name(), &["--defined"])?)?,
        Vec::new(),
    )?;
    // Together with the definition, in which a version may stand as well.
    let attrs = [("auto-flow", "on"), ("version", "v1"), ("num-ports", "4")];
    modify_live(&instance, &attrs, &["--defined"])?.expect(0)?;
    equal("version", get(&instance, "version")?, "v1".to_string())?;
    equal("num-ports", get(&instance, "num-ports")?, "4".to_string())?;
    equal(
        "stored attributes",
        attributes(&dump(&defined.name(), &["--defined"])?)?.len(),
        attrs.len(),
    )
}

fn mdevctl_changes_an_open_instance_as_far_as_that_goes() -> Result<()> {
    let instance = any()?;
    let _device = open(&instance)?;
    // Who lists everything does not ask for everything to be changed.
    let attrs = [("num-ports", "1"), ("msi", "on"), ("compact-state", "off")];
    modify_live(&instance, &attrs, &[])?.expect(0)?;
    equal(
        "compact-state",
        get(&instance, "compact-state")?,
        "off".to_string(),
    )?;
    let before = values(&instance)?;
    let attrs = [("compact-state", "on"), ("num-ports", "2")];
    let ran = modify_live(&instance, &attrs, &[])?;
    ensure!(ran.status != 0, "an open card got two ports");
    ensure!(
        ran.err
            .contains("num-ports: cannot change while the device is open"),
        "{:?}",
        ran.err
    );
    unchanged(&instance, &before)
}

fn mdevctl_changes_an_instance_wholly_or_not_at_all() -> Result<()> {
    let instance = any()?;
    let before = values(&instance)?;
    for (attrs, reason) in [
        (
            [("num-ports", "2"), ("fifo-depth", "32")],
            "fifo-depth: 32 is not one of 16, 64",
        ),
        (
            [("msi", "off"), ("auto-flow", "off")],
            "auto-flow: off requires fifo-depth 64, not 16",
        ),
        (
            [("msi", "off"), ("colour", "red")],
            "migration/colour: there is no such parameter",
        ),
    ] {
        let ran = modify_live(&instance, &attrs, &[])?;
        ensure!(ran.status != 0, "{attrs:?} were taken");
        ensure!(
            ran.err.contains(reason),
            "{reason:?} is not in {:?}",
            ran.err
        );
        unchanged(&instance, &before)?;
    }
    Ok(())
}

/// Nothing is made that would have to be taken back.
fn mdevctl_starts_nothing_that_would_be_refused() -> Result<()> {
    let defined = Defined::new("mdev_serial-any")?;
    for (param, value) in [
        ("fifo-depth", "64"),
        ("num-ports", "4"),
        ("auto-flow", "maybe"),
    ] {
        defined.set(param, value)?;
    }
    let events = Uevents::listen()?;
    let ran = mdevctl(&["start", "--uuid", &defined.name()])?;
    ensure!(ran.status != 0, "mdevctl started it");
    ensure!(ran.err.contains("migration/auto-flow: "), "{:?}", ran.err);
    events.none_of(&defined.name())
}

fn mdevctl_says_that_an_open_instance_is_there_already() -> Result<()> {
    let defined = Defined::new("mdev_serial-any")?;
    defined.set("num-ports", "2")?;
    let instance = defined.start()?;
    let before = values(&instance)?;
    let device = open(&instance)?;
    let ran = mdevctl(&["start", "--uuid", &defined.name()])?;
    ensure!(ran.status != 0, "mdevctl started an instance twice");
    ensure!(
        ran.err.contains("is there already") && ran.err.contains("modify --live"),
        "{:?}",
        ran.err
    );
    ensure!(instance.exists(), "the instance is gone");
    unchanged(&instance, &before)?;
    drop(device);
    defined.stop()
}

/// Somebody who opens the device between its creation and the first write of a parameter has mdevctl fail and remove it again,
/// which waits for the device to be closed; the one who has it is asked to.
fn mdevctl_waits_for_who_opened_the_device_before_it_was_set_up() -> Result<()> {
    let before = free()?;
    let defined = Defined::new("mdev_serial-any")?;
    // An attribute that is written when this test reads it: mdevctl follows the name from the instance's directory.
    let scratch = Scratch::new()?;
    let fifo = scratch.file("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    let gate = format!("../../../../../..{}", fifo.display());
    for (attribute, value) in [(gate.as_str(), "1"), ("migration/num-ports", "4")] {
        let add = format!("--addattr={attribute}");
        mdevctl(&["modify", "--uuid", &defined.name(), &add, "--value", value])?.expect(0)?;
    }
    let events = Uevents::listen()?;
    let mut child = command()?
        .args(["start", "--uuid", &defined.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    events.wait("bind", &defined.name())?;
    let instance = Mdev::existing(defined.uuid);
    let device = open(&instance)?;
    let asked = Event::of(&device, interrupt::REQ)?;
    // Now mdevctl goes on.
    fs::read(&fifo)?;
    asked.wait()?;
    ensure!(child.try_wait()?.is_none(), "mdevctl did not wait");
    drop(device);
    let ended = child.wait()?;
    let mut message = String::new();
    child
        .stderr
        .take()
        .context("no standard error")?
        .read_to_string(&mut message)?;
    ensure!(!ended.success(), "mdevctl says that it was started");
    ensure!(message.contains("Device or resource busy"), "{message:?}");
    ensure!(!instance.exists(), "the instance was left behind");
    equal("free ports", free()?, before)
}

fn the_callout_script_leaves_other_types_alone() -> Result<()> {
    let script = Path::new("/usr/lib/mdevctl/scripts.d/callouts/vfio-migrate");
    let uuid = Uuid::new_v4().to_string();
    for (parent, ty, status) in [
        (PARENT, "mdev_serial-1", 0),
        (PARENT, "mtty-1", 2),
        ("mtty", "mdev_serial-1", 2),
        // Of a driver that is not loaded, nothing is known.
        ("", "", 2),
    ] {
        let ran = std::process::Command::new(script)
            .args([
                "-t",
                ty,
                "-e",
                "get",
                "-a",
                "capabilities",
                "-s",
                "none",
                "-u",
                &uuid,
                "-p",
                parent,
            ])
            .stdin(Stdio::null())
            .output()?;
        equal(
            format!("exit status for {parent} {ty}"),
            ran.status.code(),
            Some(status),
        )?;
    }
    Ok(())
}
