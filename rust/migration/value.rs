// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Migration parameters as `name=value` pairs: which names and values are well formed.
//!
//! Terms and rules are those of the compatibility contract: a name is UTF-8 without `=`, `/` or
//! white space, a string value is UTF-8 without newline. Control characters, which would garble a
//! listing or a log line, are refused in both, and lengths are bounded.

use core::fmt::{self, Write};

mod text;

pub use text::{
    is_ascii_of, model_form_problem, model_problem, name_form_problem, name_problem, str_problem,
    RESERVED_NAMES,
};

/// Longest parameter or version name, in bytes.
pub const MAX_NAME_LEN: usize = 64;

/// Longest string value, in bytes.
pub const MAX_STR_LEN: usize = 64;

/// Longest device model string, in bytes.
pub const MAX_MODEL_LEN: usize = 128;

/// The type of a parameter's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `on` or `off`.
    Bool,
    /// 0, 1, 2 … up to 2⁶⁴ - 1.
    Int,
    /// Text.
    Str,
}

impl Kind {
    /// The name that migration information uses.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Str => "str",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A parameter's value. Prints as it stands after the `=` in `name=value` and in sysfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    /// Prints as `on` or `off`.
    Bool(bool),
    /// Prints in decimal.
    Int(u64),
    /// Prints as it is.
    Str(&'a str),
}

impl Value<'_> {
    /// The type this is a value of.
    pub const fn kind(&self) -> Kind {
        match self {
            Value::Bool(_) => Kind::Bool,
            Value::Int(_) => Kind::Int,
            Value::Str(_) => Kind::Str,
        }
    }

    /// Why no stream and no device here can have the value, if that is so.
    pub const fn problem(&self) -> Option<&'static str> {
        match self {
            Value::Str(text) => str_problem(text),
            Value::Bool(_) | Value::Int(_) => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(true) => f.write_str("on"),
            Value::Bool(false) => f.write_str("off"),
            Value::Int(int) => int.fmt(f),
            Value::Str(text) => f.write_str(text),
        }
    }
}

/// A value as a sentence has it: text in quotation marks, so that it is told from the words around
/// it. Prints as `on`, `4` or `"text"`; a quotation mark or backslash in the text has a backslash
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InWords<'a>(pub Value<'a>);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value::Str(text) = self.0 else {
            return self.0.fmt(f);
        };
        f.write_char('"')?;
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

/// One entry of a migration parameter list. Prints as `name=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Param<'a> {
    /// The parameter's name.
    pub name: &'a str,
    /// Its value.
    pub value: Value<'a>,
}

impl fmt::Display for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}
