// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Instances that are removed while somebody has their device who does not let go, and what the kernel says of that.

use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

use anyhow::{anyhow, ensure};
use nix::sys::mman::MapFlags;

use super::process::{Habit, Monitor};
use crate::kernel;
use crate::kernel_log::KernelLog;
use crate::ktap::Suite;
use crate::mdev::Mdev;
use crate::v2_api::card::{card_type, Card};
use crate::v2_api::check::Named;
use crate::vfio::interrupt::REQ;
use crate::vfio::{open, Access, Mapping};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_vmm_that_sets_up_no_request_interrupt_is_waited_for_and_named,
        a_vmm_that_is_asked_and_does_not_let_go_is_named,
        a_vmm_that_died_while_another_process_has_a_descriptor_is_named,
        a_vmm_that_died_while_another_process_has_a_mapping_is_named,
        a_vmm_that_has_not_bound_the_device_file_is_waited_for,
    );
}

/// Removes `instance` while `holder` keeps its device open; the kernel must say these words of it, and the removal must go on
/// once `holder` was dropped.
fn is_removed_after<T>(instance: Mdev, holder: T, words: &[&str]) -> anyhow::Result<()> {
    let mut log = KernelLog::from_now()?;
    let shadow = Mdev::existing(instance.uuid());
    let name = shadow.uuid().to_string();
    let removal = thread::spawn(move || instance.remove());
    let all: Vec<_> = ["removal waits", &name]
        .into_iter()
        .chain(words.to_vec())
        .collect();
    let said = log.wait_for(&all).and_then(|message| {
        ensure!(
            !removal.is_finished(),
            "the instance went while its device was open"
        );
        Ok(message)
    });
    // Whatever was found, so that the removal comes to an end.
    drop(holder);
    let removed = removal
        .join()
        .unwrap_or_else(|_| Err(anyhow!("the removal panicked")));
    crate::diag!("{}", said?);
    removed?;
    ensure!(!shadow.exists(), "the instance is still there");
    Ok(())
}

fn a_vmm_that_sets_up_no_request_interrupt_is_waited_for_and_named() -> anyhow::Result<()> {
    let instance = card_type(1)?.create()?;
    let monitor = Monitor::start(&instance, Habit::Waits)?;
    let process = format!("vmm-api (process {})", monitor.number());
    is_removed_after(instance, monitor, &[&process, "no request interrupt"])
}

fn a_vmm_that_is_asked_and_does_not_let_go_is_named() -> anyhow::Result<()> {
    let instance = card_type(1)?.create()?;
    let monitor = Monitor::start(&instance, Habit::CanBeAsked)?;
    let process = format!("vmm-api (process {})", monitor.number());
    is_removed_after(instance, monitor, &[&process, "asked"])
}

fn a_vmm_that_died_while_another_process_has_a_descriptor_is_named() -> anyhow::Result<()> {
    for habit in [Habit::Waits, Habit::CanBeAsked] {
        let instance = card_type(1)?.create()?;
        let monitor = Monitor::start(&instance, habit)?;
        let process = format!("vmm-api (process {})", monitor.number());
        let descriptor = monitor.descriptor()?;
        monitor.kill()?;
        // How a person finds out who has it.
        let link = fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))?;
        let link = link.to_string_lossy().into_owned();
        ensure!(link.contains("vfio"), "the descriptor is called {link}");
        is_removed_after(
            instance,
            descriptor,
            &[&process, "has ended", "descriptor", "mapping"],
        )?;
    }
    Ok(())
}

fn a_vmm_that_died_while_another_process_has_a_mapping_is_named() -> anyhow::Result<()> {
    let instance = card_type(1)?.create()?;
    let monitor = Monitor::start(&instance, Habit::Waits)?;
    let process = format!("vmm-api (process {})", monitor.number());
    let descriptor = monitor.descriptor()?;
    let mapping = Mapping::of_file(
        descriptor.as_fd(),
        i64::try_from(monitor.mappable.offset)?,
        usize::try_from(monitor.mappable.size)?,
        MapFlags::MAP_SHARED,
    )
    .named("the mapping")?;
    drop(descriptor);
    monitor.kill()?;
    mapping.put(0, b"still there");
    let maps = fs::read_to_string("/proc/self/maps")?;
    ensure!(maps.contains("vfio"), "the mapping is none of: {maps}");
    is_removed_after(instance, mapping, &[&process, "has ended", "mapping"])
}

fn a_vmm_that_has_not_bound_the_device_file_is_waited_for() -> anyhow::Result<()> {
    kernel::needs_access(Access::Cdev)?;
    let instance = card_type(1)?.create()?;
    let file = open::open_cdev(&instance)?;
    is_removed_after(instance, file, &["did not bind"])?;
    // Who bound it and closed it again is not who has it open now.
    let card = Card::new(1)?;
    let file = open::open_cdev(&card.instance)?;
    let _event = card.enable(REQ)?;
    is_removed_after(card.close(), file, &["did not bind"])
}
