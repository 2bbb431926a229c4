// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A card is removed while a QEMU uses it.

use anyhow::{anyhow, ensure, Context, Result};
use qapi::qmp::{self, Event, RunState};

use super::cards::{Cards, Driver};
use super::command_line::Spec;
use super::machine::ANSWER;
use super::scene::Scene;
use super::timeline::What;
use crate::ktap::Outcome;
use crate::qmp::Message;

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
    // Not a scoped thread: should anything fail here, it ends when QEMU is killed, and not before.
    let removal = std::thread::spawn(move || mdev.remove());
    machine.wait(
        from,
        ANSWER,
        "the request to pull the card out",
        |what| matches!(what, What::Trace(line) if line.starts_with("acpi_pci_unplug_request")),
    )?;
    ensure!(
        !removal.is_finished(),
        "the card was removed under QEMU's hands"
    );

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
    let removed: Result<()> = removal
        .join()
        .unwrap_or_else(|_| Err(anyhow!("the removal panicked")));
    removed.context("the removal should succeed once QEMU let go")?;
    machine.expect_status(RunState::prelaunch)?;
    machine.quit()
}
