// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A live migration told to a person: what is loaded, what sysfs shows, a guest that counts, its card and itself on their
//! way from one QEMU to another, the guest that counts on, and the verdict. Then what happens if the cards differ.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use qapi::qmp::{Event, VfioMigrationState};

use super::cards::{Driver, UNMASK_REFUSED};
use super::guest::Guest;
use super::scene::{Options, Scene};
use super::smooth::{pair, see_through, SOME};
use super::state::{state_of_bits, traced};
use super::timeline::{Entry, What};
use super::version::Version;
use crate::l2::line::Line;
use crate::qmp::Message;

mod refusal;

/// Ports of the card in the story.
const PORTS: usize = 2;
/// Time between two lines about the guest's count.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// Tells the story with one QEMU. The error is for the reader, too.
pub fn tell(version: Version) -> Result<()> {
    println!("1. What is loaded\n");
    loaded()?;
    println!(
        "   QEMU {version} runs the guest and asks for the card's state by migration protocol {}",
        version.protocol()
    );
    println!("\n2. What sysfs shows\n");
    let kind = Driver::MdevSerial.kind(PORTS)?;
    println!("   {}", kind.path().display());
    for name in ["name", "description", "device_api", "available_instances"] {
        println!(
            "     {name:<20} {}",
            kind.attribute(name).unwrap_or_else(|_| "-".into())
        );
    }
    let (here, there) = pair(version, &[PORTS])?;
    println!("   Two instances were made by writing their names to `create`:");
    for (cards, role) in [
        (&here, "the guest starts with this one"),
        (&there, "it will be migrated to this one"),
    ] {
        let mdev = &cards.instances()[0];
        println!("     {}  ({role})", mdev.path().display());
    }
    println!(
        "     available_instances is now {}",
        kind.available_instances()?
    );

    println!("\n3. A guest at work\n");
    let talking = Arc::new(AtomicBool::new(true));
    let narrator = Narrator::new(Arc::clone(&talking));
    let scene = Scene::new("demo", Some(Box::new(move |entry| narrator.hear(entry))))?;
    let source = scene.start("source", &here.boots())?;
    println!(
        "   QEMU \"source\" boots a guest: Linux with its stock 8250 serial driver, under KVM."
    );
    let destination = scene.start("destination", &there.waits())?;
    println!("   QEMU \"destination\" has the other card and waits for a migration.");
    let mut guest = Guest::boot(&source, 0, &here.view())?;
    println!("   The guest writes numbered records into every port; the far end sends them back; it checks each byte.");
    guest.count_on(&source, SOME)?;
    guest.settle(&source)?;
    guest.count_on(&source, 2 * SOME)?;

    println!("\n4. Live migration\n");
    let began = scene.migrate(&source, &destination, &Options::default())?;
    let measured = see_through(&scene, source, &destination, &mut guest, began)?;

    println!("\n5. The guest goes on\n");
    guest.count_on(&destination, 2 * SOME)?;
    let reports = guest.settle(&destination)?;
    destination.quit()?;
    talking.store(false, Ordering::Relaxed);

    println!("\n6. Verdict\n");
    for report in &reports {
        println!(
            "   port {}: {} records sent, {} came back whole and in order, {} wrong, {} under way",
            report.port, report.sent, report.verified, report.faults, report.outstanding
        );
    }
    println!(
        "   device state {} bytes, memory {} KiB",
        measured.device,
        measured.ram / 1024
    );
    println!(
        "   the migration took {} ms; for {} ms of that the guest stood still",
        measured.total, measured.downtime
    );
    println!("\n   Not one byte was lost: the card was migrated while the guest used it.");
    drop(scene);
    refusal::tell(version)
}

/// Prints the modules that matter and their versions.
fn loaded() -> Result<()> {
    let modules = fs::read_to_string("/proc/modules").context("/proc/modules")?;
    for (name, role) in [
        (
            "mdev_serial",
            "the serial card, a vendor driver in safe Rust",
        ),
        (
            "rust_vfio",
            "what it is built on: VFIO, mdev and migration for Rust",
        ),
        ("mdev", "the kernel's mediated device core"),
    ] {
        if modules
            .lines()
            .any(|line| line.split(' ').next() == Some(name))
        {
            println!("   {name:<12} {role}");
        }
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "   in Linux {}, itself in a machine emulated by QEMU",
        release.trim()
    );
    Ok(())
}

