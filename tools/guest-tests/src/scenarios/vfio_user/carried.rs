// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest goes from one QEMU to another with a card that is a program, although QEMU does not migrate that: with the commands of
//! Documentation/vfio-user-dbus.rst, as they are written there.
//!
//! Each host of the text has a bus, a program and a QEMU. Here they are in one machine, so each has places of its own.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use super::{block_of, commands_of, Device, Shell, PORTS, RECORDS};
use crate::diag;
use crate::ktap::{scaled, Outcome};
use crate::l2::line::Interrupt;
use crate::l2::{MSI_CARD, MSI_CARD_SUBSYSTEM};
use crate::scenarios::broken::SHUT_DOWN;
use crate::scenarios::cards::UNMASK_REFUSED;
use crate::scenarios::guest::{Guest, View};
use crate::scenarios::machine::ANSWER;
use crate::scenarios::scene::Scene;
use crate::scenarios::terminal::Terminal;
use crate::scenarios::version::Version;

/// The text with the commands.
const TEXT: &str = include_str!("../../../../../Documentation/vfio-user-dbus.rst");
/// What a destination's QEMU has in addition, as the text says.
const WAITS: &str = "-S -incoming unix:/run/guest.sock";
/// The card's parameter in the text, and one that does not match.
pub(in crate::scenarios) const MATCHES: &str = "--m-num-ports=2";
pub(in crate::scenarios) const DIFFERS: &str = "--m-num-ports=4";
/// Another one that does.
const ONE_PORT: &str = "--m-num-ports=1";
/// Where the text has the slot of QEMU's device.
const SLOT_PROPERTY: &str = "\"addr\":\"5\",";
/// What a source says whose destination has refused.
pub(in crate::scenarios) const REFUSED: &str = "Sibling indicated error";
/// The slot that the text gives the card.
const SLOT: u8 = 5;

/// A card, and how the guest sees it.
pub(in crate::scenarios) struct Card {
    /// Its parameter on the command line.
    pub(in crate::scenarios) param: String,
    /// More of QEMU's device, in JSON.
    properties: String,
    pub(in crate::scenarios) view: View,
}

impl Card {
    /// The one of the text.
    pub(in crate::scenarios) fn of_text() -> Self {
        Self {
            param: MATCHES.to_string(),
            properties: String::new(),
            view: View {
                ports: PORTS,
                cards: 1,
                interrupt: Interrupt::Intx,
                disks: 0,
            },
        }
    }

    /// One of a single port, which poses as another one that the guest's driver uses MSI for.
    fn with_msi() -> Self {
        let numbers = [
            ("x-pci-vendor-id", MSI_CARD.0),
            ("x-pci-device-id", MSI_CARD.1),
            ("x-pci-sub-vendor-id", MSI_CARD_SUBSYSTEM.0),
            ("x-pci-sub-device-id", MSI_CARD_SUBSYSTEM.1),
        ];
        let property = |(name, number)| format!("\"{name}\":{number},");
        Self {
            param: ONE_PORT.to_string(),
            properties: numbers.map(property).concat(),
            view: View {
                ports: 1,
                cards: 1,
                interrupt: Interrupt::Msi,
                disks: 0,
            },
        }
    }
}

/// A D-Bus daemon in the background.
struct Bus(OwnedFd);

impl Bus {
    /// The one of this number, as it prints it.
    fn of(number: &str) -> Result<Self> {
        let pid = number.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.context("the daemon's process number")?;
        let process = pidfd_open(pid, PidfdFlags::empty()).context("the daemon's process")?;
        Ok(Self(process))
    }
}

impl Drop for Bus {
    /// Whoever drops it goes on when the daemon has ended, so that nobody finds it running later.
    fn drop(&mut self) {
        if pidfd_send_signal(&self.0, Signal::TERM).is_ok() {
            let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
            let limit = Timespec::try_from(scaled(ANSWER));
            let _ = limit.map(|limit| poll(&mut ended, Some(&limit)));
        }
    }
}

/// What is on one host. The monitor goes first, and the bus last.
pub(in crate::scenarios) struct Host {
    name: String,
    pub(in crate::scenarios) machine: Terminal,
    device: Device,
    _bus: Bus,
    places: Places,
    shell: Shell,
    /// What QEMU has reason to say.
    pub(in crate::scenarios) allowed: Vec<&'static str>,
}

/// Where things of a host are.
struct Places {
    bus: PathBuf,
    socket: PathBuf,
}

impl Places {
    /// The text's command with them in the place of its variables, and with the value of a port.
    fn fill(&self, text: &str, selector: &str) -> String {
        text.replace("$bus", &format!("unix:path={}", self.bus.display()))
            .replace("$socket", &self.socket.display().to_string())
            .replace("$selector", selector)
    }
}

