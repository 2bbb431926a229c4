// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What each command prints. Every function returns whether the answer is yes.

use vfio_migrate::sysfs::Sysfs;

use crate::output::Output;

pub mod callout;
pub mod choose;
pub mod command_line;
pub mod help;
pub mod man;
pub mod select;
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

    /// Prints a JSON document on several lines, which is all that a program is told.
    pub fn document(&mut self, document: &serde_json::Value) {
        self.out.answer(document);
    }
}

/// `1 parameter`, `2 parameters`.
pub fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}
