// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Both migration protocols: one stream, and one owner at a time.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::{equal, same_bytes};
use vfio_migrate::error::{Error, Kind};
use vfio_migrate::state::{Card, Opened, Protocol};
use vfio_migrate::sysfs::Sysfs;
use vfio_uapi::mdev::Mdev;
use vfio_uapi::migration_v1::{Region, PRE_COPY, RUNNING};
use vfio_uapi::State;

use crate::host::{instance, name, run, Scratch};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        both_protocols_save_the_same_stream,
        what_one_protocol_saved_the_other_loads,
        copy_saves_by_one_protocol_and_loads_by_another,
        a_refusal_by_either_protocol_has_the_driver_s_reason,
        a_damaged_state_is_refused_by_either_protocol,
        a_device_is_stopped_by_a_save_and_runs_after_a_load,
        a_device_runs_again_after_a_save_that_failed,
        a_device_that_v2_migrates_is_busy_for_v1,
        a_device_that_v1_migrates_is_busy_for_v2,
    );
}

/// The words for `--protocol`.
const PROTOCOLS: [&str; 3] = ["v1", "v1-mmap", "v2"];

/// The stream that `save --exercise` writes.
fn saved(card: &Mdev, protocol: &str, flags: &[&str], path: &Path) -> Result<Vec<u8>> {
    let file = path.display().to_string();
    let arguments = ["save", "--exercise", "--protocol", protocol].into_iter();
    let arguments = arguments.chain(flags.iter().copied());
    run(arguments.chain([name(card).as_str(), &file]))?
        .expect(0)?
        .says("saved")?;
    fs::read(path).with_context(|| file)
}

fn both_protocols_save_the_same_stream() -> Result<()> {
    let scratch = Scratch::new()?;
    for ports in [1, 2, 4] {
        let card = instance(&format!("mdev_serial-{ports}"))?;
        for flags in [&[][..], &["--pre-copy"]] {
            let by_v2 = saved(&card, "v2", flags, &scratch.file("v2"))?;
            for protocol in ["v1", "v1-mmap"] {
                let by_v1 = saved(&card, protocol, flags, &scratch.file(protocol))?;
                let what = format!("{ports} ports {flags:?}, {protocol} and v2");
                same_bytes(what, &by_v1, &by_v2)?;
            }
        }
    }
    Ok(())
}

fn what_one_protocol_saved_the_other_loads() -> Result<()> {
    let scratch = Scratch::new()?;
    let (source, destination) = (instance("mdev_serial-2")?, instance("mdev_serial-2")?);
    for (by, then) in [
        ("v1", "v2"),
        ("v2", "v1"),
        ("v1-mmap", "v2"),
        ("v2", "v1-mmap"),
    ] {
        let path = scratch.file("state");
        let bytes = saved(&source, by, &["--pre-copy"], &path)?.len();
        let path = path.display().to_string();
        let ran = run([
            "load",
            "--json",
            "--protocol",
            then,
            &name(&destination),
            &path,
        ])?;
        let answer = ran.expect(0)?.json()?;
        equal("bytes", answer["bytes"].as_u64(), Some(bytes as u64))?;
    }
    Ok(())
}

fn copy_saves_by_one_protocol_and_loads_by_another() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-4")?, instance("mdev_serial-4")?);
    let (source, destination) = (name(&source), name(&destination));
    for from in PROTOCOLS {
        for to in PROTOCOLS {
            let way = ["copy", "--exercise", "--from", from, "--to", to];
            run(way.into_iter().chain([source.as_str(), &destination]))?
                .expect(0)?
                .says("found again: 4 ports")
                .with_context(|| format!("{from} to {to}"))?;
        }
    }
    Ok(())
}

fn a_refusal_by_either_protocol_has_the_driver_s_reason() -> Result<()> {
    let (source, wrong) = (instance("mdev_serial-2")?, instance("mdev_serial-4")?);
    for from in PROTOCOLS {
        for to in PROTOCOLS {
            let way = ["copy", "--from", from, "--to", to];
            run(way
                .into_iter()
                .chain([name(&source).as_str(), &name(&wrong)]))?
            .expect(1)?
            .says("num-ports: source has 2, this device has 4")
            .with_context(|| format!("{from} to {to}"))?;
        }
    }
    Ok(())
}

fn a_damaged_state_is_refused_by_either_protocol() -> Result<()> {
    let scratch = Scratch::new()?;
    let card = instance("mdev_serial-1")?;
    let good = saved(&card, "v2", &[], &scratch.file("good"))?;
    let mut flipped = good.clone();
    let place = good.len() - 30;
    flipped[place] ^= 1;
    for (what, bytes) in [
        ("cut", &good[..good.len() - 1]),
        ("flipped", &flipped),
        ("empty", &[]),
    ] {
        let path = scratch.with(what, bytes)?.display().to_string();
        for protocol in PROTOCOLS {
            run(["load", "--protocol", protocol, &name(&card), &path])?
                .expect(1)
                .with_context(|| format!("{what}, by {protocol}"))?;
        }
    }
    Ok(())
}

