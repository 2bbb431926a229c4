// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Streams that the destination does not take, and what becomes of both sides.

use super::bench::*;
use super::client::{stream, Carrier, Client};
use super::region::*;
use crate::ktap::Suite;
use crate::stream_forge::{Param, Stream};
use crate::v2_api::card::Card;
use crate::v2_api::check::{equal, refused, same_bytes, Named};
use crate::vfio::Errno;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_card_with_other_ports_refuses_in_pre_copy_and_the_source_goes_on,
        a_card_with_other_ports_refuses_in_stop_and_copy_and_the_source_goes_on,
        a_source_of_another_model_is_refused,
        an_unknown_parameter_is_refused,
        a_damaged_stream_is_refused,
        nothing_is_taken_after_a_refusal,
        a_refused_destination_can_be_used_after_a_reset,
    );
}

/// Hands `piece` in; the error is that of the write of `data_size`.
fn hand_in(region: &Region<'_>, piece: &[u8]) -> anyhow::Result<crate::vfio::Result<()>> {
    Client::new(*region, Carrier::Words).load_record(piece)
}

/// Checks that `card`, which was in RESUMING with registers `before`, refused a piece with EINVAL and says why.
fn refuses(card: &Card, piece: &[u8], before: &[u8], reason: &[&str]) -> anyhow::Result<()> {
    let region = Region::find(card)?;
    refused("data_size", hand_in(&region, piece)?, Errno::EINVAL)?;
    equal("state after the refusal", region.state(), Ok(RESUMING))?;
    let text = card.reason();
    for part in reason {
        anyhow::ensure!(
            text.contains(part),
            "the reason is {text:?}, without {part:?}"
        );
    }
    anyhow::ensure!(!text.is_empty(), "no reason");
    same_bytes(
        "registers after the refusal",
        &card.plain_registers()?,
        before,
    )
}

fn a_card_with_other_ports_refuses_in_pre_copy_and_the_source_goes_on() -> anyhow::Result<()> {
    for (ports, others) in [(1, 2), (2, 1), (4, 2), (2, 4)] {
        let (source, destination) = (filled(ports)?, card(others)?);
        let mut out = Client::new(Region::find(&source)?, Carrier::Words);
        let into = Client::new(Region::find(&destination)?, Carrier::Words);
        into.load_setup()?;
        let before = destination.plain_registers()?;
        out.save_setup()?;
        out.save_pending()?;
        let record = out.save_iterate()?.unwrap_or_default();
        let count = format!("source has {ports}");
        refuses(&destination, &record, &before, &["num-ports", &count])?;
        // QEMU's destination ends; its source is told, and goes on.
        equal("state of the source", out.region.state(), Ok(PRE_COPY))?;
        out.cancelled()?;
        has_content(&source, 0x41)?;
        works(&source)?;
    }
    Ok(())
}

fn a_card_with_other_ports_refuses_in_stop_and_copy_and_the_source_goes_on() -> anyhow::Result<()> {
    let (source, destination) = (filled(1)?, card(2)?);
    let mut out = Client::new(Region::find(&source)?, Carrier::Words);
    let into = Client::new(Region::find(&destination)?, Carrier::Words);
    into.load_setup()?;
    let before = destination.plain_registers()?;
    // No pre-copy: a paused machine, or a user that skips it.
    out.vm_stop()?;
    out.save_setup()?;
    out.save_pending()?;
    let record = out.save_iterate()?.unwrap_or_default();
    refuses(
        &destination,
        &record,
        &before,
        &["num-ports", "source has 1"],
    )?;
    equal("state of the source", out.region.state(), Ok(SAVING))?;
    out.cancelled()?;
    has_content(&source, 0x41)?;
    works(&source)
}

/// The whole stream of a filled one-port card, taken apart.
fn forged() -> anyhow::Result<Stream> {
    let source = filled(1)?;
    Stream::parse(&stream(&save_live(&Region::find(&source)?)?))
}

/// Checks that a new one-port card refuses `bytes`.
fn new_card_refuses(bytes: &[u8], reason: &[&str]) -> anyhow::Result<()> {
    let card = card(1)?;
    let before = card.plain_registers()?;
    reach(&Region::find(&card)?, RESUMING)?;
    refuses(&card, bytes, &before, reason)
}

fn a_source_of_another_model_is_refused() -> anyhow::Result<()> {
    let other = forged()?.with_setup(|setup| setup.model = b"example.org/other".to_vec());
    new_card_refuses(&other.encode(), &["example.org/other"])
}

fn an_unknown_parameter_is_refused() -> anyhow::Result<()> {
    let more = forged()?.with_setup(|setup| setup.params.push(Param::int("turbo", 3)));
    new_card_refuses(&more.encode(), &["turbo"])
}

fn a_damaged_stream_is_refused() -> anyhow::Result<()> {
    let good = forged()?;
    new_card_refuses(&good.with_setup(|setup| setup.damage = 1).encode(), &[])?;
    new_card_refuses(
        &good.with_section(1, |section| section.damage = 1).encode(),
        &[],
    )?;
    new_card_refuses(&[0x55; 64], &[])?;
    let twice = [good.encode(), good.encode()].concat();
    new_card_refuses(&twice, &[])
}

fn nothing_is_taken_after_a_refusal() -> anyhow::Result<()> {
    let good = forged()?.encode();
    let card = card(1)?;
    let region = Region::find(&card)?;
    reach(&region, RESUMING)?;
    refused("garbage", hand_in(&region, &[0x55; 64])?, Errno::EINVAL)?;
    let reason = card.reason();
    for _ in 0..2 {
        refused(
            "a good stream afterwards",
            hand_in(&region, &good)?,
            Errno::ENODEV,
        )?;
    }
    equal("the reason, which is the first", card.reason(), reason)?;
    refused("100 -> 001", region.set_state(RUNNING), Errno::EINVAL)?;
    equal("state", region.state(), Ok(RESUMING))
}

fn a_refused_destination_can_be_used_after_a_reset() -> anyhow::Result<()> {
    let good = forged()?.encode();
    let card = card(1)?;
    let region = Region::find(&card)?;
    reach(&region, RESUMING)?;
    refused("garbage", hand_in(&region, &[0x55; 64])?, Errno::EINVAL)?;
    card.reset().named("reset")?;
    Client::new(region, Carrier::Words).load(&[good])?;
    has_content(&card, 0x41)?;
    works(&card)
}
