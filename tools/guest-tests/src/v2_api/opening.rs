// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Opening and closing: power-on state, the two ways, and that they exclude each other.

use std::os::fd::AsFd;

use nix::sys::mman::MapFlags;

use super::card::{card_type, config, Card, BAR0, CONFIG, MIGRATION};
use super::check::{equal, refused, same_bytes, Named};
use super::uart::{FCR_TRIGGER_8, LSR, LSR_DATA, SCR};
use crate::kernel;
use crate::ktap::Suite;
use crate::vfio::abi::{self, Argument, Bytes};
use crate::vfio::interrupt::INTX;
use crate::vfio::memory::Page;
use crate::vfio::open::{self, Group};
use crate::vfio::{Access, Errno, Mapping, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        the_first_open_is_power_on_state,
        the_last_close_discards_device_state,
        the_last_close_ends_a_migration,
        the_last_close_ends_interrupts,
    );
    tests!(
        suite,
        a_device_can_be_opened_by_group_and_cdev_in_turn,
        a_cdev_cannot_be_bound_while_the_group_is_open,
        a_group_cannot_be_opened_while_the_cdev_is_bound,
        a_group_can_be_opened_only_once,
        a_cdev_can_be_bound_only_once,
        two_files_of_one_group_share_the_device_until_both_are_closed,
        an_unbound_cdev_gives_no_access,
        registers_cannot_be_mapped,
    );
}

fn the_first_open_is_power_on_state(access: Access) -> anyhow::Result<()> {
    let instance = card_type(2)?.create()?;
    let device = access.open(&instance)?;
    equal("state", device.state(), Ok(State::Running))?;
    let mut command = [0xff; 2];
    equal(
        "read of the command register",
        device.read(CONFIG, config::COMMAND, &mut command),
        Ok(2),
    )?;
    equal("the command register", command, [0, 0])
}

/// Leaves traces in every part of a card.
fn use_up(card: &Card) -> anyhow::Result<()> {
    let event = card.enable(INTX)?;
    for number in 0..card.ports {
        let line = card.line(number, &event);
        line.port.set_up(FCR_TRIGGER_8)?;
        line.port.set(SCR, 0x77)?;
        line.send(&[0x55; 100])?;
    }
    card.enable_msi()?;
    card.set_config(config::BAR0, &0xc000_u32.to_le_bytes())
}

fn the_last_close_discards_device_state(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(2, access)?;
    card.reset().named("reset")?;
    let power_on = card.plain_registers()?;
    let saved = card.stop_and_save()?;
    card.switch(State::Running).named("to RUNNING")?;

    use_up(&card)?;
    let card = card.reopen(access)?;
    same_bytes(
        "registers after the next open",
        &card.plain_registers()?,
        &power_on,
    )?;
    for port in card.each_port() {
        equal(
            "received data after the next open",
            port.get(LSR)? & LSR_DATA,
            0,
        )?;
    }
    same_bytes(
        "the state after the next open",
        &card.stop_and_save()?,
        &saved,
    )
}

fn the_last_close_ends_a_migration(access: Access) -> anyhow::Result<()> {
    let mut card = Card::opened(1, access)?;
    for state in [
        State::Stop,
        State::RunningP2p,
        State::PreCopy,
        State::PreCopyP2p,
        State::StopCopy,
        State::Resuming,
    ] {
        let data = card.move_to(state).named(format!("to {state:?}"))?;
        card = card.reopen(access)?;
        equal(
            format!("state after close in {state:?}"),
            card.state(),
            Ok(State::Running),
        )?;
        if let Some(data) = data {
            let result = if state == State::Resuming {
                data.write(&[0])
            } else {
                data.read(&mut [0])
            };
            refused(format!("data file of {state:?}"), result, Errno::ENODEV)?;
        }
    }
    Ok(())
}

fn the_last_close_ends_interrupts(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(1, access)?;
    let event = card.enable(INTX)?;
    let card = card.reopen(access)?;
    let trigger = card.set_irqs(&crate::vfio::IrqSet::none(
        INTX,
        crate::vfio::interrupt::TRIGGER,
    ));
    refused("trigger after the next open", trigger, Errno::EINVAL)?;
    equal("signals", event.count()?, 0)
}

