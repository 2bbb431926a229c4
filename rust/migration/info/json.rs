// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Printing JSON: objects over several lines, lists on one.

use crate::model::Allowed;
use crate::value::Value;
use core::fmt::{self, Write};

/// A string as JSON has it: quoted and escaped.
pub(super) struct Quoted<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write!(Escaper(f), "{}", self.0)?;
        f.write_char('"')
    }
}

/// Escapes what passes through.
struct Escaper<'f, W: ?Sized>(&'f mut W);

impl<W: Write + ?Sized> Write for Escaper<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = text;
        while let Some(at) = plain.find(|c| matches!(c, '"' | '\\' | '\0'..='\x1f' | '\x7f')) {
            let (before, rest) = plain.split_at_checked(at).ok_or(fmt::Error)?;
            self.0.write_str(before)?;
            let mut chars = rest.chars();
            match chars.next() {
                Some(c @ ('"' | '\\')) => write!(self.0, "\\{c}")?,
                Some(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                None => {}
            }
            plain = chars.as_str();
        }
        self.0.write_str(plain)
    }
}

/// A value as JSON has it.
pub(super) struct Literal<'a>(pub(super) Value<'a>);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Str(text) => Quoted(text).fmt(f),
        }
    }
}

/// Prints items with commas between them.
fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl Iterator<Item = T>,
) -> fmt::Result {
    for (index, item) in items.enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

/// Strings as a JSON list.
pub(super) struct QuotedList<I>(pub(super) I);

impl<'a, I: Iterator<Item = &'a str> + Clone> fmt::Display for QuotedList<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        list(f, self.0.clone().map(Quoted))?;
        f.write_char(']')
    }
}

/// Allowed values as a JSON list. Not for [`Allowed::Any`] and [`Allowed::Ascii`], which have none.
pub(super) struct AllowedList<'a>(pub(super) Allowed<'a>);

impl fmt::Display for AllowedList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('[')?;
        match self.0 {
            Allowed::Any | Allowed::Ascii { .. } => {}
            Allowed::Bool(allowed) => list(f, allowed.iter())?,
            Allowed::Str(allowed) => list(f, allowed.iter().map(Quoted))?,
            Allowed::Int(allowed) => {
                for (index, range) in allowed.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    if range.min == range.max {
                        range.fmt(f)?;
                    } else {
                        Quoted(range).fmt(f)?;
                    }
                }
            }
        }
        f.write_char(']')
    }
}

/// An object being printed, one member a line.
pub(super) struct Object<'f, 'w> {
    f: &'f mut fmt::Formatter<'w>,
    depth: usize,
    is_empty: bool,
}

impl<'f, 'w> Object<'f, 'w> {
    /// Starts the outermost object.
    pub(super) fn root(f: &'f mut fmt::Formatter<'w>) -> Result<Self, fmt::Error> {
        Self::at(f, 1)
    }

    /// Starts an object whose members are indented this deep.
    pub(super) fn at(f: &'f mut fmt::Formatter<'w>, depth: usize) -> Result<Self, fmt::Error> {
        f.write_char('{')?;
        Ok(Self {
            f,
            depth,
            is_empty: true,
        })
    }

    fn name(&mut self, name: &str) -> fmt::Result {
        if !self.is_empty {
            self.f.write_char(',')?;
        }
        self.is_empty = false;
        new_line(self.f, self.depth)?;
        write!(self.f, "{}: ", Quoted(name))
    }

    /// Prints a member; `json` prints as JSON.
    pub(super) fn member(&mut self, name: &str, json: impl fmt::Display) -> fmt::Result {
        self.name(name)?;
        json.fmt(self.f)
    }

    /// Starts a member that is an object itself.
    pub(super) fn object(&mut self, name: &str) -> Result<Object<'_, 'w>, fmt::Error> {
        self.name(name)?;
        Object::at(self.f, self.depth + 1)
    }

    /// Starts a member that is a list of objects.
    pub(super) fn objects(&mut self, name: &str) -> Result<Objects<'_, 'w>, fmt::Error> {
        self.name(name)?;
        self.f.write_char('[')?;
        Ok(Objects {
            f: self.f,
            depth: self.depth + 1,
            is_empty: true,
        })
    }

    /// Ends the object.
    pub(super) fn end(self) -> fmt::Result {
        if !self.is_empty {
            new_line(self.f, self.depth - 1)?;
        }
        self.f.write_char('}')
    }
}

/// A list of objects being printed.
pub(super) struct Objects<'f, 'w> {
    f: &'f mut fmt::Formatter<'w>,
    depth: usize,
    is_empty: bool,
}

impl<'w> Objects<'_, 'w> {
    /// Starts the next object.
    pub(super) fn object(&mut self) -> Result<Object<'_, 'w>, fmt::Error> {
        if !self.is_empty {
            self.f.write_char(',')?;
        }
        self.is_empty = false;
        new_line(self.f, self.depth)?;
        Object::at(self.f, self.depth + 1)
    }

    /// Ends the list.
    pub(super) fn end(self) -> fmt::Result {
        if !self.is_empty {
            new_line(self.f, self.depth - 1)?;
        }
        self.f.write_char(']')
    }
}

fn new_line(f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    f.write_char('\n')?;
    for _ in 0..depth {
        f.write_str("  ")?;
    }
    Ok(())
}
