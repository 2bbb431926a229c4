// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Cases 1 to 10 and 13: accesses to the header, and places that are no field and no data.

use std::os::fd::{AsFd, AsRawFd};

use super::super::bench::*;
use super::super::region::*;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, refused, same_bytes, Named};
use crate::vfio::{Device, Errno};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_01_header_accesses_of_another_width_or_place_are_refused,
        hostile_02_states_that_do_not_exist_are_refused,
        hostile_03_reserved_bits_of_the_state_are_refused,
        hostile_04_a_same_state_write_has_no_effect,
        hostile_05_forbidden_transitions_are_refused,
        hostile_06_reading_pending_bytes_again_has_no_effect,
        hostile_07_data_is_not_described_when_there_is_none,
        hostile_08_offset_size_and_data_read_again_are_the_same,
        hostile_09_data_outside_the_piece_is_refused,
        hostile_10_fields_that_are_only_read_are_not_written,
        hostile_13_places_outside_the_region_are_refused,
        hostile_13_buffers_that_cannot_be_accessed_are_refused,
    );
}

/// The fields of the header: place and width.
const FIELDS: [(u64, usize); 5] = [
    (DEVICE_STATE, 4),
    (RESERVED, 4),
    (PENDING_BYTES, 8),
    (DATA_OFFSET, 8),
    (DATA_SIZE, 8),
];

fn hostile_01_header_accesses_of_another_width_or_place_are_refused() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    for state in STATES {
        reach(&region, state)?;
        let pending = region.pending().named("pending_bytes")?;
        for offset in 0..64 {
            for length in [1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 32, 64] {
                if FIELDS.contains(&(offset, length)) {
                    continue;
                }
                let what = format!("{length} bytes at {offset} in {}", name(state));
                refused(
                    format!("read of {what}"),
                    region.get(offset, length),
                    Errno::EINVAL,
                )?;
                refused(
                    format!("write of {what}"),
                    region.write(offset, &vec![1; length]),
                    Errno::EINVAL,
                )?;
            }
        }
        equal("state afterwards", region.state(), Ok(state))?;
        equal("pending_bytes afterwards", region.pending(), Ok(pending))?;
        card.reset().named("reset")?;
    }
    works(&card)
}

fn hostile_02_states_that_do_not_exist_are_refused() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for from in STATES {
        reach(&region, from)?;
        for to in [RESUMING | RUNNING, MASK, ERROR] {
            let what = format!("{} -> {}", name(from), name(to));
            refused(&what, region.set_state(to), Errno::EINVAL)?;
            equal(format!("state after {what}"), region.state(), Ok(from))?;
        }
        card.reset().named("reset")?;
    }
    works(&card)
}

fn hostile_03_reserved_bits_of_the_state_are_refused() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for from in STATES {
        reach(&region, from)?;
        for to in STATES {
            for high in [!MASK, 1 << 3, 1 << 31, 0xffff_0000] {
                let what = format!("{} -> {:#x}", name(from), to | high);
                refused(&what, region.set_state(to | high), Errno::EINVAL)?;
                equal(format!("state after {what}"), region.state(), Ok(from))?;
            }
        }
        card.reset().named("reset")?;
    }
    works(&card)
}

fn hostile_04_a_same_state_write_has_no_effect() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    for state in [PRE_COPY, SAVING] {
        reach(&region, state)?;
        let pending = region.pending().named("pending_bytes")?;
        let size = region.data_size().named("data_size")?;
        let piece = region
            .get(region.data.offset, size as usize)
            .named("the piece")?;
        for _ in 0..3 {
            region.set_state(state).named("a same-state write")?;
            equal("data_size", region.data_size(), Ok(size))?;
            let again = region
                .get(region.data.offset, size as usize)
                .named("the piece again")?;
            same_bytes("the piece", &again, &piece)?;
        }
        equal("pending_bytes", region.pending(), Ok(pending - size))?;
        region.set_state(state).named("a same-state write")?;
        equal("pending_bytes", region.pending(), Ok(pending - size))?;
        region.set_state(RUNNING).named("to RUNNING")?;
    }
    let state = save_stopped(&region)?;
    for (number, piece) in state.chunks(100).enumerate() {
        if number == 0 {
            region.set_state(RESUMING).named("to RESUMING")?;
        }
        region
            .put(region.data.offset, piece)
            .named("data of a piece")?;
        region.set_state(RESUMING).named("a same-state write")?;
        region
            .set_data_size(piece.len() as u64)
            .named("data_size of a piece")?;
        region.set_state(RESUMING).named("a same-state write")?;
    }
    region.set_state(RUNNING).named("to RUNNING")?;
    has_content(&card, 0x41)
}

