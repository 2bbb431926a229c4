// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Cases 26 to 31, 36, 39 to 41 and 49: what is done to data files, and to a card that does not run.

use std::os::fd::AsFd;

use nix::sys::uio::{pread, pwrite};
use nix::unistd::{lseek, Whence};

use super::super::card::{config, Card, CONFIG};
use super::super::check::{equal, refused, same_bytes, Named};
use super::super::uart::*;
use super::{recover, stopped_with_content, works};
use crate::kernel;
use crate::ktap::Suite;
use crate::vfio::event_fd::{readable, DEADLINE};
use crate::vfio::interrupt::{INTX, MASK, TRIGGER, UNMASK};
use crate::vfio::migration_v1::Region;
use crate::vfio::{DataFd, Errno, IrqSet, Mapping, State};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_26_a_finished_data_file_answers_enodev,
        hostile_27_data_files_have_no_position,
        hostile_28_data_files_go_one_way,
        hostile_29_stop_copy_ends_for_ever_and_never_with_enomsg,
        hostile_31_a_failed_read_loses_nothing,
        hostile_31_a_failed_write_changes_nothing,
        hostile_36_a_write_after_a_refused_one_answers_enodev,
        hostile_39_a_data_file_outlives_its_device,
        hostile_40_a_read_buffer_in_a_mapping_of_the_device,
        hostile_41_only_one_session_is_alive,
        hostile_49_registers_are_answered_while_the_card_stands_still,
        hostile_49_interrupts_wait_while_the_card_stands_still,
    );
}

/// Everything that can be asked of a finished data file.
fn is_finished(what: &str, data: &DataFd, state: State) -> anyhow::Result<()> {
    for _ in 0..2 {
        if state == State::Resuming {
            refused(
                format!("{what}: write"),
                data.write(&[0; 16]),
                Errno::ENODEV,
            )?;
        } else {
            refused(
                format!("{what}: read"),
                data.read(&mut [0; 16]),
                Errno::ENODEV,
            )?;
        }
        refused(
            format!("{what}: pre-copy information"),
            data.precopy_info(),
            Errno::ENODEV,
        )?;
    }
    anyhow::ensure!(
        readable(data.as_fd(), DEADLINE)?,
        "{what}: whoever polls waits for ever"
    );
    Ok(())
}

fn hostile_26_a_finished_data_file_answers_enodev() -> anyhow::Result<()> {
    for state in [
        State::PreCopy,
        State::PreCopyP2p,
        State::StopCopy,
        State::Resuming,
    ] {
        let card = Card::new(1)?;
        let data = card.start(state).named(format!("to {state:?}"))?;
        card.reset().named("reset")?;
        is_finished(&format!("{state:?}, reset"), &data, state)?;

        let data = card.start(state).named(format!("to {state:?}"))?;
        let card = card.reopen(kernel::usual_access())?;
        is_finished(&format!("{state:?}, closed and opened"), &data, state)?;

        if state != State::Resuming {
            let data = card.start(state).named(format!("to {state:?}"))?;
            card.switch(State::Running).named("to RUNNING")?;
            is_finished(&format!("{state:?}, left"), &data, state)?;
            // A new session does not revive the old file.
            let _new = card.start(state).named(format!("to {state:?} again"))?;
            is_finished(&format!("{state:?}, left and entered"), &data, state)?;
        }
    }
    let (card, stream) = stopped_with_content(1)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    data.write_all(&stream, 100).named("write")?;
    card.switch(State::Stop).named("to STOP")?;
    is_finished("RESUMING, left", &data, State::Resuming)
}

fn hostile_27_data_files_have_no_position() -> anyhow::Result<()> {
    let (card, stream) = stopped_with_content(1)?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    for place in [0, 1, 1 << 40] {
        refused(
            format!("pread at {place}"),
            pread(&data, &mut [0; 8], place),
            Errno::ESPIPE,
        )?;
        refused(
            format!("lseek to {place}"),
            lseek(&data, place, Whence::SeekSet),
            Errno::ESPIPE,
        )?;
    }
    refused(
        "lseek to the end",
        lseek(&data, 0, Whence::SeekEnd),
        Errno::ESPIPE,
    )?;
    same_bytes("the stream", &data.read_all(64).named("read")?, &stream)?;
    card.switch(State::Stop).named("to STOP")?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    data.write_all(&stream[..10], 10).named("write")?;
    refused("pwrite", pwrite(&data, &stream[..10], 0), Errno::ESPIPE)?;
    refused("lseek", lseek(&data, 0, Whence::SeekSet), Errno::ESPIPE)?;
    data.write_all(&stream[10..], 100).named("the rest")?;
    card.switch(State::Stop).named("to STOP")
}

