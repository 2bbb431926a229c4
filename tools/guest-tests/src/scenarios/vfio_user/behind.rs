// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The devices are the drivers', behind the sockets of programs: the guest's QEMU speaks vfio-user, and what the guest does is done
//! by the kernel. The card has registers and interrupts, and the disk beside it reads and writes the guest's memory by itself.

use std::sync::Arc;

use anyhow::{ensure, Context, Result};

use super::{block, commands, Device, Shell, PORTS, RECORDS, SOCKET};
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::line::Interrupt;
use crate::mdev::{Mdev, MdevType};
use crate::module::Loaded;
use crate::scenarios::cards::{Cards, Driver, UNMASK_REFUSED};
use crate::scenarios::guest::{Guest, View};
use crate::scenarios::scene::Scene;
use crate::scenarios::terminal::Terminal;
use crate::scenarios::version::Version;
use crate::vfio::Access;

/// The socket of the card, which the text names, and one for the disk.
const CARD: &str = "/run/kernel.sock";
const DISK: &str = "/run/disk.sock";
/// The driver of disks, and a type of it.
const DISKS: &str = "mdev_blk";
const KIND: &str = "mdev_blk-any";

/// The program that stands before an instance, as the text starts it.
fn before(shell: &Shell, instance: &Mdev, socket: &str) -> Result<Device> {
    let start = commands("kernel")?.pop().context("no command")?;
    let shell = Shell {
        source: instance.uuid().to_string(),
        ..shell.clone()
    };
    Device::start(&shell, &start.replace(CARD, socket), socket)
}

/// What the text starts a monitor with, for the card behind its socket and the disk behind another one.
fn monitor() -> Result<String> {
    let text = block("monitor")?;
    let (_, device) = text.rsplit_once("-device ").context("no device")?;
    let [card, disk] = [CARD, DISK].map(|socket| device.replace(SOCKET, socket));
    let monitor = text.replace(device, &card);
    Ok(format!("{monitor} -device {disk}"))
}

/// A guest drives both. When its QEMU is gone, the kernel's devices are nobody's.
pub fn drives(version: Version) -> Outcome {
    let driver = Arc::new(Loaded::new(DISKS)?);
    let disk = MdevType::of_parent(DISKS, KIND)?.create()?;
    let cards = Cards::create(Driver::MdevSerial, &[PORTS])?.with_disks(&driver, vec![disk]);
    let scene = Scene::with_qemu(version, "vfio-user-behind")?;
    let (card, disk) = (&cards.instances()[0], &cards.disks()[0]);
    let directory = scene.place().sockets.clone();
    let shell = Shell::new(card.uuid().to_string(), version, directory)?;
    let programs = [(card, CARD), (disk, DISK)].map(|(mdev, socket)| before(&shell, mdev, socket));
    let [card_program, disk_program] = programs;
    let (card_program, disk_program) = (card_program?, disk_program?);

    let view = View {
        ports: PORTS,
        cards: 1,
        interrupt: Interrupt::Intx,
        disks: 1,
    };
    let machine = Terminal::run(scene.place(), "behind", &monitor()?, &shell.variables())?;
    let mut guest = Guest::boot(&machine, 0, &view)?;
    guest.count_on(&machine, RECORDS)?;
    guest.settle(&machine)?;
    guest.count_on(&machine, RECORDS)?;
    let reports = guest.settle(&machine)?;
    diag!("{reports:?}; the guest did {:?} steps", guest.disks());
    for mdev in [card, disk] {
        let opened = Access::Group.open(mdev);
        ensure!(opened.is_err(), "{} is nobody's", mdev.uuid());
        let state = mdev.attribute("migration/state")?;
        ensure!(state == "RUNNING", "{} is in {state}", mdev.uuid());
    }
    machine.quit(&[UNMASK_REFUSED])?;
    for program in [card_program, disk_program] {
        program.terminate()?;
    }
    for mdev in [card, disk] {
        drop(Access::Group.open(mdev)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_starts_a_program_and_a_monitor_that_can_be_had_twice() {
        let start = commands("kernel").unwrap();
        assert_eq!(start.len(), 1);
        assert!(start[0].ends_with(&format!("--socket-path {CARD}")));
        let monitor = monitor().unwrap();
        for socket in [CARD, DISK] {
            let path = format!("\"path\":\"{socket}\"");
            assert_eq!(monitor.matches(&path).count(), 1, "{monitor}");
        }
        assert!(!monitor.contains(SOCKET));
        assert_eq!(monitor.matches("vfio-user-pci").count(), 2);
    }
}
