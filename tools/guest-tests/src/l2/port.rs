// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A port of a card in the guest, and what went through it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{bail, Context, Result};
use rustix::fs::OFlags;
use rustix::termios::{tcgetattr, tcsetattr, ControlModes, OptionalActions};

use super::card::text;
use super::line::{HeldReport, Line, PortReport};
use super::record::{Checker, Sender};
use super::tty;

/// Bytes of one write to a port that is held. The driver fills an empty FIFO with what it has: multiples of every FIFO's size fill
/// it to the top.
const HELD_CHUNK: usize = 512;
/// Where the 8250 driver shows what it counted.
const STATISTICS: &str = "/proc/tty/driver/serial_8250";

/// How a port is used.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// Bytes that may be under way at once.
    pub window: u64,
    /// With flow control by RTS and CTS.
    pub flow_control: bool,
}

/// A port and what went through it.
pub struct Port {
    number: u8,
    usage: Use,
    /// `N` of ttySN.
    line: u32,
    /// The tty, or nothing while the port is closed.
    file: Option<File>,
    sender: Sender,
    checker: Checker,
    faults: u32,
    moved: Option<Instant>,
    /// Nothing is read, and nothing limits what is sent.
    held: bool,
    /// The driver took nothing more when it was written to last.
    refused: bool,
}

impl Port {
    /// Opens ttyS`line` as port `number` of the guest.
    pub fn open(number: u8, line: u32, usage: Use) -> Result<Self> {
        Ok(Self {
            number,
            usage,
            line,
            file: Some(open_raw(line, usage)?),
            sender: Sender::new(number),
            checker: Checker::new(number),
            faults: 0,
            moved: None,
            held: false,
            refused: false,
        })
    }

    /// Closes the tty. Nothing may be under way.
    pub fn close(&mut self) {
        self.file = None;
    }

    /// Opens ttyS`line`, as which the driver knows the port now, and goes on where [`Port::close`] left off.
    pub fn reopen(&mut self, line: u32) -> Result<()> {
        self.line = line;
        self.file = Some(open_raw(line, self.usage)?);
        Ok(())
    }

    /// The tty.
    pub fn file(&self) -> Result<&File> {
        self.file
            .as_ref()
            .with_context(|| format!("ttyS{} is closed", self.line))
    }

    /// When the last byte came.
    pub fn moved(&self) -> Option<Instant> {
        self.moved
    }

    /// Records that came back as they should.
    pub fn verified(&self) -> u32 {
        self.checker.verified()
    }

    /// The type that the driver detected.
    pub fn uart(&self) -> Result<String> {
        Ok(statistic(self.line, "uart")?.unwrap_or_else(|| "unknown".into()))
    }

    /// How the driver uses the port.
    pub fn settings(&self) -> Result<tty::Settings> {
        tty::settings(self.file()?).with_context(|| format!("ttyS{}", self.line))
    }

    fn outstanding(&self) -> u64 {
        self.sender.bytes().saturating_sub(self.checker.bytes())
    }

    /// Bytes that may be sent now.
    fn room(&self) -> u64 {
        if self.held {
            return u64::MAX;
        }
        self.usage.window.saturating_sub(self.outstanding())
    }

    /// No record is half sent, and everything came back.
    pub fn is_drained(&self) -> bool {
        self.sender.rest().is_empty() && self.outstanding() == 0
    }

    /// Whether there is something to be sent; when `draining`, only the rest of a record.
    pub fn wants_to_send(&self, draining: bool) -> bool {
        self.room() > 0 && !(draining && self.sender.rest().is_empty())
    }

    /// Whether what comes is to be read.
    pub fn wants_to_receive(&self) -> bool {
        !self.held
    }

    /// Reads nothing from now on, and sends without limit; or ends that. Nothing may be under way when it begins.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether [`Port::hold`] is in effect.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Sends as much as the driver takes.
    pub fn send(&mut self, draining: bool) -> Result<()> {
        while self.wants_to_send(draining) {
            let room = usize::try_from(self.room()).unwrap_or(usize::MAX);
            let file = self.file.as_ref();
            let mut file = file.with_context(|| format!("ttyS{} is closed", self.line))?;
            let bytes = if self.held {
                &self.sender.peek_many(HELD_CHUNK)[..HELD_CHUNK]
            } else {
                self.sender.peek()
            };
            match file.write(&bytes[..bytes.len().min(room)]) {
                Ok(count) => self.sender.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.refused = true;
                    return Ok(());
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("write to ttyS{}", self.line))
                }
            }
            self.refused = false;
        }
        Ok(())
    }

    /// Reads what came, and checks it.
    pub fn receive(&mut self) -> Result<()> {
        let mut bytes = [0; 512];
        let size = match self.file()?.read(&mut bytes) {
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
    pub fn detect(&mut self) -> Result<()> {
        // The driver does so for its only user, who has to open the port anew afterwards to use it.
        self.close();
        let file = open_raw(self.line, self.usage)?;
        tty::detect(&file).with_context(|| format!("detection of ttyS{}", self.line))?;
        drop(file);
        self.reopen(self.line)
    }

    /// The account of the port; `interrupts` are those of its card.
    pub fn report(&self, interrupts: u64) -> Result<PortReport> {
        Ok(PortReport {
            port: self.number,
            sent: self.sender.records(),
            verified: self.checker.verified(),
            faults: self.faults,
            outstanding: self.outstanding(),
            uart_errors: uart_errors(self.line)?,
            interrupts,
        })
    }

    /// What is where, and whether flow control holds the transmitter: nothing is clear to be sent, the card's FIFO is full, and so
    /// is the driver's buffer.
    pub fn held_report(&self) -> Result<(bool, HeldReport)> {
        let clear_to_send = tty::clear_to_send(self.file()?)
            .with_context(|| format!("modem lines of ttyS{}", self.line))?;
        let count = |name| -> Result<u64> {
            statistic(self.line, name)?.map_or(Ok(0), |count| count.parse().context("byte count"))
        };
        let report = HeldReport {
            port: self.number,
            clear_to_send,
            in_card: count("tx")?.saturating_sub(count("rx")?),
            fifo: u32::try_from(self.settings()?.xmit_fifo_size)?,
        };
        let held = self.refused && !clear_to_send && report.in_card == u64::from(report.fifo);
        Ok((held, report))
    }
}

/// Opens ttyS`line` without blocking and with every byte passing unchanged.
fn open_raw(line: u32, usage: Use) -> Result<File> {
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
    settings
        .control_modes
        .set(ControlModes::CRTSCTS, usage.flow_control);
    settings.set_speed(115_200).with_context(|| path.clone())?;
    tcsetattr(&file, OptionalActions::Now, &settings).with_context(|| path.clone())?;
    Ok(file)
}

/// Field `name:` of ttyS`line` in the driver's own statistics.
fn statistic(line: u32, name: &str) -> Result<Option<String>> {
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
        sum += statistic(line, name)?
            .map_or(Ok(0), |count| count.parse::<u32>())
            .context("uart error count")?;
    }
    Ok(sum)
}
