// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where the instructions of an operation go. The emulator writes down each instruction that the machine executes between two marks,
//! one call of the operation, and who called whom follows from them: an exact profile of C, Rust and assembly alike, to which nothing was
//! added by measuring.

mod instruction;
mod symbols;
mod trace;
mod tree;

use super::{Figures, OURS, PROGRAM};
use crate::machine::{Monitor, Sender};
use crate::report::{Case, Outcome};
use crate::session::{RunEnd, Session};
use anyhow::{bail, ensure, Context, Result};
use lab_protocol::{Ending, Frame, Program, WindowSize};
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;
use symbols::Symbols;
use trace::Marks;
use tree::Tree;

/// Short names of operations.
const NAMES: [(&str, &str); 10] = [
    ("read", "register read, 1 byte"),
    ("write", "register write, 1 byte"),
    ("config", "configuration read, 4 bytes"),
    ("interrupt", "a character and its interrupt"),
    ("unmask", "SET_IRQS, unmask"),
    ("open", "open and close"),
    ("create", "create and remove"),
    ("stop", "RUNNING, STOP, RUNNING"),
    ("precopy", "RUNNING, PRE_COPY, RUNNING"),
    ("save", "save and load by v2"),
];

/// How long one call may take, with everything written down.
const DEADLINE: Duration = Duration::from_secs(120);

/// What QEMU is told before the call, and after it. It shows an instruction when it makes a translation block of it, so the log comes
/// before the first such block.
const RECORD: [&str; 2] = ["log in_asm,exec,nochain", "one-insn-per-tb on"];
const STOP_RECORDING: [&str; 2] = ["log none", "one-insn-per-tb off"];

/// The operation that a short name stands for; any other name is taken as it is.
pub fn operation(name: &str) -> &str {
    let found = NAMES.iter().find(|(short, _)| *short == name);
    found.map_or(name, |(_, operation)| operation)
}

/// What there is to choose from.
pub fn names() -> String {
    NAMES.map(|(short, _)| short).join(", ")
}

/// One call, written down.
pub struct Recording {
    operation: String,
    of: String,
    log: PathBuf,
    symbols: Symbols,
    marks: Marks,
}

impl Recording {
    /// Has the machine carry out an operation of a driver once.
    pub fn take(session: &mut Session, directory: &Path, name: &str, of: &str) -> Result<Self> {
        let symbols = Symbols::read(&output(session, &["cat", "/proc/kallsyms"])?)?;
        let log = directory.join("instructions.log");
        let operation = operation(name);
        let marks = record(session, &log, operation, of)?;
        Ok(Self {
            operation: operation.to_owned(),
            of: of.to_owned(),
            log,
            symbols,
            marks,
        })
    }

    /// What was executed. The machine must have ended: QEMU keeps the end of what it writes down for itself until then.
    fn tree(&self) -> Result<Tree> {
        let log = &self.log;
        let file = File::open(log).with_context(|| format!("cannot read {}", log.display()))?;
        let tree = trace::read(BufReader::new(file), self.marks, &self.symbols)
            .with_context(|| format!("{} makes no profile", log.display()))?;
        // A million lines and more, of which everything is said.
        fs::remove_file(log).with_context(|| format!("cannot remove {}", log.display()))?;
        Ok(tree)
    }

    /// The same for people.
    pub fn read(self) -> Result<String> {
        let tree = self.tree()?;
        Ok(format!(
            "{}, {}: one call, {} instructions\n\n{}",
            self.operation,
            self.of,
            tree.total(),
            tree.text()
        ))
    }
}

/// The operation that is counted and recorded to compare the two: it neither waits nor wakes anybody.
pub const PROVED: &str = "register read, 1 byte";

/// By how much the two may differ: the call that is recorded comes after a pause, and not in a row of them.
const DIFFERENCE: f64 = 0.03;

