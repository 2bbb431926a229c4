// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Scenarios in which the migration works: every record arrives, and the guest goes on at the destination.

use anyhow::{bail, ensure, Result};
use qapi::qmp::{Event, MigrationCapability, RunState, VfioMigrationState};

use super::cards::{Cards, Driver};
use super::command_line::Spec;
use super::guest::Guest;
use super::machine::{Machine, ANSWER};
use super::scene::{Measured, Options, Scene};
use super::state::names;
use super::timeline::{Look, What};
use super::version::{Protocol, Version};
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::line::DiskReport;
use crate::qmp::Message;

/// Records that a guest verifies on each port before and after something happens to it: some fifty bytes, which fill a FIFO of 16
/// several times. A report comes when all that was under way has come back besides.
pub const SOME: u32 = 3;

/// The states of a card whose guest runs until the switch-over. A QEMU of protocol v1 asks once more for stop-and-copy when it
/// has it already, because the guest was stopped before.
fn live_states(protocol: Protocol) -> &'static [VfioMigrationState] {
    use VfioMigrationState::{pre_copy, pre_copy_p2p, stop, stop_copy};
    match protocol {
        Protocol::V1 => &[pre_copy, stop_copy, stop_copy, stop],
        Protocol::V2 => &[pre_copy, pre_copy_p2p, stop_copy, stop],
    }
}

/// The states of a card whose guest was stopped while no migration was under way, and is then migrated.
fn stopped_states(protocol: Protocol) -> &'static [VfioMigrationState] {
    use VfioMigrationState::{running_p2p, stop, stop_copy};
    match protocol {
        Protocol::V1 => &[stop, stop_copy, stop_copy, stop],
        Protocol::V2 => &[running_p2p, stop, stop_copy, stop],
    }
}

/// The states of a card that a running guest arrives at.
fn arrival_states(protocol: Protocol) -> &'static [VfioMigrationState] {
    use VfioMigrationState::{resuming, running, running_p2p};
    match protocol {
        Protocol::V1 => &[resuming, running],
        Protocol::V2 => &[resuming, running_p2p, running],
    }
}

/// A guest at work on its first machine, and the machine it will go to.
pub struct Pair {
    /// The first machine.
    pub source: Machine,
    /// The second, which waits.
    pub destination: Machine,
    /// The guest.
    pub guest: Guest,
}

impl Pair {
    /// Boots a guest with the cards `here`, starts a machine with the cards `there` meanwhile, and sees the guest work.
    pub fn at_work(scene: &Scene, here: &Cards, there: &Cards) -> Result<Self> {
        let source = scene.start("source", &here.boots())?;
        let destination = scene.start("destination", &there.waits())?;
        let mut guest = Guest::boot(&source, 0, &here.view())?;
        guest.count_on(&source, SOME)?;
        guest.settle(&source)?;
        guest.count_on(&source, SOME)?;
        Ok(Self {
            source,
            destination,
            guest,
        })
    }
}

/// Sees a live migration of a running guest through: complete on both sides, in the right states, running at the
/// destination, and not one record lost.
pub fn see_through(
    scene: &Scene,
    source: Machine,
    destination: &Machine,
    guest: &mut Guest,
    began: usize,
) -> Result<Measured> {
    let measured = switch_over(scene, &source, destination, began)?;
    arrive(scene, source, destination, guest, began)?;
    Ok(measured)
}

/// Waits for a live migration to be complete on both sides; the cards went through the right states, and the guest runs at
/// the destination.
pub(super) fn switch_over(
    scene: &Scene,
    source: &Machine,
    destination: &Machine,
    began: usize,
) -> Result<Measured> {
    let measured = scene.complete(source, destination, began)?;
    destination.wait(began, ANSWER, "the guest to resume", |what| {
        matches!(what, What::Qmp(Message::Event(Event::RESUME { .. })))
    })?;
    destination.expect_status(RunState::running)?;
    expect_states(source, began, live_states(source.protocol()))?;
    expect_states(destination, began, arrival_states(destination.protocol()))?;
    Ok(measured)
}

/// Ends the source and sees the guest go on at the destination where it was.
fn arrive(
    scene: &Scene,
    source: Machine,
    destination: &Machine,
    guest: &mut Guest,
    began: usize,
) -> Result<()> {
    let name = source.name().to_string();
    source.quit()?;
    guest.moved(scene.timeline(), &name, began)?;
    guest.count_on(destination, SOME)?;
    guest.settle(destination)?;
    Ok(())
}

