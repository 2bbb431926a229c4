// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Users that make mistakes or mean harm. The numbers in the names are those of the list of hostile cases in the project's
//! notes on the protocol: 21 to 51 are about version 2.

use super::card::Card;
use super::check::{equal, same_bytes, Named};
use crate::ktap::Suite;
use crate::vfio::interrupt::INTX;
use crate::vfio::State;

mod concurrency;
mod framing;
mod logging;
mod requests;
mod session;
mod short;
mod values;

pub(super) fn add(suite: &mut Suite) {
    requests::add(suite);
    session::add(suite);
    framing::add(suite);
    short::add(suite);
    values::add(suite);
    concurrency::add(suite);
    logging::add(suite);
}

/// Checks that a card is in order: it runs, echoes, and can be saved.
fn works(card: &Card) -> anyhow::Result<()> {
    equal("state of the card", card.state(), Ok(State::Running))?;
    let event = card.enable(INTX)?;
    for number in 0..card.ports {
        let line = card.line(number, &event);
        line.port.set_up(0)?;
        line.echo(b"in order")?;
    }
    card.set_irqs(&crate::vfio::IrqSet::disable(INTX))
        .named("disable INTx")?;
    let stream = card.stop_and_save()?;
    anyhow::ensure!(!stream.is_empty(), "an empty state was saved");
    card.switch(State::Running).named("to RUNNING")
}

/// A card with something in every register and queue, stopped, and its state with every field at its place.
fn stopped_with_content(ports: u32) -> anyhow::Result<(Card, Vec<u8>)> {
    stopped_with_content_as(ports, "off")
}

/// The same with parameter `compact-state` as told. The time-out of the receivers is due in twenty seconds.
fn stopped_with_content_as(ports: u32, compact: &str) -> anyhow::Result<(Card, Vec<u8>)> {
    use super::uart::{FCR_TRIGGER_8, IER, IER_MODEM, SCR};
    let card = Card::new(ports)?;
    card.instance
        .set_attribute("migration/compact-state", compact)?;
    let event = card.enable(INTX)?;
    for number in 0..ports {
        let line = card.line(number, &event);
        line.port.set_up(FCR_TRIGGER_8)?;
        line.port.set_divisor(0xffff)?;
        line.port.set(SCR, 0x70 + number as u8)?;
        line.send(&[0x41 + number as u8; 40])?;
        line.port.set(IER, IER_MODEM)?;
    }
    card.set_irqs(&crate::vfio::IrqSet::disable(INTX))
        .named("disable INTx")?;
    let stream = card.stop_and_save()?;
    Ok((card, stream))
}

/// Writes `stream` into `card`, which is in STOP, and expects a refusal that changes nothing and says why.
///
/// The refusal may come from any write, or from leaving RESUMING if every byte was taken. Returns what failed and how.
fn refuses_stream(card: &Card, stream: &[u8], step: usize) -> anyhow::Result<crate::vfio::Errno> {
    let before = card.plain_registers()?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    let written = data.write_all(stream, step);
    let left = card.switch(State::Stop);
    let errno = match (written, left) {
        (Err(errno), Err(left)) => {
            // A refused stream poisons its file, and the session cannot be left.
            equal(
                "leaving RESUMING after a refused write",
                left,
                crate::vfio::Errno::EINVAL,
            )?;
            equal(
                "a further write",
                data.write(&[0]),
                Err(crate::vfio::Errno::ENODEV),
            )?;
            errno
        }
        (Ok(()), Err(errno)) => errno,
        (written, Ok(())) => anyhow::bail!("the stream was accepted (writes: {written:?})"),
    };
    equal("state after the refusal", card.state(), Ok(State::Resuming))?;
    anyhow::ensure!(!card.reason().is_empty(), "no reason was given for {errno}");
    same_bytes(
        "registers after the refusal",
        &card.plain_registers()?,
        &before,
    )?;
    Ok(errno)
}

/// After [`refuses_stream`]: back to STOP, by reset, in power-on state.
fn recover(card: &Card) -> anyhow::Result<()> {
    card.reset().named("reset")?;
    equal("state after reset", card.state(), Ok(State::Running))?;
    card.switch(State::Stop).named("to STOP")
}
