// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The QEMU versions in the test machine, and what tells them apart for somebody who starts one and listens to it.

use std::fmt;
use std::str::FromStr;

/// A QEMU in the test machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The last one with migration protocol v1.
    V7_2,
    /// The usual one.
    V10_0,
    /// The newest, which asks a device for the second form of its pre-copy information.
    V11_1,
}

/// How QEMU gets at a card's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// By the migration region.
    V1,
    /// By `VFIO_DEVICE_FEATURE` and a data file.
    V2,
}

/// What the trace of a QEMU of protocol v1 holds: the migration of the device, its interrupt set-up and removal, but not every
/// register access. A name without an asterisk that QEMU does not know makes it complain.
const TRACES_V1: &[&str] = &[
    "vfio_migration_*",
    "vfio_save_setup",
    "vfio_save_buffer",
    "vfio_save_complete_precopy",
    "vfio_save_cleanup",
    "vfio_load_*",
    "vfio_get_dirty_bitmap",
    "vfio_vmstate_change*",
    "vfio_intx_enable*",
    "vfio_intx_disable",
    "vfio_msi_enable",
    "vfio_pci_reset*",
    "dirtyrate_set_state",
];

/// The same for protocol v2.
const TRACES_V2: &[&str] = &[
    "vfio_migration_*",
    "vfio_save_setup",
    "vfio_save_block",
    "vfio_save_complete_precopy*",
    "vfio_save_cleanup",
    "vfio_load_*",
    "vfio_device_dirty_tracking_*",
    "vfio_vmstate_change*",
    "vfio_intx_enable*",
    "vfio_intx_disable",
    "vfio_msi_enable",
    "vfio_pci_reset*",
    "source_return_path_thread_switchover_acked",
    "acpi_pci_unplug_request",
    "dirtyrate_set_state",
];

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Version; 3] = [Version::V7_2, Version::V10_0, Version::V11_1];

    /// Its number, as it is in names of directories and machine types.
    pub fn number(self) -> &'static str {
        match self {
            Version::V7_2 => "7.2",
            Version::V10_0 => "10.0",
            Version::V11_1 => "11.1",
        }
    }

    /// The program in the test machine.
    pub fn program(self) -> String {
        format!("/opt/qemu-{}/bin/qemu-system-x86_64", self.number())
    }

    /// Which protocol it speaks.
    pub fn protocol(self) -> Protocol {
        match self {
            Version::V7_2 => Protocol::V1,
            Version::V10_0 | Version::V11_1 => Protocol::V2,
        }
    }

    /// Machine type of the guests: a fixed version, so that both sides agree whatever QEMU calls its newest, and without
    /// the parts that a guest with KVM's clock needs not, each of which costs it time to set up.
    pub fn machine(self) -> String {
        format!(
            "pc-q35-{},hpet=off,pit=off,i8042=off,smbus=off,sata=off",
            self.number()
        )
    }

    /// The machine type for [`super::command_line::Spec::pluggable`]; the other's root bus has fixed slots.
    pub fn pluggable_machine(self) -> String {
        format!("pc-i440fx-{}", self.number())
    }

    /// Properties of QEMU's vfio-pci device that make a card migratable and its migration observable.
    pub fn card_properties(self) -> &'static str {
        match self.protocol() {
            // There is no option ROM, and QEMU of this age looks for one if it is not told.
            Protocol::V1 => "x-enable-migration=on,rombar=0",
            Protocol::V2 => "enable-migration=on,migration-events=on",
        }
    }

    /// What its trace holds: patterns for QEMU's `-trace`.
    pub fn traces(self) -> &'static [&'static str] {
        match self.protocol() {
            Protocol::V1 => TRACES_V1,
            Protocol::V2 => TRACES_V2,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|version| version.number() == text);
        found.ok_or_else(|| {
            let all = Self::ALL.map(Version::number).join(", ");
            format!("there is no QEMU {text}; there are {all}")
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::V1 => "v1, the migration region",
            Protocol::V2 => "v2, device features and a data file",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_back_and_an_unknown_one_is_told_what_there_is() {
        for version in Version::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        let error = "7".parse::<Version>().unwrap_err();
        assert!(error.contains("7.2, 10.0, 11.1"), "{error}");
    }
}
