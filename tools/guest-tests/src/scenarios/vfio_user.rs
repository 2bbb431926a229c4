// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The card is a program, which QEMU reaches by vfio-user: with the commands of Documentation/vfio-user.rst, as they are written
//! there.
//!
//! It is the card that the driver has, too: the same table, so that a check between them means something, and the same model
//! behind it.

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use serde_json::Value;

use super::cards::{Cards, Driver, UNMASK_REFUSED};
use super::disk;
use super::guest::{Guest, View};
use super::scene::Scene;
use super::terminal::Terminal;
use super::version::Version;
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::line::Interrupt;
use crate::mdev::MdevType;
use crate::module::Loaded;

pub mod behind;
pub mod both;
pub mod carried;
pub mod disks;
pub mod native;

/// The text with the commands.
const TEXT: &str = include_str!("../../../../Documentation/vfio-user.rst");
/// The socket that it names.
const SOCKET: &str = "/run/card.sock";
/// What `vfio-migrate` has to say of every program.
const WARNING: &str = "does not migrate vfio-user devices";
/// Records that a guest verifies on each port before and after something happens to it. Each access to a register is a message to a
/// program and one back, which in a machine like this takes as long as many that end in its kernel.
const RECORDS: u32 = 3;
/// Ports of the card.
pub(in crate::scenarios) const PORTS: usize = 2;

/// The block of the text that is marked so, without its indentation.
fn block(name: &str) -> Result<String> {
    block_of(TEXT, name)
}

/// The commands of a block that a shell prompts for.
fn commands(name: &str) -> Result<Vec<String>> {
    commands_of(TEXT, name)
}

fn block_of(text: &str, name: &str) -> Result<String> {
    let mark = format!(".. tested: {name}\n\n::\n\n");
    let (_, rest) = text
        .split_once(&mark)
        .with_context(|| format!("the text has no block marked as {name}"))?;
    let lines = rest.lines().map_while(|line| line.strip_prefix("  "));
    Ok(lines.collect::<Vec<&str>>().join("\n"))
}

fn commands_of(text: &str, name: &str) -> Result<Vec<String>> {
    let text = block_of(text, name)?;
    let commands: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .map(str::to_string)
        .collect();
    ensure!(!commands.is_empty(), "{name} has no commands");
    Ok(commands)
}

/// What the text's commands stand in.
#[derive(Clone)]
pub(in crate::scenarios) struct Shell {
    /// An instance of the driver's: the source of what is loaded by a program, and what is behind a program's socket.
    source: String,
    program: String,
    path: String,
    directory: PathBuf,
}

impl Shell {
    pub(in crate::scenarios) fn new(
        source: String,
        version: Version,
        directory: PathBuf,
    ) -> Result<Self> {
        let here = std::env::current_exe().context("the path of this program")?;
        let here = here.parent().context("its directory")?.to_path_buf();
        let qemu = version.program();
        let qemu = Path::new(&qemu).parent().context("QEMU's directory")?;
        let others = std::env::var("PATH").unwrap_or_default();
        Ok(Self {
            source,
            program: here.join("vfio-user-device").display().to_string(),
            path: format!("{}:{}:{others}", qemu.display(), here.display()),
            directory,
        })
    }

    fn variables(&self) -> [(&str, &str); 4] {
        [
            ("source", self.source.as_str()),
            ("instance", self.source.as_str()),
            ("program", self.program.as_str()),
            ("PATH", self.path.as_str()),
        ]
    }

    fn command(&self, text: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", text])
            .envs(self.variables())
            .current_dir(&self.directory)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command, which has to succeed: standard output and standard error.
    pub(in crate::scenarios) fn run(&self, text: &str) -> Result<(String, String)> {
        let output = self.command(text).output().context("sh")?;
        let [out, err] = [output.stdout, output.stderr].map(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.trim_end().to_string()
        });
        let status = output.status;
        ensure!(status.success(), "{text}: {status}: {out} {err}");
        Ok((out, err))
    }
}

/// The program, serving a device.
struct Device {
    child: Child,
    /// Where.
    socket: PathBuf,
}

impl Device {
    /// Starts it, and waits until it takes clients.
    fn start(shell: &Shell, command: &str, socket: &str) -> Result<Self> {
        ensure!(!Path::new(socket).exists(), "{socket} is there already");
        ensure!(
            command.ends_with(&format!("--socket-path {socket}")),
            "{command} makes another socket"
        );
        // It tells as a service manager wants to be told.
        let name = shell.directory.join("ready");
        let ready = UnixDatagram::bind(&name).context("a socket to be told on")?;
        // In the shell's place: what is to be ended is the program.
        let mut command = shell.command(&format!("exec {command}"));
        command.env("NOTIFY_SOCKET", &name).stderr(Stdio::piped());
        let mut device = Self {
            child: command.spawn().context("sh")?,
            socket: PathBuf::from(socket),
        };
        let ended = pidfd_open(Pid::from_child(&device.child), PidfdFlags::empty())?;
        let mut files = [
            PollFd::new(&ready, PollFlags::IN),
            PollFd::new(&ended, PollFlags::IN),
        ];
        poll(&mut files, None).context("poll")?;
        if files[0].revents().is_empty() {
            let mut said = String::new();
            let stderr = device.child.stderr.as_mut().context("its standard error")?;
            stderr.read_to_string(&mut said)?;
            bail!("the program ended: {said}");
        }
        // The next one is told by a socket of its own.
        std::fs::remove_file(&name).context("the socket to be told on")?;
        ensure!(device.socket.exists(), "it is ready without {socket}");
        Ok(device)
    }

