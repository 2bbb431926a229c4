// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Device programs as destinations: they say themselves what they offer.
//!
//! A program that emulates a device for vfio-user prints its migration information with `--print-migration-info-json`. It is
//! somebody else's: it may take its time, print without end, or nothing at all.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{pidfd_open, Pid, PidfdFlags};

use crate::error::{describe, Error, Result};
use crate::input;
use crate::json::MAX_DOCUMENT;

/// The option that makes it say so.
const OPTION: &str = "--print-migration-info-json";

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of its own words that are kept.
const MAX_WORDS: usize = 4096;

/// What a user of such a device should know before he migrates a guest with it.
pub const WARNING: &str = "warning: QEMU up to 11.1 does not migrate vfio-user devices: a plain `migrate` succeeds, and the device \
     starts blank at the destination";

/// Whether a word names a program: an executable file, by its permissions and by what it begins with. Documents are none, even
/// where all files can be executed.
pub fn is_program(word: &str) -> bool {
    let path = Path::new(word);
    let is_executable = path
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    is_executable && begins_as_program(path).unwrap_or(false)
}

fn begins_as_program(path: &Path) -> io::Result<bool> {
    let mut first = Vec::new();
    input::regular(path)?.take(4).read_to_end(&mut first)?;
    Ok(first.starts_with(b"#!") || first == *b"\x7fELF")
}

/// How the program is started: without a slash, it would be looked for elsewhere.
pub fn path(word: &str) -> String {
    match word.contains('/') {
        true => word.to_string(),
        false => format!("./{word}"),
    }
}

/// What the program prints about itself.
pub fn information(word: &str) -> Result<Vec<u8>> {
    information_within(word, LIMIT)
}

fn information_within(word: &str, limit: Duration) -> Result<Vec<u8>> {
    let failed = |what: &str| Error::failed(format!("{word} {OPTION}: {what}"));
    let child = Command::new(path(word))
        .arg(OPTION)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&describe(&error)))?;
    let mut running = Running(child);
    let heard = running
        .listen(Instant::now() + limit)
        .map_err(|error| failed(&describe(&error)))?;
    let Heard::All { out, err } = heard else {
        return Err(failed(&match heard {
            Heard::TooMuch => format!("it prints more than {MAX_DOCUMENT} bytes"),
            _ => format!("it has not ended after {} s", limit.as_secs()),
        }));
    };
    let status = running
        .0
        .wait()
        .map_err(|error| failed(&describe(&error)))?;
    if !status.success() {
        let words = String::from_utf8_lossy(&err);
        let words = words.lines().next().unwrap_or("it says nothing of why");
        return Err(failed(&format!("{status}: {words}")));
    }
    Ok(out)
}

/// A program that does not outlive whoever asks.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

enum Heard {
    /// What it printed until it ended.
    All {
        out: Vec<u8>,
        err: Vec<u8>,
    },
    TooMuch,
    TooLate,
}

impl Running {
    /// Reads what it prints until it has ended and said all.
    fn listen(&mut self, end: Instant) -> io::Result<Heard> {
        let pid = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let file = |fd: Option<_>| fd.map(File::from);
        let mut streams = [
            file(self.0.stdout.take().map(std::os::fd::OwnedFd::from)),
            file(self.0.stderr.take().map(std::os::fd::OwnedFd::from)),
        ];
        let mut texts = [Vec::new(), Vec::new()];
        let mut has_ended = false;
        loop {
            let open: Vec<usize> = (0..2).filter(|at| streams[*at].is_some()).collect();
            if has_ended && open.is_empty() {
                let [out, err] = texts;
                return Ok(Heard::All { out, err });
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::TooLate);
            }
            let mut files: Vec<PollFd<'_>> = Vec::new();
            for file in streams.iter().flatten() {
                files.push(PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN));
            }
            if !has_ended {
                files.push(PollFd::new(&pid, PollFlags::IN));
            }
            let timeout = Timespec {
                tv_sec: left.as_secs() as _,
                tv_nsec: left.subsec_nanos() as _,
            };
            match poll(&mut files, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = files
                .iter()
                .map(|file| !file.revents().is_empty())
                .collect();
            has_ended |= ready.get(open.len()).copied().unwrap_or(false);
            for (at, is_ready) in open.into_iter().zip(ready) {
                if !is_ready {
                    continue;
                }
                let mut piece = [0; 4096];
                let len = match &mut streams[at] {
                    Some(stream) => stream.read(&mut piece)?,
                    None => 0,
                };
                if len == 0 {
                    streams[at] = None;
                }
                texts[at].extend_from_slice(&piece[..len]);
            }
            if texts[0].len() > MAX_DOCUMENT {
                return Ok(Heard::TooMuch);
            }
            texts[1].truncate(MAX_WORDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A script.
    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (directory, path)
    }

    fn asked(text: &str, limit: Duration) -> std::result::Result<String, String> {
        let (_directory, path) = script(text);
        let printed = information_within(&path.to_string_lossy(), limit);
        printed
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_program_prints_is_taken_and_what_it_fails_with_is_told() {
        let found = asked(
            r#"[ "$*" = --print-migration-info-json ] && printf '{}'"#,
            LIMIT,
        );
        assert_eq!(found.as_deref(), Ok("{}"));
        for (text, why) in [
            (
                "echo 'no device' >&2; echo 'nor that' >&2; exit 1",
                "exit status: 1: no device",
            ),
            ("exit 3", "exit status: 3: it says nothing of why"),
            ("kill -KILL $$", "signal: 9"),
        ] {
            let error = asked(text, LIMIT).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_program_that_does_not_come_to_an_end_is_ended() {
        let short = Duration::from_millis(200);
        for text in [
            "exec sleep 1000",
            "exec >&- 2>&-; exec sleep 1000",
            "sleep 5 & exit 0",
        ] {
            let error = asked(text, short).unwrap_err();
            assert!(error.contains("has not ended"), "{text}: {error}");
        }
        let error = asked(
            "while :; do echo 0123456789012345678901234567890123456789; done",
            LIMIT,
        );
        assert!(error.unwrap_err().contains("it prints more than"));
    }

    #[test]
    fn documents_are_no_programs_whatever_their_permissions() {
        let (directory, path) = script("exit 0");
        assert!(is_program(&path.to_string_lossy()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!is_program(&path.to_string_lossy()));
        fs::write(&path, "{}").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!is_program(&path.to_string_lossy()));
        assert!(!is_program(&directory.path().to_string_lossy()));
        assert!(!is_program("/nowhere"));
    }
}
