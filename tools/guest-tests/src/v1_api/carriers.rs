// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The same byte stream by both protocols: what one saved, the other loads.

use super::bench::*;
use super::client::{stream, Carrier, Client};
use super::region::*;
use crate::ktap::Suite;
use crate::v2_api::card::{Card, PORTS};
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::vfio::State;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        both_protocols_save_the_same_stream_with_pre_copy,
        both_protocols_save_the_same_stream_without_pre_copy,
        what_v1_saved_v2_loads,
        what_v2_saved_v1_loads,
        a_state_travels_by_both_protocols_in_turn,
        the_states_of_one_protocol_are_seen_by_the_other,
    );
}

/// A stream with pre-copy by protocol v2, from a card that runs; it runs again afterwards.
fn save_live_by_v2(card: &Card) -> anyhow::Result<Vec<u8>> {
    let out = card.start(State::PreCopy).named("to PRE_COPY")?;
    let mut all = out.read_all(100).named("read in PRE_COPY")?;
    card.switch(State::StopCopy).named("to STOP_COPY")?;
    all.extend(out.read_all(100).named("read in STOP_COPY")?);
    card.switch(State::Running).named("to RUNNING")?;
    Ok(all)
}

/// A stream with pre-copy by protocol v1, from a card that runs; it runs again afterwards.
fn save_live_by_v1(card: &Card) -> anyhow::Result<Vec<u8>> {
    let region = Region::find(card)?;
    let all = stream(&save_live(&region)?);
    region.set_state(RUNNING).named("to RUNNING")?;
    Ok(all)
}

/// Loads a stream by protocol v1 and lets the card run.
fn load_by_v1(card: &Card, stream: &[u8]) -> anyhow::Result<()> {
    Client::new(Region::find(card)?, Carrier::Words).load(&[stream.to_vec()])
}

/// Loads a stream by protocol v2 and lets the card run.
fn load_by_v2(card: &Card, stream: &[u8]) -> anyhow::Result<()> {
    card.load(stream)?;
    card.switch(State::Running).named("to RUNNING")
}

fn both_protocols_save_the_same_stream_with_pre_copy() -> anyhow::Result<()> {
    for ports in PORTS {
        let card = filled(ports)?;
        let by_v1 = save_live_by_v1(&card)?;
        let by_v2 = save_live_by_v2(&card)?;
        same_bytes(format!("{ports} ports, v1 and v2"), &by_v1, &by_v2)?;
        has_content(&card, 0x41)?;
    }
    Ok(())
}

fn both_protocols_save_the_same_stream_without_pre_copy() -> anyhow::Result<()> {
    for ports in PORTS {
        let card = filled(ports)?;
        let region = Region::find(&card)?;
        let by_v1 = save_stopped(&region)?;
        region.set_state(RUNNING).named("to RUNNING")?;
        let by_v2 = card.stop_and_save()?;
        same_bytes(format!("{ports} ports, v1 and v2"), &by_v1, &by_v2)?;
    }
    Ok(())
}

fn what_v1_saved_v2_loads() -> anyhow::Result<()> {
    for ports in PORTS {
        let (source, destination) = (filled(ports)?, card(ports)?);
        let saved = save_live_by_v1(&source)?;
        load_by_v2(&destination, &saved)?;
        same_bytes(
            "the stream that the destination saves",
            &save_live_by_v2(&destination)?,
            &saved,
        )?;
        has_content(&destination, 0x41)?;
    }
    Ok(())
}

fn what_v2_saved_v1_loads() -> anyhow::Result<()> {
    for ports in PORTS {
        let (source, destination) = (filled(ports)?, card(ports)?);
        let saved = save_live_by_v2(&source)?;
        load_by_v1(&destination, &saved)?;
        same_bytes(
            "the stream that the destination saves",
            &save_live_by_v1(&destination)?,
            &saved,
        )?;
        has_content(&destination, 0x41)?;
    }
    Ok(())
}

fn a_state_travels_by_both_protocols_in_turn() -> anyhow::Result<()> {
    let source = filled(2)?;
    let first = save_live_by_v1(&source)?;
    let cards = (0..4)
        .map(|_| card(2))
        .collect::<anyhow::Result<Vec<Card>>>()?;
    let mut saved = first.clone();
    for (turn, card) in cards.iter().enumerate() {
        match turn % 2 {
            0 => load_by_v2(card, &saved)?,
            _ => load_by_v1(card, &saved)?,
        }
        saved = match turn / 2 {
            0 => save_live_by_v2(card)?,
            _ => save_live_by_v1(card)?,
        };
        same_bytes(format!("the stream after turn {turn}"), &saved, &first)?;
    }
    has_content(&cards[3], 0x41)
}

fn the_states_of_one_protocol_are_seen_by_the_other() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for (state, seen) in [
        (State::Running, RUNNING),
        (State::RunningP2p, RUNNING),
        (State::PreCopy, PRE_COPY),
        (State::PreCopyP2p, PRE_COPY),
        (State::Stop, STOP),
        (State::StopCopy, SAVING),
        (State::Resuming, RESUMING),
    ] {
        let _data = card.move_to(state).named(format!("to {state:?}"))?;
        equal(format!("v1 in {state:?}"), region.state(), Ok(seen))?;
        card.reset().named("reset")?;
    }
    for state in STATES {
        reach(&region, state)?;
        equal(
            format!("v2 in {}", name(state)),
            card.state(),
            Ok(as_v2(state)),
        )?;
        card.reset().named("reset")?;
    }
    Ok(())
}
