// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How a piece of the stream is offered, read in parts, and acknowledged.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use nix::poll::PollFlags;

use super::bench::*;
use super::client::{stream, Carrier, Client};
use super::region::*;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, refused, same_bytes, Named};
use crate::vfio::event_fd::{events, DEADLINE};
use crate::vfio::Errno;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_piece_can_be_read_in_steps_of_any_size,
        a_piece_can_be_read_backwards_and_again,
        a_state_can_be_written_in_pieces_of_any_size,
        a_piece_can_be_written_in_any_order_and_over_and_over,
        pending_bytes_read_twice_loses_nothing,
        a_piece_whose_length_was_not_asked_for_comes_again,
        the_length_alone_makes_a_piece_available,
        what_was_not_read_ahead_comes_in_stop_and_copy,
        the_bytes_given_and_taken_are_counted,
        whoever_polls_the_count_is_told_of_each_change,
    );
}

fn a_piece_can_be_read_in_steps_of_any_size() -> anyhow::Result<()> {
    let card = filled(2)?;
    let region = Region::find(&card)?;
    let whole = save_stopped(&region)?;
    for step in [1, 2, 3, 4, 7, 8, 16, 100, 4096, 1 << 20] {
        region.set_state(RUNNING).named("to RUNNING")?;
        let mut client = Client::new(region, Carrier::Steps(step));
        client.vm_stop_for_savevm()?;
        let again = stream(&client.complete_precopy()?);
        same_bytes(format!("steps of {step}"), &again, &whole)?;
    }
    Ok(())
}

fn a_piece_can_be_read_backwards_and_again() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    region.set_state(SAVING).named("to SAVING")?;
    let pending = region.pending().named("pending_bytes")?;
    let offset = region.data_offset().named("data_offset")?;
    let size = region.data_size().named("data_size")?;
    let whole = region.get(offset, size as usize).named("the piece")?;
    for _ in 0..2 {
        for place in (0..size).rev() {
            let byte = region.get(offset + place, 1).named("a byte")?;
            equal(format!("byte {place}"), byte[0], whole[place as usize])?;
        }
        equal("data_offset", region.data_offset(), Ok(offset))?;
        equal("data_size", region.data_size(), Ok(size))?;
        let again = region.get(offset, size as usize).named("the piece again")?;
        same_bytes("the piece", &again, &whole)?;
    }
    equal(
        "pending_bytes afterwards",
        region.pending(),
        Ok(pending - size),
    )
}

fn a_state_can_be_written_in_pieces_of_any_size() -> anyhow::Result<()> {
    let source = filled(2)?;
    let records = save_live(&Region::find(&source)?)?;
    let whole = stream(&records);
    let card = card(2)?;
    let region = Region::find(&card)?;
    for step in [1, 3, 64, 500, whole.len() - 1, whole.len()] {
        region.set_state(RESUMING).named("to RESUMING")?;
        for piece in whole.chunks(step) {
            let offset = region.data_offset().named("data_offset")?;
            region.put(offset, piece).named("data")?;
            region
                .set_data_size(piece.len() as u64)
                .named("data_size")?;
        }
        region.set_state(RUNNING).named("to RUNNING")?;
        has_content(&card, 0x41)?;
    }
    Ok(())
}

fn a_piece_can_be_written_in_any_order_and_over_and_over() -> anyhow::Result<()> {
    let source = filled(1)?;
    let whole = save_stopped(&Region::find(&source)?)?;
    let card = card(1)?;
    let region = Region::find(&card)?;
    region.set_state(RESUMING).named("to RESUMING")?;
    let offset = region.data_offset().named("data_offset")?;
    region
        .put(offset, &vec![0xee; whole.len()])
        .named("garbage that is overwritten")?;
    for (place, byte) in whole.iter().enumerate().rev() {
        region
            .put(offset + place as u64, &[*byte])
            .named("a byte")?;
    }
    equal("data_offset again", region.data_offset(), Ok(offset))?;
    region
        .set_data_size(whole.len() as u64)
        .named("data_size")?;
    region.set_state(RUNNING).named("to RUNNING")?;
    has_content(&card, 0x41)
}

fn pending_bytes_read_twice_loses_nothing() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let whole = save_stopped(&region)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    // QEMU does this when it completes: the last save_pending, then complete_precopy.
    region.set_state(SAVING).named("to SAVING")?;
    let pending = region.pending().named("pending_bytes")?;
    equal("pending_bytes", pending, whole.len() as u64)?;
    for _ in 0..5 {
        equal("pending_bytes again", region.pending(), Ok(pending))?;
    }
    let mut client = Client::new(region, Carrier::Words);
    same_bytes("the stream", &stream(&client.complete_precopy()?), &whole)
}

