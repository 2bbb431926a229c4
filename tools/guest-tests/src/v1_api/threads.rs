// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Case 19: several threads at the same region.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::thread;

use super::bench::*;
use super::client::{stream, Carrier, Client};
use super::mapping::Mapping;
use super::region::*;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::vfio::{Errno, State};

/// How often each thread does its part.
const ROUNDS: usize = 200;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_19_a_reader_of_the_header_does_not_disturb_a_session,
        hostile_19_two_threads_read_one_piece,
        hostile_19_states_and_pieces_from_many_threads,
        hostile_19_data_that_changes_while_it_is_handed_in,
        hostile_19_two_threads_of_different_protocols,
        hostile_19_faults_during_everything_else,
    );
}

/// A thread's work.
type Part<'a> = Box<dyn FnOnce() -> anyhow::Result<()> + Send + 'a>;

/// Runs `parts` at the same time, and `background` over and over until they are done; returns the first failure.
fn at_once(
    parts: Vec<Part<'_>>,
    background: impl Fn() -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let barrier = Barrier::new(parts.len() + 1);
    let over = AtomicBool::new(false);
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
        let behind = scope.spawn(|| {
            barrier.wait();
            while !over.load(Ordering::Relaxed) {
                background()?;
            }
            anyhow::Ok(())
        });
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        let behind = behind.join();
        for result in results.into_iter().chain([behind]) {
            result.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })
}

/// Fails unless the call succeeded or failed with one of `allowed`.
fn one_of<T: std::fmt::Debug>(
    what: &str,
    result: crate::vfio::Result<T>,
    allowed: &[Errno],
) -> anyhow::Result<()> {
    match result {
        Err(error) if !allowed.contains(&error) => anyhow::bail!("{what}: failed with {error:?}"),
        _ => Ok(()),
    }
}

fn hostile_19_a_reader_of_the_header_does_not_disturb_a_session() -> anyhow::Result<()> {
    let (source, destination) = (filled(2)?, card(2)?);
    let (from, to) = (Region::find(&source)?, Region::find(&destination)?);
    let whole = stream(&save_live(&from)?);
    from.set_state(RUNNING).named("to RUNNING")?;
    let transfer = || -> anyhow::Result<()> {
        for round in 0..ROUNDS / 10 {
            let records = Client::new(from, Carrier::Words).save_live()?;
            same_bytes(format!("stream {round}"), &stream(&records), &whole)?;
            Client::new(to, Carrier::Words).load(&records)?;
            from.set_state(RUNNING).named("to RUNNING")?;
        }
        Ok(())
    };
    // Reads of the state and of data_offset acknowledge nothing; those of pending_bytes would.
    at_once(vec![Box::new(transfer)], || {
        for region in [&from, &to] {
            one_of("device_state", region.state(), &[])?;
            one_of("data_offset", region.data_offset(), &[Errno::EINVAL])?;
            one_of(
                "a byte of data",
                region.get(region.data.offset, 1),
                &[Errno::EINVAL],
            )?;
            one_of("state 110b", region.set_state(ERROR), &[Errno::EINVAL])?;
        }
        Ok(())
    })?;
    has_content(&destination, 0x41)
}

fn hostile_19_two_threads_read_one_piece() -> anyhow::Result<()> {
    let card = filled(4)?;
    let region = Region::find(&card)?;
    region.set_state(SAVING).named("to SAVING")?;
    let offset = region.data_offset().named("data_offset")?;
    let size = region.data_size().named("data_size")?;
    let piece = region.get(offset, size as usize).named("the piece")?;
    let read = |step: usize| {
        let piece = &piece;
        move || -> anyhow::Result<()> {
            for _ in 0..20 {
                for (place, wanted) in (0..).step_by(step).zip(piece.chunks(step)) {
                    let part = region.get(offset + place, wanted.len()).named("a part")?;
                    same_bytes(format!("steps of {step}, at {place}"), &part, wanted)?;
                }
            }
            Ok(())
        }
    };
    at_once(vec![Box::new(read(8)), Box::new(read(33))], || {
        equal("data_size", region.data_size(), Ok(size))?;
        equal("data_offset", region.data_offset(), Ok(offset))
    })?;
    equal("pending_bytes", region.pending(), Ok(0))
}

fn hostile_19_states_and_pieces_from_many_threads() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let einval = &[Errno::EINVAL];
    let states = |order: [u32; 5]| {
        move || -> anyhow::Result<()> {
            for _ in 0..ROUNDS {
                for state in order {
                    one_of("device_state", region.set_state(state), einval)?;
                }
            }
            Ok(())
        }
    };
    let pieces = || -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            one_of("pending_bytes", region.pending(), &[])?;
            one_of("data_offset", region.data_offset(), einval)?;
            if let Ok(size) = region.data_size() {
                anyhow::ensure!(0 < size && size <= region.data.size, "data_size is {size}");
                one_of(
                    "data",
                    region.get(region.data.offset, size as usize),
                    einval,
                )?;
            }
            one_of("data", region.write(region.data.offset, &[1; 40]), einval)?;
            one_of(
                "data_size",
                region.set_data_size(40),
                &[Errno::EINVAL, Errno::ENODEV],
            )?;
        }
        Ok(())
    };
    at_once(
        vec![
            Box::new(states([PRE_COPY, SAVING, STOP, RUNNING, RESUMING])),
            Box::new(states([SAVING, RUNNING, PRE_COPY, RUNNING, STOP])),
            Box::new(pieces),
        ],
        || {
            card.reset().named("reset")?;
            let state = region.state().named("device_state")?;
            anyhow::ensure!(STATES.contains(&state), "the state is {state:#x}");
            Ok(())
        },
    )?;
    card.reset().named("reset")?;
    works(&card)
}

