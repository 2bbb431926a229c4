// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The story of a disk: a guest writes files on it while it is on its way, and a picture shows what moved when.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use qapi::qmp::{self, Event, MigrationStatus};

use super::picture::{parts, Amount, Span};
use super::{asks, loaded, Narrator, SOME};
use crate::l2::line::Line;
use crate::mdev::{Mdev, MdevType};
use crate::qmp::Message;
use crate::scenarios::disk::{pair, KIND, PARENT};
use crate::scenarios::guest::Guest;
use crate::scenarios::machine::Machine;
use crate::scenarios::scene::{Options, Scene, MIGRATION};
use crate::scenarios::smooth::see_through;
use crate::scenarios::state::saved;
use crate::scenarios::timeline::{Look, What};
use crate::scenarios::version::Version;

/// What QEMU may send in a second: so little that there is something to see, and more than the guest writes.
const BANDWIDTH: u64 = 16 << 20;
/// Between two questions how much memory is sent.
const SAMPLE: Duration = Duration::from_millis(50);
/// Bytes of a MiB.
const MIB: f64 = (1 << 20) as f64;

/// Tells the story with one QEMU. The error is for the reader, too.
pub fn tell(version: Version) -> Result<()> {
    let (here, there) = pair(version, 1)?;
    let (here, there) = (here.with_files(), there.with_files());
    println!("1. What is loaded\n");
    loaded("mdev_blk", "the disk, a vendor driver in safe Rust")?;
    asks(version);

    println!("\n2. What sysfs shows\n");
    let kind = MdevType::of_parent(PARENT, KIND)?;
    super::kind(&kind);
    println!("   Two disks, with nothing on them yet; what is written to one is kept in the driver's memory:");
    for (cards, role) in [
        (&here, "the guest starts with this one"),
        (&there, "it will be migrated to this one"),
    ] {
        let disk = &cards.disks()[0];
        println!("     {}  ({role})", disk.path().display());
        println!(
            "       migration/capacity-mib is {}",
            disk.attribute("migration/capacity-mib")?
        );
    }

    println!("\n3. A guest at work\n");
    let talking = Arc::new(AtomicBool::new(true));
    let names = [&here, &there]
        .iter()
        .flat_map(|cards| {
            [
                (cards.instances()[0].uuid().to_string(), "card"),
                (cards.disks()[0].uuid().to_string(), "disk"),
            ]
        })
        .chain([("card0".to_owned(), "card"), ("card1".to_owned(), "disk")])
        .collect();
    let narrator = Narrator::of_disk(Arc::clone(&talking), names);
    let scene = Scene::new("demo", Some(Box::new(move |entry| narrator.hear(entry))))?;
    let source = scene.start("source", &here.boots())?;
    println!(
        "   QEMU \"source\" boots a guest with two processors: Linux with its stock virtio_blk driver, under KVM."
    );
    let destination = scene.start("destination", &there.waits())?;
    println!("   QEMU \"destination\" has the other disk and waits for a migration.");
    let mut guest = Guest::boot(&source, 0, &here.view())?;
    println!("   The guest made a file system (ext4). It replaces file after file, and reads others back from the disk; it checks each byte.");
    guest.count_on(&source, SOME)?;
    guest.settle(&source)?;
    guest.count_on(&source, 2 * SOME)?;

    println!("\n4. Live migration\n");
    let options = Options {
        bandwidth: BANDWIDTH,
        ..Options::default()
    };
    println!(
        "   QEMU may send {} MiB in a second.",
        BANDWIDTH as f64 / MIB
    );
    let start = scene.timeline().now();
    let began = scene.migrate(&source, &destination, &options)?;
    let memory = memory_sent(&scene, &source, began)?;
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;

    println!("\n5. The guest goes on\n");
    guest.count_on(&destination, SOME)?;
    let (_, disks) = guest.account(&destination)?;
    destination.quit()?;
    talking.store(false, Ordering::Relaxed);

    println!("\n6. What moved when\n");
    let sent = draw(&scene, began, start, &memory, &here.disks()[0]);

    println!("\n7. Verdict\n");
    for report in &disks {
        println!(
            "   disk {}: {} files replaced and others read back, {} files on it at the end, all as they should be, {} faults",
            report.disk, report.steps, report.written, report.faults
        );
    }
    println!(
        "   the disk sent {} KiB of what is on it, the memory was {} KiB",
        sent / 1024,
        measured.ram / 1024
    );
    println!(
        "   the migration took {} ms; for {} ms of that the guest stood still",
        measured.total, measured.downtime
    );
    println!(
        "\n   Not one byte was lost: the disk was migrated while the guest wrote files on it."
    );
    Ok(())
}

