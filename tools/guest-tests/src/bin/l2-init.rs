// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The only process of the guest whose card migrates: sends numbered records through every port of the card and checks what
//! the loop-back at the far end returns, for ever.
//!
//! Options on the kernel command line: `lab.window=BYTES`, how many bytes of a port may be under way at once (default
//! [`WINDOW`]); `lab.by-hand=1`, that it sets up the ports itself as 16550A ([`guest_tests::l2::by_hand`]). What it prints and
//! the commands it takes are in [`guest_tests::l2::line`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use guest_tests::l2::card::{self, text};
use guest_tests::l2::line::{CardReport, Command, Interrupt, Line, PortReport};
use guest_tests::l2::record::{Checker, Sender};
use guest_tests::l2::{by_hand, tty, CARDS};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::mount::{mount, MountFlags};
use rustix::system::{reboot, RebootCommand};
use rustix::termios::{
    tcgetattr, tcsetattr, ControlModes, LocalModes, OptionalActions, OutputModes,
};

/// Bytes of a port that may be under way at once. More than two FIFOs full: some always wait at the far end.
const WINDOW: u64 = 96;
/// Time between two `count` lines.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// Where the 8250 driver shows what it counted.
const STATISTICS: &str = "/proc/tty/driver/serial_8250";
/// A report gives up on bytes that did not come back when none came for this long.
const SILENCE: Duration = Duration::from_secs(30);

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
    let window = option("lab.window")?.unwrap_or(WINDOW);
    let by_hand = option("lab.by-hand")?.is_some_and(|value| value != 0);
    let (cards, mut ports) = open_ports(by_hand)?;
    let interrupt = cards[0].interrupt;
    ensure!(
        cards.iter().all(|card| card.interrupt == interrupt),
        "some cards use MSI and some INTx"
    );
    println!(
        "{}",
        Line::Ready {
            ports: ports.len(),
            cards: cards.len(),
            interrupt,
            uart: ports[0].uart.clone()
        }
    );

    // What was asked for, and since when it waits for the ports to be drained.
    let mut asked: Option<(Command, Instant)> = None;
    let mut next_count = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next_count {
            println!(
                "{}",
                Line::Count(ports.iter().map(|port| port.checker.verified()).collect())
            );
            next_count = now + COUNT_EVERY;
        }
        if let Some((command, since)) = asked {
            let moved = ports.iter().filter_map(|port| port.moved).max();
            let quiet = moved
                .max(Some(since))
                .is_none_or(|at| at.elapsed() > SILENCE);
            if quiet || ports.iter().all(|port| port.is_drained()) {
                if command == Command::Look {
                    look(&cards, &mut ports, by_hand)?;
                } else {
                    for port in &ports {
                        println!("{}", Line::Report(port.report(&cards)?));
                    }
                }
                asked = None;
            }
        }
        let draining = asked.is_some();

        let mut waiting = vec![PollFd::new(&console.input, PollFlags::IN)];
        for port in &ports {
            let out = if port.wants_to_send(window, draining) {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            waiting.push(PollFd::new(&port.file, PollFlags::IN | out));
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
                Some(command @ (Command::Report | Command::Look)) => {
                    asked = Some((command, Instant::now()));
                }
                Some(Command::Reboot) => {
                    println!("{}", Line::Rebooting);
                    reboot(RebootCommand::Restart).context("reboot")?;
                }
                None => {}
            }
        }
        for (port, flags) in ports.iter_mut().zip(&ready[1..]) {
            if flags.contains(PollFlags::IN) {
                port.receive()?;
            }
            if flags.contains(PollFlags::OUT) {
                port.send(window, draining)?;
            }
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

/// A PCI card.
struct Card {
    /// Its directory in sysfs.
    place: PathBuf,
    interrupt: Interrupt,
    irq: u32,
}

/// A port and what went through it.
struct Port {
    number: u8,
    card: usize,
    /// `N` of ttySN.
    line: u32,
    uart: String,
    file: File,
    sender: Sender,
    checker: Checker,
    faults: u32,
    /// When the last byte came.
    moved: Option<Instant>,
}

impl Port {
    fn outstanding(&self) -> u64 {
        self.sender.bytes().saturating_sub(self.checker.bytes())
    }

    fn is_drained(&self) -> bool {
        self.sender.rest().is_empty() && self.outstanding() == 0
    }

    fn wants_to_send(&self, window: u64, draining: bool) -> bool {
        self.outstanding() < window && !(draining && self.sender.rest().is_empty())
    }

    fn send(&mut self, window: u64, draining: bool) -> Result<()> {
        while self.wants_to_send(window, draining) {
            let room = usize::try_from(window - self.outstanding())?;
            let bytes = self.sender.peek();
            let bytes = &bytes[..bytes.len().min(room)];
            match self.file.write(bytes) {
                Ok(count) => self.sender.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    return Err(error).with_context(|| format!("write to ttyS{}", self.line))
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut bytes = [0; 512];
        let size = match self.file.read(&mut bytes) {
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("read from ttyS{}", self.line))
            }
        };
        self.moved = Some(Instant::now());
        let (number, faults) = (self.number, &mut self.faults);
        self.checker.take(&bytes[..size], |fault| {
            *faults += 1;
            println!(
                "{}",
                Line::Fault {
                    port: number,
                    what: fault.to_string()
                }
            );
        });
        if self.checker.bytes() > self.sender.bytes() {
            bail!(
                "port {number} returned {} bytes after {} were sent",
                self.checker.bytes(),
                self.sender.bytes()
            );
        }
        Ok(())
    }

    /// Has the driver detect anew what the port is; nothing may be under way.
    fn detect(&mut self) -> Result<()> {
        // The driver does so for its only user, who has to open the port anew afterwards to use it.
        self.file = File::open("/dev/null").context("/dev/null")?;
        let file = open_raw(self.line)?;
        tty::detect(&file).with_context(|| format!("detection of ttyS{}", self.line))?;
        drop(file);
        self.file = open_raw(self.line)?;
        Ok(())
    }

    fn report(&self, cards: &[Card]) -> Result<PortReport> {
        Ok(PortReport {
            port: self.number,
            sent: self.sender.records(),
            verified: self.checker.verified(),
            faults: self.faults,
            outstanding: self.outstanding(),
            uart_errors: uart_errors(self.line)?,
            interrupts: interrupts(cards[self.card].irq)?,
        })
    }
}

/// Looks at the cards as they are now, and prints what is seen. Ports that the driver detected are detected anew.
fn look(cards: &[Card], ports: &mut [Port], by_hand: bool) -> Result<()> {
    for (number, this) in cards.iter().enumerate() {
        let (mut uarts, mut fifo) = (Vec::new(), 0);
        for port in ports.iter_mut().filter(|port| port.card == number) {
            if !by_hand {
                port.detect()?;
            }
            let settings = tty::settings(&port.file);
            let settings = settings.with_context(|| format!("ttyS{}", port.line))?;
            fifo = u32::try_from(settings.xmit_fifo_size)?;
            port.uart = uart_field(port.line, "uart")?.unwrap_or_else(|| "unknown".into());
            uarts.push(port.uart.clone());
        }
        let bar0 = card::bar0(&this.place)?;
        let report = CardReport {
            card: number,
            id: (hex(&this.place, "vendor"), hex(&this.place, "device")),
            bar0: bar0.end - bar0.start,
            capabilities: card::capabilities(&this.place)?,
            uarts,
            fifo,
        };
        println!("{}", Line::Card(report));
    }
    Ok(())
}

/// Finds the serial ports of all known cards, or sets them up, and opens them in raw mode, in the order of bus address and
/// port.
fn open_ports(by_hand: bool) -> Result<(Vec<Card>, Vec<Port>)> {
    let mut places: Vec<PathBuf> = entries("/sys/bus/pci/devices")?;
    places.retain(|place| CARDS.contains(&(hex(place, "vendor"), hex(place, "device"))));
    ensure!(
        !places.is_empty(),
        "there is no card of a known kind on the PCI bus"
    );

    let mut cards: Vec<Card> = Vec::new();
    let mut ports = Vec::new();
    for place in &places {
        let lines = if by_hand {
            by_hand::set_up(place, ports.last().map(|port: &Port| port.line + 1))?
        } else {
            lines_of(place)?
        };
        ensure!(
            !lines.is_empty(),
            "the guest's driver made no port of {}",
            place.display()
        );
        let irq = text(Path::new(&format!("/sys/class/tty/ttyS{}/irq", lines[0])))?
            .parse()
            .context("irq")?;
        // The directory lists the vectors of a card whose driver asked for messages.
        let msi = place.join("msi_irqs").join(format!("{irq}")).exists();
        cards.push(Card {
            place: place.clone(),
            interrupt: if msi { Interrupt::Msi } else { Interrupt::Intx },
            irq,
        });
        for line in lines {
            let number = u8::try_from(ports.len())?;
            ports.push(Port {
                number,
                card: cards.len() - 1,
                line,
                uart: String::new(),
                file: open_raw(line)?,
                sender: Sender::new(number),
                checker: Checker::new(number),
                faults: 0,
                moved: None,
            });
        }
    }
    for port in &mut ports {
        port.uart = uart_field(port.line, "uart")?.unwrap_or_else(|| "unknown".into());
    }
    Ok((cards, ports))
}

/// Numbers of the ttyS that the guest's driver made of the card at `place` in sysfs, in the order of its ports.
fn lines_of(place: &Path) -> Result<Vec<u32>> {
    let device = place
        .canonicalize()
        .with_context(|| place.display().to_string())?;
    let mut lines = Vec::new();
    for tty in entries("/sys/class/tty")? {
        let name = tty
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(line) = name
            .strip_prefix("ttyS")
            .and_then(|line| line.parse::<u32>().ok())
        else {
            continue;
        };
        if tty
            .canonicalize()
            .is_ok_and(|path| path.starts_with(&device))
        {
            lines.push(line);
        }
    }
    lines.sort_unstable();
    Ok(lines)
}

/// Opens ttyS`line` without blocking and with every byte passing unchanged.
fn open_raw(line: u32) -> Result<File> {
    let path = format!("/dev/ttyS{line}");
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    let file = options.open(&path).with_context(|| path.clone())?;
    let mut settings = tcgetattr(&file).with_context(|| path.clone())?;
    settings.make_raw();
    settings
        .control_modes
        .insert(ControlModes::CLOCAL | ControlModes::CREAD);
    settings.set_speed(115_200).with_context(|| path.clone())?;
    tcsetattr(&file, OptionalActions::Now, &settings).with_context(|| path.clone())?;
    Ok(file)
}

/// The paths in a directory, sorted.
fn entries(directory: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).context(directory.to_string())? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

/// A number in sysfs such as `0x1b36`; 0, which no card has, if there is none.
fn hex(place: &Path, name: &str) -> u16 {
    let number = text(&place.join(name)).ok();
    number
        .and_then(|number| u16::from_str_radix(number.trim_start_matches("0x"), 16).ok())
        .unwrap_or(0)
}

/// Field `name:` of ttyS`line` in the driver's own statistics.
fn uart_field(line: u32, name: &str) -> Result<Option<String>> {
    let table = text(Path::new(STATISTICS))?;
    let prefix = format!("{line}: ");
    let row = table
        .lines()
        .find_map(|row| row.trim_start().strip_prefix(&prefix));
    let row = row.with_context(|| format!("ttyS{line} is not in {STATISTICS}"))?;
    let value = row
        .split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.map(str::to_string))
}

/// All receive errors that the driver counted on ttyS`line`; it prints only those that occurred.
fn uart_errors(line: u32) -> Result<u32> {
    let mut sum = 0;
    for name in ["oe", "fe", "pe", "brk"] {
        sum += uart_field(line, name)?
            .map_or(Ok(0), |count| count.parse::<u32>())
            .context("uart error count")?;
    }
    Ok(sum)
}

/// How often the guest's kernel handled interrupt `irq`, on all processors.
fn interrupts(irq: u32) -> Result<u64> {
    let table = text(Path::new("/proc/interrupts"))?;
    let prefix = format!("{irq}:");
    let row = table
        .lines()
        .find_map(|row| row.trim_start().strip_prefix(&prefix));
    let row = row.with_context(|| format!("interrupt {irq} is not in /proc/interrupts"))?;
    Ok(row
        .split_ascii_whitespace()
        .map_while(|word| word.parse::<u64>().ok())
        .sum())
}