impl Host {
    pub(in crate::scenarios) fn start(
        scene: &Scene,
        shell: &Shell,
        name: &str,
        card: &Card,
        waits: bool,
    ) -> Result<Self> {
        let directory = &scene.place().sockets;
        let places = Places {
            bus: directory.join(format!("{name}.bus")),
            socket: directory.join(format!("{name}.sock")),
        };
        let [bus, program]: [String; 2] = commands_of(TEXT, "helpers")?
            .try_into()
            .map_err(|_| anyhow::anyhow!("the text starts two programs"))?;
        ensure!(program.contains(MATCHES), "{program} names no ports");
        let (pid, _) = shell.run(&places.fill(&bus, ""))?;
        let bus = Bus::of(&pid)?;
        let program = places.fill(&program.replace(MATCHES, &card.param), "");
        let socket = places.socket.to_str().context("UTF-8")?;
        let device = Device::start(shell, &program, socket)?;
        let monitor = places.fill(&block_of(TEXT, "carried")?, "");
        ensure!(monitor.contains(SLOT_PROPERTY), "{monitor} names no slot");
        let more = format!("{SLOT_PROPERTY}{}", card.properties);
        let mut monitor = monitor.replace(SLOT_PROPERTY, &more);
        if waits {
            ensure!(TEXT.contains(WAITS), "the text says how one waits");
            monitor = format!("{monitor} {WAITS}");
        }
        let machine = Terminal::run(scene.place(), name, &monitor, &shell.variables())?;
        Ok(Self {
            name: name.to_string(),
            machine,
            device,
            _bus: bus,
            places,
            shell: shell.clone(),
            allowed: vec![UNMASK_REFUSED],
        })
    }

    /// Types a block of the text into the monitor.
    fn types(&self, name: &str) -> Result<()> {
        let block = block_of(TEXT, name)?;
        block
            .lines()
            .try_for_each(|line| self.machine.monitor(line))
    }

    /// Types what a command of the text prints into the monitor.
    fn types_what_is_printed(&self, command: &str, selector: &str) -> Result<()> {
        self.machine.note(format!("$ {command}"));
        let (out, _) = self.shell.run(&self.places.fill(command, selector))?;
        // An array of strings, as busctl writes it.
        let lines: Vec<&str> = out.split('"').skip(1).step_by(2).collect();
        let note = |n| format!("{n} commands for the monitor, which are typed into it");
        self.machine.note(match lines.len() {
            0 => "done".to_owned(),
            n => note(n),
        });
        lines.iter().try_for_each(|line| self.machine.enter(line))
    }

    /// What QEMU has of the card's configuration space.
    fn card(&self) -> Result<String> {
        let all = self.machine.ask("info pci")?;
        let begin = format!("device {SLOT:>3}, function 0:");
        let lines = all.lines().skip_while(|line| !line.contains(&begin));
        let card = lines.skip(1).take_while(|line| !line.contains("function"));
        let card: Vec<&str> = card.map(str::trim).collect();
        ensure!(!card.is_empty(), "there is no card: {all}");
        Ok(card.join("; "))
    }

    /// Why the program refused what it was given last.
    pub(in crate::scenarios) fn last_refusal(&self) -> Result<String> {
        let ask = commands_of(TEXT, "refusal")?.pop().context("no command")?;
        let (out, _) = self.shell.run(&self.places.fill(&ask, ""))?;
        let reason = out
            .strip_prefix("s \"")
            .and_then(|rest| rest.strip_suffix('"'));
        Ok(reason
            .with_context(|| format!("{out} is no text"))?
            .to_owned())
    }

    pub(in crate::scenarios) fn end(self) -> Result<()> {
        self.machine.quit(&self.allowed)?;
        self.device.terminate()
    }
}

/// Takes the guest past where a migration can be cancelled.
pub(in crate::scenarios) fn begin(source: &Host, destination: &Host) -> Result<()> {
    freeze(source, destination)?;
    source.types("continue")
}

/// Takes the guest as far as a migration can be cancelled: it stands still, and its card does.
fn freeze(source: &Host, destination: &Host) -> Result<()> {
    for host in [source, destination] {
        host.types("capabilities")?;
    }
    source.types("begin")?;
    source.machine.migration("info migrate", "pre-switchover")?;
    let freeze = commands_of(TEXT, "freeze")?.pop().context("no command")?;
    source.types_what_is_printed(&freeze, "")
}

