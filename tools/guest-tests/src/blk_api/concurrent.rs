// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Several processors at once: queues that are driven by a thread each, and what others do with the device meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{bail, ensure, Context, Result};

use super::disk::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::vfio::{Errno, Event, State};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        queues_are_served_for_a_thread_each,
        a_queue_that_is_always_full_forgets_nothing,
        resets_during_requests_leave_a_disk_that_works,
        states_change_during_requests_and_none_is_lost,
    );
}

const QUEUES: usize = 4;

/// Writes and reads back, several at a time, and verifies. Waits by the queue's eventfd where it has to.
fn work(queue: &mut Queue, event: &Event, rounds: u64, over: &AtomicBool) -> Result<u64> {
    const DEPTH: usize = 8;
    let data = queue.data();
    let base = (queue.index * 64 * DEPTH) as u64;
    let mut round = 0;
    while round < rounds && !over.load(Ordering::Relaxed) {
        for (kind, writes) in [(OUT, false), (IN, true)] {
            for slot in 0..DEPTH {
                let bytes = pattern(PAGE, round * 31 + slot as u64 + base);
                let at = data + slot * PAGE;
                match writes {
                    false => queue.memory.put(at, &bytes),
                    true => queue.memory.put(at, &[0x5a; PAGE]),
                }
                let sector = base + slot as u64 * 8;
                queue.add(
                    slot,
                    kind,
                    sector,
                    &[(at, PAGE as u32, writes)],
                    slot % 2 == 0,
                );
            }
            if queue.ring.wants_notification() {
                queue.notify()?;
            }
            while queue.ring.out() > 0 {
                if queue.ring.take()?.is_none() {
                    event.wait().with_context(|| {
                        format!("{} of round {round} are out", queue.ring.out())
                    })?;
                }
            }
            for slot in 0..DEPTH {
                equal(format!("the answer in slot {slot}"), queue.answer(slot), OK)?;
                if writes {
                    let bytes = pattern(PAGE, round * 31 + slot as u64 + base);
                    let found = queue.memory.get(data + slot * PAGE, PAGE);
                    same_bytes(format!("round {round}, slot {slot}"), &found, &bytes)?;
                }
            }
        }
        round += 1;
    }
    Ok(round)
}

fn queues_are_served_for_a_thread_each() -> Result<()> {
    let instance = instance(&[("capacity-mib", "4"), ("num-queues", "4")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let events = &disk.events[1..];
    let never = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = disk
            .queues
            .iter_mut()
            .zip(events)
            .map(|(queue, event)| scope.spawn(|| work(queue, event, 20, &never)))
            .collect();
        for thread in threads {
            equal("rounds", thread.join().expect("no panic")?, 20)?;
        }
        anyhow::Ok(())
    })?;
    equal("queues", disk.queues.len(), QUEUES)?;
    drop(disk);
    instance.remove()
}

/// A thread adds requests as fast as places are free, and notifies as it is asked; another one looks for completions.
fn a_queue_that_is_always_full_forgets_nothing() -> Result<()> {
    const REQUESTS: u32 = 3000;
    let instance = instance(&[("capacity-mib", "1"), ("queue-size", "16")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let device = disk.device.clone();
    let kicks = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    let (mut added, mut done) = (0, 0);
    thread::scope(|scope| -> Result<()> {
        // Notifications are another thread's, so that the ring fills while it is served.
        let kicker = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Acquire) {
                match kicks.swap(false, Ordering::AcqRel) {
                    true => set(&device, NOTIFY, 2, 0)?,
                    false => thread::park(),
                }
            }
            Ok(())
        });
        let event = &disk.events[1];
        let queue = &mut disk.queues[0];
        let mut drive = || -> Result<()> {
            while done < REQUESTS {
                while added < REQUESTS && queue.ring.free() > 0 {
                    queue.add(added as usize % 16, FLUSH, 0, &[], true);
                    added += 1;
                }
                if queue.ring.wants_notification() {
                    kicks.store(true, Ordering::Release);
                    kicker.thread().unpark();
                }
                let before = done;
                while queue.ring.take()?.is_some() {
                    done += 1;
                }
                if done == before {
                    event
                        .wait()
                        .with_context(|| format!("{done} are done of {added}"))?;
                }
            }
            Ok(())
        };
        let driven = drive();
        over.store(true, Ordering::Release);
        kicker.thread().unpark();
        kicker.join().expect("no panic")?;
        driven
    })?;
    equal("requests", (added, done), (REQUESTS, REQUESTS))?;
    drop((disk, device));
    instance.remove()
}

fn resets_during_requests_leave_a_disk_that_works() -> Result<()> {
    let instance = instance(&[("capacity-mib", "4"), ("num-queues", "2")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    for turn in 0..40 {
        let device = disk.device.clone();
        let queues = &mut disk.queues;
        thread::scope(|scope| -> Result<()> {
            let notifier = scope.spawn(move || -> Result<()> {
                for queue in queues.iter_mut() {
                    for slot in 0..16 {
                        let data = (queue.data() + slot * PAGE, PAGE as u32, slot % 2 == 0);
                        let kind = if slot % 2 == 0 { IN } else { OUT };
                        queue.add(slot, kind, slot as u64 * 8, &[data], true);
                    }
                    queue.notify()?;
                }
                Ok(())
            });
            match turn % 2 {
                0 => device.reset().named("VFIO_DEVICE_RESET")?,
                _ => set(&device, COMMON + 20, 1, 0)?,
            }
            // Nothing is in flight after a reset of the user's, and a guest's is complete when its status reads 0.
            if turn % 2 == 0 {
                equal("the status", status(&device)?, 0)?;
            }
            notifier.join().expect("no panic")
        })?;
        disk.start()?;
        disk.route()?;
        for queue in &mut disk.queues {
            let bytes = pattern(SECTOR, turn);
            queue.write(turn, &bytes)?;
            same_bytes("a sector", &queue.read(turn, SECTOR)?, &bytes)?;
        }
    }
    drop(disk);
    instance.remove()
}

fn states_change_during_requests_and_none_is_lost() -> Result<()> {
    let instance = instance(&[("capacity-mib", "4"), ("num-queues", "2")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let device = disk.device.clone();
    let over = AtomicBool::new(false);
    let events = &disk.events[1..];
    let queues = &mut disk.queues;
    thread::scope(|scope| {
        let threads: Vec<_> = queues
            .iter_mut()
            .zip(events)
            .map(|(queue, event)| scope.spawn(|| work(queue, event, u64::MAX, &over)))
            .collect();
        let change = || -> Result<()> {
            for turn in 0..60 {
                for state in [
                    State::RunningP2p,
                    State::Stop,
                    State::RunningP2p,
                    State::Running,
                ] {
                    device
                        .switch(state)
                        .named(format!("{state:?} in turn {turn}"))?;
                }
                // Pre-copy and back: what was being sent is of no interest any longer.
                let data = device.start(State::PreCopy).named("PRE_COPY")?;
                let mut bytes = [0; 4096];
                match data.read(&mut bytes) {
                    Ok(_) | Err(Errno::ENOMSG) => {}
                    Err(error) => bail!("reading in pre-copy: {error}"),
                }
                device.switch(State::Running).named("RUNNING")?;
            }
            Ok(())
        };
        let changed = change();
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            ensure!(thread.join().expect("no panic")? > 0, "no request was made");
        }
        changed
    })?;
    drop((disk, device));
    instance.remove()
}
