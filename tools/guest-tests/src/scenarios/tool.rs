// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `vfio-migrate`, run as a person or a management program runs it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::mdev::Mdev;

/// What a run of the program gave.
#[derive(Clone, Debug)]
pub struct Said {
    /// Exit status; -1 after a signal.
    pub status: i32,
    /// Standard output, without the last newline.
    pub out: String,
    /// Standard error, without the last newline.
    pub err: String,
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Result<Said> {
    let mut path: PathBuf = std::env::current_exe().context("the path of this program")?;
    path.set_file_name("vfio-migrate");
    let output = Command::new(&path).args(arguments).output();
    let output = output.with_context(|| format!("{} cannot be started", path.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_string();
    Ok(Said {
        status: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    })
}

impl Said {
    /// Fails unless the exit status is this one.
    pub fn expect(self, status: i32) -> Result<Self> {
        ensure!(
            self.status == status,
            "exit status {} instead of {status}: {:?} {:?}",
            self.status,
            self.out,
            self.err
        );
        Ok(self)
    }

    /// Fails unless one line of standard output ends like this.
    pub fn says(self, words: &str) -> Result<Self> {
        ensure!(
            self.out.lines().any(|line| line.ends_with(words)),
            "{words:?} is not in {:?}",
            self.out
        );
        Ok(self)
    }
}

/// `vfio-migrate check` between instances.
pub fn check(source: &Mdev, destination: &Mdev) -> Result<Said> {
    run(&["check", &name(source), &name(destination)])
}

/// `vfio-migrate prepare` between instances.
pub fn prepare(source: &Mdev, destination: &Mdev) -> Result<Said> {
    run(&["prepare", &name(source), &name(destination)])
}

/// An instance as an argument.
fn name(instance: &Mdev) -> String {
    instance.uuid().to_string()
}
