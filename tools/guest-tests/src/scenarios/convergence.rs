// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whether a migration ends depends on how fast the guest writes its disk, and on how fast QEMU may send.
//!
//! A guest writes a part of its disk over and over at a set rate. QEMU goes on to the switch-over when what is left fits into the
//! downtime limit at a bandwidth that it is told (`avail-switchover-bandwidth`), so that all of this is a matter of bytes, which its
//! trace tells for each turn of its loop. See `Documentation/testing.rst` for the picture.

use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use qapi::qmp::{self, Event, MigrateSetParameters, MigrationStatus, RunState};
use serde::{Deserialize, Serialize};

use super::disk::{all_sent, pair};
use super::guest::Guest;
use super::machine::Machine;
use super::scene::{may_send, Options, Scene, MIGRATION};
use super::smooth::{switch_over, SOME};
use super::state::saved;
use super::timeline::{Look, What};
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::disk::PIECE;
use crate::l2::line::Line;
use crate::qmp::Message;

mod picture;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What QEMU may send in a second, in bytes. It looks ten times in a second whether it has, and a piece of a disk's state has a MiB, so a
/// disk may go faster; memory, which comes first each time, does not.
const BANDWIDTH: u64 = MIB / 2;
/// The same for a migration that is to end although the guest writes faster, and for the memory, which comes first.
const RAISED: u64 = 128 * MIB;
/// In milliseconds.
const DOWNTIME_LIMIT: u64 = 500;
/// What QEMU may expect to send in a second while the guest stands still.
const SWITCH_OVER_BANDWIDTH: u64 = 8 * MIB;
/// What may be left at the switch-over: more than a guest of this size writes of its memory between two looks.
const THRESHOLD: u64 = SWITCH_OVER_BANDWIDTH * DOWNTIME_LIMIT / 1000;
/// How often QEMU asks the disk what is left before a migration counts as one that does not end by itself: each time it has sent
/// all that was left before.
const ROUNDS: usize = 3;

/// MiB of the disk, all of which the guest writes: several times what may be left at the switch-over.
const DISK: u32 = 16;

/// What QEMU traces in a turn of its loop: what it has not sent of what the disk said was left,
const ESTIMATE: &str = "vfio_state_pending_estimate";
/// and what the disk says, when that is so little that the migration could end.
const EXACT: &str = "vfio_state_pending_exact";
/// Both, with a newer QEMU, which says in the line which of them it is.
const EITHER: &str = "vfio_state_pending";
/// One for each processor of the guest.
const WRITERS: u64 = 2;

/// Why a migration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// The guest writes more slowly than QEMU sends.
    ByItself,
    /// The guest writes faster, and then as slowly as this, in KiB a second.
    WhenTheGuestWrites(u32),
    /// The guest writes faster, and QEMU may then send as fast.
    WhenQemuMaySend(u64),
}

impl std::fmt::Display for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ends::ByItself => f.write_str("ends by itself"),
            Ends::WhenTheGuestWrites(rate) => write!(f, "ends with {rate} KiB/s written"),
            Ends::WhenQemuMaySend(rate) => write!(f, "ends with {} MiB/s sent", rate / MIB),
        }
    }
}

/// A rate below the bandwidth, and one at which there is something to count soon, in KiB a second.
const SLOWLY: u32 = 256;
const FAST: u32 = 8 << 10;

/// Rates, in KiB a second, and what becomes of a migration with them.
const CASES: [(u32, Ends); 3] = [
    (SLOWLY, Ends::ByItself),
    (4 << 10, Ends::WhenTheGuestWrites(SLOWLY)),
    (8 << 10, Ends::WhenQemuMaySend(RAISED)),
];

/// What there is to be seen of a migration. Times are since it began.
struct Curve {
    name: String,
    /// Bytes of the disk that were left to be sent, and when.
    points: Vec<(Duration, u64)>,
    /// When something was done so that it ends, and what was left then.
    helped: Option<(Duration, u64)>,
}

