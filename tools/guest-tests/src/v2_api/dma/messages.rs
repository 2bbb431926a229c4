// SPDX-License-Identifier: GPL-2.0 OR MIT

//! MSI-X: vectors that are enabled one by one, and messages that nobody took.

use super::super::check::{equal, equal_hex, refused, Named};
use super::super::copier::{driver, Copier, MEMORY, PAGE};
use crate::ktap::Suite;
use crate::vfio::interrupt::{INTX, MASK, MSI, MSIX, TRIGGER, UNMASK};
use crate::vfio::{abi, Access, Errno, Event, IrqSet, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        msix_is_described,
        a_copy_is_signalled_by_a_message,
        a_message_without_an_eventfd_is_kept_until_there_is_one,
        a_message_is_kept_while_messages_are_disabled,
    );
    tests!(
        suite,
        other_interrupts_than_msix_are_refused,
        a_reset_forgets_a_message_and_keeps_the_eventfd,
        a_kept_message_migrates,
    );
}

fn a_copy(copier: &Copier) -> anyhow::Result<()> {
    copier.copies(MEMORY, MEMORY + PAGE, 16)
}

fn msix_is_described(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let irq = copier.irq(MSIX).named("MSI-X")?;
    equal("vectors", irq.count, 1)?;
    // Without VFIO_IRQ_INFO_NORESIZE: that is how vfio-pci says that vectors are enabled one by one.
    equal_hex("flags", irq.flags.into(), abi::VFIO_IRQ_INFO_EVENTFD.into())
}

fn a_copy_is_signalled_by_a_message(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    let event = copier.message()?;
    equal("messages before", event.count()?, 0)?;
    for _ in 0..3 {
        a_copy(&copier)?;
        equal("messages of a copy", event.count()?, 1)?;
    }
    copier
        .set_irqs(&IrqSet::none(MSIX, TRIGGER))
        .named("loop-back")?;
    equal("messages of a loop-back", event.count()?, 1)
}

/// As QEMU 10 enables messages: no vector at first.
fn a_message_without_an_eventfd_is_kept_until_there_is_one(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    copier.silence()?;
    a_copy(&copier)?;
    a_copy(&copier)?;
    let event = copier.message()?;
    equal("messages that were kept", event.count()?, 1)?;
    copier.silence()?;
    a_copy(&copier)?;
    equal("messages without an eventfd", event.count()?, 0)?;
    let other = copier.message()?;
    equal("messages at another eventfd", other.count()?, 1)?;
    equal("messages at the old one", event.count()?, 0)
}

/// As QEMU 7.2 changes vectors: all are disabled for a moment.
fn a_message_is_kept_while_messages_are_disabled(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    a_copy(&copier)?;
    let event = copier.message()?;
    equal("messages of before", event.count()?, 1)?;
    copier.set_irqs(&IrqSet::disable(MSIX)).named("disable")?;
    a_copy(&copier)?;
    equal("messages while disabled", event.count()?, 0)?;
    refused(
        "a loop-back while disabled",
        copier.set_irqs(&IrqSet::none(MSIX, TRIGGER)),
        Errno::EINVAL,
    )?;
    let event = copier.message()?;
    equal("messages afterwards", event.count()?, 1)
}

fn other_interrupts_than_msix_are_refused() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let event = Event::new()?;
    for index in [INTX, MSI] {
        refused(
            format!("interrupt {index}"),
            copier.set_irqs(&IrqSet::eventfd(index, TRIGGER, event.number())),
            Errno::EINVAL,
        )?;
    }
    for (start, count) in [(1, 1), (0, 2), (u32::MAX, 1)] {
        let set = IrqSet {
            start,
            count,
            data: vec![0xff; 8],
            argsz: abi::IRQ_SET_HEADER as u32 + 8,
            ..IrqSet::eventfd(MSIX, TRIGGER, -1)
        };
        refused(
            format!("vectors {start} and {count} more"),
            copier.set_irqs(&set),
            Errno::EINVAL,
        )?;
    }
    for action in [MASK, UNMASK] {
        refused(
            format!("action {action:#x}"),
            copier.set_irqs(&IrqSet::none(MSIX, action)),
            Errno::ENOTTY,
        )?;
    }
    let event = copier.message()?;
    a_copy(&copier)?;
    equal("messages", event.count()?, 1)
}

fn a_reset_forgets_a_message_and_keeps_the_eventfd() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    a_copy(&copier)?;
    copier.reset().named("reset")?;
    let event = copier.message()?;
    equal("messages of before the reset", event.count()?, 0)?;
    copier.reset().named("reset again")?;
    a_copy(&copier)?;
    equal("messages after it", event.count()?, 1)
}

fn a_kept_message_migrates() -> anyhow::Result<()> {
    let driver = driver()?;
    let access = crate::kernel::usual_access();
    let source = Copier::opened(&driver, access)?;
    let destination = Copier::opened(&driver, access)?;
    a_copy(&source)?;
    let out = source.start(State::StopCopy).named("to STOP_COPY")?;
    let into = destination.start(State::Resuming).named("to RESUMING")?;
    // Before the state is there, as QEMU does: it enables interrupts when it loads the configuration space.
    let event = destination.message()?;
    into.write_all(&out.read_all(64).named("read")?, 64)
        .named("write")?;
    destination.switch(State::Stop).named("to STOP")?;
    equal("messages before it runs", event.count()?, 0)?;
    destination.switch(State::Running).named("to RUNNING")?;
    equal("messages", event.count()?, 1)?;
    equal("copies", destination.count()?, 1)
}
