// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device's own memory in a region that its user maps: what is mapped is not trapped, and moves along.

use std::os::fd::AsFd;

use anyhow::{ensure, Context};
use nix::sys::mman::MapFlags;

use super::super::check::{equal, equal_hex, refused, same_bytes, Named};
use super::super::copier::{
    driver, Copier, Status, BAR0, BAR_LENGTH, FROM_SCRATCH, MEMORY, MOST, PAGE, SCRATCH,
    SCRATCH_LENGTH, TO_SCRATCH,
};
use super::again_until;
use crate::kernel;
use crate::ktap::Suite;
use crate::stream_forge::{Record, Section, Stream};
use crate::vfio::abi::Bytes;
use crate::vfio::migration_v1::Description;
use crate::vfio::{abi, Access, Device, Errno, Mapping, State};

/// Section of a page of mapped memory: the last one that a device can have.
const SECTION: u16 = 0xfeff;

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        the_part_that_can_be_mapped_is_described,
        a_mapping_and_the_region_are_the_same_memory,
        only_the_memory_can_be_mapped,
        mapped_memory_moves_along,
        mapped_memory_outlives_the_file_and_is_nobody_elses,
    );
    tests!(
        suite,
        a_device_copies_to_and_from_its_mapped_memory,
        mapped_memory_is_whole_comes_back_and_does_not_grow,
        mapped_memory_is_zero_after_a_reset,
        mapped_memory_that_is_written_while_it_is_saved_is_a_stream_all_the_same,
        what_is_written_while_loading_is_replaced,
        pages_in_another_order_or_number_are_refused,
    );
}

/// Maps a part of BAR 0.
fn map(device: &Device, offset: u64, length: usize) -> crate::vfio::Result<Mapping> {
    let place = device.place(BAR0, offset)?;
    Mapping::of_file(device.as_fd(), place, length, MapFlags::MAP_SHARED)
}

/// Maps all of the memory of a copy engine.
pub fn map_all(device: &Device) -> anyhow::Result<Mapping> {
    map(device, SCRATCH, SCRATCH_LENGTH).named("mmap")
}

/// Bytes of which no two pages are the same, nor the same with another `seed`.
fn pattern(seed: u8) -> Vec<u8> {
    let byte = |n: usize| (n as u8).wrapping_mul(31) ^ (n >> 8) as u8 ^ seed;
    (0..SCRATCH_LENGTH).map(byte).collect()
}

/// The memory as the region reads.
fn through_the_region(device: &Device) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0xee; SCRATCH_LENGTH];
    let read = device.read(BAR0, SCRATCH, &mut bytes).named("read")?;
    equal("bytes read", read, SCRATCH_LENGTH)?;
    Ok(bytes)
}

fn the_part_that_can_be_mapped_is_described(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let region = Description::read(copier.device(), BAR0).named("BAR 0")?;
    equal("size", region.size, BAR_LENGTH)?;
    let wanted = abi::VFIO_REGION_INFO_FLAG_READ
        | abi::VFIO_REGION_INFO_FLAG_WRITE
        | abi::VFIO_REGION_INFO_FLAG_MMAP
        | abi::VFIO_REGION_INFO_FLAG_CAPS;
    equal_hex("flags", region.flags.into(), wanted.into())?;
    equal("capabilities", region.capabilities.len(), 1)?;
    let sparse = region.capabilities.first().context("no capability")?;
    equal(
        "capability",
        sparse.id,
        abi::VFIO_REGION_INFO_CAP_SPARSE_MMAP,
    )?;
    let body = Bytes::new().bytes(&sparse.body);
    equal("areas", body.word_at(0), 1)?;
    equal_hex("offset", body.long_at(8), SCRATCH)?;
    equal_hex("size", body.long_at(16), SCRATCH_LENGTH as u64)
}

fn a_mapping_and_the_region_are_the_same_memory(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let mapping = map_all(copier.device())?;
    ensure!(mapping.is_blank(), "not blank when the device is new");
    mapping.put(0, &pattern(1));
    same_bytes("the region", &through_the_region(&copier)?, &pattern(1))?;
    let last = SCRATCH_LENGTH - 8;
    for (at, len) in [(0, 1), (2, 2), (4, 4), (8, 8), (last, 8), (4090, 12)] {
        let bytes = vec![0xa0 + len as u8; len];
        let place = SCRATCH + at as u64;
        let written = copier.write(BAR0, place, &bytes).named("write")?;
        equal("bytes written", written, len)?;
        same_bytes("the mapping", &mapping.get(at, len), &bytes)?;
        let mut back = vec![0; len];
        copier.read(BAR0, place, &mut back).named("read")?;
        same_bytes("the region", &back, &bytes)?;
    }
    // A second mapping, of a part, in which others' writes show.
    let part = map(&copier, SCRATCH + 3 * PAGE, PAGE as usize).named("mmap of a page")?;
    part.put(5, b"here");
    same_bytes("all of it", &mapping.get(3 * PAGE as usize + 5, 4), b"here")?;
    // Registers lie beside it, and are trapped as before.
    copier.fill(MEMORY, &[0x5a; 16]);
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    same_bytes("the copy", &copier.at(MEMORY + PAGE, 16), &[0x5a; 16])?;
    equal("copies", copier.count()?, 1)
}

