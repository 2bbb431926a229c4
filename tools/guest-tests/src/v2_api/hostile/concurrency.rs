// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Cases 38 and 39: several threads at the same card.

use std::sync::Barrier;
use std::thread;

use anyhow::Context;

use super::super::card::{Card, BAR0};
use super::super::check::{equal, same_bytes, Named};
use super::super::uart::SCR;
use super::{stopped_with_content, works};
use crate::kernel;
use crate::ktap::Suite;
use crate::vfio::interrupt::{INTX, TRIGGER, UNMASK};
use crate::vfio::logging::Logging;
use crate::vfio::{DataFd, Device, Errno, Event, IrqSet, State};

/// How often each thread does its part.
const ROUNDS: usize = 300;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_38_state_changes_and_resets_from_many_threads,
        hostile_38_two_threads_that_start_a_session_get_one_file,
        hostile_38_a_reset_during_a_transfer_ends_it,
        hostile_38_two_readers_share_a_stream_without_losing_a_byte,
        hostile_38_interrupts_are_configured_from_many_threads,
        hostile_39_a_data_file_is_used_while_the_device_is_closed,
        hostile_42_two_threads_that_start_logging_start_it_once,
    );
}

/// Runs the parts at the same time and returns the first failure.
fn at_once(parts: Vec<Box<dyn FnOnce() -> anyhow::Result<()> + Send + '_>>) -> anyhow::Result<()> {
    let barrier = Barrier::new(parts.len());
    thread::scope(|scope| {
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| {
                scope.spawn(|| {
                    barrier.wait();
                    part()
                })
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        for result in results {
            result.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })
}

/// Fails unless the call succeeded or failed with one of `allowed`.
fn one_of<T>(
    what: &str,
    result: crate::vfio::Result<T>,
    allowed: &[Errno],
) -> anyhow::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(errno) if allowed.contains(&errno) => Ok(None),
        Err(errno) => anyhow::bail!("{what}: {errno:?} is none of {allowed:?}"),
    }
}

/// Reads from a data file until its session is over or has nothing more.
fn drain(data: &DataFd) -> anyhow::Result<()> {
    let mut buffer = [0; 61];
    loop {
        let ends = [Errno::ENODEV, Errno::ENOMSG, Errno::EBADF];
        match one_of("read", data.read(&mut buffer), &ends)? {
            Some(0) | None => return Ok(()),
            Some(_) => {}
        }
    }
}

fn changes(device: &Device, seed: usize) -> anyhow::Result<()> {
    for round in 0..ROUNDS {
        let target = State::ALL[(round * 5 + seed * 3 + round / 8) % 8];
        let data = one_of("SET", device.move_to(target), &[Errno::EINVAL])?.flatten();
        if let Some(data) = data {
            drain(&data)?;
            one_of(
                "information",
                data.precopy_info(),
                &[Errno::EINVAL, Errno::ENODEV],
            )?;
        }
        let state = device.state().named("GET")?;
        anyhow::ensure!(state != State::Error, "the card is in the error state");
    }
    Ok(())
}

fn hostile_38_state_changes_and_resets_from_many_threads() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let device = card.device();
    let event = card.enable(INTX)?;
    at_once(vec![
        Box::new(|| changes(device, 0)),
        Box::new(|| changes(device, 1)),
        Box::new(|| (0..ROUNDS).try_for_each(|_| device.reset().named("reset"))),
        Box::new(|| {
            for round in 0..ROUNDS {
                let value = [round as u8];
                equal("write of SCR", device.write(BAR0, SCR, &value), Ok(1))?;
                equal(
                    "read of all registers",
                    device.read(BAR0, 0, &mut [0; 16]),
                    Ok(16),
                )?;
                device
                    .set_irqs(&IrqSet::none(INTX, UNMASK))
                    .named("unmask")?;
                device.data_size().named("data size")?;
            }
            Ok(())
        }),
    ])?;
    drop(event);
    card.reset().named("reset")?;
    card.set_irqs(&IrqSet::disable(INTX))
        .named("disable INTx")?;
    works(&card)
}

fn hostile_38_two_threads_that_start_a_session_get_one_file() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let device = card.device();
    for state in [State::PreCopy, State::StopCopy, State::Resuming] {
        for round in 0..30 {
            let files = std::sync::Mutex::new(Vec::new());
            let start = || -> anyhow::Result<()> {
                let data = device.move_to(state).named(format!("to {state:?}"))?;
                files
                    .lock()
                    .map_err(|_| anyhow::anyhow!("poisoned"))?
                    .extend(data);
                Ok(())
            };
            at_once(vec![Box::new(start), Box::new(start)])?;
            let files = files
                .into_inner()
                .map_err(|_| anyhow::anyhow!("poisoned"))?;
            equal(format!("files in round {round}"), files.len(), 1)?;
            card.reset().named("reset")?;
        }
    }
    works(&card)
}

