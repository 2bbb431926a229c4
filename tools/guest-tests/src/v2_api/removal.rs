// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Instances that go away while someone uses them: the kernel asks the user (VFIO_PCI_REQ_IRQ), then waits.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;

use anyhow::Context;

use super::card::{card_type, Card};
use super::check::{equal, refused, Named};
use super::uart::SCR;
use crate::kernel;
use crate::ktap::Suite;
use crate::mdev::Mdev;
use crate::vfio::interrupt::{REQ, TRIGGER};
use crate::vfio::{Access, Errno, Event, IrqSet, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        removal_asks_the_user_and_waits_until_the_device_is_closed,
        unbinding_asks_the_user_and_waits_until_the_device_is_closed,
        nothing_is_left_of_a_device_when_its_removal_has_ended,
    );
    tests!(
        suite,
        a_user_who_was_asked_can_go_on_until_it_closes,
        removal_with_a_migration_going_on_waits_too,
        unbinding_gives_the_ports_back,
        an_instance_without_driver_cannot_be_opened,
        data_files_survive_the_removal_of_their_instance,
    );
}

/// The file that unbinds the driver of `instance` from it.
fn unbind_file(instance: &Mdev) -> anyhow::Result<PathBuf> {
    let driver = instance.path().join("driver");
    let driver = driver
        .canonicalize()
        .with_context(|| driver.display().to_string())?;
    Ok(driver.join("unbind"))
}

/// Unbinds the driver, which waits for users.
fn unbind(instance: &Mdev) -> anyhow::Result<()> {
    let file = unbind_file(instance)?;
    fs::write(&file, instance.uuid().to_string()).with_context(|| file.display().to_string())
}

/// Does `work` with the instance's way out in a thread; `while_waiting` runs when the request interrupt has come, with the
/// device still open, which is then closed.
fn leave_politely(
    card: Card,
    event: &Event,
    way_out: impl FnOnce(&Mdev) -> anyhow::Result<()> + Send,
    while_waiting: impl FnOnce(&Card) -> anyhow::Result<()>,
) -> anyhow::Result<Mdev> {
    // The thread needs the instance while this one has the device.
    let shadow = Mdev::existing(card.instance.uuid());
    thread::scope(|scope| {
        let leaving = scope.spawn(|| way_out(&shadow));
        let asked = event.wait();
        // Whatever was found, the device is closed, so that the other thread comes back.
        let meanwhile = asked.and_then(|_| {
            anyhow::ensure!(
                !leaving.is_finished(),
                "the instance went while its device was open"
            );
            while_waiting(&card)
        });
        let instance = card.close();
        let left = leaving
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))?;
        meanwhile.and(left)?;
        Ok(instance)
    })
}

/// Removes an instance as [`Mdev::remove`] does, through a shadow of it.
fn remove(instance: &Mdev) -> anyhow::Result<()> {
    let file = instance.path().join("remove");
    fs::write(&file, "1").with_context(|| file.display().to_string())
}

fn removal_asks_the_user_and_waits_until_the_device_is_closed(
    access: Access,
) -> anyhow::Result<()> {
    let free = card_type(1)?.available_instances()?;
    let card = Card::opened(1, access)?;
    let event = card.enable(REQ)?;
    let instance = leave_politely(card, &event, remove, |_| Ok(()))?;
    anyhow::ensure!(!instance.exists(), "the instance is still there");
    equal(
        "available instances",
        card_type(1)?.available_instances()?,
        free,
    )
}

/// The number that the kernel has given a device, the lowest that is free. It takes it back only when it releases the device, after
/// the last that the driver hears of it.
fn number(instance: &Mdev) -> anyhow::Result<PathBuf> {
    instance.cdev_path()
}

/// A driver could be unloaded as soon as its instances are gone, and the kernel would then call what is not there any more. Where it
/// releases objects seconds late (CONFIG_DEBUG_KOBJECT_RELEASE), a removal that does not wait for it gives the next one another number.
fn nothing_is_left_of_a_device_when_its_removal_has_ended(access: Access) -> anyhow::Result<()> {
    let unused = card_type(1)?.create()?;
    let first = number(&unused)?;
    unused.remove()?;

    let used = Card::opened(1, access)?;
    equal(
        "after one that nobody opened",
        number(&used.instance)?,
        first.clone(),
    )?;
    used.close().remove()?;

    let late = Card::opened(1, access)?;
    equal(
        "after one that was closed",
        number(&late.instance)?,
        first.clone(),
    )?;
    let event = late.enable(REQ)?;
    leave_politely(late, &event, remove, |_| Ok(()))?;

    let unbound = card_type(1)?.create()?;
    equal(
        "after one that was closed late",
        number(&unbound)?,
        first.clone(),
    )?;
    unbind(&unbound)?;

    let next = card_type(1)?.create()?;
    equal("after one that was unbound", number(&next)?, first)
}

