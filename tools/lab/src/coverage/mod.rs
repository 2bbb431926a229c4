// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which `unsafe` blocks of some crates ran, on a kernel that records where it was (CONFIG_KCOV). Test programs print what was recorded of
//! their main threads (`guest_tests::coverage`); what only interrupts, work queues or other threads do is not seen.
//!
//! A module calls the recorder at the start of each basic block, whose code reaches to the next such call.

mod blocks;
mod code;

use crate::environment::Environment;
use crate::modules::Module;
use crate::plan;
use crate::session;
use anyhow::{Context, Result};
use blocks::Block;
use code::Code;
use lab_protocol::{COVERAGE, COVERAGE_END};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The line of the configuration of a kernel that records where it was.
const RECORDS: &str = "CONFIG_KCOV=y";

/// Name of the suite that has a failure if there is no answer.
pub const SUITE: &str = "coverage";

/// Where the logs of programs are in a directory of results.
const LOGS: &str = "logs";

/// Name of the file with the answer in the directory of results.
const FILE: &str = "unsafe-blocks.txt";

/// What became of the blocks of the crates.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    executed: usize,
    /// Those that were not seen to run.
    unseen: Vec<String>,
    /// Those that made no code of their own.
    without_code: usize,
    /// Programs that ended before they told what they had run.
    silent: Vec<String>,
}

/// What programs told.
#[derive(Debug, Default)]
struct Told {
    /// By module: offsets in its code.
    seen: BTreeMap<String, BTreeSet<u64>>,
    /// Programs that did not come to it.
    silent: Vec<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            executed,
            unseen,
            without_code,
            silent,
        } = self;
        write!(
            f,
            "{executed} of {} unsafe blocks were seen to run ({without_code} more are no code of their own)",
            executed + unseen.len()
        )?;
        if !silent.is_empty() {
            write!(
                f,
                "; not counted is what {} ran: ended before telling",
                silent.join(", ")
            )?;
        }
        match unseen.as_slice() {
            [] => Ok(()),
            unseen => write!(f, "; not seen: {}", unseen.join(" ")),
        }
    }
}

/// What the programs of a run recorded, and those of earlier runs with these directories of results, looked up in the sources; `None`
/// where the kernel does not record or the sources are not known. The answer is filed with the results as well.
pub fn answer(env: &Environment, modules: &[Module], earlier: &[&Path]) -> Result<Option<Answer>> {
    if env.sources.is_empty() || !env.kernel_is_configured(RECORDS) {
        return Ok(None);
    }
    let mut told = Told::default();
    for results in earlier.iter().copied().chain([env.results.as_path()]) {
        collect(&results.join(LOGS), None, &mut told)?;
    }
    // What nothing is told of is there all the same.
    for name in plan::MODULES {
        told.seen.entry(name.to_owned()).or_default();
    }
    let mut blocks = Vec::new();
    for sources in &env.sources {
        blocks.extend(blocks::of_crate(sources)?);
    }
    let mut code = BTreeMap::new();
    for (name, offsets) in told.seen {
        let module = modules.iter().find(|module| module.name == name);
        let module = module
            .with_context(|| format!("a program names the module {name}, which is not there"))?;
        code.insert(name, Code::read(&module.path, &env.linker, &offsets)?);
    }
    let answer = Answer {
        silent: told.silent,
        ..judge(&blocks, code.values())
    };
    let path = env.results.join(FILE);
    fs::write(&path, format!("{answer}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(answer))
}

/// Reads what programs printed, in every log below a directory. A program is called by where its log is below those of all programs of the
/// machine, which for one that is run in parts has the part in it; `program` is where the directory is, if it is there at all.
fn collect(directory: &Path, program: Option<&Path>, told: &mut Told) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            let below = match program {
                Some(program) => Some(program.join(name)),
                None => (name == session::PROGRAMS).then(PathBuf::new),
            };
            collect(&path, below.as_deref(), told)?;
        } else if let (Some(program), true) = (program, name == "stderr.log") {
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let program = program.display().to_string();
            parse(&program, &String::from_utf8_lossy(&text), told)
                .with_context(|| format!("in {}", path.display()))?;
        }
    }
    Ok(())
}