fn hostile_28_data_files_go_one_way() -> anyhow::Result<()> {
    let (card, stream) = stopped_with_content(1)?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    refused("write to a saving file", data.write(&stream), Errno::EBADF)?;
    same_bytes("the stream", &data.read_all(64).named("read")?, &stream)?;
    card.switch(State::Stop).named("to STOP")?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    refused(
        "read of a resuming file",
        data.read(&mut [0; 64]),
        Errno::EBADF,
    )?;
    data.write_all(&stream, 64).named("write")?;
    card.switch(State::Stop).named("to STOP")
}

fn hostile_29_stop_copy_ends_for_ever_and_never_with_enomsg() -> anyhow::Result<()> {
    for ahead in [State::PreCopy, State::StopCopy] {
        let card = Card::new(1)?;
        let data = card.start(ahead).named(format!("to {ahead:?}"))?;
        if ahead == State::PreCopy {
            data.read_all(64).named("read")?;
            refused("drained PRE_COPY", data.read(&mut [0]), Errno::ENOMSG)?;
            refused(
                "drained PRE_COPY, a large read",
                data.read(&mut vec![0; 1 << 20]),
                Errno::ENOMSG,
            )?;
            card.switch(State::StopCopy).named("to STOP_COPY")?;
        }
        data.read_all(64).named("read")?;
        for size in [1, 4096, 1 << 20, 1] {
            equal("read at the end", data.read(&mut vec![0; size]), Ok(0))?;
        }
    }
    Ok(())
}

fn hostile_31_a_failed_read_loses_nothing() -> anyhow::Result<()> {
    let (card, stream) = stopped_with_content(2)?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    let mut whole = Vec::new();
    for length in [1, 16, 100, 1 << 20] {
        refused(
            format!("read of {length} to nowhere"),
            data.read_to_nowhere(length),
            Errno::EFAULT,
        )?;
        let mut piece = [0; 10];
        let length = data.read(&mut piece).named("read")?;
        whole.extend_from_slice(&piece[..length]);
        // Sixteen bytes fit before the hole: as much or nothing was taken.
        let mut edge = [0; 16];
        match data.read_to_edge(&mut edge, 200) {
            Ok(length) => whole.extend_from_slice(&edge[..length]),
            Err(errno) => equal("read across the end of memory", errno, Errno::EFAULT)?,
        }
    }
    whole.extend(data.read_all(64).named("read")?);
    same_bytes("the stream", &whole, &stream)
}

fn hostile_31_a_failed_write_changes_nothing() -> anyhow::Result<()> {
    let (card, stream) = stopped_with_content(2)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    let mut rest = stream.as_slice();
    while !rest.is_empty() {
        refused(
            "write from nowhere",
            data.write_from_nowhere(rest.len()),
            Errno::EFAULT,
        )?;
        let length = rest.len().min(100);
        equal("write", data.write(&rest[..length]), Ok(length))?;
        rest = &rest[length..];
    }
    card.switch(State::Stop).named("to STOP")?;
    same_bytes("the state", &card.save()?, &stream)
}

fn hostile_36_a_write_after_a_refused_one_answers_enodev() -> anyhow::Result<()> {
    let (card, stream) = stopped_with_content(1)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    refused("garbage", data.write(&[0x55; 64]), Errno::EINVAL)?;
    let reason = card.reason();
    for piece in [&stream[..], &[0x55; 64], &[0]] {
        refused("a write afterwards", data.write(piece), Errno::ENODEV)?;
    }
    equal(
        "the reason, which is that of the first refusal",
        card.reason(),
        reason,
    )?;
    refused(
        "leaving RESUMING",
        card.switch(State::Running),
        Errno::EINVAL,
    )?;
    equal("state", card.state(), Ok(State::Resuming))?;
    recover(&card)?;
    card.load(&stream)
}

fn hostile_39_a_data_file_outlives_its_device() -> anyhow::Result<()> {
    for state in [State::PreCopy, State::StopCopy, State::Resuming] {
        let card = Card::new(1)?;
        let data = card.start(state).named(format!("to {state:?}"))?;
        let instance = card.close();
        is_finished("closed", &data, state)?;
        instance.remove()?;
        is_finished("removed", &data, state)?;
        // Others can come and go meanwhile.
        works(&Card::new(1)?)?;
        is_finished("another card came and went", &data, state)?;
    }
    Ok(())
}