fn hostile_05_forbidden_transitions_are_refused() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    for (from, to) in [
        (RESUMING, SAVING),
        (RESUMING, PRE_COPY),
        (SAVING, PRE_COPY),
        (SAVING, RESUMING),
        (PRE_COPY, RESUMING),
        // Not drawn in the text of the header, and asked for by nobody.
        (PRE_COPY, STOP),
        (STOP, PRE_COPY),
        (RESUMING, STOP),
    ] {
        reach(&region, from)?;
        let pending = region.pending().named("pending_bytes")?;
        let what = format!("{} -> {}", name(from), name(to));
        refused(&what, region.set_state(to), Errno::EINVAL)?;
        equal(format!("state after {what}"), region.state(), Ok(from))?;
        equal(
            format!("pending_bytes after {what}"),
            region.pending(),
            Ok(pending),
        )?;
        card.reset().named("reset")?;
    }
    works(&card)
}

fn hostile_06_reading_pending_bytes_again_has_no_effect() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    for state in STATES {
        reach(&region, state)?;
        let pending = region.pending().named("pending_bytes")?;
        let saving = state & SAVING != 0;
        anyhow::ensure!(
            (pending > 0) == saving,
            "{pending} pending bytes in {}",
            name(state)
        );
        for _ in 0..10 {
            equal("pending_bytes again", region.pending(), Ok(pending))?;
        }
        equal("state", region.state(), Ok(state))?;
        if saving {
            let size = region.data_size().named("data_size")?;
            anyhow::ensure!(size <= pending, "{size} of {pending} bytes");
        }
        card.reset().named("reset")?;
    }
    works(&card)
}

fn hostile_07_data_is_not_described_when_there_is_none() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    offers_nothing("001", &region)?;
    region.set_state(STOP).named("to STOP")?;
    offers_nothing("000", &region)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    for state in [PRE_COPY, SAVING] {
        reach(&region, state)?;
        // A byte cannot be read before the piece was made available.
        refused(
            "a byte before data_offset was read",
            region.get(region.data.offset, 1),
            Errno::EINVAL,
        )?;
        while region.pending().named("pending_bytes")? > 0 {
            region.data_size().named("data_size")?;
        }
        // Twice: the first answer must not bring the last piece back.
        offers_nothing(&format!("{} drained", name(state)), &region)?;
        offers_nothing(&format!("{} drained", name(state)), &region)?;
        region.set_state(RUNNING).named("to RUNNING")?;
        offers_nothing(&format!("after {}", name(state)), &region)?;
    }
    // Between an acknowledgement and the next piece, the old one cannot be read any more.
    region.set_state(PRE_COPY).named("to PRE_COPY")?;
    region.data_size().named("data_size")?;
    region.pending().named("pending_bytes")?;
    offers_no_piece("acknowledged", &region)?;
    card.reset().named("reset")?;
    works(&card)
}

fn hostile_08_offset_size_and_data_read_again_are_the_same() -> anyhow::Result<()> {
    let card = filled(2)?;
    let region = Region::find(&card)?;
    for state in [PRE_COPY, SAVING] {
        reach(&region, state)?;
        region.pending().named("pending_bytes")?;
        let offset = region.data_offset().named("data_offset")?;
        let size = region.data_size().named("data_size")?;
        let piece = region.get(offset, size as usize).named("the piece")?;
        for _ in 0..5 {
            equal("data_size", region.data_size(), Ok(size))?;
            equal("data_offset", region.data_offset(), Ok(offset))?;
            let again = region.get(offset, size as usize).named("the piece")?;
            same_bytes("the piece", &again, &piece)?;
        }
        region.set_state(RUNNING).named("to RUNNING")?;
    }
    Ok(())
}

fn hostile_09_data_outside_the_piece_is_refused() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    region.set_state(SAVING).named("to SAVING")?;
    let offset = region.data_offset().named("data_offset")?;
    let size = region.data_size().named("data_size")?;
    let piece = region.get(offset, size as usize).named("the piece")?;
    for (what, place, length) in [
        ("the byte behind the piece", offset + size, 1),
        ("the piece and a byte", offset, size + 1),
        ("its last byte and the next", offset + size - 1, 2),
        ("the last byte of the section", region.size - 1, 1),
        ("the whole section", offset, region.size - offset),
        ("the byte before the piece", offset - 1, 1),
        ("eight bytes before the piece", offset - 8, 8),
        ("header and data", offset - 4, 8),
        ("the whole region", 0, region.size),
        ("behind the header", HEADER, 8),
        ("across the end of the header", HEADER - 8, 16),
    ] {
        refused(what, region.get(place, length as usize), Errno::EINVAL)?;
    }
    // A read past the region's end is cut there, and is outside the piece all the same.
    refused(
        "across the end of the region",
        region.read(region.size - 4, &mut [0; 8]),
        Errno::EINVAL,
    )?;
    equal("a read of nothing", region.read(offset, &mut []), Ok(0))?;
    let again = region.get(offset, size as usize).named("the piece")?;
    same_bytes("the piece", &again, &piece)?;
    // Nobody writes while saving.
    for place in [offset, offset + size, region.size - 1] {
        refused(
            format!("write at {place:#x} while saving"),
            region.write(place, &[0xee]),
            Errno::EINVAL,
        )?;
    }
    let again = region.get(offset, size as usize).named("the piece")?;
    same_bytes("the piece", &again, &piece)
}

