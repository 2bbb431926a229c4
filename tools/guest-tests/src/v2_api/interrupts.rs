// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Interrupts that the UARTs raise, on their way to the user: INTx with its masks, and MSI.

use super::card::{config, Card};
use super::check::{equal, refused, Named};
use super::uart::{IER, IER_EMPTY, IIR, IIR_EMPTY};
use crate::ktap::Suite;
use crate::vfio::interrupt::{INTX, MASK, MSI, TRIGGER, UNMASK};
use crate::vfio::{Access, Errno, IrqSet};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        a_uart_interrupt_arrives_by_intx,
        a_uart_interrupt_arrives_by_msi
    );
    tests!(
        suite,
        intx_masks_itself_when_it_is_signalled,
        intx_is_signalled_again_when_unmasked_while_asserted,
        intx_is_not_signalled_when_unmasked_after_it_was_served,
        intx_masked_by_the_user_waits_for_the_unmask,
        intx_that_went_away_while_masked_is_not_signalled,
        intx_asserted_before_it_is_enabled_is_signalled_at_once,
        false_neither_masks_nor_unmasks_intx,
        every_port_shares_the_one_intx,
        intx_disabled_in_the_command_register_is_silent,
        intx_stays_configured_across_a_reset,
        msi_is_signalled_once_for_each_interrupt,
        intx_is_silent_while_msi_is_in_use,
    );
}

/// Makes port `port` raise "transmitter empty".
pub(super) fn raise(card: &Card, port: u32) -> anyhow::Result<()> {
    card.port(port).set(IER, 0)?;
    card.port(port).set(IER, IER_EMPTY)
}

/// Serves "transmitter empty" of port `port`: reading its identification clears it.
pub(super) fn serve(card: &Card, port: u32) -> anyhow::Result<()> {
    equal(
        "interrupt identification",
        card.port(port).interrupt()?,
        IIR_EMPTY,
    )
}

/// Unmasks INTx.
pub(super) fn unmask(card: &Card) -> anyhow::Result<()> {
    card.set_irqs(&IrqSet::none(INTX, UNMASK)).named("unmask")
}

fn a_uart_interrupt_arrives_by_intx(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(1, access)?;
    let event = card.enable(INTX)?;
    equal("signals before", event.count()?, 0)?;
    raise(&card, 0)?;
    equal("signals", event.wait()?, 1)?;
    serve(&card, 0)
}

fn a_uart_interrupt_arrives_by_msi(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(1, access)?;
    card.enable_msi()?;
    let event = card.enable(MSI)?;
    equal("signals before", event.count()?, 0)?;
    raise(&card, 0)?;
    equal("signals", event.wait()?, 1)?;
    serve(&card, 0)
}

fn intx_masks_itself_when_it_is_signalled() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    raise(&card, 0)?;
    event.wait()?;
    for _ in 0..3 {
        serve(&card, 0)?;
        raise(&card, 0)?;
    }
    equal("signals while masked", event.count()?, 0)
}

fn intx_is_signalled_again_when_unmasked_while_asserted() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    raise(&card, 0)?;
    event.wait()?;
    for _ in 0..3 {
        unmask(&card)?;
        equal("signals after an unmask", event.wait()?, 1)?;
        card.set_irqs(&IrqSet::boolean(INTX, UNMASK, 1))
            .named("unmask with true")?;
        equal("signals after an unmask with true", event.wait()?, 1)?;
    }
    serve(&card, 0)
}

fn intx_is_not_signalled_when_unmasked_after_it_was_served() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    raise(&card, 0)?;
    event.wait()?;
    serve(&card, 0)?;
    unmask(&card)?;
    equal("signals after the unmask", event.count()?, 0)?;
    raise(&card, 0)?;
    equal("signals of the next interrupt", event.wait()?, 1)
}

