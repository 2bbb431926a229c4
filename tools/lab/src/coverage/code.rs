// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The code of a module: where each piece of it comes from, and whether it ran.

use addr2line::Loader;
use anyhow::{anyhow, bail, Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What a module calls at the start of a basic block.
const RECORDER: &str = "__sanitizer_cov_trace_pc";

/// The section with the code.
const TEXT: &str = ".text";

/// Bytes of a call, and of them those that are relocated.
const CALL: u64 = 5;
const CALLEE: u64 = 4;

/// Where the linker puts the code.
const BASE: u64 = 0x100_0000;

/// Where a piece of code comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub line: u32,
    pub column: u32,
    /// Whether the piece ran.
    pub ran: bool,
}

/// The code of a module.
#[derive(Debug)]
pub struct Code {
    pub places: Vec<Place>,
}

impl Code {
    /// Reads a module's code, of which the basic blocks whose calls return to `seen` ran.
    pub fn read(module: &Path, linker: &Path, seen: &BTreeSet<u64>) -> Result<Self> {
        let (calls, size) = calls(module)?;
        if let Some(offset) = stranger(&calls, size, seen) {
            bail!(
                "{} has no call of {RECORDER} before offset {offset:#x}: this is not the module that ran",
                module.display()
            );
        }
        // A relocatable file has no addresses, which debugging information is about.
        let linked = tempfile::NamedTempFile::new().context("cannot make a file")?;
        link(module, linker, linked.path())?;
        let loader =
            Loader::new(linked.path()).map_err(|error| anyhow!("{}: {error}", module.display()))?;
        let mut places = Vec::new();
        let lines = loader
            .find_location_range(BASE, BASE + size)
            .map_err(|error| anyhow!("{}: {error}", module.display()))?;
        for (address, ..) in lines {
            // The call itself belongs to its block.
            let before = calls.partition_point(|call| *call - CALL <= address - BASE);
            let ran = before
                .checked_sub(1)
                .is_some_and(|last| seen.contains(&calls[last]));
            let mut frames = loader
                .find_frames(address)
                .map_err(|error| anyhow!("{}: {error}", module.display()))?;
            while let Some(frame) = frames
                .next()
                .map_err(|error| anyhow!("{}: {error}", module.display()))?
            {
                let Some(location) = frame.location else {
                    continue;
                };
                if let (Some(file), Some(line)) = (location.file, location.line) {
                    places.push(Place {
                        file: file.to_owned(),
                        line,
                        column: location.column.unwrap_or_default(),
                        ran,
                    });
                }
            }
        }
        Ok(Self { places })
    }
}

/// What was seen in the code of a module that has none of these calls there. Beyond its code a module has what runs when it is loaded
/// and unloaded, or the next one what it has: none of that is looked for.
fn stranger(calls: &[u64], size: u64, seen: &BTreeSet<u64>) -> Option<u64> {
    let mut within = seen.range(..=size);
    within
        .find(|offset| calls.binary_search(offset).is_err())
        .copied()
}

/// Where the module's calls of the recorder return to, in order, and how much code there is.
fn calls(module: &Path) -> Result<(Vec<u64>, u64)> {
    let data = fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let file = object::File::parse(&*data)
        .with_context(|| format!("{} is no module", module.display()))?;
    let text = file.section_by_name(TEXT);
    let text = text.with_context(|| format!("{} has no code", module.display()))?;
    let mut calls: Vec<u64> = text
        .relocations()
        .filter(|(_, relocation)| match relocation.target() {
            RelocationTarget::Symbol(index) => file
                .symbol_by_index(index)
                .is_ok_and(|symbol| symbol.name() == Ok(RECORDER)),
            _ => false,
        })
        .map(|(offset, _)| offset + CALLEE)
        .collect();
    calls.sort_unstable();
    Ok((calls, text.size()))
}

/// Links a module by itself, so that its debugging information has addresses. What it imports stays unresolved.
fn link(module: &Path, linker: &Path, to: &Path) -> Result<()> {
    let output = Command::new(linker)
        .args([
            "-m",
            "elf_x86_64",
            "--noinhibit-exec",
            "--unresolved-symbols=ignore-all",
            "--entry=0",
        ])
        .arg(format!("-Ttext={BASE:#x}"))
        .arg("-o")
        .arg(to)
        .arg(module)
        .output()
        .with_context(|| format!("cannot run {}", linker.display()))?;
    if !output.status.success() {
        bail!(
            "{} cannot be linked: {}",
            module.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_modules_code_is_told_from_what_runs_once() {
        let calls = [0x20, 0x55];
        let stranger = |seen: &[u64]| stranger(&calls, 0x56, &seen.iter().copied().collect());
        assert_eq!(stranger(&[0x20, 0x55]), None);
        // The sections of loading and unloading follow, at the next boundary or on the next page.
        assert_eq!(stranger(&[0x20, 0x69, 0x102f]), None);
        assert_eq!(stranger(&[0x20, 0x54, 0x69]), Some(0x54));
        // A call can be the last thing there is.
        assert_eq!(stranger(&[0x56]), Some(0x56));
    }
}
