// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The state machine of migration protocol 2. The expectations are those of `enum vfio_device_mig_state` in linux/vfio.h, worked
//! out here on their own: the code that the driver is built from is not asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;

use super::card::{card_type, Card};
use super::check::{equal, refused, Named};
use super::copier::Copier;
use super::uart::{FCR_TRIGGER_8, SCR};
use crate::kernel;
use crate::ktap::Suite;
use crate::mdev::Mdev;
use crate::vfio::abi;
use crate::vfio::interrupt::INTX;
use crate::vfio::migration::UNTOUCHED;
use crate::vfio::{Access, DataFd, Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        migration_features_are_stop_copy_p2p_and_pre_copy,
        the_device_starts_running
    );
    tests_with!(
        suite,
        "VFIO_DEBUGFS",
        debugfs_follows_the_state_of_open_and_closed_devices,
        debugfs_can_be_read_while_devices_come_and_go,
    );
    for from in State::ALL {
        for to in State::ALL {
            let outcome = if is_allowed(from, to) {
                "is_accepted"
            } else {
                "is_refused"
            };
            let name = format!("arc_from_{}_to_{}_{outcome}", name(from), name(to));
            suite.test(name, move || one_arc(from, to));
        }
    }
    tests!(
        suite,
        leaving_resuming_without_a_stream_is_refused_for_every_target,
        reset_leads_from_every_state_to_running,
        one_session_spans_pre_copy_and_stop_copy,
        every_arc_out_of_a_session_ends_it,
        a_refused_arc_leaves_the_session_alone,
        sysfs_follows_the_state_and_the_session,
        the_data_size_is_known_in_every_state,
        the_data_size_covers_the_whole_stream,
    );
}

/// The name of a state in the name of a test.
fn name(state: State) -> &'static str {
    match state {
        State::Error => "error",
        State::Stop => "stop",
        State::Running => "running",
        State::StopCopy => "stop_copy",
        State::Resuming => "resuming",
        State::RunningP2p => "running_p2p",
        State::PreCopy => "pre_copy",
        State::PreCopyP2p => "pre_copy_p2p",
    }
}

/// "ERROR cannot be specified as a device state"; "STOP_COPY -> PRE_COPY, STOP_COPY -> PRE_COPY_P2P: These arcs are not
/// permitted"; only a reset leaves ERROR. The rest are arcs or combinations of arcs.
fn is_allowed(from: State, to: State) -> bool {
    !matches!(
        (from, to),
        (State::Error, _)
            | (_, State::Error)
            | (State::StopCopy, State::PreCopy | State::PreCopyP2p)
    )
}

/// "PRE_COPY, PRE_COPY_P2P and STOP_COPY form the saving group of states which share a data transfer session."
fn is_saving(state: State) -> bool {
    matches!(state, State::PreCopy | State::PreCopyP2p | State::StopCopy)
}

/// Whether the arc returns a data file: it enters the saving group or RESUMING, from elsewhere.
fn returns_data(from: State, to: State) -> bool {
    (is_saving(to) && !is_saving(from)) || (to == State::Resuming && from != State::Resuming)
}

/// Whether a session that exists in `from` is over in `to`. From the saving group to itself it goes on, where that is allowed.
fn ends_session(from: State, to: State) -> bool {
    (is_saving(from) && !is_saving(to)) || (from == State::Resuming && to != State::Resuming)
}

/// Whether the session of `state` can still be used.
fn is_alive(state: State, data: &DataFd) -> bool {
    let result = match state {
        // Linux hands a write of nothing to the driver, which looks at the session first.
        State::Resuming => data.write(&[]),
        _ => data.read(&mut [0]),
    };
    result != Err(Errno::ENODEV)
}

