// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A disk of a program and one of the driver: one takes the state of the other, with what is on it.

use std::fs;

use anyhow::{ensure, Result};
use guest_tests::blk_api::disk::{self, open, pattern, status, Disk, Parameters, READY, SECTOR};
use guest_tests::kernel::usual_access;
use guest_tests::ktap::Suite;
use guest_tests::module::Loaded;
use guest_tests::v2_api::check::{equal, same_bytes, Named};
use vfio_uapi::State;

use crate::host::{name, run, Scratch};
use crate::programs::{arguments, refusal, Program};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_disk_goes_from_the_driver_to_a_program_and_back,
        a_program_s_disk_refuses_what_the_driver_s_does_in_the_same_words,
        an_empty_disk_is_copied_from_one_to_the_other,
    );
}

/// The driver.
const DRIVER: &str = "mdev_blk";
/// How much is read of a stream at once.
const STEP: usize = 32 * 1024;
/// Bytes of the medium.
const BYTES: usize = 2 << 20;
/// Disks that differ in all that a state has.
const KINDS: [Parameters<'static>; 2] = [
    &[("capacity-mib", "2")],
    &[
        ("capacity-mib", "2"),
        ("num-queues", "3"),
        ("queue-size", "32"),
        ("write-zeroes", "on"),
        ("serial", "RUST-1 \"2\" $3"),
    ],
];

fn a_disk_goes_from_the_driver_to_a_program_and_back() -> Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    for parameters in KINDS {
        let (from, to) = (disk::instance(parameters)?, disk::instance(parameters)?);
        let mut disk = Disk::new(usual_access(), &from)?;
        let mut contents = vec![0; BYTES];
        for sector in (0..BYTES / SECTOR - 64).step_by(300) {
            let bytes = pattern(48 * SECTOR, sector as u64);
            disk.queue().write(sector as u64, &bytes)?;
            contents[sector * SECTOR..][..bytes.len()].copy_from_slice(&bytes);
        }
        // A request that nobody has served goes along in memory.
        let source = disk.device.clone();
        source.switch(State::RunningP2p).named("RUNNING_P2P")?;
        let id = disk.queue().add(0, disk::FLUSH, 0, &[], true);
        disk.queue().notify()?;
        let data = source.start(State::StopCopy).named("STOP_COPY")?;
        let saved = data.read_all(STEP).named("reading")?;
        drop((data, source));

        let scratch = Scratch::new()?;
        let (socket, state, again) = (
            scratch.file("disk.sock"),
            scratch.file("state"),
            scratch.file("again"),
        );
        let _program = Program::start(&socket, &arguments(&name(&from))?)?;
        let card = format!("vfio-user:{}", socket.display());
        fs::write(&state, &saved)?;
        run(["load", &card, &state.display().to_string()])?.expect(0)?;
        let again = again.display().to_string();
        run(["save", &card, &again])?.expect(0)?;
        let again = fs::read(again)?;
        same_bytes("what the program has saved", &again, &saved)?;

        // Back to the driver, where the guest goes on.
        let other = open(usual_access(), &to, &disk.memory)?;
        let into = other.start(State::Resuming).named("RESUMING")?;
        into.write_all(&again, STEP).named("writing")?;
        drop(into);
        other.switch(State::Stop).named("STOP")?;
        let data = other.start(State::StopCopy).named("STOP_COPY")?;
        let third = data.read_all(STEP).named("reading")?;
        drop(data);
        same_bytes("what the driver has saved", &third, &saved)?;
        other.switch(State::Running).named("RUNNING")?;
        disk.move_to(other)?;
        equal("the request", disk.queue().ring.take()?, Some((id, 1)))?;
        for at in (0..BYTES).step_by(STEP) {
            let found = disk.queue().read((at / SECTOR) as u64, STEP)?;
            same_bytes(
                format!("the medium at {at:#x}"),
                &found,
                &contents[at..at + STEP],
            )?;
        }
        equal("the status", status(&disk.device)?, READY)?;
        drop(disk);
        from.remove()?;
        to.remove()?;
    }
    Ok(())
}

fn a_program_s_disk_refuses_what_the_driver_s_does_in_the_same_words() -> Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let source = disk::instance(&[("capacity-mib", "2"), ("serial", "here")])?;
    let destination = disk::instance(&[("capacity-mib", "3"), ("num-queues", "2")])?;
    let scratch = Scratch::new()?;
    let (socket, state) = (scratch.file("disk.sock"), scratch.file("state"));
    let state = state.display().to_string();
    let _program = Program::start(&socket, &arguments(&name(&destination))?)?;
    let card = format!("vfio-user:{}", socket.display());
    run(["save", &name(&source), &state])?.expect(0)?;
    let words = refusal(&name(&destination), &state)?;
    for part in [
        "capacity-mib: source has 2, this device has 3",
        "num-queues: source has 1, this device has 2",
        "serial: source has \"here\"",
    ] {
        ensure!(words.contains(part), "{words}");
    }
    equal("what the program says", refusal(&card, &state)?, words)?;
    source.remove()?;
    destination.remove()
}

fn an_empty_disk_is_copied_from_one_to_the_other() -> Result<()> {
    let _driver = Loaded::new(DRIVER)?;
    let (from, to) = (disk::instance(KINDS[1])?, disk::instance(KINDS[1])?);
    let scratch = Scratch::new()?;
    let socket = scratch.file("disk.sock");
    let _program = Program::start(&socket, &arguments(&name(&from))?)?;
    let card = format!("vfio-user:{}", socket.display());
    run(["copy", &name(&from), &card])?.expect(0)?;
    run(["copy", &card, &name(&to)])?.expect(0)?;
    from.remove()?;
    to.remove()
}
