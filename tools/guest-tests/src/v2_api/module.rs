// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Unloading the driver: refused while it is in use, clean otherwise. delete_module(2): a module with users is EWOULDBLOCK.

use super::card::{card_type, Card, UNMASK_EVENTFD};
use super::check::{equal, refused, Named};
use crate::ktap::{expect_kernel_log, Suite};
use crate::mdev::MdevType;
use crate::module::{load, parameters, unload, Reloaded, DRIVER};
use crate::vfio::{Access, Errno, State};

/// What it is built on.
const LIBRARY: &str = "rust_vfio";

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(suite, the_driver_cannot_be_unloaded_while_a_device_is_open);
    tests!(
        suite,
        the_driver_cannot_be_unloaded_while_a_data_file_is_open,
        the_library_cannot_be_unloaded_while_the_driver_is_there,
        unloading_the_driver_removes_its_instances,
        the_driver_can_be_unloaded_and_loaded_many_times,
        a_module_parameter_lets_an_eventfd_unmask_intx_of_new_instances,
    );
}

fn the_driver_cannot_be_unloaded_while_a_device_is_open(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(1, access)?;
    refused("unload", unload(DRIVER), Errno::EWOULDBLOCK)?;
    equal("state of the device", card.state(), Ok(State::Running))
}

fn the_driver_cannot_be_unloaded_while_a_data_file_is_open() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    card.close().remove()?;
    refused("unload", unload(DRIVER), Errno::EWOULDBLOCK)?;
    refused("read", data.read(&mut [0]), Errno::ENODEV)
}

fn the_library_cannot_be_unloaded_while_the_driver_is_there() -> anyhow::Result<()> {
    refused("unload", unload(LIBRARY), Errno::EWOULDBLOCK)
}

fn unloading_the_driver_removes_its_instances() -> anyhow::Result<()> {
    let arguments = parameters(DRIVER)?;
    let instances = [card_type(1)?.create()?, card_type(2)?.create()?];
    unload(DRIVER).named("unload")?;
    let left: Vec<_> = instances
        .iter()
        .filter(|instance| instance.exists())
        .map(|instance| instance.uuid())
        .collect();
    let types: Vec<_> = MdevType::all()?
        .iter()
        .map(|kind| kind.name().to_string())
        .collect();
    load(DRIVER, &arguments)?;
    equal("instances left", left.len(), 0)?;
    anyhow::ensure!(
        !types.iter().any(|name| name.starts_with("mdev_serial-")),
        "types left: {types:?}"
    );
    equal(
        "state of a new device",
        Card::new(1)?.state(),
        Ok(State::Running),
    )
}

fn the_driver_can_be_unloaded_and_loaded_many_times() -> anyhow::Result<()> {
    let (library, driver) = (parameters(LIBRARY)?, parameters(DRIVER)?);
    let free = card_type(1)?.available_instances()?;
    for round in 0..5 {
        let card = Card::new(4)?;
        equal(
            format!("state in round {round}"),
            card.state(),
            Ok(State::Running),
        )?;
        drop(card);
        unload(DRIVER).named(format!("unloading the driver, round {round}"))?;
        let result = unload(LIBRARY);
        if result.is_ok() {
            load(LIBRARY, &library)?;
        }
        load(DRIVER, &driver)?;
        result.named(format!("unloading the library, round {round}"))?;
        equal(
            "available instances",
            card_type(1)?.available_instances()?,
            free,
        )?;
    }
    Ok(())
}

fn a_module_parameter_lets_an_eventfd_unmask_intx_of_new_instances() -> anyhow::Result<()> {
    for (parameter, wanted) in [("1", "on"), ("0", "off")] {
        let _loaded = Reloaded::with(&format!("intx_unmask_eventfd={parameter}"))?;
        let instance = card_type(1)?.create()?;
        equal(
            format!("with the parameter {parameter}"),
            instance.attribute(UNMASK_EVENTFD)?,
            wanted.to_string(),
        )?;
    }
    expect_kernel_log("mdev_serial: intx_unmask_eventfd=2 is out of range");
    let refused = Reloaded::with("intx_unmask_eventfd=2").map(drop);
    anyhow::ensure!(refused.is_err(), "the parameter 2 was taken");
    Ok(())
}
