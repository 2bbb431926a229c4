// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Cases 11, 12 and 14 to 18 of version 1, and 40 of version 2: what is handed in, and how sessions end.

use std::os::fd::AsFd;

use super::super::bench::*;
use super::super::client::{stream, Carrier, Client};
use super::super::mapping::Mapping;
use super::super::region::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, refused, same_bytes, Named};
use crate::v2_api::uart::{LSR, LSR_DATA, SCR};
use crate::vfio::{abi, Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_11_a_data_size_beyond_the_section_is_refused,
        hostile_11_data_and_its_size_are_written_only_while_resuming,
        hostile_12_a_size_without_data_hands_in_zeroes,
        hostile_14_a_truncated_state_cannot_run,
        hostile_15_a_state_change_drops_the_piece,
        hostile_15_a_state_change_drops_what_was_written,
        hostile_16_close_ends_a_session_in_every_state,
        hostile_17_reset_ends_a_session_in_every_state,
        hostile_18_a_mapping_is_never_revoked,
        hostile_18_what_a_stale_mapping_writes_is_not_taken,
        hostile_40_buffers_in_a_mapping_of_the_device,
    );
}

fn hostile_11_a_data_size_beyond_the_section_is_refused() -> anyhow::Result<()> {
    let (source, card) = (filled(1)?, card(1)?);
    let state = save_stopped(&Region::find(&source)?)?;
    let region = Region::find(&card)?;
    region.set_state(RESUMING).named("to RESUMING")?;
    region.put(region.data.offset, &state).named("data")?;
    let most = region.data.size;
    for size in [
        most + 1,
        region.size,
        1 << 32,
        1 << 63,
        (1 << 32) | 8,
        u64::MAX,
    ] {
        refused(
            format!("data_size {size:#x}"),
            region.set_data_size(size),
            Errno::EINVAL,
        )?;
        equal("state", region.state(), Ok(RESUMING))?;
    }
    // Nothing was taken, so the stream is still whole.
    region.set_data_size(0).named("data_size 0")?;
    region
        .set_data_size(state.len() as u64)
        .named("data_size")?;
    region.set_state(RUNNING).named("to RUNNING")?;
    has_content(&card, 0x41)
}

fn hostile_11_data_and_its_size_are_written_only_while_resuming() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    for state in [STOP, RUNNING, SAVING, PRE_COPY] {
        reach(&region, state)?;
        let what = name(state);
        for size in [0, 1, 8, region.data.size, u64::MAX] {
            refused(
                format!("data_size {size} in {what}"),
                region.set_data_size(size),
                Errno::EINVAL,
            )?;
        }
        for place in [region.data.offset, region.size - 8] {
            refused(
                format!("data at {place:#x} in {what}"),
                region.write(place, &[1; 8]),
                Errno::EINVAL,
            )?;
        }
        equal("state", region.state(), Ok(state))?;
        region.set_state(RUNNING).named("to RUNNING")?;
    }
    reach(&region, RESUMING)?;
    for (what, place, length) in [
        ("before the data section", region.data.offset - 8, 8),
        ("across its start", region.data.offset - 4, 8),
        ("behind the header", HEADER, 8),
        ("across the end of the header", HEADER - 8, 16),
    ] {
        refused(what, region.write(place, &vec![1; length]), Errno::EINVAL)?;
    }
    // A write past the region's end is cut there.
    equal(
        "across the end of the region",
        region.write(region.size - 4, &[1; 8]),
        Ok(4),
    )?;
    refused(
        "data read while resuming",
        region.get(region.data.offset, 8),
        Errno::EINVAL,
    )?;
    card.reset().named("reset")?;
    works(&card)
}

fn hostile_12_a_size_without_data_hands_in_zeroes() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    // Fill the section with a state, by an earlier session in each direction.
    let state = save_stopped(&region)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    Client::new(region, Carrier::Words).load(&[state.clone()])?;
    for size in [state.len() as u64, 1, 64, region.data.size] {
        region.set_state(RESUMING).named("to RESUMING")?;
        anyhow::ensure!(
            mapping.is_blank(),
            "the section is not blank in a new session"
        );
        // A state from before would be taken; zeroes are no record.
        let result = region.set_data_size(size);
        match size {
            // Not enough to be judged.
            1 => anyhow::ensure!(
                matches!(result, Ok(()) | Err(Errno::EINVAL)),
                "one byte: {result:?}"
            ),
            _ => refused(format!("{size} bytes"), result, Errno::EINVAL)?,
        }
        refused("100 -> 001", region.set_state(RUNNING), Errno::EINVAL)?;
        equal("state", region.state(), Ok(RESUMING))?;
        card.reset().named("reset")?;
    }
    works(&card)
}

