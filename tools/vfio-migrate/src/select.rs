// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Choosing a destination among many.

use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use migration::check::{check, Reason};
use migration::model::{Allowed, Type};
use migration::value::{Param, MAX_STR_LEN};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::input::{is_there, named, regular};
use crate::json::{read_candidate, read_head, Bump, NamedType, Offer, ReadError, Source};
use crate::note::Note;
use crate::prepare::{changes, steps};
use crate::program::{information, is_program};
use crate::sysfs::{read_bounded, Sysfs};

use cache::Found;
use documents::{Document, Documents};

mod cache;
mod documents;

pub use cache::{Cache, Copy, Why};

/// How good a compatible destination is: less is better.
///
/// First comes who needs the fewest changes from what it is when it is new. Among those, who offers the fewest values beside
/// the ones that are needed: what can do more is kept for who needs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Parameters to be set to another value than a new instance has.
    pub changes: usize,
    /// Values that are offered and not needed.
    pub spare: u128,
}

/// What was found about a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can take the source.
    Compatible {
        /// How good it is.
        rank: Rank,
        /// The parameters to be set to another value than it has; `None` if it does not tell what it has.
        changes: Option<Vec<Note>>,
    },
    /// It cannot, for these reasons.
    Refused(Vec<Note>),
    /// It is not known: it could not be read.
    Unreadable(String),
}

/// A candidate and what was found about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What its input calls it, with the characters that it has there.
    pub name: String,
    /// The type, where one input offers several by name.
    pub mdev_type: Option<String>,
    /// What was found.
    pub verdict: Verdict,
    /// What became of its copy in the cache.
    pub copy: Copy,
}

/// Judges one candidate by what it offers.
pub fn judge<'a>(source: &Source<'a>, types: &'a [Type<'a>]) -> Verdict {
    let mut same_model = types.iter().filter(|ty| ty.model.name == source.model);
    match same_model.next() {
        // Names of models do not repeat.
        Some(ty) => {
            let reasons = notes(reasons(source, ty));
            match reasons.is_empty() {
                true => accepted(source, ty, &new_values(ty)),
                false => Verdict::Refused(reasons),
            }
        }
        None => Verdict::Refused(notes(types.iter().flat_map(|ty| reasons(source, ty)))),
    }
}

fn reasons<'a>(source: &Source<'a>, ty: &'a Type<'a>) -> impl Iterator<Item = Reason<'a>> {
    check(source.model, source.params.iter().copied(), ty)
}

fn notes<'a>(reasons: impl Iterator<Item = Reason<'a>>) -> Vec<Note> {
    reasons.map(|reason| Note::reason(&reason)).collect()
}

/// The values a new instance has.
fn new_values<'a>(ty: &Type<'a>) -> Vec<Param<'a>> {
    let value = |def| ty.init(def);
    let params = ty.model.params.iter();
    params
        .map(|def| Param {
            name: def.name,
            value: value(def),
        })
        .collect()
}

/// The verdict about a type that can take the source, and an instance of it that has these values.
fn accepted<'a>(source: &Source<'a>, ty: &Type<'a>, values: &[Param<'a>]) -> Verdict {
    let changes = Note::changes(&changes(values, &steps(ty, source)));
    Verdict::Compatible {
        rank: Rank {
            changes: changes.len(),
            spare: spare(ty),
        },
        changes: Some(changes),
    }
}

/// Judges a type that tells neither initial nor off values.
fn judge_named(source: &Source<'_>, named: &NamedType<'_>) -> Verdict {
    let refused: Vec<Note> = reasons(source, &named.ty)
        .map(|reason| match reason {
            Reason::Missing { name, allowed } => Note::off_not_told(name, &allowed),
            reason => Note::reason(&reason),
        })
        .collect();
    if !refused.is_empty() {
        return Verdict::Refused(refused);
    }
    let params = named.ty.model.params.iter();
    let rank = Rank {
        // Each of them may have to be set.
        changes: params.filter(|def| !def.allowed.is_single()).count(),
        spare: spare(&named.ty),
    };
    Verdict::Compatible {
        rank,
        changes: None,
    }
}

/// How many values are offered and not needed.
///
/// The sum has more bits than its parts: a parameter that takes about anything is not to hide what the others differ in.
fn spare(ty: &Type<'_>) -> u128 {
    let params = ty.model.params.iter();
    params
        .map(|def| u128::from(count(&ty.allowed(def)).saturating_sub(1)))
        .sum()
}

/// How many characters of ASCII print, space among them.
const PRINTABLE: u64 = 95;

