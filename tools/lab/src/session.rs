// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A machine at work: boots it, loads modules, runs programs one after the other with deadlines, and files everything it sends.

use crate::environment::Environment;
use crate::image::Image;
use crate::machine::{Event, Machine, Monitor, Sender};
use crate::plan;
use crate::report::kernel_log::KernelLog;
use anyhow::{bail, Context, Result};
use lab_protocol::{Command, Ending, Frame, ModuleAction, Program, Report};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the logs of programs are in the directory of a machine's logs, each in one that is called as the program's job is.
pub const PROGRAMS: &str = "tests";

/// How long the machine took to boot where the deadlines were chosen. A slower boot stretches them.
const REFERENCE_BOOT: Duration = Duration::from_secs(4);

/// For a boot, on the reference machine. It fails only if something is broken, so it is ample.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// The same for a kernel that checks what it does, which executes ten times as many instructions: half a minute of a processor's time,
/// which a busy host may not have at once.
const CHECKED_BOOT_DEADLINE: Duration = Duration::from_secs(480);

/// For loading or unloading a module with all its KUnit suites.
const MODULE_DEADLINE: Duration = Duration::from_secs(60);

/// Between SIGTERM and SIGKILL for a program that passed its deadline.
const GRACE: Duration = Duration::from_secs(5);

/// For the machine to report the end of a stopped program. It gives up on unkillable processes sooner.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// For a program to go on after the kernel reported a bug in itself.
const AFTER_BUG: Duration = Duration::from_secs(20);

/// For switching off.
const OFF_DEADLINE: Duration = Duration::from_secs(20);

/// Which of a program's two outputs something came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the program's terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// The program ended by itself.
    Ended(Ending),
    /// It was stopped at its deadline.
    TimedOut(Duration),
    /// It was stopped because the kernel had reported a bug in itself.
    KernelBug,
    /// The machine died or stopped answering.
    Lost(String),
}

/// What is known about a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// How it ended.
    pub end: RunEnd,
    /// Command lines of processes the program left behind.
    pub leftovers: Vec<String>,
    /// Command lines of processes that could not be killed.
    pub unkillable: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

/// A booted machine.
pub struct Session {
    machine: Machine,
    sender: Sender,
    directory: PathBuf,
    console: File,
    kernel_log: File,
    log: KernelLog,
    kernel: String,
    boot_time: Duration,
    scale: f64,
    runs: u32,
    /// Label of the program that runs, for filing.
    label: String,
    troubles: Vec<String>,
    lost: Option<String>,
}

impl Session {
    /// Starts a machine and waits until it takes commands. Everything it says is filed in `directory`.
    ///
    /// # Errors
    /// If it does not come up, with the last line of its console.
    pub fn boot(env: &Environment, image: &Image, directory: &Path) -> Result<Self> {
        let started = Instant::now();
        let machine = Machine::start(env, image, directory)?;
        let mut session = Self {
            sender: machine.sender(),
            machine,
            directory: directory.to_owned(),
            console: File::create(directory.join("console.log"))?,
            kernel_log: File::create(directory.join("kernel.log"))?,
            log: KernelLog::default(),
            kernel: String::new(),
            boot_time: Duration::ZERO,
            scale: env.timeout_scale,
            runs: 0,
            label: String::new(),
            troubles: vec![],
            lost: None,
        };
        let deadline = if env.kernel_is_configured(plan::CHECKED) {
            CHECKED_BOOT_DEADLINE
        } else {
            BOOT_DEADLINE
        };
        match session.await_report(deadline) {
            Some(Report::Ready { kernel }) => session.kernel = kernel,
            _ => {
                let why = session.lost.as_deref().map_or_else(
                    || {
                        format!(
                            "it was not ready after {:.0} s",
                            started.elapsed().as_secs_f64()
                        )
                    },
                    str::to_owned,
                );
                bail!(
                    "the machine did not come up ({why}): see console.log and qemu.log in {}",
                    directory.display()
                )
            }
        }
        session.boot_time = started.elapsed();
        session.scale *= (session.boot_time.as_secs_f64() / REFERENCE_BOOT.as_secs_f64()).max(1.0);
        Ok(session)
    }

    /// Release of its kernel.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// How long it took to come up.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// By how much deadlines are stretched.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Why the machine cannot be used any more.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The kernel's log.
    pub fn log(&mut self) -> &mut KernelLog {
        &mut self.log
    }

