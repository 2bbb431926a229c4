// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One QEMU with a guest and its cards: started, asked over QMP, listened to, ended.
//!
//! A thread per machine (the pump) reads everything that QEMU and its guest say, writes it into the log files
//! `<machine>.{qmp,console,trace,stderr}.log` and puts it on the timeline.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use qapi::qmp;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{mknodat, FileType, Mode, OFlags, CWD};
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};

use super::command_line::{arguments, device_add, quoted, Card, Spec};
use super::guest::Host;
use super::pump::{self, Kind, Log, Source};
use super::state::{self, CardName};
use super::timeline::{Entry, Look, Timeline, What};
use super::version::{Protocol, Version};
use crate::ktap::scaled;
use crate::l2;
use crate::qmp::Message;

/// How long QEMU may take to answer a question or to end when asked to.
pub const ANSWER: Duration = Duration::from_secs(30);

/// How QEMU begins what it says when KVM cannot run the guest any more.
const KVM_FAILED: [&str; 3] = [
    "KVM internal error",
    "KVM: entry failed",
    "error: kvm run failed",
];

/// What QEMU is asked, in the words of its human monitor, when a wait for it fails.
const AUTOPSY: [&str; 7] = [
    "info status",
    "info registers",
    "info lapic",
    "info pic",
    "info irq",
    "info pci",
    "info migrate",
];

/// Where the machines of a scenario put their logs and sockets, and what they report to.
#[derive(Clone)]
pub struct Place {
    /// Log files.
    pub logs: PathBuf,
    /// Sockets; their paths must be short.
    pub sockets: PathBuf,
    /// What everybody says.
    pub timeline: Arc<Timeline>,
}

/// A running (or ended) QEMU.
pub struct Machine {
    name: String,
    place: Place,
    pid: OwnedFd,
    qmp: UnixStream,
    qmp_log: Log,
    console: UnixStream,
    next: Cell<u64>,
    version: Version,
    cards: RefCell<Vec<CardName>>,
    allowed: RefCell<Vec<&'static str>>,
    /// The guest was told to reboot.
    reboots: Cell<bool>,
    pump: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts QEMU and takes up QMP.
    pub fn start(place: &Place, name: &str, spec: &Spec) -> Result<Self> {
        Self::try_start(place, name, spec).with_context(|| format!("{name} did not start"))
    }

