// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One running program: its output, its terminal, its end, and the end of everything it started.

use crate::link::Link;
use crate::logs::LogDir;
use anyhow::{Context, Result};
use lab_protocol::{Ending, Frame, Program, Report, WindowSize};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{kill_process, kill_process_group, Pid, Signal, WaitStatus};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often log files are looked at while a program runs.
const EXPORT_EVERY: Duration = Duration::from_secs(1);

/// How long killed processes may take to disappear before they count as unkillable. A process stuck in the kernel never does.
const KILL_PATIENCE: Duration = Duration::from_secs(20);

/// What [`Running::step`] found.
#[derive(PartialEq, Eq)]
pub enum Step {
    /// There is more to come.
    Going,
    /// The program and all it started are gone, or cannot be got rid of.
    Over,
}

/// A started program.
pub struct Running {
    run: u32,
    label: String,
    pid: Pid,
    outputs: Outputs,
    input: Vec<u8>,
    logs: LogDir,
    next_export: Instant,
    kill_at: Option<Instant>,
    ending: Option<Ending>,
    leftovers: Vec<String>,
    /// When the program has ended: until when its left-over processes may take to go.
    cleanup_until: Option<Instant>,
}

enum Outputs {
    Pipes {
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
    Terminal {
        master: Option<OwnedFd>,
    },
}

/// The report for a program that never ran.
pub fn not_started(run: u32, error: &anyhow::Error) -> Report {
    Report::Finished {
        run,
        ending: Ending::NotStarted(format!("{error:#}")),
        leftovers: vec![],
        unkillable: vec![],
    }
}

impl Running {
    /// Starts a program.
    pub fn start(run: u32, program: &Program) -> Result<Self> {
        let logs = LogDir::create(&program.label).context("LOGDIR")?;
        let (mut command, terminal) = match program.terminal {
            None => {
                let mut command = Command::new(program.argv.first().context("no program given")?);
                command.args(&program.argv[1..]).process_group(0);
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                (command, None)
            }
            Some(size) => {
                let (master, slave) = open_terminal(size)?;
                let mut command = Command::new("/bin/busybox");
                command.args(["setsid", "-c"]).args(&program.argv);
                command
                    .stdin(slave.try_clone()?)
                    .stdout(slave.try_clone()?)
                    .stderr(slave);
                (command, Some(master))
            }
        };
        command.env_clear();
        command.env(
            "PATH",
            "/tests:/opt/qemu-10.0/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        );
        command.env("HOME", "/root").env("LOGDIR", logs.path());
        command
            .envs(program.env.iter().cloned())
            .current_dir("/tmp");
        let child = command.spawn().with_context(|| program.argv.join(" "))?;
        let pid = Pid::from_raw(child.id() as i32).context("a process without number")?;
        let outputs = match terminal {
            Some(master) => Outputs::Terminal {
                master: Some(master),
            },
            None => Outputs::Pipes {
                stdout: child.stdout.map(|fd| not_blocking(fd.into())).transpose()?,
                stderr: child.stderr.map(|fd| not_blocking(fd.into())).transpose()?,
            },
        };
        Ok(Self {
            run,
            label: program.label.clone(),
            pid,
            outputs,
            input: Vec::new(),
            logs,
            next_export: Instant::now() + EXPORT_EVERY,
            kill_at: None,
            ending: None,
            leftovers: vec![],
            cleanup_until: None,
        })
    }

    /// The number the host gave it.
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Its name.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What to read from.
    pub fn readable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let (a, b) = match &self.outputs {
            Outputs::Pipes { stdout, stderr } => (stdout, stderr.as_ref()),
            Outputs::Terminal { master } => (master, None),
        };
        a.iter().chain(b).map(|fd| fd.as_fd())
    }

    /// What to write to, if there is something to write.
    pub fn writable(&self) -> Option<BorrowedFd<'_>> {
        match &self.outputs {
            Outputs::Terminal {
                master: Some(master),
            } if !self.input.is_empty() => Some(master.as_fd()),
            _ => None,
        }
    }

