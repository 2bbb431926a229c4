// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Scenarios in which a migration is ended in pre-copy, by an accident, on purpose or by a refusal: the guest goes on where
//! it is, and the cards can be used again.

use anyhow::{ensure, Context, Result};
use qapi::qmp::{self, Event, MigrationCapability, MigrationStatus, RunState, VfioMigrationState};

use super::cards::{Cards, Driver};
use super::guest::Guest;
use super::machine::{Machine, ANSWER};
use super::scene::{
    cancel, migration_ends, release, set_capability, trickle, wait_migration_end, wait_state,
    Options, Scene,
};
use super::smooth::{pair, see_through, Pair, SOME};
use super::state::names;
use super::timeline::What;
use super::version::{Protocol, Version};
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::line::{Command, Line};
use crate::qmp::Message;

/// What a source says when its destination is gone.
pub const DESTINATION_GONE: [&str; 3] = [
    "Unable to write to socket",
    "failed to save SaveStateEntry",
    "Sibling indicated error",
];
/// What a source says that was at a card's state when its migration was cancelled: QEMU cancels by shutting its channels down.
pub const SHUT_DOWN: &str = "Channel error: Input/output error";
/// What a destination says when its stream ends too early, wherever that is.
pub const SOURCE_GONE: [&str; 4] = [
    "load of migration failed",
    "error while loading state",
    "Getting RAM address failed",
    "Read section footer failed",
];
/// What a source says when a reset of the card ended the card's migration.
pub const CARD_RESET: [&str; 2] = ["/vfio): -19", "Channel error: No such device"];

/// Begins a migration that stays in pre-copy, and waits until the destination's card knows of it. With protocol v2 the
/// destination has read the card's pre-copy data then; QEMU 7.2 sends none before the memory, of which there is still a lot.
pub fn hold(
    scene: &Scene,
    source: &Machine,
    destination: &Machine,
    options: Options,
) -> Result<usize> {
    let began = scene.migrate(source, destination, &options.held())?;
    wait_state(source, began, 0, VfioMigrationState::pre_copy)?;
    wait_state(destination, began, 0, VfioMigrationState::resuming)?;
    if source.protocol() == Protocol::V1 {
        return Ok(began);
    }
    destination.wait(
        began,
        ANSWER,
        "the card's pre-copy data at the destination",
        |what| matches!(what, What::Trace(line) if line.starts_with("vfio_load_state_device_data")),
    )?;
    trickle(source)?;
    Ok(began)
}

/// The source never left pre-copy: its guest was not stopped, and its cards went back to RUNNING at once.
pub(super) fn never_stopped(scene: &Scene, source: &Machine, began: usize) -> Result<()> {
    let stop = scene.timeline().find(began, |entry| {
        entry.who == source.name()
            && matches!(entry.what, What::Qmp(Message::Event(Event::STOP { .. })))
    });
    ensure!(stop.is_none(), "the source stopped its guest");
    for card in 0..source.cards() {
        wait_state(source, began, card, VfioMigrationState::running)?;
        let mut states = scene.states(source, began, card);
        // QEMU 7.2 writes RUNNING once more for each step of a failure.
        states.dedup();
        let expected = [VfioMigrationState::pre_copy, VfioMigrationState::running];
        ensure!(
            states == expected,
            "card {card} of the source went through {}",
            names(&states)
        );
    }
    source.expect_status(RunState::running)
}

/// A destination whose migration failed ends by itself, not by a signal, and says nothing but why.
pub fn gave_up(destination: Machine, provoked: &[&'static str]) -> Result<()> {
    let status = destination.wait_exit()?;
    ensure!(
        status.code() == Some(1),
        "the destination should end with status 1, not {status}"
    );
    destination.provoke(provoked);
    destination.check_complaints()
}

/// Migrates the guest after all, with a fresh QEMU at the destination's cards, where it is then.
pub fn second_try(
    scene: &Scene,
    source: Machine,
    there: &Cards,
    guest: &mut Guest,
) -> Result<Machine> {
    let again = scene.start("again", &there.waits())?;
    works(&source, guest)?;
    let began = scene.migrate(&source, &again, &Options::default())?;
    let measured = see_through(scene, source, &again, guest, began)?;
    diag!(
        "second try: {measured}; the guest counted to {:?}, and did {:?} steps on its disks",
        guest.counts(),
        guest.disks()
    );
    Ok(again)
}

/// A migration between these cards whose destination is killed in pre-copy; with a fresh one at the same cards it works. The guest is
/// there then.
pub(super) fn without_destination(
    scene: &Scene,
    here: &Cards,
    there: &Cards,
) -> Result<(Machine, Guest)> {
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(scene, here, there)?;
    let began = hold(scene, &source, &destination, Options::default())?;
    destination.kill()?;
    migration_ends(&source, began, MigrationStatus::failed)?;
    never_stopped(scene, &source, began)?;
    source.provoke(&DESTINATION_GONE);
    let again = second_try(scene, source, there, &mut guest)?;
    Ok((again, guest))
}

/// A migration from `source` whose source is killed in pre-copy; its destination gives up.
pub(super) fn without_source(scene: &Scene, source: Machine, destination: Machine) -> Result<()> {
    hold(scene, &source, &destination, Options::default())?;
    source.kill()?;
    gave_up(destination, &SOURCE_GONE)
}

/// Another guest can use these cards, which know nothing of one before.
pub(super) fn fresh(scene: &Scene, name: &str, cards: &Cards) -> Result<()> {
    let fresh = scene.start(name, &cards.boots())?;
    let mut guest = Guest::boot(&fresh, 0, &cards.view())?;
    works(&fresh, &mut guest)?;
    fresh.quit()
}

/// A migration between these cards that is cancelled in pre-copy, and works when it is tried again.
pub(super) fn not_wanted(scene: &Scene, here: &Cards, there: &Cards) -> Result<()> {
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(scene, here, there)?;
    let began = hold(scene, &source, &destination, Options::default())?;
    cancel(&source, began)?;
    never_stopped(scene, &source, began)?;
    gave_up(destination, &SOURCE_GONE)?;
    source.provoke(&DESTINATION_GONE);
    second_try(scene, source, there, &mut guest)?.quit()
}

/// Scenario j: the destination is killed; with a fresh one at the same card, the migration works.
pub fn destination_killed(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "j-destination-killed")?;
    without_destination(&scene, &here, &there)?.0.quit()
}

