// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Mappings of the data section.

use std::os::fd::AsFd;

use nix::sys::mman::MapFlags;

use super::bench::*;
use super::client::{Carrier, Client};
use super::mapping::Mapping;
use super::region::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::card::{Card, BAR0};
use crate::v2_api::check::{equal, refused, same_bytes, Named};
use crate::vfio::{Access, Errno, State};

/// Bytes in a page of x86.
const PAGE: u64 = 4096;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_mapping_shows_what_the_region_reads,
        a_part_of_the_data_section_can_be_mapped,
        a_mapping_is_whole_from_the_start,
        the_parts_of_a_mapping_outlive_each_other,
        a_mapping_is_blank_outside_a_session,
        a_mapping_is_blank_in_a_session_of_v2,
        a_mapping_outlives_sessions_and_resets,
        a_mapping_outlives_the_file_it_was_made_of,
        pages_that_were_forgotten_come_back,
        a_private_mapping_is_refused,
        only_the_data_section_can_be_mapped,
        a_mapping_cannot_grow,
        a_mapping_shows_nothing_of_an_earlier_user,
        a_forked_child_sees_the_same_data_section,
    );
}

/// Offers the first piece of a stopped device and returns its length.
fn offer(region: &Region<'_>) -> anyhow::Result<usize> {
    region.set_state(SAVING).named("to SAVING")?;
    equal("data_offset", region.data_offset(), Ok(region.data.offset))?;
    Ok(region.data_size().named("data_size")? as usize)
}

fn a_mapping_shows_what_the_region_reads() -> anyhow::Result<()> {
    let card = filled(2)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    let size = offer(&region)?;
    let read = region.get(region.data.offset, size).named("the piece")?;
    same_bytes("the mapping", &mapping.get(0, size), &read)?;
    // And a second one, made when the piece was there.
    let late = Mapping::of_data(&region).named("mmap")?;
    same_bytes("a later mapping", &late.get(0, size), &read)
}

fn a_part_of_the_data_section_can_be_mapped() -> anyhow::Result<()> {
    let (source, card) = (filled(4)?, card(4)?);
    let state = save_stopped(&Region::find(&source)?)?;
    let region = Region::find(&card)?;
    let Area { offset, size } = region.data;
    let last = Mapping::new(
        &region,
        offset + size - PAGE,
        PAGE as usize,
        MapFlags::MAP_SHARED,
    )
    .named("mmap of the last page")?;
    let second = Mapping::new(&region, offset + PAGE, PAGE as usize, MapFlags::MAP_SHARED)
        .named("mmap of the second page")?;
    let all = Mapping::of_data(&region).named("mmap of all")?;
    reach(&region, RESUMING)?;
    // Each mapping shows its own part.
    all.put(PAGE as usize, b"second");
    all.put((size - PAGE) as usize, b"last");
    equal("second page", second.get(0, 6), b"second".to_vec())?;
    equal("last page", last.get(0, 4), b"last".to_vec())?;
    region
        .put(offset + PAGE, b"again!")
        .named("write of the second page")?;
    equal("second page", second.get(0, 6), b"again!".to_vec())?;
    // The rest of the section is no part of a piece.
    all.put(0, &state);
    region
        .set_data_size(state.len() as u64)
        .named("data_size")?;
    region.set_state(RUNNING).named("to RUNNING")?;
    has_content(&card, 0x41)
}

/// No fault has to be served later, by whoever holds what at that time.
fn a_mapping_is_whole_from_the_start() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    let pages = (region.data.size / PAGE) as usize;
    equal(
        "pages that are mapped",
        mapping.present().named("mincore")?,
        vec![true; pages],
    )?;
    mapping.forget().named("madvise")?;
    equal(
        "pages that are mapped after they were forgotten",
        mapping.present().named("mincore")?,
        vec![false; pages],
    )
}

fn the_parts_of_a_mapping_outlive_each_other() -> anyhow::Result<()> {
    for access in kernel::accesses() {
        let card = Card::opened(1, access)?;
        let region = Region::find(&card)?;
        let all = Mapping::of_data(&region).named("mmap")?;
        let marks = [0, 1, 2, 15].map(|page| (page, page * PAGE as usize + 7));
        for (page, place) in marks {
            all.put(place, &[page as u8 + 1]);
        }
        let instance = card.close();
        let (first, rest) = all.split(PAGE as usize);
        let (second, rest) = rest.split(PAGE as usize);
        let (third, last) = rest.split(PAGE as usize);
        // The middle goes first, then what was mapped first; what is left comes back by faults.
        drop(second);
        drop(first);
        for (part, page, base) in [(&third, 2, 2), (&last, 15, 3)] {
            part.forget().named("madvise")?;
            let place = (page - base) * PAGE as usize + 7;
            equal(
                format!("mark of page {page}"),
                part.get(place, 1),
                vec![page as u8 + 1],
            )?;
        }
        drop(last);
        third.forget().named("madvise")?;
        equal("mark of page 2", third.get(7, 1), vec![3])?;
        drop(third);
        let device = access.open(&instance)?;
        drop(device);
        instance.remove()?;
    }
    Ok(())
}

