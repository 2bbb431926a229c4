// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One running test machine: the QEMU process, and threads that turn what it sends into events.

use crate::clock;
use crate::environment::Environment;
use crate::image::Image;
use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};
use lab_protocol::{Command as Order, Decoder, Frame};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{pidfd_open, Pid, PidfdFlags};
use serde_json::{json, Value};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// File descriptors at which QEMU finds its sockets.
const CONSOLE_FD: i32 = 3;
const CONTROL_FD: i32 = 4;

/// And its root file system, which has no name.
const INITRD_FD: i32 = 5;

/// And the socket of its monitor.
const MONITOR_FD: i32 = 6;

/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Has QEMU write down where its processors are, then interrupts them all in a way that the kernel cannot put off. Replies
/// are not waited for: those that there are end up in a file, and the console tells the rest.
const INTERRUPT: &str = "{\"execute\":\"qmp_capabilities\"}\n\
     {\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"info registers -a\"}}\n\
     {\"execute\":\"inject-nmi\"}\n";

/// The kernel's command line.
///
/// * every message goes to the console and none is lost to a rate limit or a small buffer
/// * a panic ends the machine at once (QEMU runs with -no-reboot)
/// * so does an interrupt that only [`Machine::interrupt`] makes, and every panic shows who waits for what
/// * KUnit suites run when their module is loaded
/// * KVM tells the state of a guest that it cannot enter, and offers guests none of their own, for which their kernels would get ready
const KERNEL_ARGUMENTS: &str =
    "console=ttyS0 ignore_loglevel log_buf_len=8M printk.devkmsg=on panic=-1 \
     unknown_nmi_panic=1 panic_sys_info=blocked_tasks,all_bt kunit.enable=1 kunit.autorun=1 \
     kvm_amd.dump_invalid_vmcb=1 kvm_amd.nested=0";

/// Something a machine did.
#[derive(Debug)]
pub enum Event {
    /// A frame came over the control port.
    Frame(Frame),
    /// The kernel wrote to its console.
    Console(Vec<u8>),
    /// What the machine sends cannot be understood.
    Garbled(String),
    /// The control port is closed: the machine is gone.
    Gone,
    /// Nothing more will come.
    Over,
}

/// A machine. Dropping it ends it.
pub struct Machine {
    child: Child,
    monitor: Monitor,
    sender: Sender,
    events: Receiver<Event>,
}

/// The sending end of a machine, for several threads.
#[derive(Clone)]
pub struct Sender(Arc<Mutex<UnixStream>>);

impl Sender {
    /// Sends a frame, whole.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream
            .write_all(&frame.encode())
            .context("the machine does not listen any more")
    }

    /// Sends a command.
    pub fn order(&self, order: Order) -> Result<()> {
        self.send(&Frame::Command(order))
    }
}

/// QEMU's monitor, for several threads.
#[derive(Clone)]
pub struct Monitor(Arc<Mutex<Conversation>>);

struct Conversation {
    stream: UnixStream,
    /// What came back, but for events.
    replies: Receiver<Value>,
    asked: u64,
}

impl Monitor {
    fn new(stream: UnixStream, replies: Receiver<Value>) -> Self {
        Self(Arc::new(Mutex::new(Conversation {
            stream,
            replies,
            asked: 0,
        })))
    }

    /// Sends text, for whose replies nobody waits.
    fn write(&self, text: &str) -> Result<()> {
        let mut conversation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        conversation
            .stream
            .write_all(text.as_bytes())
            .context("QEMU does not listen any more")
    }

    /// Has QEMU carry out a command of its monitor for people, and returns what that printed.
    pub fn command(&self, line: &str) -> Result<String> {
        let mut conversation = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Said once too often it is an error that means nothing.
        conversation.ask("qmp_capabilities", json!({}))?;
        let reply = conversation.ask("human-monitor-command", json!({"command-line": line}))?;
        let printed = reply["return"].as_str();
        Ok(printed
            .with_context(|| format!("QEMU refused {line:?}: {reply}"))?
            .to_owned())
    }
}