    fn try_start(place: &Place, name: &str, spec: &Spec) -> Result<Self> {
        let socket = |what: &str| place.sockets.join(format!("{name}.{what}"));
        // QEMU connects to us: nothing that it or its guest says can come before somebody listens.
        let qmp = UnixListener::bind(socket("qmp")).context("QMP socket")?;
        let console = UnixListener::bind(socket("console")).context("console socket")?;
        let fifo = socket("trace");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("trace fifo")?;
        let mut options = fs::OpenOptions::new();
        let trace = options
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(&fifo)
            .context("trace fifo")?;

        let arguments = arguments(spec, &socket("qmp"), &socket("console"), &fifo);
        let log = |what: &str| {
            Log::create(
                &place.logs.join(format!("{name}.{what}.log")),
                &place.timeline,
            )
        };
        let stderr_log = log("stderr")?;
        let program = spec.version.program();
        stderr_log.line("", &format!("{program} {}", quoted(&arguments)));
        let mut child = Command::new(&program)
            .args(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context(program)?;
        let pid = pidfd_open(process_id(&child)?, PidfdFlags::empty()).context("pidfd")?;
        let accepted = accept(&qmp, &pid).and_then(|qmp| Ok((qmp, accept(&console, &pid)?)));
        let (qmp, console) = match accepted {
            Ok(streams) => streams,
            Err(error) => {
                let _ = child.kill();
                let said = child
                    .wait_with_output()
                    .map(|output| output.stderr)
                    .unwrap_or_default();
                stderr_log.line("", &String::from_utf8_lossy(&said));
                bail!(
                    "{error:#}; QEMU said: {}",
                    String::from_utf8_lossy(&said).trim()
                );
            }
        };

        let qmp_log = log("qmp")?;
        let stderr = child.stderr.take().context("standard error of QEMU")?;
        let sources = vec![
            Source::new(
                Kind::Qmp,
                qmp.try_clone().context("QMP socket")?.into(),
                qmp_log.clone(),
            ),
            Source::new(
                Kind::Console,
                console.try_clone().context("console socket")?.into(),
                log("console")?,
            ),
            Source::new(Kind::Trace, trace.into(), log("trace")?),
            Source::new(Kind::Stderr, stderr.into(), stderr_log),
        ];
        let from = place.timeline.position();
        let (thread_name, timeline) = (name.to_string(), Arc::clone(&place.timeline));
        let watched = pid.try_clone().context("process file")?;
        let pump = std::thread::Builder::new()
            .name(name.to_string())
            .spawn(move || pump::run(&thread_name, &timeline, child, &watched, sources))
            .context("thread")?;
        let machine = Self {
            name: name.to_string(),
            place: place.clone(),
            pid,
            qmp,
            qmp_log,
            console,
            next: Cell::new(1),
            version: spec.version,
            cards: RefCell::new(card_names(spec)),
            allowed: RefCell::new(spec.allowed.to_vec()),
            reboots: Cell::new(false),
            pump: Some(pump),
        };
        machine.wait(from, ANSWER, "QEMU's greeting", |what| {
            matches!(what, What::Qmp(Message::Greeting(_)))
        })?;
        machine.execute(&qmp::qmp_capabilities { enable: None })?;
        Ok(machine)
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which QEMU it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Which migration protocol it speaks.
    pub fn protocol(&self) -> Protocol {
        self.version.protocol()
    }

    /// Number of cards that are plugged in.
    pub fn cards(&self) -> usize {
        self.cards.borrow().len()
    }

    /// Plugs a card in behind those that it has. The error is QEMU's.
    pub fn plug(&self, card: &Card) -> Result<()> {
        let number = self.cards();
        self.execute(&device_add(self.version, number, card))?;
        self.cards.borrow_mut().push(card_name(number, card));
        Ok(())
    }

    /// Asks the guest to give its last card up, and waits until it did so and QEMU let the card go.
    pub fn unplug(&self) -> Result<()> {
        let id = self.cards.borrow().last().map(CardName::id);
        let id = id.with_context(|| format!("{} has no card", self.name))?;
        let from = self.timeline().position();
        self.execute(&qmp::device_del { id: id.clone() })?;
        let purpose = format!("{id} to be gone from the machine");
        self.wait(from, ANSWER, &purpose, |what| {
            matches!(what, What::Qmp(Message::Event(qmp::Event::DEVICE_DELETED { data, .. }))
                if data.device.as_deref() == Some(&id))
        })?;
        self.cards.borrow_mut().pop();
        Ok(())
    }

    /// The state that card `card` went to, if that is what this machine said.
    pub fn state_of(&self, what: &What, card: usize) -> Option<qmp::VfioMigrationState> {
        state::state_of(self.protocol(), what, self.cards.borrow().get(card)?)
    }

    /// What everybody says.
    pub fn timeline(&self) -> &Timeline {
        &self.place.timeline
    }

    /// Asks QEMU; the error is QEMU's own text.
    pub fn execute<C: qapi::Command>(&self, command: &C) -> Result<C::Ok> {
        let id = self.next.replace(self.next.get() + 1);
        let line = crate::qmp::encode(command, id).context("QMP command")?;
        let from = self.timeline().position();
        self.qmp_log.line("-> ", line.trim_end());
        let fault = || format!("{} of {}", C::NAME, self.name);
        (&self.qmp).write_all(line.as_bytes()).with_context(fault)?;
        let limit = scaled(ANSWER);
        let (_, reply) =
            self.timeline()
                .wait(
                    from,
                    limit,
                    &format!("the reply to {}", fault()),
                    |entry| match &entry.what {
                        _ if entry.who != self.name => Look::Wait,
                        What::Qmp(Message::Reply(number, result)) if *number == id => {
                            Look::Found(result.clone())
                        }
                        What::Exited(status) => {
                            Look::Never(anyhow::anyhow!("QEMU ended before: {status}"))
                        }
                        _ => Look::Wait,
                    },
                )?;
        let value = reply.map_err(|text| anyhow::anyhow!("{}: {text}", fault()))?;
        serde_json::from_value(value).with_context(|| format!("the reply to {}", fault()))
    }

    /// Waits for something that this machine says at or after `from`; returns the position after it. The end of QEMU, and
    /// a guest that cannot go on, end the wait.
    pub fn wait(
        &self,
        from: usize,
        limit: Duration,
        purpose: &str,
        test: impl Fn(&What) -> bool,
    ) -> Result<usize> {
        let look = |what: &What| {
            if test(what) {
                Look::Found(())
            } else {
                Look::Wait
            }
        };
        Ok(self.wait_for(from, limit, purpose, look)?.0)
    }

    /// As [`Machine::wait`], with a result.
    pub fn wait_for<T>(
        &self,
        from: usize,
        limit: Duration,
        purpose: &str,
        mut look: impl FnMut(&What) -> Look<T>,
    ) -> Result<(usize, T)> {
        let purpose = format!("{purpose} ({})", self.name);
        let result = self
            .timeline()
            .wait(from, scaled(limit), &purpose, |entry| {
                if entry.who != self.name {
                    return Look::Wait;
                }
                match look(&entry.what) {
                    Look::Wait => self.fatal(entry),
                    found => found,
                }
            });
        if result.is_err() {
            self.autopsy();
        }
        result
    }

    /// What ends every wait for this machine.
    fn fatal<T>(&self, entry: &Entry) -> Look<T> {
        match &entry.what {
            What::Qmp(Message::Event(qmp::Event::RESET { data, .. }))
                if data.guest && !self.reboots.get() =>
            {
                Look::Never(anyhow::anyhow!(
                    "the guest of {} reset its machine, which nobody told it to ({})",
                    entry.who,
                    qapi::Enum::name(&data.reason)
                ))
            }
            _ => fatal(entry),
        }
    }

    /// Writes down what QEMU knows of the guest's processor, interrupts and migration. A machine that is gone has nothing to
    /// say: errors are dropped.
    fn autopsy(&self) {
        let path = self.place.logs.join(format!("{}.autopsy.log", self.name));
        let Ok(mut file) = fs::File::create(path) else {
            return;
        };
        for command in AUTOPSY {
            let ask = qmp::human_monitor_command {
                command_line: command.into(),
                cpu_index: None,
            };
            let Ok(answer) = self.execute(&ask) else {
                return;
            };
            let _ = writeln!(file, "{command}\n{answer}");
        }
    }

    /// The run state that QEMU reports.
    pub fn status(&self) -> Result<qmp::RunState> {
        Ok(self.execute(&qmp::query_status {})?.status)
    }

    /// Sees that the run state is the expected one.
    pub fn expect_status(&self, expected: qmp::RunState) -> Result<()> {
        let status = self.status()?;
        if status == expected {
            return Ok(());
        }
        self.autopsy();
        let said = self.complaints();
        bail!(
            "{} should be {} but is {}{}{}",
            self.name,
            qapi::Enum::name(&expected),
            qapi::Enum::name(&status),
            if said.is_empty() { "" } else { ", and says: " },
            said.join(" / ")
        )
    }

    /// Tells the guest's test program to do something.
    pub fn command(&self, command: l2::line::Command) -> Result<()> {
        if matches!(command, l2::line::Command::Reboot) {
            self.reboots.set(true);
        }
        let line = format!("{command}\n");
        (&self.console)
            .write_all(line.as_bytes())
            .with_context(|| format!("console of {}", self.name))
    }

    /// Everything QEMU wrote to its standard error so far.
    fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.timeline().each(0, |_, entry| {
            if let (true, What::Stderr(line)) = (entry.who == self.name, &entry.what) {
                lines.push(line.clone());
            }
        });
        lines
    }

    /// Ends QEMU the hard way and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        pidfd_send_signal(&self.pid, Signal::KILL)
            .with_context(|| format!("kill of {}", self.name))?;
        self.wait_exit().map(drop)
    }

