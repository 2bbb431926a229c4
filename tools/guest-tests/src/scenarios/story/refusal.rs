// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The second part of the story: a destination that is another card refuses, the guest goes on, and after `vfio-migrate
//! prepare` the same migration works.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use anyhow::{ensure, Context, Result};
use qapi::qmp::{Event, MigrationStatus};

use super::{account, Narrator, SOME};
use crate::mdev::Mdev;
use crate::qmp::Message;
use crate::scenarios::broken::{gave_up, never_stopped, DESTINATION_GONE};
use crate::scenarios::cards::Cards;
use crate::scenarios::contract::{self, early, instance};
use crate::scenarios::scene::{migration_ends, Options, Scene, DOWNTIME_LIMIT};
use crate::scenarios::smooth::{see_through, Pair};
use crate::scenarios::timeline::What;
use crate::scenarios::tool::{self, Said};
use crate::scenarios::v1;
use crate::scenarios::version::{Protocol, Version};

/// What the two cards differ in.
const CHOSEN: [(&str, &str); 2] = [("num-ports", "2"), ("fifo-depth", "64")];
/// Files that are shown of each card, besides those.
const SHOWN: [&str; 2] = ["msi", "compact-state"];

/// Tells it. The error is for the reader, too.
pub fn tell(version: Version) -> Result<()> {
    println!("\n7. Two cards that differ\n");
    let (parent, ty) = ("mdev_serial", "mdev_serial-any");
    let from = instance(parent, ty, &CHOSEN)?;
    let to = instance(parent, ty, &[])?;
    println!("   Not every card can take the state of every other one. What has to agree are its parameters.");
    println!("   migration_info.json of type {ty} says what there is to choose, among others:\n");
    information(&to)?;
    println!("\n   Two instances, one with other values than a new one has:\n");
    for (variable, mdev) in [("SOURCE", &from), ("DESTINATION", &to)] {
        println!("   {variable}={}", mdev.uuid());
    }
    files("SOURCE", &from)?;
    files("DESTINATION", &to)?;
    println!("\n   Can the one take the state of the other? That can be asked before anything is started:\n");
    say("check", tool::check(&from, &to)?);

    println!("\n8. A migration that is refused\n");
    let (here, there) = (
        Cards::of(vec![from])?.in_qemu(version),
        Cards::of(vec![to])?.in_qemu(version),
    );
    let (from, to) = (&here.instances()[0], &there.instances()[0]);
    let talking = Arc::new(AtomicBool::new(true));
    let narrator = Narrator::new(Arc::clone(&talking));
    let scene = Scene::new(
        "demo-refusal",
        Some(Box::new(move |entry| narrator.hear(entry))),
    )?;
    println!("   Nobody asked. A guest at work with the first card, a migration to the second:\n");
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    match version.protocol() {
        Protocol::V1 => {
            let began = scene.migrate(&source, &destination, &v1::told())?;
            v1::refused(&source, began)?;
            gave_up(destination, &v1::REFUSED)?;
            let stopped = scene.timeline().find(began, |entry| {
                entry.who == source.name()
                    && matches!(entry.what, What::Qmp(Message::Event(Event::STOP { .. })))
            });
            let when = match stopped {
                None => "before the guest was stopped",
                Some(_) => "when the guest had been stopped, which runs again",
            };
            println!("\n   The destination refused {when}, and says why:\n");
        }
        Protocol::V2 => {
            let began = scene.migrate(&source, &destination, &early())?;
            migration_ends(&source, began, MigrationStatus::failed)?;
            never_stopped(&scene, &source, began)?;
            gave_up(destination, &contract::REFUSED)?;
            println!("\n   The destination refused before the guest was stopped, and says why:\n");
        }
    }
    source.provoke(&DESTINATION_GONE);
    println!("   $ cat /sys/bus/mdev/devices/$DESTINATION/migration/error");
    println!("   {}", to.migration_error()?);
    println!("\n   The guest at the source goes on:\n");
    guest.count_on(&source, SOME)?;
    guest.settle(&source)?;

    println!("\n9. The same migration, prepared\n");
    let prepared = tool::prepare(from, to)?;
    let status = prepared.status;
    say("prepare", prepared);
    ensure!(status == 0, "the card could not be prepared");
    println!();
    let again = scene.start("destination2", &there.waits())?;
    // The source keeps the capabilities of the first try, so the new destination needs them too.
    let options = match version.protocol() {
        Protocol::V1 => v1::told(),
        Protocol::V2 => early(),
    };
    let options = Options {
        downtime_limit: DOWNTIME_LIMIT,
        ..options
    };
    let began = scene.migrate(&source, &again, &options)?;
    let measured = see_through(&scene, source, &again, &mut guest, began)?;
    guest.count_on(&again, SOME)?;
    let reports = guest.settle(&again)?;
    talking.store(false, Ordering::Relaxed);
    again.quit()?;
    println!();
    account(&reports);
    println!(
        "   the guest stood still for {} ms in the migration that worked; the refused one lost nothing",
        measured.downtime
    );
    Ok(())
}

/// Prints what the instance's type says about the parameters that matter here, in its own words.
fn information(mdev: &Mdev) -> Result<()> {
    let text = mdev.attribute("mdev_type/migration_info.json")?;
    for (name, _) in CHOSEN {
        let key = format!("\"{name}\":");
        let start = text.find(&key).with_context(|| format!("no {name}"))?;
        // As it stands there: to the end of the value, but not as far to the right.
        let value = start + key.len();
        let mut values =
            serde_json::Deserializer::from_str(&text[value..]).into_iter::<serde_json::Value>();
        values.next().context("no value")?.context(name)?;
        let margin = start - text[..start].rfind('\n').map_or(0, |end| end + 1);
        for line in text[start..value + values.byte_offset()].lines() {
            let spaces = line.len() - line.trim_start().len();
            println!("     {}", &line[spaces.min(margin)..]);
        }
    }
    Ok(())
}

/// Prints files of an instance as `grep` does.
fn files(variable: &str, mdev: &Mdev) -> Result<()> {
    let names: Vec<&str> = CHOSEN.iter().map(|(name, _)| *name).chain(SHOWN).collect();
    let list = names.join(" ");
    println!("\n   $ cd /sys/bus/mdev/devices/${variable}/migration; grep . {list}");
    for name in names {
        println!(
            "   {name}:{}",
            mdev.attribute(&format!("migration/{name}"))?
        );
    }
    Ok(())
}

/// Prints a command and what the program said to it.
fn say(command: &str, said: Said) {
    println!("   $ vfio-migrate {command} $SOURCE $DESTINATION");
    for line in said.out.lines().chain(said.err.lines()) {
        println!("   {line}");
    }
}
