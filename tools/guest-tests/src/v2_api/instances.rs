// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Types and instances in sysfs: what a type says, and how many instances there can be.

use std::io;

use uuid::Uuid;

use super::card::{card_type, PORTS};
use super::check::equal;
use crate::kernel;
use crate::ktap::{self, Suite};
use crate::mdev::{Mdev, MdevType};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        types_describe_themselves,
        an_instance_has_a_group_a_cdev_and_its_own_files,
        types_share_the_capacity_of_their_parent,
        instances_beyond_the_capacity_are_refused,
        a_name_can_be_used_only_once,
        malformed_names_are_refused,
    );
}

fn types_describe_themselves() -> anyhow::Result<()> {
    for ports in PORTS {
        let kind = card_type(ports)?;
        equal(
            "device_api",
            kind.attribute("device_api")?,
            "vfio-pci".to_string(),
        )?;
        let description = kind.attribute("description")?;
        anyhow::ensure!(
            !description.is_empty(),
            "{} has an empty description",
            kind.name()
        );
        anyhow::ensure!(
            kind.available_instances()? > 0,
            "no instance of {} available",
            kind.name()
        );
    }
    Ok(())
}

fn an_instance_has_a_group_a_cdev_and_its_own_files() -> anyhow::Result<()> {
    let instance = card_type(2)?.create()?;
    anyhow::ensure!(
        instance.group_path()?.exists(),
        "{} does not exist",
        instance.group_path()?.display()
    );
    if kernel::has("VFIO_DEVICE_CDEV") {
        anyhow::ensure!(
            instance.cdev_path()?.exists(),
            "{} does not exist",
            instance.cdev_path()?.display()
        );
    }
    equal(
        "the reason of the last refusal",
        instance.migration_error()?,
        String::new(),
    )?;
    let link = std::fs::read_link(instance.path().join("mdev_type"))?;
    equal(
        "mdev_type",
        link.file_name().and_then(|name| name.to_str()),
        Some("mdev_serial-2"),
    )?;
    let path = instance.path();
    instance.remove()?;
    anyhow::ensure!(!path.exists(), "{} is still there", path.display());
    Ok(())
}

/// How many more instances of 1, 2 and 4 ports the parent can hold.
fn available() -> anyhow::Result<[u32; 3]> {
    let mut numbers = [0; 3];
    for (number, ports) in numbers.iter_mut().zip(PORTS) {
        *number = card_type(ports)?.available_instances()?;
    }
    Ok(numbers)
}

fn types_share_the_capacity_of_their_parent() -> anyhow::Result<()> {
    let [free, ..] = available()?;
    anyhow::ensure!(free >= 7, "{free} free ports are too few for this test");
    equal(
        "available at first",
        available()?,
        [free, free / 2, free / 4],
    )?;
    let mut instances = Vec::new();
    let mut left = free;
    for ports in PORTS {
        instances.push(card_type(ports)?.create()?);
        left -= ports;
        equal(
            format!("available with one of {ports} ports more"),
            available()?,
            [left, left / 2, left / 4],
        )?;
    }
    for (instance, ports) in instances.into_iter().zip(PORTS) {
        instance.remove()?;
        left += ports;
        equal(
            format!("available with one of {ports} ports less"),
            available()?,
            [left, left / 2, left / 4],
        )?;
    }
    equal("available in the end", left, free)
}

/// Creates an instance; `None` if the parent has no capacity, which must be ENOSPC, and which the kernel logs if it is `full`.
fn try_create(kind: &MdevType, full: bool) -> anyhow::Result<Option<Mdev>> {
    if full {
        ktap::expect_kernel_log(
            "mdev_serial .*: probe with driver mdev_serial failed with error -28",
        );
    }
    match kind.create_with(Uuid::new_v4()) {
        Ok(instance) => Ok(Some(instance)),
        Err(error) => equal(
            format!("errno of {error}"),
            error.raw_os_error(),
            Some(libc::ENOSPC),
        )
        .map(|()| None),
    }
}

fn instances_beyond_the_capacity_are_refused() -> anyhow::Result<()> {
    let before = available()?;
    let mut instances = Vec::new();
    // Largest first, so that few are needed, down to the last port.
    for ports in PORTS.into_iter().rev() {
        let kind = card_type(ports)?;
        while kind.available_instances()? > 0 {
            let Some(instance) = try_create(&kind, false)? else {
                anyhow::bail!("ENOSPC although {} says there is room", kind.name());
            };
            instances.push(instance);
        }
        anyhow::ensure!(
            try_create(&kind, true)?.is_none(),
            "an instance of {} too many was created",
            kind.name()
        );
    }
    equal("available when full", available()?, [0; 3])?;
    let devices = instances.len();

    // One port comes free: room for one of one port and no other.
    let small = instances.pop().into_iter().next();
    drop(small);
    let free = available()?[0];
    anyhow::ensure!(
        free > 0,
        "nothing came free with one of {devices} instances"
    );
    for ports in PORTS.into_iter().filter(|ports| *ports > free) {
        let refused = try_create(&card_type(ports)?, true)?.is_none();
        anyhow::ensure!(
            refused,
            "{ports} ports were created although {free} are free"
        );
    }
    let again = try_create(&card_type(1)?, false)?;
    anyhow::ensure!(
        again.is_some(),
        "{free} free ports, but not for one of one port"
    );
    drop(again);
    drop(instances);
    equal("available in the end", available()?, before)
}

fn a_name_can_be_used_only_once() -> anyhow::Result<()> {
    let before = available()?;
    let instance = card_type(1)?.create()?;
    let again = card_type(2)?
        .create_with(instance.uuid())
        .err()
        .and_then(|error| error.raw_os_error());
    equal("errno of a second instance", again, Some(libc::EEXIST))?;
    instance.remove()?;
    equal("available in the end", available()?, before)
}

fn malformed_names_are_refused() -> anyhow::Result<()> {
    let create = card_type(1)?.path().join("create");
    let good = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
    for name in [
        "1",
        "not-a-uuid-at-all-but-as-long-as-one-",
        &good[1..],
        &good.replace('8', "g"),
        &format!("{good}00"),
    ] {
        let result = std::fs::write(&create, name);
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        equal(
            format!("errno of the name {name:?}"),
            errno,
            Some(libc::EINVAL),
        )?;
    }
    Ok(())
}