    /// Waits until QEMU has ended.
    pub fn wait_exit(&self) -> Result<ExitStatus> {
        let (_, status) = self.wait_for(0, ANSWER, "the end of QEMU", |what| match what {
            What::Exited(status) => Look::Found(*status),
            _ => Look::Wait,
        })?;
        Ok(status)
    }

    /// Ends QEMU by QMP `quit`: it must end with status 0 and must have complained of nothing that nobody provoked.
    pub fn quit(self) -> Result<()> {
        // The connection may close before the reply: how QEMU ended is what counts.
        if let Err(error) = self.execute(&qmp::quit {}) {
            self.wait_exit().with_context(|| format!("{error:#}"))?;
        }
        let status = self.wait_exit()?;
        ensure!(
            status.success(),
            "{} ended with {status} after quit",
            self.name
        );
        self.check_complaints()
    }

    /// Gives QEMU a reason to say, from the start or later, lines that contain one of `texts`.
    pub fn provoke(&self, texts: &[&'static str]) {
        self.allowed.borrow_mut().extend_from_slice(texts);
    }

    /// Fails on everything that QEMU wrote to its standard error without a reason.
    pub fn check_complaints(&self) -> Result<()> {
        let (mut lines, allowed) = (self.complaints(), self.allowed.borrow());
        lines.retain(|line| !allowed.iter().any(|text| line.contains(text)));
        ensure!(
            lines.is_empty(),
            "QEMU ({}) should have had no reason to say: {}",
            self.name,
            lines.join(" / ")
        );
        Ok(())
    }
}

impl Host for Machine {
    fn name(&self) -> &str {
        self.name()
    }

