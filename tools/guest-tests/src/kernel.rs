// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the machine's kernel was configured with. A test of what a kernel lacks by its configuration is skipped, and says so;
//! that something does not work is never a reason to skip.

use std::path::Path;
use std::sync::OnceLock;

use anyhow::Result;

use crate::ktap;
use crate::vfio::Access;

/// The option without which there is no way to open a device but by its group.
const CDEV: &str = "VFIO_DEVICE_CDEV";

/// The options without which VFIO has no use for a device's log of what it wrote.
pub const LOGGING: &str = "IOMMUFD_DRIVER";

/// The kernel's configuration. Without the file, as in a machine that was put together by hand, nothing counts as lacking.
fn configuration() -> Option<&'static str> {
    static TEXT: OnceLock<Option<String>> = OnceLock::new();
    let read = || std::fs::read_to_string(Path::new("/").join(lab_protocol::KERNEL_CONFIG)).ok();
    TEXT.get_or_init(read).as_deref()
}

/// Whether a configuration has an option, built in or as a module.
fn sets(configuration: &str, option: &str) -> bool {
    configuration.lines().any(|line| {
        let value = line
            .strip_prefix("CONFIG_")
            .and_then(|rest| rest.strip_prefix(option));
        matches!(value, Some("=y" | "=m"))
    })
}

/// Whether the kernel has an option, given without `CONFIG_`.
pub fn has(option: &str) -> bool {
    configuration().is_none_or(|text| sets(text, option))
}

/// Skips the running test where the kernel lacks an option.
///
/// # Errors
/// If it does: the error that skips.
pub fn needs(option: &str) -> Result<()> {
    if has(option) {
        return Ok(());
    }
    ktap::skip(format!("this kernel was built without CONFIG_{option}"))
}

/// Skips the running test where the kernel lacks this way to open a device.
///
/// # Errors
/// If it does: the error that skips.
pub fn needs_access(access: Access) -> Result<()> {
    match access {
        Access::Group => Ok(()),
        Access::Cdev => needs(CDEV),
    }
}

/// The ways to open a device that the kernel has.
pub fn accesses() -> impl Iterator<Item = Access> + Clone {
    let cdev = has(CDEV);
    let there = move |access: &Access| *access == Access::Group || cdev;
    Access::ALL.into_iter().filter(there)
}

/// How a test opens a device if it does not matter: by its own file, where the kernel has that.
pub fn usual_access() -> Access {
    if has(CDEV) {
        Access::Cdev
    } else {
        Access::Group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_set_by_a_line_of_its_own_whether_built_in_or_a_module() {
        let text =
            "CONFIG_A=y\nCONFIG_BC=m\n# CONFIG_D is not set\nCONFIG_E=\"y\"\nCONFIG_AX_G=y\n";
        let set = |option| sets(text, option);
        assert!(set("A") && set("BC"));
        assert!(!set("B") && !set("C") && !set("D") && !set("E") && !set("G") && !set(""));
    }

    #[test]
    fn without_a_configuration_nothing_is_lacking() {
        // The host has no such file.
        assert!(has("ANYTHING") && needs("ANYTHING").is_ok());
        assert_eq!(accesses().count(), Access::ALL.len());
    }
}
