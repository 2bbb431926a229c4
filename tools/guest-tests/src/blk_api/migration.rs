// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A disk that moves with its contents, while they are written.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};

use super::disk::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::mdev::Mdev;
use crate::v1_api::client::{Carrier, Client};
use crate::v1_api::region::Region;
use crate::v2_api::check::{equal, refused, same_bytes, Named};
use crate::vfio::{Access, DataFd, Device, Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        a_disk_moves_by_v2_while_it_is_written,
        a_disk_moves_by_v1_while_it_is_written,
    );
    tests!(
        suite,
        a_disk_that_was_never_written_is_small,
        a_cancelled_migration_leaves_the_disk_as_it_is,
        requests_that_were_not_served_are_found_at_the_other_end,
        another_kind_of_disk_is_refused_at_the_setup_record,
        a_block_that_there_is_not_is_refused,
    );
}

/// Capacity of these disks.
const MIB: usize = 2;
const PARAMETERS: Parameters<'static> = &[("capacity-mib", "2"), ("write-zeroes", "on")];
/// How much is read of a stream at once: about a section.
const STEP: usize = 32 * 1024;

/// A disk, another one that the same memory is mapped for, and what has to be on the first one.
struct Pair {
    source: Disk,
    other: Arc<Device>,
    contents: Vec<u8>,
    instances: [Mdev; 2],
    writes: u64,
}

impl Pair {
    fn new(access: Access) -> Result<Self> {
        let instances = [instance(PARAMETERS)?, instance(PARAMETERS)?];
        let source = Disk::new(access, &instances[0])?;
        let other = open(access, &instances[1], &source.memory)?;
        let mut pair = Self {
            source,
            other,
            contents: vec![0; MIB << 20],
            instances,
            writes: 0,
        };
        // A third of the blocks.
        for block in (0..MIB * 32).step_by(3) {
            pair.write(block)?;
        }
        Ok(pair)
    }

