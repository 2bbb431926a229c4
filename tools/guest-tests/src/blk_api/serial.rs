// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The serial number, by which a guest knows its disk: a parameter whose value is text.

use anyhow::{ensure, Result};

use super::disk::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::mdev::Mdev;
use crate::v2_api::check::{equal, refused, same_bytes, Named};
use crate::vfio::{Access, Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(suite, a_disk_answers_the_serial_number_it_was_given);
    tests!(
        suite,
        texts_that_are_no_serial_number_are_refused,
        the_serial_number_of_an_open_disk_stays,
        a_disk_of_another_serial_number_is_refused_at_the_setup_record,
        the_serial_number_goes_where_the_disk_goes,
    );
}

/// The parameter's file.
const FILE: &str = "migration/serial";
/// Longest answer.
const BYTES: usize = 20;

/// What a disk answers to GET_ID, into a buffer that had something else in it.
fn answer(disk: &mut Disk) -> Result<Vec<u8>> {
    let queue = disk.queue();
    let data = queue.data();
    queue.memory.put(data, &[0xff; BYTES]);
    let answer = queue.request(GET_ID, 0, &[(data, BYTES as u32, true)], true)?;
    equal("get ID", answer, (1 + BYTES as u32, OK))?;
    Ok(queue.memory.get(data, BYTES))
}

/// A serial number and the zeroes behind it.
fn padded(serial: &str) -> Vec<u8> {
    let mut bytes = serial.as_bytes().to_vec();
    bytes.resize(BYTES, 0);
    bytes
}

fn with_serial(serial: &str) -> Result<Mdev> {
    instance(&[("capacity-mib", "1"), ("serial", serial)])
}

fn a_disk_answers_the_serial_number_it_was_given(access: Access) -> Result<()> {
    // The longest, one that could end elsewhere, and none: a write of nothing would set nothing.
    for serial in ["RUST-0123456789-wxyz", " ~=\"\\/ 'a", "x", "\n"] {
        let instance = with_serial(serial)?;
        let serial = serial.trim_end_matches('\n');
        equal(
            "what is read",
            instance.attribute(FILE)?,
            serial.to_string(),
        )?;
        let mut disk = Disk::new(access, &instance)?;
        same_bytes("the ID", &answer(&mut disk)?, &padded(serial))?;
        disk.device.reset().named("reset")?;
        drop(disk);
        // It outlives who had the device open.
        let mut disk = Disk::new(access, &instance)?;
        same_bytes("the ID later", &answer(&mut disk)?, &padded(serial))?;
        drop(disk);
        instance.remove()?;
    }
    Ok(())
}

fn texts_that_are_no_serial_number_are_refused() -> Result<()> {
    let instance = with_serial("as-it-was")?;
    let ascii = "is not printable ASCII of up to 20 characters";
    let control = "the value contains a newline or another control character";
    for (text, reason) in [
        ("123456789012345678901", ascii),
        ("gr\u{f6}\u{df}e", ascii),
        ("\u{a0}", ascii),
        ("tab\there", control),
        ("two\nlines", control),
        ("\u{7f}", control),
        ("nul\0", control),
    ] {
        let written = instance.set_attribute(FILE, text);
        equal(
            format!("{text:?}"),
            written.map_err(|error| error.raw_os_error()),
            Err(Some(libc::EINVAL)),
        )?;
        let said = instance.migration_error()?;
        ensure!(
            said.starts_with("serial: ") && said.ends_with(reason),
            "{text:?}: the reason is {said:?}"
        );
        equal(
            "what is read",
            instance.attribute(FILE)?,
            "as-it-was".into(),
        )?;
    }
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    same_bytes("the ID", &answer(&mut disk)?, &padded("as-it-was"))?;
    drop(disk);
    instance.remove()
}

fn the_serial_number_of_an_open_disk_stays() -> Result<()> {
    let instance = with_serial("first")?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let written = instance.set_attribute(FILE, "second");
    equal(
        "a write while the disk is open",
        written.map_err(|error| error.raw_os_error()),
        Err(Some(libc::EBUSY)),
    )?;
    same_bytes("the ID", &answer(&mut disk)?, &padded("first"))?;
    drop(disk);
    instance.set_attribute(FILE, "second")?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    same_bytes("the ID later", &answer(&mut disk)?, &padded("second"))?;
    drop(disk);
    instance.remove()
}

fn a_disk_of_another_serial_number_is_refused_at_the_setup_record() -> Result<()> {
    for (from, to, reason) in [
        (
            "here",
            "there",
            r#"serial: source has "here", this device has "there""#,
        ),
        // As of a driver that knows no serial numbers.
        (
            "\n",
            "there",
            r#"serial: source has "", this device has "there""#,
        ),
        (
            "here",
            "\n",
            r#"serial: source has "here", this device has """#,
        ),
    ] {
        let instances = [with_serial(from)?, with_serial(to)?];
        let source = Disk::new(kernel::usual_access(), &instances[0])?;
        let other = Disk::new(kernel::usual_access(), &instances[1])?;
        let out = source.device.start(State::PreCopy).named("PRE_COPY")?;
        let into = other.device.start(State::Resuming).named("RESUMING")?;
        let setup = out.read_all(PAGE).named("reading")?;
        refused(
            "the setup record",
            into.write_all(&setup, PAGE),
            Errno::EINVAL,
        )?;
        equal("the reason", instances[1].migration_error()?, reason.into())?;
        drop(into);
        other.device.reset().named("reset")?;
        let serial = instances[1].attribute(FILE)?;
        equal("what is read", &serial, &to.trim_end_matches('\n').into())?;
        drop((out, source, other));
        let [first, second] = instances;
        first.remove()?;
        second.remove()?;
    }
    Ok(())
}

fn the_serial_number_goes_where_the_disk_goes() -> Result<()> {
    let instances = [with_serial("goes-along")?, with_serial("goes-along")?];
    let mut source = Disk::new(kernel::usual_access(), &instances[0])?;
    let other = open(kernel::usual_access(), &instances[1], &source.memory)?;
    let out = source.device.start(State::StopCopy).named("STOP_COPY")?;
    let into = other.start(State::Resuming).named("RESUMING")?;
    let state = out.read_all(PAGE).named("reading")?;
    into.write_all(&state, PAGE).named("writing")?;
    drop((out, into));
    other.switch(State::Running).named("RUNNING")?;
    let gone = std::mem::replace(&mut source.device, other.clone());
    source.move_to(other)?;
    drop(gone);
    same_bytes("the ID", &answer(&mut source)?, &padded("goes-along"))?;
    drop(source);
    let [first, second] = instances;
    first.remove()?;
    second.remove()
}