fn a_mapping_is_blank_outside_a_session() -> anyhow::Result<()> {
    let (card, source) = (filled(1)?, filled(1)?);
    let state = save_stopped(&Region::find(&source)?)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    anyhow::ensure!(mapping.is_blank(), "not blank in a new card");
    for start in [SAVING, PRE_COPY] {
        region.set_state(start).named("start")?;
        let size = region.data_size().named("data_size")? as usize;
        anyhow::ensure!(!mapping.is_blank(), "blank with {size} bytes on offer");
        region.set_state(RUNNING).named("to RUNNING")?;
        anyhow::ensure!(mapping.is_blank(), "not blank after {} ended", name(start));
    }
    offer(&region)?;
    region.set_state(STOP).named("to STOP")?;
    anyhow::ensure!(mapping.is_blank(), "not blank in STOP");
    region.set_state(RESUMING).named("to RESUMING")?;
    mapping.put(0, &state);
    region
        .set_data_size(state.len() as u64)
        .named("data_size")?;
    region.set_state(RUNNING).named("to RUNNING")?;
    anyhow::ensure!(mapping.is_blank(), "not blank after RESUMING");
    // What a user writes outside a session is not a secret of the device, and nothing of it gets into a session.
    mapping.put(100, b"mine");
    region.set_state(RESUMING).named("to RESUMING")?;
    anyhow::ensure!(mapping.is_blank(), "what was written before is still there");
    Ok(())
}

fn a_mapping_is_blank_in_a_session_of_v2() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    data.read_all(64).named("read")?;
    offers_nothing("PRE_COPY by v2", &region)?;
    anyhow::ensure!(mapping.is_blank(), "not blank in PRE_COPY");
    card.switch(State::StopCopy).named("to STOP_COPY")?;
    let state = data.read_all(64).named("read")?;
    offers_nothing("STOP_COPY by v2", &region)?;
    anyhow::ensure!(mapping.is_blank(), "not blank in STOP_COPY");
    card.switch(State::Stop).named("to STOP")?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    data.write_all(&state, 64).named("write")?;
    refused(
        "data by v1",
        region.put(region.data.offset, &state),
        Errno::EINVAL,
    )?;
    refused("data_size by v1", region.set_data_size(8), Errno::EINVAL)?;
    anyhow::ensure!(mapping.is_blank(), "not blank in RESUMING");
    card.switch(State::Running).named("to RUNNING")?;
    has_content(&card, 0x41)
}

fn a_mapping_outlives_sessions_and_resets() -> anyhow::Result<()> {
    let (source, card) = (filled(1)?, card(1)?);
    let (from, to) = (Region::find(&source)?, Region::find(&card)?);
    let (out, into) = (
        Mapping::of_data(&from).named("mmap")?,
        Mapping::of_data(&to).named("mmap")?,
    );
    for turn in 0..5 {
        let records = Client::new(from, Carrier::Map(&out)).save_live()?;
        Client::new(to, Carrier::Map(&into)).load(&records)?;
        from.set_state(RUNNING).named("source to RUNNING")?;
        anyhow::ensure!(
            out.is_blank() && into.is_blank(),
            "not blank after turn {turn}"
        );
        offer(&from)?;
        source.reset().named("reset")?;
        anyhow::ensure!(out.is_blank(), "not blank after a reset");
        fill(&source, 0x41)?;
    }
    has_content(&card, 0x41)
}

fn a_mapping_outlives_the_file_it_was_made_of() -> anyhow::Result<()> {
    for access in kernel::accesses() {
        let card = Card::opened(1, access)?;
        let region = Region::find(&card)?;
        let mapping = Mapping::of_data(&region).named("mmap")?;
        offer(&region)?;
        let instance = card.close();
        mapping.get(0, 4096);
        mapping.put(60_000, b"still there");
        equal(
            "what was written",
            mapping.get(60_000, 11),
            b"still there".to_vec(),
        )?;
        mapping.forget().named("madvise")?;
        equal(
            "what was written, from a new fault",
            mapping.get(60_000, 11),
            b"still there".to_vec(),
        )?;
        drop(mapping);
        // Now the device is closed, and the next user finds it as new.
        let device = access.open(&instance)?;
        let region = Region::find(&device)?;
        equal("state", region.state(), Ok(RUNNING))?;
        let mapping = Mapping::of_data(&region).named("mmap")?;
        anyhow::ensure!(mapping.is_blank(), "the next user sees what was written");
        drop(mapping);
        drop(device);
        instance.remove()?;
    }
    Ok(())
}

