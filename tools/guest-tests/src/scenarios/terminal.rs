// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A QEMU that somebody started with a command of the shell, and whose terminal is all there is to it: the guest's console, and
//! after Ctrl-A and c QEMU's monitor (`-serial mon:stdio`).

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use super::guest::Host;
use super::machine::{fatal, Place, ANSWER};
use super::pump::{self, Kind, Log, Source};
use super::scene::MIGRATION;
use super::timeline::{Look, Timeline, What};
use crate::ktap::scaled;
use crate::l2::line;

/// Between two questions what a migration's status is. The monitor draws its line anew for each key: asked all the time, QEMU has none
/// left for the migration.
const REST: Duration = Duration::from_millis(700);
/// What takes a terminal of QEMU's from the guest's console to the monitor, and back.
const SWITCH: &[u8] = b"\x01c";

/// What hears the keys that are typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Focus {
    Console,
    Monitor,
}

/// A running (or ended) QEMU.
pub struct Terminal {
    name: String,
    timeline: Arc<Timeline>,
    pid: OwnedFd,
    input: RefCell<ChildStdin>,
    focus: Cell<Focus>,
    /// Where to look for the monitor's next prompt.
    prompted: Cell<usize>,
    pump: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Has the shell run `command`, which is a program and its arguments as a person types them, with these variables.
    pub fn run(
        place: &Place,
        name: &str,
        command: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        Self::try_run(place, name, command, variables)
            .with_context(|| format!("{name} did not start"))
    }

    fn try_run(
        place: &Place,
        name: &str,
        command: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let log = |what: &str| {
            let path = place.logs.join(format!("{name}.{what}.log"));
            Log::create(&path, &place.timeline)
        };
        let stderr_log = log("stderr")?;
        stderr_log.line("", command);
        // In the shell's place: what is to be ended is QEMU.
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec {command}")])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("sh")?;
        let pid = pidfd_open(process_id(&child)?, PidfdFlags::empty()).context("pidfd")?;
        let input = child.stdin.take().context("standard input of QEMU")?;
        let output = child.stdout.take().context("standard output of QEMU")?;
        let stderr = child.stderr.take().context("standard error of QEMU")?;
        let sources = vec![
            Source::new(Kind::Terminal, output.into(), log("terminal")?),
            Source::new(Kind::Stderr, stderr.into(), stderr_log),
        ];
        let timeline = Arc::clone(&place.timeline);
        let watched = pid.try_clone().context("process file")?;
        let (whose, its) = (name.to_string(), Arc::clone(&timeline));
        let pump = std::thread::Builder::new()
            .name(name.to_string())
            .spawn(move || pump::run(&whose, &its, child, &watched, sources))
            .context("thread")?;
        Ok(Self {
            name: name.to_string(),
            timeline,
            pid,
            input: RefCell::new(input),
            focus: Cell::new(Focus::Console),
            prompted: Cell::new(0),
            pump: Some(pump),
        })
    }

    /// Has the keys go to the console or to the monitor.
    fn turn_to(&self, focus: Focus) -> Result<()> {
        if self.focus.replace(focus) != focus {
            self.prompted.set(self.timeline.position());
            self.type_in(SWITCH)?;
        }
        Ok(())
    }

    fn type_in(&self, keys: &[u8]) -> Result<()> {
        let mut input = self.input.borrow_mut();
        let typed = input.write_all(keys).and_then(|()| input.flush());
        typed.with_context(|| format!("terminal of {}", self.name))
    }

    /// Types a command into QEMU's monitor, when it asks for one: those before it are carried out then.
    pub fn monitor(&self, command: &str) -> Result<()> {
        self.note(format!("(qemu) {command}"));
        self.enter(command)
    }

    /// Puts on the timeline what was typed or seen.
    pub fn note(&self, text: String) {
        self.timeline.push(&self.name, What::Note(text));
    }

    /// As [`Terminal::monitor`], with no word about it.
    pub fn enter(&self, command: &str) -> Result<()> {
        self.prompt()?;
        self.type_in(format!("{command}\n").as_bytes())
    }