    /// What the machine said about itself that it should not have had to say.
    pub fn troubles(&self) -> &[String] {
        &self.troubles
    }

    /// Where input for programs goes.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// QEMU's monitor.
    pub fn monitor(&self) -> Monitor {
        self.machine.monitor()
    }

    /// The number that the next program gets.
    pub fn next_run(&self) -> u32 {
        self.runs + 1
    }

    /// Loads or unloads a module; the result is what went wrong.
    pub fn module(&mut self, name: &str, action: ModuleAction) -> Option<String> {
        self.runs += 1;
        let order = Command::Module {
            run: self.runs,
            name: name.to_owned(),
            action,
        };
        if let Err(e) = self.sender.order(order) {
            self.lose(format!("{e:#}"));
        }
        match self.await_report(MODULE_DEADLINE) {
            Some(Report::ModuleDone { error, .. }) => error,
            _ => {
                self.give_up();
                self.lost.clone()
            }
        }
    }

    /// Runs a program to its end or to `deadline`, which is stretched, and hands its output to `sink` as it comes.
    pub fn run(
        &mut self,
        program: Program,
        deadline: Option<Duration>,
        sink: &mut dyn FnMut(Stream, &[u8]),
    ) -> Run {
        let started = Instant::now();
        self.runs += 1;
        self.label = program.label.clone();
        let number = self.runs;
        let mut run = Run {
            end: RunEnd::Lost(String::new()),
            leftovers: vec![],
            unkillable: vec![],
            duration: Duration::ZERO,
        };
        let mut program = program;
        program
            .env
            .push(("LAB_SCALE".to_owned(), format!("{:.2}", self.scale)));
        if let Err(e) = self.sender.order(Command::Run {
            run: number,
            program,
        }) {
            self.lose(format!("{e:#}"));
        }
        let limit = deadline.map(|deadline| deadline.mul_f64(self.scale));
        let mut due = limit.map(|limit| started + limit);
        let mut stopped: Option<RunEnd> = None;
        let mut bug_seen = false;
        let end = loop {
            if let Some(why) = &self.lost {
                break RunEnd::Lost(why.clone());
            }
            if self.log.is_lost() && !bug_seen && stopped.is_none() {
                bug_seen = true;
                let soon = Instant::now() + AFTER_BUG.mul_f64(self.scale);
                due = Some(due.map_or(soon, |due| due.min(soon)));
            }
            match self.next(due) {
                Some(Frame::Stdout { run, bytes }) if run == number => sink(Stream::Stdout, &bytes),
                Some(Frame::Stderr { run, bytes }) if run == number => sink(Stream::Stderr, &bytes),
                Some(Frame::Report(Report::Finished {
                    run: of,
                    ending,
                    leftovers,
                    unkillable,
                })) if of == number => {
                    run.leftovers = leftovers;
                    if !unkillable.is_empty() {
                        self.lose("a process cannot be killed".to_owned());
                    }
                    run.unkillable = unkillable;
                    break stopped.unwrap_or(RunEnd::Ended(ending));
                }
                Some(other) => self.note(&other),
                None if self.lost.is_some() => {}
                None if stopped.is_some() => self.give_up(),
                None => {
                    stopped = Some(if bug_seen {
                        RunEnd::KernelBug
                    } else {
                        RunEnd::TimedOut(limit.unwrap_or_default())
                    });
                    let order = Command::Stop {
                        run: number,
                        grace_ms: GRACE.mul_f64(self.scale).as_millis() as u64,
                    };
                    if let Err(e) = self.sender.order(order) {
                        self.lose(format!("{e:#}"));
                    }
                    due = Some(Instant::now() + (GRACE + STOP_DEADLINE).mul_f64(self.scale));
                }
            }
        };
        run.end = end;
        run.duration = started.elapsed();
        run
    }

    /// Switches the machine off, by force if it must be. The log is complete afterwards.
    pub fn end(&mut self) -> Result<()> {
        if self.lost.is_none() && self.sender.order(Command::Finish).is_ok() {
            let said_bye = matches!(self.await_report(OFF_DEADLINE), Some(Report::Bye));
            if said_bye && self.sender.order(Command::PowerOff).is_ok() {
                let due = Instant::now() + OFF_DEADLINE.mul_f64(self.scale);
                while self.lost.is_none() && self.next(Some(due)).is_some() {}
            } else {
                self.give_up();
            }
        }
        self.machine
            .end(Instant::now() + OFF_DEADLINE.mul_f64(self.scale))?;
        // What came between the last frame and the end of the process. The sockets are closed: it ends.
        loop {
            match self.machine.event(Instant::now() + OFF_DEADLINE) {
                Some(Event::Over) | None => break,
                Some(event) => drop(self.file(event)),
            }
        }
        self.log.read_console_tail();
        Ok(())
    }

