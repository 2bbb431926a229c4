// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest goes from a card that is the driver's to one that a program emulates, and back. Its QEMUs speak vfio-user on both sides,
//! and what is behind the socket is the kernel here and the model there: the stream between them is the same, and so is the check.

use super::carried::{begin, go, works, Card, Host, DIFFERS, MATCHES, REFUSED};
use super::{Shell, PORTS};
use crate::diag;
use crate::ktap::Outcome;
use crate::mdev::Mdev;
use crate::scenarios::cards::{Cards, Driver};
use crate::scenarios::guest::Guest;
use crate::scenarios::scene::Scene;
use crate::scenarios::version::Version;
use anyhow::{ensure, Result};

/// The option in the place of that for the card's parameter: the instance has it already.
pub(in crate::scenarios) fn behind(instance: &Mdev) -> String {
    format!("--backend vfio:{}", instance.path().display())
}

/// A guest at work is refused by cards that differ, of either kind, and goes where it fits.
pub fn migrates(version: Version) -> Outcome {
    let cards = Cards::create(Driver::MdevSerial, &[PORTS, PORTS, 4])?;
    let [first, third, other] = cards.instances() else {
        anyhow::bail!("three cards were made");
    };
    let scene = Scene::with_qemu(version, "vfio-user-both")?;
    let shell = Shell::new(String::new(), version, scene.place().sockets.clone())?;
    let start = |name: &str, param: &str, waits| {
        let mut card = Card::of_text();
        card.param = param.to_string();
        Host::start(&scene, &shell, name, &card, waits)
    };
    let mut here = start("driver-1", &behind(first), false)?;
    let mut guest = Guest::boot(&here.machine, 0, &Card::of_text().view)?;
    works(&here, &mut guest)?;

    let refused = |here: &mut Host, guest: &mut Guest, name: &str, param: &str| -> Result<()> {
        let there = start(name, param, true)?;
        begin(here, &there)?;
        here.machine.migration("info migrate", "failed")?;
        here.allowed.push(REFUSED);
        drop(there);
        works(here, guest)
    };
    refused(&mut here, &mut guest, "other-program", DIFFERS)?;
    let program = start("program-2", MATCHES, true)?;
    go(&scene, here, &program, &mut guest)?;
    diag!("in the program, the guest counted to {:?}", guest.counts());
    here = program;

    refused(&mut here, &mut guest, "other-driver", &behind(other))?;
    let reason = other.migration_error()?;
    ensure!(reason.contains("num-ports: source has 2"), "{reason}");
    let driver = start("driver-3", &behind(third), true)?;
    go(&scene, here, &driver, &mut guest)?;
    diag!("in the driver, the guest counted to {:?}", guest.counts());
    guest.settle(&driver.machine)?;
    driver.end()
}
