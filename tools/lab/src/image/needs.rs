// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a machine is started for. What it does not use costs it memory and a second or two when it boots, and several with a kernel
//! that checks every access to memory, or a processor that is counted.

use super::{dbus, qemu};
use std::collections::BTreeSet;

/// What a root file system has beside what every machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Whatever there is, for somebody at a prompt.
    Everything,
    /// No more than this.
    Only {
        /// Versions of QEMU. If there is one, there is what guests boot, too.
        qemus: BTreeSet<String>,
        /// Names of programs that were built here.
        programs: BTreeSet<String>,
    },
}

impl Needs {
    /// These programs, and no guests.
    pub fn programs(names: &[&str]) -> Self {
        Self::Only {
            qemus: BTreeSet::new(),
            programs: names.iter().map(|name| name.to_string()).collect(),
        }
    }

    /// Whether a QEMU of this version is in it.
    pub fn qemu(&self, version: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only { qemus, .. } => qemus.contains(version),
        }
    }

    /// Whether the QEMU of the private root is.
    pub fn installed_qemu(&self) -> bool {
        self.qemu(qemu::INSTALLED)
    }

    /// Whether what guests boot is.
    pub fn guests(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Only { qemus, .. } => !qemus.is_empty(),
        }
    }

    /// Whether a bus is.
    pub fn bus(&self) -> bool {
        self.qemu(dbus::WITH)
    }

    /// Whether this program is.
    pub fn program(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only { programs, .. } => programs.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_guests_has_its_programs_and_nothing_of_theirs() {
        let needs = Needs::programs(&["v2-api"]);
        assert!(needs.program("v2-api") && !needs.program("scenarios"));
        assert!(!needs.guests() && !needs.bus() && !needs.installed_qemu());
    }

    #[test]
    fn a_machine_for_whatever_may_come_has_everything() {
        let needs = Needs::Everything;
        assert!(needs.program("any") && needs.qemu("7.2") && needs.guests() && needs.bus());
    }
}
