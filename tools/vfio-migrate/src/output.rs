// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What goes to standard output and standard error.
//!
//! All of it goes through here, so that two things hold everywhere: outside text reaches no terminal with its control characters,
//! and what happens to the output changes no answer. A failure to write is kept for the end; what comes after it is dropped.

use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write};

use vfio_migrate::error::{describe, Error};
use vfio_migrate::text::{json_visible, visible};

/// Standard output.
pub struct Output<'o> {
    out: BufWriter<StdoutLock<'o>>,
    failure: Option<io::Error>,
    /// Whether a saved state goes there, which nothing else must be mixed with.
    carries_state: bool,
    /// Whether a program has its answer.
    has_answered: bool,
}

impl Output<'_> {
    /// Standard output, which nobody else writes to from now on.
    pub fn new() -> Self {
        Self {
            out: BufWriter::new(io::stdout().lock()),
            failure: None,
            carries_state: false,
            has_answered: false,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.failure.is_none() {
            self.failure = self.out.write_all(bytes).err();
        }
    }

    /// Prints a line.
    pub fn line(&mut self, text: impl Display) {
        self.put(visible(&text.to_string()).as_bytes());
        self.put(b"\n");
    }

    /// Prints text of several lines, each ended by a newline. The newlines are ours; where outside text may have some, use
    /// [`Output::line`].
    pub fn lines(&mut self, text: impl Display) {
        text.to_string().lines().for_each(|line| self.line(line));
    }

    /// Prints a JSON document of one or several lines.
    pub fn json(&mut self, document: impl Display) {
        let text = document.to_string();
        self.put(json_visible(&text).as_bytes());
        if !text.ends_with('\n') {
            self.put(b"\n");
        }
    }

    /// Replaces the line that the terminal's cursor is on.
    pub fn replace_line(&mut self, text: impl Display) {
        let text = text.to_string();
        // To its start; what is left of the line before is cleared.
        self.put(format!("\r{}\x1b[K", visible(&text)).as_bytes());
    }

    /// Prints text that is all our own.
    pub fn own(&mut self, text: &[u8]) {
        self.put(text);
    }

    /// Where a saved state is written to. A state that did not arrive was not saved, so its failures are the caller's.
    pub fn state(&mut self) -> &mut dyn Write {
        self.carries_state = true;
        &mut self.out
    }

    /// Prints the one document that is a command's whole answer.
    pub fn answer(&mut self, document: &serde_json::Value) {
        self.has_answered = true;
        self.json(format_args!("{document:#}"));
    }

    /// Tells a program of a failure, unless an answer does: by an object on a line of its own.
    pub fn failure(&mut self, error: &Error) {
        if !self.carries_state && !self.has_answered {
            self.json(error.record());
        }
    }

    /// Lets be seen what was printed.
    pub fn flush(&mut self) {
        if self.failure.is_none() {
            self.failure = self.out.flush().err();
        }
    }

    /// Whether anything printed may still be seen.
    pub fn is_open(&self) -> bool {
        self.failure.is_none()
    }

    /// Ends the output. Returns what went wrong, unless it is that nobody reads on.
    pub fn finish(mut self) -> Option<String> {
        self.flush();
        self.failure.and_then(lost)
    }
}

/// What to tell about output that could not be written. That nobody reads on is nothing to tell.
pub fn lost(error: io::Error) -> Option<String> {
    let tell = error.kind() != io::ErrorKind::BrokenPipe;
    tell.then(|| format!("standard output: {}", describe(&error)))
}

/// Tells people a line on standard error. There is nobody to tell that it could not be written.
pub fn tell(text: impl Display) {
    let line = format!("{}\n", visible(&text.to_string()));
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// Tells of a failure.
pub fn complain(what: impl Display) {
    tell(format_args!("vfio-migrate: {what}"));
}