/// Waits until every card of `machine` went through as many states as `expected`, and checks that it is those.
fn expect_states(machine: &Machine, from: usize, expected: &[VfioMigrationState]) -> Result<()> {
    for card in 0..machine.cards() {
        let purpose = format!("card {card} to go through {}", names(expected));
        let mut states = Vec::new();
        machine.wait_for(from, ANSWER, &purpose, |what| {
            states.extend(machine.state_of(what, card));
            if states.len() == expected.len() {
                Look::Found(())
            } else {
                Look::Wait
            }
        })?;
        ensure!(
            states == expected,
            "expected {purpose} ({}), but it went through {}",
            machine.name(),
            names(&states)
        );
    }
    Ok(())
}

/// The whole of a live migration between two sets of cards, with what QEMU measured as a diagnostic.
fn told(scene: &Scene, here: &Cards, there: &Cards, options: &Options) -> Result<()> {
    let measured = live(scene, here, there, options)?;
    diag!("{measured}");
    Ok(())
}

/// The whole of a live migration between two sets of cards.
fn live(scene: &Scene, here: &Cards, there: &Cards, options: &Options) -> Result<Measured> {
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(scene, here, there)?;
    let began = scene.migrate(&source, &destination, options)?;
    let measured = see_through(scene, source, &destination, &mut guest, began)?;
    destination.quit()?;
    Ok(measured)
}

/// Cards of this project for both sides, in QEMUs of one version.
pub fn pair(version: Version, ports: &[usize]) -> Result<(Cards, Cards)> {
    let (here, there) = Cards::pair(Driver::MdevSerial, ports)?;
    Ok((here.in_qemu(version), there.in_qemu(version)))
}

/// Scenario a.
pub fn type1(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "a")?;
    told(&scene, &here, &there, &Options::default())?;
    asked_for_second_form(&scene, version)
}

/// A QEMU that knows the second form of the pre-copy information found that the card has it; an older one did not ask.
fn asked_for_second_form(scene: &Scene, version: Version) -> Result<()> {
    if version != Version::V11_1 {
        return Ok(());
    }
    for who in ["source", "destination"] {
        let found = scene.timeline().find(0, |entry| {
            entry.who == who
                && matches!(&entry.what, What::Trace(line)
                    if line.starts_with("vfio_migration_init") && line.contains("precopy_info_v2_used 1"))
        });
        ensure!(
            found.is_some(),
            "QEMU ({who}) does not use the second form of the pre-copy information"
        );
    }
    Ok(())
}

/// Scenario a with any driver's cards, to be compared.
pub fn compared(name: &str, driver: Driver) -> Result<Measured> {
    let (here, there) = Cards::pair(driver, &[2])?;
    live(&Scene::new(name, None)?, &here, &there, &Options::default())
}

/// Scenario b; with QEMU told to take INTx itself, which it does in the others too, after KVM was refused.
pub fn iommufd(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let here = here.through_iommufd().without_kvm_intx();
    let there = there.through_iommufd().without_kvm_intx();
    let scene = Scene::with_qemu(version, "b")?;
    told(&scene, &here, &there, &Options::default())?;
    asked_for_second_form(&scene, version)
}

/// Scenario c: the source may stop the guest only after the destination acknowledged the initial data of the card.
pub fn switchover_ack(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let options = Options::with(&[
        MigrationCapability::return_path,
        MigrationCapability::switchover_ack,
    ]);
    let scene = Scene::with_qemu(version, "c")?;
    told(&scene, &here, &there, &options)?;
    // Both are lines of one trace, so their order is that of the events.
    let traced = |mark: &str| {
        scene.timeline().find(0, |entry| {
            entry.who == "source" && matches!(&entry.what, What::Trace(line) if line.contains(mark))
        })
    };
    let acknowledged = traced("source_return_path_thread_switchover_acked");
    let stopping = traced("new state PRE_COPY_P2P");
    let (Some(acknowledged), Some(stopping)) = (acknowledged, stopping) else {
        bail!("acknowledged: entry {acknowledged:?}, stopping: entry {stopping:?}; both should be in the trace");
    };
    ensure!(
        acknowledged < stopping,
        "the source began to stop before the destination acknowledged"
    );
    Ok(())
}

