// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What each command prints. Every function returns whether the answer is yes.

use std::io::{self, BufWriter, StdoutLock, Write};

use migration::value::Value;
use serde_json::json;
use vfio_migrate::error::{describe, Error, Result};
use vfio_migrate::sysfs::Sysfs;

pub mod choose;
pub mod help;
pub mod show;
pub mod state;
pub mod watch;

/// The message that stands for a reader of our output that went away.
pub const CLOSED: &str = "standard output was closed";

/// What all commands need.
pub struct Context<'o> {
    /// Where sysfs is.
    pub sysfs: Sysfs,
    /// Whether to print JSON.
    pub json: bool,
    /// Standard output.
    pub out: BufWriter<StdoutLock<'o>>,
}

impl Context<'_> {
    /// Prints text.
    pub fn print(&mut self, text: impl std::fmt::Display) -> Result<()> {
        write!(self.out, "{text}").map_err(output)
    }

    /// Prints a line.
    pub fn line(&mut self, text: impl std::fmt::Display) -> Result<()> {
        writeln!(self.out, "{text}").map_err(output)
    }

    /// Prints a JSON document on several lines.
    pub fn document(&mut self, document: &serde_json::Value) -> Result<()> {
        self.line(format_args!("{document:#}"))
    }
}

/// Standard output could not be written.
pub fn output(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::failed(CLOSED),
        _ => Error::failed(format!("standard output: {}", describe(&error))),
    }
}

/// A value as JSON has it.
pub fn json_value(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Str(text) => json!(text),
    }
}

/// `1 parameter`, `2 parameters`.
pub fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}
