// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Values as text, the way sysfs files and `name=value` pairs have them.

use crate::value::{name_problem, str_problem, Kind, Value};
use core::fmt;

/// Why text is no value of the type. For EINVAL, the value unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not UTF-8.
    Encoding,
    /// Neither `on` nor `off`.
    Bool,
    /// Not a decimal number without sign and leading zeros.
    Int,
    /// A number of more than 64 bits.
    TooLarge,
    /// Not a well formed string value, and what is wrong with it.
    Str(&'static str),
    /// Not a well formed version name, and what is wrong with it.
    Version(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("the value is not UTF-8"),
            Self::Bool => f.write_str("the value is neither 'on' nor 'off'"),
            Self::Int => f.write_str("the value is not a number (0, 1, 2 ...)"),
            Self::TooLarge => f.write_str("the value is too large a number"),
            Self::Str(problem) => write!(f, "the value {problem}"),
            Self::Version(problem) => write!(f, "the version {problem}"),
        }
    }
}

/// The text without one newline at its end, if it has one.
fn line(text: &[u8]) -> Result<&str, ParseError> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    core::str::from_utf8(text).map_err(|_| ParseError::Encoding)
}

/// Takes text for a value of the type. One trailing newline is accepted; nothing else that is not
/// part of the value is.
pub fn parse_value(kind: Kind, text: &[u8]) -> Result<Value<'_>, ParseError> {
    let text = line(text)?;
    match kind {
        Kind::Bool => match text {
            "on" => Ok(Value::Bool(true)),
            "off" => Ok(Value::Bool(false)),
            _ => Err(ParseError::Bool),
        },
        Kind::Int => parse_int(text).map(Value::Int),
        Kind::Str => match str_problem(text) {
            Some(problem) => Err(ParseError::Str(problem)),
            None => Ok(Value::Str(text)),
        },
    }
}

/// A number has one spelling, so that a value reads back as it was written.
fn parse_int(text: &str) -> Result<u64, ParseError> {
    let digits = text.as_bytes();
    let canonical = match digits {
        [] => false,
        [b'0', _, ..] => false,
        _ => digits.iter().all(u8::is_ascii_digit),
    };
    if !canonical {
        return Err(ParseError::Int);
    }
    text.parse().map_err(|_| ParseError::TooLarge)
}

/// Takes text for a version name. One trailing newline is accepted.
pub fn parse_version(text: &[u8]) -> Result<&str, ParseError> {
    let text = line(text)?;
    match name_problem(text) {
        Some(problem) => Err(ParseError::Version(problem)),
        None => Ok(text),
    }
}