/// Three migrations of a guest, which writes at another rate in each.
pub fn rates(version: Version) -> Outcome {
    let (here, there) = pair(version, 1)?;
    let cards = [here.with_whole_disks(DISK)?, there.with_whole_disks(DISK)?];
    let scene = Scene::with_qemu(version, "disk-convergence")?;
    let mut here = scene.start("0", &cards[0].boots())?;
    let mut guest = Guest::boot(&here, 0, &cards[0].view())?;
    guest.pace(&here, FAST)?;
    guest.count_on(&here, SOME)?;
    let mut curves = Vec::new();
    for (trip, (rate, ends)) in CASES.into_iter().enumerate() {
        let there = scene.start(&format!("{}", trip + 1), &cards[(trip + 1) % 2].waits())?;
        guest.pace(&here, rate)?;
        let disk = cards[trip % 2].disks()[0].uuid().to_string();
        curves.push(migration(
            &scene,
            (here, &there),
            &mut guest,
            &disk,
            (rate, ends),
        )?);
        here = there;
    }
    here.quit()?;
    let path = scene.place().logs.join("bytes-left.svg");
    std::fs::write(&path, picture::draw(&curves)?).with_context(|| path.display().to_string())
}

fn migration(
    scene: &Scene,
    (source, destination): (Machine, &Machine),
    guest: &mut Guest,
    disk: &str,
    (rate, ends): (u32, Ends),
) -> Result<Curve> {
    for event in events(source.version()) {
        source.execute(&qmp::trace_event_set_state {
            name: (*event).into(),
            enable: true,
            ignore_unavailable: None,
        })?;
    }
    // It cannot end while the memory is sent.
    let options = Options {
        bandwidth: RAISED,
        ..Options::default()
    };
    let start = scene.timeline().now();
    let began = scene.migrate(&source, destination, &options.held())?;
    let mut asked = all_sent(&source, began, 2)?;
    let limits = |bandwidth| may_end(&source, bandwidth);
    let mut helped = None;
    if ends == Ends::ByItself {
        limits(BANDWIDTH)?;
    } else {
        // Meanwhile the disk was sent as fast as the memory.
        may_send(&source, BANDWIDTH)?;
        asked = more_is_left(&source, disk, asked)?;
        limits(BANDWIDTH)?;
        does_not_end(&source, disk, asked)?;
        helped = Some(scene.timeline().now() - start);
        match ends {
            Ends::WhenTheGuestWrites(slowly) => guest.pace(&source, slowly)?,
            Ends::WhenQemuMaySend(bandwidth) => limits(bandwidth)?,
            Ends::ByItself => {}
        }
    }
    let name = source.name().to_owned();
    let measured = switch_over(scene, &source, destination, began)?;
    source.quit()?;
    guest.moved(scene.timeline(), &name, began)?;
    guest.pace(destination, FAST)?;
    guest.count_on(destination, SOME)?;
    guest.settle(destination)?;
    let (points, written) = seen(scene, &name, disk, began, start, helped);
    let last = points.last().context("nothing was traced")?.1;
    ensure!(
        last <= THRESHOLD,
        "QEMU stopped the guest with {last} bytes of the disk left, and can send {THRESHOLD} within the downtime limit"
    );
    diag!("{rate} KiB/s, {ends}: {measured}; {last} bytes of the disk were left when QEMU stopped the guest");
    let left_at = |moment: Duration| {
        let before = points.iter().take_while(|(at, _)| *at <= moment);
        before.last().map(|(_, left)| (moment, *left))
    };
    Ok(Curve {
        name: format!("{} KiB/s written: {ends}", written / KIB),
        helped: helped.and_then(left_at),
        points,
    })
}

/// Lets a migration end, which may send so many bytes a second, once what is left is no more than [`THRESHOLD`].
fn may_end(source: &Machine, bandwidth: u64) -> Result<()> {
    source.execute(&qmp::migrate_set_parameters(MigrateSetParameters {
        max_bandwidth: Some(bandwidth),
        avail_switchover_bandwidth: Some(SWITCH_OVER_BANDWIDTH),
        downtime_limit: Some(DOWNTIME_LIMIT),
        ..Default::default()
    }))?;
    Ok(())
}

