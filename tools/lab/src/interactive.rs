// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A prompt in the machine: the person's terminal is connected to one in the machine.

use crate::machine::Sender;
use crate::session::{Run, RunEnd, Session};
use anyhow::{bail, Context, Result};
use lab_protocol::{Command, Ending, Frame, Program, WindowSize};
use rustix::termios::{tcgetattr, tcgetwinsize, tcsetattr, OptionalActions, Termios};
use signal_hook::consts::{SIGHUP, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;
use std::io::{IsTerminal, Read, Write};
use std::thread;

/// What is worth trying, printed before the prompt.
const MESSAGE: &str = "\
This is the test machine. The modules are loaded; `exit` or Ctrl-D ends it, Ctrl-] ends it at once.

  ls /sys/class/mdev_bus/*/mdev_supported_types              which cards can be had
  cd /sys/class/mdev_bus/*/mdev_supported_types/*serial-1    one of them
  cat description available_instances
  U=$(cat /proc/sys/kernel/random/uuid); echo $U > create    make one
  ls -l /sys/bus/mdev/devices/$U/ /dev/vfio/                 look at it
  cat /sys/bus/mdev/devices/$U/migration/*                   and at its state
  echo 1 > /sys/bus/mdev/devices/$U/remove                   and remove it
  ls /tests /opt/qemu-*/bin; dmesg | tail                    more to look at
";

/// Byte of Ctrl-].
const ESCAPE: u8 = 0x1d;

/// Byte that ends input on a terminal.
const END_OF_INPUT: u8 = 4;

/// A terminal without line editing and echo of its own, until dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).context("standard input is no terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Flush, &raw).context("cannot prepare the terminal")?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // There is nothing to be done about a terminal that went away.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Gives the person a shell in the machine; the result is the shell's exit status.
pub fn shell(session: &mut Session) -> Result<i32> {
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        eprint!("\n{MESSAGE}\n");
    }
    let number = session.next_run();
    let env = vec![
        (
            "TERM".to_owned(),
            std::env::var("TERM").unwrap_or_else(|_| "vt100".to_owned()),
        ),
        ("PS1".to_owned(), "lab:\\w# ".to_owned()),
    ];
    let program = Program {
        label: "shell".to_owned(),
        argv: vec!["/bin/sh".to_owned()],
        env,
        terminal: Some(window_size()),
    };
    let raw = terminal.then(RawTerminal::enter).transpose()?;
    if let Some(raw) = &raw {
        follow_signals(session.sender(), number, raw.before.clone())?;
    }
    forward_input(
        session.sender(),
        number,
        raw.as_ref().map(|raw| raw.before.clone()),
    );
    let mut out = std::io::stdout();
    let run = session.run(program, None, &mut |_, bytes| {
        // Nobody is left to read: the end of input ends the shell.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    });
    drop(raw);
    status(&run)
}

fn status(run: &Run) -> Result<i32> {
    match &run.end {
        RunEnd::Ended(Ending::Code(code)) => Ok(*code),
        RunEnd::Ended(Ending::Signal(_)) => Ok(1),
        RunEnd::Ended(Ending::NotStarted(why)) => bail!("the shell did not start: {why}"),
        RunEnd::TimedOut(_) | RunEnd::KernelBug => {
            bail!("the kernel reported a bug in itself: see kernel.log")
        }
        RunEnd::Lost(why) => bail!("{why}: see console.log"),
    }
}

fn window_size() -> WindowSize {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 => WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
        },
        _ => WindowSize {
            rows: 24,
            columns: 80,
        },
    }
}

/// Tells the machine when the window changes, and leaves the terminal in order when the lab is asked to end.
fn follow_signals(sender: Sender, run: u32, before: Termios) -> Result<()> {
    let mut signals = Signals::new([SIGWINCH, SIGTERM, SIGHUP]).context("cannot follow signals")?;
    thread::spawn(move || {
        for signal in &mut signals {
            if signal == SIGWINCH {
                // A machine that is gone needs no size.
                let _ = sender.order(Command::Resize {
                    run,
                    size: window_size(),
                });
            } else {
                leave(&before);
            }
        }
    });
    Ok(())
}

/// Ends the lab, and with it the machine.
fn leave(before: &Termios) -> ! {
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Drain, before);
    std::process::exit(1);
}

/// Sends what is typed. `before` is how to leave the terminal when Ctrl-] is typed on one.
fn forward_input(sender: Sender, run: u32, before: Option<Termios>) {
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        let mut stdin = std::io::stdin();
        while let Ok(n) = stdin.read(&mut bytes) {
            let input = match n {
                // Once for a line that was begun, once for the shell.
                0 => vec![END_OF_INPUT, END_OF_INPUT],
                n => bytes[..n].to_vec(),
            };
            if let Some(before) = before.as_ref().filter(|_| input.contains(&ESCAPE)) {
                leave(before);
            }
            if sender.send(&Frame::Stdin { run, bytes: input }).is_err() || n == 0 {
                return;
            }
        }
    });
}
