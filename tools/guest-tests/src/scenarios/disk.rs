// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Disks that go along with the guest: what is on them is device state, and they write the guest's memory by themselves.
//!
//! The guest has a serial card beside them, so cards of both kinds stand still together, and two processors, which use a disk's
//! queues at the same time. It writes and verifies all the time ([`crate::l2::disk`]).

use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use qapi::qmp::{self, MigrationCapability, MigrationStatus};

use super::broken::{
    fresh, gave_up, not_wanted, without_destination, without_source, works, DESTINATION_GONE,
};
use super::cards::{Cards, Driver};
use super::channels::{see_through_channels, unless_lost_count};
use super::contract::{early, REFUSED};
use super::guest::Guest;
use super::machine::{Machine, ANSWER};
use super::scene::{migration_ends, release, Options, Scene, MIGRATION};
use super::smooth::{see_through, trips, Pair, SOME};
use super::snapshot::saved_and_loaded;
use super::state::saved;
use super::timeline::{Look, What};
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::disk::{BLOCK, RUN};
use crate::l2::line::{Command, Line};
use crate::mdev::MdevType;
use crate::module::Loaded;
use crate::qmp::Message;

/// The driver of disks, and the name of their parent.
pub(super) const PARENT: &str = "mdev_blk";
/// A disk of any size, of 64 MiB if nothing else is said: large enough to matter and small enough for an emulated machine.
pub(super) const KIND: &str = "mdev_blk-any";

/// A serial number of the most characters that there may be.
const SERIAL: &str = "lab-0123456789abcdef";

/// Bytes a second, at which a guest's memory takes long.
const SLOWLY: u64 = 4 << 20;
/// MiB of the disk that goes there and back, if the variable does not say it: as many as there is time for in a test.
const WHOLE: u32 = 16;
/// Environment variable that does.
const MIB_VARIABLE: &str = "LAB_DISK_MIB";
/// Steps in which each of two writers has written its part of a MiB once.
const COVER: u32 = (1 << 20) / (RUN * BLOCK as u32) / 2;
/// A downtime limit, in milliseconds, that no migration of such a guest exceeds.
const LONG: u64 = 600_000;
/// Bytes of a disk of which the guest has written most of its part: less than half of that.
const SEVERAL: u64 = 3 << 19;

/// A serial card and so many disks, for both sides.
pub(super) fn pair(version: Version, disks: usize) -> Result<(Cards, Cards)> {
    let driver = Arc::new(Loaded::new(PARENT)?);
    let kind = MdevType::of_parent(PARENT, KIND)?;
    let side = || -> Result<Cards> {
        let disks = (0..disks).map(|_| kind.create()).collect::<Result<_>>()?;
        let cards = Cards::create(Driver::MdevSerial, &[1])?.in_qemu(version);
        Ok(cards.with_disks(&driver, disks))
    };
    Ok((side()?, side()?))
}

/// A live migration in which no block is lost, and the disk keeps the serial number that a guest finds it by.
pub fn live(version: Version) -> Outcome {
    let (here, there) = pair(version, 1)?;
    for cards in [&here, &there] {
        cards.disks()[0].set_attribute("migration/serial", SERIAL)?;
    }
    let scene = Scene::with_qemu(version, "disk")?;
    let guest = told(&scene, &here, &there, &Options::default())?;
    ensure!(
        guest.serials() == [SERIAL],
        "the disk's serial number is {SERIAL:?}, and the guest was told {:?}",
        guest.serials()
    );
    Ok(())
}

/// The same through iommufd, with a second disk that has a file system; the guest may be stopped only when the destination has
/// acknowledged the first copy of both.
pub fn files(version: Version) -> Outcome {
    let (here, there) = pair(version, 2)?;
    let scene = Scene::with_qemu(version, "disk-files")?;
    let (here, there) = (
        here.through_iommufd().with_files(),
        there.through_iommufd().with_files(),
    );
    told(&scene, &here, &there, &early()).map(drop)
}

/// Scenario d: QEMU stops the guest at the first opportunity, so that nearly all of the disk travels through multifd channels, and the
/// state of the card beside it.
pub fn multifd(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "d")?;
    let outcome = by_channels(&scene, version);
    unless_lost_count(&scene, outcome)
}

