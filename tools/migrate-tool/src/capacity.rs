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

/// Instances that take ports, more and fewer of them without being removed: what a removal waits for takes seconds on a kernel that
/// releases its objects late.
pub struct Taken(Vec<Mdev>);

impl Taken {
    /// The values of `num-ports`, the greatest first.
    const SIZES: [u32; 3] = [4, 2, 1];

    /// As many instances as together can take all ports, of which each has one to begin with. One more than their greatest size asks
    /// for, because there is none of three ports.
    pub fn new() -> Result<Self> {
        let count = free()? / Self::SIZES[0] + 1;
        Ok(Self((0..count).map(|_| any()).collect::<Result<_>>()?))
    }

    /// Takes ports from the state after [`Taken::new`] or [`Taken::give_back`] on until no more than `left` are free.
    pub fn all_but(&self, left: u32) -> Result<()> {
        let mut more = free()?.saturating_sub(left);
        for instance in &self.0 {
            let fits = |size: &u32| size - 1 <= more;
            let size = Self::SIZES.into_iter().find(fits).unwrap_or(1);
            if size > 1 {
                set(instance, "num-ports", size.to_string()).context("an instance that grows")?;
                more -= size - 1;
            }
        }
        equal("free ports", free()?, left)
    }

    /// Gives all ports back but one for each instance.
    pub fn give_back(&self) -> Result<()> {
        for instance in &self.0 {
            set(instance, "num-ports", "1").context("an instance that shrinks")?;
        }
        Ok(())
    }
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