fn hostile_19_data_that_changes_while_it_is_handed_in() -> anyhow::Result<()> {
    let (source, card) = (filled(2)?, card(2)?);
    let good = save_stopped(&Region::find(&source)?)?;
    let mut bad = good.clone();
    for byte in bad.iter_mut().step_by(13) {
        *byte ^= 0x41;
    }
    let region = Region::find(&card)?;
    let mapping = Mapping::of_data(&region).named("mmap")?;
    let (taken, refused) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let hand_in = || -> anyhow::Result<()> {
        for round in 0..ROUNDS {
            region.set_state(RESUMING).named("to RESUMING")?;
            mapping.put(0, &good);
            match region.set_data_size(good.len() as u64) {
                Ok(()) => {
                    // All checksums were right, so it was the good state.
                    region
                        .set_state(RUNNING)
                        .named(format!("to RUNNING in round {round}"))?;
                    taken.store(true, Ordering::Relaxed);
                }
                Err(error) => {
                    one_of::<()>("data_size", Err(error), &[Errno::EINVAL, Errno::ENOMEM])?;
                    equal("state", region.state(), Ok(RESUMING))?;
                    card.reset().named("reset")?;
                    refused.store(true, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    };
    at_once(vec![Box::new(hand_in)], || {
        mapping.put(0, &bad);
        mapping.put(0, &good);
        Ok(())
    })?;
    crate::diag!("taken: {taken:?}, refused: {refused:?} (either may be rare, neither is wrong)");
    Client::new(region, Carrier::Words).load(&[good])?;
    has_content(&card, 0x41)?;
    works(&card)
}

fn hostile_19_two_threads_of_different_protocols() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let whole = save_stopped(&region)?;
    region.set_state(RUNNING).named("to RUNNING")?;
    // Who gets the device keeps it for a whole stream, however the other pushes.
    let by_v1 = || -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            match region.set_state(SAVING) {
                Err(Errno::EBUSY) => continue,
                // The other one has it in STOP_COPY: the same state, and not ours.
                Ok(()) if region.data_offset().is_err() => continue,
                other => other.named("to SAVING")?,
            }
            let mut client = Client::new(region, Carrier::Words);
            let records = client.complete_precopy()?;
            same_bytes("the stream by v1", &stream(&records), &whole)?;
            client.vm_start()?;
        }
        Ok(())
    };
    let by_v2 = || -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            match card.move_to(State::StopCopy) {
                Err(Errno::EBUSY) => continue,
                // The other one has it there.
                Ok(None) => continue,
                Ok(Some(data)) => {
                    let read = data.read_all(50).named("read")?;
                    same_bytes("the stream by v2", &read, &whole)?;
                    card.switch(State::Running).named("to RUNNING")?;
                }
                Err(error) => anyhow::bail!("to STOP_COPY: {error:?}"),
            }
        }
        Ok(())
    };
    at_once(vec![Box::new(by_v1), Box::new(by_v2)], || {
        one_of("device_state", region.state(), &[])?;
        one_of("state", card.state(), &[])
    })?;
    has_content(&card, 0x41)?;
    works(&card)
}

fn hostile_19_faults_during_everything_else() -> anyhow::Result<()> {
    let (source, destination) = (filled(1)?, card(1)?);
    let (from, to) = (Region::find(&source)?, Region::find(&destination)?);
    let (out, into) = (
        Mapping::of_data(&from).named("mmap")?,
        Mapping::of_data(&to).named("mmap")?,
    );
    let (out, into) = (&out, &into);
    let whole = stream(&save_live(&from)?);
    from.set_state(RUNNING).named("to RUNNING")?;
    let transfer = || -> anyhow::Result<()> {
        for round in 0..ROUNDS / 4 {
            let records = Client::new(from, Carrier::Map(out)).save_live()?;
            same_bytes(format!("stream {round}"), &stream(&records), &whole)?;
            Client::new(to, Carrier::Map(into)).load(&records)?;
            from.set_state(RUNNING).named("to RUNNING")?;
        }
        Ok(())
    };
    let forget = || -> anyhow::Result<()> {
        for _ in 0..ROUNDS {
            out.forget().named("madvise")?;
            into.forget().named("madvise")?;
        }
        Ok(())
    };
    at_once(vec![Box::new(transfer), Box::new(forget)], || {
        // Mappings come and go, too.
        let more = Mapping::of_data(&from).named("mmap")?;
        more.get(0, 4096);
        more.get(61440, 1);
        Ok(())
    })?;
    has_content(&destination, 0x41)
}
