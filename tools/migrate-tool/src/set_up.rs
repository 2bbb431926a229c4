// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `prepare`: it does what the check promised, or leaves the instance as it was.

use anyhow::{Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use serde_json::json;

use crate::capacity::take_all_but;
use crate::host::{any, get, instance, list, name, open, run, set, unchanged, values, Scratch};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        prepare_gives_the_instance_the_source_s_parameters,
        prepare_switches_off_what_the_list_lacks,
        a_dry_run_changes_nothing,
        what_is_not_compatible_is_not_begun,
        prepare_without_capacity_is_taken_back,
        prepare_of_an_open_instance_changes_nothing,
        prepare_twice_is_prepare_once,
    );
}

fn prepare_gives_the_instance_the_source_s_parameters() -> Result<()> {
    let (source, destination) = (any()?, any()?);
    for (param, value) in [
        ("num-ports", "4"),
        ("fifo-depth", "64"),
        ("msi", "off"),
        ("compact-state", "off"),
        ("auto-flow", "off"),
    ] {
        set(&source, param, value).context(param)?;
    }
    run(["prepare", &name(&source), &name(&destination)])?.expect(0)?;
    equal("parameters", values(&destination)?, values(&source)?)
}

fn prepare_switches_off_what_the_list_lacks() -> Result<()> {
    let destination = any()?;
    set(&destination, "fifo-depth", "64").context("fifo-depth")?;
    set(&destination, "auto-flow", "off").context("auto-flow")?;
    let scratch = Scratch::new()?;
    let document = scratch
        .with("list.json", list(json!({"num-ports": 2})))?
        .display()
        .to_string();
    let done = run(["prepare", "--json", &document, &name(&destination)])?
        .expect(0)?
        .json()?;
    // Off values in reverse declaration order, then the list.
    let writes = json!([
        "auto-flow=on",
        "compact-state=off",
        "msi=off",
        "fifo-depth=16",
        "num-ports=2"
    ]);
    equal("writes", done["writes"].clone(), writes)?;
    for (param, value) in [
        ("num-ports", "2"),
        ("fifo-depth", "16"),
        ("msi", "off"),
        ("compact-state", "off"),
        ("auto-flow", "on"),
    ] {
        equal(param, get(&destination, param)?, value.to_string())?;
    }
    equal("version", get(&destination, "version")?, "v1".to_string())
}

fn a_dry_run_changes_nothing() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-4")?, any()?);
    let before = values(&destination)?;
    let ran = run(["prepare", "--dry-run", &name(&source), &name(&destination)])?.expect(0)?;
    ran.says("printf '%s\\n' 4 > ")?;
    unchanged(&destination, &before)
}

fn what_is_not_compatible_is_not_begun() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-4")?, instance("mdev_serial-1")?);
    let before = values(&destination)?;
    let ran = run(["prepare", &name(&source), &name(&destination)])?.expect(1)?;
    ran.says("nothing was changed")?
        .says("num-ports: source has 4, this device allows 1")?;
    unchanged(&destination, &before)
}

fn prepare_without_capacity_is_taken_back() -> Result<()> {
    let destination = any()?;
    set(&destination, "fifo-depth", "64").context("fifo-depth")?;
    let _taken = take_all_but(1)?;
    let before = values(&destination)?;
    let scratch = Scratch::new()?;
    // The off values of three parameters are written before the capacity is asked for.
    let document = scratch
        .with("list.json", list(json!({"num-ports": 4})))?
        .display()
        .to_string();
    let ran = run(["prepare", &document, &name(&destination)])?.expect(1)?;
    ran.says("num-ports=4 was refused")?
        .says("ENOSPC")?
        .says("capacity")?
        .says("the instance is as it was")?;
    unchanged(&destination, &before)
}

fn prepare_of_an_open_instance_changes_nothing() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-2")?, any()?);
    let before = values(&destination)?;
    let device = open(&destination)?;
    let ran = run(["prepare", &name(&source), &name(&destination)])?.expect(1)?;
    ran.says("EBUSY")?
        .says("while the device is open")?
        .says("the instance is as it was")?;
    unchanged(&destination, &before)?;
    drop(device);
    run(["prepare", &name(&source), &name(&destination)])?.expect(0)?;
    Ok(())
}

fn prepare_twice_is_prepare_once() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-2")?, any()?);
    run(["prepare", &name(&source), &name(&destination)])?.expect(0)?;
    let before = values(&destination)?;
    run(["prepare", &name(&source), &name(&destination)])?
        .expect(0)?
        .says("already")?;
    unchanged(&destination, &before)
}
