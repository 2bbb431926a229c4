// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A disk that may not access memory: notifications wait.

use anyhow::Result;

use super::disk::*;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::vfio::{Access, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        a_stopped_disk_leaves_memory_alone_and_serves_when_it_runs,
        without_bus_mastering_nothing_is_served_until_it_is_on,
    );
}

/// All of the memory, but for what the driver itself writes.
fn snapshot(disk: &Disk) -> Vec<u8> {
    disk.memory.get(0, 0x8_0000)
}

fn a_stopped_disk_leaves_memory_alone_and_serves_when_it_runs(access: Access) -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(access, &instance)?;
    let bytes = pattern(PAGE, 3);
    disk.queue().write(8, &bytes)?;
    let device = disk.device.clone();
    let data = disk.queue().data();
    for way in [
        &[State::RunningP2p][..],
        &[State::Stop],
        &[State::PreCopy, State::PreCopyP2p],
        &[State::PreCopy, State::StopCopy],
    ] {
        let mut files = Vec::new();
        for &state in way {
            files.extend(device.move_to(state).named(format!("{state:?}"))?);
        }
        for event in &disk.events {
            event.count()?;
        }
        disk.memory.put(data, &[0; PAGE]);
        let queue = disk.queue();
        queue.add(0, IN, 8, &[(data, PAGE as u32, true)], true);
        let before = snapshot(&disk);
        disk.queue().notify()?;
        disk.queue().notify()?;
        // Registers answer all the same.
        equal("the status", status(&device)?, READY)?;
        same_bytes(format!("memory after {way:?}"), &snapshot(&disk), &before)?;
        equal("completions", disk.queue().ring.take()?, None)?;
        equal("interrupts", disk.events[1].count()?, 0)?;
        drop(files);
        device.switch(State::Running).named("RUNNING")?;
        equal(
            "completions of a disk that runs",
            disk.queue().ring.take()?,
            Some((disk.queue().ring.last_id(), PAGE as u32 + 1)),
        )?;
        equal("the answer", disk.queue().answer(0), OK)?;
        same_bytes("what was read", &disk.memory.get(data, PAGE), &bytes)?;
        equal(
            "whether there are interrupts",
            disk.events[1].count()? > 0,
            true,
        )?;
    }
    drop((disk, device));
    instance.remove()
}

fn without_bus_mastering_nothing_is_served_until_it_is_on(access: Access) -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(access, &instance)?;
    set_command(&disk.device, 2)?;
    disk.queue().add(0, FLUSH, 0, &[], false);
    let before = snapshot(&disk);
    disk.queue().notify()?;
    same_bytes("memory", &snapshot(&disk), &before)?;
    equal("interrupts", disk.events[1].count()?, 0)?;
    set_command(&disk.device, 6)?;
    equal(
        "whether it is done",
        disk.queue().ring.take()?.is_some(),
        true,
    )?;
    equal("interrupts", disk.events[1].count()?, 1)?;
    drop(disk);
    instance.remove()
}