/// Fails unless the error is one line about the other protocol.
fn is_about_the_owner(what: &str, error: Option<Error>) -> Result<()> {
    let error = error.with_context(|| format!("{what}: it was done"))?;
    let text = error.to_string();
    equal(what, error.kind, Kind::Failed)?;
    equal("lines", text.lines().count(), 1)?;
    ensure!(
        text.contains("EBUSY") && text.contains("end the migration by the other protocol"),
        "{what}: {text}"
    );
    Ok(())
}

fn opened(card: &Mdev) -> Result<Opened> {
    let sysfs = Sysfs::at(Path::new("/sys"));
    let instance = sysfs.instance(card.uuid())?;
    Ok(Opened::open(&sysfs, instance)?)
}

fn save(card: &Opened, protocol: Protocol) -> Option<Error> {
    let saved = card.save(protocol, false, &mut |_| Ok(()), &mut |_, _| ());
    saved.err()
}

const WAYS: [Protocol; 3] = [Protocol::V1, Protocol::V1Mmap, Protocol::V2];

fn a_device_is_stopped_by_a_save_and_runs_after_a_load() -> Result<()> {
    for protocol in WAYS {
        let card = instance("mdev_serial-1")?;
        let opened = opened(&card)?;
        let mut state = Vec::new();
        let mut sink = |bytes: &[u8]| {
            state.extend_from_slice(bytes);
            Ok(())
        };
        let saved = opened.save(protocol, true, &mut sink, &mut |_, _| ())?;
        let len = state.len() as u64;
        equal("bytes", saved.pre_copy + saved.stop_copy, len)?;
        ensure!(saved.pre_copy > 0, "nothing was saved while it ran");
        equal(
            "state after the save",
            opened.device.state(),
            Ok(State::Stop),
        )?;
        let mut loading = opened.load(protocol)?;
        equal(
            "state during the load",
            opened.device.state(),
            Ok(State::Resuming),
        )?;
        // In pieces that end anywhere.
        for piece in state.chunks(7) {
            loading.push(piece)?;
        }
        equal("bytes that were loaded", loading.finish()?, len)?;
        equal(
            "state after the load",
            opened.device.state(),
            Ok(State::Running),
        )?;
    }
    Ok(())
}

fn a_device_runs_again_after_a_save_that_failed() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let opened = opened(&card)?;
    for protocol in WAYS {
        for (pre_copy, pieces) in [(true, 0), (true, 1), (false, 0)] {
            let what = format!("{protocol:?}, pre-copy {pre_copy}, after {pieces} pieces");
            let mut left = pieces;
            let mut sink = |_: &[u8]| match left {
                0 => Err(Error::failed("the disk is full")),
                _ => {
                    left -= 1;
                    Ok(())
                }
            };
            let saved = opened.save(protocol, pre_copy, &mut sink, &mut |_, _| ());
            let error = saved
                .err()
                .with_context(|| format!("{what}: it was saved"))?;
            equal(&what, error, Error::failed("the disk is full"))?;
            equal(&what, opened.device.state(), Ok(State::Running))?;
        }
    }
    Ok(())
}

fn a_device_that_v2_migrates_is_busy_for_v1() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let opened = opened(&card)?;
    // From pre-copy, v1 could not go to resuming at all.
    for (state, can_load) in [(State::PreCopy, false), (State::Stop, true)] {
        let data = opened.device.move_to(state)?;
        for protocol in [Protocol::V1, Protocol::V1Mmap] {
            is_about_the_owner("save", save(&opened, protocol))?;
            if can_load {
                is_about_the_owner("load", opened.load(protocol).err())?;
            }
        }
        equal("state", opened.device.state(), Ok(state))?;
        drop(data);
        opened.device.switch(State::Running)?;
    }
    ensure!(save(&opened, Protocol::V1).is_none(), "still busy");
    Ok(())
}

fn a_device_that_v1_migrates_is_busy_for_v2() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let opened = opened(&card)?;
    let region = Region::find(&opened.device)?;
    region.set_state(PRE_COPY)?;
    is_about_the_owner("save", save(&opened, Protocol::V2))?;
    is_about_the_owner("load", opened.load(Protocol::V2).err())?;
    equal("state", region.state(), Ok(PRE_COPY))?;
    region.set_state(RUNNING)?;
    ensure!(save(&opened, Protocol::V2).is_none(), "still busy");
    Ok(())
}