    fn lose(&mut self, why: String) {
        self.lost.get_or_insert(why);
    }

    /// The machine does not answer: has its kernel say what it is doing.
    fn give_up(&mut self) {
        if self.lost.is_none() && self.machine.interrupt().is_ok() {
            let due = Instant::now() + OFF_DEADLINE.mul_f64(self.scale);
            while let Some(event) = self.machine.event(due) {
                if matches!(event, Event::Gone | Event::Over) {
                    break;
                }
                self.file(event);
            }
        }
        self.lose("the machine stopped answering".to_owned());
    }

    /// How QEMU ended. A kernel that panics ends it well.
    fn obituary(&mut self) -> String {
        let status = self.machine.end(Instant::now() + OFF_DEADLINE);
        let status = status.map_or_else(|e| format!("{e:#}"), |status| status.to_string());
        let said = fs::read_to_string(self.directory.join("qemu.log")).unwrap_or_default();
        match said.lines().last() {
            Some(line) => format!("the machine died (QEMU: {status}; {line})"),
            None => format!("the machine died (QEMU: {status})"),
        }
    }

    /// Waits for the next report that is not about trouble; `None` at the deadline or if the machine is gone.
    fn await_report(&mut self, deadline: Duration) -> Option<Report> {
        let due = Instant::now() + deadline.mul_f64(self.scale);
        loop {
            match self.next(Some(due))? {
                Frame::Report(Report::Trouble { text }) => self.troubles.push(text),
                Frame::Report(report) => return Some(report),
                other => self.note(&other),
            }
        }
    }

    /// The next frame that is not for the files; `None` at the deadline or if the machine is gone.
    fn next(&mut self, due: Option<Instant>) -> Option<Frame> {
        // Without a deadline this wakes up now and then for nothing.
        let far = Duration::from_secs(3600);
        while self.lost.is_none() {
            match self
                .machine
                .event(due.unwrap_or_else(|| Instant::now() + far))
            {
                Some(event) => {
                    if let Some(frame) = self.file(event) {
                        return Some(frame);
                    }
                }
                None if due.is_some() => return None,
                None => {}
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                return None;
            }
        }
        None
    }

    /// Files console, kernel log and log files; what else there is goes to the caller.
    fn file(&mut self, event: Event) -> Option<Frame> {
        let filed = match event {
            Event::Console(bytes) => {
                self.log.console(&bytes);
                self.console.write_all(&bytes).context("console.log")
            }
            Event::Frame(Frame::Kmsg(record)) => {
                let lines = self.log.kmsg(&record);
                lines
                    .iter()
                    .try_for_each(|line| writeln!(self.kernel_log, "{line}"))
                    .context("kernel.log")
            }
            Event::Frame(Frame::File {
                offset,
                path,
                bytes,
                ..
            }) => self.write_file(offset, &path, &bytes),
            Event::Frame(frame) => return Some(frame),
            Event::Garbled(why) => {
                self.lose(format!("the machine sent {why}"));
                Ok(())
            }
            Event::Gone | Event::Over => {
                let why = self.obituary();
                self.lose(why);
                Ok(())
            }
        };
        if let Err(e) = filed {
            self.troubles.push(format!("cannot write {e:#}"));
        }
        None
    }

    fn note(&mut self, frame: &Frame) {
        if let Frame::Report(Report::Trouble { text }) = frame {
            self.troubles.push(text.clone());
        }
    }

    /// Directory for the logs of a program.
    pub fn logs_of(&self, label: &str) -> PathBuf {
        self.directory.join(PROGRAMS).join(label)
    }

    fn write_file(&self, offset: u64, path: &str, bytes: &[u8]) -> Result<()> {
        let path = Path::new(path);
        // The name comes out of the machine: it must not lead out of the directory.
        if path
            .components()
            .any(|part| !matches!(part, Component::Normal(_)))
        {
            bail!("a file with the path {}", path.display());
        }
        let path = self.logs_of(&self.label).join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        if offset == 0 {
            file.set_len(0)?;
        }
        file.write_all_at(bytes, offset)
            .with_context(|| path.display().to_string())
    }
}
