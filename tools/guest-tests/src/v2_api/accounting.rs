// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Memory that a user makes the kernel keep is charged to the user's control group
//! (Documentation/admin-guide/cgroup-v2.rst), so that its limit is one.

use std::fs;
use std::path::PathBuf;

use anyhow::{ensure, Context};
use rustix::mount::{mount, MountFlags};

use super::card::card_type;
use super::check::Named;
use crate::kernel;
use crate::ktap::Suite;
use crate::mdev::Mdev;
use crate::vfio::migration_v1::Region;
use crate::vfio::Mapping;

/// Where control groups are.
const ROOT: &str = "/sys/fs/cgroup";
/// Devices whose memory is added up. The driver's usual capacity allows so many.
const DEVICES: usize = 32;
/// Bytes of the migration region's data section: the most that a user makes a device keep, by mapping it.
const EACH: u64 = 64 * 1024;
/// By how much the kernel's sum can be off: what it has charged in advance on each processor, in pages (MEMCG_CHARGE_BATCH).
const BATCH: u64 = 64 * 4096;

pub(super) fn add(suite: &mut Suite) {
    tests_with!(
        suite,
        "MEMCG",
        what_a_user_makes_the_kernel_keep_is_charged_to_the_user
    );
}

/// A control group of this process's own; it leaves the group when this is dropped.
struct Group(PathBuf);

impl Group {
    fn enter() -> anyhow::Result<Self> {
        let root = PathBuf::from(ROOT);
        if !root.join("cgroup.controllers").exists() {
            mount("cgroup2", &root, "cgroup2", MountFlags::empty(), None).context(ROOT)?;
        }
        fs::write(root.join("cgroup.subtree_control"), "+memory").context("+memory")?;
        let path = root.join(format!("accounting-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let this = Self(path);
        // 0 is the process that writes.
        fs::write(this.0.join("cgroup.procs"), "0").context("cgroup.procs")?;
        Ok(this)
    }

    /// Bytes that are charged to the group.
    fn charged(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(self.0.join("memory.current")).context("memory.current")?;
        text.trim_end().parse().context("memory.current")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let left = fs::write(format!("{ROOT}/cgroup.procs"), "0");
        if let Err(error) = left.and_then(|()| fs::remove_dir(&self.0)) {
            crate::diag!("{}: {error}", self.0.display());
        }
    }
}

fn what_a_user_makes_the_kernel_keep_is_charged_to_the_user() -> anyhow::Result<()> {
    let access = kernel::usual_access();
    // Who administers the host makes the devices, in a group of his own.
    let kind = card_type(1)?;
    let instances = (0..DEVICES)
        .map(|_| kind.create())
        .collect::<anyhow::Result<Vec<Mdev>>>()?;
    let processors = std::thread::available_parallelism()?.get() as u64;
    let sure = (DEVICES as u64 * EACH)
        .checked_sub(2 * processors * BATCH)
        .context("too many processors to tell")?;

    let group = Group::enter()?;
    let before = group.charged()?;
    let devices = instances
        .iter()
        .map(|instance| access.open(instance))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mappings = devices
        .iter()
        .map(|device| Mapping::of_data(&Region::find(device)?).named("mmap"))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mapped = group.charged()?;
    ensure!(
        mapped >= before + sure,
        "mapping the data sections of {DEVICES} devices, each of {EACH} bytes: {before} bytes became {mapped}"
    );
    drop(mappings);
    drop(devices);
    let closed = group.charged()?;
    ensure!(
        closed + sure <= mapped,
        "closing {DEVICES} devices: {mapped} bytes became {closed}"
    );
    Ok(())
}
