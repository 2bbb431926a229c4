// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which values a parameter may have: lists, ranges and bounds.

use std::collections::HashSet;

use bumpalo::collections::Vec as ArenaVec;
use migration::model::{parse_value, Allowed, IntRange, ParseError};
use migration::value::{Kind, Value};

use super::strict::Given;
use super::Context;

/// Makes sense of a list of allowed values. Integers may come in any order; ranges that overlap become one, and what is listed
/// twice is there once. Numbers of more than 64 bits are left out: nobody here has them.
pub(super) fn from_list<'a>(
    context: &Context<'a>,
    kind: Kind,
    values: &[Given<'a>],
) -> Result<Allowed<'a>, String> {
    match kind {
        Kind::Bool => {
            let is_bool = |value: Value<'a>| match value {
                Value::Bool(value) => Some(value),
                _ => None,
            };
            Ok(Allowed::Bool(distinct(context, kind, values, is_bool)?))
        }
        Kind::Str => {
            let is_str = |value: Value<'a>| match value {
                Value::Str(text) => Some(text),
                _ => None,
            };
            let list = distinct(context, kind, values, is_str)?;
            match list.iter().find_map(|text| form_problem(text)) {
                Some(problem) => Err(problem),
                None => Ok(Allowed::Str(list)),
            }
        }
        Kind::Int => ranges(context, values),
    }
}

/// What the contract forbids in a string value. What is merely more than fits here is read: it is a value that nobody has.
pub(super) fn form_problem(text: &str) -> Option<String> {
    text.contains('\n')
        .then(|| "a value contains a newline".to_string())
}

fn other(kind: Kind) -> impl Fn(&Given<'_>) -> String {
    move |value| match value {
        Given::Value(value) => format!("{value} is not of type {kind}"),
        Given::TooLarge => format!("a number is not of type {kind}"),
    }
}

/// The values, each once, in the order in which they come first.
fn distinct<'a, T: Copy + Eq + std::hash::Hash>(
    context: &Context<'a>,
    kind: Kind,
    values: &[Given<'a>],
    of_kind: impl Fn(Value<'a>) -> Option<T>,
) -> Result<&'a [T], String> {
    let mut list = ArenaVec::with_capacity_in(values.len(), context.arena);
    let mut seen = HashSet::new();
    for value in values {
        let fits = match value {
            Given::Value(value) => of_kind(*value),
            Given::TooLarge => None,
        };
        let item = fits.ok_or_else(|| other(kind)(value))?;
        // A list of a few is searched faster than hashed.
        let is_new = match list.len() {
            0..=8 if seen.is_empty() => !list.contains(&item),
            _ => {
                if seen.is_empty() {
                    seen.extend(list.iter().copied());
                }
                seen.insert(item)
            }
        };
        if is_new {
            list.push(item);
        }
    }
    Ok(list.into_bump_slice())
}