/// A card in `state`, ready to leave it: in RESUMING a whole stream was written. The data file is the session's.
fn card_in(state: State) -> anyhow::Result<(Card, Option<DataFd>)> {
    let card = Card::new(1)?;
    if state == State::Running {
        return Ok((card, None));
    }
    let stream = card.stop_and_save()?;
    card.switch(State::Running).named("back to RUNNING")?;
    let data = card.move_to(state).named(format!("to {state:?}"))?;
    if let (State::Resuming, Some(data)) = (state, &data) {
        data.write_all(&stream, stream.len())
            .named("a whole stream")?;
    }
    Ok((card, data))
}

fn one_arc(from: State, to: State) -> anyhow::Result<()> {
    if from == State::Error {
        let copier = Copier::failed(kernel::usual_access())?;
        refused("the arc", copier.move_to(to).map(drop), Errno::EIO)?;
        return equal("state", copier.state(), Ok(State::Error));
    }
    let (card, old) = card_in(from)?;
    let moved = card.move_to_number(to as u32);
    if !is_allowed(from, to) {
        refused("the arc", moved.result, Errno::EINVAL)?;
        equal("data_fd after a refusal", moved.number, -1)?;
        return equal("state after a refusal", card.state(), Ok(from));
    }
    moved.result.named("the arc")?;
    equal("state afterwards", card.state(), Ok(to))?;
    anyhow::ensure!(moved.number != UNTOUCHED, "data_fd was not written");
    equal(
        "a data file was returned",
        moved.data.is_some(),
        returns_data(from, to),
    )?;
    if moved.data.is_none() {
        equal("data_fd without a data file", moved.number, -1)?;
    }
    if let Some(old) = &old {
        equal(
            "the old session is over",
            !is_alive(from, old),
            ends_session(from, to),
        )?;
    }
    if let Some(new) = &moved.data {
        anyhow::ensure!(is_alive(to, new), "the new session is over");
    }
    // From wherever it is now, the card goes on working.
    card.reset().named("reset")?;
    card.port(0).set(SCR, 0x5a)?;
    equal("scratch", card.port(0).get(SCR)?, 0x5a)
}

fn migration_features_are_stop_copy_p2p_and_pre_copy(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(1, access)?;
    let wanted =
        abi::VFIO_MIGRATION_STOP_COPY | abi::VFIO_MIGRATION_P2P | abi::VFIO_MIGRATION_PRE_COPY;
    equal("flags", card.migration_flags(), Ok(wanted.into()))
}

fn the_device_starts_running(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(1, access)?;
    equal("state", card.state(), Ok(State::Running))
}

fn leaving_resuming_without_a_stream_is_refused_for_every_target() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    for to in State::ALL
        .into_iter()
        .filter(|to| ![State::Error, State::Resuming].contains(to))
    {
        let moved = card.move_to_number(to as u32);
        refused(format!("RESUMING -> {to:?}"), moved.result, Errno::EINVAL)?;
        equal(format!("data_fd of RESUMING -> {to:?}"), moved.number, -1)?;
        equal(
            format!("state after RESUMING -> {to:?}"),
            card.state(),
            Ok(State::Resuming),
        )?;
        let reason = card.reason();
        anyhow::ensure!(
            !reason.is_empty(),
            "RESUMING -> {to:?} was refused without a reason"
        );
    }
    anyhow::ensure!(is_alive(State::Resuming, &data), "the session is over");
    Ok(())
}

fn reset_leads_from_every_state_to_running() -> anyhow::Result<()> {
    for from in State::ALL.into_iter().filter(|from| *from != State::Error) {
        let (card, data) = card_in(from)?;
        card.reset().named(format!("reset in {from:?}"))?;
        equal(
            format!("state after reset in {from:?}"),
            card.state(),
            Ok(State::Running),
        )?;
        if let Some(data) = data {
            anyhow::ensure!(
                !is_alive(from, &data),
                "the session of {from:?} goes on after reset"
            );
        }
        // A new session starts from scratch.
        let stream = card.stop_and_save()?;
        anyhow::ensure!(!stream.is_empty(), "an empty stream");
    }
    Ok(())
}