fn by_channels(scene: &Scene, version: Version) -> Outcome {
    let (here, there) = pair(version, 1)?;
    let (here, there) = (here.with_multifd_transfer(), there.with_multifd_transfer());
    let mut options = Options::with(&[
        MigrationCapability::return_path,
        MigrationCapability::multifd,
    ]);
    // One for memory, and one for each card.
    options.multifd_channels = Some(3);
    // The memory comes first, and the limit of the bandwidth before the end of it.
    (options.downtime_limit, options.bandwidth) = (LONG, SLOWLY);
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(scene, &here, &there)?;
    let name = source.name().to_owned();
    let began = scene.migrate(&source, &destination, &options)?;
    let measured = see_through_channels(scene, source, &destination, &mut guest, began)?;
    // QEMU traces what goes into its stream, and counts all.
    let mut streamed = 0;
    scene.timeline().each(began, |_, entry| {
        if let (true, What::Trace(line)) = (entry.who == name, &entry.what) {
            streamed += saved(line).map_or(0, |(_, bytes)| bytes);
        }
    });
    let through = measured.device.saturating_sub(streamed);
    ensure!(
        through >= SEVERAL,
        "only {through} of {} bytes travelled through channels",
        measured.device
    );
    diag!(
        "{measured}, of which {through} through channels; the guest did {:?} steps",
        guest.disks()
    );
    destination.quit()
}

/// Ten migrations in a row of a disk that the guest has written all over, and verifies all over in the end.
pub fn there_and_back(version: Version) -> Outcome {
    let mib = match std::env::var(MIB_VARIABLE) {
        Ok(text) => text.parse().context(MIB_VARIABLE)?,
        Err(_) => WHOLE,
    };
    let scene = Scene::with_qemu(version, "disk-there-and-back")?;
    let (here, there) = pair(version, 1)?;
    let cards = [here.with_whole_disks(mib)?, there.with_whole_disks(mib)?];
    let disks = trips(&scene, &cards, 10, |machine, guest| {
        while guest.disks().iter().any(|steps| *steps < COVER * mib) {
            guest.count_on(machine, SOME)?;
        }
        Ok(())
    })?;
    let blocks = mib << 8;
    ensure!(
        disks.len() == 1 && disks[0].verified == blocks && disks[0].written > blocks / 2,
        "{blocks} blocks should be verified, and most of them hold something: {disks:?}"
    );
    diag!("{mib} MiB are as they were written: {disks:?}");
    Ok(())
}

/// A live migration of a guest at work; the guest, of which everything is known in the end.
fn told(scene: &Scene, here: &Cards, there: &Cards, options: &Options) -> Result<Guest> {
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(scene, here, there)?;
    let began = scene.migrate(&source, &destination, options)?;
    let measured = see_through(scene, source, &destination, &mut guest, began)?;
    diag!("{measured}; the guest did {:?} steps", guest.disks());
    destination.quit()?;
    Ok(guest)
}

/// A disk writes memory that the guest does not touch, after that memory was sent: only the disk's log can tell. It is looked at
/// after the migration.
pub fn log_is_needed(version: Version) -> Outcome {
    let wrong = fetched_before_the_switch(version, "disk-log")?;
    ensure!(
        wrong.iter().all(Option::is_none),
        "what the disk wrote in pre-copy did not arrive: {wrong:?}"
    );
    Ok(())
}

/// The same with disks whose log forgets what they wrote: it is found, so the test above can find it.
pub fn log_is_broken(version: Version) -> Outcome {
    let _forgets = Forgetful::new()?;
    let wrong = fetched_before_the_switch(version, "disk-log-broken")?;
    ensure!(
        wrong.iter().any(Option::is_some),
        "a log that forgets everything went unnoticed"
    );
    diag!(
        "as it should be: {}",
        wrong.iter().flatten().next().context("nothing")?
    );
    Ok(())
}

/// Has the guest read blocks once all of its memory was sent, migrates it, and has it look at them.
fn fetched_before_the_switch(version: Version, name: &str) -> Result<Vec<Option<String>>> {
    let (here, there) = pair(version, 1)?;
    let scene = Scene::with_qemu(version, name)?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    guest.rest(&source)?;
    let began = scene.migrate(&source, &destination, &Options::default().held())?;
    all_sent(&source, began, 2)?;
    guest.fetch(&source)?;
    // QEMU has then asked the disk what it wrote, and has sent it.
    let fetched = source.timeline().position();
    all_sent(&source, fetched, 2)?;
    release(&source)?;
    let name = source.name().to_owned();
    scene.complete(&source, &destination, began)?;
    source.quit()?;
    guest.moved(scene.timeline(), &name, began)?;
    let wrong = guest.look_at_fetched(&destination)?;
    destination.quit()?;
    Ok(wrong)
}

/// Waits until QEMU has asked so many more times what was written: all of the memory has been sent by then.
pub(super) fn all_sent(machine: &Machine, from: usize, times: usize) -> Result<usize> {
    let mut seen = 0;
    let (position, ()) = machine.wait_for(from, ANSWER, "the memory to be sent", |what| {
        if let What::Qmp(Message::Event(qmp::Event::MIGRATION_PASS { .. })) = what {
            seen += 1;
        }
        match seen == times {
            true => Look::Found(()),
            false => Look::Wait,
        }
    })?;
    Ok(position)
}

