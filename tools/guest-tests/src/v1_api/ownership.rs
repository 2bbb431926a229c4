// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which protocol has the device: case 20 of the list of hostile cases.
//!
//! A protocol owns the device from its first request that leaves RUNNING until the device runs again without a session, is
//! reset or closed. The other one may look, and gets EBUSY for a change.

use super::bench::*;
use super::client::{Carrier, Client};
use super::region::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::card::Card;
use crate::v2_api::check::{equal, refused, Named};
use crate::vfio::logging::Logging;
use crate::vfio::{abi, Access, Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_20_v2_gets_ebusy_while_v1_has_the_device,
        hostile_20_v1_gets_ebusy_while_v2_has_the_device,
        hostile_20_looking_never_takes_the_device,
        hostile_20_the_device_is_free_again_when_it_runs,
        hostile_20_reset_and_close_free_the_device,
        hostile_20_a_refused_change_does_not_take_the_device,
        hostile_20_the_other_protocol_cannot_disturb_a_session,
        hostile_20_the_reason_names_the_other_protocol,
    );
}

/// States that v2 may be asked for, whatever the device does.
const TARGETS: [State; 7] = [
    State::Stop,
    State::Running,
    State::StopCopy,
    State::Resuming,
    State::RunningP2p,
    State::PreCopy,
    State::PreCopyP2p,
];

fn hostile_20_v2_gets_ebusy_while_v1_has_the_device() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for state in [STOP, SAVING, PRE_COPY, RESUMING] {
        reach(&region, state)?;
        for target in TARGETS {
            let moved = card.move_to_number(target as u32);
            let what = format!("{target:?} by v2 in {} of v1", name(state));
            match target == as_v2(state) {
                true => moved.result.named(format!("{what}, where it is"))?,
                false => refused(&what, moved.result, Errno::EBUSY)?,
            }
            anyhow::ensure!(moved.number == -1, "{what}: data_fd is {}", moved.number);
            equal(format!("state after {what}"), region.state(), Ok(state))?;
        }
        card.reset().named("reset")?;
    }
    works(&card)
}

fn hostile_20_v1_gets_ebusy_while_v2_has_the_device() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    let legal: [(State, &[u32]); 6] = [
        (State::Stop, &[RUNNING, SAVING, RESUMING]),
        (State::StopCopy, &[STOP, RUNNING]),
        (State::Resuming, &[RUNNING]),
        (State::RunningP2p, &[STOP, SAVING, PRE_COPY, RESUMING]),
        (State::PreCopy, &[RUNNING, SAVING]),
        (State::PreCopyP2p, &[RUNNING, SAVING]),
    ];
    for (state, targets) in legal {
        let _data = card.move_to(state).named(format!("to {state:?}"))?;
        let seen = region.state().named("device_state")?;
        region
            .set_state(seen)
            .named(format!("{} by v1 in {state:?}, where it is", name(seen)))?;
        for target in targets {
            let what = format!("{} by v1 in {state:?} of v2", name(*target));
            refused(&what, region.set_state(*target), Errno::EBUSY)?;
            equal(format!("state after {what}"), card.state(), Ok(state))?;
        }
        // What is no state at all is that first.
        for target in [5, 6, 7, 8 | seen] {
            let what = format!("{target:#x} by v1 in {state:?} of v2");
            refused(&what, region.set_state(target), Errno::EINVAL)?;
            equal(format!("state after {what}"), card.state(), Ok(state))?;
        }
        card.reset().named("reset")?;
    }
    works(&card)
}

fn hostile_20_looking_never_takes_the_device() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    let look_by_v1 = |state: u32| -> anyhow::Result<()> {
        equal("device_state", region.state(), Ok(state))?;
        region.pending().named("pending_bytes")?;
        let _ = region.data_offset();
        let _ = region.data_size();
        let _ = region.get(region.data.offset, 1);
        region.set_state(state).named("a same-state write")
    };
    let look_by_v2 = |state: State| -> anyhow::Result<()> {
        equal("state", card.state(), Ok(state))?;
        card.migration_flags().named("GET of MIGRATION")?;
        card.data_size().named("GET of MIG_DATA_SIZE")?;
        for method in [abi::VFIO_DEVICE_FEATURE_GET, abi::VFIO_DEVICE_FEATURE_SET] {
            let probe = abi::VFIO_DEVICE_FEATURE_PROBE | method;
            card.feature(probe | abi::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &mut [])
                .named("PROBE")?;
        }
        // Tracking of DMA is no part of either protocol.
        if kernel::has(kernel::LOGGING) {
            card.start_logging(&Logging::of(&[(0, 1 << 20)]))
                .named("start of logging")?;
            card.stop_logging().named("stop of logging")?;
        }
        card.switch(state).named("a SET of the same state")
    };
    look_by_v1(RUNNING)?;
    look_by_v2(State::Running)?;
    card.switch(State::Stop).named("to STOP by v2")?;
    look_by_v1(STOP)?;
    card.switch(State::Running).named("to RUNNING by v2")?;
    look_by_v2(State::Running)?;
    region.set_state(STOP).named("001 -> 000")?;
    look_by_v2(State::Stop)?;
    region.set_state(RUNNING).named("000 -> 001")?;
    works(&card)
}

