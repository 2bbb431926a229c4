// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The only process of the guest whose card migrates: sends numbered records through every port of the card and checks what
//! the loop-back at the far end returns, for ever.
//!
//! Options on the kernel command line: `lab.window=BYTES`, how many bytes of a port may be under way at once (default
//! [`WINDOW`]); `lab.silence=SECONDS`, after how long without a byte it gives up on those that did not come back (default [`SILENCE`]);
//! `lab.flow-control=1`, that the ports use RTS and CTS; `lab.by-hand=1`, that it sets up the ports itself as 16550A
//! ([`guest_tests::l2::by_hand`]); `lab.files=1`, that the last disk gets a file system; `lab.disk-mib=N`, how many MiB of each
//! disk are used, and each block of them is written once. If the guest has disks, it writes and
//! verifies them at the same time ([`guest_tests::l2::disk`]). What it prints and the commands it takes are in [`guest_tests::l2::line`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use guest_tests::l2::by_hand;
use guest_tests::l2::card::{self, lines_of, Card};
use guest_tests::l2::disk::Disk;
use guest_tests::l2::line::{CardReport, Command, Interrupt, Line};
use guest_tests::l2::port::{Port, Use};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{mount, MountFlags};
use rustix::system::{reboot, RebootCommand};
use rustix::termios::{tcgetattr, tcsetattr, LocalModes, OptionalActions, OutputModes};

/// Bytes of a port that may be under way at once. More than two FIFOs full: some always wait at the far end.
const WINDOW: u64 = 96;
/// Time between two `count` lines.
const COUNT_EVERY: Duration = Duration::from_millis(300);
/// A report gives up on bytes that did not come back when none came for so many seconds.
const SILENCE: u64 = 30;

fn main() {
    let error = match run() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    println!("{}", Line::Failed(format!("{error:#}")));
    // The first process must not end; whoever started the guest stops it.
    loop {
        std::thread::park();
    }
}

fn run() -> Result<std::convert::Infallible> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(place).context(place)?;
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("{place} could not be mounted"))?;
    }
    let console = Console::open()?;
    let mut cards = Cards {
        usage: Use {
            window: option("lab.window")?.unwrap_or(WINDOW),
            flow_control: option("lab.flow-control")?.is_some_and(|value| value != 0),
        },
        by_hand: option("lab.by-hand")?.is_some_and(|value| value != 0),
        silence: Duration::from_secs(option("lab.silence")?.unwrap_or(SILENCE)),
        list: Vec::new(),
        next_by_hand: None,
    };
    cards.take_up()?;
    let files = option("lab.files")?.is_some_and(|value| value != 0);
    let mut disks = Disk::take_up(files, option("lab.disk-mib")?)?;
    for line in disks.iter().filter_map(Disk::kept) {
        println!("{line}");
    }
    println!(
        "{}",
        Line::Ready {
            ports: cards.ports().count(),
            cards: cards.list.len(),
            interrupt: cards.interrupt()?,
            uart: cards.list[0].ports[0].uart()?,
            disks: disks.len(),
        }
    );

    // What was asked for, and since when it waits for the ports to be drained, or held.
    let mut asked: Option<(Command, Instant)> = None;
    let mut next_count = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next_count {
            println!(
                "{}",
                Line::Count(cards.ports().map(Port::verified).collect())
            );
            tell_of_disks(&mut disks);
            next_count = now + COUNT_EVERY;
        }
        let held = cards.ports().all(Port::is_held);
        if let Some((command, since)) = asked {
            let done = match command {
                Command::Hold if held => cards.report_held(since)?,
                Command::TakeUp => cards.take_up_what_came()?,
                _ if !cards.are_drained() && !cards.are_quiet(since) => false,
                Command::Hold => {
                    ensure!(cards.are_drained(), "not everything came back");
                    cards.ports_mut().for_each(|port| port.hold(true));
                    false
                }
                _ => {
                    cards.obey(command)?;
                    if let Command::Report | Command::Tally = command {
                        for disk in &disks {
                            let report = disk.report(command == Command::Report)?;
                            println!("{}", Line::DiskReport(report));
                        }
                    }
                    true
                }
            };
            if done {
                asked = None;
            }
        }
        let draining = match asked {
            Some((Command::Hold, _)) => !cards.ports().all(Port::is_held),
            Some((Command::TakeUp, _)) | None => false,
            Some(_) => true,
        };

        let mut waiting = vec![PollFd::new(&console.input, PollFlags::IN)];
        for port in cards.ports() {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, port.wants_to_receive());
            events.set(PollFlags::OUT, port.wants_to_send(draining));
            waiting.push(PollFd::new(port.file()?, events));
        }
        let left = next_count.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs() as _,
            tv_nsec: left.subsec_nanos() as _,
        };
        poll(&mut waiting, Some(&left)).context("poll")?;
        let ready: Vec<PollFlags> = waiting.iter().map(PollFd::revents).collect();

        if ready[0].contains(PollFlags::IN) {
            match console.command()? {
                Some(Command::Reboot) => {
                    for disk in &disks {
                        if let Some(line) = disk.put_away()? {
                            println!("{line}");
                        }
                    }
                    println!("{}", Line::Rebooting);
                    reboot(RebootCommand::Restart).context("reboot")?;
                }
                Some(command @ Command::Rest) => {
                    disks.iter_mut().for_each(Disk::rest);
                    println!("{}", Line::Done(command));
                }
                Some(command @ Command::Fetch) => {
                    disks.iter_mut().try_for_each(Disk::fetch)?;
                    println!("{}", Line::Done(command));
                }
                Some(command @ Command::Pace(rate)) => {
                    disks.iter().for_each(|disk| disk.pace(rate));
                    println!("{}", Line::Done(command));
                }
                Some(Command::Verify) => disks
                    .iter_mut()
                    .for_each(|disk| println!("{}", disk.look())),
                Some(Command::Read) => cards.ports_mut().for_each(|port| port.hold(false)),
                Some(command) => asked = Some((command, Instant::now())),
                None => {}
            }
            // The ports may be other ones than those that were waited for.
            continue;
        }
        for (port, flags) in cards.ports_mut().zip(&ready[1..]) {
            if flags.contains(PollFlags::IN) {
                port.receive()?;
            }
            if flags.contains(PollFlags::OUT) {
                port.send(draining)?;
            }
        }
    }
}