/// Takes the guest to another host.
pub(in crate::scenarios) fn go(
    scene: &Scene,
    source: Host,
    destination: &Host,
    guest: &mut Guest,
) -> Result<()> {
    let before = source.card()?;
    let began = scene.timeline().position();
    begin(&source, destination)?;
    for host in [&source, destination] {
        host.machine.migration("info migrate", "completed")?;
    }
    // QEMU is content, and the guest's card is not where the guest left it.
    let lost = destination.card()?;
    ensure!(lost != before, "QEMU has migrated {before} by itself");
    source
        .machine
        .note(format!("QEMU has the card as {before}"));
    destination
        .machine
        .note(format!("QEMU has the card as {lost}"));

    let selector = destination.machine.ask(&block_of(TEXT, "selector")?)?;
    let (_, selector) = selector.rsplit_once("= ").context("no value")?;
    let [replay, thaw]: [String; 2] = commands_of(TEXT, "replay")?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the text has two commands"))?;
    // The text has it as D-Bus's clients take numbers: as those of C, which a hexadecimal one is.
    destination.types_what_is_printed(&replay, selector.trim())?;
    destination.types_what_is_printed(&thaw, "")?;
    let found = destination.card()?;
    ensure!(found == before, "the card was {before} and is {found}");
    destination
        .machine
        .note(format!("QEMU has the card as {found}"));
    destination.types("resume")?;

    let name = source.name.clone();
    source.end()?;
    guest.moved(scene.timeline(), &name, began)?;
    works(destination, guest)
}

/// The guest verifies records on every port, by interrupts.
pub(in crate::scenarios) fn works(host: &Host, guest: &mut Guest) -> Result<()> {
    guest.count_on(&host.machine, RECORDS)?;
    guest.settle(&host.machine)?;
    guest.count_on(&host.machine, RECORDS)
}

/// A guest at work with a card.
fn at_work(scene: &Scene, shell: &Shell, card: &Card) -> Result<(Host, Guest)> {
    let host = Host::start(scene, shell, "first", card, false)?;
    let mut guest = Guest::boot(&host.machine, 0, &card.view)?;
    works(&host, &mut guest)?;
    Ok((host, guest))
}

/// A guest at work goes on where it is when its migration is cancelled, and then goes from host to host.
pub fn migrates(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "vfio-user-carried")?;
    let shell = Shell::new(String::new(), version, scene.place().sockets.clone())?;
    let card = Card::of_text();
    let (mut here, mut guest) = at_work(&scene, &shell, &card)?;

    let other = Host::start(&scene, &shell, "other", &card, true)?;
    freeze(&here, &other)?;
    here.types("cancel")?;
    here.machine.migration("info migrate", "cancelled")?;
    here.allowed.push(SHUT_DOWN);
    let thaw = commands_of(TEXT, "thaw")?.pop().context("no command")?;
    here.types_what_is_printed(&thaw, "")?;
    drop(other);
    works(&here, &mut guest)?;

    for name in ["second", "third"] {
        let there = Host::start(&scene, &shell, name, &card, true)?;
        go(&scene, here, &there, &mut guest)?;
        diag!("{name}: the guest counted to {:?}", guest.counts());
        here = there;
    }
    guest.settle(&here.machine)?;
    here.end()
}

/// The same with a card that sends messages: QEMU is told of those, too.
pub fn migrates_with_msi(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "vfio-user-msi")?;
    let shell = Shell::new(String::new(), version, scene.place().sockets.clone())?;
    let card = Card::with_msi();
    let (here, mut guest) = at_work(&scene, &shell, &card)?;
    let there = Host::start(&scene, &shell, "second", &card, true)?;
    go(&scene, here, &there, &mut guest)?;
    guest.settle(&there.machine)?;
    there.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_commands_in_the_form_that_is_expected() {
        let helpers = commands_of(TEXT, "helpers").unwrap();
        assert_eq!(helpers.len(), 2);
        assert!(helpers[0].starts_with("dbus-daemon ") && helpers[0].contains("--print-pid"));
        assert!(helpers[1].starts_with("$program ") && helpers[1].ends_with(" $socket"));
        assert!(helpers[1].contains(MATCHES) && TEXT.contains(WAITS));
        assert!(block_of(TEXT, "carried").unwrap().contains("'$socket'"));
        for name in ["freeze", "refusal", "thaw"] {
            assert_eq!(commands_of(TEXT, name).unwrap().len(), 1);
        }
        let replay = commands_of(TEXT, "replay").unwrap();
        assert!(replay.len() == 2 && replay[0].contains(&format!("00:{SLOT:02x}.0 $selector")));
        for name in [
            "capabilities",
            "begin",
            "continue",
            "cancel",
            "selector",
            "resume",
        ] {
            assert!(!block_of(TEXT, name).unwrap().contains('$'), "{name}");
        }
    }
}
