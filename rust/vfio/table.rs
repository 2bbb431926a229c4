// SPDX-License-Identifier: GPL-2.0

//! The table of a driver's types.

use crate::model::Device;
use kernel::prelude::*;
use kernel::str::CString;

/// A type of which user space can create instances: one row of a driver's table.
pub struct Type {
    /// Its name after the driver's: `1` in `mdev_serial-1`.
    pub name: &'static CStr,
    /// Its name for people.
    pub pretty_name: &'static CStr,
    /// What it is, in one or more lines, shorter than a page.
    pub description: &'static str,
    /// The device model, as instances of the type offer it.
    pub migration: &'static ::migration::model::Type<'static>,
}

impl Type {
    /// The name of its directory: the driver's name, and its own.
    pub(crate) fn full_name<T: Device>(&self) -> Result<CString> {
        CString::try_from_fmt(fmt!(
            "{}-{}",
            T::NAME.to_str().map_err(|_| EINVAL)?,
            self.name.to_str().map_err(|_| EINVAL)?
        ))
    }
}