fn pages_that_were_forgotten_come_back() -> anyhow::Result<()> {
    let card = filled(2)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    let size = offer(&region)?;
    let read = region.get(region.data.offset, size).named("the piece")?;
    for _ in 0..3 {
        mapping.forget().named("madvise")?;
        same_bytes("the mapping", &mapping.get(0, size), &read)?;
    }
    region.set_state(RUNNING).named("to RUNNING")?;
    mapping.forget().named("madvise")?;
    anyhow::ensure!(mapping.is_blank(), "not blank outside a session");
    Ok(())
}

fn a_private_mapping_is_refused() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for length in [PAGE, region.data.size] {
        refused(
            format!("a private mapping of {length} bytes"),
            Mapping::new(
                &region,
                region.data.offset,
                length as usize,
                MapFlags::MAP_PRIVATE,
            ),
            Errno::EINVAL,
        )?;
    }
    Ok(())
}

/// Maps a page of the device's file.
fn map_page(card: &Card, place: u64) -> crate::vfio::Result<Mapping> {
    Mapping::of_file(
        card.as_fd(),
        place as i64,
        PAGE as usize,
        MapFlags::MAP_SHARED,
    )
}

fn only_the_data_section_can_be_mapped() -> anyhow::Result<()> {
    let card = card(4)?;
    let region = Region::find(&card)?;
    let Area { offset, size } = region.data;
    let all = region.size as usize;
    for (what, place, length) in [
        ("the header", 0, PAGE as usize),
        ("the whole region", 0, all),
        (
            "the page before the data section and it",
            offset - PAGE,
            (size + PAGE) as usize,
        ),
        (
            "a page more than the data section",
            offset,
            (size + PAGE) as usize,
        ),
        ("the page behind it", offset + size, PAGE as usize),
        (
            "the last page and one more",
            offset + size - PAGE,
            2 * PAGE as usize,
        ),
        ("far behind", 1 << 30, PAGE as usize),
        ("a very long mapping", offset, 1 << 36),
    ] {
        refused(
            what,
            Mapping::new(&region, place, length, MapFlags::MAP_SHARED),
            Errno::EINVAL,
        )?;
    }
    // Other regions, and what is behind the last.
    let count = card.info().named("VFIO_DEVICE_GET_INFO")?.regions;
    for index in (0..count).filter(|index| *index != region.index) {
        let Ok(other) = card.region(index) else {
            continue;
        };
        refused(
            format!("region {index}"),
            map_page(&card, other.offset),
            Errno::EINVAL,
        )?;
    }
    let behind = region.start + (region.start - card.region(BAR0).named("BAR 0")?.offset);
    refused(
        "behind the last region",
        map_page(&card, behind),
        Errno::EINVAL,
    )?;
    equal("state", region.state(), Ok(RUNNING))
}

fn a_mapping_cannot_grow() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::new(
        &region,
        region.data.offset,
        PAGE as usize,
        MapFlags::MAP_SHARED,
    )
    .named("mmap of a page")?;
    let grown = mapping.grow(region.data.size as usize + PAGE as usize);
    anyhow::ensure!(
        matches!(grown, Err(Errno::EFAULT | Errno::ENOMEM | Errno::EINVAL)),
        "mremap: {grown:?}"
    );
    anyhow::ensure!(mapping.is_blank(), "the mapping has changed");
    Ok(())
}

fn a_mapping_shows_nothing_of_an_earlier_user() -> anyhow::Result<()> {
    let card = filled(1)?;
    {
        let region = Region::find(&card)?;
        let mapping = Mapping::of_data(&region).named("mmap")?;
        mapping.put(0, &[0x5a; 65536]);
        offer(&region)?;
    }
    let card = card.reopen(Access::Group)?;
    let mapping = Mapping::of_data(&Region::find(&card)?).named("mmap")?;
    anyhow::ensure!(mapping.is_blank(), "not blank after close and open");
    Ok(())
}

fn a_forked_child_sees_the_same_data_section() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    offer(&region)?;
    let wanted = mapping.get(0, 8);
    mapping.forget().named("madvise")?;
    // A kernel that writes for the child: it faults in the child's memory. No memory is allocated between fork and exit.
    let pipe = nix::unistd::pipe()?;
    // SAFETY: The child makes only async-signal-safe calls: write and _exit.
    match unsafe { libc::fork() } {
        0 => {
            let done = mapping.write_to(pipe.1.as_fd(), 8, None);
            // SAFETY: Ends the child without running anything of the parent's.
            unsafe { libc::_exit(i32::from(done != Ok(8))) }
        }
        child => {
            Errno::result(child).named("fork")?;
            let mut status = 0;
            // SAFETY: The status is a variable of ours.
            Errno::result(unsafe { libc::waitpid(child, &mut status, 0) }).named("waitpid")?;
            equal("status of the child", status, 0)?;
            let mut got = [0; 8];
            equal(
                "bytes of the child",
                nix::unistd::read(&pipe.0, &mut got),
                Ok(8),
            )?;
            same_bytes("what the child saw", &got, &wanted)
        }
    }
}