fn hostile_14_a_truncated_state_cannot_run() -> anyhow::Result<()> {
    let (source, card) = (filled(1)?, card(1)?);
    let state = stream(&save_live(&Region::find(&source)?)?);
    let region = Region::find(&card)?;
    for length in [
        0,
        1,
        8,
        100,
        state.len() / 2,
        state.len() - 12,
        state.len() - 1,
    ] {
        let before = card.plain_registers()?;
        region.set_state(RESUMING).named("to RESUMING")?;
        let client = Client::new(region, Carrier::Words);
        client
            .load_record(&state[..length])?
            .named(format!("{length} bytes"))?;
        for _ in 0..2 {
            refused(
                format!("100 -> 001 after {length} bytes"),
                region.set_state(RUNNING),
                Errno::EINVAL,
            )?;
            equal("state", region.state(), Ok(RESUMING))?;
        }
        anyhow::ensure!(!card.reason().is_empty(), "no reason after {length} bytes");
        same_bytes("registers", &card.plain_registers()?, &before)?;
        match length % 2 {
            // What is missing can still come.
            0 => {
                client
                    .load_record(&state[length..])?
                    .named("the rest of the state")?;
                region.set_state(RUNNING).named("100 -> 001")?;
                has_content(&card, 0x41)?;
            }
            _ => card.reset().named("reset")?,
        }
    }
    works(&card)
}

fn hostile_15_a_state_change_drops_the_piece() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let whole = stream(&save_live(&region)?);
    region.set_state(RUNNING).named("to RUNNING")?;
    for state in [PRE_COPY, SAVING] {
        for ends in [&[RUNNING][..], &[STOP, RUNNING]] {
            if state == PRE_COPY && ends[0] == STOP {
                continue;
            }
            reach(&region, state)?;
            region.pending().named("pending_bytes")?;
            region.data_size().named("data_size")?;
            region
                .get(region.data.offset, 10)
                .named("ten bytes of the piece")?;
            for end in ends {
                region.set_state(*end).named("the end of the session")?;
                offers_nothing(&format!("{} after {}", name(*end), name(state)), &region)?;
            }
            // The next session is whole.
            let again = stream(&save_live(&region)?);
            same_bytes(format!("after {}", name(state)), &again, &whole)?;
            region.set_state(RUNNING).named("to RUNNING")?;
        }
    }
    has_content(&card, 0x41)
}

fn hostile_15_a_state_change_drops_what_was_written() -> anyhow::Result<()> {
    let (source, card) = (filled(1)?, card(1)?);
    let whole = stream(&save_live(&Region::find(&source)?)?);
    let region = Region::find(&card)?;
    let half = whole.len() / 2;
    region.set_state(RESUMING).named("to RESUMING")?;
    region
        .put(region.data.offset, &whole[..half])
        .named("data")?;
    region.set_data_size(half as u64).named("data_size")?;
    region
        .put(region.data.offset, &whole[half..])
        .named("data")?;
    card.reset().named("reset")?;
    offers_nothing("after the reset", &region)?;
    // Neither the half that was taken nor the one that was only written is left.
    region.set_state(RESUMING).named("to RESUMING")?;
    refused(
        "the other half, which was written before",
        region.set_data_size((whole.len() - half) as u64),
        Errno::EINVAL,
    )?;
    card.reset().named("reset")?;
    Client::new(region, Carrier::Words).load(&[whole])?;
    has_content(&card, 0x41)
}

fn hostile_16_close_ends_a_session_in_every_state() -> anyhow::Result<()> {
    let mut card = filled(1)?;
    for access in kernel::accesses() {
        for state in STATES {
            let region = Region::find(&card)?;
            reach(&region, state)?;
            if state & SAVING != 0 {
                region.data_size().named("data_size")?;
            }
            if state == RESUMING {
                region.put(region.data.offset, &[0x5a; 100]).named("data")?;
            }
            card = card.reopen(access)?;
            let region = Region::find(&card)?;
            equal(
                format!("state after {}", name(state)),
                region.state(),
                Ok(RUNNING),
            )?;
            offers_nothing(&format!("after {}", name(state)), &region)?;
            equal(
                "migration/state",
                card.instance.attribute("migration/state")?.to_lowercase(),
                "running".to_owned(),
            )?;
            // The next user gets a new device.
            equal("SCR", card.port(0).get(SCR)?, 0)?;
            equal("received data", card.port(0).get(LSR)? & LSR_DATA, 0)?;
            works(&card)?;
            fill(&card, 0x41)?;
        }
    }
    Ok(())
}

fn hostile_17_reset_ends_a_session_in_every_state() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    for state in STATES {
        fill(&card, 0x41)?;
        reach(&region, state)?;
        if state & SAVING != 0 {
            region.data_size().named("data_size")?;
        }
        if state == RESUMING {
            mapping.put(0, &[0x5a; 100]);
        }
        card.reset().named("reset")?;
        equal(
            format!("state after {}", name(state)),
            region.state(),
            Ok(RUNNING),
        )?;
        offers_nothing(&format!("after {}", name(state)), &region)?;
        anyhow::ensure!(mapping.is_blank(), "not blank after {}", name(state));
        equal("SCR", card.port(0).get(SCR)?, 0)?;
        equal("received data", card.port(0).get(LSR)? & LSR_DATA, 0)?;
        works(&card)?;
    }
    Ok(())
}