/// How many values are allowed, or the most that a number tells.
fn count(allowed: &Allowed<'_>) -> u64 {
    match allowed {
        Allowed::Any => u64::MAX,
        Allowed::Bool(values) => values.len() as u64,
        Allowed::Str(values) => values.len() as u64,
        // All texts of no character, of one, of two … The number is at its end long before the longest text.
        Allowed::Ascii { max } => (0..MAX_STR_LEN.min(*max)).fold(1u64, |shorter, _| {
            shorter.saturating_mul(PRINTABLE).saturating_add(1)
        }),
        Allowed::Int(ranges) => ranges.iter().fold(0u64, |sum, range| {
            sum.saturating_add(range.max - range.min).saturating_add(1)
        }),
    }
}

/// Judges candidates as they are read, and keeps the verdicts.
pub struct Selection<'s> {
    source: &'s Source<'s>,
    cache: Option<Cache>,
    arena: Bump,
    judged: Vec<Judged>,
}

/// Where a document comes from.
struct Place<'p> {
    /// What error messages call it.
    origin: &'p str,
    /// Added to the lines in them.
    line: usize,
}

impl Place<'_> {
    fn error(&self, mut error: ReadError) -> String {
        error.line += self.line;
        format!("{}:{error}", self.origin)
    }
}

/// What is judged of a candidate.
#[derive(Default)]
struct Recalled {
    /// Its name, if it tells that.
    name: Option<String>,
    /// The copy, if that is used.
    text: Option<Vec<u8>>,
    copy: Copy,
}

impl<'s> Selection<'s> {
    /// Nobody has been judged yet.
    pub fn new(source: &'s Source<'s>) -> Self {
        Self {
            source,
            cache: None,
            arena: Bump::new(),
            judged: Vec::new(),
        }
    }

    /// Candidates are judged by the copies that the cache has of them, and copies that it lacks are put there.
    pub fn with_cache(mut self, cache: Option<Cache>) -> Self {
        self.cache = cache;
        self
    }

    /// Judges what the word names: an instance, a device program, a file, the `.json` files of a directory, or a type.
    pub fn word(&mut self, sysfs: &Sysfs, word: &str) {
        if let Ok(uuid) = Uuid::try_parse(word) {
            return self.instance(sysfs, uuid);
        }
        let path = Path::new(word);
        match is_there(path) {
            Ok(false) => self.mdev_type(sysfs, word),
            Ok(true) if path.is_dir() => self.directory(path),
            Ok(true) if is_program(word) => self.program(word),
            Ok(true) => self.file(path, named(path)),
            Err(error) => self.unreadable(word, error.to_string()),
        }
    }

    /// Judges the candidates in a stream of documents: JSON lines, or documents of several lines. A document may give its
    /// candidate a `name`.
    pub fn stream(&mut self, origin: &str, input: impl BufRead) -> Result<()> {
        let mut documents = Documents::new(input);
        let next = |documents: &mut Documents<_>| {
            let next = documents.next();
            next.map_err(|error| Error::file(Path::new(origin), &error))
        };
        while let Some(Document { line, text }) = next(&mut documents)? {
            let name = format!("line {}", line + 1);
            self.document(&Place { origin, line }, &name, &text);
        }
        Ok(())
    }

    /// Everyone, best first; then who was refused or is not known, in the order they came.
    pub fn finish(mut self) -> Vec<Judged> {
        self.judged.sort_by_key(|judged| match judged.verdict {
            Verdict::Compatible { rank, .. } => (0, Some(rank)),
            _ => (1, None),
        });
        self.judged
    }

    fn add(&mut self, name: &str, copy: Copy, verdict: Verdict) {
        self.judged.push(Judged {
            name: name.to_string(),
            mdev_type: None,
            verdict,
            copy,
        });
    }

    fn unreadable(&mut self, name: &str, why: String) {
        self.add(name, Copy::None, Verdict::Unreadable(why));
    }

    /// An instance is judged by what it is now. There is no copy of that.
    fn instance(&mut self, sysfs: &Sysfs, uuid: Uuid) {
        let arena = Bump::new();
        let verdict = sysfs.instance(uuid).and_then(|instance| {
            let ty = instance.offer(&arena)?;
            let reasons = notes(reasons(self.source, ty));
            Ok(match reasons.is_empty() {
                true => accepted(self.source, ty, &instance.values(&arena, ty)?),
                false => Verdict::Refused(reasons),
            })
        });
        let verdict = verdict.unwrap_or_else(|error| Verdict::Unreadable(error.to_string()));
        self.add(&uuid.to_string(), Copy::None, verdict);
    }

