// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Requests, from the guest's memory to the medium and back.

use anyhow::Result;

use super::disk::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::mdev::MdevType;
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::vfio::Access;

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        what_was_written_is_read,
        every_kind_of_request_is_answered,
    );
    tests!(
        suite,
        a_read_only_disk_changes_nothing,
        memory_that_is_not_mapped_is_an_error_of_the_request,
        a_reset_keeps_the_medium_and_closing_does_not,
        capacity_is_charged_by_the_mib,
    );
}

fn what_was_written_is_read(access: Access) -> Result<()> {
    let instance = instance(&[("capacity-mib", "4"), ("queue-size", "16")])?;
    let mut disk = Disk::new(access, &instance)?;
    equal("the capacity", disk.capacity()?, 4 << 20)?;
    let queue = disk.queue();
    let data = queue.data();
    // More laps than one, across the border of two blocks, in pieces that no sector begins or ends with.
    for turn in 0..40u64 {
        let sector = 60 + turn * 3;
        let bytes = pattern(8 * SECTOR, turn);
        queue.memory.put(data, &bytes);
        let pieces = |writes| {
            [
                (data, 1, writes),
                (data + 1, 3000, writes),
                (data + 3001, 1095, writes),
            ]
        };
        let answer = queue.request(OUT, sector, &pieces(false), turn % 2 == 0)?;
        equal("the answer to a write", answer, (1, OK))?;
        queue.memory.put(data, &vec![0; bytes.len()]);
        let answer = queue.request(IN, sector, &pieces(true), turn % 3 == 0)?;
        equal("the answer to a read", answer, (4097, OK))?;
        same_bytes(
            "what was read",
            &queue.memory.get(data, bytes.len()),
            &bytes,
        )?;
    }
    // What was never written is zero, also beside what was.
    same_bytes("before", &queue.read(59, SECTOR)?, &[0; SECTOR])?;
    same_bytes(
        "behind",
        &queue.read(60 + 39 * 3 + 8, SECTOR)?,
        &[0; SECTOR],
    )?;
    // As much as a buffer may have, at the end of the medium.
    let most = pattern(64 * 1024, 99);
    let last = ((4 << 20) - most.len()) / SECTOR;
    queue.write(last as u64, &most)?;
    same_bytes("the end", &queue.read(last as u64, most.len())?, &most)?;
    drop(disk);
    instance.remove()
}

fn every_kind_of_request_is_answered(access: Access) -> Result<()> {
    let instance = instance(&[("capacity-mib", "1"), ("write-zeroes", "on")])?;
    let mut disk = Disk::new(access, &instance)?;
    let queue = disk.queue();
    let data = queue.data();
    equal("flush", queue.request(FLUSH, 0, &[], false)?, (1, OK))?;
    queue.memory.put(data, &[0xff; 20]);
    equal(
        "get ID",
        queue.request(GET_ID, 0, &[(data, 20, true)], true)?,
        (21, OK),
    )?;
    // It has no serial number.
    same_bytes("the ID", &queue.memory.get(data, 20), &[0; 20])?;
    equal(
        "what is unknown",
        queue.request(99, 0, &[], false)?.1,
        UNSUPP,
    )?;
    let end = (1 << 20) / SECTOR as u64;
    for (what, sector) in [("beyond the end", end), ("far beyond", u64::MAX)] {
        equal(
            what,
            queue.request(IN, sector, &[(data, 512, true)], false)?.1,
            IOERR,
        )?;
    }
    for (kind, flags) in [(DISCARD, 0u32), (WRITE_ZEROES, 0), (WRITE_ZEROES, 1)] {
        let bytes = pattern(2 * BLOCK, kind.into());
        queue.write(0, &bytes)?;
        // All but the first and the last sector.
        let mut range = 1u64.to_le_bytes().to_vec();
        range.extend((2 * BLOCK as u32 / 512 - 2).to_le_bytes());
        range.extend(flags.to_le_bytes());
        queue.memory.put(data, &range);
        equal(
            "zeroing",
            queue.request(kind, 0, &[(data, 16, false)], false)?,
            (1, OK),
        )?;
        let mut wanted = bytes;
        let inner = SECTOR..2 * BLOCK - SECTOR;
        wanted[inner].fill(0);
        same_bytes("what is left", &queue.read(0, 2 * BLOCK)?, &wanted)?;
    }
    equal("the status", status(&disk.device)?, READY)?;
    drop(disk);
    instance.remove()
}

fn a_read_only_disk_changes_nothing() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1"), ("read-only", "on")])?;
    let refused = instance.set_attribute("migration/write-zeroes", "on");
    equal(
        "write-zeroes of a read-only disk",
        refused.map_err(|error| error.raw_os_error()),
        Err(Some(libc::EINVAL)),
    )?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let queue = disk.queue();
    let data = queue.data();
    equal(
        "a write",
        queue.request(OUT, 0, &[(data, 512, false)], false)?,
        (1, IOERR),
    )?;
    same_bytes("the medium", &queue.read(0, SECTOR)?, &[0; SECTOR])?;
    drop(disk);
    instance.remove()
}

fn memory_that_is_not_mapped_is_an_error_of_the_request() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let queue = disk.queue();
    // The memory ends there.
    let answer = queue.request(IN, 0, &[(MEMORY - 512, 1024, true)], false)?;
    equal("a read to nowhere", answer.1, IOERR)?;
    let answer = queue.request(OUT, 0, &[(MEMORY, 512, false)], false)?;
    equal("a write from nowhere", answer.1, IOERR)?;
    equal(
        "the one after",
        queue.request(FLUSH, 0, &[], false)?,
        (1, OK),
    )?;
    drop(disk);
    instance.remove()
}

fn a_reset_keeps_the_medium_and_closing_does_not() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let bytes = pattern(SECTOR, 1);
    disk.queue().write(5, &bytes)?;
    // A reset is that of the registers, whether a driver asks for it or the user.
    disk.start()?;
    same_bytes(
        "after a driver's reset",
        &disk.queue().read(5, SECTOR)?,
        &bytes,
    )?;
    disk.device.reset().named("VFIO_DEVICE_RESET")?;
    disk.start()?;
    same_bytes("after a user's", &disk.queue().read(5, SECTOR)?, &bytes)?;
    drop(disk);
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    same_bytes(
        "when opened again",
        &disk.queue().read(5, SECTOR)?,
        &[0; SECTOR],
    )?;
    drop(disk);
    instance.remove()
}

fn capacity_is_charged_by_the_mib() -> Result<()> {
    let free = |name: &str| -> Result<u32> { MdevType::find(name)?.available_instances() };
    let before = (free("mdev_blk-64M")?, free("mdev_blk-256M")?);
    equal("what is free", before, (16, 4))?;
    let instance = instance(&[("capacity-mib", "961")])?;
    let after = (free("mdev_blk-64M")?, free("mdev_blk-256M")?);
    equal("what is free beside 961 MiB", after, (0, 0))?;
    let refused = instance.set_attribute("migration/capacity-mib", "1025");
    equal(
        "more than there is",
        refused.map_err(|error| error.raw_os_error()),
        Err(Some(libc::ENOSPC)),
    )?;
    instance.set_attribute("migration/capacity-mib", "960")?;
    equal("what is free beside 960 MiB", free("mdev_blk-64M")?, 1)?;
    instance.remove()
}