/// Prints how far the disks' writers are, and what they stopped for.
fn tell_of_disks(disks: &mut [Disk]) {
    if disks.is_empty() {
        return;
    }
    println!(
        "{}",
        Line::Disks(disks.iter().map(Disk::verified).collect())
    );
    for disk in disks {
        if let Some(what) = disk.new_fault() {
            let disk = disk.number();
            println!("{}", Line::DiskFault { disk, what });
        }
    }
}

/// The value of `name=` on the kernel command line.
fn option(name: &str) -> Result<Option<u64>> {
    let line = fs::read_to_string("/proc/cmdline").context("/proc/cmdline")?;
    let value = line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value
        .map(|value| {
            value
                .parse()
                .with_context(|| format!("{name}={value} on the kernel command line"))
        })
        .transpose()
}

/// Where commands come from.
struct Console {
    input: File,
}

impl Console {
    fn open() -> Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
        let input = options.open("/dev/console").context("/dev/console")?;
        // Without echo: what comes in must not look like output.
        let mut settings = tcgetattr(&input).context("/dev/console")?;
        settings.local_modes.remove(LocalModes::ECHO);
        settings.output_modes.remove(OutputModes::ONLCR);
        tcsetattr(&input, OptionalActions::Now, &settings).context("/dev/console")?;
        Ok(Self { input })
    }

    /// The command that waits; lines that are none are ignored.
    fn command(&self) -> Result<Option<Command>> {
        let mut line = [0; 64];
        match (&self.input).read(&mut line) {
            Ok(size) => Ok(String::from_utf8_lossy(&line[..size]).parse().ok()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("/dev/console"),
        }
    }
}

/// A card in use, with its ports.
struct InUse {
    card: Card,
    ports: Vec<Port>,
}

/// The cards in use, in the order of bus address or, if they came later, in that in which they came.
struct Cards {
    usage: Use,
    /// The ports are set up by hand.
    by_hand: bool,
    /// Without a byte for so long, those that did not come back will not.
    silence: Duration,
    list: Vec<InUse>,
    /// The ttySN after the last that was set up by hand.
    next_by_hand: Option<u32>,
}

impl Cards {
    /// All ports, in the order of their numbers.
    fn ports(&self) -> impl Iterator<Item = &Port> {
        self.list.iter().flat_map(|card| &card.ports)
    }

    fn ports_mut(&mut self) -> impl Iterator<Item = &mut Port> {
        self.list.iter_mut().flat_map(|card| &mut card.ports)
    }

    /// How the cards interrupt, which must be the same way.
    fn interrupt(&self) -> Result<Interrupt> {
        let first = self.list.first().context("there is no card")?;
        let interrupt = first.card.interrupt();
        ensure!(
            self.list
                .iter()
                .all(|card| card.card.interrupt() == interrupt),
            "some cards use MSI and some INTx"
        );
        Ok(interrupt)
    }

    /// Which cards are in use.
    fn using(&self) -> Result<Line> {
        Ok(Line::Using {
            ports: self.ports().count(),
            cards: self.list.len(),
            interrupt: self.interrupt()?,
        })
    }

    fn are_drained(&self) -> bool {
        self.ports().all(Port::is_drained)
    }

    /// Nothing came for long, since then.
    fn are_quiet(&self, since: Instant) -> bool {
        let moved = self.ports().filter_map(Port::moved).max();
        moved
            .max(Some(since))
            .is_none_or(|at| at.elapsed() > self.silence)
    }

