// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Unmasking INTx by an eventfd: what KVM needs to deliver the interrupt by itself, and what a card refuses unless its instance
//! was told to allow it.

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::Context;

use super::card::{card_type, Card, UNMASK_EVENTFD};
use super::check::{equal, refused, Named};
use super::interrupts::{raise, serve, unmask};
use crate::kernel;
use crate::ktap::Suite;
use crate::vfio::interrupt::{INTX, UNMASK};
use crate::vfio::{Errno, Event, IrqSet};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        an_unmask_eventfd_is_refused_unless_it_was_asked_for,
        the_choice_is_the_instances_and_outlives_its_users,
        the_choice_is_not_changed_under_a_user,
        a_text_that_is_no_choice_is_refused,
        an_eventfd_unmasks_intx,
        an_eventfd_signalled_before_it_is_set_unmasks_intx,
        a_second_unmask_eventfd_is_refused_until_the_first_is_gone,
        an_unmask_eventfd_ends_with_intx,
        an_eventfd_that_unmasks_what_it_signals_leaves_the_kernel_free,
        cards_that_unmask_each_other_leave_the_kernel_free,
        an_interrupt_is_not_lost_after_many_unmasks,
    );
}

/// Sets an eventfd that unmasks INTx.
fn watch(card: &Card, event: &Event) -> Result<(), Errno> {
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, event.number()))
}

fn an_unmask_eventfd_is_refused_unless_it_was_asked_for() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let (event, resample) = (card.enable(INTX)?, Event::new()?);
    refused("an unmask eventfd", watch(&card, &resample), Errno::ENOTTY)?;
    // To take away what is not there is no error, as with vfio-pci.
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, -1))
        .named("taking an unmask eventfd away")?;
    // Nothing came of it, and the interrupt is as it was.
    raise(&card, 0)?;
    equal("signals", event.wait()?, 1)?;
    resample.signal()?;
    equal("the eventfd's count", resample.count()?, 1)?;
    unmask(&card)?;
    equal("signals after an unmask without eventfd", event.wait()?, 1)?;
    serve(&card, 0)
}

fn the_choice_is_the_instances_and_outlives_its_users() -> anyhow::Result<()> {
    let instance = card_type(1)?.create()?;
    equal(
        "at first",
        instance.attribute(UNMASK_EVENTFD)?,
        "off".to_string(),
    )?;
    instance.set_attribute(UNMASK_EVENTFD, "on\n")?;
    let mut card = Card::of(instance, 1, kernel::usual_access())?;
    for access in kernel::accesses() {
        let _event = card.enable(INTX)?;
        watch(&card, &Event::new()?).named("an unmask eventfd")?;
        card = card.reopen(access)?;
    }
    let instance = card.close();
    equal(
        "afterwards",
        instance.attribute(UNMASK_EVENTFD)?,
        "on".to_string(),
    )?;
    instance.set_attribute(UNMASK_EVENTFD, "off")?;
    let card = Card::of(instance, 1, kernel::usual_access())?;
    let _event = card.enable(INTX)?;
    refused("turned off", watch(&card, &Event::new()?), Errno::ENOTTY)
}

/// Writes the choice and sees it refused, with this errno and this reason.
fn choice_refused(card: &Card, text: &str, errno: Errno, reason: &str) -> anyhow::Result<()> {
    let error = card.instance.set_attribute(UNMASK_EVENTFD, text).err();
    equal(
        format!("write of {text:?}"),
        error.as_ref().and_then(io::Error::raw_os_error),
        Some(errno as i32),
    )?;
    equal("the reason", card.reason(), reason.to_string())?;
    equal(
        "the choice",
        card.instance.attribute(UNMASK_EVENTFD)?,
        "off".to_string(),
    )
}

fn the_choice_is_not_changed_under_a_user() -> anyhow::Result<()> {
    let reason = "intx_unmask_eventfd: cannot change while the device is open";
    choice_refused(&Card::new(1)?, "on", Errno::EBUSY, reason)
}

fn a_text_that_is_no_choice_is_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let reason = "intx_unmask_eventfd: the value is neither 'on' nor 'off'";
    for text in ["1", "On", " on", "on ", "on\n\n", "\n", "onoff"] {
        choice_refused(&card, text, Errno::EINVAL, reason)?;
    }
    Ok(())
}

fn an_eventfd_unmasks_intx() -> anyhow::Result<()> {
    let card = Card::with_unmask_eventfd(1)?;
    let event = card.enable(INTX)?;
    let resample = Event::new()?;
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, resample.number()))
        .named("unmask eventfd")?;
    raise(&card, 0)?;
    event.wait()?;
    for _ in 0..3 {
        resample.signal()?;
        equal("signals after the unmask eventfd", event.wait()?, 1)?;
    }
    serve(&card, 0)?;
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, -1))
        .named("taking the unmask eventfd away")?;
    unmask(&card)?;
    raise(&card, 0)?;
    event.wait()?;
    resample.signal()?;
    equal(
        "signals after the eventfd was taken away",
        event.count()?,
        0,
    )
}