/// Asks how much memory is sent until the migration of `source` that began at `began` is over, well or not.
fn memory_sent(scene: &Scene, source: &Machine, began: usize) -> Result<Amount> {
    let timeline = scene.timeline();
    let mut sent = Amount::default();
    sent.note(timeline.now(), 0.0);
    let end = timeline.now() + MIGRATION;
    while timeline.now() < end {
        let info = source.execute(&qmp::query_migrate {})?;
        if let Some(ram) = info.ram {
            sent.note(timeline.now(), ram.transferred as f64 / MIB);
        }
        // What is waited for may come at any time; if it does not come for so long, it is time to ask again.
        let over = timeline.wait(began, SAMPLE, "the end", |entry| match &entry.what {
            What::Qmp(Message::Event(Event::MIGRATION { data, .. }))
                if entry.who == source.name() && is_end(data.status) =>
            {
                Look::Found(())
            }
            What::Exited(_) => Look::Found(()),
            _ => Look::Wait,
        });
        if over.is_ok() {
            break;
        }
    }
    Ok(sent)
}

fn is_end(status: MigrationStatus) -> bool {
    use MigrationStatus::{cancelled, completed, failed};
    [completed, failed, cancelled].contains(&status)
}

/// Draws what moved since `began`, and returns the bytes that `disk` sent.
fn draw(scene: &Scene, began: usize, start: Duration, memory: &Amount, disk: &Mdev) -> u64 {
    let (mut content, mut sent) = (Amount::default(), 0);
    content.note(start, 0.0);
    let (mut files, mut stopped, mut resumed) = (Amount::default(), None, None);
    let (mut last, mut end) = (start, None);
    let disk = disk.uuid().to_string();
    scene.timeline().each(began, |_, entry| match &entry.what {
        What::Trace(line) => {
            if let Some((_, bytes)) = saved(line).filter(|(name, _)| *name == disk) {
                // It was sent since the last that was heard of it, at the most.
                content.note(entry.at, sent as f64 / MIB);
                sent += bytes;
                content.note(entry.at + Duration::from_millis(1), sent as f64 / MIB);
            }
        }
        What::Guest(Line::Disks(steps)) if end.is_none() => {
            files.note(entry.at, f64::from(steps.iter().sum::<u32>()));
            last = entry.at;
        }
        // Asked for when the guest has worked at the destination for a while.
        What::Guest(Line::DiskReport(_)) => {
            end.get_or_insert(last);
        }
        What::Qmp(Message::Event(Event::STOP { .. })) => {
            stopped.get_or_insert(entry.at);
        }
        What::Qmp(Message::Event(Event::RESUME { .. })) => {
            resumed.get_or_insert(entry.at);
        }
        _ => {}
    });
    let end = end.unwrap_or(last);
    let (stopped, resumed) = (stopped.unwrap_or(end), resumed.unwrap_or(end));
    let span = Span::new(start, end);
    let lanes = [
        memory.lane(span, "memory sent", "MiB/s", 4),
        content.lane(span, "disk sent", "MiB/s", 4),
        files.lane(span, "files written", "a second", 3),
    ];
    for lane in lanes {
        lane.iter().for_each(|line| println!("{line}"));
        println!();
    }
    let guest = [
        (start, stopped, "at the source"),
        (resumed, end, "at the destination"),
    ];
    println!("{}", parts(span, "the guest runs", &guest));
    println!("{}", span.axis());
    sent
}
