// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The data file: how it is read and written, what pre-copy says of it, and how it ends.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use nix::poll::PollFlags;
use signal_hook::consts::SIGUSR1;

use super::card::Card;
use super::check::{equal, refused, same_bytes, Named};
use crate::ktap::Suite;
use crate::stream_forge::{Record, Section, Stream, MAX_SECTION};
use crate::vfio::abi::{self, Bytes};
use crate::vfio::compat;
use crate::vfio::event_fd::{events, DEADLINE};
use crate::vfio::{Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_state_saved_twice_is_the_same,
        reads_of_every_size_give_the_same_stream,
        writes_of_every_size_are_taken_whole,
        a_signal_ends_a_long_write_early,
        an_empty_read_or_write_does_nothing,
        pre_copy_ends_with_enomsg_and_stop_copy_with_end_of_file,
        stop_copy_goes_on_where_pre_copy_stopped,
        pre_copy_not_read_at_all_is_still_part_of_the_stream,
        initial_bytes_start_above_zero_and_fall_to_zero_as_they_are_read,
        precopy_flags_are_echoed_until_the_second_form_is_enabled,
        the_second_form_of_precopy_information_ends_with_the_last_close,
        a_reader_that_polls_is_told_of_data_and_of_the_end,
        a_reader_that_waits_in_drained_pre_copy_is_woken_by_stop_copy,
        a_writer_that_polls_is_told_of_a_refusal,
        a_writer_that_polls_is_told_that_its_session_is_over,
        a_writer_that_waits_is_woken_by_a_refusal,
        data_files_are_closed_on_exec,
        a_closed_data_file_ends_nothing,
    );
    tests_with!(
        suite,
        "IA32_EMULATION",
        a_32_bit_process_gets_the_same_precopy_information
    );
}

fn a_state_saved_twice_is_the_same() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let first = card.stop_and_save()?;
    for round in 0..3 {
        same_bytes(format!("save {round}"), &card.save()?, &first)?;
    }
    Ok(())
}

fn reads_of_every_size_give_the_same_stream() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let reference = card.stop_and_save()?;
    for step in [1, 2, 3, 7, 64, 4096, 1 << 20] {
        let data = card.start(State::StopCopy).named("to STOP_COPY")?;
        let stream = data.read_all(step).named(format!("reads of {step}"))?;
        same_bytes(format!("reads of {step}"), &stream, &reference)?;
        card.switch(State::Stop).named("to STOP")?;
    }
    Ok(())
}

fn writes_of_every_size_are_taken_whole() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let reference = card.stop_and_save()?;
    for step in [1, 2, 3, 7, 64, 4096, 1 << 20] {
        let data = card.start(State::Resuming).named("to RESUMING")?;
        for piece in reference.chunks(step) {
            equal(
                format!("write of {}", piece.len()),
                data.write(piece),
                Ok(piece.len()),
            )?;
        }
        card.switch(State::Stop).named("to STOP")?;
        same_bytes(
            format!("state after writes of {step}"),
            &card.save()?,
            &reference,
        )?;
    }
    Ok(())
}

/// A section that may be skipped can be repeated without end: whoever writes it must not be beyond reach for so long.
fn a_signal_ends_a_long_write_early() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let stream = Stream::parse(&card.stop_and_save()?)?;
    let (setup, sections) = stream.records.split_at(1);
    let encoded = |records: &[Record]| {
        let records = records.to_vec();
        Stream { records }.encode()
    };
    let skipped = Section::new(0xfeff, 0, &vec![0x5a; MAX_SECTION as usize]);
    let skipped = encoded(&[Record::Section(skipped)]);
    let mut bytes = encoded(setup);
    for _ in 0..1024 {
        bytes.extend(&skipped);
    }
    let data = card.start(State::Resuming).named("to RESUMING")?;
    // Its handler does nothing but set this.
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGUSR1, Arc::clone(&flag)).context("SIGUSR1")?;
    let written = thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let (data, bytes) = (&data, &bytes);
        let writer = scope.spawn(move || {
            // SAFETY: The call has no requirements. Nobody listens any more only if the test is over.
            let _ = tell.send(unsafe { libc::pthread_self() });
            data.write(bytes)
        });
        if let Ok(name) = told.recv() {
            while !writer.is_finished() {
                // SAFETY: The thread has not been joined, so the name is still its own.
                unsafe { libc::pthread_kill(name, SIGUSR1) };
                thread::yield_now();
            }
        }
        writer.join()
    });
    let written = written
        .map_err(|_| anyhow::anyhow!("the writer panicked"))?
        .named("write")?;
    anyhow::ensure!(flag.load(Ordering::Relaxed), "no signal arrived");
    anyhow::ensure!(
        0 < written && written < bytes.len(),
        "{written} of {} bytes were written",
        bytes.len()
    );
    // What was taken is taken: the rest completes the stream.
    let rest = (bytes.len() - written) % skipped.len();
    data.write_all(&skipped[skipped.len() - rest..], 4096)
        .named("the rest of the section")?;
    data.write_all(&encoded(sections), 4096)
        .named("the sections of the card")?;
    card.switch(State::Stop).named("to STOP")
}

