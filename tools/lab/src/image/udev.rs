// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Debian's udev, to try the project's rule with: the daemon and its tool, which are one program, with the shared libraries that
//! it needs. Nothing starts it but a test.

use super::qemu::{program, through_loader};
use super::HostFile;
use anyhow::Result;
use std::path::Path;

/// Where it goes in the machine.
const HOME: &str = "opt/udev";

const PROGRAM: &str = "/usr/bin/udevadm";

/// The scripts that start it: by its name it knows what to be.
pub const STARTERS: [&str; 2] = ["opt/udev/bin/udevadm", "opt/udev/bin/systemd-udevd"];

/// The project's rule, and where a person installs it.
pub const RULE: (&str, &str) = (
    "etc/udev/rules.d/60-mdev-migration.rules",
    include_str!("../../../integration/60-mdev-migration.rules"),
);

/// Files on the host and their places in the machine.
pub fn files() -> Result<Vec<HostFile>> {
    program(Path::new(PROGRAM), "udev", HOME)
}

/// A program that starts it from wherever it lies, with its own libraries, under the name that it is called by.
pub fn wrapper() -> String {
    through_loader(HOME, "udevadm", "")
}
