// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Two cards, of which the second refuses the migration; their states travel in QEMU's stream, or through multifd channels.

use anyhow::{ensure, Result};
use qapi::qmp::{
    self, MigrationCapability, MigrationStatus, RunState, VfioMigrationState as State,
};

use super::broken::{gave_up, hold, works, DESTINATION_GONE, SHUT_DOWN, SOURCE_GONE};
use super::cards::Cards;
use super::channels::{see_through_channels, unless_lost_count};
use super::contract::{instance, NEW, REFUSED};
use super::machine::Machine;
use super::scene::{cancel, migration_ends, wait_migration_end, wait_state, Options, Scene};
use super::smooth::{see_through, Pair};
use super::state::names;
use super::tool::prepare;
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;
use crate::mdev::Mdev;

/// What the second card of the destination has to say.
const REASON: &str = "num-ports: source has 2, this device has 4";

/// What a destination says when a card refuses what came through a channel of its own.
const CHANNEL_REFUSED: [&str; 1] = ["writing state buffer"];

/// Both cards' states travel in QEMU's stream.
pub fn refused_and_cancelled(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "two-cards")?;
    attempts(&scene, version, Way::Stream)
}

/// Both cards' states travel through multifd channels.
pub fn through_multifd_channels(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "two-cards-multifd")?;
    let outcome = attempts(&scene, version, Way::Channel);
    unless_lost_count(&scene, outcome)
}

/// How the cards' states travel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Stream,
    Channel,
}

/// Refused in pre-copy, cancelled in pre-copy, refused in stop-and-copy, and then migrated: with each destination but the last the
/// guest goes on at the source, with both cards.
fn attempts(scene: &Scene, version: Version, way: Way) -> Outcome {
    let cards = |second: Mdev| -> Result<Cards> {
        let cards = Cards::of(vec![instance(NEW, "mdev_serial-1", &[])?, second])?;
        let cards = cards.in_qemu(version);
        Ok(match way {
            Way::Stream => cards,
            Way::Channel => cards.with_multifd_transfer(),
        })
    };
    let any = |ports| instance(NEW, "mdev_serial-any", &[("num-ports", ports)]);
    let (here, there) = (cards(any("2")?)?, cards(any("4")?)?);
    let (from, to) = (&here.instances()[1], &there.instances()[1]);
    let mut options = Options::with(&[
        MigrationCapability::return_path,
        MigrationCapability::switchover_ack,
    ]);
    if way == Way::Channel {
        options.capabilities.push(MigrationCapability::multifd);
        // One for memory, and one for each card.
        options.multifd_channels = Some(3);
    }
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(scene, &here, &there)?;
    source.provoke(&DESTINATION_GONE);
    source.provoke(&[SHUT_DOWN]);

    let began = scene.migrate(&source, &destination, &options)?;
    refused(&source, to, began)?;
    never_stopped(scene, &source, began)?;
    gave_up(destination, &REFUSED)?;
    works(&source, &mut guest)?;

    prepare(from, to)?
        .expect(0)?
        .says("prepared: num-ports 4 -> 2")?;
    let destination = scene.start("destination2", &there.waits())?;
    let began = hold(scene, &source, &destination, options.clone())?;
    cancel(&source, began)?;
    never_stopped(scene, &source, began)?;
    gave_up(destination, &SOURCE_GONE)?;
    works(&source, &mut guest)?;

    to.set_attribute("migration/num-ports", "4")?;
    let destination = scene.start("destination3", &there.waits())?;
    source.execute(&qmp::stop {})?;
    let began = scene.migrate(&source, &destination, &options)?;
    // What a channel's thread finds out after the last byte was sent is not told to a source, which may have taken the migration
    // for complete by then. Whoever manages both sees the destination fail, and lets the guest go on.
    let status = wait_migration_end(&source, began)?;
    diag!("refused in stop-and-copy: {}", qapi::Enum::name(&status));
    gave_up(destination, &[&REFUSED[..], &CHANNEL_REFUSED].concat())?;
    reason(to)?;
    source.execute(&qmp::cont {})?;
    works(&source, &mut guest)?;
    for card in 0..source.cards() {
        let states = scene.states(&source, began, card);
        ensure!(
            states.first() == Some(&State::stop_copy) && states.last() == Some(&State::running),
            "card {card} should have gone from stop-copy back to running, not through {}",
            names(&states)
        );
    }

    prepare(from, to)?.expect(0)?;
    let destination = scene.start("destination4", &there.waits())?;
    let began = scene.migrate(&source, &destination, &options)?;
    let measured = match way {
        Way::Stream => see_through(scene, source, &destination, &mut guest, began)?,
        Way::Channel => see_through_channels(scene, source, &destination, &mut guest, began)?,
    };
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    destination.quit()
}

/// The migration fails because the second card of the destination refuses.
fn refused(source: &Machine, to: &Mdev, began: usize) -> Result<()> {
    migration_ends(source, began, MigrationStatus::failed)?;
    reason(to)
}

/// The second card of the destination says why it refused.
fn reason(to: &Mdev) -> Result<()> {
    let reason = to.migration_error()?;
    ensure!(
        reason == REASON,
        "the reason should be {REASON:?} but is {reason:?}"
    );
    Ok(())
}

/// No card of the source was stopped, and all are back in RUNNING.
fn never_stopped(scene: &Scene, source: &Machine, began: usize) -> Result<()> {
    for card in 0..source.cards() {
        wait_state(source, began, card, State::running)?;
        let states = scene.states(source, began, card);
        ensure!(
            states == [State::pre_copy, State::running],
            "card {card} of the source went through {}",
            names(&states)
        );
    }
    source.expect_status(RunState::running)
}
