// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Interrupts: a message for each queue, kept while it leads nowhere, and the pin without MSI-X.

use std::sync::Arc;

use anyhow::Result;

use super::disk::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::check::{equal, Named};
use crate::vfio::interrupt::{INTX, MSIX, TRIGGER, UNMASK};
use crate::vfio::{Access, Event, IrqSet};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(suite, a_queue_interrupts_by_its_vector);
    tests!(
        suite,
        a_message_is_kept_while_it_leads_nowhere,
        a_driver_that_wants_no_interrupts_gets_none,
        without_msix_the_pin_is_asserted_until_the_isr_is_read,
        a_ring_that_makes_no_sense_is_told_by_the_first_vector,
        one_eventfd_may_be_swapped_without_losing_a_message,
    );
}

fn counts(disk: &Disk) -> Result<Vec<u64>> {
    disk.events.iter().map(Event::count).collect()
}

fn a_queue_interrupts_by_its_vector(access: Access) -> Result<()> {
    let instance = instance(&[("capacity-mib", "1"), ("num-queues", "3")])?;
    let mut disk = Disk::new(access, &instance)?;
    equal("vectors", disk.events.len(), 4)?;
    for index in [2, 0, 1, 1] {
        disk.queues[index].request(FLUSH, 0, &[], true)?;
        let mut wanted = vec![0; 4];
        wanted[index + 1] = 1;
        equal(
            format!("interrupts for queue {index}"),
            counts(&disk)?,
            wanted,
        )?;
    }
    // One tells of all that a notification started.
    let queue = &mut disk.queues[0];
    for slot in 0..20 {
        queue.add(slot, FLUSH, 0, &[], slot % 2 == 0);
    }
    queue.notify()?;
    for slot in 0..20 {
        let done = queue.ring.take()?.map(|_| queue.answer(slot));
        equal(format!("request {slot}"), done, Some(OK))?;
    }
    equal(
        "interrupts for 20 requests",
        counts(&disk)?,
        vec![0, 1, 0, 0],
    )?;
    drop(disk);
    instance.remove()
}

fn a_message_is_kept_while_it_leads_nowhere() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    // What a monitor does that takes a vector away, and what one does that sets all of them up again.
    for disable in [false, true] {
        match disable {
            false => set_event(&disk.device, 1, None)?,
            true => disk
                .device
                .set_irqs(&IrqSet::disable(MSIX))
                .named("disabling MSI-X")?,
        }
        disk.queue().request(FLUSH, 0, &[], true)?;
        disk.queue().request(FLUSH, 0, &[], true)?;
        equal("interrupts of old eventfds", counts(&disk)?, vec![0, 0])?;
        disk.route()?;
        equal("interrupts of new eventfds", counts(&disk)?, vec![0, 1])?;
        disk.route()?;
        equal("and of the next ones", counts(&disk)?, vec![0, 0])?;
    }
    drop(disk);
    instance.remove()
}

fn a_driver_that_wants_no_interrupts_gets_none() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let (memory, driver) = (disk.memory.clone(), disk.queue().ring.driver());
    memory.put(driver + 2, &[1]);
    disk.queue().request(FLUSH, 0, &[], true)?;
    equal("interrupts that are not wanted", counts(&disk)?, vec![0, 0])?;
    memory.put(driver + 2, &[0]);
    disk.queue().request(FLUSH, 0, &[], true)?;
    equal("interrupts that are", counts(&disk)?, vec![0, 1])?;
    drop(disk);
    instance.remove()
}

fn without_msix_the_pin_is_asserted_until_the_isr_is_read() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let memory = memory()?;
    let device = open(kernel::usual_access(), &instance, &memory)?;
    let mut disk = Disk {
        device: Arc::clone(&device),
        memory,
        queues: Vec::new(),
        events: Vec::new(),
    };
    disk.start()?;
    let written = device.write(CONFIG, 0x42, &[0, 0]).named("MSI-X off")?;
    equal("bytes written", written, 2)?;
    let event = Event::new()?;
    device
        .set_irqs(&IrqSet::eventfd(INTX, TRIGGER, event.number()))
        .named("an eventfd for INTx")?;
    disk.queue().request(FLUSH, 0, &[], false)?;
    equal("interrupts", event.count()?, 1)?;
    // It is masked now; unmasking it while it is asserted signals again.
    let unmask = || {
        device
            .set_irqs(&IrqSet::none(INTX, UNMASK))
            .named("unmasking")
    };
    unmask()?;
    equal("interrupts while the cause is there", event.count()?, 1)?;
    equal("the ISR", get(&device, ISR, 1)?, 1)?;
    equal("the ISR when it was read", get(&device, ISR, 1)?, 0)?;
    unmask()?;
    equal("interrupts without a cause", event.count()?, 0)?;
    drop((disk, device));
    instance.remove()
}

fn a_ring_that_makes_no_sense_is_told_by_the_first_vector() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    // A header, and nothing where an answer could go.
    let queue = disk.queue();
    let data = queue.data();
    queue.ring.add(&[(data, 16, false)], None);
    queue.notify()?;
    equal("the status", status(&disk.device)?, READY | NEEDS_RESET)?;
    equal("interrupts", counts(&disk)?, vec![1, 0])?;
    disk.start()?;
    equal(
        "after a reset",
        disk.queue().request(FLUSH, 0, &[], true)?,
        (1, OK),
    )?;
    drop(disk);
    instance.remove()
}

/// As a monitor does that has KVM deliver a vector, or no longer, while the guest works.
fn one_eventfd_may_be_swapped_without_losing_a_message() -> Result<()> {
    const REQUESTS: u64 = 300;
    let instance = instance(&[("capacity-mib", "1")])?;
    let disk = Disk::new(kernel::usual_access(), &instance)?;
    let Disk {
        device,
        mut queues,
        events,
        ..
    } = disk;
    let mut queue = queues.remove(0);
    let swapped = Event::new()?;
    let events = [&events[1], &swapped];
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let swapper = scope.spawn(|| -> Result<()> {
            let mut turn = 0;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                set_event(&device, 1, Some(events[turn % 2]))?;
                set_event(&device, 1, None)?;
                turn += 1;
            }
            set_event(&device, 1, Some(events[0]))
        });
        // Each request is told of before the next one is made: none is lost, wherever it arrives.
        let mut told = || -> Result<()> {
            for request in 0..REQUESTS {
                queue.add(0, FLUSH, 0, &[], true);
                queue.notify()?;
                anyhow::ensure!(
                    queue.ring.take()?.is_some(),
                    "request {request} is not done"
                );
                wait_for_either(events)
                    .map_err(|error| error.context(format!("request {request}")))?;
            }
            Ok(())
        };
        let told = told();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        swapper.join().expect("no panic")?;
        told
    })?;
    drop((device, queue, queues));
    instance.remove()
}

/// Waits until one of two eventfds is signalled, and takes that.
fn wait_for_either(events: [&Event; 2]) -> Result<()> {
    use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
    use std::os::fd::AsFd;
    let time = crate::ktap::scaled(crate::vfio::event_fd::DEADLINE);
    let mut list = events.map(|event| PollFd::new(event.as_fd(), PollFlags::POLLIN));
    let ready = poll(&mut list, PollTimeout::try_from(time)?)?;
    anyhow::ensure!(ready > 0, "no interrupt");
    for event in events {
        event.count()?;
    }
    Ok(())
}
