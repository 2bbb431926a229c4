// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reads everything that one QEMU and its guest say.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::Errno;

use super::timeline::{Timeline, What};
use crate::qmp;

/// A log file of lines with the time of the timeline in front. Clones write to the same file.
#[derive(Clone)]
pub struct Log {
    file: Arc<Mutex<File>>,
    timeline: Arc<Timeline>,
}

impl Log {
    /// Creates the file.
    pub fn create(path: &Path, timeline: &Arc<Timeline>) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self {
            file: Arc::new(Mutex::new(file)),
            timeline: Arc::clone(timeline),
        })
    }

    /// Writes a line. A log that cannot be written must not decide a test: errors are dropped.
    pub fn line(&self, mark: &str, text: &str) {
        let text = format!("{:9.3} {mark}{text}\n", self.timeline.now().as_secs_f64());
        let _ = self
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(text.as_bytes());
    }
}

/// What QEMU's monitor writes when it waits for a command.
const PROMPT: &[u8] = b"(qemu) ";

/// What comes out of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// QMP.
    Qmp,
    /// The guest's console.
    Console,
    /// The guest's console and QEMU's monitor.
    Terminal,
    /// QEMU's trace.
    Trace,
    /// QEMU's standard error.
    Stderr,
}

/// A stream that is cut into lines.
pub struct Source {
    kind: Kind,
    stream: OwnedFd,
    log: Log,
    rest: Vec<u8>,
    open: bool,
}

impl Source {
    /// A stream and the log file it goes to.
    pub fn new(kind: Kind, stream: OwnedFd, log: Log) -> Self {
        Self {
            kind,
            stream,
            log,
            rest: Vec::new(),
            open: true,
        }
    }

    /// Reads what is there, and puts whole lines on the timeline; false if there was nothing or the stream is at its end.
    fn read(&mut self, push: &impl Fn(What)) -> bool {
        let mut bytes = [0; 4096];
        match rustix::io::read(&self.stream, &mut bytes) {
            Ok(size) if size > 0 => self.rest.extend_from_slice(&bytes[..size]),
            Err(Errno::AGAIN | Errno::INTR) => return false,
            // The other end is gone: nothing more will come, in whatever words that is said.
            Ok(_) | Err(_) => self.open = false,
        }
        loop {
            let end = self.rest.iter().position(|byte| *byte == b'\n');
            let prompt = (self.kind == Kind::Terminal)
                .then(|| self.rest.windows(PROMPT.len()).position(|at| at == PROMPT))
                .flatten();
            match (prompt, end) {
                // The prompt ends no line, and comes in the middle of the guest's.
                (Some(at), end) if end.is_none_or(|end| at < end) => {
                    let part: Vec<u8> = self.rest.drain(..at + PROMPT.len()).collect();
                    self.line(&part[..at], false, push);
                    push(What::Prompt);
                }
                (_, Some(end)) => {
                    let line: Vec<u8> = self.rest.drain(..=end).collect();
                    self.line(&line, true, push);
                }
                (_, None) => break,
            }
        }
        if !self.open {
            let part = std::mem::take(&mut self.rest);
            self.line(&part, false, push);
        }
        self.open
    }

    /// Puts a line on the timeline, or what came of it when the stream ended (`whole` is false).
    fn line(&self, bytes: &[u8], whole: bool, push: &impl Fn(What)) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_matches(['\r', '\n']);
        if text.is_empty() {
            return;
        }
        self.log
            .line(if self.kind == Kind::Qmp { "<- " } else { "" }, text);
        push(match self.kind {
            Kind::Qmp => What::Qmp(qmp::decode(text)),
            Kind::Trace => What::Trace(text.to_string()),
            Kind::Stderr => What::Stderr(text.to_string()),
            // The end of a guest's line that is cut by migration comes out at the destination: neither part means a thing.
            Kind::Console | Kind::Terminal => match text.parse() {
                Ok(line) if whole => What::Guest(line),
                _ => What::Console(text.to_string()),
            },
        });
    }
}

/// Puts everything that comes from `sources` on the timeline, in the name of `name`, until `child` has ended; `pid` is its
/// process file.
pub fn run(
    name: &str,
    timeline: &Timeline,
    mut child: Child,
    pid: &OwnedFd,
    mut sources: Vec<Source>,
) {
    let push = |what: What| timeline.push(name, what);
    let mut ended = false;
    while !ended {
        let mut files = vec![PollFd::new(pid, PollFlags::IN)];
        let open: Vec<usize> = (0..sources.len())
            .filter(|index| sources[*index].open)
            .collect();
        files.extend(
            open.iter()
                .map(|index| PollFd::new(&sources[*index].stream, PollFlags::IN)),
        );
        match poll(&mut files, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                push(What::Stderr(format!(
                    "(the test program cannot read any more: {error})"
                )));
                break;
            }
        }
        let ready: Vec<bool> = files
            .iter()
            .map(|file| !file.revents().is_empty())
            .collect();
        ended = ready[0];
        for (index, ready) in open.iter().zip(&ready[1..]) {
            if *ready {
                sources[*index].read(&push);
            }
        }
    }
    // QEMU is gone: every stream has an end now, and what is left in it belongs to the story.
    for source in &mut sources {
        while source.open && source.read(&push) {}
    }
    match child.wait() {
        Ok(status) => push(What::Exited(status)),
        Err(error) => push(What::Stderr(format!("(QEMU could not be reaped: {error})"))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::l2::line::Line;

    /// A terminal that was written to and closed: what came of it, without the lines that mean nothing.
    fn told(text: &str) -> Vec<String> {
        let timeline = Arc::new(Timeline::new(None));
        let log = Log::create(Path::new("/dev/null"), &timeline).unwrap();
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        drop(writer);
        let told = RefCell::new(Vec::new());
        let push = |what: What| match what {
            What::Console(_) => {}
            what => told.borrow_mut().push(what.to_string()),
        };
        let mut source = Source::new(Kind::Terminal, reader.into(), log);
        while source.read(&push) {}
        told.into_inner()
    }

    #[test]
    fn the_monitor_may_cut_a_line_of_the_guests_anywhere() {
        let line = Line::Count(vec![41, 40]).to_string();
        let prompt = What::Prompt.to_string();
        let whole = What::Guest(Line::Count(vec![41, 40])).to_string();
        assert_eq!(told(&format!("{line}\n(qemu) ")), [&*whole, &*prompt]);
        for cut in 1..line.len() {
            // A key that turns to the monitor ends the line, too.
            for between in ["(qemu) ", "\n(qemu) ", "\r\n(qemu) quit\r\n"] {
                let text = format!("{}{between}{}\n", &line[..cut], &line[cut..]);
                assert_eq!(told(&text), [&*prompt], "{text:?}");
            }
            assert!(told(&line[..cut]).is_empty());
        }
    }
}
