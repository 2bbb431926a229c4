// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Two cards, of which the second refuses the migration; their states travel in QEMU's stream, or through multifd channels.

use std::collections::BTreeSet;

use anyhow::{ensure, Result};
use qapi::qmp::{
    self, MigrationCapability, MigrationStatus, RunState, VfioMigrationState as State,
};

use super::broken::{gave_up, hold, works, DESTINATION_GONE, SHUT_DOWN, SOURCE_GONE};
use super::cards::Cards;
use super::contract::{instance, NEW, REFUSED};
use super::machine::Machine;
use super::scene::{cancel, migration_ends, wait_migration_end, wait_state, Options, Scene};
use super::smooth::{see_through, Pair};
use super::state::names;
use super::timeline::What;
use super::tool::prepare;
use super::version::Version;
use crate::diag;
use crate::ktap::{self, Outcome};
use crate::mdev::Mdev;

/// What the second card of the destination has to say.
const REASON: &str = "num-ports: source has 2, this device has 4";

/// What a destination says when a card refuses what came through a channel of its own.
const CHANNEL_REFUSED: [&str; 1] = ["writing state buffer"];

/// What QEMU says when it aborts because the thread that sends the cards' states was faster than the one that counts what there is
/// to send. It has a thread look at each card, also at one whose state goes another way, so two cards are enough; which of the
/// threads is first, nobody outside can tell it. See `Documentation/testing.rst`.
const LOST_COUNT: &str = "thread_pool_set_max_threads: Assertion `max_threads > 0' failed";

/// How often a level is looked at. Of a card that works it is down most of the time.
const LOOKS: u32 = 50;

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

/// The outcome of a scenario with several cards whose states travel through channels: skipped if QEMU aborted by [`LOST_COUNT`].
pub(super) fn unless_lost_count(scene: &Scene, outcome: Outcome) -> Outcome {
    match outcome {
        Err(error) if lost_count(scene) => ktap::skip(format!(
            "QEMU lost count of its own threads and aborted, after what was seen until then held ({error:#})"
        )),
        outcome => outcome,
    }
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
    let measured = match see_through(scene, source, &destination, &mut guest, began) {
        Err(error) if way == Way::Channel && level_stays(&destination).unwrap_or(false) => {
            return ktap::skip(format!(
                "QEMU saved a card's pin and its bus at different times ({error:#})"
            ));
        }
        measured => measured?,
    };
    if way == Way::Channel {
        through_channels(scene, &destination)?;
    }
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    destination.quit()
}

/// Whether an input of the guest's interrupt controller is up and being served each time that one looks. QEMU saves a card's pin with
/// its configuration, which goes through a channel as soon as the card is stopped, and the count of the bus's pins that are up later;
/// in between it may find the card's interrupt and raise the pin. At the destination the count then never comes back to 0: the
/// guest is interrupted without end, and crawls. See `Documentation/testing.rst`.
fn level_stays(machine: &Machine) -> Result<bool> {
    for _ in 0..LOOKS {
        let ask = qmp::human_monitor_command {
            command_line: "info pic".into(),
            cpu_index: None,
        };
        let said = machine.execute(&ask)?;
        let inputs = |name: &str| -> BTreeSet<String> {
            let row = said.lines().find_map(|line| line.trim().strip_prefix(name));
            let inputs = row.unwrap_or_default().split_whitespace();
            inputs
                .filter(|word| word.parse::<u32>().is_ok())
                .map(str::to_owned)
                .collect()
        };
        if inputs("IRR ").is_disjoint(&inputs("Remote IRR ")) {
            return Ok(false);
        }
    }
    Ok(true)
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

/// The states of all cards travelled through multifd channels.
pub(super) fn through_channels(scene: &Scene, destination: &Machine) -> Result<()> {
    // A card's state may come in several pieces.
    let mut loaded = BTreeSet::new();
    scene.timeline().each(0, |_, entry| {
        if let (true, What::Trace(line)) = (entry.who == destination.name(), &entry.what) {
            let instance = line
                .strip_prefix("vfio_load_state_device_buffer_load_end")
                .and_then(|rest| rest.split_once('(')?.1.split_once(')'));
            loaded.extend(instance.map(|(instance, _)| instance.to_owned()));
        }
    });
    ensure!(
        loaded.len() == destination.cards(),
        "{} cards were loaded from the multifd channels: {loaded:?}",
        loaded.len()
    );
    Ok(())
}

/// Whether QEMU aborted by [`LOST_COUNT`].
fn lost_count(scene: &Scene) -> bool {
    let mut lost = false;
    scene.timeline().each(0, |_, entry| {
        lost |= matches!(&entry.what, What::Stderr(line) if line.contains(LOST_COUNT));
    });
    lost
}