fn one_session_spans_pre_copy_and_stop_copy() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    for state in [
        State::PreCopyP2p,
        State::PreCopy,
        State::PreCopyP2p,
        State::StopCopy,
        State::StopCopy,
    ] {
        card.switch(state).named(format!("to {state:?}"))?;
        anyhow::ensure!(is_alive(state, &data), "the session is over in {state:?}");
    }
    card.switch(State::Running).named("to RUNNING")?;
    anyhow::ensure!(
        !is_alive(State::StopCopy, &data),
        "the session goes on in RUNNING"
    );
    let other = card.start(State::PreCopyP2p).named("to PRE_COPY_P2P")?;
    card.switch(State::StopCopy).named("to STOP_COPY")?;
    anyhow::ensure!(
        is_alive(State::StopCopy, &other),
        "the second session is over"
    );
    anyhow::ensure!(
        !is_alive(State::StopCopy, &data),
        "the first session came back"
    );
    Ok(())
}

fn every_arc_out_of_a_session_ends_it() -> anyhow::Result<()> {
    for from in [
        State::PreCopy,
        State::PreCopyP2p,
        State::StopCopy,
        State::Resuming,
    ] {
        for to in State::ALL
            .into_iter()
            .filter(|to| is_allowed(from, *to) && ends_session(from, *to))
        {
            let (card, data) = card_in(from)?;
            let data = data.ok_or_else(|| anyhow::anyhow!("no data file in {from:?}"))?;
            let _new = card.move_to(to).named(format!("{from:?} -> {to:?}"))?;
            let result = if from == State::Resuming {
                data.write(&[0])
            } else {
                data.read(&mut [0])
            };
            refused(
                format!("the data file after {from:?} -> {to:?}"),
                result,
                Errno::ENODEV,
            )?;
            refused(
                format!("its ioctl after {from:?} -> {to:?}"),
                data.precopy_info(),
                Errno::ENODEV,
            )?;
        }
    }
    Ok(())
}

fn a_refused_arc_leaves_the_session_alone() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let reference = card.stop_and_save()?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    let mut stream = Vec::new();
    for to in [
        State::Error as u32,
        State::PreCopy as u32,
        State::PreCopyP2p as u32,
        8,
        u32::MAX,
    ] {
        refused(
            format!("STOP_COPY -> {to}"),
            card.move_to_number(to).result,
            Errno::EINVAL,
        )?;
        let mut piece = [0; 7];
        let length = data.read(&mut piece).named("read")?;
        stream.extend_from_slice(&piece[..length]);
    }
    stream.extend(data.read_all(64).named("read")?);
    super::check::same_bytes("the stream", &stream, &reference)
}

fn sysfs_follows_the_state_and_the_session() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let check = |state: &str, phase: &str, bytes: usize| -> anyhow::Result<()> {
        for (file, wanted) in [
            ("state", state),
            ("phase", phase),
            ("bytes", &bytes.to_string()),
        ] {
            let got = card.instance.attribute(&format!("migration/{file}"))?;
            equal(format!("migration/{file} in {state}"), got.as_str(), wanted)?;
        }
        Ok(())
    };
    check("RUNNING", "none", 0)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    check("PRE_COPY", "pre-copy", 0)?;
    let mut stream = data.read_all(10).named("read")?;
    check("PRE_COPY", "pre-copy", stream.len())?;
    card.switch(State::PreCopyP2p).named("to PRE_COPY_P2P")?;
    check("PRE_COPY_P2P", "pre-copy", stream.len())?;
    card.switch(State::StopCopy).named("to STOP_COPY")?;
    check("STOP_COPY", "stop-and-copy", stream.len())?;
    stream.extend(data.read_all(100).named("read")?);
    check("STOP_COPY", "stop-and-copy", stream.len())?;
    card.switch(State::Stop).named("to STOP")?;
    check("STOP", "none", 0)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    data.write_all(&stream, 100).named("write")?;
    check("RESUMING", "stop-and-copy", stream.len())?;
    card.switch(State::RunningP2p).named("to RUNNING_P2P")?;
    check("RUNNING_P2P", "none", 0)
}