/// Whether as many instructions were recorded as were counted.
pub fn judge(figures: &Figures, recording: Result<Recording>) -> Case {
    let recorded = recording.and_then(|recording| recording.tree());
    let outcome = match (recorded, figures.get(PROVED, OURS)) {
        (Ok(tree), Some(counted)) => compare(tree.total() as f64, counted),
        (Err(error), _) => Outcome::Failed(format!("{error:#}")),
        (_, None) => Outcome::Failed(format!("{PROVED} was not counted")),
    };
    Case::new(
        "a profile has as many instructions as were counted",
        outcome,
    )
}

fn compare(recorded: f64, counted: f64) -> Outcome {
    if (recorded - counted).abs() <= counted * DIFFERENCE {
        return Outcome::Passed;
    }
    Outcome::Failed(format!(
        "{PROVED}: {recorded:.0} instructions were recorded, and {counted:.0} counted"
    ))
}

/// Runs the program that makes the call, and gives it the word when QEMU writes everything down.
fn record(session: &mut Session, log: &Path, operation: &str, of: &str) -> Result<Marks> {
    let (monitor, sender, number) = (session.monitor(), session.sender(), session.next_run());
    monitor.command(&format!("logfile {}", log.display()))?;
    let argv = [PROGRAM, "--profile", operation, of].map(str::to_owned);
    let program = Program {
        label: "profile".to_owned(),
        argv: argv.to_vec(),
        env: vec![],
        // It reads what it is told.
        terminal: Some(WindowSize {
            rows: 24,
            columns: 80,
        }),
    };
    let (mut said, mut marks, mut failure) = (String::new(), None, None);
    let run = session.run(program, Some(DEADLINE), &mut |_, bytes| {
        said.push_str(&String::from_utf8_lossy(bytes));
        while let Some((line, rest)) = said.split_once('\n') {
            let (line, rest) = (line.trim().to_owned(), rest.to_owned());
            let step = follow(&line, &mut marks, &monitor, &sender, number);
            if let Err(error) = step {
                failure.get_or_insert(error);
            }
            said = rest;
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    match run.end {
        RunEnd::Ended(Ending::Code(0)) => marks.context("nothing was called"),
        RunEnd::Ended(_) => bail!("{}", said.trim()),
        other => bail!("the call did not end well: {other:?}"),
    }
}

/// Does what a line of the program asks for.
fn follow(
    line: &str,
    marks: &mut Option<Marks>,
    monitor: &Monitor,
    sender: &Sender,
    run: u32,
) -> Result<()> {
    let commands = if let Ok(found) = serde_json::from_str::<Marks>(line) {
        *marks = Some(found);
        RECORD
    } else if line.contains("\"done\"") {
        STOP_RECORDING
    } else {
        ensure!(line.is_empty(), "{line}");
        return Ok(());
    };
    for command in commands {
        let printed = monitor.command(command)?;
        ensure!(printed.trim().is_empty(), "QEMU: {}", printed.trim());
    }
    sender.send(&Frame::Stdin {
        run,
        bytes: b"\n".to_vec(),
    })
}

/// What a program prints.
fn output(session: &mut Session, argv: &[&str]) -> Result<String> {
    let mut out = Vec::new();
    let program = Program {
        label: "symbols".to_owned(),
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        env: vec![],
        terminal: None,
    };
    let run = session.run(program, Some(DEADLINE), &mut |_, bytes| {
        out.extend_from_slice(bytes);
    });
    ensure!(
        run.end == RunEnd::Ended(Ending::Code(0)),
        "{} in the machine: {:?}",
        argv.join(" "),
        run.end
    );
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_other_size_than_the_figure_fails() {
        for (recorded, passes) in [
            (1000.0, true),
            (1029.0, true),
            (1040.0, false),
            (900.0, false),
        ] {
            let outcome = compare(recorded, 1000.0);
            assert_eq!(matches!(outcome, Outcome::Passed), passes, "{recorded}");
        }
    }

    #[test]
    fn short_names_stand_for_rows_of_the_table_and_others_for_themselves() {
        assert_eq!(operation("read"), PROVED);
        assert_eq!(operation("GET_REGION_INFO"), "GET_REGION_INFO");
        for (short, _) in NAMES {
            assert!(names().contains(short));
        }
    }
}
