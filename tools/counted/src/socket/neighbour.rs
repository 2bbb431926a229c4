// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a client of one device notices of the client of another one in the same program, who says more than anybody can answer.
//!
//! What is counted is what the whole machine did from a request to its reply, as long as that took: the processor is one, and the
//! others have their share of it meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{ensure, Context, Result};
use nix::time::{clock_gettime, ClockId};
use serde_json::{json, Value};
use vfio_user_protocol::{Proposal, Request};

use super::{ask, message, SCRATCH, SUBJECT};
use crate::measure::{nanoseconds, TURNS};
use crate::report::Report;

/// Requests that are sent at once, of which none is to be answered.
const BATCH: usize = 500;

/// A program with several devices.
struct Program {
    child: Child,
    directory: PathBuf,
}

impl Program {
    fn start() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("counted-{}", std::process::id()));
        std::fs::create_dir(&directory).context("a directory")?;
        let ready = UnixDatagram::bind(directory.join("ready")).context("a socket")?;
        let path = std::env::current_exe()?.with_file_name("vfio-user-device");
        let child = Command::new(path)
            .args(["serve", "--json-rpc", "control"])
            .env("NOTIFY_SOCKET", directory.join("ready"))
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("vfio-user-device")?;
        let program = Self { child, directory };
        ready.recv(&mut [0; 64]).context("whether it is ready")?;
        Ok(program)
    }

    fn connect(&self, name: &str) -> Result<UnixStream> {
        UnixStream::connect(self.directory.join(name)).context(name.to_owned())
    }

    /// Adds a device, and is its client.
    fn client(&self, name: &str) -> Result<UnixStream> {
        let control = self.connect("control")?;
        let parameters = json!({"id": name, "socket": name});
        let add = json!({"jsonrpc": "2.0", "method": "device-add", "params": parameters, "id": 1});
        (&control).write_all(add.to_string().as_bytes())?;
        let mut line = String::new();
        BufReader::new(&control).read_line(&mut line)?;
        let reply: Value = serde_json::from_str(&line).context("a reply")?;
        ensure!(reply.get("result").is_some(), "{line}");
        let client = self.connect(name)?;
        let version = message(&Request::Version(Proposal::bare(0, 0)));
        ask(&client, &version, &mut Vec::new())?;
        Ok(client)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Nanoseconds of the machine, each an instruction.
fn machine_time() -> Result<f64> {
    Ok(nanoseconds(clock_gettime(ClockId::CLOCK_MONOTONIC)?))
}

/// A row beside a client who says nothing, and one beside a client who never stops.
pub(super) fn add(report: &Report) -> Result<()> {
    let [quiet, flooded] =
        ["quiet", "flooded"].map(|how| format!("byte read beside a {how} device"));
    if ![&quiet, &flooded].iter().any(|row| report.is_wanted(row)) {
        return Ok(());
    }
    let program = Program::start()?;
    let (client, other) = (program.client("client")?, program.client("other")?);
    let asked = message(&Request::Read(SCRATCH));
    let mut reply = Vec::new();
    let mut row = |operation: &str| {
        let call = || ask(&client, &asked, &mut reply);
        report.turns_row(operation, SUBJECT, (machine_time, TURNS), call)
    };
    row(&quiet)?;
    let mut unanswered = Vec::new();
    Request::Read(SCRATCH).encode(1, true, &mut unanswered);
    let batch = unanswered.repeat(BATCH);
    thread::scope(|scope| {
        let (mut flood, end) = (&other, other.try_clone()?);
        let flooding = scope.spawn(move || while flood.write_all(&batch).is_ok() {});
        let counted = row(&flooded);
        let _ = end.shutdown(Shutdown::Both);
        let _ = flooding.join();
        counted
    })
}
