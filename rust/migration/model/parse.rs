// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Values as text, the way sysfs files and `name=value` pairs have them.

use crate::value::{model_problem, name_problem, str_problem, Kind, Value};
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
    /// Not a well formed device model string, and what is wrong with it.
    Model(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str("the value is not UTF-8"),
            Self::Bool => f.write_str("the value is neither 'on' nor 'off'"),
            Self::Int => f.write_str("the value is not a number (0, 1, 2 ...)"),
            Self::TooLarge => f.write_str("the value is too large a number"),
            Self::Str(problem) => write!(f, "the value {problem}"),
            Self::Version(problem) => write!(f, "the name {problem}"),
            Self::Model(problem) => write!(f, "the device model {problem}"),
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

/// Takes text for a device model string. One trailing newline is accepted.
pub fn parse_model(text: &[u8]) -> Result<&str, ParseError> {
    let text = line(text)?;
    match model_problem(text) {
        Some(problem) => Err(ParseError::Model(problem)),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_with_and_without_one_newline() {
        let good: [(Kind, &str, Value<'_>); 8] = [
            (Kind::Bool, "on", Value::Bool(true)),
            (Kind::Bool, "off", Value::Bool(false)),
            (Kind::Int, "0", Value::Int(0)),
            (Kind::Int, "10", Value::Int(10)),
            (Kind::Int, "18446744073709551615", Value::Int(u64::MAX)),
            (Kind::Str, "", Value::Str("")),
            (Kind::Str, "two words", Value::Str("two words")),
            (Kind::Str, "größe=1", Value::Str("größe=1")),
        ];
        for (kind, text, value) in good {
            assert_eq!(parse_value(kind, text.as_bytes()), Ok(value));
            let line = std::format!("{text}\n");
            assert_eq!(parse_value(kind, line.as_bytes()), Ok(value));
            let two = std::format!("{text}\n\n");
            assert!(parse_value(kind, two.as_bytes()).is_err(), "{two:?}");
            assert_eq!(std::format!("{value}"), text);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let int = ParseError::Int;
        for text in [
            "", "\n", "-1", "+1", "01", "00", "0x10", "1 ", " 1", "1\0", "1.0", "1e3", "٣",
        ] {
            assert_eq!(
                parse_value(Kind::Int, text.as_bytes()),
                Err(int),
                "{text:?}"
            );
        }
        for text in ["18446744073709551616", &"9".repeat(5000)] {
            let expected = Err(ParseError::TooLarge);
            assert_eq!(parse_value(Kind::Int, text.as_bytes()), expected);
        }
        for text in [
            "", "On", "ON", "true", "1", "y", "on\0", "on ", " on", "on\r\n",
        ] {
            let expected = Err(ParseError::Bool);
            assert_eq!(
                parse_value(Kind::Bool, text.as_bytes()),
                expected,
                "{text:?}"
            );
        }
        for text in ["a\nb", "a\0", "a\n\n", "\ra", &"v".repeat(65)] {
            let result = parse_value(Kind::Str, text.as_bytes());
            assert!(matches!(result, Err(ParseError::Str(_))), "{text:?}");
        }
        for kind in [Kind::Bool, Kind::Int, Kind::Str] {
            let expected = Err(ParseError::Encoding);
            assert_eq!(parse_value(kind, b"\xff"), expected);
        }
    }

    #[test]
    fn versions_and_models_have_their_form() {
        assert_eq!(parse_version(b"v1\n"), Ok("v1"));
        assert_eq!(
            parse_model(b"example.org/pci/card\n"),
            Ok("example.org/pci/card")
        );
        for text in [&b""[..], b"v 1", b"v1\n\n", b"v\0", &[b'v'; 65]] {
            assert!(matches!(parse_version(text), Err(ParseError::Version(_))));
        }
        for text in [&b""[..], b"a//b", b"a b", b"a\n\n", &[b'm'; 129]] {
            assert!(matches!(parse_model(text), Err(ParseError::Model(_))));
        }
    }
}
