// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What may be written to `device_state`, from every state.

use super::bench::*;
use super::region::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, refused, Named};
use crate::v2_api::copier::{Copier, MEMORY, PAGE};
use crate::vfio::Errno;

/// From each state, where a user may go: what the text of the header draws, the ways back to running, saving and loading a
/// stopped device, and staying.
const LEGAL: [(u32, &[u32]); 5] = [
    (STOP, &[STOP, RUNNING, SAVING, RESUMING]),
    (RUNNING, &[STOP, RUNNING, SAVING, PRE_COPY, RESUMING]),
    (SAVING, &[STOP, RUNNING, SAVING]),
    (PRE_COPY, &[RUNNING, SAVING, PRE_COPY]),
    // Running is legal, but only with a whole state loaded.
    (RESUMING, &[RESUMING]),
];

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        every_legal_transition_is_made,
        every_other_combination_is_refused_and_the_state_kept,
        reserved_bits_are_refused_with_every_combination,
        a_refused_state_has_a_reason,
        a_loaded_device_may_run,
        the_error_state_is_left_only_by_reset,
    );
}

fn every_legal_transition_is_made() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for (from, targets) in LEGAL {
        for to in targets {
            reach(&region, from)?;
            let what = format!("{} -> {}", name(from), name(*to));
            region.set_state(*to).named(what.clone())?;
            equal(format!("state after {what}"), region.state(), Ok(*to))?;
            equal(
                format!("state of v2 after {what}"),
                card.state(),
                Ok(as_v2(*to)),
            )?;
            card.reset().named("reset")?;
        }
    }
    works(&card)
}

fn every_other_combination_is_refused_and_the_state_kept() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for (from, targets) in LEGAL {
        for to in (0..8).filter(|to| !targets.contains(to)) {
            reach(&region, from)?;
            let what = format!("{} -> {}", name(from), name(to));
            refused(what.clone(), region.set_state(to), Errno::EINVAL)?;
            equal(format!("state after {what}"), region.state(), Ok(from))?;
            equal(
                format!("state of v2 after {what}"),
                card.state(),
                Ok(as_v2(from)),
            )?;
            card.reset().named("reset")?;
        }
    }
    works(&card)
}

fn reserved_bits_are_refused_with_every_combination() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for from in STATES {
        reach(&region, from)?;
        for bit in 3..32 {
            for to in 0..8 {
                let value = to | (1 << bit);
                let what = format!("{} -> {value:#x}", name(from));
                refused(what.clone(), region.set_state(value), Errno::EINVAL)?;
                equal(format!("state after {what}"), region.state(), Ok(from))?;
            }
        }
        card.reset().named("reset")?;
    }
    works(&card)
}

fn a_refused_state_has_a_reason() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for (from, to) in [
        (RUNNING, ERROR),
        (SAVING, PRE_COPY),
        (PRE_COPY, STOP),
        (RESUMING, SAVING),
    ] {
        reach(&region, from)?;
        let before = card.reason();
        let what = format!("{} -> {}", name(from), name(to));
        refused(what.clone(), region.set_state(to), Errno::EINVAL)?;
        let reason = card.reason();
        anyhow::ensure!(!reason.is_empty(), "{what}: no reason");
        anyhow::ensure!(
            reason != before,
            "{what}: the reason is still that of the refusal before: {reason}"
        );
        card.reset().named("reset")?;
    }
    Ok(())
}

fn a_loaded_device_may_run() -> anyhow::Result<()> {
    let (source, card) = (filled(1)?, card(1)?);
    let state = save_stopped(&Region::find(&source)?)?;
    let region = Region::find(&card)?;
    reach(&region, RESUMING)?;
    region
        .put(region.data.offset, &state)
        .named("write of the state")?;
    region
        .set_data_size(state.len() as u64)
        .named("write of data_size")?;
    equal("state before", region.state(), Ok(RESUMING))?;
    region.set_state(RUNNING).named("100 -> 001")?;
    equal("state", region.state(), Ok(RUNNING))?;
    has_content(&card, 0x41)
}

fn the_error_state_is_left_only_by_reset() -> anyhow::Result<()> {
    let copier = Copier::failed(kernel::usual_access())?;
    let region = Region::find(copier.device())?;
    equal("device_state", region.state(), Ok(ERROR))?;
    for bits in 0..=u32::from(u8::MAX) {
        refused(
            format!("device_state {bits:#b}"),
            region.set_state(bits),
            Errno::EIO,
        )?;
    }
    // It answers, and does nothing with memory.
    copier.fill(MEMORY, &[0x5a; 16]);
    copier.copy(MEMORY, MEMORY + PAGE, 16)?;
    equal("the memory", copier.at(MEMORY + PAGE, 16), vec![0; 16])?;
    copier.reset().named("reset")?;
    equal("device_state", region.state(), Ok(RUNNING))?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)
}
