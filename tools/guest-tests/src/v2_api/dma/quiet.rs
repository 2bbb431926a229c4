// SPDX-License-Identifier: GPL-2.0 OR MIT

//! States in which a device must not access memory, and what becomes of what it was asked for there.

use super::super::check::{equal, same_bytes, Named};
use super::super::copier::{driver, Copier, Status, MEMORY, MOST, PAGE};
use super::again_until;
use crate::ktap::Suite;
use crate::vfio::{Access, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        nothing_is_written_in_quiet_states_and_it_is_made_up_for,
        a_copy_is_made_in_pre_copy,
        a_copy_that_is_due_is_made_at_the_destination,
        a_copy_that_was_asked_for_while_loading_is_replaced_by_the_state,
    );
    tests!(
        suite,
        a_device_that_was_stopped_writes_nothing_from_then_on,
        resets_while_a_device_writes_end_what_was_asked_for,
    );
}

/// The states in which no memory may be accessed and that lead back to RUNNING.
const QUIET: [State; 4] = [
    State::RunningP2p,
    State::PreCopyP2p,
    State::Stop,
    State::StopCopy,
];

fn nothing_is_written_in_quiet_states_and_it_is_made_up_for(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let event = copier.message()?;
    let to = MEMORY + PAGE;
    copier.fill(MEMORY, &[0x5a; 16]);
    for state in QUIET {
        copier.fill(to, &[0; 16]);
        let before = copier.count()?;
        let _file = copier.move_to(state).named(format!("to {state:?}"))?;
        let status = copier.copy(MEMORY, to, 16)?;
        equal(format!("the copy in {state:?}"), status, Status::Due)?;
        same_bytes(
            format!("the memory in {state:?}"),
            &copier.at(to, 16),
            &[0; 16],
        )?;
        equal("copies", copier.count()?, before)?;
        equal("messages", event.count()?, 0)?;
        copier.switch(State::Running).named("to RUNNING")?;
        equal("the copy in RUNNING", copier.status()?, Status::Done)?;
        same_bytes("the memory in RUNNING", &copier.at(to, 16), &[0x5a; 16])?;
        equal("copies", copier.count()?, before + 1)?;
        equal("messages", event.count()?, 1)?;
    }
    Ok(())
}

fn a_copy_is_made_in_pre_copy(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let _file = copier.start(State::PreCopyP2p).named("to PRE_COPY_P2P")?;
    copier.fill(MEMORY, &[0x5a; 16]);
    let status = copier.copy(MEMORY, MEMORY + PAGE, 16)?;
    equal("the copy", status, Status::Due)?;
    copier.switch(State::PreCopy).named("to PRE_COPY")?;
    equal("the copy", copier.status()?, Status::Done)?;
    copier.copies(MEMORY, MEMORY + 2 * PAGE, 16)
}

fn a_copy_that_is_due_is_made_at_the_destination(access: Access) -> anyhow::Result<()> {
    let driver = driver()?;
    let source = Copier::opened(&driver, access)?;
    let destination = Copier::opened(&driver, access)?;
    let to = MEMORY + PAGE;
    source.fill(MEMORY, &[0x11; 16]);
    destination.fill(MEMORY, &[0x22; 16]);
    let out = source
        .start(State::PreCopyP2p)
        .named("source to PRE_COPY_P2P")?;
    equal("the copy", source.copy(MEMORY, to, 16)?, Status::Due)?;
    source
        .switch(State::StopCopy)
        .named("source to STOP_COPY")?;
    let into = destination
        .start(State::Resuming)
        .named("destination to RESUMING")?;
    into.write_all(&out.read_all(1000).named("read")?, 1000)
        .named("write")?;
    for state in [State::Stop, State::RunningP2p] {
        destination
            .switch(state)
            .named(format!("destination to {state:?}"))?;
        equal("the copy", destination.status()?, Status::Due)?;
        same_bytes("the memory", &destination.at(to, 16), &[0; 16])?;
    }
    destination
        .switch(State::Running)
        .named("destination to RUNNING")?;
    equal("the copy", destination.status()?, Status::Done)?;
    same_bytes("the memory", &destination.at(to, 16), &[0x22; 16])?;
    same_bytes("the source's memory", &source.at(to, 16), &[0; 16])
}

fn a_copy_that_was_asked_for_while_loading_is_replaced_by_the_state(
    access: Access,
) -> anyhow::Result<()> {
    let driver = driver()?;
    let source = Copier::opened(&driver, access)?;
    let copier = Copier::opened(&driver, access)?;
    let out = source.start(State::StopCopy).named("to STOP_COPY")?;
    let into = copier.start(State::Resuming).named("to RESUMING")?;
    copier.fill(MEMORY, &[0x5a; 16]);
    let status = copier.copy(MEMORY, MEMORY + PAGE, 16)?;
    equal("the copy in RESUMING", status, Status::Due)?;
    into.write_all(&out.read_all(1000).named("read")?, 1000)
        .named("write")?;
    copier.switch(State::Running).named("to RUNNING")?;
    equal("the copy", copier.status()?, Status::None)?;
    same_bytes("the memory", &copier.at(MEMORY + PAGE, 16), &[0; 16])
}

/// Rounds of stopping.
const ROUNDS: usize = 100;

fn a_device_that_was_stopped_writes_nothing_from_then_on() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let to = MEMORY + MOST as u64;
    let last = to + MOST as u64 - 8;
    copier.aim(MEMORY, to, MOST)?;
    let rounds = || {
        for round in 0..ROUNDS {
            let state = QUIET[round % QUIET.len()];
            let file = copier.move_to(state).named(format!("to {state:?}"))?;
            let count = copier.count()?;
            // A copy that went on would write zeroes there.
            for at in [to, last] {
                copier.fill(at, &[0x55; 8]);
            }
            copier.await_that("a copy to be asked for", || {
                Ok(copier.status()? == Status::Due)
            })?;
            for at in [to, last] {
                same_bytes("the memory", &copier.at(at, 8), &[0x55; 8])?;
            }
            equal("copies", copier.count()?, count)?;
            drop(file);
            copier.switch(State::Running).named("to RUNNING")?;
        }
        Ok(())
    };
    again_until(|| copier.ask(), rounds)
}

fn resets_while_a_device_writes_end_what_was_asked_for() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let copies = || {
        // Where to is forgotten by a reset, and the copy that is asked for then is of no bytes.
        copier.aim(MEMORY, MEMORY + MOST as u64, MOST)?;
        copier.ask()
    };
    let resets =
        || (0..ROUNDS).try_for_each(|round| copier.reset().named(format!("reset {round}")));
    again_until(copies, resets)?;
    copier.reset().named("the last reset")?;
    equal("the copy after a reset", copier.status()?, Status::None)?;
    equal("copies after a reset", copier.count()?, 0)?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)
}
