// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Scenarios of the compatibility contract: cards that differ, what `vfio-migrate` says of them, what the driver does when
//! nobody asked, and what the guest sees.
//!
//! A reason is that of the contract's section 7.8. `mdev_serial_old` is the driver's second parent: an older implementation
//! of the same device model, which lacks `compact-state` and the larger values.

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use qapi::qmp::{self, MigrationCapability, MigrationStatus, RunState, VfioMigrationState};

use super::broken::{gave_up, never_stopped, works, DESTINATION_GONE};
use super::cards::Cards;
use super::guest::Guest;
use super::machine::Machine;
use super::scene::{migration_ends, Options, Scene};
use super::smooth::{see_through, Pair};
use super::tool::{check, prepare};
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::config_space::MSI;
use crate::l2::line::CardReport;
use crate::mdev::{Mdev, MdevType};
use crate::module::Reloaded;

/// The parent with everything.
pub(super) const NEW: &str = "mdev_serial";
/// The parent with less, there if the driver is loaded so.
const OLD: &str = "mdev_serial_old";
/// What a destination says that refuses the setup record.
pub(super) const REFUSED: [&str; 2] = ["load of migration failed: Invalid argument", "/vfio)"];

/// A new instance with these parameters, all written before it is opened.
pub(super) fn instance(parent: &str, ty: &str, parameters: &[(&str, &str)]) -> Result<Mdev> {
    let mdev = MdevType::of_parent(parent, ty)?.create()?;
    for (name, value) in parameters {
        set(&mdev, name, value)?;
    }
    Ok(mdev)
}

/// Writes a parameter.
fn set(mdev: &Mdev, name: &str, value: &str) -> Result<()> {
    mdev.set_attribute(&format!("migration/{name}"), value)
        .with_context(|| {
            let why = mdev.migration_error().unwrap_or_default();
            format!("{name}={value} was refused: {why}")
        })
}

/// Fails unless the instance has these values.
fn has(mdev: &Mdev, parameters: &[(&str, &str)]) -> Result<()> {
    for (name, value) in parameters {
        let found = mdev.attribute(&format!("migration/{name}"))?;
        ensure!(found == *value, "{name} should be {value} but is {found}");
    }
    Ok(())
}

/// What a guest must see of a card: QEMU docs/specs/pci-serial.rst for device number and size, and the name of the UART in
/// Linux's 8250 driver. The driver sends as many bytes at once as it takes the FIFO for.
fn looks(card: usize, ports: usize, fifo: u32, msi: bool) -> CardReport {
    let device = match ports {
        1 => 2,
        2 => 3,
        _ => 4,
    };
    let uart = if fifo == 64 { "TI16750" } else { "16550A" };
    CardReport {
        card,
        id: (0x1b36, device),
        bar0: 8 * ports as u64,
        capabilities: if msi { vec![MSI] } else { vec![] },
        uarts: vec![uart.into(); ports],
        fifo,
    }
}

/// Fails unless the guest on `machine` sees its cards so, now.
fn sees(guest: &Guest, machine: &Machine, expected: &[CardReport]) -> Result<()> {
    let seen = guest.look(machine)?;
    ensure!(
        seen == expected,
        "the guest on {} should see {expected:?} but sees {seen:?}",
        machine.name()
    );
    Ok(())
}

/// A live migration between cards that are prepared: the guest sees the same before and after, and works.
fn migrates(name: &str, here: &Cards, there: &Cards, expected: &[CardReport]) -> Result<()> {
    let scene = Scene::new(name, None)?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, here, there)?;
    sees(&guest, &source, expected)?;
    let began = scene.migrate(&source, &destination, &early())?;
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;
    sees(&guest, &destination, expected)?;
    works(&destination, &mut guest)?;
    diag!("{measured}; the guest sees {expected:?}");
    destination.quit()
}

/// How to migrate so that the destination can object while the source runs.
pub(super) fn early() -> Options {
    Options::with(&[
        MigrationCapability::return_path,
        MigrationCapability::switchover_ack,
    ])
}

/// Compatible but of different types: a card of one port, and one that can have as many.
pub fn other_type() -> Outcome {
    let here = instance(NEW, "mdev_serial-1", &[])?;
    let there = instance(NEW, "mdev_serial-any", &[("num-ports", "4")])?;
    check(&here, &there)?
        .expect(0)?
        .says(": num-ports 4 -> 1")?;
    prepare(&here, &there)?
        .expect(0)?
        .says("prepared: num-ports 4 -> 1")?;
    check(&here, &there)?
        .expect(0)?
        .says("compatible, and prepared")?;
    let (here, there) = (Cards::of(vec![here])?, Cards::of(vec![there])?);
    migrates("contract-type", &here, &there, &[looks(0, 1, 16, true)])
}

