// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Two implementations of the model on one machine: the driver's second parent offers what its first version did. It lacks
//! the newest parameter and allows fewer values.

use std::path::Path;

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::module::{self, Reloaded, DRIVER};
use guest_tests::v2_api::check::{equal, refused};
use vfio_uapi::mdev::{Mdev, MdevType};
use vfio_uapi::{Errno, State};

use crate::host::{any, definitions, get, instance, name, open, run, set, values};

const OLD: &str = "mdev_serial_old";

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        the_old_parent_offers_less,
        a_type_name_of_two_parents_has_to_be_completed,
        each_kind_of_mismatch_is_refused_with_its_reason,
        a_new_source_reaches_an_old_destination_by_its_version,
        an_old_source_reaches_a_new_destination,
        a_runtime_parameter_flipped_on_the_open_device_reaches_an_old_destination,
        select_finds_the_implementation_that_suits,
        the_driver_without_its_old_parent_is_as_before,
    );
}

/// Loads the driver anew, as it was.
pub fn reload() -> Result<()> {
    let parameters = module::parameters(DRIVER)?;
    module::unload(DRIVER).context("unloading the driver")?;
    module::load(DRIVER, &parameters)
}

/// A new instance of a type of the old parent.
fn old(ports: u32) -> Result<Mdev> {
    let wanted = Path::new(OLD)
        .join("mdev_supported_types")
        .join(format!("mdev_serial-{ports}"));
    let ty = MdevType::all()?
        .into_iter()
        .find(|ty| ty.path().ends_with(&wanted));
    ty.with_context(|| format!("no {}", wanted.display()))?
        .create()
}

fn the_old_parent_offers_less() -> Result<()> {
    let _loaded = Reloaded::with("old_parent=1")?;
    let (old, new) = (old(1)?, instance("mdev_serial-1")?);
    let (of_old, of_new) = (definitions(&old)?, definitions(&new)?);
    ensure!(
        of_old.keys().all(|name| of_new.contains_key(name)),
        "{:?}",
        of_old.keys()
    );
    ensure!(
        of_old.len() < of_new.len(),
        "the old parent lacks no parameter"
    );
    for name in of_new.keys().filter(|name| !of_old.contains_key(*name)) {
        ensure!(get(&old, name).is_err(), "{name} is there");
    }
    refused(
        "a value that only the new one allows",
        set(&old, "fifo-depth", "64"),
        Errno::EINVAL,
    )?;
    run(["types"])?
        .expect(0)?
        .says("mdev_serial_old/mdev_serial-1")?;
    Ok(())
}

fn a_type_name_of_two_parents_has_to_be_completed() -> Result<()> {
    let _loaded = Reloaded::with("old_parent=1")?;
    run(["info", "mdev_serial-1"])?
        .expect(2)?
        .says("several parents")?;
    run(["info", "mdev_serial_old/mdev_serial-1"])?.expect(0)?;
    run(["info", "mdev_serial-4"])?.expect(0)?;
    Ok(())
}

/// Tries the source with the destination: the check, and the stream, say this and nothing else.
fn mismatch(source: &Mdev, destination: &Mdev, reason: &str) -> Result<()> {
    let verdict = run(["check", "--json", &name(source), &name(destination)])?
        .expect(1)?
        .json()?;
    let reasons = verdict["reasons"].as_array().context("reasons")?;
    equal("reasons", reasons.len(), 1)?;
    ensure!(
        reasons[0]["text"] == reason,
        "the reason is {}, expected {reason}",
        reasons[0]
    );
    let before = values(destination)?;
    let parameter = reason.split(':').next().unwrap_or_default();
    run(["copy", &name(source), &name(destination)])?
        .expect(1)?
        .says(&format!("{parameter}: source has"))?;
    equal("parameters", values(destination)?, before)?;
    equal(
        "state of the source",
        get(source, "state")?,
        "RUNNING".to_string(),
    )
}

fn each_kind_of_mismatch_is_refused_with_its_reason() -> Result<()> {
    let _loaded = Reloaded::with("old_parent=1")?;
    let (old, new) = (old(1)?, any()?);
    set(&new, "version", "v1").context("v1")?;
    run(["check", &name(&new), &name(&old)])?.expect(0)?;
    // A number beyond those allowed.
    set(&new, "num-ports", "2").context("num-ports")?;
    mismatch(&new, &old, "num-ports: source has 2, this device allows 1")?;
    set(&new, "num-ports", "1").context("num-ports")?;
    set(&new, "fifo-depth", "64").context("fifo-depth")?;
    mismatch(
        &new,
        &old,
        "fifo-depth: source has 64, this device allows 16",
    )?;
    set(&new, "fifo-depth", "16").context("fifo-depth")?;
    // A parameter that is not known.
    set(&new, "compact-state", "on").context("compact-state")?;
    mismatch(
        &new,
        &old,
        "compact-state: source has on, this device does not know it",
    )?;
    set(&new, "compact-state", "off").context("compact-state")?;
    // A switch that is set otherwise is a matter of preparation.
    run(["check", &name(&new), &name(&old)])?
        .expect(0)?
        .says("msi on -> off")?;
    run(["copy", &name(&new), &name(&old)])?
        .expect(1)?
        .says("msi: source has off, this device has on")?;
    run(["prepare", &name(&new), &name(&old)])?.expect(0)?;
    run(["copy", "--exercise", &name(&new), &name(&old)])?.expect(0)?;
    Ok(())
}