fn hostile_20_the_device_is_free_again_when_it_runs() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let state = card.stop_and_save()?;
    card.switch(State::Running).named("to RUNNING")?;
    for path in [
        &[STOP][..],
        &[SAVING],
        &[PRE_COPY],
        &[PRE_COPY, SAVING],
        &[SAVING, STOP],
    ] {
        for state in path {
            region.set_state(*state).named(name(*state))?;
            refused(
                "RUNNING_P2P by v2 meanwhile",
                card.move_to(State::RunningP2p).map(drop),
                Errno::EBUSY,
            )?;
        }
        region.set_state(RUNNING).named("to RUNNING by v1")?;
        card.switch(State::Stop).named("to STOP by v2")?;
        refused("by v1 meanwhile", region.set_state(SAVING), Errno::EBUSY)?;
        card.switch(State::Running).named("to RUNNING by v2")?;
        region.set_state(STOP).named("to STOP by v1")?;
        region.set_state(RUNNING).named("to RUNNING by v1")?;
    }
    // A load by one, then a load by the other.
    Client::new(region, Carrier::Words).load(&[state.clone()])?;
    card.load(&state)?;
    refused("by v1 meanwhile", region.set_state(RUNNING), Errno::EBUSY)?;
    card.switch(State::Running).named("to RUNNING by v2")?;
    Client::new(region, Carrier::Words).load(&[state])?;
    has_content(&card, 0x41)?;
    works(&card)
}

fn hostile_20_reset_and_close_free_the_device() -> anyhow::Result<()> {
    let mut card = card(1)?;
    for state in [STOP, SAVING, PRE_COPY, RESUMING] {
        reach(&Region::find(&card)?, state)?;
        card.reset().named("reset")?;
        free_for_v2(&card)?;
        reach(&Region::find(&card)?, state)?;
        card = card.reopen(Access::Group)?;
        free_for_v2(&card)?;
    }
    for state in TARGETS.into_iter().filter(|state| *state != State::Running) {
        let data = card.move_to(state).named(format!("to {state:?}"))?;
        card.reset().named("reset")?;
        free_for_v1(&card)?;
        drop(data);
        let _data = card.move_to(state).named(format!("to {state:?}"))?;
        card = card.reopen(Access::Group)?;
        free_for_v1(&card)?;
    }
    works(&card)
}

fn free_for_v2(card: &Card) -> anyhow::Result<()> {
    card.switch(State::Stop).named("to STOP by v2")?;
    card.switch(State::Running).named("to RUNNING by v2")
}

fn free_for_v1(card: &Card) -> anyhow::Result<()> {
    let region = Region::find(card)?;
    region.set_state(STOP).named("to STOP by v1")?;
    region.set_state(RUNNING).named("to RUNNING by v1")
}

fn hostile_20_a_refused_change_does_not_take_the_device() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for bits in [5, 6, 7, 9, u32::MAX] {
        refused(format!("{bits:#x}"), region.set_state(bits), Errno::EINVAL)?;
        free_for_v2(&card)?;
    }
    for number in [0, 8, u32::MAX] {
        refused(
            format!("state {number} by v2"),
            card.move_to_number(number).result,
            Errno::EINVAL,
        )?;
        free_for_v1(&card)?;
    }
    works(&card)
}

fn hostile_20_the_other_protocol_cannot_disturb_a_session() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let whole = save_stopped(&region)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    // v1 saves, v2 pushes between any two accesses.
    let push = || refused("v2", card.move_to(State::Running).map(drop), Errno::EBUSY);
    region.set_state(SAVING).named("to SAVING")?;
    push()?;
    equal("pending_bytes", region.pending(), Ok(whole.len() as u64))?;
    push()?;
    let offset = region.data_offset().named("data_offset")?;
    push()?;
    let size = region.data_size().named("data_size")?;
    push()?;
    let half = whole.len() / 2;
    let mut read = region.get(offset, half).named("half the piece")?;
    push()?;
    read.extend(
        region
            .get(offset + half as u64, size as usize - half)
            .named("the other half")?,
    );
    crate::v2_api::check::same_bytes("the stream", &read, &whole)?;
    region.set_state(RUNNING).named("to RUNNING")?;

    // v2 saves, v1 pushes: states, and reads of pending_bytes, which acknowledge nothing of v2's.
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    let mut read = Vec::new();
    let mut byte = [0];
    while data.read(&mut byte).named("read")? == 1 {
        read.push(byte[0]);
        refused("v1", region.set_state(STOP), Errno::EBUSY)?;
        offers_nothing("v1", &region)?;
    }
    crate::v2_api::check::same_bytes("the stream", &read, &whole)
}

fn hostile_20_the_reason_names_the_other_protocol() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    region.set_state(STOP).named("to STOP by v1")?;
    refused("v2", card.move_to(State::Running).map(drop), Errno::EBUSY)?;
    anyhow::ensure!(card.reason().contains("v1"), "reason: {}", card.reason());
    region.set_state(RUNNING).named("to RUNNING by v1")?;
    card.switch(State::Stop).named("to STOP by v2")?;
    refused("v1", region.set_state(RUNNING), Errno::EBUSY)?;
    anyhow::ensure!(card.reason().contains("v2"), "reason: {}", card.reason());
    Ok(())
}
