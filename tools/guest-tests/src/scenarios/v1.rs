// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What differs with protocol v1, and what QEMU 7.2 does with a card that later ones do not: who tracks dirty memory, when a
//! destination can refuse, and a source that goes on after it had handed everything over.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};
use qapi::qmp::{
    self, Event, MigrationCapability, MigrationStatus, RunState, VfioMigrationState as State,
};

use super::broken::{gave_up, second_try, works, DESTINATION_GONE, SHUT_DOWN, SOURCE_GONE};
use super::cards::{Cards, Driver};
use super::command_line::Spec;
use super::machine::{Machine, ANSWER};
use super::scene::{cancel, migration_ends, set_capability, wait_state, Options, Scene, MIGRATION};
use super::smooth::{pair, see_through, Pair};
use super::state::names;
use super::timeline::{Look, What};
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;
use crate::qmp::Message;

/// Bytes of a page of the guest's memory.
const PAGE: u64 = 4096;

/// Dirty memory is tracked by the container, the only one QEMU 7.2 knows to ask. A card that writes no memory makes no page
/// dirty: what QEMU asks about covers the guest's memory, is answered, and has no page sent again that the guest did not touch.
pub fn container_tracks(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "dirty-tracking")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    let began = scene.migrate(&source, &destination, &Options::default())?;
    scene.complete(&source, &destination, began)?;
    let ram = source.execute(&qmp::query_migrate {})?.ram;
    let ram = ram.context("QEMU reports no ram statistics")?;

    // QEMU traces a question after it was answered; a refusal would be on its standard error.
    let mut rounds: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    scene.timeline().each(began, |_, entry| {
        if let (true, What::Trace(line)) = (entry.who == source.name(), &entry.what) {
            if let Some(range) = asked_range(line) {
                *rounds.entry(range).or_default() += 1;
            }
        }
    });
    let covered: u64 = rounds.keys().map(|(_, size)| size).sum();
    let total = u64::try_from(ram.total)?;
    let syncs = u64::try_from(ram.dirty_sync_count)?;
    let sent = u64::try_from(ram.normal)? + u64::try_from(ram.duplicate)?;
    diag!(
        "{} ranges of {} MiB in all, each asked for {:?} times in {syncs} rounds; {sent} pages sent of {}",
        rounds.len(),
        covered >> 20,
        rounds.values().min(),
        total / PAGE
    );
    let memory = 96 << 20;
    ensure!(
        covered >= memory,
        "the container was asked about {covered} bytes, and the guest has {memory}"
    );
    ensure!(
        syncs >= 2 && rounds.values().all(|times| *times >= syncs),
        "in {syncs} rounds the container was asked {rounds:x?}"
    );
    // Were every page dirty in each round, the last would have sent all of them once more.
    ensure!(
        sent < 2 * total / PAGE,
        "{sent} pages were sent of {}, as if the container had called all of them dirty",
        total / PAGE
    );
    see_through(&scene, source, &destination, &mut guest, began)?;
    destination.quit()
}

/// The I/O addresses and the number of bytes in a line such as
/// `vfio_get_dirty_bitmap container fd=19, iova=0x0 size= 0xc3000 bitmap_size=0x20 start=0x0`.
fn asked_range(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("vfio_get_dirty_bitmap ")?;
    let number = |key: &str| {
        let (_, rest) = rest.split_once(key)?;
        let digits = rest.trim_start().strip_prefix("0x")?;
        let end = digits
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(digits.len());
        u64::from_str_radix(&digits[..end], 16).ok()
    };
    Some((number("iova=")?, number(" size=")?))
}

/// What a destination with protocol v1 says when its card refuses.
pub(super) const REFUSED: [&str; 3] = [
    "vfio_mig_write 8 byte",
    "/vfio)",
    "load of migration failed: Operation not permitted",
];

