// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Interrupts that the UARTs raise, on their way to the user: INTx with its masks, and MSI.

use super::card::{config, Card};
use super::check::{equal, refused, Named};
use super::uart::{DATA, IER, IER_DATA, IER_EMPTY, IIR, IIR_EMPTY, LCR, LCR_8N1, LSR, LSR_DATA};
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
        a_byte_that_arrives_while_msi_is_held_back_is_one_message_afterwards,
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

/// Sends a byte, which the far end sends back, and checks that it has arrived.
fn receive(card: &Card) -> anyhow::Result<()> {
    card.port(0).set(DATA, 0x42)?;
    equal("data in LSR", card.port(0).get(LSR)? & LSR_DATA, LSR_DATA)
}

fn a_byte_that_arrives_while_msi_is_held_back_is_one_message_afterwards() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.enable_msi()?;
    let event = card.enable(MSI)?;
    let port = card.port(0);
    port.set(LCR, LCR_8N1)?;
    let control = card.msi_capability()? + 2;
    let enabled = card.config16(control)?;
    let master = config::COMMAND_IO | config::COMMAND_MASTER;

    // What holds a message back: the port's interrupt enables, the capability's enable bit, and bus mastering.
    let in_the_port = |hold: bool| port.set(IER, if hold { 0 } else { IER_DATA });
    let in_the_capability = |hold: bool| {
        let value = if hold {
            enabled & !config::MSI_ENABLE
        } else {
            enabled
        };
        card.set_config(control, &value.to_le_bytes())
    };
    let in_the_command =
        |hold: bool| card.set_command(if hold { config::COMMAND_IO } else { master });
    type Hold<'a> = &'a dyn Fn(bool) -> anyhow::Result<()>;
    let ways: [(&str, Hold); 3] = [
        ("the port", &in_the_port),
        ("the capability", &in_the_capability),
        ("the command register", &in_the_command),
    ];
    for (place, hold) in ways {
        in_the_port(false)?;
        equal(format!("{place}: messages before"), event.count()?, 0)?;
        hold(true)?;
        receive(&card)?;
        equal(format!("{place}: messages held back"), event.count()?, 0)?;
        hold(false)?;
        equal(format!("{place}: messages afterwards"), event.wait()?, 1)?;
        hold(false)?;
        equal(format!("{place}: messages after that"), event.count()?, 0)?;
        equal(format!("{place}: the byte"), port.get(DATA)?, 0x42)?;
        equal(format!("{place}: messages in the end"), event.count()?, 0)?;
    }
    Ok(())
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