/// Where the VFIO core shows the state to who debugs, open or not.
fn debugfs_state(instance: &Mdev) -> PathBuf {
    let root = Path::new("/sys/kernel/debug/vfio");
    let directory = root.join(instance.uuid().to_string());
    directory.join("migration/state")
}

fn debugfs_follows_the_state_of_open_and_closed_devices() -> anyhow::Result<()> {
    let instance = card_type(1)?.create()?;
    let file = debugfs_state(&instance);
    let shown = || fs::read_to_string(&file).with_context(|| file.display().to_string());
    equal("before the first open", shown()?, "RUNNING\n".into())?;
    let device = kernel::usual_access().open(&instance)?;
    for (state, text) in [
        (State::Stop, "STOP\n"),
        (State::RunningP2p, "RUNNING_P2P\n"),
        (State::PreCopyP2p, "PRE_COPY_P2P\n"),
        (State::StopCopy, "STOP_COPY\n"),
    ] {
        device.move_to(state).named(text.trim_end())?;
        equal("of an open device", shown()?, text.into())?;
    }
    drop(device);
    equal("after the last close", shown()?, "RUNNING\n".into())?;
    instance.remove()?;
    anyhow::ensure!(!file.exists(), "the file outlives the device");
    Ok(())
}

fn debugfs_can_be_read_while_devices_come_and_go() -> anyhow::Result<()> {
    for _ in 0..20 {
        let instance = card_type(1)?.create()?;
        let file = debugfs_state(&instance);
        let over = AtomicBool::new(false);
        let wrong = thread::scope(|scope| -> anyhow::Result<Option<String>> {
            let reader = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    match fs::read_to_string(&file) {
                        Ok(text) if text == "RUNNING\n" || text == "STOP\n" => {}
                        Ok(text) => return Some(text),
                        // It goes away with the device.
                        Err(_) => {}
                    }
                }
                None
            });
            let outcome = (|| -> anyhow::Result<()> {
                let device = kernel::usual_access().open(&instance)?;
                device.switch(State::Stop).named("to STOP")?;
                drop(device);
                instance.remove()
            })();
            over.store(true, Ordering::Relaxed);
            let wrong = reader.join();
            outcome?;
            wrong.map_err(|_| anyhow::anyhow!("the reader panicked"))
        })?;
        equal("states that do not occur", wrong, None)?;
    }
    Ok(())
}

fn the_data_size_is_known_in_every_state() -> anyhow::Result<()> {
    for state in State::ALL
        .into_iter()
        .filter(|state| *state != State::Error)
    {
        let (card, _data) = card_in(state)?;
        let size = card.data_size().named(format!("data size in {state:?}"))?;
        // QEMU allocates that much, fails where it is nothing, and takes what is above for what has to be transferred.
        anyhow::ensure!(
            (1..1 << 20).contains(&size),
            "a data size of {size} in {state:?}"
        );
    }
    Ok(())
}

fn the_data_size_covers_the_whole_stream() -> anyhow::Result<()> {
    let card = Card::new(4)?;
    let event = card.enable(INTX)?;
    for port in 0..4 {
        let line = card.line(port, &event);
        line.port.set_up(FCR_TRIGGER_8)?;
        line.send(&[0xa5; 200])?;
    }
    let size = card.data_size().named("data size")?;
    let stream = card.stop_and_save()?;
    anyhow::ensure!(
        stream.len() as u64 <= size,
        "a stream of {} bytes, but a data size of {size}",
        stream.len()
    );
    Ok(())
}