    fn timeline(&self) -> &Timeline {
        self.timeline()
    }

    fn wait_for<T>(
        &self,
        from: usize,
        limit: Duration,
        purpose: &str,
        look: impl FnMut(&What) -> Look<T>,
    ) -> Result<(usize, T)> {
        self.wait_for(from, limit, purpose, look)
    }

    fn command(&self, command: l2::line::Command) -> Result<()> {
        self.command(command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The pump reaps QEMU; until it has, the process file stays valid.
        let _ = pidfd_send_signal(&self.pid, Signal::KILL);
        if let Some(pump) = self.pump.take() {
            let _ = pump.join();
        }
        for what in ["qmp", "console", "trace"] {
            let _ = fs::remove_file(self.place.sockets.join(format!("{}.{what}", self.name)));
        }
    }
}

/// What ends every wait for the QEMU that says it.
pub(super) fn fatal<T>(entry: &Entry) -> Look<T> {
    match &entry.what {
        What::Exited(status) => {
            Look::Never(anyhow::anyhow!("QEMU of {} ended: {status}", entry.who))
        }
        What::Guest(l2::line::Line::Failed(why)) => {
            Look::Never(anyhow::anyhow!("the guest cannot go on: {why}"))
        }
        What::Guest(l2::line::Line::Fault { port, what }) => Look::Never(anyhow::anyhow!(
            "the guest reports a fault on port {port}: {what}"
        )),
        What::Console(line) if line.contains("Kernel panic") => {
            Look::Never(anyhow::anyhow!("the guest's kernel panicked: {line}"))
        }
        What::Stderr(line) if KVM_FAILED.iter().any(|text| line.starts_with(text)) => {
            Look::Never(anyhow::anyhow!("the guest cannot be run: {line}"))
        }
        _ => Look::Wait,
    }
}

/// The cards as QEMU will call them.
fn card_names(spec: &Spec) -> Vec<CardName> {
    let cards = spec.cards.iter().enumerate();
    cards
        .map(|(number, card)| card_name(number, card))
        .collect()
}

/// A card as QEMU will call it.
fn card_name(number: usize, card: &Card) -> CardName {
    let instance = card.path.file_name().unwrap_or_default();
    CardName {
        number,
        instance: instance.to_string_lossy().into_owned(),
    }
}

/// The child's process number.
fn process_id(child: &Child) -> Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("process number 0")
}

/// Waits for QEMU to connect, or to end.
fn accept(listener: &UnixListener, pid: &OwnedFd) -> Result<UnixStream> {
    let limit = scaled(ANSWER);
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        ensure!(
            !left.is_zero(),
            "QEMU did not connect to its sockets in {} s",
            limit.as_secs()
        );
        let left = Timespec {
            tv_sec: left.as_secs() as _,
            tv_nsec: left.subsec_nanos() as _,
        };
        let mut files = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(pid, PollFlags::IN),
        ];
        poll(&mut files, Some(&left)).context("poll")?;
        if files[0].revents().contains(PollFlags::IN) {
            return Ok(listener.accept().context("accept")?.0);
        }
        ensure!(
            !files[1].revents().contains(PollFlags::IN),
            "QEMU ended at once"
        );
    }
}
