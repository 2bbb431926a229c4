// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Telling whoever started the program why a client was refused.
//!
//! A client decides how often that happens, so it is told a bounded number of times a second; and standard error may be a pipe
//! that nobody reads, so it is not waited for.

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::stdio::stderr;

/// Lines that can come at once.
const BURST: u32 = 16;
/// Nanoseconds after which there is room for one line more.
const EVERY_NS: u64 = 1_000_000_000;
/// Most bytes of a line: a pipe that has room at all has room for it.
const MAX_LINE: usize = 1024;

/// How much may be told.
#[derive(Debug)]
pub struct Notices {
    /// What each line begins with.
    label: String,
    left: u32,
    /// From when on time counts for the next line.
    since_ns: u64,
}

impl Notices {
    /// Nothing was told yet.
    pub fn new(label: String, now_ns: u64) -> Self {
        Self {
            label,
            left: BURST,
            since_ns: now_ns,
        }
    }

    /// Whether a line may be told now. It counts as told.
    fn may(&mut self, now_ns: u64) -> bool {
        let more = now_ns.saturating_sub(self.since_ns) / EVERY_NS;
        self.since_ns = self.since_ns.saturating_add(more.saturating_mul(EVERY_NS));
        let more = u32::try_from(more).unwrap_or(BURST);
        self.left = self.left.saturating_add(more).min(BURST);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// Tells it on standard error, if it may be told and somebody listens.
    pub fn tell(&mut self, text: &str, now_ns: u64) {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let stderr = stderr();
        let mut files = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
        let has_room =
            poll(&mut files, Some(&now)) == Ok(1) && files[0].revents().contains(PollFlags::OUT);
        if has_room && self.may(now_ns) {
            let text = format!("{}{text}", self.label);
            let _ = rustix::io::write(stderr, line(&text).as_bytes());
        }
    }
}

/// What the program says, as one line: somebody's text may be in it.
pub fn line(what: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut line: String = "vfio-user-device: ".to_string();
    for c in what.chars().map(shown) {
        if line.len() + c.len_utf8() >= MAX_LINE {
            break;
        }
        line.push(c);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_told_than_a_line_a_second_for_long() {
        let mut notices = Notices::new(String::new(), 5);
        let told = |notices: &mut Notices, now| (0..100).filter(|_| notices.may(now)).count();
        assert_eq!(told(&mut notices, 5), 16);
        assert_eq!(told(&mut notices, 5 + EVERY_NS - 1), 0);
        assert_eq!(told(&mut notices, 5 + EVERY_NS), 1);
        assert_eq!(told(&mut notices, 5 + 4 * EVERY_NS - 1), 2);
        assert_eq!(told(&mut notices, 5 + 4 * EVERY_NS), 1);
        assert_eq!(told(&mut notices, u64::MAX), 16);
        // A clock that steps back gives nothing.
        assert_eq!(told(&mut notices, 0), 0);
    }

    #[test]
    fn a_line_is_one_and_bounded() {
        assert_eq!(line("a\nb\x1b"), "vfio-user-device: a\u{fffd}b\u{fffd}\n");
        let long = line(&"\u{e4}".repeat(5000));
        assert!(long.len() <= MAX_LINE && long.ends_with("\u{e4}\n"));
    }
}
