// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reading migration information and parameter lists, which come from other hosts and are not trusted.
//!
//! The reader is strict about what it understands: every member has its type, no object has a member twice, numbers are whole
//! and fit 64 bits, text is UTF-8, a document has an end. Members it does not know are skipped, so that a later version of the
//! format can be read. Documents are bounded ([`MAX_DOCUMENT`]), and so is all that is made of one.
//!
//! What is read are the tables of [`migration::model`] themselves, in an arena: the check that a driver makes is the one that
//! the tool makes.
//!
//! ```
//! use vfio_migrate::json::{read_info, Bump};
//!
//! let arena = Bump::new();
//! let info = read_info(
//!     &arena,
//!     br#"{"models": {"example.org/pci/card": {"params": {"ports": {"type": "int", "init_value": 1}}}}}"#,
//! )
//! .unwrap();
//! assert_eq!(info.types[0].model.params[0].name, "ports");
//!
//! let error = read_info(&arena, br#"{"models": {"example.org/pci/card": {"params": 1}}}"#).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "1:48: models.example.org/pci/card.params: invalid type: integer `1`, expected an object"
//! );
//! ```

use std::cell::RefCell;
use std::fmt;

pub use bumpalo::Bump;
use migration::model::Type;
use migration::value::Param;
use serde::de::DeserializeSeed;

mod allowed;
mod compatible;
mod head;
mod model;
mod order;
mod root;
mod strict;
mod versions;

/// Longest document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 1 << 20;

/// Most members of an object.
pub const MAX_ENTRIES: usize = 1024;

/// Migration information: what a type or a program offers.
#[derive(Clone, Copy, Debug)]
pub struct Info<'a> {
    /// What a list of candidates calls it (member `name`, which only such a list needs).
    pub name: Option<&'a str>,
    /// Differs between any two documents whose rest may differ.
    pub generation: Option<&'a str>,
    /// What is offered of each model.
    pub types: &'a [Type<'a>],
}

/// What a document says of itself, without what it offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// What a list of candidates calls it.
    pub name: Option<&'a str>,
    /// Differs between any two documents whose rest may differ.
    pub generation: Option<&'a str>,
    /// Whether it says more than that.
    pub is_whole: bool,
}

/// A candidate: migration information, or the types that can take the state of an instance there.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What a list of candidates calls it.
    pub name: Option<&'a str>,
    /// Differs between any two documents whose rest may differ.
    pub generation: Option<&'a str>,
    /// What it offers.
    pub offer: Offer<'a>,
}

/// What a candidate offers.
#[derive(Clone, Copy, Debug)]
pub enum Offer<'a> {
    /// What is offered of each model.
    Models(&'a [Type<'a>]),
    /// Types by name, in the form of the July 2020 proposal.
    Types(&'a [NamedType<'a>]),
}

/// A type as the July 2020 form tells it. Its initial and off values are not known: those in `ty` stand for any that would do.
#[derive(Clone, Copy, Debug)]
pub struct NamedType<'a> {
    /// The type's name.
    pub mdev_type: &'a str,
    /// What it allows.
    pub ty: Type<'a>,
}

/// A source: its model and its parameters in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// The device model.
    pub model: &'a str,
    /// The parameters in effect.
    pub params: &'a [Param<'a>],
}

/// Why a document is not read, and where. Prints as one line, `line:column: member: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1 in bytes; 0 before the first.
    pub column: usize,
    /// The names of the members that lead there.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)
    }
}

impl std::error::Error for ReadError {}

/// Reads migration information. What it returns lives as long as `arena` and `text`.
pub fn read_info<'a>(arena: &'a Bump, text: &'a [u8]) -> Result<Info<'a>, ReadError> {
    read(arena, text, root::InfoObject::default)
}

/// Reads what migration information says of itself. What it returns lives as long as `arena` and `text`.
pub fn read_head<'a>(arena: &'a Bump, text: &'a [u8]) -> Result<Head<'a>, ReadError> {
    read(arena, text, head::HeadObject::default)
}

/// Reads a candidate: migration information, or an object with `self` and `compatible`. What it returns lives as long as
/// `arena` and `text`.
pub fn read_candidate<'a>(arena: &'a Bump, text: &'a [u8]) -> Result<Candidate<'a>, ReadError> {
    read(arena, text, compatible::CandidateObject::default)
}

/// Reads a parameter list, or the `self` of an object that has one. What it returns lives as long as `arena` and `text`.
pub fn read_source<'a>(arena: &'a Bump, text: &'a [u8]) -> Result<Source<'a>, ReadError> {
    read(arena, text, root::SourceObject::default)
}

/// What all parts of a reader share.
struct Context<'a> {
    arena: &'a Bump,
    /// The names of the members around the place that is being read.
    path: RefCell<Vec<&'a str>>,
}

impl<'a> Context<'a> {
    fn enter(&self, name: &'a str) {
        self.path.borrow_mut().push(name);
    }

    /// Not called after an error, so that the path tells where that was.
    fn leave(&self) {
        self.path.borrow_mut().pop();
    }
}

fn read<'a, O: strict::Object<'a>>(
    arena: &'a Bump,
    text: &'a [u8],
    object: impl FnOnce() -> O,
) -> Result<O::Output, ReadError> {
    if text.len() > MAX_DOCUMENT {
        return Err(ReadError {
            line: 1,
            column: 0,
            path: String::new(),
            what: format!("longer than {MAX_DOCUMENT} bytes, which no such document needs"),
        });
    }
    let text = std::str::from_utf8(text).map_err(|error| not_utf8(text, error.valid_up_to()))?;
    let context = Context {
        arena,
        path: RefCell::new(Vec::new()),
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let result = strict::ObjectSeed::new(&context, object()).deserialize(&mut deserializer);
    let result = result.and_then(|output| deserializer.end().map(|()| output));
    result.map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = error.to_string();
        let what = text.strip_suffix(&place).unwrap_or(&text);
        let what = match error.is_eof() {
            true => format!("{what}: the document is cut off or empty"),
            false => crate::text::one_line(what),
        };
        ReadError {
            line: error.line().max(1),
            column: error.column(),
            path: crate::text::one_line(&context.path.borrow().join(".")),
            what,
        }
    })
}

fn not_utf8(text: &[u8], at: usize) -> ReadError {
    let before = text.get(..at).unwrap_or_default();
    let line_start = before.iter().rposition(|&byte| byte == b'\n');
    ReadError {
        line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        column: at - line_start.map_or(0, |newline| newline + 1) + 1,
        path: String::new(),
        what: "not UTF-8".to_string(),
    }
}

#[cfg(test)]
mod tests;
