// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Loading and unloading the kernel modules under test, with other parameters or to see what happens.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};

use crate::coverage;
use crate::kernel;
use crate::ktap::scaled;
use crate::vfio::event_fd::DEADLINE;

/// The driver.
pub const DRIVER: &str = "mdev_serial";
/// Where the test machine keeps modules.
const MODULES: &str = "/lib/modules/lab";

/// Where the kernel has the drivers of mediated devices.
const DRIVERS: &str = "/sys/bus/mdev/drivers";
/// Between two looks at whether a name is free: nothing tells when it is.
const LOOK: Duration = Duration::from_millis(20);

/// A module that is loaded, without parameters; it is unloaded when this is dropped, and nothing of it may be in use then.
#[derive(Debug)]
pub struct Loaded(&'static str);

impl Loaded {
    /// Loads it.
    pub fn new(module: &'static str) -> Result<Self> {
        load(module, "")?;
        Ok(Self(module))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = unload(self.0) {
            crate::diag!("{} is not unloaded: {error}", self.0);
        }
    }
}

/// rmmod. A module with users is EWOULDBLOCK (delete_module(2)).
pub fn unload(module: &str) -> Result<(), Errno> {
    let name = CString::new(module).map_err(|_| Errno::EINVAL)?;
    coverage::unloading(|| delete_module(&name, DeleteModuleFlags::O_NONBLOCK))
}

/// Waits until nothing is left of a driver that was unloaded. A kernel that releases its objects seconds late, to find those who do not
/// wait (CONFIG_DEBUG_KOBJECT_RELEASE), keeps the driver's name until then, and refuses another of that name with EBUSY.
pub fn await_free_name(module: &str) -> Result<()> {
    let left = Path::new(DRIVERS).join(module);
    let loaded = Path::new("/sys/module").join(module);
    let end = Instant::now() + scaled(DEADLINE);
    while kernel::has("DEBUG_KOBJECT_RELEASE") && left.exists() && !loaded.exists() {
        ensure!(Instant::now() < end, "{} does not go", left.display());
        thread::sleep(LOOK);
    }
    Ok(())
}

/// insmod.
pub fn load(module: &str, parameters: &str) -> Result<()> {
    await_free_name(module)?;
    let path = Path::new(MODULES).join(format!("{module}.ko"));
    let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
    let parameters = CString::new(parameters)?;
    let loaded = finit_module(&file, &parameters, ModuleInitFlags::empty());
    // Of where the module is now.
    coverage::file();
    loaded.with_context(|| path.display().to_string())
}

/// The parameters of the loaded module that can be read back, as insmod takes them.
pub fn parameters(module: &str) -> Result<String> {
    let directory = Path::new("/sys/module").join(module).join("parameters");
    let mut text = Vec::new();
    if let Ok(entries) = fs::read_dir(&directory) {
        for entry in entries {
            let entry = entry?;
            let value = fs::read_to_string(entry.path())
                .with_context(|| entry.path().display().to_string())?;
            text.push(format!(
                "{}={}",
                entry.file_name().to_string_lossy(),
                value.trim_end()
            ));
        }
    }
    Ok(text.join(" "))
}

/// The driver with other parameters. Loaded as before when dropped; nothing may be in use then.
#[derive(Debug)]
pub struct Reloaded {
    before: String,
}

impl Reloaded {
    /// Loads the driver anew, with these parameters beside those that it had.
    pub fn with(more: &str) -> Result<Self> {
        let before = parameters(DRIVER)?;
        unload(DRIVER).context("unloading the driver")?;
        // From here on it is to be loaded as before, whatever happens.
        let this = Self { before };
        load(DRIVER, format!("{} {more}", this.before).trim())?;
        Ok(this)
    }
}

impl Drop for Reloaded {
    fn drop(&mut self) {
        // It is not loaded if loading it failed.
        let unloaded = match unload(DRIVER) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(anyhow::Error::from(error)),
        };
        if let Err(error) = unloaded.and_then(|()| load(DRIVER, &self.before)) {
            crate::diag!("the driver is not loaded as before: {error:#}");
        }
    }
}