    /// Does what waited for the ports to be drained, or for nothing to come any more.
    fn obey(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Look => return self.look(),
            Command::Rebind => self.rebind()?,
            Command::LetGo => self.let_go()?,
            _ => return self.report(),
        }
        println!("{}", self.using()?);
        Ok(())
    }

    /// Prints the account of each port.
    fn report(&self) -> Result<()> {
        for card in &self.list {
            let interrupts = card.card.interrupts()?;
            for port in &card.ports {
                println!("{}", Line::Report(port.report(interrupts)?));
            }
        }
        Ok(())
    }

    /// Prints what is where once flow control holds every transmitter, which was asked for at `since`.
    fn report_held(&self, since: Instant) -> Result<bool> {
        let reports: Result<Vec<_>> = self.ports().map(Port::held_report).collect();
        let reports = reports?;
        if !reports.iter().all(|(held, _)| *held) {
            ensure!(
                since.elapsed() < self.silence,
                "flow control does not hold every transmitter: {reports:?}"
            );
            return Ok(false);
        }
        for (_, report) in reports {
            println!("{}", Line::Held(report));
        }
        Ok(true)
    }

    /// Looks at the cards as they are now, and prints what is seen. Ports that the driver detected are detected anew.
    fn look(&mut self) -> Result<()> {
        for (number, InUse { card, ports }) in self.list.iter_mut().enumerate() {
            let (mut uarts, mut fifo) = (Vec::new(), 0);
            for port in ports {
                if !self.by_hand {
                    port.detect()?;
                }
                fifo = u32::try_from(port.settings()?.xmit_fifo_size)?;
                uarts.push(port.uart()?);
            }
            let bar0 = card::bar0(card.place())?;
            let report = CardReport {
                card: number,
                id: card.numbers(),
                bar0: bar0.end - bar0.start,
                capabilities: card::capabilities(card.place())?,
                uarts,
                fifo,
            };
            println!("{}", Line::Card(report));
        }
        Ok(())
    }

    /// Has the driver let go of each card and take it anew.
    fn rebind(&mut self) -> Result<()> {
        ensure!(self.are_drained(), "not everything came back");
        for InUse { card, ports } in &mut self.list {
            ports.iter_mut().for_each(Port::close);
            let lines = card.rebind()?;
            ensure!(
                lines.len() == ports.len(),
                "{} ports became {}",
                ports.len(),
                lines.len()
            );
            for (port, line) in ports.iter_mut().zip(lines) {
                port.reopen(line)?;
            }
        }
        Ok(())
    }

    /// Closes the ports of the last card.
    fn let_go(&mut self) -> Result<()> {
        ensure!(self.are_drained(), "not everything came back");
        self.list.pop();
        Ok(())
    }

    /// As [`Cards::take_up`], if there is a card that is not in use and the driver has made all its ports.
    fn take_up_what_came(&mut self) -> Result<bool> {
        let mut came = Card::places()?;
        came.retain(|place| !self.list.iter().any(|card| card.card.place() == place));
        let Some(place) = came.first() else {
            return Ok(false);
        };
        let registers = card::bar0(place)?;
        let ports = (registers.end - registers.start) / by_hand::PORT_BYTES;
        if lines_of(place)?.len() as u64 != ports {
            return Ok(false);
        }
        if let Err(error) = self.take_up() {
            // The kernel shows a tty in sysfs a moment before its file is there, and that a moment before anybody may open it.
            let of_kernel = error.downcast_ref::<io::Error>();
            let errno = of_kernel.and_then(Errno::from_io_error);
            if matches!(errno, Some(Errno::NOENT | Errno::NXIO)) {
                return Ok(false);
            }
            return Err(error);
        }
        println!("{}", self.using()?);
        Ok(true)
    }

    /// Finds the serial ports of cards that are not in use, or sets them up, and opens them in raw mode.
    fn take_up(&mut self) -> Result<()> {
        for place in Card::places()? {
            if self.list.iter().any(|card| card.card.place() == place) {
                continue;
            }
            let lines = if self.by_hand {
                by_hand::set_up(&place, self.next_by_hand)?
            } else {
                lines_of(&place)?
            };
            let first = lines.first().copied();
            let first = first.with_context(|| {
                format!("the guest's driver made no port of {}", place.display())
            })?;
            self.next_by_hand = lines.last().map(|line| line + 1);
            let mut ports = Vec::new();
            for line in lines {
                let number = u8::try_from(self.ports().count() + ports.len())?;
                ports.push(Port::open(number, line, self.usage)?);
            }
            let card = Card::at(place, first)?;
            self.list.push(InUse { card, ports });
        }
        ensure!(
            !self.list.is_empty(),
            "there is no card of a known kind on the PCI bus"
        );
        Ok(())
    }
}