fn parse(program: &str, text: &str, told: &mut Told) -> Result<()> {
    for line in text.lines().filter_map(|line| line.strip_prefix(COVERAGE)) {
        let (module, offsets) = line.split_once(' ').unwrap_or((line, ""));
        let of_module = told.seen.entry(module.to_owned()).or_default();
        for offset in offsets.split_whitespace() {
            let offset = u64::from_str_radix(offset, 16)
                .with_context(|| format!("{offset:?} is no offset"))?;
            of_module.insert(offset);
        }
    }
    if !text.lines().any(|line| line == COVERAGE_END) {
        told.silent.push(program.to_owned());
    }
    Ok(())
}

fn judge<'a>(blocks: &[Block], code: impl Iterator<Item = &'a Code> + Clone) -> Answer {
    let mut answer = Answer {
        executed: 0,
        unseen: vec![],
        without_code: 0,
        silent: vec![],
    };
    for block in blocks {
        let mut there = false;
        let mut ran = false;
        for place in code.clone().flat_map(|code| &code.places) {
            if block.contains(place) {
                there = true;
                ran |= place.ran;
            }
        }
        match (there, ran) {
            (_, true) => answer.executed += 1,
            (true, false) => answer.unseen.push(block.to_string()),
            (false, false) => answer.without_code += 1,
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use code::Place;

    fn place(line: u32, column: u32, ran: bool) -> Place {
        Place {
            file: "/tree/rust/vfio/a.rs".to_owned(),
            line,
            column,
            ran,
        }
    }

    #[test]
    fn a_block_ran_if_any_of_its_code_did_and_one_without_code_is_not_counted() {
        let text = "fn f() {\n    unsafe { g() };\n    unsafe {\n        h();\n    }\n    unsafe { x }\n}\n";
        let blocks = blocks::of_text("rust/vfio/a.rs", text).unwrap();
        let code = Code {
            places: vec![
                place(2, 14, false),
                place(2, 14, true),
                place(4, 9, false),
                place(1, 1, true),
            ],
        };
        let answer = judge(&blocks, std::iter::once(&code));
        let wanted = Answer {
            executed: 1,
            unseen: vec!["rust/vfio/a.rs:3".to_owned()],
            without_code: 1,
            silent: vec![],
        };
        assert_eq!(answer, wanted);
        let text = answer.to_string();
        assert!(
            text.starts_with("1 of 2 unsafe blocks were seen to run"),
            "{text}"
        );
        assert!(text.ends_with("not seen: rust/vfio/a.rs:3"), "{text}");
    }

    #[test]
    fn what_programs_print_is_put_together_by_module() {
        let mut told = Told::default();
        parse("x", "coverage: a 10 2f\nelse\ncoverage ends\n", &mut told).unwrap();
        parse(
            "y",
            "coverage: a 30\ncoverage: b 1\ncoverage ends\n",
            &mut told,
        )
        .unwrap();
        assert_eq!(told.seen["a"], BTreeSet::from([0x10, 0x2f, 0x30]));
        assert_eq!(told.seen["b"], BTreeSet::from([1]));
        assert!(told.silent.is_empty());
        assert!(parse("z", "coverage: a xyz\n", &mut told).is_err());
    }

    #[test]
    fn a_program_that_was_killed_is_named_and_its_blocks_are_there_all_the_same() {
        let logs = tempfile::tempdir().unwrap();
        for (program, log) in [
            ("killed", "thread 'main'\n"),
            ("in-parts/part-1", "coverage ends\n"),
            ("in-parts/part-2", "coverage: a 10\n"),
            ("well", "coverage ends\n"),
        ] {
            let directory = logs.path().join("machine-1/tests").join(program);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("stderr.log"), log).unwrap();
        }
        let mut told = Told::default();
        collect(logs.path(), None, &mut told).unwrap();
        assert_eq!(told.silent, ["in-parts/part-2", "killed"]);
        let blocks = blocks::of_text("rust/vfio/a.rs", "fn f() { unsafe { g() } }").unwrap();
        let code = Code {
            places: vec![place(1, 19, false)],
        };
        let answer = Answer {
            silent: told.silent,
            ..judge(&blocks, std::iter::once(&code))
        };
        assert_eq!(
            answer.to_string(),
            "0 of 1 unsafe blocks were seen to run (0 more are no code of their own); \
             not counted is what in-parts/part-2, killed ran: ended before telling; not seen: rust/vfio/a.rs:1"
        );
    }
}
