// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Ports as the parent's capacity: a type whose instances can be resized is charged by port.

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::{equal, refused};
use vfio_uapi::mdev::{Mdev, MdevType};
use vfio_uapi::Errno;

use crate::host::{any, get, set, unchanged, values};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        resizing_charges_and_refunds_the_difference,
        resizing_beyond_the_capacity_is_refused,
        an_instance_that_shrinks_makes_room_for_another,
        removing_a_resized_instance_refunds_all_of_it,
    );
}

/// Ports that are free.
pub fn free() -> Result<u32> {
    MdevType::find("mdev_serial-1")?.available_instances()
}

/// Takes ports until no more than `left` are free.
pub fn take_all_but(left: u32) -> Result<Vec<Mdev>> {
    let mut taken = Vec::new();
    for (ports, name) in [(4, "mdev_serial-4"), (1, "mdev_serial-1")] {
        let ty = MdevType::find(name)?;
        while free()? >= left + ports {
            taken.push(ty.create()?);
        }
    }
    equal("free ports", free()?, left)?;
    Ok(taken)
}

fn resizing_charges_and_refunds_the_difference() -> Result<()> {
    let before = free()?;
    let instance = any()?;
    for ports in [1, 4, 2, 2, 4, 1] {
        set(&instance, "num-ports", ports.to_string()).with_context(|| format!("{ports} ports"))?;
        equal(
            format!("free ports beside one with {ports}"),
            free()?,
            before - ports,
        )?;
    }
    drop(instance);
    equal("free ports", free()?, before)
}

fn resizing_beyond_the_capacity_is_refused() -> Result<()> {
    let instance = any()?;
    let taken = take_all_but(2)?;
    let before = values(&instance)?;
    refused(
        "1 to 4 ports with 2 left",
        set(&instance, "num-ports", "4"),
        Errno::ENOSPC,
    )?;
    unchanged(&instance, &before)?;
    let reason = get(&instance, "error")?;
    ensure!(
        reason.contains("capacity") && reason.contains('3') && reason.contains('2'),
        "the reason is {reason:?}"
    );
    // An invalid value is that, however much room there is.
    refused("3 ports", set(&instance, "num-ports", "3"), Errno::EINVAL)?;
    set(&instance, "num-ports", "2").context("1 to 2 ports with 2 left")?;
    equal("free ports", free()?, 1)?;
    drop(taken);
    set(&instance, "num-ports", "4").context("2 to 4 ports with room")
}

fn an_instance_that_shrinks_makes_room_for_another() -> Result<()> {
    let (first, second) = (any()?, any()?);
    set(&first, "num-ports", "4").context("the first")?;
    let _taken = take_all_but(0)?;
    refused("the second", set(&second, "num-ports", "4"), Errno::ENOSPC)?;
    set(&first, "num-ports", "1").context("the first, smaller")?;
    set(&second, "num-ports", "4").context("the second")?;
    refused("the first", set(&first, "num-ports", "2"), Errno::ENOSPC)
}

fn removing_a_resized_instance_refunds_all_of_it() -> Result<()> {
    let before = free()?;
    for _ in 0..3 {
        let instance = any()?;
        set(&instance, "num-ports", "4").context("4 ports")?;
        instance.remove()?;
        equal("free ports", free()?, before)?;
    }
    Ok(())
}
