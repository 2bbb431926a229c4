// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where everything is: the options that every command has, most of them from environment variables.

use crate::image::qemu::Trees;
use crate::modules::{self, Module};
use anyhow::{bail, Context, Result};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};

/// What the kernel build gives that tests need beside our own modules: the mdev core and the C sample to compare with.
const KERNEL_MODULES: [&str; 2] = ["drivers/vfio/mdev/mdev.ko", "samples/vfio-mdev/mtty.ko"];

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Environment {
    /// Directory of the test kernel: vmlinux and, somewhere below, mdev.ko and mtty.ko
    #[arg(
        long,
        env = "LAB_KERNEL",
        value_name = "DIR",
        global = true,
        default_value = ""
    )]
    pub kernel: PathBuf,
    /// Directory of the modules under test
    #[arg(long, env = "LAB_MODULES", value_name = "DIR", global = true)]
    pub modules: Option<PathBuf>,
    /// Directory of the static programs that run in the machine
    #[arg(
        long,
        env = "LAB_GUEST_TESTS",
        value_name = "DIR",
        global = true,
        default_value = ""
    )]
    pub guest_tests: PathBuf,
    /// Directory for what may be kept between runs
    #[arg(
        long,
        env = "LAB_CACHE",
        value_name = "DIR",
        global = true,
        default_value = ""
    )]
    pub cache: PathBuf,
    /// Further QEMUs for the machine, beside the installed one, with commas between
    #[arg(
        long,
        env = "LAB_QEMU",
        value_name = "VERSION=DIR",
        global = true,
        hide_default_value = true,
        default_value = ""
    )]
    pub qemu_trees: Trees,
    /// Directory for results and logs; what an earlier run left there is removed
    #[arg(
        long,
        env = "LAB_RESULTS",
        value_name = "DIR",
        global = true,
        default_value = "results"
    )]
    pub results: PathBuf,
    /// Stretches every deadline by this factor, beside what the measured boot time asks for
    #[arg(
        long,
        env = "LAB_TIMEOUT_SCALE",
        value_name = "FACTOR",
        global = true,
        default_value_t = 1.0
    )]
    pub timeout_scale: f64,
    /// How the machine is emulated. Guests inside it always run under KVM
    #[arg(long, env = "LAB_ACCEL", global = true, default_value = "tcg", value_parser = ["tcg", "kvm"])]
    pub accel: String,
    /// The QEMU that runs the machine
    #[arg(
        long,
        env = "LAB_EMULATOR",
        value_name = "PROGRAM",
        global = true,
        default_value = "qemu-system-x86_64"
    )]
    pub emulator: String,
    /// Memory of a machine in MiB
    #[arg(
        long,
        env = "LAB_MEMORY",
        value_name = "MIB",
        global = true,
        default_value_t = 2048
    )]
    pub memory: u32,
    /// Processors of a machine; programs run on all but the first, which is left to the kernel
    #[arg(
        long,
        env = "LAB_CPUS",
        value_name = "N",
        global = true,
        default_value_t = 3
    )]
    pub cpus: u32,
}

impl Environment {
    /// The kernel image.
    pub fn vmlinux(&self) -> Result<PathBuf> {
        let path = given(&self.kernel, "LAB_KERNEL")?.join("vmlinux");
        if !path.is_file() {
            bail!("{} is missing: build the test kernel first", path.display());
        }
        Ok(path)
    }

    /// The directory of guest programs.
    pub fn guest_tests(&self) -> Result<&Path> {
        given(&self.guest_tests, "LAB_GUEST_TESTS")
    }

    /// The cache directory, which is made if it is not there.
    pub fn cache(&self) -> Result<PathBuf> {
        let path = given(&self.cache, "LAB_CACHE")?;
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path.to_owned())
    }

    /// Every kernel module there is: the kernel's first, then those under test.
    pub fn all_modules(&self) -> Result<Vec<Module>> {
        self.vmlinux()?;
        let kernel = &self.kernel;
        let mut paths = Vec::new();
        for module in KERNEL_MODULES {
            let usual = kernel.join(module);
            if usual.is_file() {
                paths.push(usual);
                continue;
            }
            let name = usual.file_name();
            let found = modules::find(kernel)?
                .into_iter()
                .find(|path| path.file_name() == name);
            paths.push(found.with_context(|| {
                format!(
                    "{} has no {module}: build the test kernel's modules",
                    kernel.display()
                )
            })?);
        }
        if let Some(directory) = &self.modules {
            paths.extend(modules::find(directory)?);
        }
        paths.iter().map(|path| Module::read(path)).collect()
    }
}

fn given<'a>(path: &'a Path, variable: &str) -> Result<&'a Path> {
    if path.as_os_str().is_empty() {
        bail!("{variable} is not set: run the lab through make, or set it (see lab --help)");
    }
    Ok(path)
}
