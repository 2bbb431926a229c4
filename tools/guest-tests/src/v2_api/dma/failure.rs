// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device that cannot go on: the error state.

use super::super::check::{equal, refused, Named};
use super::super::copier::{driver, Copier};
use crate::ktap::Suite;
use crate::vfio::{Access, Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        hostile_24_every_request_in_the_error_state_is_refused,
        a_device_that_fails_in_pre_copy_ends_the_session,
    );
}

fn hostile_24_every_request_in_the_error_state_is_refused(access: Access) -> anyhow::Result<()> {
    let copier = Copier::failed(access)?;
    for target in (0..=8).chain([u32::MAX]) {
        refused(
            format!("state {target}"),
            copier.move_to_number(target).result,
            Errno::EIO,
        )?;
    }
    equal("state", copier.state(), Ok(State::Error))?;
    equal(
        "migration/state",
        copier.instance.attribute("migration/state")?,
        "ERROR".into(),
    )?;
    equal(
        "the reason",
        copier.instance.migration_error()?,
        "the device has failed and must be reset".into(),
    )
}

fn a_device_that_fails_in_pre_copy_ends_the_session(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let data = copier.start(State::PreCopy).named("to PRE_COPY")?;
    copier.fail()?;
    equal("state", copier.state(), Ok(State::Error))?;
    equal(
        "the reason",
        copier.instance.migration_error()?,
        "the device has failed: the guest asked for it".into(),
    )?;
    refused(
        "a read of the data file",
        data.read(&mut [0; 16]),
        Errno::ENODEV,
    )?;
    copier.reset().named("reset")?;
    equal("state", copier.state(), Ok(State::Running))?;
    copier.start(State::PreCopy).named("to PRE_COPY again")?;
    Ok(())
}