/// Waits until more of the disk is left than what may be at the switch-over.
fn more_is_left(source: &Machine, disk: &str, from: usize) -> Result<usize> {
    let purpose = "the guest to write faster than QEMU sends";
    source.wait(from, MIGRATION, purpose, |what| {
        matches!(what, What::Trace(line) if matches!(left(line, disk), Some(Left::Exact(left)) if left > THRESHOLD))
    })
}

/// Sees the migration go on and on: each time that QEMU asks the disk, more of it is left than half of what may be left in all, so that
/// memory is not the reason, and the guest writes more than is sent. QEMU says that the memory is sent, and devices are on the way.
fn does_not_end(source: &Machine, disk: &str, began: usize) -> Result<()> {
    let (mut sent, mut asked, mut least) = (0, Vec::new(), u64::MAX);
    let mut steps = None;
    let purpose = "the disk to be sent several times over";
    let (_, written) = source.wait_for(began, MIGRATION, purpose, |what| {
        match what {
            What::Trace(line) => {
                sent += saved(line).map_or(0, |(name, bytes)| if name == disk { bytes } else { 0 });
                if let Some(Left::Exact(left)) = left(line, disk) {
                    least = least.min(left);
                    asked.push(left);
                }
            }
            What::Guest(Line::Disks(now)) => {
                let now: u32 = now.iter().sum();
                let done = now - *steps.get_or_insert(now);
                let written = u64::from(done) * WRITERS * PIECE as u64;
                if asked.len() >= ROUNDS && written > sent {
                    return Look::Found(written);
                }
            }
            _ => {}
        }
        match least > THRESHOLD / 2 {
            true => Look::Wait,
            false => Look::Never(anyhow!(
                "hardly anything is left, although the guest writes faster than QEMU sends: {asked:?} bytes"
            )),
        }
    })?;
    let info = source.execute(&qmp::query_migrate {})?;
    let ram = info.ram.context("QEMU reports no ram statistics")?;
    let vfio = info.vfio.context("QEMU reports no vfio statistics")?;
    ensure!(
        info.status == Some(MigrationStatus::active),
        "the migration should be under way, but is {:?}",
        info.status
    );
    source.expect_status(RunState::running)?;
    ensure!(
        u64::try_from(ram.remaining)? < THRESHOLD && u64::try_from(vfio.transferred)? >= sent,
        "QEMU says that {} bytes of memory are left and that {} of devices were sent, of which {sent} are of the disk",
        ram.remaining,
        vfio.transferred
    );
    let in_all = source.execute(&QueryMigrate {})?.remaining;
    if says_what_is_left(source.version()) {
        let in_all = in_all.context("QEMU does not report what is left in all")?;
        // It asks the disk once no more than that is left by its own count, and a turn takes a piece or two off it.
        ensure!(
            in_all > THRESHOLD / 2,
            "QEMU says that {in_all} bytes are left of memory and devices, and left of the disk were {asked:?}"
        );
    }
    diag!(
        "the guest wrote {written} bytes while QEMU sent {sent}, and left were {asked:?}; query-migrate: {in_all:?} bytes left, {} of them of memory after {} passes, {} of devices sent, expected downtime {:?} ms",
        ram.remaining,
        ram.dirty_sync_count,
        vfio.transferred,
        info.expected_downtime
    );
    Ok(())
}

/// The command, with what a newer QEMU says beyond what the schema of the `qapi` crate knows.
#[derive(Debug, Serialize)]
struct QueryMigrate {}

/// Its answer.
#[derive(Debug, Deserialize)]
struct Total {
    /// Bytes of memory and devices.
    remaining: Option<u64>,
}

impl qapi::Command for QueryMigrate {
    type Ok = Total;
    const NAME: &'static str = "query-migrate";
    const ALLOW_OOB: bool = false;
}

