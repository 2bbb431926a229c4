// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest's disk is a program: it serves the guest's rings in memory that QEMU has given it, and interrupts by MSI-X.

use super::{block, commands, Device, Shell, PORTS};
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::line::Interrupt;
use crate::scenarios::cards::{Cards, Driver, UNMASK_REFUSED};
use crate::scenarios::guest::{Guest, View};
use crate::scenarios::scene::Scene;
use crate::scenarios::terminal::Terminal;
use crate::scenarios::version::Version;
use anyhow::{ensure, Context, Result};

/// The socket that the text names.
const SOCKET: &str = "/run/disk.sock";
/// What the text's monitor tells the guest's kernel, and what it is told here: one with two processors watches its clock, and says on
/// the console that it was late, where the guest's words are.
const APPEND: [&str; 2] = [
    "-append 'console=ttyS0 quiet'",
    "-append 'console=ttyS0 tsc=reliable quiet loglevel=4'",
];
/// Steps of each of the guest's writers before and after it stands still.
const STEPS: u32 = 8;

/// Two processors, so that the queue is used by both, and the program's disk. The card is the driver's, by VFIO: beside one that is a
/// program as well, one of the disk's writers waits for long (Documentation/testing.rst).
fn monitor() -> Result<String> {
    let text = block("monitor")?;
    let (before, _) = text
        .split_once("-device")
        .context("the monitor has no device")?;
    let [told, quiet] = APPEND;
    ensure!(before.contains(told), "the monitor has no {told}");
    let before = before.replace(told, quiet);
    let disk =
        format!(r#"{{"driver":"vfio-user-pci","socket":{{"type":"unix","path":"{SOCKET}"}}}}"#);
    Ok(format!(
        "{before} -smp 2 -device vfio-pci,sysfsdev=/sys/bus/mdev/devices/$source -device '{disk}'"
    ))
}

/// A guest writes the program's disk and verifies it all the time. Then another guest does, with another disk, which is empty.
pub fn drives(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "vfio-user-disk")?;
    let cards = Cards::create(Driver::MdevSerial, &[PORTS])?;
    let source = cards.instances()[0].uuid().to_string();
    let shell = Shell::new(source, version, scene.place().sockets.clone())?;
    let command = commands("disk")?.pop().context("no command")?;
    let view = View {
        ports: PORTS,
        cards: 1,
        interrupt: Interrupt::Intx,
        disks: 1,
    };
    for name in ["first", "second"] {
        let disk = Device::start(&shell, &command, SOCKET)?;
        let machine = Terminal::run(scene.place(), name, &monitor()?, &shell.variables())?;
        let mut guest = Guest::boot(&machine, 0, &view)?;
        guest.count_on(&machine, STEPS)?;
        // Every block is verified, and an interrupt has come since the last time.
        guest.settle(&machine)?;
        guest.count_on(&machine, STEPS)?;
        let (_, disks) = guest.account(&machine)?;
        diag!("{name}: {disks:?}");
        machine.quit(&[UNMASK_REFUSED])?;
        disk.terminate()?;
    }
    Ok(())
}
