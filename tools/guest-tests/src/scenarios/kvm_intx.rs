// SPDX-License-Identifier: GPL-2.0 OR MIT

//! INTx delivered by KVM, which a card allows if its instance is told to: what QEMU gets wrong after a migration, and how a person
//! gets round it. Documentation/intx.rst tells the whole of it.

use std::time::Duration;

use anyhow::{ensure, Result};
use qapi::qmp::{self, RunState};

use super::cards::Cards;
use super::command_line::Spec;
use super::guest::Guest;
use super::machine::{Machine, ANSWER};
use super::scene::{Options, Scene};
use super::smooth::{pair, SOME};
use super::timeline::{Look, What};
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::line::{Command, Line, PortReport};
use crate::l2::record::MAX_RECORD;
use crate::qmp::Message;

/// Seconds after which a guest whose card is lost says that nothing comes back any more. A guest that is stopped for so long takes its
/// card for lost, too, which no test here would fail for; where the card is kept, it waits as long as elsewhere.
const QUIET: u32 = 6;
/// How long a guest may take to say so.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a guest that lives may be silent: it counts several times a second. Of one that is stopped for longer the same is to be said.
const ALIVE: Duration = Duration::from_secs(4);
/// Ports of the card.
const PORTS: usize = 2;
/// Most interrupts that a record can be the cause of: it has at most so many bytes, each of which is taken once and comes back once.
const INTERRUPTS: u64 = 2 * MAX_RECORD as u64;

/// How somebody gets round it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Not at all.
    None,
    /// The destination's QEMU is told not to have KVM deliver the interrupt.
    NoKvm,
    /// The destination's machine is reset before the migration comes in.
    Reset,
    /// The destination's card refuses.
    Refused,
}

/// A guest that was migrated.
struct Moved {
    destination: Machine,
    guest: Guest,
    /// What went through its ports before, and how often the card interrupted.
    before: Work,
    // Removed when no QEMU has them open any more: after the machine.
    _cards: [Cards; 2],
}

/// Work of a card.
#[derive(Clone, Copy, Debug)]
struct Work {
    records: u64,
    interrupts: u64,
}

impl Work {
    /// By what a guest says of each port.
    fn of(reports: &[PortReport]) -> Self {
        Self {
            records: reports.iter().map(|port| u64::from(port.verified)).sum(),
            // Each port says those of the card.
            interrupts: reports
                .iter()
                .map(|port| port.interrupts)
                .max()
                .unwrap_or(0),
        }
    }
}

/// Has a guest at work with KVM delivering its card's interrupt, and migrates it; `pc` chooses the older machine type.
fn migrated(scene: &Scene, version: Version, pc: bool, way: Way) -> Result<Moved> {
    let (here, there) = pair(version, &[PORTS])?;
    let here = match way {
        Way::None => here.with_kvm_intx()?.giving_up_after(QUIET),
        _ => here.with_kvm_intx()?,
    };
    let there = match way {
        Way::None | Way::Reset => there.with_kvm_intx()?,
        Way::NoKvm => there.with_kvm_intx()?.without_kvm_intx(),
        Way::Refused => there,
    };
    let with = |spec| Spec {
        pluggable: pc,
        ..spec
    };
    let source = scene.start("source", &with(here.boots()))?;
    let destination = scene.start("destination", &with(there.waits()))?;
    if way == Way::Reset {
        reset(&destination)?;
    }
    let mut guest = Guest::boot(&source, 0, &here.view())?;
    guest.count_on(&source, SOME)?;
    let before = Work::of(&guest.settle(&source)?);
    guest.count_on(&source, SOME)?;
    let began = scene.migrate(&source, &destination, &Options::default())?;
    scene.complete(&source, &destination, began)?;
    destination.expect_status(RunState::running)?;
    source.quit()?;
    guest.moved(scene.timeline(), "source", began)?;
    Ok(Moved {
        destination,
        guest,
        before,
        _cards: [here, there],
    })
}