fn hostile_10_fields_that_are_only_read_are_not_written() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    for state in STATES {
        reach(&region, state)?;
        let pending = region.pending().named("pending_bytes")?;
        for value in [0_u64, 1, 4096, u64::MAX] {
            for (what, place) in [
                ("pending_bytes", PENDING_BYTES),
                ("data_offset", DATA_OFFSET),
            ] {
                refused(
                    format!("{what} := {value:#x} in {}", name(state)),
                    region.write(place, &value.to_ne_bytes()),
                    Errno::EINVAL,
                )?;
            }
        }
        for value in [0_u32, 1, u32::MAX] {
            region
                .put(RESERVED, &value.to_ne_bytes())
                .named("write to the reserved field")?;
            equal(
                "the reserved field",
                region.get(RESERVED, 4),
                Ok(vec![0; 4]),
            )?;
        }
        equal("state", region.state(), Ok(state))?;
        equal("pending_bytes", region.pending(), Ok(pending))?;
        card.reset().named("reset")?;
    }
    works(&card)
}

/// Reads at any place of the device's file; the length is that of a buffer that is not there, so only calls that look at the
/// place first get as far as refusing it.
fn read_at(device: &Device, place: i64, length: usize) -> Result<usize, Errno> {
    // SAFETY: Nothing is mapped below vm.mmap_min_addr, so the kernel can write nowhere.
    let done = unsafe { libc::pread(device.as_fd().as_raw_fd(), 8 as *mut _, length, place) };
    Errno::result(done).map(|done| done as usize)
}

fn hostile_13_places_outside_the_region_are_refused() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    let end = region.place(region.size);
    for (what, place) in [
        ("the end of the region", end),
        ("a page behind it", end + 4096),
        ("the region behind the last", region.place(1 << 40)),
        ("the last byte a file can have", i64::MAX),
        ("a negative place", -1),
        ("the most negative place", i64::MIN),
    ] {
        for length in [1, 8, 4096, 1 << 40] {
            refused(
                format!("{length} bytes at {what}"),
                read_at(&card, place, length),
                Errno::EINVAL,
            )?;
        }
        let write = nix::sys::uio::pwrite(card.as_fd(), &[0; 8], place);
        refused(format!("write at {what}"), write, Errno::EINVAL)?;
    }
    // A very long access within the region ends with it; this one is of no field.
    refused(
        "a very long read of the header",
        read_at(&card, region.place(0), 1 << 40),
        Errno::EINVAL,
    )?;
    equal("state", region.state(), Ok(RUNNING))?;
    works(&card)
}

fn hostile_13_buffers_that_cannot_be_accessed_are_refused() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let device = card.device();
    region.set_state(SAVING).named("to SAVING")?;
    let pending = region.pending().named("pending_bytes")?;
    let size = region.data_size().named("data_size")?;
    let piece = region
        .get(region.data.offset, size as usize)
        .named("the piece")?;
    for (place, length) in [
        (DEVICE_STATE, 4),
        (PENDING_BYTES, 8),
        (DATA_OFFSET, 8),
        (DATA_SIZE, 8),
        (region.data.offset, 8),
    ] {
        refused(
            format!("read of {length} bytes at {place} to nowhere"),
            device.read_to_nowhere(region.index, place, length),
            Errno::EFAULT,
        )?;
    }
    for (place, length) in [(DEVICE_STATE, 4), (DATA_SIZE, 8)] {
        refused(
            format!("write of {length} bytes at {place} from nowhere"),
            device.write_from_nowhere(region.index, place, length),
            Errno::EFAULT,
        )?;
    }
    equal("state", region.state(), Ok(SAVING))?;
    let again = region
        .get(region.data.offset, size as usize)
        .named("the piece")?;
    same_bytes("the piece", &again, &piece)?;
    equal("pending_bytes", region.pending(), Ok(pending - size))?;
    region.set_state(RUNNING).named("to RUNNING")?;
    region.set_state(RESUMING).named("to RESUMING")?;
    refused(
        "data from nowhere",
        device.write_from_nowhere(region.index, region.data.offset, 8192),
        Errno::EFAULT,
    )?;
    refused(
        "data_size from nowhere",
        device.write_from_nowhere(region.index, DATA_SIZE, 8),
        Errno::EFAULT,
    )?;
    region.put(region.data.offset, &piece).named("data")?;
    region.set_data_size(size).named("data_size")?;
    region.set_state(RUNNING).named("to RUNNING")?;
    has_content(&card, 0x41)
}
