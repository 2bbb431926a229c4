// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest goes from a program to another one with a QEMU that migrates vfio-user devices by itself. There is none yet: QEMU 11.1
//! leaves the device behind without an error. As soon as a QEMU says that it can, it has to.

use anyhow::{ensure, Result};

use super::{block, Device, Shell, PORTS, RECORDS, SOCKET};
use crate::diag;
use crate::ktap::{skip, Outcome};
use crate::l2::line::Interrupt;
use crate::scenarios::cards::UNMASK_REFUSED;
use crate::scenarios::guest::{Guest, View};
use crate::scenarios::scene::Scene;
use crate::scenarios::terminal::Terminal;
use crate::scenarios::version::Version;

/// How a person finds out whether QEMU can, and the property that says so.
const HELP: &str = "qemu-system-x86_64 -device vfio-user-pci,help";
const PROPERTY: &str = "enable-migration";
/// Where the property goes in what starts the monitor.
const DRIVER: &str = "\"driver\":\"vfio-user-pci\",";

/// What starts the monitor of a guest whose card is at this socket, and migrates.
fn monitor(socket: &str) -> Result<String> {
    let text = block("monitor")?.replace(SOCKET, socket);
    ensure!(text.contains(DRIVER), "{text} names no driver");
    Ok(text.replace(DRIVER, &format!("{DRIVER}\"{PROPERTY}\":\"on\",")))
}

/// The guest verifies records on every port, by interrupts.
fn works(machine: &Terminal, guest: &mut Guest) -> Result<()> {
    guest.count_on(machine, RECORDS)?;
    guest.settle(machine)?;
    guest.count_on(machine, RECORDS)
}

/// A guest at work migrates as any other one does.
pub fn migrates(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "vfio-user-native")?;
    let directory = scene.place().sockets.clone();
    let shell = Shell::new(String::new(), version, directory.clone())?;
    let (help, _) = shell.run(HELP)?;
    if !help.contains(PROPERTY) {
        return skip(format!("vfio-user-pci of QEMU {version} has no {PROPERTY}"));
    }
    let path = |name: &str| directory.join(name).display().to_string();
    let start = |name: &str| {
        let socket = path(name);
        let command = format!("$program --m-num-ports={PORTS} --socket-path {socket}");
        Device::start(&shell, &command, &socket)
    };
    let (here, there) = (start("here.card")?, start("there.card")?);
    let run = |name: &str, more: &str| {
        let monitor = monitor(&path(&format!("{name}.card")))?;
        let command = format!("{monitor}{more}");
        Terminal::run(scene.place(), name, &command, &shell.variables())
    };
    let source = run("here", "")?;
    let uri = format!("unix:{}", path("guest"));
    let destination = run("there", &format!(" -incoming {uri}"))?;
    let view = View {
        ports: PORTS,
        cards: 1,
        interrupt: Interrupt::Intx,
        disks: 0,
    };
    let mut guest = Guest::boot(&source, 0, &view)?;
    works(&source, &mut guest)?;

    let began = scene.timeline().position();
    source.monitor(&format!("migrate -d {uri}"))?;
    source.migrated("info migrate")?;
    source.quit(&[UNMASK_REFUSED])?;
    here.terminate()?;
    guest.moved(scene.timeline(), "here", began)?;
    works(&destination, &mut guest)?;
    diag!("the guest counted to {:?}", guest.counts());
    destination.quit(&[UNMASK_REFUSED])?;
    there.terminate()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_starts_a_monitor_that_can_be_told_to_migrate_its_card() {
        let monitor = monitor("/run/there").unwrap();
        assert!(monitor.contains("\"enable-migration\":\"on\""));
        assert!(monitor.contains("\"path\":\"/run/there\"") && !monitor.contains(SOCKET));
    }
}
