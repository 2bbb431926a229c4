// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The smallest driver: what the library does for a device model that has next to nothing.

use super::check::{equal, refused, Named};
use crate::kernel;
use crate::ktap::Suite;
use crate::mdev::MdevType;
use crate::module::Loaded;
use crate::stream_forge::Stream;
use crate::vfio::{abi, Access, Device, Errno, State};

/// The driver.
const DRIVER: &str = "mdev_scratch";
/// Region of its register.
const BAR0: u32 = abi::VFIO_PCI_BAR0_REGION_INDEX;

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(suite, the_smallest_driver_migrates_its_register);
    tests!(suite, the_smallest_driver_says_why_it_refuses_a_state);
}

fn register(device: &Device) -> anyhow::Result<u32> {
    let mut bytes = [0; 4];
    equal(
        "bytes read",
        device.read(BAR0, 0, &mut bytes).named("read")?,
        4,
    )?;
    Ok(u32::from_le_bytes(bytes))
}

fn set_register(device: &Device, value: u32) -> anyhow::Result<()> {
    let written = device.write(BAR0, 0, &value.to_le_bytes()).named("write")?;
    equal("bytes written", written, 4)
}

fn the_smallest_driver_migrates_its_register(access: Access) -> anyhow::Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let kind = MdevType::find("mdev_scratch-1")?;
    equal(
        "available_instances",
        kind.attribute("available_instances")?,
        "16".into(),
    )?;
    let (from, to) = (kind.create()?, kind.create()?);
    equal(
        "available_instances of two more",
        kind.attribute("available_instances")?,
        "14".into(),
    )?;
    let (source, destination) = (access.open(&from)?, access.open(&to)?);
    set_register(&source, 0x1234_5678)?;
    set_register(&destination, 0xffff_ffff)?;

    let out = source.start(State::PreCopy).named("source to PRE_COPY")?;
    let into = destination
        .start(State::Resuming)
        .named("destination to RESUMING")?;
    let setup = out.read_all(16).named("read in pre-copy")?;
    into.write_all(&setup, 16).named("write in pre-copy")?;
    // Still running: what is written now is what arrives.
    set_register(&source, 0x8765_4321)?;
    source
        .switch(State::StopCopy)
        .named("source to STOP_COPY")?;
    let rest = out.read_all(16).named("read in stop-and-copy")?;
    into.write_all(&rest, 16).named("write in stop-and-copy")?;
    destination
        .switch(State::Running)
        .named("destination to RUNNING")?;
    equal("the register", register(&destination)?, 0x8765_4321)?;
    destination.reset().named("reset")?;
    equal("the register after a reset", register(&destination)?, 0)?;
    drop((source, destination));
    from.remove()?;
    to.remove()
}

fn the_smallest_driver_says_why_it_refuses_a_state() -> anyhow::Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let instance = MdevType::find("mdev_scratch-1")?.create()?;
    let device = kernel::usual_access().open(&instance)?;
    set_register(&device, 7)?;
    let out = device.start(State::StopCopy).named("to STOP_COPY")?;
    let saved = Stream::parse(&out.read_all(4096).named("read")?)?;
    drop(out);
    let short = saved.with_section(0, |section| section.payload.truncate(3));
    let into = device.start(State::Resuming).named("to RESUMING")?;
    refused(
        "a short section",
        into.write(&short.encode()),
        Errno::EINVAL,
    )?;
    equal(
        "the reason",
        instance.migration_error()?,
        "the register has 4 bytes, the source sent 3".into(),
    )?;
    drop(into);
    device.reset().named("reset")?;
    drop(device);
    instance.remove()
}