fn hostile_40_a_read_buffer_in_a_mapping_of_the_device() -> anyhow::Result<()> {
    let (card, stream) = stopped_with_content(4)?;
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mapping it")?;

    // No page of it was touched yet, so each of these faults within the driver's copy.
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    let length = mapping
        .read_from(data.as_fd(), mapping.len(), None)
        .named("read of the state into the mapping")?;
    let mut bytes = mapping.get(0, length);
    bytes.extend(data.read_all(1 << 16).named("the rest")?);
    same_bytes("the state", &bytes, &stream)?;
    card.switch(State::Stop).named("to STOP")?;

    let other = Mapping::of_data(&region).named("mapping it again")?;
    let configuration = card.place(CONFIG, 0).named("the configuration space")?;
    let length = other.read_from(card.as_fd(), 256, Some(configuration));
    equal(
        "read of the configuration space into a mapping",
        length,
        Ok(256),
    )?;
    same_bytes(
        "the configuration space, in the first mapping",
        &mapping.get(0, 256),
        &card.config_space()?,
    )?;

    let data = card.start(State::Resuming).named("to RESUMING")?;
    for piece in stream.chunks(mapping.len()) {
        other.put(0, piece);
        let third = Mapping::of_data(&region).named("mapping it once more")?;
        equal(
            "write from a mapping",
            third.write_to(data.as_fd(), piece.len(), None),
            Ok(piece.len()),
        )?;
    }
    card.switch(State::Stop).named("to STOP")?;
    same_bytes("the state", &card.save()?, &stream)
}

fn hostile_41_only_one_session_is_alive() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let first = card.start(State::PreCopyP2p).named("to PRE_COPY_P2P")?;
    let moved = card.move_to_number(State::StopCopy as u32);
    moved.result.named("to STOP_COPY")?;
    equal("data_fd of PRE_COPY_P2P -> STOP_COPY", moved.number, -1)?;
    equal("read of the first file", first.read(&mut [0]), Ok(1))?;
    let second = card.start(State::Resuming).named("to RESUMING")?;
    is_finished("the first file", &first, State::StopCopy)?;
    equal(
        "data_fd of RESUMING -> RESUMING",
        card.move_to_number(State::Resuming as u32).number,
        -1,
    )?;
    card.reset().named("reset")?;
    let third = card.start(State::StopCopy).named("to STOP_COPY")?;
    is_finished("the second file", &second, State::Resuming)?;
    equal("read of the third file", third.read(&mut [0]), Ok(1))
}

/// States in which the card stands still.
const STILL: [State; 3] = [State::Stop, State::StopCopy, State::Resuming];

fn hostile_49_registers_are_answered_while_the_card_stands_still() -> anyhow::Result<()> {
    for state in STILL {
        let card = Card::new(2)?;
        let _data = card.move_to(state).named(format!("to {state:?}"))?;
        for port in card.each_port() {
            for register in 0..8 {
                port.get(register)?;
                port.set(register, 0x03)?;
            }
        }
        let mut all = [0; 16];
        equal(
            "read of all registers",
            card.read(super::super::card::BAR0, 0, &mut all),
            Ok(16),
        )?;
        // What QEMU does in RESUMING: the command register and interrupts.
        card.set_command(config::COMMAND_IO)?;
        equal(
            "read of the configuration space",
            card.read(CONFIG, 0, &mut [0; 256]),
            Ok(256),
        )?;
        let event = card.enable(INTX).named("INTx")?;
        card.set_irqs(&IrqSet::none(INTX, MASK)).named("mask")?;
        card.set_irqs(&IrqSet::none(INTX, UNMASK)).named("unmask")?;
        card.set_irqs(&IrqSet::none(INTX, TRIGGER))
            .named("loop-back trigger")?;
        equal("signals of the loop-back trigger", event.count()?, 1)?;
        equal("state", card.state(), Ok(state))?;
        card.reset().named("reset")?;
        works_again(&card)?;
    }
    Ok(())
}

/// [`works`], with INTx as a test left it.
fn works_again(card: &Card) -> anyhow::Result<()> {
    card.set_irqs(&IrqSet::disable(INTX))
        .named("disable INTx")?;
    works(card)
}

fn hostile_49_interrupts_wait_while_the_card_stands_still() -> anyhow::Result<()> {
    for state in [State::Stop, State::StopCopy] {
        let card = Card::new(1)?;
        let event = card.enable(INTX)?;
        let _data = card.move_to(state).named(format!("to {state:?}"))?;
        card.port(0).set(IER, IER_EMPTY)?;
        card.set_irqs(&IrqSet::none(INTX, UNMASK)).named("unmask")?;
        equal(format!("signals in {state:?}"), event.count()?, 0)?;
        card.switch(State::Running).named("to RUNNING")?;
        equal(
            format!("signals in RUNNING after {state:?}"),
            event.wait()?,
            1,
        )?;
    }
    let (card, stream) = stopped_with_content(1)?;
    let event = card.enable(INTX)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    card.port(0).set(IER, IER_EMPTY)?;
    equal("signals in RESUMING", event.count()?, 0)?;
    // What was written meanwhile is replaced by the state.
    data.write_all(&stream, 100).named("write")?;
    card.switch(State::Stop).named("to STOP")?;
    same_bytes("the state", &card.save()?, &stream)
}
