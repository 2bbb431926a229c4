// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Comparing table entries in `const` code, which has no iterators, closures or `==` on strings.

use crate::model::{Allowed, IntRange};
use crate::value::{is_ascii_of, Kind, Param, Value};

pub(crate) const fn bytes_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

pub(crate) const fn str_eq(a: &str, b: &str) -> bool {
    bytes_eq(a.as_bytes(), b.as_bytes())
}

pub(crate) const fn value_eq(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => *a == *b,
        (Value::Int(a), Value::Int(b)) => *a == *b,
        (Value::Str(a), Value::Str(b)) => str_eq(a, b),
        _ => false,
    }
}

pub(crate) const fn kind_eq(a: Kind, b: Kind) -> bool {
    a as u8 == b as u8
}

/// [`Allowed::contains`], which cannot be `const`.
pub(crate) const fn allows(allowed: &Allowed<'_>, value: &Value<'_>) -> bool {
    let mut i = 0;
    match (allowed, value) {
        (Allowed::Any, _) => return true,
        (Allowed::Ascii { max }, Value::Str(value)) => return is_ascii_of(value, *max),
        (Allowed::Bool(allowed), Value::Bool(value)) => {
            while i < allowed.len() {
                if allowed[i] == *value {
                    return true;
                }
                i += 1;
            }
        }
        (Allowed::Int(allowed), Value::Int(value)) => {
            while i < allowed.len() {
                if allowed[i].contains(*value) {
                    return true;
                }
                i += 1;
            }
        }
        (Allowed::Str(allowed), Value::Str(value)) => {
            while i < allowed.len() {
                if str_eq(allowed[i], value) {
                    return true;
                }
                i += 1;
            }
        }
        _ => {}
    }
    false
}

/// Whether every value of `inner` is one of `outer`; both are valid for one type.
pub(crate) const fn is_within(inner: &Allowed<'_>, outer: &Allowed<'_>) -> bool {
    let mut i = 0;
    match (inner, outer) {
        (_, Allowed::Any) => {}
        // Two values are all there are.
        (Allowed::Any, Allowed::Bool(outer)) => return outer.len() == 2,
        (Allowed::Any, _) => return false,
        (Allowed::Bool(inner), _) => {
            while i < inner.len() {
                if !allows(outer, &Value::Bool(inner[i])) {
                    return false;
                }
                i += 1;
            }
        }
        (Allowed::Str(inner), _) => {
            while i < inner.len() {
                if !allows(outer, &Value::Str(inner[i])) {
                    return false;
                }
                i += 1;
            }
        }
        (Allowed::Int(inner), Allowed::Int(outer)) => {
            while i < inner.len() {
                if !covers(outer, inner[i].min, inner[i].max) {
                    return false;
                }
                i += 1;
            }
        }
        (Allowed::Int(_), _) => return false,
        (Allowed::Ascii { max: inner }, Allowed::Ascii { max: outer }) => return *inner <= *outer,
        // A valid one has more texts than anybody lists.
        (Allowed::Ascii { .. }, _) => return false,
    }
    true
}

/// Whether ascending ranges together hold everything from `min` to `max`.
pub(crate) const fn covers(ranges: &[IntRange], min: u64, max: u64) -> bool {
    let mut next = min;
    let mut i = 0;
    while i < ranges.len() {
        if ranges[i].contains(next) {
            if max <= ranges[i].max {
                return true;
            }
            // No overflow: this range ends below `max`.
            next = ranges[i].max + 1;
        }
        i += 1;
    }
    false
}

/// The value a list of parameters gives to a name.
pub(crate) const fn listed<'a>(values: &[Param<'a>], name: &str) -> Option<Value<'a>> {
    let mut i = 0;
    while i < values.len() {
        if str_eq(values[i].name, name) {
            return Some(values[i].value);
        }
        i += 1;
    }
    None
}

/// Whether two valid lists of one type hold the same values.
pub(crate) const fn allowed_eq(a: &Allowed<'_>, b: &Allowed<'_>) -> bool {
    is_within(a, b) && is_within(b, a)
}

/// Whether what is allowed is one value.
pub(crate) const fn is_single(allowed: &Allowed<'_>) -> bool {
    match allowed {
        Allowed::Any => false,
        Allowed::Bool(allowed) => allowed.len() == 1,
        Allowed::Int(allowed) => allowed.len() == 1 && allowed[0].min == allowed[0].max,
        Allowed::Str(allowed) => allowed.len() == 1,
        // The empty text.
        Allowed::Ascii { max } => *max == 0,
    }
}
