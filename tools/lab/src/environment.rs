// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where everything is: the options that every command has, most of them from environment variables.

use crate::image::qemu::Trees;
use crate::modules::{self, Module};
use anyhow::{bail, Context, Result};
use clap::Args;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};

/// What the machine's kernel can be called: an ELF image, which starts at its PVH entry, or a distribution's, as it is installed.
const KERNELS: [&str; 2] = ["vmlinux", "vmlinuz"];

/// The module of the kernel's own that ours cannot do without.
const MDEV: &str = "mdev";

/// File with the names of modules that the machine loads before anything else, because what they are for is built into the
/// test kernel and not into a distribution's.
const BOOT_MODULES: &str = "boot-modules";

/// A machine that counts instructions.
const COUNTING: &str = "count";

/// A machine whose clock does not wait.
const SKIPPING: &str = "skip";

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Environment {
    /// Directory of the machine's kernel: vmlinux or vmlinuz, its configuration as config, and, somewhere below, its modules
    #[arg(
        long,
        env = "LAB_KERNEL",
        value_name = "DIR",
        global = true,
        default_value = "",
        value_parser = any_path
    )]
    pub kernel: PathBuf,
    /// The same of the guests' kernel, if it is another than the machine's
    #[arg(
        long,
        env = "LAB_GUEST_KERNEL",
        value_name = "DIR",
        global = true,
        hide_default_value = true,
        default_value = "",
        value_parser = any_path
    )]
    pub guest_kernel: PathBuf,
    /// Directory of the modules under test
    #[arg(long, env = "LAB_MODULES", value_name = "DIR", global = true)]
    pub modules: Option<PathBuf>,
    /// Directory of the static programs that run in the machine
    #[arg(
        long,
        env = "LAB_GUEST_TESTS",
        value_name = "DIR",
        global = true,
        default_value = "",
        value_parser = any_path
    )]
    pub guest_tests: PathBuf,
    /// Directory for what may be kept between runs
    #[arg(
        long,
        env = "LAB_CACHE",
        value_name = "DIR",
        global = true,
        default_value = "",
        value_parser = any_path
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
    /// What operations may cost: a file of figures
    #[arg(
        long,
        env = "LAB_BASELINE",
        value_name = "FILE",
        global = true,
        hide_default_value = true,
        default_value = "",
        value_parser = any_path
    )]
    pub baseline: PathBuf,
    /// The commit of the checkout, for figures
    #[arg(
        long,
        env = "LAB_COMMIT",
        global = true,
        hide_default_value = true,
        default_value = ""
    )]
    pub commit: String,
    /// Directories of the sources of the crates whose unsafe blocks are looked for, on a kernel that records what runs, with colons
    /// between them
    #[arg(
        long,
        env = "LAB_UNSAFE",
        value_name = "DIRS",
        value_delimiter = ':',
        global = true
    )]
    pub sources: Vec<PathBuf>,
    /// The linker that gives the code of a module addresses, for that
    #[arg(
        long,
        env = "LAB_LINKER",
        value_name = "PROGRAM",
        global = true,
        default_value = "ld.lld"
    )]
    pub linker: PathBuf,
    /// Stretches every deadline by this factor, beside what the measured boot time asks for
    #[arg(
        long,
        env = "LAB_TIMEOUT_SCALE",
        value_name = "FACTOR",
        global = true,
        default_value_t = 1.0
    )]
    pub timeout_scale: f64,
    /// How the machine is emulated: count has one processor, and a nanosecond of its clock is an instruction; skip has one processor,
    /// too, and does not wait until it is later when nothing else is to be done. Guests inside it always run under KVM, which these
    /// two are too slow for
    #[arg(long, env = "LAB_ACCEL", global = true, default_value = "tcg", value_parser = ["tcg", "kvm", COUNTING, SKIPPING])]
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
    /// For how long a machine takes an instruction that it counts, as a power of two of nanoseconds; `None` if time passes as it does
    /// elsewhere.
    pub fn icount_shift(&self) -> Option<u8> {
        match self.accel.as_str() {
            COUNTING => Some(0),
            // Several times what an instruction takes: a process that waits busily is done sooner.
            SKIPPING => Some(4),
            _ => None,
        }
    }

    /// The processor that is emulated. With `erms` and `fsrm` a kernel copies and clears memory by an instruction that says how many
    /// bytes: fast on hardware, and here a step for each byte. With `la57` each way through a page table is a table longer. A machine
    /// that counts has them, as what it counts is held against figures of another time.
    pub fn processor(&self) -> &'static str {
        match self.accel.as_str() {
            COUNTING => "max",
            _ => "max,erms=off,fsrm=off,la57=off",
        }
    }

    /// Processors of the machine. One that counts has the others wait for it, which gains nothing.
    pub fn processors(&self) -> u32 {
        match self.icount_shift() {
            Some(_) => 1,
            None => self.cpus,
        }
    }

    /// The same with a machine that counts instructions.
    pub fn counting(&self) -> Self {
        Self {
            accel: COUNTING.to_owned(),
            ..self.clone()
        }
    }

    /// The kernel image. Its name tells how it is started.
    pub fn kernel_image(&self) -> Result<PathBuf> {
        image_in(given(&self.kernel, "LAB_KERNEL")?)
    }

    /// The kernel image of the guests.
    pub fn guest_kernel_image(&self) -> Result<PathBuf> {
        match self.guest_kernel.as_os_str().is_empty() {
            true => self.kernel_image(),
            false => image_in(&self.guest_kernel),
        }
    }

    /// Whether the kernel's configuration has this line.
    pub fn kernel_is_configured(&self, line: &str) -> bool {
        let text = self
            .kernel_config()
            .and_then(|path| fs::read_to_string(path).ok());
        text.is_some_and(|text| text.lines().any(|of| of == line))
    }

    /// The kernel's configuration, if it is there.
    pub fn kernel_config(&self) -> Option<PathBuf> {
        let path = self.kernel.join("config");
        path.is_file().then_some(path)
    }

    /// Modules that the machine loads first, each after those it depends on.
    pub fn boot_modules<'a>(&self, all: &'a [Module]) -> Result<Vec<&'a Module>> {
        let path = self.kernel.join(BOOT_MODULES);
        if !path.is_file() {
            return Ok(vec![]);
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let names: Vec<&str> = text.lines().map(str::trim).collect();
        modules::load_order(all, &names)
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

    /// The modules `wanted` and those they depend on, in order, but those that the machine has loaded at its start.
    pub fn modules_to_load<'a>(
        &self,
        all: &'a [Module],
        wanted: &[&str],
    ) -> Result<Vec<&'a Module>> {
        let there = self.boot_modules(all)?;
        let mut order = modules::load_order(all, wanted)?;
        order.retain(|module| !there.contains(module));
        Ok(order)
    }

    /// Every kernel module there is: the kernel's first, then those under test.
    pub fn all_modules(&self) -> Result<Vec<Module>> {
        self.kernel_image()?;
        let mut all = read_modules(&self.kernel)?;
        if all.iter().all(|module| module.name != MDEV) {
            bail!(
                "{} has no {MDEV}.ko: build the test kernel's modules",
                self.kernel.display()
            );
        }
        if let Some(directory) = &self.modules {
            all.extend(read_modules(directory)?);
        }
        Ok(all)
    }
}

