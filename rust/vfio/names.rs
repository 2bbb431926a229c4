// SPDX-License-Identifier: GPL-2.0

//! Names that several files of sysfs, and who speaks of them, agree on.

use kernel::prelude::*;

/// The `device_api` of every type.
pub(crate) const DEVICE_API: &str = "vfio-pci";

/// The group's directory.
pub(crate) const DIRECTORY: &CStr = c"migration";

/// The file that says whether an eventfd may unmask INTx.
pub(crate) const INTX_UNMASK_EVENTFD: &str = "intx_unmask_eventfd";