/// Scenario k with protocol v1: the card at the destination has another number of ports. It refuses the setup record when that
/// comes: in pre-copy if QEMU had sent all memory before the time for the switch-over came, and in stop-and-copy otherwise. With
/// a return path the source hears of it in either case before it takes the migration for complete, and goes on.
pub fn other_ports(version: Version) -> Outcome {
    let here = Cards::create(Driver::MdevSerial, &[2])?.in_qemu(version);
    let there = Cards::create(Driver::MdevSerial, &[4])?.in_qemu(version);
    let scene = Scene::with_qemu(version, "k")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    let began = scene.migrate(&source, &destination, &told())?;
    refused(&source, began)?;
    let mut states = scene.states(&source, began, 0);
    states.dedup();
    let phase = match states.as_slice() {
        [State::pre_copy, State::running] => "pre-copy",
        [State::pre_copy, State::stop_copy, State::running]
        | [State::pre_copy, State::stop_copy, State::stop, State::running] => "stop-and-copy",
        other => anyhow::bail!("the card of the source went through {}", names(other)),
    };
    diag!("the destination refused in {phase}");
    let reason = there.instances()[0]
        .migration_error()
        .context("the reason of the refusal")?;
    ensure!(
        reason.contains("port"),
        "the reason should name the ports: {reason:?}"
    );
    diag!("the destination's reason: {reason}");
    gave_up(destination, &REFUSED)?;
    source.provoke(&DESTINATION_GONE);
    works(&source, &mut guest)?;
    source.quit()
}

/// With a return path, by which the source is told of a refusal, and with the least downtime limit, so that the card's first data
/// mostly goes in pre-copy.
pub(super) fn told() -> Options {
    Options {
        downtime_limit: 1,
        ..Options::with(&[MigrationCapability::return_path])
    }
}

/// Waits until the migration of `source` has failed, its card is in RUNNING and its guest runs.
pub(super) fn refused(source: &Machine, began: usize) -> Result<()> {
    migration_ends(source, began, MigrationStatus::failed)?;
    wait_state(source, began, 0, State::running)?;
    goes_on(source, began)
}

/// The guest of `source` runs, after it may have been stopped at or after `began`.
fn goes_on(source: &Machine, began: usize) -> Result<()> {
    let stopped = source.timeline().find(began, |entry| {
        entry.who == source.name()
            && matches!(entry.what, What::Qmp(Message::Event(Event::STOP { .. })))
    });
    if let Some(stopped) = stopped {
        source.wait(stopped, ANSWER, "the guest to resume", |what| {
            matches!(what, What::Qmp(Message::Event(Event::RESUME { .. })))
        })?;
    }
    source.expect_status(RunState::running)
}

/// The migration is cancelled when the guest stands still already and the card is in stop-and-copy, and works when it is tried
/// again.
pub fn cancelled_at_the_switch_over(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "j-cancelled-late")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    let pause = MigrationCapability::pause_before_switchover;
    let began = scene.migrate(&source, &destination, &Options::with(&[pause]))?;
    source.wait_for(
        began,
        MIGRATION,
        "the pause before the switch-over",
        |what| match what {
            What::Qmp(Message::Event(Event::MIGRATION { data, .. }))
                if data.status == MigrationStatus::pre_switchover =>
            {
                Look::Found(())
            }
            _ => Look::Wait,
        },
    )?;
    wait_state(&source, began, 0, State::stop_copy)?;
    cancel(&source, began)?;
    wait_state(&source, began, 0, State::running)?;
    goes_on(&source, began)?;
    gave_up(destination, &SOURCE_GONE)?;
    source.provoke(&DESTINATION_GONE);
    source.provoke(&[SHUT_DOWN]);
    set_capability(&source, pause, false)?;
    second_try(&scene, source, &there, &mut guest)?.quit()
}

/// The migration is complete, but the destination, which was not to start the guest yet, dies. Whoever manages them lets the
/// source go on: the card there still has everything, and can be migrated again.
pub fn source_goes_on_after_all(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "source-after-all")?;
    let source = scene.start("source", &here.boots())?;
    let destination = scene.start(
        "destination",
        &Spec {
            paused: true,
            ..there.waits()
        },
    )?;
    let mut guest = super::guest::Guest::boot(&source, 0, &here.view())?;
    works(&source, &mut guest)?;
    let began = scene.migrate(&source, &destination, &Options::default())?;
    scene.complete(&source, &destination, began)?;
    let status = destination.status()?;
    ensure!(
        status != RunState::running,
        "the destination should not have started the guest"
    );
    destination.kill()?;
    let from = scene.timeline().position();
    source.execute(&qmp::cont {})?;
    wait_state(&source, from, 0, State::running)?;
    second_try(&scene, source, &there, &mut guest)?.quit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_question_is_read_from_the_trace() {
        let line = "vfio_get_dirty_bitmap container fd=19, iova=0xc3000 size= 0x25000 bitmap_size=0x8 start=0xe8000";
        assert_eq!(asked_range(line), Some((0xc3000, 0x25000)));
        assert_eq!(asked_range("vfio_save_buffer  (a) Offset 0x1000"), None);
    }
}
