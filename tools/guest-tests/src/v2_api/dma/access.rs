// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a device reads and writes of its user's memory, and what it cannot.

use std::sync::Arc;

use super::super::check::{equal, same_bytes, Named};
use super::super::copier::{driver, Copier, Status, LENGTH, MEMORY, MOST, PAGE};
use super::again_until;
use crate::ktap::Suite;
use crate::vfio::migration_v1::Region;
use crate::vfio::{Access, Dma, Mapping};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        a_device_copies_memory_of_any_length_from_and_to_anywhere,
        a_device_copies_over_the_border_of_two_mappings,
        memory_that_is_not_mapped_is_not_accessed,
        memory_that_is_mapped_for_reading_is_not_written,
        memory_behind_the_end_of_the_address_space_is_not_accessed,
        hostile_50_memory_is_unmapped_while_it_is_accessed,
        a_device_may_write_to_the_data_section_of_its_own_migration_region,
    );
}

/// Bytes of which no two pages have the same.
fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut value = seed | 1;
    let mut next = || {
        value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (value >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn a_device_copies_memory_of_any_length_from_and_to_anywhere(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let half = MEMORY + LENGTH / 2;
    let mut expected = 0;
    for (from, to, length) in [
        (0, 0, 1),
        (PAGE - 1, 3, 2),
        (17, PAGE - 5, 4096),
        (1, 2, 4097),
        (0, 0, MOST),
        (PAGE / 2, PAGE / 4, MOST),
        (0, 0, 0),
    ] {
        let bytes = pattern(LENGTH as usize / 2, length ^ 0x5a5a);
        copier.fill(MEMORY, &bytes);
        copier.fill(half, &vec![0xee; LENGTH as usize / 2]);
        copier.copies(MEMORY + from, half + to, length)?;
        let mut wanted = vec![0xee; LENGTH as usize / 2];
        let (from, to, length) = (from as usize, to as usize, length as usize);
        wanted[to..to + length].copy_from_slice(&bytes[from..from + length]);
        same_bytes(
            format!("after {length} bytes"),
            &copier.at(half, wanted.len()),
            &wanted,
        )?;
        same_bytes("the source", &copier.at(MEMORY, bytes.len()), &bytes)?;
        expected += 1;
        equal("copies", copier.count()?, expected)?;
    }
    equal(
        "more than it copies at once",
        copier.copy(MEMORY, half, MOST + 1)?,
        Status::Failed,
    )
}

fn a_device_copies_over_the_border_of_two_mappings(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let behind = Arc::new(Mapping::of_memory(PAGE as usize).named("memory")?);
    copier
        .map_dma(MEMORY + LENGTH, &behind, Dma::ReadWrite)
        .named("more memory")?;
    let bytes = pattern(200, 7);
    copier.fill(MEMORY, &bytes);
    copier.copies(MEMORY, MEMORY + LENGTH - 100, 200)?;
    same_bytes(
        "before the border",
        &copier.at(MEMORY + LENGTH - 100, 100),
        &bytes[..100],
    )?;
    same_bytes("behind it", &behind.get(0, 100), &bytes[100..])
}

fn memory_that_is_not_mapped_is_not_accessed(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let nowhere = MEMORY + LENGTH;
    for (from, to) in [
        (nowhere, MEMORY),
        (MEMORY, nowhere),
        (0, MEMORY),
        (MEMORY, 0),
        (MEMORY, MEMORY - 8),
        (MEMORY - 8, MEMORY),
    ] {
        copier.fill(MEMORY, &[0x11; 64]);
        let status = copier.copy(from, to, 16)?;
        equal(format!("{from:#x} to {to:#x}"), status, Status::Failed)?;
        same_bytes(
            format!("behind what was not copied from {from:#x} to {to:#x}"),
            &copier.at(MEMORY + 16, 48),
            &[0x11; 48],
        )?;
    }
    // It goes on with what is there.
    copier.copies(MEMORY, MEMORY + PAGE, 64)
}

fn memory_that_is_mapped_for_reading_is_not_written(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let memory = Arc::new(Mapping::of_memory(PAGE as usize).named("memory")?);
    memory.put(0, &[0x22; 16]);
    let at = MEMORY + 2 * LENGTH;
    copier
        .map_dma(at, &memory, Dma::Read)
        .named("memory to be read")?;
    copier.copies(at, MEMORY, 16)?;
    same_bytes("what was read", &copier.at(MEMORY, 16), &[0x22; 16])?;
    copier.fill(MEMORY, &[0x33; 16]);
    equal("a write", copier.copy(MEMORY, at, 16)?, Status::Failed)?;
    same_bytes("the memory", &memory.get(0, 16), &[0x22; 16])
}

fn memory_behind_the_end_of_the_address_space_is_not_accessed(
    access: Access,
) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    for at in [u64::MAX, u64::MAX - 7, u64::MAX - 15, u64::MAX - 4096] {
        for length in [16, 64, MOST] {
            equal(
                format!("{length} bytes from {at:#x}"),
                copier.copy(at, MEMORY, length)?,
                Status::Failed,
            )?;
            equal(
                format!("{length} bytes to {at:#x}"),
                copier.copy(MEMORY, at, length)?,
                Status::Failed,
            )?;
        }
    }
    Ok(())
}

/// Rounds of unmapping.
const ROUNDS: usize = 200;

fn hostile_50_memory_is_unmapped_while_it_is_accessed(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let at = MEMORY + 2 * LENGTH;
    let memory = Arc::new(Mapping::of_memory(MOST as usize).named("memory")?);
    copier.fill(MEMORY, &vec![0xaa; MOST as usize]);
    copier.aim(MEMORY, at, MOST)?;
    let rounds = || {
        for round in 0..ROUNDS {
            copier
                .map_dma(at, &memory, Dma::ReadWrite)
                .named(format!("map {round}"))?;
            copier.await_copies(2)?;
            copier.unmap_dma(at).named(format!("unmap {round}"))?;
            // Nobody writes there any longer, however many copies are asked for.
            memory.put(0, &[0x55; 64]);
            memory.put(MOST as usize - 64, &[0x55; 64]);
            copier.await_copies(2)?;
            for start in [0, MOST as usize - 64] {
                same_bytes("unmapped memory", &memory.get(start, 64), &[0x55; 64])?;
            }
        }
        Ok(())
    };
    again_until(|| copier.ask(), rounds)
}

/// The pages are this device's own, and a fault there is served by its driver while it copies.
fn a_device_may_write_to_the_data_section_of_its_own_migration_region(
    access: Access,
) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let region = Region::find(copier.device())?;
    let section = Arc::new(Mapping::of_data(&region).named("mmap")?);
    let at = MEMORY + 2 * LENGTH;
    copier
        .map_dma(at, &section, Dma::ReadWrite)
        .named("the section as memory of the device")?;
    copier.fill(MEMORY, &[0x77; 300]);
    copier.copies(MEMORY, at + PAGE - 100, 300)?;
    same_bytes(
        "the section",
        &section.get(PAGE as usize - 100, 300),
        &[0x77; 300],
    )?;
    copier.copies(at + PAGE - 100, MEMORY + PAGE, 300)?;
    same_bytes("the memory", &copier.at(MEMORY + PAGE, 300), &[0x77; 300])
}
