// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `callout`: answers mdevctl.

use std::io::stdin;

use vfio_migrate::error::{Error, Result};
use vfio_migrate::mdevctl;
use vfio_migrate::operand;
use vfio_migrate::sysfs::read_bounded;

use super::Context;
use crate::cli::Callout;

/// `callout`
pub fn callout(context: &mut Context<'_>, asked: &Callout) -> Result<bool> {
    let definition = || {
        let text = read_bounded(stdin().lock());
        text.map_err(|error| Error::failed(format!("the definition from mdevctl: {error}")))
    };
    match (asked.event.as_str(), asked.action.as_str()) {
        ("get", "capabilities") => context.out.json(mdevctl::capabilities()),
        ("get", "attributes") => {
            let instance = operand::instance(&context.sysfs, &asked.uuid)?;
            context.out.json(mdevctl::attributes(&instance)?);
        }
        ("live", "modify") => {
            let mut instance = operand::instance(&context.sysfs, &asked.uuid)?;
            mdevctl::modify(&mut instance, &definition()?)?;
        }
        ("pre", "start") => {
            if operand::instance(&context.sysfs, &asked.uuid).is_ok() {
                return Err(Error::refused(format!(
                    "{}: the instance is there already: `mdevctl modify --live` changes it, `mdevctl stop` ends it when \
                     nobody has it open",
                    asked.uuid
                )));
            }
            mdevctl::check_start(
                &context.sysfs,
                &asked.parent,
                &asked.mdev_type,
                &definition()?,
            )?;
        }
        // Of the rest we have nothing to say.
        _ => {}
    }
    Ok(true)
}