fn a_device_copies_to_and_from_its_mapped_memory() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let mapping = map_all(&copier)?;
    let length = SCRATCH_LENGTH as u32;
    copier.fill(MEMORY, &pattern(2));
    copier.copies(MEMORY, 0, length | TO_SCRATCH)?;
    same_bytes("the mapping", &mapping.get(0, SCRATCH_LENGTH), &pattern(2))?;
    // Within itself, by pages that do not overlap.
    copier.copies(0, PAGE, PAGE as u32 | FROM_SCRATCH | TO_SCRATCH)?;
    same_bytes(
        "the second page",
        &mapping.get(PAGE as usize, PAGE as usize),
        &pattern(2)[..PAGE as usize],
    )?;
    mapping.put(0, &pattern(3));
    let to = MEMORY + u64::from(MOST);
    copier.copies(0, to, length | FROM_SCRATCH)?;
    same_bytes("the memory", &copier.at(to, SCRATCH_LENGTH), &pattern(3))?;
    // What is not in it, and lengths that are none.
    let end = SCRATCH_LENGTH as u64;
    for (from, length) in [
        (end, 1),
        (end - 1, 2),
        (u64::MAX, 1),
        (u64::MAX - 3, 4),
        (0, length + 1),
        (0, MOST + 1),
        (0, 1 << 29),
    ] {
        let status = copier.copy(from, MEMORY, length | FROM_SCRATCH)?;
        equal(
            format!("{length} bytes at {from:#x}"),
            status,
            Status::Failed,
        )?;
        let status = copier.copy(MEMORY, from, length | TO_SCRATCH)?;
        equal(
            format!("{length} bytes to {from:#x}"),
            status,
            Status::Failed,
        )?;
    }
    Ok(())
}

fn only_the_memory_can_be_mapped(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let (page, all) = (PAGE as usize, SCRATCH_LENGTH);
    let end = SCRATCH + all as u64;
    for (what, offset, length) in [
        ("the registers", 0, page),
        ("the whole BAR", 0, BAR_LENGTH as usize),
        ("the registers and a page", 0, 2 * page),
        ("a page more than there is", SCRATCH, all + page),
        ("the page behind it", end, page),
        ("the last page and one more", end - PAGE, 2 * page),
        ("far behind", 1 << 30, page),
        ("a very long mapping", SCRATCH, 1 << 36),
    ] {
        refused(what, map(&copier, offset, length), Errno::EINVAL)?;
    }
    for index in (0..12).filter(|index| *index != BAR0) {
        // The place is that of the layout of all vfio devices here; region 9 is the migration region, whose second page can be mapped.
        let place = (i64::from(index) << 40) + if index == 9 { 1 << 20 } else { 4096 };
        let mapped = Mapping::of_file(copier.as_fd(), place, page, MapFlags::MAP_SHARED);
        refused(format!("region {index}"), mapped, Errno::EINVAL)?;
    }
    let place = copier.place(BAR0, SCRATCH).named("place")?;
    for length in [page, all] {
        let mapped = Mapping::of_file(copier.as_fd(), place, length, MapFlags::MAP_PRIVATE);
        refused(format!("{length} bytes of its own"), mapped, Errno::EINVAL)?;
    }
    // Nothing of that has done harm.
    ensure!(map_all(&copier)?.is_blank(), "not blank");
    Ok(())
}

fn mapped_memory_is_whole_comes_back_and_does_not_grow() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let mapping = map_all(&copier)?;
    let pages = SCRATCH_LENGTH / PAGE as usize;
    equal(
        "pages",
        mapping.present().named("mincore")?,
        vec![true; pages],
    )?;
    mapping.put(0, &pattern(4));
    for _ in 0..3 {
        mapping.forget().named("madvise")?;
        same_bytes("the mapping", &mapping.get(0, SCRATCH_LENGTH), &pattern(4))?;
    }
    let part = map(&copier, SCRATCH, PAGE as usize).named("mmap of a page")?;
    let grown = part.grow(2 * PAGE as usize);
    ensure!(
        matches!(grown, Err(Errno::EFAULT | Errno::ENOMEM | Errno::EINVAL)),
        "mremap: {grown:?}"
    );
    let (first, rest) = mapping.split(PAGE as usize);
    drop(first);
    rest.forget().named("madvise")?;
    same_bytes(
        "the rest",
        &rest.get(0, 64),
        &pattern(4)[PAGE as usize..][..64],
    )
}

