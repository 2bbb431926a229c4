// SPDX-License-Identifier: GPL-2.0 OR MIT

//! First process of the test machine: brings the machine up, then does what the lab on the host asks for over the
//! virtio-serial port [`lab_protocol::PORT_NAME`]. It runs one program at a time, sends what the program writes, its log files
//! while they grow, and the kernel log, and leaves nothing of a program behind.
//!
//! One thread waits in poll(2) for all of it. When this process fails, the kernel panics and the machine ends, which the host
//! reports as a dead machine; the reason is on the console.

mod kmsg;
mod link;
mod logs;
mod program;
mod setup;

use anyhow::{Context, Result};
use guest_tests::processors;
use kmsg::KernelLog;
use lab_protocol::{Command, Frame, Report};
use link::Link;
use program::{Running, Step};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// With more than this many bytes waiting for the host, programs' output is left in its pipes.
const OUTBOX_LIMIT: usize = 4 << 20;

fn main() -> Result<()> {
    processors::leave_the_first()?;
    setup::boot_modules()?;
    setup::file_systems()?;
    let port = setup::control_port()?;
    let (wakeup, signals) = UnixStream::pair().context("socketpair")?;
    wakeup.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, signals)
        .context("SIGCHLD")?;
    let mut link = Link::new(port);
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    link.send(&Frame::Report(Report::Ready { kernel }));
    Init {
        link,
        log: KernelLog::open()?,
        wakeup,
        running: None,
        off: false,
    }
    .serve()
}

struct Init {
    link: Link,
    log: KernelLog,
    wakeup: UnixStream,
    running: Option<Running>,
    off: bool,
}

impl Init {
    fn serve(mut self) -> Result<()> {
        loop {
            self.wait()?;
            self.log.forward(&mut self.link)?;
            self.reap()?;
            self.tend_program()?;
            while let Some(command) = self.link.receive()? {
                self.obey(command)?;
            }
            self.link.flush()?;
            if self.off && self.link.idle() {
                setup::power_off()?;
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self) -> Result<()> {
        let mut port = PollFlags::IN;
        if !self.link.idle() {
            port |= PollFlags::OUT;
        }
        let mut fds: Vec<(BorrowedFd<'_>, PollFlags)> = vec![
            (self.link.as_fd(), port),
            (self.log.as_fd(), PollFlags::IN),
            (self.wakeup.as_fd(), PollFlags::IN),
        ];
        let mut deadline = None;
        if let Some(running) = &self.running {
            deadline = running.wake_at();
            if self.link.queued() < OUTBOX_LIMIT {
                fds.extend(running.readable().map(|fd| (fd, PollFlags::IN)));
            }
            fds.extend(running.writable().map(|fd| (fd, PollFlags::OUT)));
        }
        let mut fds: Vec<PollFd<'_>> = fds
            .into_iter()
            .map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags))
            .collect();
        let timeout = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e).context("poll"),
        }
    }

    /// Collects every process that ended: programs, and orphans that came to the first process.
    fn reap(&mut self) -> Result<()> {
        let mut bytes = [0; 64];
        while matches!(self.wakeup.read(&mut bytes), Ok(n) if n > 0) {}
        loop {
            match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some(running) = &mut self.running {
                        running.reaped(pid, status);
                    }
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("wait"),
            }
        }
    }

    fn tend_program(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        if running.step(&mut self.link)? == Step::Over {
            if let Some(over) = self.running.take() {
                let label = over.label().to_owned();
                let report = over.conclude(&mut self.link)?;
                self.log.mark(&format!("test {label} ends"))?;
                self.log.forward(&mut self.link)?;
                self.link.send(&Frame::Report(report));
            }
        }
        Ok(())
    }

    fn obey(&mut self, frame: Frame) -> Result<()> {
        match frame {
            Frame::Command(Command::Module { run, name, action }) => {
                let label = action.label(&name);
                self.log.mark(&format!("test {label} starts"))?;
                let error = setup::module(&name, &action)
                    .err()
                    .map(|e| format!("{e:#}"));
                self.log.mark(&format!("test {label} ends"))?;
                self.log.forward(&mut self.link)?;
                self.link
                    .send(&Frame::Report(Report::ModuleDone { run, error }));
            }
            Frame::Command(Command::Run { run, program }) => {
                if self.running.is_some() {
                    self.trouble(format!(
                        "asked to run {} while another program runs",
                        program.label
                    ));
                    return Ok(());
                }
                self.log.mark(&format!("test {} starts", program.label))?;
                match Running::start(run, &program) {
                    Ok(running) => self.running = Some(running),
                    Err(e) => {
                        self.log.mark(&format!("test {} ends", program.label))?;
                        self.log.forward(&mut self.link)?;
                        self.link
                            .send(&Frame::Report(program::not_started(run, &e)));
                    }
                }
            }
            Frame::Command(Command::Resize { run, size }) => {
                if let Some(running) = self.of(run) {
                    running.resize(size)?;
                }
            }
            Frame::Command(Command::Stop { run, grace_ms }) => {
                if let Some(running) = self.of(run) {
                    running.stop(Duration::from_millis(grace_ms));
                }
            }
            Frame::Command(Command::Mark { text }) => self.log.mark(&text)?,
            Frame::Command(Command::Finish) => {
                self.log.forward(&mut self.link)?;
                self.link.send(&Frame::Report(Report::Bye));
            }
            Frame::Command(Command::PowerOff) => self.off = true,
            Frame::Stdin { run, bytes } => {
                if let Some(running) = self.of(run) {
                    running.feed(&bytes);
                }
            }
            other => self.trouble(format!("no business of the machine: {other:?}")),
        }
        Ok(())
    }

    /// The running program if it has that number: a command may cross its end on the way.
    fn of(&mut self, run: u32) -> Option<&mut Running> {
        self.running.as_mut().filter(|running| running.run() == run)
    }

    fn trouble(&mut self, text: String) {
        self.link.send(&Frame::Report(Report::Trouble { text }));
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