impl Conversation {
    fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.asked += 1;
        let id = self.asked;
        let question = json!({"execute": command, "arguments": arguments, "id": id});
        writeln!(self.stream, "{question}").context("QEMU does not listen any more")?;
        loop {
            let reply = self.replies.recv_timeout(ANSWER);
            let reply = reply.with_context(|| format!("QEMU does not answer to {command}"))?;
            if reply["id"] == id {
                return Ok(reply);
            }
        }
    }
}

impl Machine {
    /// Starts QEMU. What QEMU itself says goes to `qemu.log` in `logs`, what its monitor says to `monitor.log`.
    pub fn start(env: &Environment, image: &Image, logs: &Path) -> Result<Self> {
        fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let log = File::create(logs.join("qemu.log")).context("cannot make qemu.log")?;
        let monitor_log =
            File::create(logs.join("monitor.log")).context("cannot make monitor.log")?;
        let (console, their_console) = UnixStream::pair()?;
        let (control, their_control) = UnixStream::pair()?;
        let (monitor, their_monitor) = UnixStream::pair()?;
        // QEMU shall not survive a lab that was killed: setpriv arranges for that.
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            &env.emulator,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command.args(["-name", "lab", "-machine", "q35"]);
        match (env.accel.as_str(), env.icount_shift()) {
            ("kvm", _) => command.args(["-accel", "kvm", "-cpu", "host"]),
            // The machine's time passes by instructions; while the processor has nothing to do, it jumps to when it will have.
            (_, Some(shift)) => command
                .args(["-accel", "tcg,thread=single", "-cpu", env.processor()])
                .args(["-icount", &format!("shift={shift},sleep=off")]),
            _ => command.args(["-accel", "tcg,thread=multi", "-cpu", env.processor()]),
        };
        command.args([
            "-smp",
            &env.processors().to_string(),
            "-m",
            &env.memory.to_string(),
        ]);
        command
            .arg("-kernel")
            .arg(env.kernel_image()?)
            .arg("-initrd")
            .arg(format!("/proc/self/fd/{INITRD_FD}"));
        let rate = match env.icount_shift() {
            Some(_) => Some(clock::COUNTING_KHZ),
            None => clock::tsc_khz(),
        };
        let clock = rate.map_or(String::new(), |khz| {
            format!(" tsc_early_khz={khz} tsc=reliable")
        });
        command.args(["-append", &format!("{KERNEL_ARGUMENTS}{clock}")]);
        command.args([
            "-chardev",
            &format!("socket,id=console,fd={CONSOLE_FD}"),
            "-serial",
            "chardev:console",
        ]);
        command.args([
            "-device",
            "virtio-serial-pci",
            "-chardev",
            &format!("socket,id=control,fd={CONTROL_FD}"),
        ]);
        command.args([
            "-device",
            &format!(
                "virtserialport,chardev=control,name={}",
                lab_protocol::PORT_NAME
            ),
        ]);
        command.args([
            "-chardev",
            &format!("socket,id=monitor,fd={MONITOR_FD}"),
            "-qmp",
            "chardev:monitor",
        ]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command.fd_mappings(vec![
            FdMapping {
                parent_fd: their_console.into(),
                child_fd: CONSOLE_FD,
            },
            FdMapping {
                parent_fd: their_control.into(),
                child_fd: CONTROL_FD,
            },
            FdMapping {
                parent_fd: their_monitor.into(),
                child_fd: MONITOR_FD,
            },
            FdMapping {
                parent_fd: image.open()?,
                child_fd: INITRD_FD,
            },
        ])?;
        let child = command.spawn().with_context(|| {
            format!(
                "cannot start setpriv and {}: install util-linux and qemu-system-x86",
                env.emulator
            )
        })?;
        // The command holds QEMU's ends of the sockets: they must go, or the machine's end would not be noticed.
        drop(command);

        let (sender, events) = mpsc::channel();
        let from_control = control.try_clone()?;
        let from_monitor = monitor.try_clone()?;
        let of_control = sender.clone();
        thread::spawn(move || read_control(from_control, &of_control));
        thread::spawn(move || read_console(console, &sender));
        let (of_monitor, replies) = mpsc::channel();
        thread::spawn(move || read_monitor(from_monitor, monitor_log, &of_monitor));
        Ok(Self {
            child,
            monitor: Monitor::new(monitor, replies),
            sender: Sender(Arc::new(Mutex::new(control))),
            events,
        })
    }

    /// Where to send to.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Whom to ask about QEMU.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// The next event, or `None` at the deadline.
    pub fn event(&mut self, deadline: Instant) -> Option<Event> {
        match self
            .events
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Over),
        }
    }

    /// Makes the kernel panic wherever it hangs, so that the console shows where that is.
    pub fn interrupt(&mut self) -> Result<()> {
        self.monitor.write(INTERRUPT)
    }

    /// Waits for QEMU to end by itself until the deadline, then ends it.
    pub fn end(&mut self, deadline: Instant) -> Result<ExitStatus> {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // Once the process is waited for, its number may be another's: then there is nothing to open here.
            if let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = Timespec {
                    tv_sec: left.as_secs() as i64,
                    tv_nsec: i64::from(left.subsec_nanos()),
                };
                // Interrupted or not: what is still alive is ended below.
                let _ = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout));
            }
        }
        self.kill()
    }

    /// Ends QEMU if it still runs, and tells how it ended.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.child.wait().context("cannot wait for QEMU")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // There is nobody to tell: a process that cannot be waited for is none of ours.
        let _ = self.kill();
    }
}

