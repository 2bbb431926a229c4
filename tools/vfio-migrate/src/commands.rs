// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What each command prints. Every function returns whether the answer is yes.

use migration::value::Value;
use serde_json::json;
use vfio_migrate::sysfs::Sysfs;

use crate::output::Output;

pub mod choose;
pub mod help;
pub mod show;
pub mod state;
pub mod watch;

/// What all commands need.
pub struct Context<'o> {
    /// Where sysfs is.
    pub sysfs: Sysfs,
    /// Whether to print JSON.
    pub json: bool,
    /// Standard output.
    pub out: Output<'o>,
}

impl Context<'_> {
    /// Prints a line.
    pub fn line(&mut self, text: impl std::fmt::Display) {
        self.out.line(text);
    }

    /// Prints a JSON document on several lines.
    pub fn document(&mut self, document: &serde_json::Value) {
        self.out.json(format_args!("{document:#}"));
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
