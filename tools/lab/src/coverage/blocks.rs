// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The `unsafe` blocks of a crate, by their places in its sources.

use super::code::Place;
use anyhow::{anyhow, Context, Result};
use proc_macro2::{Delimiter, LineColumn, TokenStream, TokenTree};
use std::fmt;
use std::fs;
use std::path::Path;

/// The crate's own tests, which are no part of what it does.
const TESTS: [&str; 2] = ["tests", "tests.rs"];

/// A block, from its opening brace to its closing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The file, by the last parts of its path.
    file: String,
    start: LineColumn,
    end: LineColumn,
}

impl Block {
    /// Whether code comes from within it.
    pub fn contains(&self, place: &Place) -> bool {
        let at = LineColumn {
            line: place.line as usize,
            // Columns count from 1 there and from 0 here.
            column: (place.column as usize).saturating_sub(1),
        };
        place.file.ends_with(&self.file) && self.start <= at && at < self.end
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.start.line)
    }
}

/// All blocks of a crate, whose sources are in this directory, but those of its tests.
pub fn of_crate(directory: &Path) -> Result<Vec<Block>> {
    let parts: Vec<_> = directory
        .iter()
        .map(|part| part.to_string_lossy())
        .collect();
    let name = parts[parts.len().saturating_sub(2)..].join("/");
    let mut blocks = Vec::new();
    of_directory(directory, &name, &mut blocks)?;
    Ok(blocks)
}

fn of_directory(directory: &Path, name: &str, blocks: &mut Vec<Block>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if TESTS.contains(&file.as_str()) {
            continue;
        }
        let name = format!("{name}/{file}");
        if path.is_dir() {
            of_directory(&path, &name, blocks)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            blocks.extend(of_text(&name, &text)?);
        }
    }
    Ok(())
}

/// The blocks of a file, those within macros among them.
pub fn of_text(file: &str, text: &str) -> Result<Vec<Block>> {
    let tokens: TokenStream = text
        .parse()
        .map_err(|error| anyhow!("{file} is no Rust: {error}"))?;
    let mut blocks = Vec::new();
    of_tokens(file, tokens, &mut blocks);
    Ok(blocks)
}

fn of_tokens(file: &str, tokens: TokenStream, blocks: &mut Vec<Block>) {
    let mut is_unsafe = false;
    for token in tokens {
        if let TokenTree::Group(group) = &token {
            if is_unsafe && group.delimiter() == Delimiter::Brace {
                blocks.push(Block {
                    file: file.to_owned(),
                    start: group.span_open().start(),
                    end: group.span_close().end(),
                });
            }
            of_tokens(file, group.stream(), blocks);
        }
        is_unsafe = matches!(&token, TokenTree::Ident(ident) if ident == "unsafe");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_wherever_they_are_and_other_unsafe_things_are_none() {
        let text = "unsafe fn f() { g(unsafe { 1 }) }\nunsafe impl A for B {}\nmac!(x <- unsafe {\n    unsafe { 2 }\n});\n// unsafe { }\n";
        let blocks = of_text("a/b.rs", text).unwrap();
        let places: Vec<_> = blocks
            .iter()
            .map(|block| (block.start.line, block.end.line))
            .collect();
        assert_eq!(places, [(1, 1), (3, 5), (4, 4)]);
        assert_eq!(blocks[0].to_string(), "a/b.rs:1");
    }

    #[test]
    fn the_tests_of_a_crate_are_left_out() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("rust/thing");
        fs::create_dir_all(directory.join("tests")).unwrap();
        fs::create_dir_all(directory.join("more")).unwrap();
        for file in ["lib.rs", "tests.rs", "tests/x.rs", "more/y.rs"] {
            fs::write(directory.join(file), "fn f() { unsafe { g() } }").unwrap();
        }
        let names: Vec<_> = of_crate(&directory)
            .unwrap()
            .iter()
            .map(Block::to_string)
            .collect();
        assert_eq!(names, ["rust/thing/lib.rs:1", "rust/thing/more/y.rs:1"]);
        fs::write(directory.join("lib.rs"), "fn f( {").unwrap();
        assert!(of_crate(&directory).is_err());
    }
}