fn an_empty_read_or_write_does_nothing() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let reference = card.stop_and_save()?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    equal("empty read", data.read(&mut []), Ok(0))?;
    same_bytes("the stream", &data.read_all(64).named("read")?, &reference)?;
    card.switch(State::Stop).named("to STOP")?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    for piece in reference.chunks(100) {
        equal("empty write", data.write(&[]), Ok(0))?;
        equal("write", data.write(piece), Ok(piece.len()))?;
    }
    equal("empty write after the end", data.write(&[]), Ok(0))?;
    card.switch(State::Stop).named("to STOP")
}

fn pre_copy_ends_with_enomsg_and_stop_copy_with_end_of_file() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    let first = data.read_all(16).named("read in PRE_COPY")?;
    anyhow::ensure!(!first.is_empty(), "nothing to read in PRE_COPY");
    for _ in 0..3 {
        refused(
            "read of drained PRE_COPY",
            data.read(&mut [0; 64]),
            Errno::ENOMSG,
        )?;
    }
    card.switch(State::PreCopyP2p).named("to PRE_COPY_P2P")?;
    refused(
        "read of drained PRE_COPY_P2P",
        data.read(&mut [0; 64]),
        Errno::ENOMSG,
    )?;
    card.switch(State::StopCopy).named("to STOP_COPY")?;
    let second = data.read_all(16).named("read in STOP_COPY")?;
    anyhow::ensure!(!second.is_empty(), "nothing to read in STOP_COPY");
    for _ in 0..3 {
        equal(
            "read at the end of STOP_COPY",
            data.read(&mut [0; 64]),
            Ok(0),
        )?;
    }
    Ok(())
}

/// The whole stream of a migration with pre-copy, of which `ahead` bytes are read before the stop.
fn stream_read_ahead(card: &Card, ahead: usize) -> anyhow::Result<Vec<u8>> {
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    let mut stream = Vec::new();
    while stream.len() < ahead {
        let mut byte = [0];
        equal("read of a byte in PRE_COPY", data.read(&mut byte), Ok(1))?;
        stream.extend(byte);
    }
    card.switch(State::StopCopy).named("to STOP_COPY")?;
    stream.extend(data.read_all(1 << 16).named("read in STOP_COPY")?);
    card.switch(State::Running).named("to RUNNING")?;
    Ok(stream)
}

fn stop_copy_goes_on_where_pre_copy_stopped() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    let length = data.read_all(1 << 16).named("read in PRE_COPY")?.len();
    card.switch(State::Running).named("to RUNNING")?;
    let whole = stream_read_ahead(&card, length)?;
    for ahead in 0..length {
        same_bytes(
            format!("{ahead} bytes read ahead"),
            &stream_read_ahead(&card, ahead)?,
            &whole,
        )?;
    }
    card.load(&whole)
}

fn pre_copy_not_read_at_all_is_still_part_of_the_stream() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let straight = card.stop_and_save()?;
    card.switch(State::Running).named("to RUNNING")?;
    let stream = stream_read_ahead(&card, 0)?;
    anyhow::ensure!(
        stream.len() > straight.len(),
        "pre-copy is not part of the stream"
    );
    same_bytes(
        "the end of the stream",
        &stream[stream.len() - straight.len()..],
        &straight,
    )
}

