// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Figures in instructions, from a machine that counts them: a table, a file for programs, a chart, and the gate that keeps them.

pub mod baseline;
mod chart;
pub mod conditions;
pub mod profile;
mod table;

use crate::environment::Environment;
use crate::session::{Run, RunEnd, Session, Stream};
use crate::{plan, runner};
use anyhow::{bail, Context, Result};
use conditions::Conditions;
use lab_protocol::{Ending, Program};
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::Duration;

/// The program that counts.
pub const PROGRAM: &str = "/tests/counted";

/// It and the program that it starts.
pub const PROGRAMS: [&str; 2] = ["counted", plan::DEVICE_PROGRAM];

/// What it needs beside the modules under test: the sample to compare with, room for a thousand cards, and the disk.
pub const LOAD: [&str; 3] = ["mtty", "mdev_serial:max_ports=1024", "mdev_blk"];

/// Our driver, and what it is compared with.
pub const OURS: &str = "mdev_serial";
/// Our driver with a state to move, which nothing is compared with.
pub const DISK: &str = "mdev_blk";
/// The kernel's C sample.
pub const SAMPLE: &str = "mtty";

/// How long everything may take, before it is stretched.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was done.
    pub operation: String,
    /// By whom.
    pub subject: String,
    /// Instructions a call.
    pub instructions: f64,
    /// By how much a second count differed, of the whole.
    pub spread: f64,
    /// With which exponent the cost grows, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exponent: Option<f64>,
}

/// How much of the kernel's memory an instance takes, in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// In which state.
    pub state: String,
    /// Whose instance.
    pub subject: String,
    /// Objects of the slab allocator.
    pub slab: f64,
    /// What `vmalloc` maps.
    pub vmalloc: f64,
    /// All pages that are not free any more.
    pub all: f64,
}

/// How large a module is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Module {
    /// Its name.
    pub module: String,
    /// Of which driver.
    pub subject: String,
    /// Code and data.
    pub bytes: u64,
}

/// A line of what the program prints.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Row(Row),
    Memory(Memory),
    Module(Module),
}

/// Figures and what they were counted with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// With what.
    pub conditions: Conditions,
    /// The figures, in the order of counting.
    pub rows: Vec<Row>,
    /// What instances take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<Memory>,
    /// What the drivers themselves take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<Module>,
}

impl Figures {
    /// A figure.
    pub fn get(&self, operation: &str, subject: &str) -> Option<f64> {
        let found = |row: &&Row| row.operation == operation && row.subject == subject;
        self.rows.iter().find(found).map(|row| row.instructions)
    }

    /// Every operation once, in order.
    pub fn operations(&self) -> impl Iterator<Item = &str> {
        let rows = self.rows.iter().enumerate();
        rows.filter(|(place, row)| {
            let earlier = &self.rows[..*place];
            earlier.iter().all(|other| other.operation != row.operation)
        })
        .map(|(_, row)| row.operation.as_str())
    }

    /// Writes the files and returns the table.
    pub fn publish(&self, env: &Environment) -> Result<String> {
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (name, text) in [("bench.json", json), ("bench.svg", chart::draw(self))] {
            let path = env.results.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(table::text(self))
    }
}

/// Has the machine count these operations, or all. With the figures comes what the program complained of, if it did.
pub fn count(
    env: &Environment,
    session: &mut Session,
    only: &[&str],
) -> Result<(Figures, Option<String>)> {
    let mut argv = vec![PROGRAM.to_owned()];
    argv.extend(only.iter().map(|name| (*name).to_owned()));
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let program = Program {
        label: "counted".to_owned(),
        argv,
        env: vec![],
        terminal: None,
    };
    let run: Run = session.run(program, Some(DEADLINE), &mut |stream, bytes| match stream {
        Stream::Stdout => out.extend_from_slice(bytes),
        Stream::Stderr => errors.extend_from_slice(bytes),
    });
    let said = String::from_utf8_lossy(&errors).trim().to_owned();
    let complaint = match &run.end {
        RunEnd::Ended(Ending::Code(0)) => None,
        RunEnd::Ended(_) => Some(said),
        RunEnd::TimedOut(limit) => bail!("counting did not end within {} s", limit.as_secs()),
        RunEnd::KernelBug => bail!("the kernel reported a bug in itself while it was counted"),
        RunEnd::Lost(why) => bail!("{why}"),
    };
    let conditions = Conditions::of(env, session.kernel())?;
    let figures = parse(conditions, &String::from_utf8_lossy(&out))?;
    Ok((figures, complaint))
}

fn parse(conditions: Conditions, text: &str) -> Result<Figures> {
    let mut figures = Figures {
        conditions,
        rows: vec![],
        memory: vec![],
        modules: vec![],
    };
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str(line).with_context(|| format!("no figure: {line}"))? {
            Line::Row(row) => figures.rows.push(row),
            Line::Memory(memory) => figures.memory.push(memory),
            Line::Module(module) => figures.modules.push(module),
        }
    }
    Ok(figures)
}

/// Where results go, made empty.
pub fn prepare(env: &Environment) -> Result<()> {
    runner::prepare_results(env).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_line_by_line_and_anything_else_is_an_error() {
        let conditions = Conditions::default();
        let figures = parse(
            conditions.clone(),
            "{\"operation\":\"a\",\"subject\":\"mtty\",\"instructions\":5.5,\"spread\":0.0}\n\n\
             {\"operation\":\"b\",\"subject\":\"mtty\",\"instructions\":7,\"spread\":0,\"exponent\":0.1}\n\
             {\"state\":\"open\",\"subject\":\"mtty\",\"slab\":1,\"vmalloc\":2,\"all\":3.5}\n\
             {\"module\":\"mtty\",\"subject\":\"mtty\",\"bytes\":4096}\n",
        )
        .unwrap();
        assert_eq!(figures.rows[0].instructions, 5.5);
        assert_eq!(figures.rows[1].exponent, Some(0.1));
        assert_eq!(figures.memory[0].all, 3.5);
        assert_eq!(figures.modules[0].bytes, 4096);
        assert!(parse(conditions, "a panic\n").is_err());
    }
}
