// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What figures were counted with. Two sets of figures can be compared if that is the same.

use crate::environment::Environment;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;

/// Kernel, compilers, emulator and source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Release of the kernel.
    pub kernel: String,
    /// What compiled its C code.
    pub compiler: String,
    /// What compiled its Rust code, and the modules.
    pub rustc: String,
    /// What emulated the machine.
    pub emulator: String,
    /// The commit of the checkout, with a + if files were changed; empty if it is not known.
    pub commit: String,
}

impl Conditions {
    /// Those of a run.
    pub fn of(env: &Environment, kernel: &str) -> Result<Self> {
        let path = env.kernel.join("config");
        let config =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let version = Command::new(&env.emulator).arg("--version").output();
        let version = version.with_context(|| format!("cannot run {} --version", env.emulator))?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        Ok(Self {
            kernel: kernel.to_owned(),
            compiler: option(&config, "CONFIG_CC_VERSION_TEXT"),
            rustc: option(&config, "CONFIG_RUSTC_VERSION_TEXT"),
            emulator: version.lines().next().unwrap_or_default().to_owned(),
            commit: env.commit.clone(),
        })
    }

    /// What differs and changes figures, for people; nothing if they can be compared. The emulator counts alike in all versions.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let parts = [
            (&self.kernel, &other.kernel),
            (&self.compiler, &other.compiler),
            (&self.rustc, &other.rustc),
        ];
        let differing: Vec<_> = parts
            .iter()
            .filter(|(a, b)| a != b)
            .map(|(a, b)| format!("{a} and not {b}"))
            .collect();
        (!differing.is_empty()).then(|| differing.join(", "))
    }
}

/// The value of a text option of a kernel's configuration; empty if it is not set.
fn option(config: &str, name: &str) -> String {
    let value = config
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(kernel: &str, emulator: &str) -> Conditions {
        Conditions {
            kernel: kernel.to_owned(),
            compiler: "clang".to_owned(),
            rustc: "rustc".to_owned(),
            emulator: emulator.to_owned(),
            commit: String::new(),
        }
    }

    #[test]
    fn another_kernel_makes_a_difference_and_another_emulator_none() {
        let here = conditions("7.3.4", "11.1");
        assert_eq!(here.difference(&conditions("7.3.4", "11.2")), None);
        assert_eq!(
            here.difference(&conditions("7.3.5", "11.1")).as_deref(),
            Some("7.3.4 and not 7.3.5")
        );
    }

    #[test]
    fn text_options_are_read_without_their_quotes() {
        let config = "CONFIG_CC_VERSION_TEXT=\"clang 19\"\nCONFIG_CC_VERSION_TEXT_TOO=\"x\"\n";
        assert_eq!(option(config, "CONFIG_CC_VERSION_TEXT"), "clang 19");
        assert_eq!(option(config, "CONFIG_NONE"), "");
    }
}