fn intx_masked_by_the_user_waits_for_the_unmask() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    for mask in [IrqSet::none(INTX, MASK), IrqSet::boolean(INTX, MASK, 1)] {
        card.set_irqs(&mask).named("mask")?;
        card.set_irqs(&mask).named("mask again")?;
        raise(&card, 0)?;
        equal("signals while masked", event.count()?, 0)?;
        unmask(&card)?;
        equal("signals after the unmask", event.wait()?, 1)?;
        serve(&card, 0)?;
        unmask(&card)?;
    }
    Ok(())
}

fn intx_that_went_away_while_masked_is_not_signalled() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    card.set_irqs(&IrqSet::none(INTX, MASK)).named("mask")?;
    raise(&card, 0)?;
    serve(&card, 0)?;
    unmask(&card)?;
    equal("signals", event.count()?, 0)
}

fn intx_asserted_before_it_is_enabled_is_signalled_at_once() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    raise(&card, 0)?;
    let event = card.enable(INTX)?;
    equal("signals", event.wait()?, 1)?;
    serve(&card, 0)
}

fn false_neither_masks_nor_unmasks_intx() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    card.set_irqs(&IrqSet::boolean(INTX, MASK, 0))
        .named("mask with false")?;
    raise(&card, 0)?;
    equal("signals while not masked", event.wait()?, 1)?;
    card.set_irqs(&IrqSet::boolean(INTX, UNMASK, 0))
        .named("unmask with false")?;
    equal("signals while masked", event.count()?, 0)
}

fn every_port_shares_the_one_intx() -> anyhow::Result<()> {
    let card = Card::new(4)?;
    let event = card.enable(INTX)?;
    for port in 0..4 {
        raise(&card, port)?;
    }
    equal("signals of four ports", event.wait()?, 1)?;
    for port in 0..4 {
        unmask(&card)?;
        equal(
            format!("signals while ports {port} to 3 are asserted"),
            event.wait()?,
            1,
        )?;
        serve(&card, port)?;
    }
    unmask(&card)?;
    equal("signals when all were served", event.count()?, 0)
}

fn intx_disabled_in_the_command_register_is_silent() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    card.set_command(config::COMMAND_IO | config::COMMAND_INTX_OFF)?;
    raise(&card, 0)?;
    unmask(&card)?;
    equal("signals while disabled", event.count()?, 0)?;
    card.set_command(config::COMMAND_IO)?;
    equal("signals when enabled again", event.wait()?, 1)
}

fn intx_stays_configured_across_a_reset() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    raise(&card, 0)?;
    card.reset().named("reset")?;
    // The line fell with the reset; what was signalled before is the user's to serve.
    event.count()?;
    unmask(&card)?;
    equal("signals after reset", event.count()?, 0)?;
    raise(&card, 0)?;
    equal("signals of the next interrupt", event.wait()?, 1)
}

fn msi_is_signalled_once_for_each_interrupt() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.enable_msi()?;
    let event = card.enable(MSI)?;
    for _ in 0..3 {
        raise(&card, 0)?;
        equal("signals of an interrupt", event.wait()?, 1)?;
        card.port(0).get(IIR)?;
        equal("signals after it was served", event.count()?, 0)?;
    }
    card.set_irqs(&IrqSet::eventfd(MSI, TRIGGER, -1))
        .named("descriptor -1")?;
    raise(&card, 0)?;
    equal("signals without an eventfd", event.count()?, 0)
}

fn intx_is_silent_while_msi_is_in_use() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let intx = card.enable(INTX)?;
    refused("MSI beside INTx", card.enable(MSI).map(drop), Errno::EINVAL)?;
    card.set_irqs(&IrqSet::disable(INTX))
        .named("disable INTx")?;
    card.enable_msi()?;
    let msi = card.enable(MSI)?;
    raise(&card, 0)?;
    equal("signals of MSI", msi.wait()?, 1)?;
    equal("signals of INTx", intx.count()?, 0)
}