    /// When [`Running::step`] must be called though nothing happened.
    pub fn wake_at(&self) -> Option<Instant> {
        [Some(self.next_export), self.kill_at, self.cleanup_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Adds input. Programs without a terminal have none.
    pub fn feed(&mut self, bytes: &[u8]) {
        if matches!(self.outputs, Outputs::Terminal { .. }) {
            self.input.extend_from_slice(bytes);
        }
    }

    /// Sets the size of its terminal.
    pub fn resize(&self, size: WindowSize) -> Result<()> {
        match &self.outputs {
            Outputs::Terminal {
                master: Some(master),
            } => set_size(master, size),
            _ => Ok(()),
        }
    }

    /// Asks the program to end, and makes it after `grace`.
    pub fn stop(&mut self, grace: Duration) {
        // The group may be gone already: then there is nothing to ask.
        let _ = kill_process_group(self.pid, Signal::TERM);
        self.kill_at = Some(Instant::now() + grace);
    }

    /// A process ended.
    pub fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        if pid == self.pid {
            self.ending = Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Ending::Code(code),
                (None, signal) => Ending::Signal(signal.unwrap_or(0)),
            });
        }
    }

    /// Moves whatever can be moved.
    pub fn step(&mut self, link: &mut Link) -> Result<Step> {
        self.write_input();
        self.read_output(link);
        let now = Instant::now();
        if now >= self.next_export {
            self.logs.export(self.run, link)?;
            self.next_export = now + EXPORT_EVERY;
        }
        if self.ending.is_none() {
            if self.kill_at.is_some_and(|at| now >= at) {
                self.kill_at = None;
                kill_all(&others()?);
                self.cleanup_until = Some(now + KILL_PATIENCE);
            }
            // A program that does not even react to SIGKILL is given up on.
            return Ok(if self.cleanup_until.is_some_and(|at| now >= at) {
                Step::Over
            } else {
                Step::Going
            });
        }
        let left = others()?;
        if self.leftovers.is_empty()
            && !left.is_empty()
            && self.kill_at.is_none()
            && self.cleanup_until.is_none()
        {
            self.leftovers = left.iter().map(|process| process.command.clone()).collect();
        }
        if left.is_empty() || self.cleanup_until.is_some_and(|at| now >= at) {
            return Ok(Step::Over);
        }
        kill_all(&left);
        self.cleanup_until.get_or_insert(now + KILL_PATIENCE);
        Ok(Step::Going)
    }

    /// Sends the rest of output and logs, and the report to send after the kernel log.
    pub fn conclude(mut self, link: &mut Link) -> Result<Report> {
        self.read_output(link);
        self.logs.export(self.run, link)?;
        let left = others()?.into_iter();
        let unkillable: Vec<_> = left.map(|process| process.command).collect();
        if !unkillable.is_empty() {
            // Has the kernel log who waits in it, and where.
            std::fs::write("/proc/sysrq-trigger", "w").context("/proc/sysrq-trigger")?;
        }
        self.logs.remove().context("cannot remove LOGDIR")?;
        let ending = self.ending.unwrap_or(Ending::Signal(Signal::KILL.as_raw()));
        Ok(Report::Finished {
            run: self.run,
            ending,
            leftovers: self.leftovers,
            unkillable,
        })
    }

    fn write_input(&mut self) {
        let Outputs::Terminal {
            master: Some(master),
        } = &self.outputs
        else {
            return;
        };
        while !self.input.is_empty() {
            match rustix::io::write(master, &self.input) {
                Ok(n) => drop(self.input.drain(..n)),
                Err(_) => return,
            }
        }
    }

    fn read_output(&mut self, link: &mut Link) {
        let run = self.run;
        match &mut self.outputs {
            Outputs::Pipes { stdout, stderr } => {
                read_all(stdout, |bytes| link.send(&Frame::Stdout { run, bytes }));
                read_all(stderr, |bytes| link.send(&Frame::Stderr { run, bytes }));
            }
            Outputs::Terminal { master } => {
                read_all(master, |bytes| link.send(&Frame::Stdout { run, bytes }))
            }
        }
    }
}

/// Reads what is there and closes at the end. A terminal whose last user is gone ends with EIO.
fn read_all(fd: &mut Option<OwnedFd>, mut each: impl FnMut(Vec<u8>)) {
    let mut bytes = [0; 16 << 10];
    while let Some(open) = fd {
        match rustix::io::read(&*open, &mut bytes) {
            Ok(n) if n > 0 => each(bytes[..n].to_vec()),
            Err(Errno::AGAIN) => return,
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => *fd = None,
        }
    }
}

fn not_blocking(fd: OwnedFd) -> Result<OwnedFd> {
    rustix::fs::fcntl_setfl(&fd, rustix::fs::fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    Ok(fd)
}

fn open_terminal(size: WindowSize) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).context("no terminal to be had")?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    set_size(&master, size)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(
        &*name,
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    Ok((not_blocking(master)?, slave))
}

fn set_size(terminal: &OwnedFd, size: WindowSize) -> Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size).context("cannot set the size of the terminal")
}

struct Process {
    pid: Pid,
    command: String,
}

/// Every user process but this one. Zombies are left out: they wait for [`rustix::process::wait`] only.
fn others() -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that ends meanwhile has no files any more, and kernel threads have no command line.
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        if pid == 1 || command.is_empty() {
            continue;
        }
        let words: Vec<_> = command
            .split(|&b| b == 0)
            .map(String::from_utf8_lossy)
            .collect();
        if let Some(pid) = Pid::from_raw(pid) {
            all.push(Process {
                pid,
                command: words.join(" ").trim_end().to_owned(),
            });
        }
    }
    Ok(all)
}

fn kill_all(processes: &[Process]) {
    for process in processes {
        // It may have ended by itself, which is as good.
        let _ = kill_process(process.pid, Signal::KILL);
    }
}