/// Disks whose log forgets what they wrote, until this is dropped.
struct Forgetful;

/// A switch of the library's, for tests.
const DROPS: &str = "/sys/kernel/debug/rust_vfio/drop_dirty_bits";

impl Forgetful {
    fn new() -> Result<Self> {
        std::fs::write(DROPS, "1").context(DROPS)?;
        Ok(Self)
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        let _ = std::fs::write(DROPS, "0");
    }
}

/// A disk of another size refuses while the guest runs at the source; once it is told the size, it takes the guest.
pub fn other_capacity(version: Version) -> Outcome {
    let (here, there) = pair(version, 1)?;
    let to = &there.disks()[0];
    to.set_attribute("migration/capacity-mib", "32")?;
    let scene = Scene::with_qemu(version, "disk-capacity")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    source.provoke(&DESTINATION_GONE);
    let began = scene.migrate(&source, &destination, &early())?;
    migration_ends(&source, began, MigrationStatus::failed)?;
    let reason = to.migration_error()?;
    ensure!(
        reason == "capacity-mib: source has 64, this device has 32",
        "the reason is {reason:?}"
    );
    gave_up(destination, &REFUSED)?;
    works(&source, &mut guest)?;

    to.set_attribute("migration/capacity-mib", "64")?;
    let destination = scene.start("again", &there.waits())?;
    let began = scene.migrate(&source, &destination, &early())?;
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;
    diag!("{measured}; the guest did {:?} steps", guest.disks());
    destination.quit()
}

/// Cancelled in pre-copy, when blocks have gone over; then migrated, to a disk that had some of them.
pub fn cancelled(version: Version) -> Outcome {
    let (here, there) = pair(version, 1)?;
    not_wanted(&Scene::with_qemu(version, "disk-cancelled")?, &here, &there)
}

/// The destination is killed in pre-copy: the guest goes on, and is migrated after all. Then it is to go back, and its machine is killed:
/// the destination gives up, and both disks can be used by other guests.
pub fn killed(version: Version) -> Outcome {
    let (here, there) = pair(version, 1)?;
    let scene = Scene::with_qemu(version, "disk-killed")?;
    let (machine, _) = without_destination(&scene, &here, &there)?;
    let back = scene.start("back", &here.waits())?;
    without_source(&scene, machine, back)?;
    for (name, cards) in [("fresh-here", &here), ("fresh-there", &there)] {
        fresh(&scene, name, cards)?;
    }
    Ok(())
}

/// Saved in an image and taken up again, with what was on the disk then.
pub fn snapshot(version: Version) -> Outcome {
    let (here, there) = pair(version, 1)?;
    let scene = Scene::with_qemu(version, "disk-snapshot")?;
    saved_and_loaded(&scene, &here, &there)
}

/// The guest reboots where it is, moves, and reboots there: each time every file is on its disk again.
pub fn rebooted(version: Version) -> Outcome {
    let (here, there) = pair(version, 1)?;
    let (here, there) = (here.with_files(), there.with_files());
    let scene = Scene::with_qemu(version, "disk-rebooted")?;
    let Pair {
        source,
        destination,
        ..
    } = Pair::at_work(&scene, &here, &there)?;
    let mut guest = reboot(&source, &here)?;
    let began = scene.migrate(&source, &destination, &Options::default())?;
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;
    diag!("{measured}");
    reboot(&destination, &there)?;
    destination.quit()
}

/// Reboots the guest of `machine`; what it left on its disk is what it finds there, and it works.
fn reboot(machine: &Machine, cards: &Cards) -> Result<Guest> {
    let from = machine.timeline().position();
    machine.command(Command::Reboot)?;
    let mut seen = Vec::new();
    machine.wait_for(from, MIGRATION, "files left and found", |what| {
        if let What::Guest(line @ Line::Files { .. }) = what {
            seen.push(line.clone());
        }
        match what {
            What::Guest(Line::Ready { .. }) => Look::Found(()),
            _ => Look::Wait,
        }
    })?;
    let [Line::Files { files, .. }, found] = seen.as_slice() else {
        anyhow::bail!("files should be left and found once each, but: {seen:?}");
    };
    ensure!(*files > 0, "no file was left: {seen:?}");
    ensure!(seen[0] == *found, "the guest left and found: {seen:?}");
    diag!("after the reboot: {found}");
    let mut guest = Guest::boot(machine, from, &cards.view())?;
    works(machine, &mut guest)?;
    Ok(guest)
}
