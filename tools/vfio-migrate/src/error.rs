// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Failures as users see them: one line that says what failed, why, and what to do about it.

use std::fmt;
use std::io;
use std::path::Path;

use serde_json::{json, Value as Json};

use crate::note::{records, Note};

/// What a failure means for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The question was answered with no: not compatible, refused, damaged. Exit status 1.
    Refused,
    /// It could not be answered: wrong usage, unreadable input, no permission. Exit status 2.
    Failed,
}

/// A failure. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What it means.
    pub kind: Kind,
    /// What a program can be told of it, beside the text.
    pub reasons: Vec<Note>,
    what: String,
}

/// What most functions return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The answer is no.
    pub fn refused(what: impl Into<String>) -> Self {
        Self {
            kind: Kind::Refused,
            reasons: Vec::new(),
            what: what.into(),
        }
    }

    /// There is no answer.
    pub fn failed(what: impl Into<String>) -> Self {
        Self {
            kind: Kind::Failed,
            reasons: Vec::new(),
            what: what.into(),
        }
    }

    /// A file could not be used.
    pub fn file(path: &Path, error: &io::Error) -> Self {
        Self::failed(format!("{}: {}", path.display(), describe(error)))
    }

    /// The same, with the reasons for programs.
    pub fn because(mut self, reasons: Vec<Note>) -> Self {
        self.reasons = reasons;
        self
    }

    /// The exit status of a program that ends with it.
    pub fn status(&self) -> u8 {
        match self.kind {
            Kind::Refused => 1,
            Kind::Failed => 2,
        }
    }

    /// The object that tells a program of it.
    pub fn record(&self) -> Json {
        json!({"error": {
            "message": self.what,
            "status": self.status(),
            "reasons": records(&self.reasons),
        }})
    }

    /// The same with more after it.
    pub fn and(mut self, more: &str) -> Self {
        self.what.push_str(more);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

/// An operating system error with its remedy, where there is one.
pub fn describe(error: &io::Error) -> String {
    let name = error.raw_os_error().map(nix::errno::Errno::from_raw);
    let Some(errno) = name else {
        return error.to_string();
    };
    let remedy = match errno {
        nix::errno::Errno::EACCES | nix::errno::Errno::EPERM => {
            ": run this as root, or have the file's owner give you access"
        }
        _ => "",
    };
    format!("{} ({errno:?}){remedy}", errno.desc())
}