fn initial_bytes_start_above_zero_and_fall_to_zero_as_they_are_read() -> anyhow::Result<()> {
    for state in [State::PreCopy, State::PreCopyP2p] {
        let card = Card::new(1)?;
        let data = card.start(state).named(format!("to {state:?}"))?;
        let mut info = data.precopy_info().named("pre-copy information")?;
        anyhow::ensure!(info.initial > 0, "initial_bytes is 0 at the start");
        equal("dirty_bytes at the start", info.dirty, 0)?;
        while info.initial + info.dirty > 0 {
            equal("read of a byte", data.read(&mut [0]), Ok(1))?;
            let next = data.precopy_info().named("pre-copy information")?;
            anyhow::ensure!(
                next.initial + next.dirty < info.initial + info.dirty,
                "{info:?}, a byte later {next:?}"
            );
            info = next;
        }
        refused(
            "read when nothing is left",
            data.read(&mut [0]),
            Errno::ENOMSG,
        )?;
    }
    Ok(())
}

fn precopy_flags_are_echoed_until_the_second_form_is_enabled() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    let noise = 0xdead_beef;
    equal(
        "flags in the first form",
        data.precopy_info_with(noise).named("information")?.flags,
        noise,
    )?;
    card.feature(
        abi::VFIO_DEVICE_FEATURE_PROBE | abi::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFO_V2,
        &mut [],
    )
    .named("probe")?;
    equal(
        "flags after a probe",
        data.precopy_info_with(noise).named("information")?.flags,
        noise,
    )?;
    card.enable_precopy_info_v2().named("the second form")?;
    let flags = data.precopy_info_with(noise).named("information")?.flags;
    equal(
        "flags that mean nothing",
        flags & !abi::VFIO_PRECOPY_INFO_REINIT,
        0,
    )?;
    // Nothing was changed since the session started, so there is no new initial data.
    equal("REINIT", flags, 0)?;
    card.reset().named("reset")?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    equal(
        "flags after reset",
        data.precopy_info_with(noise).named("information")?.flags,
        0,
    )
}

fn the_second_form_of_precopy_information_ends_with_the_last_close() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.enable_precopy_info_v2().named("the second form")?;
    let card = card.reopen(crate::vfio::Access::Group)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    equal(
        "flags after the next open",
        data.precopy_info_with(0x55).named("information")?.flags,
        0x55,
    )
}

fn a_32_bit_process_gets_the_same_precopy_information() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    let wanted = data.precopy_info().named("information")?;
    anyhow::ensure!(wanted.initial > 0, "nothing to be told");
    let mut info = Bytes::new()
        .word(abi::PRECOPY_INFO_SIZE as u32)
        .word(0)
        .long(u64::MAX)
        .long(u64::MAX);
    compat::ioctl(
        data.as_fd(),
        abi::VFIO_MIG_GET_PRECOPY_INFO,
        info.bytes_mut(),
    )
    .named("information for a 32-bit process")?;
    equal("initial bytes", info.long_at(8), wanted.initial)?;
    equal("dirty bytes", info.long_at(16), wanted.dirty)?;
    let unknown = compat::ioctl(data.as_fd(), abi::VFIO_DEVICE_RESET, info.bytes_mut());
    refused("another command", unknown, Errno::ENOTTY)
}

/// What poll says of a file for reading, without waiting.
fn ready(file: impl AsFd) -> anyhow::Result<bool> {
    Ok(events(file.as_fd(), PollFlags::POLLIN, Duration::ZERO)?.contains(PollFlags::POLLIN))
}

fn a_reader_that_polls_is_told_of_data_and_of_the_end() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    equal("readable with data in PRE_COPY", ready(&data)?, true)?;
    data.read_all(1 << 16).named("read")?;
    equal("readable in drained PRE_COPY", ready(&data)?, false)?;
    card.switch(State::StopCopy).named("to STOP_COPY")?;
    equal("readable in STOP_COPY", ready(&data)?, true)?;
    data.read_all(1 << 16).named("read")?;
    equal("readable at the end", ready(&data)?, true)
}

