// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A card is plugged into a guest at work and pulled out of it, and the guest is migrated with what it has then.

use anyhow::{ensure, Result};
use qapi::qmp::VfioMigrationState as State;

use super::broken::works;
use super::cards::{Cards, Driver};
use super::command_line::{Card, Spec};
use super::guest::Guest;
use super::machine::Machine;
use super::scene::{Options, Scene};
use super::smooth::see_through;
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;

/// A property for which QEMU takes a card up, with everything it is told to do with it, and then has to give it back: a file
/// that is not there.
const ROM: &str = ",rombar=1,romfile=/nonexistent.rom";

/// A second card comes, is used, goes, is refused by QEMU at the last moment, comes once more, and goes along when the guest
/// migrates. The first card works all the time.
pub fn plugged_in(version: Version) -> Outcome {
    let make = |ports: &[usize]| -> Result<Cards> {
        Ok(Cards::create(Driver::MdevSerial, ports)?.in_qemu(version))
    };
    let (first, second, there) = (make(&[1])?, make(&[2])?, make(&[1, 2])?);
    let scene = Scene::with_qemu(version, "plug")?;
    let pluggable = |spec: Spec| Spec {
        pluggable: true,
        ..spec
    };
    let source = scene.start("source", &pluggable(first.boots()))?;
    let destination = scene.start("destination", &pluggable(there.waits()))?;
    let mut guest = Guest::boot(&source, 0, &first.view())?;
    works(&source, &mut guest)?;

    let card = second.boots().cards.remove(0);
    source.plug(&card)?;
    guest.take_up(&source, &there.view())?;
    works(&source, &mut guest)?;
    guest.let_go(&source, &first.view())?;
    source.unplug()?;
    works(&source, &mut guest)?;
    fails(&source, &card)?;
    works(&source, &mut guest)?;
    source.plug(&card)?;
    guest.take_up(&source, &there.view())?;
    works(&source, &mut guest)?;

    let began = scene.migrate(&source, &destination, &Options::default())?;
    for number in 0..source.cards() {
        super::scene::wait_state(&source, began, number, State::pre_copy)?;
    }
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    destination.quit()
}

/// QEMU cannot take the card after all.
fn fails(machine: &Machine, card: &Card) -> Result<()> {
    let card = Card {
        properties: format!("{}{ROM}", card.properties),
        ..card.clone()
    };
    let Err(error) = machine.plug(&card) else {
        anyhow::bail!("{} took a card without its ROM file", machine.name());
    };
    let error = format!("{error:#}");
    ensure!(
        error.contains("nonexistent.rom"),
        "the card should be refused for its ROM file, not so: {error}"
    );
    diag!("refused: {error}");
    Ok(())
}
