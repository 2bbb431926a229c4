// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How much memory of the kernel's an instance takes, in each state of its life, and the drivers' modules.

use std::fs;

use anyhow::{Context, Result};
use vfio_uapi::mdev::{Mdev, MdevType};
use vfio_uapi::{Access, Device, State};

use crate::measure::settle;
use crate::report::{Memory, Module, Report};
use crate::{OURS, SAMPLE};

/// Asks for these figures among the operations.
const OPERATION: &str = "memory";

/// Instances of which each takes so much. mtty has no more than 24 ports.
const COUNTS: [(&str, usize); 2] = [(SAMPLE, 24), (OURS, 192)];

/// What a driver consists of.
const MODULES: [(&str, &[&str]); 2] = [(OURS, &["rust_vfio", "mdev_serial"]), (SAMPLE, &["mtty"])];

/// Bytes read or written at a time.
const STEP: usize = 4096;

/// What the whole kernel has taken, in bytes.
#[derive(Clone, Copy)]
struct Taken {
    slab: f64,
    vmalloc: f64,
    all: f64,
}

impl Taken {
    fn now() -> Result<Self> {
        // Work queues and RCU may still have something to give back.
        for _ in 0..50 {
            settle()?;
        }
        // What the slab allocator keeps without any object in it is not taken; each of its caches gives that back when told to.
        for cache in fs::read_dir("/sys/kernel/slab")? {
            let path = cache?.path().join("shrink");
            fs::write(&path, "1").with_context(|| path.display().to_string())?;
        }
        // The processor adds its own part to the counters now and not some time.
        fs::write("/proc/sys/vm/stat_refresh", "1").context("/proc/sys/vm/stat_refresh")?;
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let bytes = |name: &str| -> Result<f64> {
            let line = meminfo
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let line = line.with_context(|| format!("/proc/meminfo has no {name}"))?;
            let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
            Ok(kilobytes * 1024.0)
        };
        Ok(Self {
            slab: bytes("Slab")?,
            vmalloc: bytes("VmallocUsed")?,
            all: -free()?,
        })
    }
}

/// Bytes that are free, with those that a processor keeps at hand.
fn free() -> Result<f64> {
    let zones = fs::read_to_string("/proc/zoneinfo")?;
    let mut pages = 0.0;
    for line in zones.lines().map(str::trim) {
        let number = line
            .strip_prefix("nr_free_pages ")
            .or_else(|| line.strip_prefix("count: "));
        if let Some(number) = number {
            pages += number.trim().parse::<f64>().context("/proc/zoneinfo")?;
        }
    }
    Ok(pages * 4096.0)
}

/// Prints what an instance of either driver takes, if that was asked for.
pub fn add(report: &Report) -> Result<()> {
    if !report.is_wanted(OPERATION) {
        return Ok(());
    }
    for (subject, names) in MODULES {
        for name in names {
            let path = format!("/sys/module/{name}/coresize");
            let text = fs::read_to_string(&path).with_context(|| path.clone())?;
            let bytes = text.trim().parse().with_context(|| path.clone())?;
            report.print(&Module {
                module: name,
                subject,
                bytes,
            })?;
        }
    }
    for (subject, count) in COUNTS {
        states(report, subject, count)?;
    }
    Ok(())
}

fn states(report: &Report, subject: &str, count: usize) -> Result<()> {
    let kind = MdevType::find(&format!("{subject}-1"))?;
    // The first one pays for what all share.
    life(&kind)?;
    let before = Taken::now()?;
    let take = |state: &str| -> Result<()> {
        let now = Taken::now()?;
        let each = |now: f64, before: f64| (now - before) / count as f64;
        report.print(&Memory {
            state,
            subject,
            slab: each(now.slab, before.slab),
            vmalloc: each(now.vmalloc, before.vmalloc),
            all: each(now.all, before.all),
        })
    };
    let instances = all(count, || kind.create())?;
    take("closed")?;
    let devices = each(&instances, open)?;
    take("open")?;
    let saving = each(&devices, |device| Ok(device.start(State::StopCopy)?))?;
    take("saving, nothing read")?;
    let states = each(&saving, |file| Ok(file.read_all(STEP)?))?;
    drop(saving);
    each(&devices, |device| Ok(device.switch(State::Stop)?))?;
    let resuming = each(&devices, |device| Ok(device.start(State::Resuming)?))?;
    for (file, state) in resuming.iter().zip(&states) {
        // All but the last byte, which would have it loaded.
        file.write_all(&state[..state.len() - 1], STEP)?;
    }
    // What this program itself keeps stays the same.
    take("resuming, all but a byte written")?;
    drop(resuming);
    drop(devices);
    instances.into_iter().try_for_each(Mdev::remove)
}

/// Everything that happens to an instance.
fn life(kind: &MdevType) -> Result<()> {
    let instance = kind.create()?;
    let device = open(&instance)?;
    let state = device.start(State::StopCopy)?.read_all(STEP)?;
    device.start(State::Resuming)?.write_all(&state, STEP)?;
    device.switch(State::Running)?;
    drop(device);
    instance.remove()
}

fn open(instance: &Mdev) -> Result<Device> {
    Access::Group.open(instance)
}

/// So many of what `make` makes.
fn all<T>(count: usize, make: impl FnMut() -> Result<T>) -> Result<Vec<T>> {
    std::iter::repeat_with(make).take(count).collect()
}

/// What `of` makes of each.
fn each<A, B>(from: &[A], of: impl FnMut(&A) -> Result<B>) -> Result<Vec<B>> {
    from.iter().map(of).collect()
}
