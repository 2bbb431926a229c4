// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A migration with protocol v1, access by access.

use std::fmt::Debug;

use anyhow::ensure;

use super::injection::{Failures, Kind};
use super::session;
use crate::ktap::Suite;
use crate::v2_api::card::Card;
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::v2_api::uart::SCR;
use crate::vfio::mapping::Mapping;
use crate::vfio::migration_v1::{Region, PRE_COPY, RESUMING, RUNNING, SAVING, STOP};
use crate::vfio::{Access, Errno};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        a_migration_by_region_with_each_allocation_failing_once,
        a_migration_by_region_with_each_copy_failing_once,
    );
}

fn a_migration_by_region_with_each_allocation_failing_once(access: Access) -> anyhow::Result<()> {
    Failures::lives(Kind::Allocation, |failures| migration(failures, access))
}

fn a_migration_by_region_with_each_copy_failing_once(access: Access) -> anyhow::Result<()> {
    Failures::lives(Kind::Copy, |failures| migration(failures, access))
}

/// What no access changes that fails.
fn snapshot(card: &Card, region: &Region<'_>) -> anyhow::Result<(u32, Vec<u8>, [String; 3])> {
    Ok((
        region.state().named("state")?,
        card.plain_registers()?,
        session(card)?,
    ))
}

/// One access to the region, with each failure in turn.
fn access<T: Debug>(
    failures: &Failures,
    (card, region): (&Card, &Region<'_>),
    what: &str,
    call: impl FnMut() -> Result<T, Errno>,
) -> anyhow::Result<T> {
    let before = snapshot(card, region)?;
    failures.each(what, call, || {
        equal("the card", snapshot(card, region)?, before.clone())
    })
}

/// One access that makes a difference to the next, with each failure in turn.
fn step<T: Debug>(
    failures: &Failures,
    (card, region): (&Card, &Region<'_>),
    what: &str,
    call: impl FnMut() -> Result<T, Errno>,
) -> anyhow::Result<T> {
    let before = snapshot(card, region)?;
    failures.step(what, call, || {
        equal("the card", snapshot(card, region)?, before.clone())
    })
}

fn migration(failures: &Failures, way: Access) -> anyhow::Result<()> {
    let (source, destination) = (Card::opened(2, way)?, Card::opened(2, way)?);
    source.port(1).set(SCR, 0x5a)?;

    let region = Region::find(&source)?;
    let both = (&source, &region);
    let mapping = access(failures, both, "mmap", || Mapping::of_data(&region))?;
    let mut pieces = Vec::new();
    for (what, state) in [("to pre-copy", PRE_COPY), ("to stop-and-copy", SAVING)] {
        step(failures, both, what, || region.set_state(state))?;
        loop {
            let pending = access(failures, both, "pending_bytes", || region.pending())?;
            if pending == 0 {
                break;
            }
            let offset = access(failures, both, "data_offset", || region.data_offset())?;
            let size = access(failures, both, "data_size", || region.data_size())?;
            ensure!(size > 0, "{pending} bytes are pending, and none come");
            let piece = access(failures, both, "the data", || {
                region.get(offset, size as usize)
            })?;
            let start = (offset - region.data.offset) as usize;
            same_bytes("what is mapped", &mapping.get(start, piece.len()), &piece)?;
            pieces.push(piece);
        }
    }
    step(failures, both, "to stop", || region.set_state(STOP))?;

    let region = Region::find(&destination)?;
    let both = (&destination, &region);
    step(failures, both, "to resuming", || region.set_state(RESUMING))?;
    for piece in &pieces {
        let offset = access(failures, both, "data_offset", || region.data_offset())?;
        access(failures, both, "the data", || region.put(offset, piece))?;
        step(failures, both, "data_size", || {
            region.set_data_size(piece.len() as u64)
        })?;
    }
    step(failures, both, "to running", || region.set_state(RUNNING))?;
    same_bytes(
        "registers of the destination",
        &destination.plain_registers()?,
        &source.plain_registers()?,
    )
}