fn a_reader_that_waits_in_drained_pre_copy_is_woken_by_stop_copy() -> anyhow::Result<()> {
    for state in [State::StopCopy, State::Running] {
        let card = Card::new(1)?;
        let data = card.start(State::PreCopy).named("to PRE_COPY")?;
        data.read_all(1 << 16).named("read")?;
        equal("readable in drained PRE_COPY", ready(&data)?, false)?;
        let woken = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| events(data.as_fd(), PollFlags::POLLIN, DEADLINE));
            let moved = card.switch(state);
            let woken = waiting
                .join()
                .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
            moved.named(format!("to {state:?}"))?;
            woken
        })?;
        anyhow::ensure!(!woken.is_empty(), "the reader was not woken by {state:?}");
    }
    Ok(())
}

/// What poll says of a file for writing, without waiting.
fn writable(file: impl AsFd) -> anyhow::Result<PollFlags> {
    events(file.as_fd(), PollFlags::POLLOUT, Duration::ZERO)
}

fn a_writer_that_polls_is_told_of_a_refusal() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    equal("poll at first", writable(&data)?, PollFlags::POLLOUT)?;
    refused("garbage", data.write(&[0xff; 64]), Errno::EINVAL)?;
    equal("poll afterwards", writable(&data)?, PollFlags::POLLERR)?;
    refused("a write afterwards", data.write(&[0]), Errno::ENODEV)
}

fn a_writer_that_polls_is_told_that_its_session_is_over() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    card.reset().named("reset")?;
    equal("poll after a reset", writable(&data)?, PollFlags::POLLERR)?;
    refused("a write after a reset", data.write(&[0]), Errno::ENODEV)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    let _instance = card.close();
    equal(
        "poll after the last close",
        writable(&data)?,
        PollFlags::POLLERR,
    )?;
    refused(
        "a write after the last close",
        data.write(&[0]),
        Errno::ENODEV,
    )
}

fn a_writer_that_waits_is_woken_by_a_refusal() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    std::thread::scope(|scope| {
        // Errors are told to whoever waits, for whatever.
        let waiting = scope.spawn(|| events(data.as_fd(), PollFlags::POLLPRI, DEADLINE));
        let result = data.write(&[0xff; 64]);
        let woken = waiting
            .join()
            .map_err(|_| anyhow::anyhow!("the waiting thread panicked"))??;
        refused("garbage", result, Errno::EINVAL)?;
        equal(
            "what the waiting thread was told",
            woken,
            PollFlags::POLLERR,
        )
    })
}

fn data_files_are_closed_on_exec() -> anyhow::Result<()> {
    use nix::fcntl::{fcntl, FcntlArg, FdFlag, OFlag};
    let card = Card::new(1)?;
    for (state, mode) in [
        (State::StopCopy, OFlag::O_RDONLY),
        (State::Resuming, OFlag::O_WRONLY),
    ] {
        let data = card.start(state).named(format!("to {state:?}"))?;
        let flags = FdFlag::from_bits_truncate(fcntl(&data, FcntlArg::F_GETFD)?);
        equal(
            format!("close on exec in {state:?}"),
            flags,
            FdFlag::FD_CLOEXEC,
        )?;
        let open = OFlag::from_bits_truncate(fcntl(&data, FcntlArg::F_GETFL)?);
        equal(
            format!("access mode in {state:?}"),
            open & OFlag::O_ACCMODE,
            mode,
        )?;
        card.reset().named("reset")?;
    }
    Ok(())
}

fn a_closed_data_file_ends_nothing() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let reference = card.stop_and_save()?;
    // QEMU closes the data file before it leaves RESUMING.
    let data = card.start(State::Resuming).named("to RESUMING")?;
    data.write_all(&reference, reference.len()).named("write")?;
    drop(data);
    equal("state", card.state(), Ok(State::Resuming))?;
    card.switch(State::Stop).named("to STOP")?;
    same_bytes("the state", &card.save()?, &reference)?;

    drop(card.start(State::StopCopy).named("to STOP_COPY")?);
    equal("state", card.state(), Ok(State::StopCopy))?;
    card.switch(State::Stop).named("to STOP")?;
    same_bytes("the state", &card.save()?, &reference)
}