/// The kernel image in a directory.
fn image_in(directory: &Path) -> Result<PathBuf> {
    let places = KERNELS.map(|name| directory.join(name));
    let found = places.into_iter().find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "{} has neither {}: build the test kernel first",
            directory.display(),
            KERNELS.join(" nor ")
        )
    })
}

fn read_modules(directory: &Path) -> Result<Vec<Module>> {
    let paths = modules::find(directory)?;
    paths.iter().map(|path| Module::read(path)).collect()
}

/// A path that may be empty: whoever needs it says what is missing.
fn any_path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(PathBuf::from(text))
}

fn given<'a>(path: &'a Path, variable: &str) -> Result<&'a Path> {
    if path.as_os_str().is_empty() {
        bail!("{variable} is not set: run the lab through make, or set it (see lab --help)");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        env: Environment,
    }

    fn environment(kernel: &Path) -> Environment {
        Line::parse_from(["lab".as_ref(), "--kernel".as_ref(), kernel.as_os_str()]).env
    }

    fn module(name: &str, depends: &[&str]) -> Module {
        Module {
            name: name.to_owned(),
            path: PathBuf::new(),
            depends: depends.iter().map(|name| name.to_string()).collect(),
            kunit_suites: 0,
        }
    }

    #[test]
    fn a_kernel_is_found_by_either_name_and_none_is_an_error_that_has_both() {
        let place = tempfile::tempdir().unwrap();
        let env = environment(place.path());
        let error = env.kernel_image().unwrap_err().to_string();
        assert!(error.contains("vmlinux nor vmlinuz"), "{error}");
        fs::write(place.path().join("vmlinuz"), "x").unwrap();
        assert!(env.kernel_image().unwrap().ends_with("vmlinuz"));
        fs::write(place.path().join("vmlinux"), "x").unwrap();
        assert!(env.kernel_image().unwrap().ends_with("vmlinux"));
    }

    #[test]
    fn guests_have_the_machines_kernel_or_their_own() {
        let place = tempfile::tempdir().unwrap();
        let [machine, guest] = ["machine", "guest"].map(|name| place.path().join(name));
        for directory in [&machine, &guest] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("vmlinux"), "x").unwrap();
        }
        let mut env = environment(&machine);
        assert!(env.guest_kernel_image().unwrap().starts_with(&machine));
        env.guest_kernel = guest.clone();
        assert!(env.guest_kernel_image().unwrap().starts_with(&guest));
        env.guest_kernel = place.path().join("none");
        assert!(env.guest_kernel_image().is_err());
    }

    #[test]
    fn an_option_is_a_whole_line_of_the_configuration() {
        let place = tempfile::tempdir().unwrap();
        let env = environment(place.path());
        assert!(!env.kernel_is_configured("CONFIG_KASAN=y"));
        fs::write(
            place.path().join("config"),
            "CONFIG_KASAN=y\nCONFIG_KCOV=yes\n",
        )
        .unwrap();
        assert!(env.kernel_is_configured("CONFIG_KASAN=y"));
        assert!(!env.kernel_is_configured("CONFIG_KCOV=y"));
    }

    #[test]
    fn modules_for_the_boot_come_with_what_they_depend_on_and_one_that_is_missing_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let env = environment(place.path());
        let all = [
            module("kvm_amd", &["kvm"]),
            module("kvm", &["irqbypass"]),
            module("irqbypass", &[]),
            module("mdev", &[]),
        ];
        assert_eq!(env.boot_modules(&all).unwrap(), Vec::<&Module>::new());
        fs::write(place.path().join(BOOT_MODULES), "kvm_amd\n").unwrap();
        let order = env.boot_modules(&all).unwrap();
        let names: Vec<_> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["irqbypass", "kvm", "kvm_amd"]);
        // Nor is one loaded twice.
        let later = env.modules_to_load(&all, &["mdev", "kvm"]).unwrap();
        assert_eq!(later, [&all[3]]);
        fs::write(place.path().join(BOOT_MODULES), "kvm_amd\nconfigfs\n").unwrap();
        assert!(env.boot_modules(&all).is_err());
    }
}