fn an_eventfd_signalled_before_it_is_set_unmasks_intx() -> anyhow::Result<()> {
    let card = Card::with_unmask_eventfd(1)?;
    let event = card.enable(INTX)?;
    raise(&card, 0)?;
    event.wait()?;
    let resample = Event::new()?;
    resample.signal()?;
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, resample.number()))
        .named("unmask eventfd")?;
    equal("signals", event.wait()?, 1)
}

fn a_second_unmask_eventfd_is_refused_until_the_first_is_gone() -> anyhow::Result<()> {
    let card = Card::with_unmask_eventfd(1)?;
    let _event = card.enable(INTX)?;
    let (first, second) = (Event::new()?, Event::new()?);
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, first.number()))
        .named("first")?;
    let result = card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, second.number()));
    refused("second", result, Errno::EBUSY)?;
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, -1))
        .named("taking the first away")?;
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, second.number()))
        .named("second, alone")
}

fn an_unmask_eventfd_ends_with_intx() -> anyhow::Result<()> {
    let card = Card::with_unmask_eventfd(1)?;
    let _event = card.enable(INTX)?;
    let resample = Event::new()?;
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, resample.number()))
        .named("unmask eventfd")?;
    card.set_irqs(&IrqSet::disable(INTX)).named("disable")?;
    let event = card.enable(INTX).named("enable again")?;
    raise(&card, 0)?;
    event.wait()?;
    resample.signal()?;
    equal("signals after the old unmask eventfd", event.count()?, 0)?;
    card.set_irqs(&IrqSet::eventfd(INTX, UNMASK, resample.number()))
        .named("unmask eventfd again")
}

/// How long the kernel's workers are watched.
const WINDOW: Duration = Duration::from_secs(2);

/// Processor time that all workers of the kernel together have used so far, in ticks of user space's clock (proc_pid_stat(5)).
fn worker_ticks() -> anyhow::Result<u64> {
    let mut sum = 0;
    for process in fs::read_dir("/proc").context("/proc")? {
        // A process may end at any time.
        let Ok(text) = fs::read_to_string(process?.path().join("stat")) else {
            continue;
        };
        let Some((name, fields)) = text.rsplit_once(") ") else {
            continue;
        };
        if name.contains("(kworker/") {
            // State is the first field here; utime and stime are the twelfth and thirteenth.
            let times = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
            sum += times.sum::<Result<u64, _>>().context(text.clone())?;
        }
    }
    Ok(sum)
}

/// Sees that the workers use less than a quarter of one processor.
fn workers_are_free() -> anyhow::Result<()> {
    let per_second = rustix::param::clock_ticks_per_second();
    let before = worker_ticks()?;
    std::thread::sleep(WINDOW);
    let used = worker_ticks()? - before;
    anyhow::ensure!(
        used * 4 < per_second * WINDOW.as_secs(),
        "the kernel's workers were busy for {used} of {} ticks",
        per_second * WINDOW.as_secs()
    );
    Ok(())
}

fn an_eventfd_that_unmasks_what_it_signals_leaves_the_kernel_free() -> anyhow::Result<()> {
    let card = Card::with_unmask_eventfd(1)?;
    let event = card.enable(INTX)?;
    watch(&card, &event).named("the trigger as unmask eventfd")?;
    raise(&card, 0)?;
    workers_are_free()?;
    serve(&card, 0)
}

fn cards_that_unmask_each_other_leave_the_kernel_free() -> anyhow::Result<()> {
    let cards = [Card::with_unmask_eventfd(1)?, Card::with_unmask_eventfd(1)?];
    let events = [cards[0].enable(INTX)?, cards[1].enable(INTX)?];
    watch(&cards[0], &events[1]).named("the second's trigger to unmask the first")?;
    watch(&cards[1], &events[0]).named("the first's trigger to unmask the second")?;
    cards.iter().try_for_each(|card| raise(card, 0))?;
    workers_are_free()?;
    cards.iter().try_for_each(|card| serve(card, 0))
}

fn an_interrupt_is_not_lost_after_many_unmasks() -> anyhow::Result<()> {
    let card = Card::with_unmask_eventfd(1)?;
    let (event, resample) = (card.enable(INTX)?, Event::new()?);
    watch(&card, &resample).named("unmask eventfd")?;
    raise(&card, 0)?;
    event.wait()?;
    // More than go at full speed: nobody serves the interrupt, and it comes again each time.
    for _ in 0..150 {
        resample.signal()?;
        equal("signals after the unmask eventfd", event.wait()?, 1)?;
    }
    serve(&card, 0)?;
    resample.signal()?;
    raise(&card, 0)?;
    equal("signals of the next interrupt", event.wait()?, 1)?;
    serve(&card, 0)
}
