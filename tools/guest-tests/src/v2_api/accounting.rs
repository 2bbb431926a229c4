// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Memory that a user makes the kernel keep is charged to the user's control group
//! (Documentation/admin-guide/cgroup-v2.rst), so that its limit is one.

use std::fs;
use std::path::PathBuf;
use std::thread;

use anyhow::{ensure, Context};
use rustix::mount::{mount, MountFlags};

use super::card::card_type;
use super::check::Named;
use super::copier::{self, SCRATCH_LENGTH};
use super::dma::map_all;
use crate::kernel;
use crate::ktap::Suite;
use crate::mdev::{Mdev, MdevType};
use crate::processors::stay_on_this_processor;
use crate::vfio::migration_v1::Region;
use crate::vfio::Mapping;

/// Where control groups are.
const ROOT: &str = "/sys/fs/cgroup";
/// Devices whose data sections are added up. The driver's usual capacity allows so many.
const DEVICES: usize = 32;
/// Bytes of the migration region's data section: the most that a user makes a card keep, by mapping it.
const DATA_SECTION: u64 = 64 * 1024;
/// Devices whose own memory is added up: all that the driver has.
const COPIERS: usize = 16;
/// By how much the kernel's sum can be off: what it has charged in advance on a processor, in bytes (MEMCG_CHARGE_BATCH pages).
const BATCH: u64 = 64 * 4096;

pub(super) fn add(suite: &mut Suite) {
    tests_with!(
        suite,
        "MEMCG",
        what_a_user_makes_the_kernel_keep_is_charged_to_the_user,
        the_memory_of_a_device_is_charged_to_its_user,
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

/// Sees that what is kept for a user who has `count` devices open, with so many bytes of each mapped, is charged to him, and no more when
/// they are closed. One thread does it, on one processor: only that one charges in advance.
fn is_charged<M>(
    instances: &[Mdev],
    bytes: u64,
    mapped: impl Fn(&crate::vfio::Device) -> anyhow::Result<M> + Send,
) -> anyhow::Result<()> {
    let count = instances.len();
    // Each of two readings may be off.
    let sure = (count as u64 * bytes)
        .checked_sub(2 * BATCH)
        .context("too few bytes to tell")?;
    let measured = || {
        stay_on_this_processor()?;
        let access = kernel::usual_access();
        let group = Group::enter()?;
        let before = group.charged()?;
        let devices = instances
            .iter()
            .map(|instance| access.open(instance))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mappings = devices
            .iter()
            .map(mapped)
            .collect::<anyhow::Result<Vec<_>>>()?;
        let during = group.charged()?;
        ensure!(
            during >= before + sure,
            "mapping {bytes} bytes of each of {count} devices: {before} bytes became {during}"
        );
        drop(mappings);
        drop(devices);
        let closed = group.charged()?;
        ensure!(
            closed + sure <= during,
            "closing {count} devices: {during} bytes became {closed}"
        );
        Ok(())
    };
    thread::scope(|scope| {
        scope
            .spawn(measured)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Who administers the host makes the devices, in a group of his own.
fn created(kind: &MdevType, count: usize) -> anyhow::Result<Vec<Mdev>> {
    (0..count).map(|_| kind.create()).collect()
}

fn what_a_user_makes_the_kernel_keep_is_charged_to_the_user() -> anyhow::Result<()> {
    is_charged(&created(&card_type(1)?, DEVICES)?, DATA_SECTION, |device| {
        Mapping::of_data(&Region::find(device)?).named("mmap")
    })
}

fn the_memory_of_a_device_is_charged_to_its_user() -> anyhow::Result<()> {
    let _driver = copier::driver()?;
    let copiers = created(&MdevType::find("mdev_copy-1")?, COPIERS)?;
    is_charged(&copiers, SCRATCH_LENGTH as u64, map_all)
}
