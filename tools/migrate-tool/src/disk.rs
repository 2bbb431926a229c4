// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The tool and the disk's driver: a serial number, which is text of bounded length, goes along.

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::module::Loaded;
use guest_tests::v2_api::check::equal;
use serde_json::{json, Value as Json};
use vfio_uapi::mdev::Mdev;

use crate::host::{get, info, instance, name, run, set, Scratch};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        migration_information_has_the_length_of_a_serial_number,
        prepare_carries_a_serial_number,
        prepare_takes_a_serial_number_away,
        a_serial_number_that_no_disk_has_is_refused,
        select_prefers_the_disk_that_offers_least,
    );
}

/// The driver.
const DRIVER: &str = "mdev_blk";
/// The device model of its types.
const MODEL: &str = "rust-vfio-mdev.example/pci/blk";
/// A type of it.
const KIND: &str = "mdev_blk-any";

fn disk(serial: &str) -> Result<Mdev> {
    let disk = instance(KIND)?;
    set(&disk, "serial", serial).with_context(|| format!("{serial:?}"))?;
    Ok(disk)
}

/// A parameter list as a file.
fn document(scratch: &Scratch, params: Json) -> Result<String> {
    let list = json!({"model": MODEL, "params": params}).to_string();
    Ok(scratch.with("list.json", list)?.display().to_string())
}

fn migration_information_has_the_length_of_a_serial_number() -> Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let disk = disk("here")?;
    let serial = info(&disk)?["models"][MODEL]["params"]["serial"].clone();
    equal(
        "what is said of the serial number",
        serial,
        json!({
            "type": "str",
            "max_length": 20,
            "description": "Serial number of the disk, by which a guest may know it",
            "init_value": "",
            "off_value": "",
        }),
    )?;
    let lines = |directory: &str| disk.attribute(&format!("mdev_type/{directory}/serial"));
    equal(
        "allowed values",
        lines("migration_allowed_values")?,
        String::new(),
    )?;
    equal(
        "the off value",
        lines("migration_off_values")?,
        String::new(),
    )?;
    let info = run(["info", KIND])?.expect(0)?;
    info.says("printable ASCII of up to 20 characters")?;
    let params = run(["params", "--json", &name(&disk)])?.expect(0)?.json()?;
    equal("the list", &params["params"]["serial"], &json!("here"))?;
    disk.remove()
}

fn prepare_carries_a_serial_number() -> Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let (source, destination) = (disk("RUST-1 \"2\" $3")?, disk("another")?);
    run(["check", &name(&source), &name(&destination)])?
        .expect(0)?
        .says("serial")?;
    run(["prepare", &name(&source), &name(&destination)])?.expect(0)?;
    let serial = get(&destination, "serial")?;
    equal("the serial number", serial.as_str(), "RUST-1 \"2\" $3")?;
    source.remove()?;
    destination.remove()
}

fn prepare_takes_a_serial_number_away() -> Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let destination = disk("another")?;
    // As a driver lists it that knows no serial numbers.
    let scratch = Scratch::new()?;
    let list = json!({"capacity-mib": 64, "num-queues": 1, "queue-size": 128});
    let source = document(&scratch, list)?;
    run(["prepare", &source, &name(&destination)])?.expect(0)?;
    equal(
        "the serial number",
        get(&destination, "serial")?,
        String::new(),
    )?;
    destination.remove()
}

fn a_serial_number_that_no_disk_has_is_refused() -> Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let destination = disk("another")?;
    let scratch = Scratch::new()?;
    for serial in ["123456789012345678901", "gr\u{f6}\u{df}e"] {
        let list =
            json!({"capacity-mib": 32, "num-queues": 1, "queue-size": 128, "serial": serial});
        let source = document(&scratch, list)?;
        let allowed = "this device allows printable ASCII of up to 20 characters";
        let reason = format!("serial: source has \"{serial}\", {allowed}");
        for command in ["check", "prepare"] {
            run([command, &source, &name(&destination)])?
                .expect(1)?
                .says(&reason)?;
        }
        equal(
            "the serial number",
            get(&destination, "serial")?.as_str(),
            "another",
        )?;
        equal(
            "the capacity",
            get(&destination, "capacity-mib")?.as_str(),
            "64",
        )?;
    }
    destination.remove()
}

fn select_prefers_the_disk_that_offers_least() -> Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let source = disk("here")?;
    let ran = run([
        "select",
        &name(&source),
        KIND,
        "mdev_blk-256M",
        "mdev_blk-64M",
    ])?
    .expect(0)?;
    let place = |ty: &str| ran.out.lines().position(|line| line.contains(ty));
    let places = ["mdev_blk-64M", KIND, "mdev_blk-256M"].map(place);
    ensure!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{}",
        ran.out
    );
    source.remove()
}