fn a_device_can_be_opened_by_group_and_cdev_in_turn() -> anyhow::Result<()> {
    kernel::needs_access(Access::Cdev)?;
    let mut card = Card::new(1)?;
    for access in [
        Access::Group,
        Access::Cdev,
        Access::Cdev,
        Access::Group,
        Access::Group,
        Access::Cdev,
    ] {
        card = card.reopen(access)?;
        card.port(0).set(SCR, 0x12)?;
        equal(
            format!("scratch, {}", access.name()),
            card.port(0).get(SCR)?,
            0x12,
        )?;
    }
    Ok(())
}

fn a_cdev_cannot_be_bound_while_the_group_is_open() -> anyhow::Result<()> {
    kernel::needs_access(Access::Cdev)?;
    let card = Card::opened(1, Access::Group)?;
    let file = open::open_cdev(&card.instance)?;
    refused("bind", open::bind(file).map(drop), Errno::EBUSY)?;
    card.port(0).set(SCR, 0x34)?;
    equal("scratch of the group's user", card.port(0).get(SCR)?, 0x34)
}

fn a_group_cannot_be_opened_while_the_cdev_is_bound() -> anyhow::Result<()> {
    let card = Card::opened(1, Access::Cdev)?;
    refused(
        "group",
        open::open_group(&card.instance)?.map(drop),
        Errno::EBUSY,
    )?;
    card.port(0).set(SCR, 0x34)?;
    equal("scratch of the cdev's user", card.port(0).get(SCR)?, 0x34)
}

fn a_group_can_be_opened_only_once() -> anyhow::Result<()> {
    let card = Card::opened(1, Access::Group)?;
    refused(
        "group",
        open::open_group(&card.instance)?.map(drop),
        Errno::EBUSY,
    )
}

fn a_cdev_can_be_bound_only_once() -> anyhow::Result<()> {
    let card = Card::opened(1, Access::Cdev)?;
    // Opening the file is allowed; it gives no access.
    let file = open::open_cdev(&card.instance)?;
    refused("bind", open::bind(file).map(drop), Errno::EINVAL)?;
    equal(
        "state of the first user's device",
        card.state(),
        Ok(State::Running),
    )
}

fn two_files_of_one_group_share_the_device_until_both_are_closed() -> anyhow::Result<()> {
    let instance = card_type(1)?.create()?;
    let group = Group::open(&instance)?;
    let second = group.device_file(&instance).named("the second file")?;
    let device = group.device(&instance).named("the device")?;
    let place = device.place(BAR0, SCR).named("the place of SCR")?;
    equal(
        "write by one file",
        nix::sys::uio::pwrite(&second, &[0x5a], place),
        Ok(1),
    )?;
    let mut byte = [0];
    equal(
        "read by the other",
        device.read(BAR0, SCR, &mut byte),
        Ok(1),
    )?;
    equal("scratch", byte[0], 0x5a)?;
    drop(second);
    equal(
        "read after one was closed",
        device.read(BAR0, SCR, &mut byte),
        Ok(1),
    )?;
    equal("scratch after one was closed", byte[0], 0x5a)
}

fn an_unbound_cdev_gives_no_access() -> anyhow::Result<()> {
    kernel::needs_access(Access::Cdev)?;
    let instance = card_type(1)?.create()?;
    let file = open::open_cdev(&instance)?;
    let mut info = Bytes::new().word(16).word(0).word(0).word(0);
    let result = abi::ioctl(
        std::os::fd::AsFd::as_fd(&file),
        abi::VFIO_DEVICE_GET_INFO,
        Argument::Bytes(info.bytes_mut()),
    );
    refused("device info", result, Errno::EINVAL)?;
    refused(
        "read",
        nix::sys::uio::pread(&file, &mut [0], 0),
        Errno::EINVAL,
    )
}

fn registers_cannot_be_mapped() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    // The header of the migration region is registers as well.
    for index in [BAR0, CONFIG, MIGRATION] {
        let place = card.place(index, 0).named("the place")?;
        let mapping = Mapping::of_file(card.as_fd(), place, Page::SIZE, MapFlags::MAP_SHARED);
        refused(format!("region {index}"), mapping, Errno::EINVAL)?;
    }
    Ok(())
}
