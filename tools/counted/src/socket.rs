// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Registers through the socket of a program (vfio-user), beside which the same registers through the kernel stand.
//!
//! Client and program take turns on the one processor: while one works, the other waits. What is counted is what both of them had,
//! with the kernel's work for either, so a figure is a whole round trip.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use anyhow::{ensure, Context, Result};
use command_fds::{CommandFdExt, FdMapping};
use nix::time::{clock_getcpuclockid, clock_gettime, ClockId};
use nix::unistd::Pid;
use vfio_uapi::abi::{VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};
use vfio_uapi::mdev::MdevType;
use vfio_user_protocol::{Access, Header, Proposal, Request};

use crate::measure::{nanoseconds, own_time, TURNS};
use crate::report::Report;
use crate::OURS;

mod example;
mod neighbour;

pub use example::{serve, OPTION};

/// The rows are of neither driver.
const SUBJECT: &str = "vfio-user";
/// The descriptor that the program takes for its connection.
const CONNECTION: i32 = 3;

/// A register that only remembers, and the first base address register.
const SCRATCH: Access = Access {
    offset: 7,
    region: VFIO_PCI_BAR0_REGION_INDEX,
    count: 1,
};
const BASE: Access = Access {
    offset: 0x10,
    region: VFIO_PCI_CONFIG_REGION_INDEX,
    count: 4,
};

/// A program that serves a card, and this one as its client.
struct Program {
    child: Child,
    clock: ClockId,
    /// Closed, and the program ends.
    socket: Option<UnixStream>,
}

impl Program {
    fn start(arguments: &[String]) -> Result<Self> {
        let path = std::env::current_exe()?.with_file_name("vfio-user-device");
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(path);
        command
            .args(["--fd", &CONNECTION.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .fd_mappings(vec![FdMapping {
                parent_fd: theirs.into(),
                child_fd: CONNECTION,
            }])?;
        let child = command.spawn().context("vfio-user-device")?;
        // The command keeps their end open for another start.
        drop(command);
        let program = Self {
            clock: clock_of(&child)?,
            child,
            socket: Some(socket),
        };
        let version = message(&Request::Version(Proposal::bare(0, 0)));
        program.ask(&version, &mut Vec::new())?;
        Ok(program)
    }

    fn ask(&self, message: &[u8], reply: &mut Vec<u8>) -> Result<()> {
        let socket = self.socket.as_ref().context("the connection")?;
        ask(socket, message, reply)
    }

    /// What this thread and the program had of the processor.
    fn time(&self) -> Result<f64> {
        with(self.clock)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = self.child.wait();
    }
}

/// Sends a message and takes the whole reply.
fn ask(mut socket: &UnixStream, message: &[u8], reply: &mut Vec<u8>) -> Result<()> {
    socket.write_all(message)?;
    reply.resize(4096, 0);
    let length = socket.read(reply).context("a reply")?;
    reply.truncate(length);
    let first = reply.first_chunk().context("a cut reply")?;
    let header = Header::parse(first);
    ensure!(
        header.size as usize == length && header.error().is_none(),
        "{length} bytes: {header:?}"
    );
    Ok(())
}

/// The clock of what another process had of the processor.
fn clock_of(child: &Child) -> Result<ClockId> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    clock_getcpuclockid(pid).context("a program's clock")
}

/// What this thread had of the processor, and whoever has that clock.
fn with(clock: ClockId) -> Result<f64> {
    Ok(own_time()? + nanoseconds(clock_gettime(clock)?))
}

fn message(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(1, false, &mut bytes);
    bytes
}

/// Rows of a program with a card of its own, and of one before a card of the driver's.
pub fn add(report: &Report) -> Result<()> {
    let instance = MdevType::find(&format!("{OURS}-2"))?.create()?;
    let backend = format!("vfio:{}", instance.path().display());
    for (whose, arguments) in [
        ("a program's", vec!["--m-num-ports=2".to_string()]),
        ("the driver's", vec!["--backend".to_string(), backend]),
    ] {
        let rows = [
            ("byte read", Request::Read(SCRATCH)),
            ("byte written", Request::Write(SCRATCH, &[0x5a])),
            ("config read", Request::Read(BASE)),
        ]
        .map(|(what, request)| (format!("{what} by a socket, {whose}"), message(&request)));
        if !rows
            .iter()
            .any(|(operation, _)| report.is_wanted(operation))
        {
            continue;
        }
        let program = Program::start(&arguments)?;
        for (operation, asked) in rows {
            let mut reply = Vec::new();
            let call = || program.ask(&asked, &mut reply);
            let clock = || program.time();
            report.turns_row(&operation, SUBJECT, (clock, TURNS), call)?;
        }
    }
    neighbour::add(report)?;
    example::add(report)
}
