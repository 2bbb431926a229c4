// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which `unsafe` blocks of a crate ran, on a kernel that records where it was (CONFIG_KCOV). Test programs print what was recorded of
//! their main threads (`guest_tests::coverage`); what only interrupts, work queues or other threads do is not seen.
//!
//! A module calls the recorder at the start of each basic block, whose code reaches to the next such call.

mod blocks;
mod code;

use crate::environment::Environment;
use crate::modules::Module;
use anyhow::{Context, Result};
use blocks::Block;
use code::Code;
use lab_protocol::COVERAGE;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

/// The line of the configuration of a kernel that records where it was.
const RECORDS: &str = "CONFIG_KCOV=y";

/// Name of the suite that has a failure if there is no answer.
pub const SUITE: &str = "coverage";

/// Name of the file with the answer in the directory of results.
const FILE: &str = "unsafe-blocks.txt";

/// What became of the blocks of a crate.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    executed: usize,
    /// Those that were not seen to run.
    unseen: Vec<String>,
    /// Those that made no code of their own.
    without_code: usize,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            executed,
            unseen,
            without_code,
        } = self;
        write!(
            f,
            "{executed} of {} unsafe blocks were seen to run ({without_code} more are no code of their own)",
            executed + unseen.len()
        )?;
        match unseen.as_slice() {
            [] => Ok(()),
            unseen => write!(f, "; not seen: {}", unseen.join(" ")),
        }
    }
}

/// What the programs of a run recorded, looked up in the sources; `None` where the kernel does not record or the sources are not known.
/// The answer is filed with the results as well.
pub fn answer(env: &Environment, modules: &[Module]) -> Result<Option<Answer>> {
    let (Some(sources), true) = (&env.sources, env.kernel_is_configured(RECORDS)) else {
        return Ok(None);
    };
    let mut seen = BTreeMap::new();
    collect(&env.results.join("logs"), &mut seen)?;
    let blocks = blocks::of_crate(sources)?;
    let mut code = BTreeMap::new();
    for (name, offsets) in seen {
        let module = modules.iter().find(|module| module.name == name);
        let module = module
            .with_context(|| format!("a program names the module {name}, which is not there"))?;
        code.insert(name, Code::read(&module.path, &env.linker, &offsets)?);
    }
    let answer = judge(&blocks, code.values());
    let path = env.results.join(FILE);
    fs::write(&path, format!("{answer}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(answer))
}

/// Reads what programs printed, in every log below a directory.
fn collect(directory: &Path, seen: &mut BTreeMap<String, BTreeSet<u64>>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, seen)?;
        } else if path.ends_with("stderr.log") {
            let text =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            parse(&String::from_utf8_lossy(&text), seen)
                .with_context(|| format!("in {}", path.display()))?;
        }
    }
    Ok(())
}

fn parse(text: &str, seen: &mut BTreeMap<String, BTreeSet<u64>>) -> Result<()> {
    for line in text.lines().filter_map(|line| line.strip_prefix(COVERAGE)) {
        let (module, offsets) = line.split_once(' ').unwrap_or((line, ""));
        let of_module = seen.entry(module.to_owned()).or_default();
        for offset in offsets.split_whitespace() {
            let offset = u64::from_str_radix(offset, 16)
                .with_context(|| format!("{offset:?} is no offset"))?;
            of_module.insert(offset);
        }
    }
    Ok(())
}

fn judge<'a>(blocks: &[Block], code: impl Iterator<Item = &'a Code> + Clone) -> Answer {
    let mut answer = Answer {
        executed: 0,
        unseen: vec![],
        without_code: 0,
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
        let mut seen = BTreeMap::new();
        parse("coverage: a 10 2f\nelse\n", &mut seen).unwrap();
        parse("coverage: a 30\ncoverage: b 1\n", &mut seen).unwrap();
        assert_eq!(seen["a"], BTreeSet::from([0x10, 0x2f, 0x30]));
        assert_eq!(seen["b"], BTreeSet::from([1]));
        assert!(parse("coverage: a xyz\n", &mut seen).is_err());
    }
}
