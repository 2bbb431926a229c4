// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The story of one card with two homes: a guest's QEMU reaches it by vfio-user, and behind the socket is the driver at first, then
//! a program of the same model, after one that differs has refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use anyhow::{ensure, Context, Result};

use super::{account, loaded, Narrator, CARD};
use crate::scenarios::cards::{Cards, Driver};
use crate::scenarios::guest::Guest;
use crate::scenarios::scene::Scene;
use crate::scenarios::version::Version;
use crate::scenarios::vfio_user::both::behind;
use crate::scenarios::vfio_user::carried::{begin, go, works, Card, Host, DIFFERS, REFUSED};
use crate::scenarios::vfio_user::{Shell, PORTS};

/// The names in every call of the card, as the text has them: a reader can do without.
pub const OBJECT: &str = "--address=$bus call example.rust_vfio_mdev.VfioUserDevice /example/rust_vfio_mdev/card0 example.rust_vfio_mdev.Device1";

/// Tells it. The error is for the reader, too.
pub fn tell(version: Version) -> Result<()> {
    ensure!(
        version == Version::V11_1,
        "QEMU {version} has no vfio-user-pci; leave QEMU= out, or set it to {}",
        Version::V11_1
    );
    println!("1. What is loaded\n");
    loaded("mdev_serial", CARD)?;
    println!("   vfio-user-device  the same card as a program: the same source of its model, and no kernel in it");
    println!("   QEMU {version} runs the guest. It reaches the card by a socket (vfio-user-pci), whatever is behind it");

    println!("\n2. One card, two homes\n");
    let cards = Cards::create(Driver::MdevSerial, &[PORTS])?;
    let card = &cards.instances()[0];
    println!("   The card of the driver, which the guest starts with:");
    println!("     SOURCE={}", card.path().display());
    println!("   The program, which will have the card in the end:");
    let talking = Arc::new(AtomicBool::new(true));
    let narrator = Narrator::new(Arc::clone(&talking));
    let scene = Scene::new("demo", Some(Box::new(move |entry| narrator.hear(entry))))?;
    let uuid = card.uuid().to_string();
    let shell = Shell::new(uuid, version, scene.place().sockets.clone())?;
    println!("     PROGRAM={}", shell.run("echo $program")?.0);
    println!("   Can the one take the state of the other? That is asked as it is between two instances:\n");
    shown(&shell, "vfio-migrate check $source $program")?;

    println!("\n3. A guest at work\n");
    let start = |name: &str, param: &str, waits| {
        let mut card = Card::of_text();
        card.param = param.to_owned();
        Host::start(&scene, &shell, name, &card, waits)
    };
    let driver = behind(card);
    println!("   $PROGRAM --backend vfio:$SOURCE … stands before the driver's card: what the socket is told, the kernel does.");
    let mut here = start("driver", &driver, false)?;
    let mut guest = Guest::boot(&here.machine, 0, &Card::of_text().view)?;
    println!("   The guest writes numbered records into every port; the far end sends them back; it checks each byte.");
    works(&here, &mut guest)?;

    println!("\n4. A destination that refuses\n");
    println!("   Nobody asked how to start the program. It has a card with other ports: $PROGRAM {DIFFERS} …");
    println!("   QEMU carries the card's state by D-Bus. What is typed is in Documentation/vfio-user-dbus.rst, with the reasons:");
    println!("   Freeze takes the interrupt's pin down while the guest stands still, Replay tells QEMU again where the card's");
    println!("   registers are, and Thaw lets the card go on.\n");
    let other = start("other", DIFFERS, true)?;
    begin(&here, &other)?;
    here.machine.migration("info migrate", "failed")?;
    here.allowed.push(REFUSED);
    let reason = other.last_refusal()?;
    println!("\n   The program refused, and says why:\n   {reason}");
    drop(other);
    println!("\n   The guest goes on with the driver's card:\n");
    works(&here, &mut guest)?;

    println!("\n5. The remedy\n");
    let line = shown(&shell, "vfio-migrate command-line $source $program")?;
    let (_, parameters) = line.split_once(' ').context("no parameters")?;
    println!("\n   Started like that, it is the card that the guest has. The same migration:\n");
    let program = start("program", parameters, true)?;
    go(&scene, here, &program, &mut guest)?;
    let reports = guest.settle(&program.machine)?;
    talking.store(false, Ordering::Relaxed);
    println!("\n   The driver's card is nobody's now: what stood before it has ended, and so has its QEMU.");

    println!("\n6. Verdict\n");
    account(&reports);
    program.end()?;
    println!("\n   Not one byte was lost: the card left the kernel and is a program, and the guest did not notice.");
    println!("   QEMU {version} does not do that by itself: a plain `migrate` succeeds and leaves the card behind, as the check warns.");
    Ok(())
}

/// Runs a command as a person does, and prints both.
fn shown(shell: &Shell, command: &str) -> Result<String> {
    let (out, err) = shell.run(command)?;
    let typed = command
        .replace("$source", "$SOURCE")
        .replace("$program", "$PROGRAM");
    println!("   $ {typed}");
    for line in out.lines().chain(err.lines()) {
        println!("   {line}");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_calls_the_card_by_the_names_that_are_left_out() {
        let text = include_str!("../../../../../Documentation/vfio-user-dbus.rst");
        for call in ["Freeze", "Replay", "Thaw"] {
            assert!(text.contains(&format!("{OBJECT} {call}")), "{call}");
        }
    }
}