    /// Types a command into QEMU's monitor, and returns what it printed before it asked for the next one.
    pub fn ask(&self, command: &str) -> Result<String> {
        self.enter(command)?;
        let from = self.prompted.get();
        let at = self.prompt()?;
        // What is typed next needs no further prompt.
        self.prompted.set(at);
        let mut answer = String::new();
        self.timeline.each(from, |place, entry| {
            if let (true, What::Console(line)) = (place < at && entry.who == self.name, &entry.what)
            {
                answer.push_str(line);
                answer.push('\n');
            }
        });
        Ok(answer)
    }

    /// Asks about the migration until it is completed.
    pub fn migrated(&self, question: &str) -> Result<()> {
        self.migration(question, "completed")
    }

    /// Asks about the migration until it has this status.
    pub fn migration(&self, question: &str, wanted: &str) -> Result<()> {
        loop {
            let answer = self.ask(question)?;
            let status = answer
                .lines()
                .find_map(|line| Some(line.to_lowercase().split_once("status:")?.1.to_string()));
            let status = status.with_context(|| format!("{question} has no status: {answer}"))?;
            // Protocol v1 has no state of its own for the card that is being saved.
            match status.split_whitespace().next().unwrap_or_default() {
                status if status == wanted => return Ok(()),
                "setup" | "active" | "pre-switchover" | "device" | "failing" | "cancelling" => {
                    self.rest()
                }
                other => anyhow::bail!("{}: the migration is {other}", self.name),
            }
        }
    }

    /// Lets QEMU work for a while, unless it ends: a person's monitor tells no events.
    fn rest(&self) {
        let from = self.timeline.position();
        let _ = self
            .timeline
            .wait(from, REST, "QEMU's end", |entry| match &entry.what {
                What::Exited(_) if entry.who == self.name => Look::Found(()),
                _ => Look::Wait,
            });
    }

    /// Waits until the monitor asks for a command; where that is on the timeline.
    fn prompt(&self) -> Result<usize> {
        self.turn_to(Focus::Monitor)?;
        let (after, ()) = self.wait_for(
            self.prompted.get(),
            MIGRATION,
            "the monitor's prompt",
            |what| match what {
                What::Prompt => Look::Found(()),
                _ => Look::Wait,
            },
        )?;
        self.prompted.set(after);
        Ok(after - 1)
    }

    /// Ends QEMU by its monitor, once it has done what it was told before: it must end with status 0, and may
    /// have complained of nothing but what one of `allowed` is part of.
    pub fn quit(self, allowed: &[&str]) -> Result<()> {
        self.monitor("quit")?;
        let status = self.wait_exit(ANSWER)?;
        ensure!(
            status.success(),
            "{} ended with {status} after quit",
            self.name
        );
        let mut complaints = Vec::new();
        self.timeline.each(0, |_, entry| {
            if let (true, What::Stderr(line)) = (entry.who == self.name, &entry.what) {
                if !allowed.iter().any(|text| line.contains(text)) {
                    complaints.push(line.clone());
                }
            }
        });
        ensure!(
            complaints.is_empty(),
            "QEMU ({}) should have had no reason to say: {}",
            self.name,
            complaints.join(" / ")
        );
        Ok(())
    }

    fn wait_exit(&self, limit: Duration) -> Result<std::process::ExitStatus> {
        let purpose = format!("the end of QEMU ({})", self.name);
        let (_, status) =
            self.timeline
                .wait(0, scaled(limit), &purpose, |entry| match &entry.what {
                    What::Exited(status) if entry.who == self.name => Look::Found(*status),
                    _ => Look::Wait,
                })?;
        Ok(status)
    }
}

impl Host for Terminal {
    fn name(&self) -> &str {
        &self.name
    }

    fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    fn wait_for<T>(
        &self,
        from: usize,
        limit: Duration,
        purpose: &str,
        mut look: impl FnMut(&What) -> Look<T>,
    ) -> Result<(usize, T)> {
        let purpose = format!("{purpose} ({})", self.name);
        self.timeline.wait(from, scaled(limit), &purpose, |entry| {
            if entry.who != self.name {
                return Look::Wait;
            }
            match look(&entry.what) {
                Look::Wait => fatal(entry),
                found => found,
            }
        })
    }

    fn command(&self, command: line::Command) -> Result<()> {
        self.turn_to(Focus::Console)?;
        self.type_in(format!("{command}\n").as_bytes())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The pump reaps QEMU; until it has, the process file stays valid.
        let _ = pidfd_send_signal(&self.pid, Signal::KILL);
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
    }
}

/// The child's process number.
fn process_id(child: &Child) -> Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("process number 0")
}