    fn program(&mut self, word: &str) {
        match information(word) {
            Ok(text) => {
                let place = Place {
                    origin: word,
                    line: 0,
                };
                self.document(&place, word, &text);
            }
            Err(error) => self.unreadable(word, error.to_string()),
        }
    }

    fn mdev_type(&mut self, sysfs: &Sysfs, word: &str) {
        let text = sysfs
            .find_type(word)
            .and_then(|ty| Ok((ty.info_text()?, ty)));
        match text {
            Ok((text, ty)) => {
                let (name, path) = (ty.full_name(), ty.info_path());
                let origin = &path.to_string_lossy();
                self.document(&Place { origin, line: 0 }, &name, &text);
            }
            Err(error) => self.unreadable(word, error.to_string()),
        }
    }

    fn directory(&mut self, path: &Path) {
        match json_files(path) {
            // Nobody has named these one by one.
            Ok(files) => files.iter().for_each(|file| {
                let opened = regular(file).map_err(|error| Error::file(file, &error));
                self.file(file, opened);
            }),
            Err(error) => {
                let why = Error::file(path, &error).to_string();
                self.unreadable(&path.to_string_lossy(), why);
            }
        }
    }

    fn file(&mut self, path: &Path, file: Result<impl Read>) {
        let origin = &path.to_string_lossy();
        let text =
            file.and_then(|file| read_bounded(file).map_err(|error| Error::file(path, &error)));
        match text {
            Ok(text) => self.document(&Place { origin, line: 0 }, origin, &text),
            Err(error) => self.unreadable(origin, error.to_string()),
        }
    }

    /// Judges the candidate in a document. It is called `name` unless the document gives it a name.
    fn document(&mut self, place: &Place<'_>, name: &str, text: &[u8]) {
        let mut arena = std::mem::take(&mut self.arena);
        arena.reset();
        let recalled = match &self.cache {
            None => Ok(Recalled::default()),
            Some(cache) => recall(cache, &arena, place, name, text),
        };
        match recalled {
            Ok(recalled) => self.judge_document(&arena, place, name, text, recalled),
            Err(why) => self.unreadable(name, why),
        }
        self.arena = arena;
    }

    fn judge_document(
        &mut self,
        arena: &Bump,
        place: &Place<'_>,
        name: &str,
        text: &[u8],
        recalled: Recalled,
    ) {
        let Recalled {
            name: told,
            text: kept,
            mut copy,
        } = recalled;
        let candidate = match read_candidate(arena, kept.as_deref().unwrap_or(text)) {
            Ok(candidate) => candidate,
            Err(error) => return self.unreadable(name, place.error(error)),
        };
        let name = told.as_deref().or(candidate.name).unwrap_or(name);
        if let (Copy::Refreshed(_), Some(cache)) = (&copy, &self.cache) {
            if let Err(error) = cache.keep(name, text) {
                copy = Copy::NotWritten(error.to_string());
            }
        }
        match candidate.offer {
            Offer::Models(types) => self.add(name, copy, judge(self.source, types)),
            Offer::Types([]) => self.add(name, copy, Verdict::Refused(vec![Note::no_type()])),
            Offer::Types(types) => self.judged.extend(types.iter().map(|named| Judged {
                name: name.to_string(),
                mdev_type: Some(named.mdev_type.to_string()),
                verdict: judge_named(self.source, named),
                copy: copy.clone(),
            })),
        }
    }
}

/// What the cache has of a candidate. The document needs to be a whole one only if that is nothing.
fn recall(
    cache: &Cache,
    arena: &Bump,
    place: &Place<'_>,
    name: &str,
    text: &[u8],
) -> std::result::Result<Recalled, String> {
    let head = read_head(arena, text).map_err(|error| place.error(error))?;
    let mut recalled = Recalled {
        name: head.name.map(str::to_string),
        text: None,
        copy: Copy::NotKept,
    };
    let Some(generation) = head.generation else {
        return Ok(recalled);
    };
    match cache.find(head.name.unwrap_or(name), generation) {
        Found::Good(text) => {
            recalled.copy = Copy::Used;
            recalled.text = Some(text);
        }
        Found::Stale(why) if head.is_whole => recalled.copy = Copy::Refreshed(why),
        Found::Stale(_) => {
            return Err(format!(
                "{}: the cache has no copy of generation {generation:?}: give the whole document",
                place.origin
            ))
        }
    }
    Ok(recalled)
}

/// The `.json` files of a directory.
fn json_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let file = entry?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