    /// Ends it as a service manager does: without an error, and its socket goes.
    fn terminate(mut self) -> Result<()> {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        pidfd_send_signal(process, Signal::TERM)?;
        let status = self.child.wait().context("the program")?;
        ensure!(status.success(), "the program ended with {status}");
        let socket = self.socket.display();
        ensure!(!self.socket.exists(), "the program left {socket}");
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // The socket goes with a program that ends by itself, and stays where one is killed.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

/// What is offered, without the mark that says when it may have changed.
fn offer(text: &str) -> Result<Value> {
    let mut document: Value = serde_json::from_str(text).context("migration information")?;
    let members = document.as_object_mut();
    let generation = members.and_then(|members| members.remove("generation"));
    ensure!(
        generation.is_some_and(|generation| generation.is_string()),
        "there is no generation: {text}"
    );
    Ok(document)
}

/// The program offers what the driver does, and `vfio-migrate` says how it is started and warns of it.
fn offers(shell: &Shell) -> Result<()> {
    for command in commands("offer")? {
        let (out, err) = shell.run(&command)?;
        diag!("$ {command}\n{out}");
        let warns = command.contains("check") && command.ends_with("$program");
        ensure!(
            err.contains(WARNING) == warns,
            "{command} says on standard error: {err:?}"
        );
    }
    let file = shell.directory.join("offer.json");
    let printed = offer(&std::fs::read_to_string(file).context("offer.json")?)?;
    let printed = printed["models"].as_object().context("no models")?;
    // Both models, and of each what the driver's widest type has.
    let _disks = Loaded::new(disk::PARENT)?;
    let mut models = 0;
    for kind in ["mdev_serial-any", disk::KIND] {
        let text = MdevType::find(kind)?.attribute("migration_info.json")?;
        let of_driver = offer(&text)?;
        let of_driver = of_driver["models"].as_object().context("no models")?;
        for (name, model) in of_driver {
            models += 1;
            ensure!(
                printed.get(name) == Some(model),
                "{name}: the program offers {printed:?}, the driver {text}"
            );
        }
    }
    ensure!(models == printed.len(), "the program offers {printed:?}");
    Ok(())
}

/// A state goes from the driver's card to the program's and back, by `vfio-migrate`: as the same bytes.
fn moves_states(shell: &Shell) -> Result<()> {
    for command in commands("state")? {
        let (out, _) = shell.run(&command)?;
        diag!("$ {command}\n{out}");
    }
    let read = |name| std::fs::read(shell.directory.join(name)).context(name);
    let (saved, again) = (read("state")?, read("again")?);
    ensure!(!saved.is_empty() && saved == again, "the bytes differ");
    Ok(())
}

/// The card is watched while QEMU is the program's client.
fn watches(shell: &Shell) -> Result<()> {
    for command in commands("watch")? {
        let (out, _) = shell.run(&command)?;
        diag!("$ {command}\n{out}");
        let is_idle = out.starts_with("state RUNNING ") && out.contains(" phase none ");
        ensure!(is_idle, "{command}: {out}");
    }
    Ok(())
}

/// A guest drives the program's card as it drives the driver's: records come back whole and in order, by interrupts. Then another
/// guest does, as the program outlives the first one's QEMU.
pub fn drives(version: Version) -> Outcome {
    let scene = Scene::with_qemu(version, "vfio-user")?;
    let cards = Cards::create(Driver::MdevSerial, &[PORTS])?;
    let source = cards.instances()[0].uuid().to_string();
    let shell = Shell::new(source, version, scene.place().sockets.clone())?;
    offers(&shell)?;

    let start = commands("start")?.pop().context("no command")?;
    let device = Device::start(&shell, &start, SOCKET)?;
    moves_states(&shell)?;
    let monitor = block("monitor")?;
    let view = View {
        ports: PORTS,
        cards: 1,
        interrupt: Interrupt::Intx,
        disks: 0,
    };
    for name in ["first", "second"] {
        let machine = Terminal::run(scene.place(), name, &monitor, &shell.variables())?;
        let mut guest = Guest::boot(&machine, 0, &view)?;
        guest.count_on(&machine, RECORDS)?;
        guest.settle(&machine)?;
        guest.count_on(&machine, RECORDS)?;
        let reports = guest.settle(&machine)?;
        diag!("{name}: {reports:?}");
        watches(&shell)?;
        machine.quit(&[UNMASK_REFUSED])?;
    }
    device.terminate()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_commands_and_they_agree_on_the_socket() {
        assert!(commands("offer").unwrap().len() > 1);
        let start = commands("start").unwrap();
        assert_eq!(start.len(), 1);
        assert!(start[0].ends_with(SOCKET));
        let state = commands("state").unwrap();
        let card = format!("vfio-user:{SOCKET}");
        assert!(state.iter().any(|command| command.contains(&card)));
        let watch = commands("watch").unwrap();
        assert!(watch.iter().all(|command| command.ends_with(&card)));
        let monitor = block("monitor").unwrap();
        assert!(monitor.contains(&format!("\"path\":\"{SOCKET}\"")));
        assert!(monitor.starts_with("qemu-system-x86_64 ") && !monitor.ends_with('\\'));
        assert!(block("nothing").is_err());
    }
}