fn ranges<'a>(context: &Context<'a>, values: &[Given<'a>]) -> Result<Allowed<'a>, String> {
    let mut list = ArenaVec::<IntRange>::with_capacity_in(values.len(), context.arena);
    for value in values {
        match value {
            Given::Value(Value::Int(value)) => list.push(IntRange::one(*value)),
            Given::Value(Value::Str(text)) => list.extend(
                range(text).ok_or_else(|| format!("{text:?} is not a range like \"8-16\""))?,
            ),
            Given::TooLarge => {}
            value => return Err(other(Kind::Int)(value)),
        }
    }
    list.sort_unstable_by_key(|range| (range.min, range.max));
    list.dedup_by(|later, earlier| {
        let overlaps = later.min <= earlier.max;
        if overlaps {
            earlier.max = earlier.max.max(later.max);
        }
        overlaps
    });
    Ok(Allowed::Int(list.into_bump_slice()))
}

/// One more than the largest number there is, which stands for all that are larger.
const TOO_LARGE: u128 = 1 << 64;

/// The range from one number to another, without what is too large. `None` if it is the wrong way round.
fn between(min: u128, max: u128) -> Option<Option<IntRange>> {
    let top = u64::try_from(max).unwrap_or(u64::MAX);
    let fitting = u64::try_from(min).map(|bottom| IntRange::new(bottom, top));
    (min <= max).then_some(fitting.ok())
}

/// `<min>-<max>`: `None` if the text is no range, `Some(None)` if there is nothing in it that fits 64 bits.
fn range(text: &str) -> Option<Option<IntRange>> {
    let number = |text: &str| match parse_value(Kind::Int, text.as_bytes()) {
        // One trailing newline would be accepted.
        _ if text.ends_with('\n') => None,
        Ok(Value::Int(value)) => Some(u128::from(value)),
        Err(ParseError::TooLarge) => Some(TOO_LARGE),
        _ => None,
    };
    let (min, max) = text.split_once('-')?;
    between(number(min)?, number(max)?)
}

/// Whether the text is a range.
pub(super) fn is_range(text: &str) -> bool {
    range(text).is_some()
}

/// What `minimum`, `maximum` and `max_length` say.
#[derive(Clone, Copy, Default)]
pub(super) struct Bounds<'a> {
    pub(super) minimum: Option<Given<'a>>,
    pub(super) maximum: Option<Given<'a>>,
    pub(super) max_length: Option<Given<'a>>,
}

impl<'a> Bounds<'a> {
    /// The values allowed, from the list, the bounds or both.
    pub(super) fn allowed(
        self,
        context: &Context<'a>,
        kind: Kind,
        values: Option<&[Given<'a>]>,
    ) -> Result<Allowed<'a>, String> {
        let number = |bound| match bound {
            None => Ok(None),
            Some(Given::Value(Value::Int(value))) if kind == Kind::Int => Ok(Some(value.into())),
            Some(Given::TooLarge) if kind == Kind::Int => Ok(Some(TOO_LARGE)),
            Some(_) => {
                Err("\"minimum\" and \"maximum\" are numbers, of int parameters".to_string())
            }
        };
        let (minimum, maximum) = (number(self.minimum)?, number(self.maximum)?);
        let bounds = between(minimum.unwrap_or(0), maximum.unwrap_or(TOO_LARGE));
        let bounds = bounds.ok_or("\"minimum\" is larger than \"maximum\"")?;
        let texts = self.texts(kind)?;
        let Some(values) = values else {
            if let Some(texts) = texts {
                return Ok(texts);
            }
            if minimum.is_none() && maximum.is_none() {
                return Ok(Allowed::Any);
            }
            let list = context.arena.alloc_slice_fill_iter(bounds);
            return Ok(Allowed::Int(list));
        };
        let allowed = from_list(context, kind, values)?;
        if let (Some(texts), Allowed::Str(list)) = (texts, allowed) {
            if !list.iter().all(|text| texts.contains(&Value::Str(text))) {
                return Err("\"max_length\" disagrees with \"allowed_values\"".to_string());
            }
        }
        if let Allowed::Int([first, .., last] | [first @ last]) = allowed {
            let agrees = bounds.is_some_and(|bounds| {
                (minimum.is_none() || bounds.min == first.min)
                    && (maximum.is_none() || bounds.max == last.max)
            });
            if !agrees {
                return Err(
                    "\"minimum\" or \"maximum\" disagrees with \"allowed_values\"".to_string(),
                );
            }
        }
        Ok(allowed)
    }

    /// The texts that `max_length` bounds. A number of more than 64 bits bounds nothing that anybody here has.
    fn texts(self, kind: Kind) -> Result<Option<Allowed<'a>>, String> {
        let max = match self.max_length {
            None => return Ok(None),
            Some(Given::Value(Value::Int(max))) if kind == Kind::Str => max,
            Some(Given::TooLarge) if kind == Kind::Str => u64::MAX,
            Some(_) => return Err("\"max_length\" is a number, of str parameters".to_string()),
        };
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Ok(Some(Allowed::Ascii { max }))
    }
}