fn unbinding_asks_the_user_and_waits_until_the_device_is_closed(
    access: Access,
) -> anyhow::Result<()> {
    let free = card_type(1)?.available_instances()?;
    let card = Card::opened(1, access)?;
    let event = card.enable(REQ)?;
    let instance = leave_politely(card, &event, unbind, |_| Ok(()))?;
    anyhow::ensure!(instance.exists(), "the instance went with its driver");
    anyhow::ensure!(
        !instance.path().join("driver").exists(),
        "the driver is still bound"
    );
    equal(
        "available instances without driver",
        card_type(1)?.available_instances()?,
        free,
    )?;
    instance.remove()?;
    equal(
        "available instances in the end",
        card_type(1)?.available_instances()?,
        free,
    )
}

fn a_user_who_was_asked_can_go_on_until_it_closes() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(REQ)?;
    leave_politely(card, &event, remove, |card| {
        card.port(0).set(SCR, 0x5a)?;
        equal("scratch", card.port(0).get(SCR)?, 0x5a)?;
        card.reset().named("reset")?;
        card.set_irqs(&IrqSet::none(REQ, TRIGGER))
            .named("loop-back trigger")?;
        event.wait()?;
        let stream = card.stop_and_save()?;
        anyhow::ensure!(!stream.is_empty(), "an empty state was saved");
        Ok(())
    })?;
    Ok(())
}

fn removal_with_a_migration_going_on_waits_too() -> anyhow::Result<()> {
    for state in [State::PreCopy, State::StopCopy, State::Resuming] {
        let card = Card::new(1)?;
        let event = card.enable(REQ)?;
        let data = card.start(state).named(format!("to {state:?}"))?;
        leave_politely(card, &event, remove, |card| {
            equal("state", card.state(), Ok(state))
        })?;
        let result = if state == State::Resuming {
            data.write(&[0])
        } else {
            data.read(&mut [0])
        };
        refused(format!("data file of {state:?}"), result, Errno::ENODEV)?;
    }
    Ok(())
}

fn unbinding_gives_the_ports_back() -> anyhow::Result<()> {
    let free = card_type(1)?.available_instances()?;
    let instance = card_type(4)?.create()?;
    equal(
        "available with an instance",
        card_type(1)?.available_instances()?,
        free - 4,
    )?;
    unbind(&instance)?;
    equal(
        "available without its driver",
        card_type(1)?.available_instances()?,
        free,
    )?;
    anyhow::ensure!(
        !instance.path().join("migration").exists(),
        "the driver's files are still there"
    );
    instance.remove()?;
    equal(
        "available in the end",
        card_type(1)?.available_instances()?,
        free,
    )
}

fn an_instance_without_driver_cannot_be_opened() -> anyhow::Result<()> {
    let instance = card_type(1)?.create()?;
    let mut paths = vec![instance.group_path()?];
    if kernel::has("VFIO_DEVICE_CDEV") {
        paths.push(instance.cdev_path()?);
    }
    unbind(&instance)?;
    for path in paths {
        let error = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .err();
        let errno = error.as_ref().and_then(io::Error::raw_os_error);
        equal(
            format!("errno of opening {}", path.display()),
            errno,
            Some(libc::ENOENT),
        )?;
    }
    Ok(())
}

fn data_files_survive_the_removal_of_their_instance() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    equal("read while the device is open", data.read(&mut [0]), Ok(1))?;
    card.close().remove()?;
    refused("read", data.read(&mut [0]), Errno::ENODEV)?;
    refused("pre-copy information", data.precopy_info(), Errno::ENODEV)?;
    let ready = crate::vfio::event_fd::readable(data.as_fd(), crate::vfio::event_fd::DEADLINE)?;
    anyhow::ensure!(ready, "a reader that polls waits for ever");
    Ok(())
}
