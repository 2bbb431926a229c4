// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Debian's mdevctl: the installed one, with the shared libraries it needs and the directories that it expects.

use super::qemu::{program, through_loader};
use super::HostFile;
use anyhow::Result;
use std::path::Path;

/// Where it goes in the machine.
const HOME: &str = "opt/mdevctl";

const PROGRAM: &str = "/usr/bin/mdevctl";

/// Where a person's PATH finds it.
pub const LINK: &str = "usr/sbin/mdevctl";

/// The script that starts it.
pub const STARTER: &str = "opt/mdevctl/bin/mdevctl";

/// The project's callout script, and where a person installs it.
pub const CALLOUT: (&str, &str) = (
    "usr/lib/mdevctl/scripts.d/callouts/vfio-migrate",
    include_str!("../../../integration/mdevctl-callout"),
);

/// Where the script finds the program that it needs, and where that is.
pub const CALLOUT_PROGRAM: (&str, &str) = ("usr/bin/vfio-migrate", "/tests/vfio-migrate");

/// Directories of the package, all of them empty: definitions, and scripts that are to be run when something happens to a device.
pub const DIRECTORIES: [&str; 3] = [
    "etc/mdevctl.d",
    "usr/lib/mdevctl/scripts.d/callouts",
    "usr/lib/mdevctl/scripts.d/notifiers",
];

/// Files on the host and their places in the machine.
pub fn files() -> Result<Vec<HostFile>> {
    program(Path::new(PROGRAM), "mdevctl", HOME)
}

/// A program that starts it from wherever it lies, with its own libraries.
pub fn wrapper() -> String {
    through_loader(HOME, "mdevctl", "")
}
