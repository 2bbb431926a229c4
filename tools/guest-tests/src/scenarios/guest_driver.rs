// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the guest's serial driver does with its card while it is migrated: it lets go of it and takes it anew, or flow control
//! holds its transmitter.

use anyhow::{ensure, Result};

use super::broken::{hold, works};
use super::cards::Cards;
use super::contract::{instance, NEW};
use super::scene::{release, Options, Scene};
use super::smooth::{pair, see_through, switch_over, Pair, SOME};
use super::tool::prepare;
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::line::HeldReport;

/// Bytes of a FIFO of the UART that has automatic flow control.
const DEEP: u32 = 64;

/// In pre-copy the driver turns MSI off, frees its interrupt, and later takes all of it anew.
pub fn rebinds(version: Version) -> Outcome {
    let (here, there) = pair(version, &[1])?;
    let (here, there) = (here.with_msi(), there.with_msi());
    let scene = Scene::with_qemu(version, "rebind")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    let began = hold(&scene, &source, &destination, Options::default())?;
    guest.rebind(&source, &here.view())?;
    works(&source, &mut guest)?;
    guest.count_on(&source, SOME)?;
    release(&source)?;
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;
    guest.rebind(&destination, &there.view())?;
    works(&destination, &mut guest)?;
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    destination.quit()
}

/// A 16750 with automatic flow control whose guest does not read: "request to send" is off, nothing is clear to be sent, and
/// FIFO and driver are full, before the migration and after it. Once the guest reads, every byte comes.
pub fn flow_control(version: Version) -> Outcome {
    let depth = DEEP.to_string();
    let card = |parameters: &[_]| instance(NEW, "mdev_serial-any", parameters);
    let (from, to) = (
        card(&[("num-ports", "2"), ("fifo-depth", depth.as_str())])?,
        card(&[])?,
    );
    prepare(&from, &to)?.expect(0)?;
    let cards =
        |mdev| -> Result<Cards> { Ok(Cards::of(vec![mdev])?.in_qemu(version).with_flow_control()) };
    let (here, there) = (cards(from)?, cards(to)?);
    let scene = Scene::with_qemu(version, "flow-control")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;

    let held = guest.hold(&source)?;
    let expected = [0, 1].map(|port| HeldReport {
        port,
        clear_to_send: false,
        in_card: DEEP.into(),
        fifo: DEEP,
    });
    ensure!(
        held == expected,
        "flow control should hold {expected:?} but holds {held:?}"
    );
    let began = scene.migrate(&source, &destination, &Options::default())?;
    let measured = switch_over(&scene, &source, &destination, began)?;
    let name = source.name().to_owned();
    source.quit()?;
    guest.moved(scene.timeline(), &name, began)?;
    let held = guest.hold(&destination)?;
    ensure!(
        held == expected,
        "after the migration flow control should hold {expected:?} but holds {held:?}"
    );
    guest.read(&destination)?;
    works(&destination, &mut guest)?;
    diag!("{measured}; the guest counted to {:?}", guest.counts());
    destination.quit()
}
