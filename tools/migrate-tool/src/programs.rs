// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device of a program and one of the driver: one takes the state of the other.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use rustix::event::{poll, PollFd, PollFlags};
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use crate::host::{any, name, run, set, Scratch};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_state_goes_from_the_driver_to_a_program_and_back,
        a_program_refuses_what_the_driver_refuses_in_the_same_words,
    );
}

/// A device program that takes clients.
pub struct Program(Child);

impl Program {
    /// Starts the program with a socket there.
    pub fn start(socket: &Path, arguments: &[String]) -> Result<Self> {
        // It tells as a service manager wants to be told.
        let told = socket.with_extension("ready");
        let ready = UnixDatagram::bind(&told).context("a socket to be told on")?;
        let program = std::env::current_exe()?.with_file_name("vfio-user-device");
        let child = Command::new(program)
            .arg("--socket-path")
            .arg(socket)
            .args(arguments)
            .env("NOTIFY_SOCKET", &told)
            .stdin(Stdio::null())
            .spawn()
            .context("the device program")?;
        let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let program = Self(child);
        let ended = ended.context("the device program")?;
        let mut files = [
            PollFd::new(&ready, PollFlags::IN),
            PollFd::new(&ended, PollFlags::IN),
        ];
        poll(&mut files, None).context("poll")?;
        if files[0].revents().is_empty() {
            bail!("the device program has ended");
        }
        // Another one may be started at the same socket.
        fs::remove_file(&told).context("the socket to be told on")?;
        Ok(program)
    }

    /// Ends it as a service manager does, and waits for that.
    pub fn terminate(mut self) -> Result<()> {
        let process = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        pidfd_send_signal(process, Signal::TERM)?;
        let status = self.0.wait().context("the device program")?;
        ensure!(status.success(), "the device program ended with {status}");
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The arguments of a program with a card as this instance.
pub fn arguments(instance: &str) -> Result<Vec<String>> {
    let program = std::env::current_exe()?.with_file_name("vfio-user-device");
    let program = program.display().to_string();
    let line = run(["command-line", "--json", instance, &program])?
        .expect(0)?
        .json()?;
    let arguments = line["arguments"].as_array().context("no arguments")?;
    let text = |argument: &serde_json::Value| argument.as_str().map(str::to_string);
    arguments
        .iter()
        .map(|argument| text(argument).context("no text"))
        .collect()
}

fn a_state_goes_from_the_driver_to_a_program_and_back() -> Result<()> {
    for params in [
        &[][..],
        &[("num-ports", "4"), ("fifo-depth", "64")],
        &[("num-ports", "2"), ("msi", "off"), ("compact-state", "off")],
    ] {
        let (from, to) = (any()?, any()?);
        for instance in [&from, &to] {
            for (param, value) in params {
                set(instance, param, value).context(*param)?;
            }
        }
        let (from, to) = (name(&from), name(&to));
        let scratch = Scratch::new()?;
        let socket = scratch.file("card.sock");
        let _program = Program::start(&socket, &arguments(&from)?)?;
        let card = format!("vfio-user:{}", socket.display());
        let file = |name: &str| scratch.file(name).display().to_string();

        // By files. What the program has loaded is what it saves.
        run(["save", "--exercise", &from, &file("state")])?.expect(0)?;
        run(["load", &card, &file("state")])?.expect(0)?;
        run(["save", &card, &file("again")])?.expect(0)?;
        let (saved, again) = (fs::read(file("state"))?, fs::read(file("again"))?);
        ensure!(saved == again, "the program has saved other bytes");
        run(["load", &to, &file("again")])?.expect(0)?;
        // From one to the other, registers and characters compared.
        for (from, to) in [(&from, &card), (&card, &to)] {
            let copied = run(["copy", "--exercise", from, to])?.expect(0)?;
            copied.says("found again")?;
        }
    }
    Ok(())
}

/// Why a device refuses a state, in its own words.
pub fn refusal(device: &str, state: &str) -> Result<String> {
    let refused = run(["load", device, state])?.expect(1)?;
    let words = refused.err.split_once(device).context("no name")?.1;
    // What is to be done about it is something else.
    let words = words
        .split(';')
        .filter(|part| !part.contains("vfio-migrate"));
    Ok(words.collect::<Vec<_>>().join(";"))
}

fn a_program_refuses_what_the_driver_refuses_in_the_same_words() -> Result<()> {
    let (source, destination) = (any()?, any()?);
    for (param, value) in [("num-ports", "2"), ("fifo-depth", "64"), ("msi", "off")] {
        set(&source, param, value).context(param)?;
    }
    let scratch = Scratch::new()?;
    let (socket, state) = (scratch.file("card.sock"), scratch.file("state"));
    let (source, destination) = (name(&source), name(&destination));
    let _program = Program::start(&socket, &arguments(&destination)?)?;
    let card = format!("vfio-user:{}", socket.display());
    let state = state.display().to_string();
    run(["save", &source, &state])?.expect(0)?;
    let words = refusal(&destination, &state)?;
    ensure!(words.contains("num-ports: source has 2"), "{words}");
    equal("what the program says", refusal(&card, &state)?, words)
}