/// Scenario e, first half: a guest that was stopped goes into stop-and-copy without pre-copy.
pub fn stopped_first(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "e-stop")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    let before = scene.timeline().position();
    source.execute(&qapi::qmp::stop {})?;
    let began = scene.migrate(&source, &destination, &Options::default())?;
    let measured = scene.complete(&source, &destination, began)?;
    expect_states(&source, before, stopped_states(version.protocol()))?;
    destination.expect_status(RunState::paused)?;
    destination.execute(&qapi::qmp::cont {})?;
    arrive(&scene, source, &destination, &mut guest, began)?;
    destination.quit()?;
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    Ok(())
}

/// Scenario e, second half: QEMU was started with -S. The card is still in its first state, RUNNING, so pre-copy happens;
/// the guest boots at the destination.
pub fn never_ran(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "e-never-ran")?;
    let source = scene.start(
        "source",
        &Spec {
            paused: true,
            ..here.boots()
        },
    )?;
    let destination = scene.start("destination", &there.waits())?;
    source.expect_status(RunState::prelaunch)?;
    let began = scene.migrate(&source, &destination, &Options::default())?;
    let measured = scene.complete(&source, &destination, began)?;
    let states = scene.states(&source, 0, 0);
    ensure!(
        states.first() == Some(&VfioMigrationState::pre_copy),
        "no pre-copy, but {states:?}"
    );
    source.quit()?;
    destination.execute(&qapi::qmp::cont {})?;
    let mut guest = Guest::boot(&destination, began, &there.view())?;
    guest.count_on(&destination, SOME)?;
    guest.settle(&destination)?;
    destination.quit()?;
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    Ok(())
}

/// Scenario f: the same guest and the same two cards, ten migrations.
pub fn there_and_back(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "f")?;
    trips(
        &scene,
        &<[Cards; 2]>::from(pair(version, &[2])?),
        10,
        |_, _| Ok(()),
    )
    .map(drop)
}

/// A guest goes from one set of cards to the other and back, so many migrations in all, once it is `ready`. What was on
/// its disks is verified in the end.
pub(super) fn trips(
    scene: &Scene,
    cards: &[Cards; 2],
    count: usize,
    ready: impl FnOnce(&Machine, &mut Guest) -> Result<()>,
) -> Result<Vec<DiskReport>> {
    let mut here = scene.start("0", &cards[0].boots())?;
    let mut there = scene.start("1", &cards[1].waits())?;
    let mut guest = Guest::boot(&here, 0, &cards[0].view())?;
    let mut disks = Vec::new();
    guest.count_on(&here, SOME)?;
    ready(&here, &mut guest)?;
    for trip in 1..=count {
        let began = scene.migrate(&here, &there, &Options::default())?;
        let measured = switch_over(scene, &here, &there, began)?;
        let left = here.name().to_string();
        here.quit()?;
        guest.moved(scene.timeline(), &left, began)?;
        // The card that was just left waits in a fresh QEMU for the way back, which starts while the guest goes on.
        let next = std::thread::scope(|scope| {
            let fresh = || scene.start(&format!("{}", trip + 1), &cards[(trip + 1) % 2].waits());
            let next = (trip < count).then(|| scope.spawn(fresh));
            guest.count_on(&there, SOME)?;
            match trip == count {
                true => disks = guest.account(&there)?.1,
                false => guest.tally(&there)?,
            }
            next.map(|next| {
                next.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .transpose()
        })?;
        diag!(
            "migration {trip}: {measured}; the guest counted to {:?}",
            guest.counts()
        );
        let Some(next) = next else { break };
        here = std::mem::replace(&mut there, next);
    }
    there.quit()?;
    Ok(disks)
}

/// Scenario g: two cards of different size in one guest. QEMU takes more than one card only if all can do P2P; the one of
/// protocol v1, which has no P2P, does not ask.
pub fn two_cards(version: Version) -> Outcome {
    let (here, there) = pair(version, &[1, 2])?;
    let scene = Scene::with_qemu(version, "g")?;
    told(&scene, &here, &there, &Options::default())
}

/// Scenario h.
pub fn four_ports(version: Version) -> Outcome {
    let (here, there) = pair(version, &[4])?;
    let scene = Scene::with_qemu(version, "h")?;
    told(&scene, &here, &there, &Options::default())
}

/// Scenario i: the guest's driver has enabled MSI, and messages come before and after. (All others use INTx.)
pub fn msi(version: Version) -> Outcome {
    let (here, there) = pair(version, &[1])?;
    let scene = Scene::with_qemu(version, "i")?;
    told(
        &scene,
        &here.with_msi(),
        &there.with_msi(),
        &Options::default(),
    )
}
