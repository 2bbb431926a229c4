// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A live migration told to a person: what is loaded, what sysfs shows, a guest that counts, its card and itself on their
//! way from one QEMU to another, the guest that counts on, and the verdict. Then what happens if the cards differ. The same of a
//! [`disk`].

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use qapi::qmp::{Event, VfioMigrationState};

use super::cards::{Driver, UNMASK_REFUSED};
use super::guest::Guest;
use super::scene::{Options, Scene};
use super::smooth::{pair, see_through};
use super::state::{state_of_bits, traced};
use super::timeline::{Entry, What};
use super::version::Version;
use crate::l2::line::{Line, PortReport};
use crate::mdev::MdevType;
use crate::qmp::Message;

pub mod disk;
mod picture;
mod refusal;
mod vfio_user;

/// What the driver of serial cards is.
const CARD: &str = "the serial card, a vendor driver in safe Rust";
/// Ports of the card in the story.
const PORTS: usize = 2;
/// Records that the guest verifies on each port before and after something happens to it: enough for a person to see it count.
const SOME: u32 = 20;
/// Time between two lines about the guest's count.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// Tells a story with one QEMU.
pub type Story = fn(Version) -> Result<()>;

/// The story of a device.
pub fn by_name(device: &str) -> Result<Story, String> {
    match device {
        "serial" => Ok(tell),
        "blk" => Ok(disk::tell),
        "vfio-user" => Ok(vfio_user::tell),
        _ => Err(format!(
            "there is no device {device} to show; there are serial, blk, vfio-user"
        )),
    }
}

/// Tells the story of the serial card with one QEMU. The error is for the reader, too.
pub fn tell(version: Version) -> Result<()> {
    println!("1. What is loaded\n");
    loaded("mdev_serial", CARD)?;
    asks(version);
    println!("\n2. What sysfs shows\n");
    let kind = Driver::MdevSerial.kind(PORTS)?;
    self::kind(&kind);
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
    account(&reports);
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

/// Prints a type of device as sysfs shows it.
fn kind(kind: &MdevType) {
    println!("   {}", kind.path().display());
    for name in ["name", "description", "device_api", "available_instances"] {
        println!(
            "     {name:<20} {}",
            kind.attribute(name).unwrap_or_else(|_| "-".into())
        );
    }
}

/// Prints the modules that matter, the driver first, and what runs them.
fn loaded(driver: &str, role: &str) -> Result<()> {
    let modules = fs::read_to_string("/proc/modules").context("/proc/modules")?;
    for (name, role) in [
        (driver, role),
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

/// Prints the guest's account of its ports.
fn account(reports: &[PortReport]) {
    for report in reports {
        println!(
            "   port {}: {} records sent, {} came back whole and in order, {} wrong, {} under way",
            report.port, report.sent, report.verified, report.faults, report.outstanding
        );
    }
}

/// Prints which QEMU asks for the device's state, and how.
fn asks(version: Version) {
    println!(
        "   QEMU {version} runs the guest and asks for the device's state by migration protocol {}",
        version.protocol()
    );
}

/// Prints what happens while it happens.
struct Narrator {
    talking: Arc<AtomicBool>,
    /// What QEMU and the kernel call the devices, and what a person does; it is a card if it is not here.
    names: Vec<(String, &'static str)>,
    /// The guest's work is a disk's.
    disk: bool,
    /// When a count was printed last.
    last: Mutex<Option<Duration>>,
    /// The states that a QEMU of protocol v1 wrote last, by its name and the device's: it writes some twice.
    written: Mutex<HashMap<(String, String), VfioMigrationState>>,
    /// Who warned of the card's interrupt already.
    warned: Mutex<Vec<String>>,
}

impl Narrator {
    /// Tells as long as `talking` is set.
    fn new(talking: Arc<AtomicBool>) -> Self {
        Self {
            talking,
            names: Vec::new(),
            disk: false,
            last: Mutex::new(None),
            written: Mutex::new(HashMap::new()),
            warned: Mutex::new(Vec::new()),
        }
    }

    /// The same of a guest with a disk, with what its devices are called.
    fn of_disk(talking: Arc<AtomicBool>, names: Vec<(String, &'static str)>) -> Self {
        Self {
            names,
            disk: true,
            ..Self::new(talking)
        }
    }

    /// What a person calls a device.
    fn device(&self, name: &str) -> &'static str {
        let known = self.names.iter().find(|(known, _)| known == name);
        known.map_or("card", |(_, device)| device)
    }

    /// It is time for another line about the guest's count.
    fn is_due(&self, now: Duration) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now - last >= COUNT_EVERY);
        if due {
            *last = Some(now);
        }
        due
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
                disks,
                ..
            }) => {
                let disks = match self.disk {
                    true => format!("{disks} disk; "),
                    false => String::new(),
                };
                say(format!(
                    "guest booted: {disks}{ports} ports of type {uart}, interrupt by {interrupt}"
                ));
            }
            What::Guest(Line::Count(counts)) if !self.disk && self.is_due(entry.at) => {
                let counts: Vec<String> = counts.iter().map(u32::to_string).collect();
                say(format!("guest counts: {} records", counts.join(" and ")));
            }
            What::Guest(Line::Disks(steps)) if self.disk && self.is_due(entry.at) => {
                let steps: u32 = steps.iter().sum();
                say(format!(
                    "guest counts: {steps} files replaced and others checked"
                ));
            }
            What::Guest(line @ (Line::Fault { .. } | Line::DiskFault { .. } | Line::Failed(_))) => {
                say(format!("GUEST: {line}"))
            }
            What::Qmp(Message::Event(Event::VFIO_MIGRATION { data, .. })) => {
                say(format!(
                    "{}: {}",
                    self.device(&data.device_id),
                    meaning(data.device_state)
                ));
            }
            // QEMU 7.2 has no event for that.
            What::Trace(line) => {
                let new = traced(line).and_then(|(name, bits)| Some((name, state_of_bits(bits)?)));
                if let Some((name, state)) = new {
                    let key = (entry.who.clone(), name.to_owned());
                    let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                    if written.insert(key, state) != Some(state) {
                        say(format!("{}: {}", self.device(name), meaning(state)));
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
            What::Note(text) => say(text.replace(vfio_user::OBJECT, "…")),
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