fn mapped_memory_is_zero_after_a_reset() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let mapping = map_all(&copier)?;
    for state in [
        State::Running,
        State::Stop,
        State::StopCopy,
        State::Resuming,
    ] {
        mapping.put(0, &pattern(5));
        let _file = copier.move_to(state).named(format!("to {state:?}"))?;
        same_bytes(
            format!("in {state:?}"),
            &mapping.get(0, SCRATCH_LENGTH),
            &pattern(5),
        )?;
        copier.reset().named("reset")?;
        ensure!(mapping.is_blank(), "not blank after a reset in {state:?}");
    }
    Ok(())
}

/// Saves a device through pre-copy and stop, and returns the stream.
fn save(copier: &Copier, stopped: impl FnOnce()) -> anyhow::Result<Vec<u8>> {
    let most = copier.data_size().named("data size")?;
    let file = copier.start(State::PreCopy).named("to PRE_COPY")?;
    let mut stream = file.read_all(1000).named("read in PRE_COPY")?;
    let info = file.precopy_info().named("pre-copy info")?;
    equal("initial bytes", info.initial, 0)?;
    equal("dirty bytes", info.dirty, 0)?;
    // What is to come after the stop, at any time.
    equal("data size in PRE_COPY", copier.data_size(), Ok(most))?;
    copier.switch(State::StopCopy).named("to STOP_COPY")?;
    equal("data size in STOP_COPY", copier.data_size(), Ok(most))?;
    stopped();
    let rest = file.read_all(1000).named("read in STOP_COPY")?;
    equal("bytes that came", rest.len() as u64, most)?;
    stream.extend(rest);
    Ok(stream)
}

/// Loads a device; it runs afterwards.
fn load(copier: &Copier, stream: &[u8]) -> anyhow::Result<()> {
    let file = copier.start(State::Resuming).named("to RESUMING")?;
    file.write_all(stream, 1000).named("write")?;
    copier.switch(State::Running).named("to RUNNING")
}

fn mapped_memory_moves_along(access: Access) -> anyhow::Result<()> {
    let driver = driver()?;
    let source = Copier::opened(&driver, access)?;
    let destination = Copier::opened(&driver, access)?;
    let mapping = map_all(&source)?;
    mapping.put(0, &pattern(6));
    let file = source.start(State::PreCopy).named("to PRE_COPY")?;
    let mut stream = file.read_all(4096).named("read in PRE_COPY")?;
    // Written in pre-copy, which nobody sees, and the last words before the stop.
    mapping.put(0, &pattern(7));
    source.switch(State::PreCopyP2p).named("to PRE_COPY_P2P")?;
    mapping.put(100, b"last");
    source.switch(State::StopCopy).named("to STOP_COPY")?;
    stream.extend(file.read_all(999).named("read in STOP_COPY")?);
    let sections = Stream::parse(&stream)?;
    let sections = sections.sections().filter(|section| section.id == SECTION);
    equal("pages", sections.count(), SCRATCH_LENGTH / PAGE as usize)?;

    let early = map_all(&destination)?;
    load(&destination, &stream)?;
    let mut wanted = pattern(7);
    wanted[100..104].copy_from_slice(b"last");
    same_bytes("a mapping", &early.get(0, SCRATCH_LENGTH), &wanted)?;
    same_bytes("the region", &through_the_region(&destination)?, &wanted)?;
    let late = map_all(&destination)?;
    same_bytes("a later mapping", &late.get(0, SCRATCH_LENGTH), &wanted)?;
    // The source can go on, and be saved again.
    source.switch(State::Running).named("source to RUNNING")?;
    mapping.put(0, &pattern(8));
    let again = save(&source, || ())?;
    load(&destination, &again)?;
    same_bytes("a mapping", &early.get(0, SCRATCH_LENGTH), &pattern(8))
}

fn mapped_memory_outlives_the_file_and_is_nobody_elses(access: Access) -> anyhow::Result<()> {
    let driver = driver()?;
    let copier = Copier::opened(&driver, access)?;
    let mapping = map_all(&copier)?;
    let instance = copier.close();
    mapping.put(0, &pattern(9));
    mapping.forget().named("madvise")?;
    same_bytes("the mapping", &mapping.get(0, SCRATCH_LENGTH), &pattern(9))?;
    drop(mapping);
    let device = access.open(&instance)?;
    ensure!(
        map_all(&device)?.is_blank(),
        "the next user sees what was written"
    );
    ensure!(
        through_the_region(&device)?.iter().all(|byte| *byte == 0),
        "the next user reads what was written"
    );
    drop(device);
    instance.remove()?;
    Ok(())
}