fn hostile_38_a_reset_during_a_transfer_ends_it() -> anyhow::Result<()> {
    let (card, stream) = stopped_with_content(2)?;
    let device = card.device();
    for state in [State::StopCopy, State::Resuming] {
        for _ in 0..30 {
            let data = card.start(state).named(format!("to {state:?}"))?;
            at_once(vec![
                Box::new(|| {
                    if state == State::StopCopy {
                        return drain(&data);
                    }
                    for byte in &stream {
                        if one_of("write", data.write(&[*byte]), &[Errno::ENODEV])?.is_none() {
                            return Ok(());
                        }
                    }
                    Ok(())
                }),
                Box::new(|| device.reset().named("reset")),
            ])?;
            equal("state", card.state(), Ok(State::Running))?;
            let ended = if state == State::StopCopy {
                data.read(&mut [0])
            } else {
                data.write(&[0])
            };
            equal("the data file", ended, Err(Errno::ENODEV))?;
        }
    }
    works(&card)
}

fn hostile_38_two_readers_share_a_stream_without_losing_a_byte() -> anyhow::Result<()> {
    let (card, stream) = stopped_with_content(2)?;
    for step in [1, 7] {
        let data = card.start(State::StopCopy).named("to STOP_COPY")?;
        let read = || data.read_all(step).named("read");
        let (mut first, second) = thread::scope(|scope| {
            let other = scope.spawn(read);
            let mine = read();
            (mine, other.join())
        });
        let second = second.map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        let mut all = first
            .as_mut()
            .map(std::mem::take)
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        all.extend(second);
        // Who read what is open, but each byte was read once.
        let mut wanted = stream.clone();
        all.sort_unstable();
        wanted.sort_unstable();
        same_bytes(
            format!("bytes of two readers, {step} at a time, sorted"),
            &all,
            &wanted,
        )?;
        card.switch(State::Stop).named("to STOP")?;
    }
    Ok(())
}

fn hostile_38_interrupts_are_configured_from_many_threads() -> anyhow::Result<()> {
    let card = Card::with_unmask_eventfd(1)?;
    let device = card.device();
    let event = card.enable(INTX)?;
    let (resample, other) = (Event::new()?, Event::new()?);
    let allowed = [Errno::EINVAL, Errno::EBUSY];
    let set = |set: &IrqSet| one_of("SET_IRQS", device.set_irqs(set), &allowed).map(drop);
    at_once(vec![
        Box::new(|| {
            for _ in 0..ROUNDS {
                set(&IrqSet::eventfd(INTX, UNMASK, resample.number()))?;
                resample.signal()?;
                set(&IrqSet::eventfd(INTX, UNMASK, -1))?;
            }
            Ok(())
        }),
        Box::new(|| {
            for _ in 0..ROUNDS {
                set(&IrqSet::disable(INTX))?;
                set(&IrqSet::eventfd(INTX, TRIGGER, other.number()))?;
                set(&IrqSet::eventfd(INTX, UNMASK, other.number()))?;
            }
            Ok(())
        }),
        Box::new(|| {
            for round in 0..ROUNDS {
                device
                    .write(BAR0, 1, &[if round % 2 == 0 { 0x02 } else { 0 }])
                    .named("write of IER")?;
                device.read(BAR0, 2, &mut [0]).named("read of IIR")?;
            }
            Ok(())
        }),
    ])?;
    drop(event);
    card.set_irqs(&IrqSet::eventfd(INTX, TRIGGER, -1))
        .named("descriptor -1")?;
    card.set_irqs(&IrqSet::disable(INTX))
        .named("disable INTx")?;
    card.reset().named("reset")?;
    works(&card)
}

fn hostile_39_a_data_file_is_used_while_the_device_is_closed() -> anyhow::Result<()> {
    for round in 0..20 {
        let state = [State::PreCopy, State::StopCopy, State::Resuming][round % 3];
        let access = kernel::accesses().cycle().nth(round);
        let mut card = Card::opened(1, access.context("no way to open a card")?)?;
        let data = card.start(state).named(format!("to {state:?}"))?;
        let barrier = Barrier::new(2);
        let instance = thread::scope(|scope| {
            let user = scope.spawn(|| -> anyhow::Result<()> {
                barrier.wait();
                // Until the session is over, which it must be at last.
                loop {
                    one_of(
                        "information",
                        data.precopy_info(),
                        &[Errno::EINVAL, Errno::ENODEV],
                    )?;
                    let result = match state {
                        State::Resuming => data.write(&[]),
                        _ => data.read(&mut [0]),
                    };
                    match result {
                        Err(Errno::ENODEV) => return Ok(()),
                        other => one_of("use", other, &[Errno::ENOMSG])?,
                    };
                }
            });
            barrier.wait();
            let instance = card.close();
            user.join()
                .map_err(|_| anyhow::anyhow!("the user panicked"))??;
            anyhow::Ok(instance)
        })?;
        instance.remove()?;
        card = Card::new(1)?;
        drop(data);
        equal("state of the next card", card.state(), Ok(State::Running))?;
    }
    Ok(())
}

fn hostile_42_two_threads_that_start_logging_start_it_once() -> anyhow::Result<()> {
    kernel::needs(kernel::LOGGING)?;
    let card = Card::new(1)?;
    let device = card.device();
    for round in 0..50 {
        let started = std::sync::atomic::AtomicUsize::new(0);
        let start = || -> anyhow::Result<()> {
            let result = device.start_logging(&Logging::of(&[(0, 1 << 30)]));
            if one_of("start", result, &[Errno::EINVAL])?.is_some() {
                started.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            Ok(())
        };
        at_once(vec![Box::new(start), Box::new(start)])?;
        equal(format!("starts in round {round}"), started.into_inner(), 1)?;
        card.stop_logging().named("stop")?;
    }
    Ok(())
}