    /// Changes a block: four sectors in it.
    fn write(&mut self, block: usize) -> Result<()> {
        self.writes += 1;
        let bytes = pattern(4 * SECTOR, self.writes);
        let at = block * BLOCK + (self.writes as usize % 60) * SECTOR;
        self.source.queue().write((at / SECTOR) as u64, &bytes)?;
        self.contents[at..at + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    /// Discards a block.
    fn discard(&mut self, block: usize) -> Result<()> {
        let queue = self.source.queue();
        let data = queue.data();
        let mut range = ((block * BLOCK / SECTOR) as u64).to_le_bytes().to_vec();
        range.extend((BLOCK as u32 / 512).to_le_bytes());
        range.extend([0; 4]);
        queue.memory.put(data, &range);
        let answer = queue.request(DISCARD, 0, &[(data, 16, false)], true)?;
        equal("the answer to a discard", answer, (1, OK))?;
        self.contents[block * BLOCK..][..BLOCK].fill(0);
        Ok(())
    }

    /// The driver goes on with the other disk, and finds everything there.
    fn arrive(mut self) -> Result<()> {
        let gone = std::mem::replace(&mut self.source.device, self.other.clone());
        let other = self.other.clone();
        self.source.move_to(other)?;
        drop(gone);
        self.verify()?;
        // And it can be used.
        self.write(1)?;
        self.verify()?;
        let Self {
            source,
            other,
            instances: [first, second],
            ..
        } = self;
        drop((source, other));
        first.remove()?;
        second.remove()
    }

    fn verify(&mut self) -> Result<()> {
        const PIECE: usize = 64 * 1024;
        for at in (0..self.contents.len()).step_by(PIECE) {
            let found = self.source.queue().read((at / SECTOR) as u64, PIECE)?;
            let wanted = &self.contents[at..at + PIECE];
            same_bytes(format!("the medium at {at:#x}"), &found, wanted)?;
        }
        equal("the status", status(&self.source.device)?, READY)
    }
}

/// What the source says of what is left.
fn left(device: &Device, data: &DataFd) -> Result<(u64, u64)> {
    let info = data.precopy_info().named("VFIO_MIG_GET_PRECOPY_INFO")?;
    let total = device.data_size().named("MIG_DATA_SIZE")?;
    ensure!(
        total >= info.initial + info.dirty && total > 0,
        "MIG_DATA_SIZE is {total}, of {} and {} bytes",
        info.initial,
        info.dirty
    );
    Ok((info.initial, info.dirty))
}

/// Moves some of the stream; false if there is nothing now.
fn pump(from: &DataFd, to: &DataFd) -> Result<bool> {
    let mut bytes = vec![0; STEP];
    match from.read(&mut bytes) {
        Ok(0) | Err(Errno::ENOMSG) => Ok(false),
        Ok(length) => {
            to.write_all(&bytes[..length], STEP)
                .named("writing the stream")?;
            Ok(true)
        }
        Err(error) => Err(error).named("reading the stream"),
    }
}

fn a_disk_moves_by_v2_while_it_is_written(access: Access) -> Result<()> {
    let mut pair = Pair::new(access)?;
    let source = pair.source.device.clone();
    let out = source.start(State::PreCopy).named("PRE_COPY")?;
    let into = pair.other.start(State::Resuming).named("RESUMING")?;
    let (mut initial, dirty) = left(&source, &out)?;
    ensure!(
        initial > (MIB * 32 / 3 * BLOCK) as u64,
        "initial_bytes is {initial}"
    );
    equal("dirty_bytes at the start", dirty, 0)?;
    let mut turn = 0;
    while pump(&out, &into)? {
        let now = left(&source, &out)?;
        ensure!(
            now.0 <= initial,
            "initial_bytes rose from {initial} to {}",
            now.0
        );
        initial = now.0;
        turn += 1;
        if turn < 12 {
            // A block that was sent or not, one that is new, and one that is given up.
            pair.write(0)?;
            pair.write(1 + turn % 7)?;
            if turn % 4 == 0 {
                pair.discard(3 * turn)?;
            }
            let after = left(&source, &out)?;
            ensure!(after.0 == initial, "initial_bytes changed by a write");
            ensure!(after.1 >= now.1, "dirty_bytes fell by a write");
        }
    }
    equal("what is left when nothing is", left(&source, &out)?, (0, 0))?;
    // Written after all was sent: it is dirty, until it is read.
    pair.write(9)?;
    let dirty = left(&source, &out)?.1;
    ensure!(dirty > BLOCK as u64, "dirty_bytes is {dirty} after a write");
    pair.write(9)?;
    equal(
        "dirty_bytes of the same block",
        left(&source, &out)?.1,
        dirty,
    )?;
    while pump(&out, &into)? {}
    equal("what is left", left(&source, &out)?, (0, 0))?;
    // The rest goes after the stop.
    pair.write(9)?;
    pair.discard(12)?;
    source.switch(State::PreCopyP2p).named("PRE_COPY_P2P")?;
    source.switch(State::StopCopy).named("STOP_COPY")?;
    while pump(&out, &into)? {}
    drop((out, into));
    pair.other.switch(State::Running).named("RUNNING")?;
    drop(source);
    pair.arrive()
}

fn a_disk_moves_by_v1_while_it_is_written(access: Access) -> Result<()> {
    let mut pair = Pair::new(access)?;
    let device = pair.source.device.clone();
    let mut source = Client::new(Region::find(&device)?, Carrier::Steps(STEP));
    source.vm_start()?;
    source.save_setup()?;
    let mut records = Vec::new();
    let mut turn = 0;
    while source.save_pending()? > 0 {
        records.extend(source.save_iterate()?);
        turn += 1;
        if turn < 12 {
            pair.write(0)?;
            pair.write(1 + turn % 7)?;
        }
    }
    pair.write(9)?;
    pair.discard(12)?;
    source.vm_stop()?;
    records.extend(source.complete_precopy()?);
    let other = pair.other.clone();
    let destination = Client::new(Region::find(&other)?, Carrier::Steps(STEP));
    destination.load(&records)?;
    drop((device, other));
    pair.arrive()
}

fn a_disk_that_was_never_written_is_small() -> Result<()> {
    let instance = instance(PARAMETERS)?;
    let disk = Disk::new(kernel::usual_access(), &instance)?;
    let data = disk.device.start(State::StopCopy).named("STOP_COPY")?;
    let size = disk.device.data_size().named("MIG_DATA_SIZE")?;
    let all = data.read_all(STEP).named("reading")?;
    ensure!(all.len() < 4096, "{} bytes of nothing", all.len());
    ensure!(
        size >= all.len() as u64,
        "MIG_DATA_SIZE is {size}, of {} bytes",
        all.len()
    );
    drop((data, disk));
    instance.remove()
}

fn a_cancelled_migration_leaves_the_disk_as_it_is() -> Result<()> {
    let mut pair = Pair::new(kernel::usual_access())?;
    let source = pair.source.device.clone();
    for stop in [false, true] {
        let out = source.start(State::PreCopy).named("PRE_COPY")?;
        let into = pair.other.start(State::Resuming).named("RESUMING")?;
        for _ in 0..5 {
            pump(&out, &into)?;
        }
        if stop {
            source.switch(State::StopCopy).named("STOP_COPY")?;
            pump(&out, &into)?;
        }
        source.switch(State::Running).named("RUNNING")?;
        pair.other.reset().named("a reset of the destination")?;
        pair.write(5)?;
        pair.verify()?;
    }
    let Pair {
        source: disk,
        other,
        instances: [first, second],
        ..
    } = pair;
    drop((disk, source, other));
    first.remove()?;
    second.remove()
}

fn requests_that_were_not_served_are_found_at_the_other_end() -> Result<()> {
    let mut pair = Pair::new(kernel::usual_access())?;
    let source = pair.source.device.clone();
    source.switch(State::RunningP2p).named("RUNNING_P2P")?;
    let queue = pair.source.queue();
    let data = queue.data();
    let bytes = pattern(SECTOR, 4711);
    queue.memory.put(data, &bytes);
    let id = queue.add(0, OUT, 100, &[(data, SECTOR as u32, false)], true);
    queue.notify()?;
    equal("completions in RUNNING_P2P", queue.ring.take()?, None)?;
    pair.contents[100 * SECTOR..][..SECTOR].copy_from_slice(&bytes);
    let out = source.start(State::StopCopy).named("STOP_COPY")?;
    let into = pair.other.start(State::Resuming).named("RESUMING")?;
    while pump(&out, &into)? {}
    drop((out, into));
    pair.other.switch(State::Running).named("RUNNING")?;
    let queue = pair.source.queue();
    equal(
        "completions at the other end",
        queue.ring.take()?,
        Some((id, 1)),
    )?;
    equal("the answer", queue.answer(0), OK)?;
    drop(source);
    pair.arrive()
}

fn another_kind_of_disk_is_refused_at_the_setup_record() -> Result<()> {
    let instances = [instance(PARAMETERS)?, instance(&[("capacity-mib", "3")])?];
    let source = Disk::new(kernel::usual_access(), &instances[0])?;
    let other = open(kernel::usual_access(), &instances[1], &source.memory)?;
    let out = source.device.start(State::PreCopy).named("PRE_COPY")?;
    let into = other.start(State::Resuming).named("RESUMING")?;
    let setup = out.read_all(STEP).named("reading")?;
    refused(
        "the setup record",
        into.write_all(&setup, STEP),
        Errno::EINVAL,
    )?;
    let reason = instances[1].migration_error()?;
    ensure!(reason.contains("capacity-mib"), "the reason is {reason:?}");
    drop((out, into, source, other));
    let [first, second] = instances;
    first.remove()?;
    second.remove()
}

fn a_block_that_there_is_not_is_refused() -> Result<()> {
    use crate::stream_forge::{Section, Stream};
    let pair = Pair::new(kernel::usual_access())?;
    let out = pair
        .source
        .device
        .start(State::StopCopy)
        .named("STOP_COPY")?;
    let saved = Stream::parse(&out.read_all(STEP).named("reading")?)?;
    let is_block = |section: &Section| section.payload.len() == 8 + BLOCK;
    let block = saved.sections().position(is_block);
    let forged = saved.with_section(block.context("the stream has no block")?, |section| {
        section.payload[..4].copy_from_slice(&(MIB as u32 * 32).to_le_bytes());
    });
    let into = pair.other.start(State::Resuming).named("RESUMING")?;
    refused(
        "a block behind the end",
        into.write_all(&forged.encode(), STEP),
        Errno::EINVAL,
    )?;
    equal(
        "the reason",
        pair.instances[1].migration_error()?,
        "1 blocks from 64 on, of a medium that has 64".into(),
    )?;
    drop((out, into));
    pair.other.reset().named("reset")?;
    let Pair {
        source,
        other,
        instances: [first, second],
        ..
    } = pair;
    drop((source, other));
    first.remove()?;
    second.remove()
}