/// A newer source is given an older version, and can go to an older destination.
pub fn newer_to_older() -> Outcome {
    let _old = Reloaded::with("old_parent=1")?;
    let here = instance(NEW, "mdev_serial-2", &[])?;
    let there = instance(OLD, "mdev_serial-2", &[])?;
    check(&here, &there)?
        .expect(1)?
        .says("compact-state: source has on, this device does not know it")?;
    set(&here, "version", "v1")?;
    check(&here, &there)?.expect(0)?.says(": msi on -> off")?;
    prepare(&here, &there)?
        .expect(0)?
        .says("prepared: msi on -> off")?;
    has(&there, &[("version", "v1")])?;
    let (here, there) = (Cards::of(vec![here])?, Cards::of(vec![there])?);
    migrates("contract-down", &here, &there, &[looks(0, 2, 16, false)])
}

/// An older source goes to a newer destination, whose newer parameters get their off values.
pub fn older_to_newer() -> Outcome {
    let _old = Reloaded::with("old_parent=1")?;
    let here = instance(OLD, "mdev_serial-2", &[])?;
    let there = instance(NEW, "mdev_serial-any", &[("fifo-depth", "64")])?;
    check(&here, &there)?.expect(0)?;
    prepare(&here, &there)?.expect(0)?;
    has(
        &there,
        &[
            ("num-ports", "2"),
            ("fifo-depth", "16"),
            ("compact-state", "off"),
        ],
    )?;
    check(&here, &there)?
        .expect(0)?
        .says("compatible, and prepared")?;
    let (here, there) = (Cards::of(vec![here])?, Cards::of(vec![there])?);
    migrates("contract-up", &here, &there, &[looks(0, 2, 16, true)])
}

/// Waits until the destination has refused the migration that began at `began`, for the reason that it must give.
fn refused(source: &Machine, there: &Mdev, began: usize, reason: &str) -> Result<()> {
    migration_ends(source, began, MigrationStatus::failed)?;
    let found = there.migration_error()?;
    ensure!(
        found == reason,
        "the reason should be {reason:?} but is {found:?}"
    );
    Ok(())
}

/// The same migration once more, with a fresh QEMU at the destination's card: it works, and the guest sees what it saw.
fn second_try(
    scene: &Scene,
    source: Machine,
    there: &Cards,
    guest: &mut Guest,
    options: &Options,
    expected: &CardReport,
) -> Result<()> {
    let again = scene.start("again", &there.waits())?;
    works(&source, guest)?;
    let began = scene.migrate(&source, &again, options)?;
    let measured = see_through(scene, source, &again, guest, began)?;
    sees(guest, &again, std::slice::from_ref(expected))?;
    works(&again, guest)?;
    diag!(
        "second try: {measured}; the guest counted to {:?} and sees {expected:?}",
        guest.counts()
    );
    again.quit()
}

/// Two cards of which one parameter differs: the destination refuses the setup record in pre-copy, the guest goes on, and after
/// `vfio-migrate prepare` the same migration works.
fn differ(parameter: &str, here: &str, there: &str, expected: &CardReport) -> Result<()> {
    let reason = format!("{parameter}: source has {here}, this device has {there}");
    let change = format!("{parameter} {there} -> {here}");
    let here = instance(NEW, "mdev_serial-any", &[(parameter, here)])?;
    let there = instance(NEW, "mdev_serial-any", &[(parameter, there)])?;
    let (here, there) = (Cards::of(vec![here])?, Cards::of(vec![there])?);
    let scene = Scene::new(&format!("contract-{parameter}"), None)?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    sees(&guest, &source, std::slice::from_ref(expected))?;
    let (from, to) = (&here.instances()[0], &there.instances()[0]);
    check(from, to)?.expect(0)?.says(&format!(": {change}"))?;

    let began = scene.migrate(&source, &destination, &early())?;
    refused(&source, to, began, &reason)?;
    never_stopped(&scene, &source, began)?;
    gave_up(destination, &REFUSED)?;
    works(&source, &mut guest)?;
    source.provoke(&DESTINATION_GONE);

    prepare(from, to)?
        .expect(0)?
        .says(&format!("prepared: {change}"))?;
    second_try(&scene, source, &there, &mut guest, &early(), expected)
}

/// An int that shapes the hardware interface as a whole.
pub fn num_ports() -> Outcome {
    differ("num-ports", "2", "1", &looks(0, 2, 16, true))
}

/// An int with an off value.
pub fn fifo_depth() -> Outcome {
    differ("fifo-depth", "64", "16", &looks(0, 1, 64, true))
}

/// A bool, off at the source: the destination has a capability that the source's list does not name.
pub fn msi() -> Outcome {
    differ("msi", "off", "on", &looks(0, 1, 16, false))
}

/// A bool of the state representation, which the guest does not see.
pub fn compact_state() -> Outcome {
    differ("compact-state", "on", "off", &looks(0, 1, 16, true))
}