/// Prints what happens while it happens.
struct Narrator {
    talking: Arc<AtomicBool>,
    /// When a count was printed last.
    last: Mutex<Option<Duration>>,
    /// The state that a QEMU of protocol v1 wrote last, and which one: it writes some twice.
    written: Mutex<Option<(String, VfioMigrationState)>>,
    /// Who warned of the card's interrupt already.
    warned: Mutex<Vec<String>>,
}

impl Narrator {
    /// Tells as long as `talking` is set.
    fn new(talking: Arc<AtomicBool>) -> Self {
        Self {
            talking,
            last: Mutex::new(None),
            written: Mutex::new(None),
            warned: Mutex::new(Vec::new()),
        }
    }

    fn hear(&self, entry: &Entry) {
        if !self.talking.load(Ordering::Relaxed) {
            return;
        }
        let say = |text: String| {
            println!(
                "   {:6.2} s  {:<12} {text}",
                entry.at.as_secs_f64(),
                entry.who
            )
        };
        match &entry.what {
            What::Guest(Line::Ready {
                ports,
                uart,
                interrupt,
                ..
            }) => {
                say(format!(
                    "guest booted: {ports} ports of type {uart}, interrupt by {interrupt}"
                ));
            }
            What::Guest(Line::Count(counts)) => {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.is_none_or(|last| entry.at - last >= COUNT_EVERY) {
                    *last = Some(entry.at);
                    let counts: Vec<String> = counts.iter().map(u32::to_string).collect();
                    say(format!("guest counts: {} records", counts.join(" and ")));
                }
            }
            What::Guest(line @ (Line::Fault { .. } | Line::Failed(_))) => {
                say(format!("GUEST: {line}"))
            }
            What::Qmp(Message::Event(Event::VFIO_MIGRATION { data, .. })) => {
                say(format!("card: {}", meaning(data.device_state)));
            }
            // QEMU 7.2 has no event for that.
            What::Trace(line) => {
                if let Some(state) = traced(line).and_then(|(_, bits)| state_of_bits(bits)) {
                    let now = Some((entry.who.clone(), state));
                    let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                    if std::mem::replace(&mut *written, now.clone()) != now {
                        say(format!("card: {}", meaning(state)));
                    }
                }
            }
            What::Qmp(Message::Event(Event::MIGRATION { data, .. })) => {
                say(format!("migration: {}", qapi::Enum::name(&data.status)));
            }
            What::Qmp(Message::Event(Event::STOP { .. })) => say("QEMU stopped the guest".into()),
            What::Qmp(Message::Event(Event::RESUME { .. })) => {
                say("QEMU lets the guest run".into())
            }
            // Long, and repeated whenever the guest's firmware or kernel changes the routing.
            What::Stderr(line) if line.contains(UNMASK_REFUSED) => {
                let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
                if !warned.contains(&entry.who) {
                    warned.push(entry.who.clone());
                    say(
                        "QEMU warns that KVM may not deliver the card's interrupt: it does so itself (intx.rst)"
                            .into(),
                    );
                }
            }
            What::Stderr(line) => say(format!("QEMU says: {line}")),
            _ => {}
        }
    }
}

/// A device state, for people.
fn meaning(state: VfioMigrationState) -> String {
    let text = match state {
        VfioMigrationState::pre_copy => "the guest still uses it; its first data is on the way",
        VfioMigrationState::pre_copy_p2p => "as before, and it starts no DMA to other devices",
        VfioMigrationState::stop_copy => "it stands still; the rest of its state is read",
        VfioMigrationState::stop => "it stands still; everything is read",
        VfioMigrationState::resuming => "it is being loaded",
        VfioMigrationState::running_p2p => "loaded; it answers, but starts no DMA to other devices",
        VfioMigrationState::running => "it works",
    };
    format!("{} ({text})", qapi::Enum::name(&state))
}