fn a_piece_whose_length_was_not_asked_for_comes_again() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let whole = save_stopped(&region)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    region.set_state(SAVING).named("to SAVING")?;
    let pending = region.pending().named("pending_bytes")?;
    for _ in 0..3 {
        let offset = region.data_offset().named("data_offset")?;
        region.get(offset, 8).named("eight bytes")?;
        equal("pending_bytes again", region.pending(), Ok(pending))?;
    }
    let mut client = Client::new(region, Carrier::Words);
    same_bytes("the stream", &stream(&client.complete_precopy()?), &whole)
}

fn the_length_alone_makes_a_piece_available() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    region.set_state(SAVING).named("to SAVING")?;
    let size = region.data_size().named("data_size first")?;
    let offset = region.data_offset().named("data_offset after it")?;
    let piece = region.get(offset, size as usize).named("the piece")?;
    anyhow::ensure!(!piece.is_empty(), "an empty piece");
    equal("pending_bytes afterwards", region.pending(), Ok(0))?;
    offers_nothing("drained", &region)
}

fn what_was_not_read_ahead_comes_in_stop_and_copy() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let read = stream(&save_live(&region)?);
    region.set_state(RUNNING).named("to RUNNING")?;
    // A user need not read anything in pre-copy.
    let mut out = Client::new(region, Carrier::Words);
    out.save_setup()?;
    out.vm_stop()?;
    let all = stream(&out.complete_precopy()?);
    same_bytes("the stream", &all, &read)
}

fn the_bytes_given_and_taken_are_counted() -> anyhow::Result<()> {
    let (source, destination) = (filled(1)?, card(1)?);
    let bytes = |card: &crate::v2_api::card::Card| card.instance.attribute("migration/bytes");
    let (from, to) = (Region::find(&source)?, Region::find(&destination)?);
    from.set_state(PRE_COPY).named("to PRE_COPY")?;
    equal("bytes before the first", bytes(&source)?, "0".to_owned())?;
    let first = from.data_size().named("data_size")?;
    let first = from.get(from.data.offset, first as usize).named("piece")?;
    equal("pending_bytes", from.pending(), Ok(0))?;
    equal(
        "bytes after the first piece",
        bytes(&source)?,
        first.len().to_string(),
    )?;
    from.set_state(SAVING).named("to SAVING")?;
    let second = from.data_size().named("data_size")?;
    let second = from.get(from.data.offset, second as usize).named("piece")?;
    equal("pending_bytes", from.pending(), Ok(0))?;
    let whole = [first, second].concat();
    equal("bytes of all", bytes(&source)?, whole.len().to_string())?;

    to.set_state(RESUMING).named("to RESUMING")?;
    equal(
        "bytes of the new session",
        bytes(&destination)?,
        "0".to_owned(),
    )?;
    to.put(to.data.offset, &whole).named("data")?;
    equal(
        "bytes before data_size is written",
        bytes(&destination)?,
        "0".to_owned(),
    )?;
    to.set_data_size(whole.len() as u64).named("data_size")?;
    equal(
        "bytes afterwards",
        bytes(&destination)?,
        whole.len().to_string(),
    )?;
    refused(
        "a byte behind the end",
        {
            to.put(to.data.offset, &[0]).named("data")?;
            to.set_data_size(1)
        },
        Errno::EINVAL,
    )
}

fn whoever_polls_the_count_is_told_of_each_change() -> anyhow::Result<()> {
    let (source, destination) = (filled(1)?, card(1)?);
    let (from, to) = (Region::find(&source)?, Region::find(&destination)?);
    let open =
        |card: &crate::v2_api::card::Card| File::open(card.instance.path().join("migration/bytes"));
    let count = |file: &mut File| -> anyhow::Result<u64> {
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(text.trim().parse()?)
    };
    // Waits for a change, at most the deadline; returns what is there then.
    let changed = |what: &str, file: &mut File, last: u64| -> anyhow::Result<u64> {
        let told = events(file.as_fd(), PollFlags::POLLPRI, DEADLINE)?;
        anyhow::ensure!(
            told.contains(PollFlags::POLLPRI),
            "{what}: the count went from {last} to {} and nobody was told",
            count(file)?
        );
        count(file)
    };
    let mut file = open(&source)?;
    from.set_state(SAVING).named("to SAVING")?;
    let size = from.data_size().named("data_size")?;
    let piece = from
        .get(from.data.offset, size as usize)
        .named("the piece")?;
    let before = count(&mut file)?;
    from.pending().named("pending_bytes")?;
    let after = changed("acknowledged", &mut file, before)?;
    equal("bytes acknowledged", after, size)?;

    let mut file = open(&destination)?;
    to.set_state(RESUMING).named("to RESUMING")?;
    to.put(to.data.offset, &piece).named("data")?;
    let before = count(&mut file)?;
    to.set_data_size(size).named("data_size")?;
    let after = changed("handed in", &mut file, before)?;
    equal("bytes handed in", after, size)
}