/// Scenario j: the migration is cancelled, and works when it is tried again.
pub fn cancelled(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    not_wanted(&Scene::with_qemu(version, "j-cancelled")?, &here, &there)
}

/// Scenario j: the source is killed; another guest can use the destination's card, which knows nothing of the first.
pub fn source_killed(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "j-source-killed")?;
    let Pair {
        source,
        destination,
        ..
    } = Pair::at_work(&scene, &here, &there)?;
    without_source(&scene, source, destination)?;
    fresh(&scene, "fresh", &there)
}

/// Scenario k: the card at the destination has another number of ports. It refuses the setup record, in pre-copy.
pub fn other_ports(version: Version) -> Outcome {
    let (here, there) = (
        Cards::create(Driver::MdevSerial, &[2])?.in_qemu(version),
        Cards::create(Driver::MdevSerial, &[4])?.in_qemu(version),
    );
    let scene = Scene::with_qemu(version, "k")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    let capabilities = [
        MigrationCapability::return_path,
        MigrationCapability::switchover_ack,
    ];
    let began = scene.migrate(&source, &destination, &Options::with(&capabilities))?;
    migration_ends(&source, began, MigrationStatus::failed)?;
    never_stopped(&scene, &source, began)?;
    let reason = there.instances()[0]
        .migration_error()
        .context("the reason of the refusal")?;
    ensure!(
        reason.contains("port"),
        "the reason should name the ports: {reason:?}"
    );
    diag!("the destination's reason: {reason}");
    gave_up(
        destination,
        &["load of migration failed: Invalid argument", "/vfio)"],
    )?;
    works(&source, &mut guest)?;
    source.provoke(&DESTINATION_GONE);
    source.quit()
}

/// Scenario l: the guest reboots in pre-copy. QEMU resets the card behind its own back; the migration may fail for that or
/// complete, but it ends, and one of the two machines has a guest that works.
pub fn reboot(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "l")?;
    let Pair {
        source,
        destination,
        ..
    } = Pair::at_work(&scene, &here, &there)?;
    let began = hold(&scene, &source, &destination, Options::default())?;
    source.command(Command::Reboot)?;
    let reset = source.wait(began, ANSWER, "the reset of the guest's machine", |what| {
        matches!(what, What::Qmp(Message::Event(Event::RESET { .. })))
    })?;
    release(&source)?;
    let status = wait_migration_end(&source, began)?;
    diag!("the migration is {}", qapi::Enum::name(&status));
    if status == MigrationStatus::completed {
        // The guest may have been ready at the source, before it moved.
        let early = scene.timeline().find(reset, |entry| {
            entry.who == source.name() && matches!(entry.what, What::Guest(Line::Ready { .. }))
        });
        let mut guest = match early {
            Some(_) => Guest::boot(&source, reset, &here.view())?,
            None => Guest::boot(&destination, began, &there.view())?,
        };
        source.quit()?;
        if early.is_some() {
            guest.moved(scene.timeline(), "source", began)?;
        }
        works(&destination, &mut guest)?;
        return destination.quit();
    }
    ensure!(
        status == MigrationStatus::failed,
        "the migration should end, not be {}",
        qapi::Enum::name(&status)
    );
    gave_up(destination, &SOURCE_GONE)?;
    let mut guest = Guest::boot(&source, reset, &here.view())?;
    works(&source, &mut guest)?;
    source.provoke(&CARD_RESET);
    source.quit()
}

/// Ways to migrate that need what a card cannot do: QEMU refuses each when it is asked for, the guest goes on, and the usual way
/// works afterwards.
pub fn not_offered(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "not-offered")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    for (capability, words) in [
        (MigrationCapability::postcopy_ram, "postcopy"),
        (
            MigrationCapability::background_snapshot,
            "background snapshot",
        ),
    ] {
        let from = scene.timeline().position();
        set_capability(&source, capability, true)?;
        let refused = source.execute(&qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some("exec:cat >/dev/null".into()),
        });
        let Err(error) = refused else {
            anyhow::bail!("a migration by {} should be refused", words);
        };
        let error = format!("{error:#}");
        ensure!(
            error.contains("not supported") && error.contains(words),
            "the refusal should say that a card knows no {words}, not: {error}"
        );
        diag!("refused: {error}");
        let states = scene.states(&source, from, 0);
        ensure!(
            states.is_empty(),
            "the card went through {}",
            names(&states)
        );
        source.expect_status(RunState::running)?;
        works(&source, &mut guest)?;
        set_capability(&source, capability, false)?;
    }
    let began = scene.migrate(&source, &destination, &Options::default())?;
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    destination.quit()
}

/// The guest goes on on `machine`.
pub fn works(machine: &Machine, guest: &mut Guest) -> Result<()> {
    guest.count_on(machine, SOME)?;
    guest.settle(machine)?;
    Ok(())
}