/// A parameter that an older destination does not know, and the way out that needs no new start of the guest: it shapes the
/// state only, and is turned off while the guest runs.
pub fn flipped_at_run_time() -> Outcome {
    let _old = Reloaded::with("old_parent=1")?;
    let here = instance(NEW, "mdev_serial-1", &[])?;
    let there = instance(OLD, "mdev_serial-1", &[])?;
    const REASON: &str = "compact-state: source has on, this device does not know it";
    check(&here, &there)?.expect(1)?.says(REASON)?;
    let (here, there) = (Cards::of(vec![here])?, Cards::of(vec![there])?);
    let (from, to) = (&here.instances()[0], &there.instances()[0]);
    let scene = Scene::new("contract-flip", None)?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;

    let began = scene.migrate(&source, &destination, &early())?;
    refused(&source, to, began, REASON)?;
    never_stopped(&scene, &source, began)?;
    gave_up(destination, &REFUSED)?;
    works(&source, &mut guest)?;
    source.provoke(&DESTINATION_GONE);

    // What the guest sees cannot change under it.
    let frozen = from.set_attribute("migration/fifo-depth", "64");
    let errno = frozen.err().and_then(|error| error.raw_os_error());
    ensure!(
        errno == Some(Errno::EBUSY as i32),
        "fifo-depth of an open device should be EBUSY, not {errno:?}"
    );
    set(from, "compact-state", "off")?;
    check(from, to)?
        .expect(0)?
        .says("compatible, and prepared")?;
    let expected = looks(0, 1, 16, true);
    second_try(&scene, source, &there, &mut guest, &early(), &expected)
}

/// A stopped guest goes into stop-and-copy without pre-copy. The destination refuses there as well, and the guest can be
/// continued where it is.
pub fn stopped() -> Outcome {
    let here = instance(NEW, "mdev_serial-any", &[("num-ports", "2")])?;
    let there = instance(NEW, "mdev_serial-any", &[("num-ports", "4")])?;
    let (here, there) = (Cards::of(vec![here])?, Cards::of(vec![there])?);
    let (from, to) = (&here.instances()[0], &there.instances()[0]);
    let scene = Scene::new("contract-stopped", None)?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    source.execute(&qmp::stop {})?;
    // With it the source hears of the refusal before it takes the migration for complete.
    let heard = Options::with(&[MigrationCapability::return_path]);
    let began = scene.migrate(&source, &destination, &heard)?;
    refused(
        &source,
        to,
        began,
        "num-ports: source has 2, this device has 4",
    )?;
    let states = scene.states(&source, began, 0);
    ensure!(
        states.first() == Some(&VfioMigrationState::stop_copy)
            && !states.contains(&VfioMigrationState::pre_copy),
        "the card should have gone straight into stop-copy, not through {states:?}"
    );
    gave_up(destination, &REFUSED)?;
    source.expect_status(RunState::paused)?;
    source.execute(&qmp::cont {})?;
    works(&source, &mut guest)?;
    source.provoke(&DESTINATION_GONE);
    let states = scene.states(&source, began, 0);
    ensure!(
        states.last() == Some(&VfioMigrationState::running),
        "the card should run again, but went through {states:?}"
    );
    prepare(from, to)?
        .expect(0)?
        .says("prepared: num-ports 4 -> 2")?;
    let expected = looks(0, 2, 16, true);
    second_try(&scene, source, &there, &mut guest, &heard, &expected)
}

/// Three cards of one guest, each with other parameters: the guest sees what they say, before and after.
pub fn seen_by_the_guest() -> Outcome {
    const KINDS: [(&str, &str, &str); 3] =
        [("2", "64", "off"), ("1", "16", "on"), ("4", "16", "off")];
    let (mut here, mut there, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for (card, (ports, fifo, msi)) in KINDS.into_iter().enumerate() {
        let parameters = [("num-ports", ports), ("fifo-depth", fifo), ("msi", msi)];
        let (from, to) = (
            instance(NEW, "mdev_serial-any", &parameters)?,
            instance(NEW, "mdev_serial-any", &[])?,
        );
        prepare(&from, &to)?.expect(0)?;
        has(&to, &parameters)?;
        here.push(from);
        there.push(to);
        expected.push(looks(card, ports.parse()?, fifo.parse()?, msi == "on"));
    }
    migrates(
        "contract-seen",
        &Cards::of(here)?,
        &Cards::of(there)?,
        &expected,
    )
}

/// A guest whose driver knows no 16750: the FIFOs could hold 64 bytes, and it uses 16.
pub fn sixteen_of_sixty_four() -> Outcome {
    let parameters = [("num-ports", "2"), ("fifo-depth", "64")];
    let here = instance(NEW, "mdev_serial-any", &parameters)?;
    let there = instance(NEW, "mdev_serial-any", &[])?;
    prepare(&here, &there)?.expect(0)?;
    let (here, there) = (
        Cards::of(vec![here])?.driven_by_hand(),
        Cards::of(vec![there])?.driven_by_hand(),
    );
    let used = CardReport {
        uarts: vec!["16550A".into(); 2],
        fifo: 16,
        ..looks(0, 2, 64, true)
    };
    migrates("contract-16-of-64", &here, &there, &[used])
}