fn hostile_18_a_mapping_is_never_revoked() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let state = save_stopped(&region)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    let steps: [&dyn Fn() -> anyhow::Result<()>; 7] = [
        &|| region.set_state(SAVING).named("to SAVING"),
        &|| region.data_size().map(drop).named("data_size"),
        &|| region.set_state(STOP).named("to STOP"),
        &|| region.set_state(RESUMING).named("to RESUMING"),
        &|| {
            region.put(region.data.offset, &state).named("data")?;
            region.set_data_size(state.len() as u64).named("data_size")
        },
        &|| region.set_state(RUNNING).named("to RUNNING"),
        &|| card.reset().named("reset"),
    ];
    for (number, step) in steps.iter().enumerate() {
        step()?;
        // A mapping that was taken away would end this program with SIGBUS.
        let faulted = mapping.get(0, 65536);
        mapping.forget().named("madvise")?;
        same_bytes(
            format!("the mapping, faulted again after step {number}"),
            &mapping.get(0, 65536),
            &faulted,
        )?;
    }
    anyhow::ensure!(mapping.is_blank(), "not blank in the end");
    works(&card)
}

fn hostile_18_what_a_stale_mapping_writes_is_not_taken() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    let whole = stream(&save_live(&region)?);
    region.set_state(RUNNING).named("to RUNNING")?;
    // While saving, a user can only fool itself: what it writes is not read back as the device's.
    region.set_state(SAVING).named("to SAVING")?;
    let size = region.data_size().named("data_size")? as usize;
    let piece = region.get(region.data.offset, size).named("the piece")?;
    mapping.put(0, &vec![0xee; size]);
    let again = region.get(region.data.offset, size).named("the piece")?;
    same_bytes("the piece, by read", &again, &piece)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    let again = stream(&save_live(&region)?);
    same_bytes("the next session", &again, &whole)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    has_content(&card, 0x41)
}

fn hostile_40_buffers_in_a_mapping_of_the_device() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let whole = save_stopped(&region)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    let fresh = || -> anyhow::Result<Mapping> {
        // Nothing of it is faulted in yet, so the kernel's copy faults.
        Mapping::of_data(&region).named("mmap")
    };
    // The data file of v2 is read into the mapping, and written from it.
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    let mapping = fresh()?;
    let read = mapping
        .read_from(data.as_fd(), 65536, None)
        .named("read of the data file")?;
    same_bytes("the stream", &mapping.get(0, read), &whole)?;
    mapping.forget().named("madvise")?;
    let end = mapping.read_from(data.as_fd(), 65536, None);
    equal("read at the end", end, Ok(0))?;
    card.switch(State::Stop).named("to STOP")?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    let mapping = fresh()?;
    mapping.put(0, &whole);
    mapping.forget().named("madvise")?;
    let written = mapping.write_to(data.as_fd(), whole.len(), None);
    equal("write of the data file", written, Ok(whole.len()))?;
    drop(data);
    card.switch(State::Running).named("to RUNNING")?;

    // The region itself: header fields and the piece, into the mapping of the piece.
    region.set_state(SAVING).named("to SAVING")?;
    let size = region.data_size().named("data_size")? as usize;
    let mapping = fresh()?;
    let file = card.as_fd();
    let header = mapping.read_from(file, 4, Some(region.place(DEVICE_STATE)));
    equal("read of device_state", header, Ok(4))?;
    equal(
        "device_state",
        mapping.get(0, 4),
        SAVING.to_ne_bytes().to_vec(),
    )?;
    let mapping = fresh()?;
    let piece = mapping.read_from(file, size, Some(region.place(region.data.offset)));
    equal("read of the piece", piece, Ok(size))?;
    same_bytes("the piece", &mapping.get(0, size), &whole)?;
    mapping.put(0, &RUNNING.to_ne_bytes());
    mapping.forget().named("madvise")?;
    let state = mapping.write_to(file, 4, Some(region.place(DEVICE_STATE)));
    equal("write of device_state", state, Ok(4))?;
    equal("state", region.state(), Ok(RUNNING))?;
    region.set_state(RESUMING).named("to RESUMING")?;
    let mapping = fresh()?;
    mapping.put(0, &whole);
    mapping.forget().named("madvise")?;
    let data = mapping.write_to(file, whole.len(), Some(region.place(region.data.offset)));
    equal("write of the data onto itself", data, Ok(whole.len()))?;
    region
        .set_data_size(whole.len() as u64)
        .named("data_size")?;
    region.set_state(RUNNING).named("to RUNNING")?;

    // Structures of ioctls, and registers.
    let mapping = fresh()?;
    mapping.put(0, &24_u32.to_ne_bytes());
    mapping
        .ioctl_on(file, abi::VFIO_DEVICE_GET_INFO, 24)
        .named("VFIO_DEVICE_GET_INFO")?;
    let mapping = fresh()?;
    let config = card
        .place(abi::VFIO_PCI_CONFIG_REGION_INDEX, 0)
        .named("place")?;
    let space = mapping.read_from(file, 256, Some(config));
    equal("read of the configuration space", space, Ok(256))?;
    has_content(&card, 0x41)
}