/// Whether QEMU tells what is left of memory and devices together.
fn says_what_is_left(version: Version) -> bool {
    version == Version::V11_1
}

/// What is traced of what is left.
fn events(version: Version) -> &'static [&'static str] {
    match version {
        Version::V11_1 => &[EITHER],
        _ => &[ESTIMATE, EXACT],
    }
}

/// The bytes of a disk that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// As QEMU counts.
    Estimate(u64),
    /// As the disk says.
    Exact(u64),
}

impl Left {
    fn bytes(self) -> u64 {
        match self {
            Left::Estimate(bytes) | Left::Exact(bytes) => bytes,
        }
    }
}

/// What is left of `disk`, if that is what this line of the trace says.
fn left(line: &str, disk: &str) -> Option<Left> {
    let (event, rest) = line.split_once('(')?;
    let (instance, rest) = rest.split_once(')')?;
    if instance != disk {
        return None;
    }
    let word = |key: &str| -> Option<u64> {
        let number = rest.split_once(key)?.1.split_whitespace().next()?;
        number.trim_end_matches(',').parse().ok()
    };
    let is_exact = match event.trim_end() {
        ESTIMATE => false,
        EXACT => true,
        EITHER => word(" exact ")? != 0,
        _ => return None,
    };
    Some(match is_exact {
        true => Left::Exact(word(" stopcopy size ")?),
        false => Left::Estimate(word(" precopy initial size ")? + word(" precopy dirty size ")?),
    })
}

/// What was left when, until QEMU stopped the guest, and how many bytes a second the guest wrote until something was done about it.
fn seen(
    scene: &Scene,
    source: &str,
    disk: &str,
    began: usize,
    start: Duration,
    until: Option<Duration>,
) -> (Vec<(Duration, u64)>, u64) {
    let (mut points, mut stopped) = (Vec::new(), false);
    let mut steps: Option<[(Duration, u32); 2]> = None;
    scene.timeline().each(began, |_, entry| {
        if entry.who != source || stopped {
            return;
        }
        match &entry.what {
            What::Trace(line) => {
                let left = left(line, disk).map(Left::bytes);
                points.extend(left.map(|left| (entry.at.saturating_sub(start), left)));
            }
            What::Guest(Line::Disks(done)) => {
                let at = entry.at.saturating_sub(start);
                let now = (at, done.iter().sum());
                if until.is_none_or(|until| at < until) {
                    steps = Some([steps.map_or(now, |[first, _]| first), now]);
                }
            }
            What::Qmp(Message::Event(Event::STOP { .. })) => stopped = true,
            _ => {}
        }
    });
    let rate = steps.map_or(0.0, |[(from, first), (to, last)]| {
        let bytes = u64::from(last - first) * WRITERS * PIECE as u64;
        bytes as f64 / (to - from).as_secs_f64().max(0.001)
    });
    (points, rate as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read_from_the_trace_of_one_disk() {
        let rest = "precopy initial size 4096 precopy dirty size 32";
        let estimate = format!("{ESTIMATE}  (99d2) precopy 0 postcopy 0 {rest}");
        let exact = format!("{EXACT}  (99d2) precopy 0 postcopy 0 stopcopy size 5000 {rest}");
        let either = |exact: u8| {
            format!(
                "{EITHER}  (99d2) stopcopy size 5000, precopy initial size 4096, precopy dirty size 32, \
                 request switchover ack 1, exact {exact}, final 0"
            )
        };
        for (line, wanted) in [
            (estimate, Left::Estimate(4128)),
            (exact, Left::Exact(5000)),
            (either(0), Left::Estimate(4128)),
            (either(1), Left::Exact(5000)),
        ] {
            assert_eq!(left(&line, "99d2"), Some(wanted), "{line}");
            assert_eq!(left(&line, "99d3"), None, "{line}");
        }
        let other = "vfio_save_iterate  (99d2) precopy initial size 4096 precopy dirty size 32";
        assert_eq!(left(other, "99d2"), None);
    }
}
