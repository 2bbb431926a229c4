// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `watch`, and the files it polls.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{bail, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use serde_json::Value as Json;
use vfio_uapi::mdev::Mdev;
use vfio_uapi::migration_v1::{Region, PRE_COPY, RUNNING, STOP};
use vfio_uapi::State;

use crate::host::{get, instance, name, open, run, tool};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        each_step_of_a_migration_is_seen,
        a_watch_ends_with_the_migration,
        a_session_that_nobody_saw_ends_a_watch,
        sessions_are_counted,
        a_watch_ends_with_the_instance,
        once_shows_what_is_now,
    );
}

/// A running `watch --json`. Ended when dropped.
struct Watcher {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Watcher {
    fn start(instance: &Mdev, arguments: &[&str]) -> Result<Self> {
        let mut command = tool()?;
        command
            .args(["watch", "--json"])
            .args(arguments)
            .arg(name(instance))
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("vfio-migrate cannot be started")?;
        let out = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { child, out })
    }

    fn next(&mut self) -> Result<Json> {
        let mut line = String::new();
        match self.out.read_line(&mut line)? {
            0 => bail!("watch ended"),
            _ => serde_json::from_str(&line).with_context(|| format!("not JSON: {line:?}")),
        }
    }

    /// Reads until the files say this. Changes that come fast may be seen together.
    fn until(&mut self, state: &str, phase: &str, bytes: u64) -> Result<()> {
        let mut seen = Vec::new();
        loop {
            let sample = self
                .next()
                .with_context(|| format!("waiting for {state} {phase} {bytes} after {seen:?}"))?;
            if sample["state"] == state && sample["phase"] == phase && sample["bytes"] == bytes {
                return Ok(());
            }
            seen.push(sample);
        }
    }

    /// Keeps it from running.
    fn stop(&self) -> Result<()> {
        let process = Pid::from_raw(self.child.id().try_into()?);
        kill(process, Signal::SIGSTOP)?;
        // Stopped in fact, not only told to.
        let status = waitpid(process, Some(WaitPidFlag::WUNTRACED))?;
        equal(
            "watch",
            status,
            WaitStatus::Stopped(process, Signal::SIGSTOP),
        )
    }

    fn go_on(&self) -> Result<()> {
        let process = Pid::from_raw(self.child.id().try_into()?);
        Ok(kill(process, Signal::SIGCONT)?)
    }

    fn status(mut self) -> Result<Option<i32>> {
        Ok(self.child.wait()?.code())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn each_step_of_a_migration_is_seen() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-1")?, instance("mdev_serial-1")?);
    let mut of_source = Watcher::start(&source, &[])?;
    let mut of_destination = Watcher::start(&destination, &[])?;
    of_source.until("RUNNING", "none", 0)?;
    of_destination.until("RUNNING", "none", 0)?;
    let (from, to) = (open(&source)?, open(&destination)?);
    let out = from.start(State::PreCopy)?;
    of_source.until("PRE_COPY", "pre-copy", 0)?;
    let first = out.read_all(4096)?;
    of_source.until("PRE_COPY", "pre-copy", first.len() as u64)?;
    let into = to.start(State::Resuming)?;
    of_destination.until("RESUMING", "setup", 0)?;
    into.write_all(&first, first.len())?;
    of_destination.until("RESUMING", "pre-copy", first.len() as u64)?;
    from.switch(State::StopCopy)?;
    let rest = out.read_all(4096)?;
    let all = (first.len() + rest.len()) as u64;
    of_source.until("STOP_COPY", "stop-and-copy", all)?;
    into.write_all(&rest, rest.len())?;
    drop(into);
    to.switch(State::Running)?;
    of_destination.until("RUNNING", "none", 0)?;
    from.switch(State::Stop)?;
    of_source.until("STOP", "none", 0)?;
    drop(from);
    of_source.until("RUNNING", "none", 0)
}

fn a_watch_ends_with_the_migration() -> Result<()> {
    let (source, destination) = (instance("mdev_serial-1")?, instance("mdev_serial-1")?);
    let mut watcher = Watcher::start(&source, &["--until-end"])?;
    watcher.until("RUNNING", "none", 0)?;
    let from = open(&source)?;
    let data = from.start(State::StopCopy)?;
    watcher.until("STOP_COPY", "stop-and-copy", 0)?;
    drop(data);
    drop(from);
    watcher.until("RUNNING", "none", 0)?;
    equal("exit status", watcher.status()?, Some(0))?;
    drop(destination);
    Ok(())
}

fn a_session_that_nobody_saw_ends_a_watch() -> Result<()> {
    let source = instance("mdev_serial-1")?;
    let destination = instance("mdev_serial-1")?;
    let mut watchers = Vec::new();
    for card in [&source, &destination] {
        let mut watcher = Watcher::start(card, &["--until-end"])?;
        watcher.until("RUNNING", "none", 0)?;
        watcher.stop()?;
        watchers.push(watcher);
    }
    run(["copy", &name(&source), &name(&destination)])?.expect(0)?;
    for mut watcher in watchers {
        watcher.go_on()?;
        let last = watcher.next()?;
        equal("phase", last["phase"].clone(), "none".into())?;
        equal("sessions", last["sessions"].clone(), 1.into())?;
        equal("exit status", watcher.status()?, Some(0))?;
    }
    Ok(())
}

fn sessions_are_counted() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let counted = |wanted: &str| equal("sessions", get(&card, "sessions")?, wanted.to_string());
    counted("0")?;
    let device = open(&card)?;
    // Pre-copy and what follows is one session.
    let data = device.start(State::PreCopy)?;
    counted("1")?;
    device.switch(State::StopCopy)?;
    data.read_all(4096)?;
    device.switch(State::Running)?;
    counted("1")?;
    // A session that loads, and one that ends with the reset that closing is.
    drop(device.start(State::Resuming)?);
    counted("2")?;
    drop(device);
    counted("2")?;
    // Protocol v1 counts as well; who only looks does not.
    let device = open(&card)?;
    let region = Region::find(&device)?;
    region.set_state(STOP)?;
    region.set_state(RUNNING)?;
    counted("2")?;
    region.set_state(PRE_COPY)?;
    counted("3")?;
    region.set_state(RUNNING)?;
    counted("3")
}

fn a_watch_ends_with_the_instance() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let mut watcher = Watcher::start(&card, &[])?;
    // Once it has told this, it looks again only when poll(2) says so: that tells it of the removal, before it sleeps or while.
    watcher.until("RUNNING", "none", 0)?;
    card.remove()?;
    equal("the last line", watcher.next()?, Json::Null)?;
    equal("exit status", watcher.status()?, Some(0))
}

fn once_shows_what_is_now() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let device = open(&card)?;
    let data = device.start(State::PreCopy)?;
    let len = data.read_all(4096)?.len();
    let ran = run(["watch", "--once", &name(&card)])?.expect(0)?;
    ran.says("PRE_COPY")?
        .says("pre-copy")?
        .says(&format!("{len} B"))?;
    Ok(())
}