fn a_new_source_reaches_an_old_destination_by_its_version() -> Result<()> {
    let _loaded = Reloaded::with("old_parent=1")?;
    let (source, destination) = (instance("mdev_serial-2")?, old(2)?);
    run(["check", &name(&source), &name(&destination)])?
        .expect(1)?
        .says("compact-state")?;
    set(&source, "version", "v1").context("v1")?;
    run(["prepare", &name(&source), &name(&destination)])?.expect(0)?;
    equal(
        "version of the destination",
        get(&destination, "version")?,
        "v1".to_string(),
    )?;
    run(["copy", "--exercise", &name(&source), &name(&destination)])?
        .expect(0)?
        .says("found again: 2 ports")?;
    Ok(())
}

fn an_old_source_reaches_a_new_destination() -> Result<()> {
    let _loaded = Reloaded::with("old_parent=1")?;
    let (source, destination) = (old(2)?, any()?);
    set(&destination, "fifo-depth", "64").context("fifo-depth")?;
    run(["copy", &name(&source), &name(&destination)])?.expect(1)?;
    run(["prepare", &name(&source), &name(&destination)])?.expect(0)?;
    run(["copy", "--exercise", &name(&source), &name(&destination)])?
        .expect(0)?
        .says("found again: 2 ports")?;
    Ok(())
}

fn a_runtime_parameter_flipped_on_the_open_device_reaches_an_old_destination() -> Result<()> {
    let _loaded = Reloaded::with("old_parent=1")?;
    let (source, destination) = (instance("mdev_serial-1")?, old(1)?);
    let (from, to) = (open(&source)?, open(&destination)?);
    // Everything else agrees: only the representation of the state does not.
    let verdict = run(["check", "--json", &name(&source), &name(&destination)])?
        .expect(1)?
        .json()?;
    let reasons = verdict["reasons"].as_array().context("reasons")?;
    ensure!(
        reasons.len() == 1
            && reasons[0]["text"]
                .as_str()
                .is_some_and(|r| r.starts_with("compact-state: ")),
        "{reasons:?}"
    );
    let out = from.start(State::PreCopy)?;
    let first = out.read_all(4096)?;
    let into = to.start(State::Resuming)?;
    refused("the setup record", into.write(&first), Errno::EINVAL)?;
    let reason = get(&destination, "error")?;
    ensure!(
        reason.contains("compact-state: source has on, this device does not know it"),
        "the reason is {reason:?}"
    );
    drop(into);
    to.reset()?;
    // The source goes on, is changed while it runs, and tries again.
    drop(out);
    from.switch(State::Running)?;
    set(&source, "compact-state", "off").context("compact-state, open")?;
    run(["check", &name(&source), &name(&destination)])?
        .expect(0)?
        .says("and prepared")?;
    let out = from.start(State::PreCopy)?;
    let mut stream = out.read_all(4096)?;
    from.switch(State::StopCopy)?;
    stream.extend(out.read_all(4096)?);
    let into = to.start(State::Resuming)?;
    into.write_all(&stream, stream.len())
        .with_context(|| get(&destination, "error").unwrap_or_default())?;
    drop(into);
    to.switch(State::Running)?;
    equal("state of the destination", to.state(), Ok(State::Running))
}

fn select_finds_the_implementation_that_suits() -> Result<()> {
    let _loaded = Reloaded::with("old_parent=1")?;
    let source = instance("mdev_serial-2")?;
    let directory = crate::host::Scratch::new()?;
    for parent in [DRIVER, OLD] {
        for ty in MdevType::all()?.iter().filter(|ty| {
            ty.path()
                .components()
                .any(|part| part.as_os_str() == parent)
        }) {
            directory.with(
                &format!("{parent}-{}.json", ty.name()),
                ty.attribute("migration_info.json")?,
            )?;
        }
    }
    let path = directory.file("").display().to_string();
    let best = |source: &Mdev| -> Result<String> {
        let ran = run(["select", "--json", "--best", "1", &name(source), &path])?
            .expect(0)?
            .json()?;
        Ok(ran["name"]
            .as_str()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_string())
    };
    equal(
        "best for a new one",
        best(&source)?,
        "mdev_serial-mdev_serial-2.json".to_string(),
    )?;
    let old_source = old(2)?;
    equal(
        "best for an old one",
        best(&old_source)?,
        "mdev_serial_old-mdev_serial-2.json".to_string(),
    )
}

fn the_driver_without_its_old_parent_is_as_before() -> Result<()> {
    ensure!(
        !Path::new("/sys/class/mdev_bus").join(OLD).exists(),
        "the old parent is there"
    );
    equal("free ports", crate::capacity::free()?, 32)
}
