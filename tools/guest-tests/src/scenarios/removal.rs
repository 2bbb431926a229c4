// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A card is removed while a QEMU uses it.

use std::thread::JoinHandle;

use anyhow::{anyhow, ensure, Context, Result};
use qapi::qmp::{self, Event, RunState};

use super::broken::{hold, works};
use super::cards::{Cards, Driver};
use super::command_line::Spec;
use super::machine::{Machine, ANSWER};
use super::scene::{release, Options, Scene};
use super::smooth::{pair, see_through, Pair};
use super::timeline::What;
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;
use crate::mdev::Mdev;
use crate::qmp::Message;

/// What QEMU says when it is asked for a card in a slot that nothing can be pulled out of.
const FIXED: &str = "does not support hotplugging";

/// The driver asks QEMU to let the card go, and the removal waits until it has. QEMU asks its guest; this one has not
/// started, so the slot is emptied at the next reset, as if the guest had agreed.
pub fn while_in_use() -> Outcome {
    let scene = Scene::new("m", None)?;
    // Through iommufd: a group goes with its last device, and its container with it, while QEMU may still be at taking its
    // memory out of the container; it would complain of that.
    let cards = Cards::create(Driver::MdevSerial, &[2])?.through_iommufd();
    let spec = Spec {
        paused: true,
        pluggable: true,
        ..cards.boots()
    };
    let machine = scene.start("machine", &spec)?;
    let mdev = cards.into_instances().pop().context("no card")?;

    let from = scene.timeline().position();
    let removal = Removal::of(mdev);
    machine.wait(
        from,
        ANSWER,
        "the request to pull the card out",
        |what| matches!(what, What::Trace(line) if line.starts_with("acpi_pci_unplug_request")),
    )?;
    removal.waits()?;

    machine.execute(&qmp::system_reset {})?;
    machine.wait(
        from,
        ANSWER,
        "the card to be gone from the machine",
        |what| {
            matches!(what, What::Qmp(Message::Event(Event::DEVICE_DELETED { data, .. }))
            if data.device.as_deref() == Some("card0"))
        },
    )?;
    removal.succeeds()?;
    machine.expect_status(RunState::prelaunch)?;
    machine.quit()
}

/// Both cards of a migration are removed while it is in pre-copy. Neither QEMU can give its card up; both removals wait, the
/// migration goes on, and each removal succeeds when the QEMU that has the card ends.
pub fn during_a_migration(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "removal")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    let began = hold(&scene, &source, &destination, Options::default())?;
    let (left, right) = (asked_for(here, &source)?, asked_for(there, &destination)?);
    works(&source, &mut guest)?;
    left.waits()?;
    release(&source)?;
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;
    left.succeeds()?;
    works(&destination, &mut guest)?;
    right.waits()?;
    destination.quit()?;
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    right.succeeds()
}

/// Begins to remove the card of `machine`, and waits until QEMU was asked for it and said that it cannot give it up.
fn asked_for(cards: Cards, machine: &Machine) -> Result<Removal> {
    let mdev = cards.into_instances().pop().context("no card")?;
    machine.provoke(&[FIXED]);
    let from = machine.timeline().position();
    let removal = Removal::of(mdev);
    machine.wait(
        from,
        ANSWER,
        "the request for the card",
        |what| matches!(what, What::Stderr(line) if line.contains(FIXED)),
    )?;
    Ok(removal)
}

/// A removal under way, in a thread of its own that nobody need wait for: should anything fail, it ends when QEMU is killed, and
/// not before.
struct Removal(JoinHandle<Result<()>>);

impl Removal {
    fn of(mdev: Mdev) -> Self {
        Self(std::thread::spawn(move || mdev.remove()))
    }

    /// It waits for QEMU.
    fn waits(&self) -> Result<()> {
        ensure!(
            !self.0.is_finished(),
            "the card was removed under QEMU's hands"
        );
        Ok(())
    }

    /// QEMU has let the card go.
    fn succeeds(self) -> Result<()> {
        let removed = self.0.join();
        removed
            .unwrap_or_else(|_| Err(anyhow!("the removal panicked")))
            .context("the removal should succeed once QEMU let go")
    }
}