fn mapped_memory_that_is_written_while_it_is_saved_is_a_stream_all_the_same() -> anyhow::Result<()>
{
    let driver = driver()?;
    let access = kernel::usual_access();
    let source = Copier::opened(&driver, access)?;
    let destination = Copier::opened(&driver, access)?;
    let (from, to) = (map_all(&source)?, map_all(&destination)?);
    let page = PAGE as usize;
    let writes = || {
        for value in [0x11, 0x22] {
            for at in (0..SCRATCH_LENGTH).step_by(page) {
                from.put(at, &vec![value; page]);
            }
        }
        Ok(())
    };
    writes()?;
    let moves = || {
        for _ in 0..5 {
            let stream = save(&source, || ())?;
            // Each checksum is that of the bytes that came.
            Stream::parse(&stream)?;
            load(&destination, &stream)?;
            let loaded = to.get(0, SCRATCH_LENGTH);
            let ours = |byte: &u8| matches!(byte, 0x11 | 0x22);
            ensure!(loaded.iter().all(ours), "bytes that nobody has written");
            source.switch(State::Running).named("source to RUNNING")?;
        }
        Ok(())
    };
    again_until(writes, moves)
}

fn what_is_written_while_loading_is_replaced() -> anyhow::Result<()> {
    let driver = driver()?;
    let access = kernel::usual_access();
    let source = Copier::opened(&driver, access)?;
    let destination = Copier::opened(&driver, access)?;
    let from = map_all(&source)?;
    from.put(0, &pattern(10));
    // What comes after the stop is the user's own business: of what was read, nothing changes.
    let stream = save(&source, || from.put(0, b"still"))?;
    let to = map_all(&destination)?;
    let file = destination.start(State::Resuming).named("to RESUMING")?;
    file.write_all(&stream, 4096).named("write")?;
    ensure!(to.is_blank(), "there before it is all there");
    to.put(0, &pattern(11));
    same_bytes(
        "the region",
        &through_the_region(&destination)?,
        &pattern(11),
    )?;
    destination.switch(State::Stop).named("to STOP")?;
    let mut wanted = pattern(10);
    wanted[..5].copy_from_slice(b"still");
    same_bytes("the memory", &to.get(0, SCRATCH_LENGTH), &wanted)
}

fn pages_in_another_order_or_number_are_refused() -> anyhow::Result<()> {
    let driver = driver()?;
    let access = kernel::usual_access();
    let source = Copier::opened(&driver, access)?;
    let destination = Copier::opened(&driver, access)?;
    map_all(&source)?.put(0, &pattern(12));
    let stream = save(&source, || ())?;
    let good = Stream::parse(&stream)?;
    let mine = map_all(&destination)?;
    mine.put(0, &pattern(13));

    let is_page =
        |record: &Record| matches!(record, Record::Section(section) if section.id == SECTION);
    let first = good.records.iter().position(is_page).context("no page")?;
    let last = good.records.iter().rposition(is_page).context("no page")?;
    let page = |number: u32, length: usize| {
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(4 + length, 0x66);
        Record::Section(Section::new(SECTION, 1, &payload))
    };
    let count = (last - first + 1) as u32;
    let (whole, swapped) = (PAGE as usize, {
        let mut swapped = good.clone();
        swapped.records.swap(first, first + 1);
        swapped
    });
    let replaced = |number: u32, length: usize| {
        let cut = good.without_record(first);
        cut.with_record(first, page(number, length))
    };
    for (what, stream, errno) in [
        ("two pages swapped", swapped, Errno::EINVAL),
        (
            "the first missing",
            good.without_record(first),
            Errno::EINVAL,
        ),
        ("the last missing", good.without_record(last), Errno::EINVAL),
        (
            "one twice",
            good.with_record(first + 1, page(0, whole)),
            Errno::EINVAL,
        ),
        (
            "one too many",
            good.with_record(last + 1, page(count, whole)),
            Errno::EINVAL,
        ),
        ("a number far off", replaced(u32::MAX, whole), Errno::EINVAL),
        ("a short one", replaced(0, whole - 1), Errno::EINVAL),
        ("an empty one", replaced(0, 0), Errno::EINVAL),
        ("a long one", replaced(0, whole + 1), Errno::ENOMEM),
    ] {
        let file = destination.start(State::Resuming).named("to RESUMING")?;
        refused(what, file.write_all(&stream.encode(), 4096), errno)?;
        let reason = destination.instance.migration_error()?;
        ensure!(!reason.trim().is_empty(), "{what}: no reason");
        refused(what, destination.switch(State::Stop), Errno::EINVAL)?;
        same_bytes(what, &mine.get(0, SCRATCH_LENGTH), &pattern(13))?;
        drop(file);
        destination.reset().named("reset")?;
        mine.put(0, &pattern(13));
    }
    load(&destination, &stream)?;
    same_bytes("the good one", &mine.get(0, SCRATCH_LENGTH), &pattern(12))
}
