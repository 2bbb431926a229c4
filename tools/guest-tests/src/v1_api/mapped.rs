// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device's own memory in a region that its user maps, by the migration region.

use std::os::fd::AsFd;

use nix::sys::mman::MapFlags;

use super::client::{stream, Carrier, Client};
use super::mapping::Mapping;
use super::region::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::v2_api::copier::{driver, Copier, BAR0, SCRATCH, SCRATCH_LENGTH};
use crate::vfio::State;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        mapped_memory_moves_along_by_the_region,
        mapped_memory_moves_along_from_one_protocol_to_the_other,
    );
}

fn map(copier: &Copier) -> anyhow::Result<Mapping> {
    let place = copier.place(BAR0, SCRATCH).named("place")?;
    let mapped = Mapping::of_file(copier.as_fd(), place, SCRATCH_LENGTH, MapFlags::MAP_SHARED);
    mapped.named("mmap")
}

fn pattern(seed: u8) -> Vec<u8> {
    let byte = |n: usize| (n as u8).wrapping_mul(29) ^ (n >> 8) as u8 ^ seed;
    (0..SCRATCH_LENGTH).map(byte).collect()
}

fn mapped_memory_moves_along_by_the_region() -> anyhow::Result<()> {
    let driver = driver()?;
    let access = kernel::usual_access();
    let source = Copier::opened(&driver, access)?;
    let destination = Copier::opened(&driver, access)?;
    let (mine, theirs) = (map(&source)?, map(&destination)?);
    let (from, to) = (Region::find(&source)?, Region::find(&destination)?);
    let (out, into) = (
        Mapping::of_data(&from).named("mmap of the data section")?,
        Mapping::of_data(&to).named("mmap of the data section")?,
    );
    for (seed, sends, takes) in [
        (1, Carrier::Map(&out), Carrier::Map(&into)),
        (2, Carrier::Words, Carrier::Steps(1000)),
    ] {
        mine.put(0, &pattern(seed));
        let records = Client::new(from, sends).save_live()?;
        same_bytes("the source's", &mine.get(0, SCRATCH_LENGTH), &pattern(seed))?;
        Client::new(to, takes).load(&records)?;
        same_bytes("the memory", &theirs.get(0, SCRATCH_LENGTH), &pattern(seed))?;
        from.set_state(RUNNING).named("source to RUNNING")?;
        equal("state", to.state(), Ok(RUNNING))?;
    }
    Ok(())
}

fn mapped_memory_moves_along_from_one_protocol_to_the_other() -> anyhow::Result<()> {
    let driver = driver()?;
    let access = kernel::usual_access();
    let first = Copier::opened(&driver, access)?;
    let second = Copier::opened(&driver, access)?;
    let (one, two) = (map(&first)?, map(&second)?);
    one.put(0, &pattern(3));
    let records = Client::new(Region::find(&first)?, Carrier::Words).save_live()?;
    let file = second.start(State::Resuming).named("to RESUMING")?;
    file.write_all(&stream(&records), 1000).named("write")?;
    second.switch(State::Running).named("to RUNNING")?;
    same_bytes("what v1 saved", &two.get(0, SCRATCH_LENGTH), &pattern(3))?;
    first.reset().named("reset")?;
    two.put(0, &pattern(4));
    let file = second.start(State::StopCopy).named("to STOP_COPY")?;
    let saved = file.read_all(1000).named("read")?;
    // A piece is no longer than the data section.
    let pieces: Vec<Vec<u8>> = saved.chunks(4000).map(<[u8]>::to_vec).collect();
    Client::new(Region::find(&first)?, Carrier::Words).load(&pieces)?;
    same_bytes("what v2 saved", &one.get(0, SCRATCH_LENGTH), &pattern(4))
}