/// Resets the machine, with no guest in it yet.
fn reset(machine: &Machine) -> Result<()> {
    let from = machine.timeline().position();
    machine.execute(&qmp::system_reset {})?;
    machine.wait(from, ANSWER, "the reset of the empty machine", |what| {
        matches!(what, What::Qmp(Message::Event(qmp::Event::RESET { .. })))
    })?;
    Ok(())
}

/// What became of a guest's card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Everything comes back.
    Kept,
    /// The interrupt was up when the guest was stopped, and nobody lowers the input at the destination: it is raised as soon as it was
    /// served. Each time the guest's driver looks what the card has, so everything comes back, while the guest can do little else.
    Stormed,
    /// Nothing comes back any more, on any port, and the guest says so.
    Lost,
    /// The guest does not say anything any more.
    GuestLost,
}

/// Asks a migrated guest what became of its card.
fn fate(moved: &Moved) -> Result<Fate> {
    let from = moved.destination.timeline().position();
    let lives = moved
        .destination
        .wait(from, ALIVE, "a count of the guest", |what| {
            matches!(what, What::Guest(Line::Count(_)))
        });
    if lives.is_err() {
        // Its QEMU goes on: the guest is what is silent.
        moved.destination.expect_status(RunState::running)?;
        return Ok(Fate::GuestLost);
    }
    moved.destination.command(Command::Report)?;
    let mut reports = Vec::new();
    moved
        .destination
        .wait_for(from, SILENCE, "the guest's report", |what| {
            if let What::Guest(Line::Report(report)) = what {
                reports.push(report.clone());
            }
            if reports.len() == PORTS {
                Look::Found(())
            } else {
                Look::Wait
            }
        })?;
    diag!("{reports:?}");
    let missing = reports.iter().filter(|port| port.outstanding > 0).count();
    ensure!(
        missing == 0 || missing == PORTS,
        "some ports of the card work, and some do not: {reports:?}"
    );
    Ok(match missing {
        0 => came_back(moved.before, Work::of(&reports)),
        _ => Fate::Lost,
    })
}

/// What became of a card through which everything came back.
fn came_back(before: Work, after: Work) -> Fate {
    let records = after.records - before.records;
    match after.interrupts - before.interrupts > INTERRUPTS * records {
        true => Fate::Stormed,
        false => Fate::Kept,
    }
}

/// A migration as everybody does it.
pub fn lost(version: Version) -> Outcome {
    for (machine, pc) in [("q35", false), ("pc", true)] {
        let scene = Scene::with_qemu(version, &format!("kvm-intx-{machine}"))?;
        let moved = migrated(&scene, version, pc, Way::None)?;
        let fate = fate(&moved)?;
        diag!("{machine}: {fate:?}");
        ensure!(
            fate != Fate::Kept,
            "on {machine} the card is {fate:?}: Documentation/intx.rst says something else of QEMU {version}"
        );
    }
    Ok(())
}

/// What a person can do at the destination.
pub fn kept(version: Version) -> Outcome {
    for way in [Way::NoKvm, Way::Reset, Way::Refused] {
        let scene = Scene::with_qemu(version, &format!("kvm-intx-{way:?}"))?;
        let mut moved = migrated(&scene, version, false, way)?;
        moved.guest.count_on(&moved.destination, SOME)?;
        moved.guest.settle(&moved.destination)?;
        diag!("{way:?}: the guest counted to {:?}", moved.guest.counts());
        moved.destination.quit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_interrupts_than_bytes_can_cause_are_a_storm() {
        let before = Work {
            records: 7,
            interrupts: 30,
        };
        let after = |interrupts: u64| Work {
            records: 17,
            interrupts: 30 + interrupts,
        };
        // A byte that is taken and one that comes, of ten records of 20 bytes.
        assert_eq!(came_back(before, after(400)), Fate::Kept);
        assert_eq!(came_back(before, after(401)), Fate::Stormed);
        assert_eq!(came_back(before, before), Fate::Kept);
    }
}
