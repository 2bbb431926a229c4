// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the tests of the migration region do again and again.

use super::client::{stream, Carrier, Client};
use super::region::{Region, PRE_COPY, RESUMING, RUNNING, SAVING, STOP};
use crate::v2_api::card::Card;
use crate::v2_api::check::{equal, refused, same_bytes, Named};
use crate::v2_api::uart::SCR;
use crate::vfio::interrupt::INTX;
use crate::vfio::{Access, Errno, IrqSet, State};

/// The states a user can reach, by the bits that user space sees.
pub const STATES: [u32; 5] = [STOP, RUNNING, SAVING, PRE_COPY, RESUMING];

/// A state for people.
pub fn name(state: u32) -> String {
    format!("{state:03b}")
}

/// The state that protocol v2 shows for it.
pub fn as_v2(state: u32) -> State {
    match state {
        STOP => State::Stop,
        RUNNING => State::Running,
        SAVING => State::StopCopy,
        PRE_COPY => State::PreCopy,
        RESUMING => State::Resuming,
        _ => State::Error,
    }
}

/// A new card with `ports` ports, opened as QEMU 7.2 opens it: by its group, in a type1 container.
pub fn card(ports: u32) -> anyhow::Result<Card> {
    Card::opened(ports, Access::Group)
}

/// A card with something in every register and queue, whose state does not change by itself: the receiver is at its
/// trigger level, so that no character time-out is due.
pub fn filled(ports: u32) -> anyhow::Result<Card> {
    let card = card(ports)?;
    fill(&card, 0x41)?;
    Ok(card)
}

/// Gives each port a register and characters that start with `first`.
pub fn fill(card: &Card, first: u8) -> anyhow::Result<()> {
    let event = card.enable(INTX)?;
    for number in 0..card.ports {
        let line = card.line(number, &event);
        line.port.set_up(0)?;
        line.port.set(SCR, first + 0x20 + number as u8)?;
        line.send(&content(number, first))?;
    }
    card.set_irqs(&IrqSet::disable(INTX)).named("disable INTx")
}

/// The characters of [`fill`]: more than the receiver holds.
pub fn content(port: u32, first: u8) -> Vec<u8> {
    (0..40)
        .map(|index| first.wrapping_add(port as u8 * 40 + index))
        .collect()
}

/// Checks that a card that runs has what [`fill`] gave it, and works.
pub fn has_content(card: &Card, first: u8) -> anyhow::Result<()> {
    let event = card.enable(INTX)?;
    for number in 0..card.ports {
        let line = card.line(number, &event);
        equal("SCR", line.port.get(SCR)?, first + 0x20 + number as u8)?;
        let wanted = content(number, first);
        let got = line.receive(wanted.len())?;
        same_bytes(format!("characters of port {number}"), &got, &wanted)?;
        line.echo(b"in order")?;
    }
    card.set_irqs(&IrqSet::disable(INTX)).named("disable INTx")
}

/// Checks that a card is in order: it runs, nobody owns it, it echoes, and can be saved by both protocols.
pub fn works(card: &Card) -> anyhow::Result<()> {
    let region = Region::find(card)?;
    equal("state of the card", region.state(), Ok(RUNNING))?;
    equal("pending_bytes of the card", region.pending(), Ok(0))?;
    let event = card.enable(INTX)?;
    for number in 0..card.ports {
        let line = card.line(number, &event);
        line.port.set_up(0)?;
        line.echo(b"in order")?;
    }
    card.set_irqs(&IrqSet::disable(INTX))
        .named("disable INTx")?;
    let by_v2 = card.stop_and_save()?;
    card.switch(State::Running).named("to RUNNING")?;
    let by_v1 = save_stopped(&region)?;
    region.set_state(RUNNING).named("RUNNING")?;
    same_bytes("the state saved by v1 and by v2", &by_v1, &by_v2)
}

/// Brings a device that runs into `state`.
pub fn reach(region: &Region<'_>, state: u32) -> anyhow::Result<()> {
    equal("state before", region.state(), Ok(RUNNING))?;
    region
        .set_state(state)
        .named(format!("001 -> {}", name(state)))?;
    equal("state", region.state(), Ok(state))
}

/// Stops a device without pre-copy and reads its whole state; it is in STOP afterwards.
pub fn save_stopped(region: &Region<'_>) -> anyhow::Result<Vec<u8>> {
    let mut client = Client::new(*region, Carrier::Steps(usize::MAX));
    client.vm_stop_for_savevm()?;
    Ok(stream(&client.complete_precopy()?))
}

/// A whole stream with pre-copy, from a device that runs; it is in STOP afterwards.
pub fn save_live(region: &Region<'_>) -> anyhow::Result<Vec<Vec<u8>>> {
    Client::new(*region, Carrier::Words).save_live()
}

/// Checks that nothing is offered: no bytes pend, and neither their place nor their number is told.
pub fn offers_nothing(what: &str, region: &Region<'_>) -> anyhow::Result<()> {
    equal(format!("{what}: pending_bytes"), region.pending(), Ok(0))?;
    offers_no_piece(what, region)
}

/// Checks that the place and number of pending bytes are not told, and none can be read.
pub fn offers_no_piece(what: &str, region: &Region<'_>) -> anyhow::Result<()> {
    refused(
        format!("{what}: data_offset"),
        region.data_offset(),
        Errno::EINVAL,
    )?;
    refused(
        format!("{what}: data_size"),
        region.data_size(),
        Errno::EINVAL,
    )?;
    for length in [1, 8, 64] {
        refused(
            format!("{what}: {length} bytes of the data section"),
            region.get(region.data.offset, length),
            Errno::EINVAL,
        )?;
    }
    Ok(())
}