fn read_control(mut stream: UnixStream, events: &mpsc::Sender<Event>) {
    let mut decoder = Decoder::default();
    let mut bytes = vec![0; 64 << 10];
    loop {
        loop {
            let event = match decoder.next_frame() {
                Ok(Some(frame)) => Event::Frame(frame),
                Ok(None) => break,
                Err(e) => {
                    let _ = events.send(Event::Garbled(e.to_string()));
                    return;
                }
            };
            if events.send(event).is_err() {
                return;
            }
        }
        match stream.read(&mut bytes) {
            Ok(n) if n > 0 => decoder.feed(&bytes[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => {
                let _ = events.send(Event::Gone);
                return;
            }
        }
    }
}

/// Files what the monitor says, and what it has been asked to print as people read it. Replies are passed on to who may want them.
fn read_monitor(stream: UnixStream, mut log: File, replies: &mpsc::Sender<Value>) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let reply: Option<Value> = serde_json::from_str(&line).ok();
        let printed = reply.as_ref().and_then(|reply| reply["return"].as_str());
        if writeln!(log, "{}", printed.unwrap_or(&line)).is_err() {
            return;
        }
        if let Some(reply) = reply {
            // Nobody may be there to hear it.
            let _ = replies.send(reply);
        }
    }
}

fn read_console(mut stream: UnixStream, events: &mpsc::Sender<Event>) {
    let mut bytes = vec![0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(n) if n > 0 => {
                if events.send(Event::Console(bytes[..n].to_vec())).is_err() {
                    return;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_monitor_prints_is_filed_as_people_read_it() {
        let (mut qemu, ours) = UnixStream::pair().unwrap();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("monitor.log");
        qemu.write_all(b"{\"QMP\": {}}\n{\"return\": \"CPU#0\\nRIP=1\\n\"}\n{\"return\": {}}\n")
            .unwrap();
        drop(qemu);
        let (sender, replies) = mpsc::channel();
        read_monitor(ours, File::create(&path).unwrap(), &sender);
        assert_eq!(replies.try_iter().count(), 3);
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            "{\"QMP\": {}}\nCPU#0\nRIP=1\n\n{\"return\": {}}\n"
        );
    }
}
