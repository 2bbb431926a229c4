// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Choosing a destination among many.

use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use migration::check::check;
use migration::model::{Allowed, Type};

use crate::error::{Error, Result};
use crate::json::{read_info, Bump, Source, MAX_DOCUMENT};
use crate::prepare::steps;

/// How good a compatible destination is: less is better.
///
/// First comes who needs the fewest changes from what it is when it is new. Among those, who offers the fewest values beside
/// the ones that are needed: what can do more is kept for who needs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Parameters to be set to another value than a new instance has.
    pub changes: usize,
    /// Values that are offered and not needed.
    pub spare: u64,
}

/// What was found about a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can take the source.
    Compatible(Rank),
    /// It cannot, for these reasons.
    Refused(Vec<String>),
    /// It is not known: it could not be read.
    Unreadable(String),
}

/// A candidate and what was found about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What its input calls it.
    pub name: String,
    /// What was found.
    pub verdict: Verdict,
}

/// Judges one candidate by what it offers.
pub fn judge<'a>(source: &'a Source<'a>, types: &'a [Type<'a>]) -> Verdict {
    let mut same_model = types.iter().filter(|ty| ty.model.name == source.model);
    let reasons = |ty| check(source.model, source.params.iter().copied(), ty);
    match same_model.next() {
        // Names of models do not repeat.
        Some(ty) => match reasons(ty).next() {
            None => Verdict::Compatible(rank(source, ty)),
            Some(_) => Verdict::Refused(reasons(ty).map(|reason| reason.to_string()).collect()),
        },
        None => {
            let reasons = types.iter().flat_map(reasons);
            Verdict::Refused(reasons.map(|reason| reason.to_string()).collect())
        }
    }
}

fn rank<'a>(source: &Source<'a>, ty: &Type<'a>) -> Rank {
    let mut rank = Rank {
        changes: 0,
        spare: 0,
    };
    let steps = steps(ty, source);
    for def in ty.model.params {
        let set = steps.iter().rev().find(|step| step.name == def.name);
        if set.is_some_and(|step| step.value != ty.init(def)) {
            rank.changes += 1;
        }
        rank.spare = rank
            .spare
            .saturating_add(count(&ty.allowed(def)).saturating_sub(1));
    }
    rank
}

/// How many values are allowed.
fn count(allowed: &Allowed<'_>) -> u64 {
    match allowed {
        Allowed::Any => u64::MAX,
        Allowed::Bool(values) => values.len() as u64,
        Allowed::Str(values) => values.len() as u64,
        Allowed::Int(ranges) => ranges.iter().fold(0u64, |sum, range| {
            sum.saturating_add(range.max - range.min).saturating_add(1)
        }),
    }
}

/// Judges candidates as they are read, and keeps the verdicts.
pub struct Selection<'s> {
    source: &'s Source<'s>,
    arena: Bump,
    judged: Vec<Judged>,
}

impl<'s> Selection<'s> {
    /// Nobody has been judged yet.
    pub fn new(source: &'s Source<'s>) -> Self {
        Self {
            source,
            arena: Bump::new(),
            judged: Vec::new(),
        }
    }

    /// Judges the candidate in a document. It is called `name` unless the document gives it a name; `line` is added to the
    /// lines in error messages.
    fn document(&mut self, origin: &str, line: usize, name: impl FnOnce() -> String, text: &[u8]) {
        self.arena.reset();
        let judged = match read_info(&self.arena, text) {
            Ok(info) => Judged {
                name: info.name.map_or_else(name, crate::text::one_line),
                verdict: judge(self.source, info.types),
            },
            Err(mut error) => {
                error.line += line;
                Judged {
                    name: name(),
                    verdict: Verdict::Unreadable(format!("{origin}:{error}")),
                }
            }
        };
        self.judged.push(judged);
    }

    /// Judges the candidate in a file, or those in all `.json` files of a directory.
    pub fn path(&mut self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            return self.file(path, crate::input::named(path)?);
        }
        let error = |error: io::Error| Error::file(path, &error);
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(path).map_err(error)? {
            let file = entry.map_err(error)?.path();
            if file
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                files.push(file);
            }
        }
        files.sort();
        files.iter().try_for_each(|file| {
            // Nobody has named these one by one.
            let opened = crate::input::regular(file).map_err(|error| Error::file(file, &error))?;
            self.file(file, opened)
        })
    }

    fn file(&mut self, path: &Path, file: impl Read) -> Result<()> {
        let name = path.display().to_string();
        let text = crate::sysfs::read_bounded(file).map_err(|error| Error::file(path, &error))?;
        self.document(&name, 0, || name.clone(), &text);
        Ok(())
    }

    /// Judges the candidates in JSON lines: one document a line, empty lines aside. A line may give its candidate a `name`.
    pub fn lines(&mut self, origin: &str, mut input: impl BufRead) -> Result<()> {
        let failed = |error: io::Error| Error::file(Path::new(origin), &error);
        let mut line = Vec::new();
        for number in 0.. {
            line.clear();
            // One more than is read shows that there is more.
            let mut bounded = (&mut input).take(MAX_DOCUMENT as u64 + 1);
            if bounded.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                break;
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if line.len() > MAX_DOCUMENT {
                skip_line(&mut input).map_err(failed)?;
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                self.document(origin, number, || format!("line {}", number + 1), &line);
            }
        }
        Ok(())
    }

    /// Everyone, best first; then who was refused or is not known, in the order they came.
    pub fn finish(mut self) -> Vec<Judged> {
        self.judged.sort_by_key(|judged| match judged.verdict {
            Verdict::Compatible(rank) => (0, Some(rank)),
            _ => (1, None),
        });
        self.judged
    }
}

/// Reads past the end of a line.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let used = newline.map_or(buffer.len(), |at| at + 1);
        input.consume(used);
        if newline.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
