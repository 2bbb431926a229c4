// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The form of the July 2020 proposal: an instance (`self`), and the types that can take its state (`compatible`), as in the
//! file `migration/compatible` of an instance.
//!
//! It lists values by parameter and says neither which of them are off values nor which ones a new instance has. What is known:
//! a listed type can take the state of `self`, so a parameter that `self` has not in effect can be off there.

use bumpalo::collections::{String as ArenaString, Vec as ArenaVec};
use migration::model::{Allowed, IntRange, Model, ParamDef, Type};
use migration::value::{Kind, Param, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess};

use super::allowed;
use super::model::check_name;
use super::root::{check_model, InfoObject, SourceObject, BOTH_FORMS};
use super::strict::{AnyGiven, Entry, Given, List, ListOf, Object, ObjectSeed, Skip, Text};
use super::{Candidate, Context, NamedType, Offer, Source, MAX_ENTRIES};

/// A candidate in either form.
#[derive(Default)]
pub(super) struct CandidateObject<'a> {
    info: InfoObject<'a>,
    own: Option<Source<'a>>,
    entries: Option<&'a [TypeEntry<'a>]>,
}

impl<'a> Object<'a> for CandidateObject<'a> {
    type Output = Candidate<'a>;

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "self" => {
                let own = ObjectSeed::new(context, SourceObject::default());
                self.own = Some(map.next_value_seed(own)?);
            }
            "compatible" => {
                self.entries = Some(map.next_value_seed(ListOf(context, EntrySeed(context)))?)
            }
            _ => self.info.member(context, name, map)?,
        }
        Ok(())
    }

    fn finish<E: Error>(self, context: &Context<'a>) -> Result<Candidate<'a>, E> {
        if self.info.has_models() && (self.own.is_some() || self.entries.is_some()) {
            return Err(E::custom(BOTH_FORMS));
        }
        match (self.own, self.entries) {
            (None, None) => {
                let info = self.info.finish(context)?;
                Ok(Candidate {
                    name: info.name,
                    generation: info.generation,
                    offer: Offer::Models(info.types),
                })
            }
            (Some(own), Some(entries)) => {
                let (name, generation) = self.info.head();
                let types = named_types(context, &own, entries).map_err(E::custom)?;
                Ok(Candidate {
                    name,
                    generation,
                    offer: Offer::Types(types),
                })
            }
            (Some(_), None) => Err(E::custom("\"self\" is there without \"compatible\"")),
            (None, Some(_)) => Err(E::custom("\"compatible\" is there without \"self\"")),
        }
    }
}

/// `{"mdev_type": "…", "model": "…", "params": {…}}`
#[derive(Clone, Copy)]
struct TypeEntry<'a> {
    pattern: &'a str,
    model: &'a str,
    params: &'a [Listed<'a>],
}

/// A parameter and the values listed for it.
#[derive(Clone, Copy)]
struct Listed<'a> {
    name: &'a str,
    values: &'a [Given<'a>],
}

/// Reads `{"mdev_type": …}`.
#[derive(Clone, Copy)]
struct EntrySeed<'c, 'a>(&'c Context<'a>);

impl<'a> DeserializeSeed<'a> for EntrySeed<'_, 'a> {
    type Value = TypeEntry<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        ObjectSeed::new(self.0, EntryObject::default()).deserialize(deserializer)
    }
}

#[derive(Default)]
struct EntryObject<'a> {
    pattern: Option<&'a str>,
    model: Option<&'a str>,
    params: Option<&'a [Listed<'a>]>,
}

impl<'a> Object<'a> for EntryObject<'a> {
    type Output = TypeEntry<'a>;

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "mdev_type" => self.pattern = Some(map.next_value_seed(Text(context))?),
            "model" => {
                let model = map.next_value_seed(Text(context))?;
                check_model(model)?;
                self.model = Some(model);
            }
            "params" => self.params = Some(List::read(context, ListedValues, map)?),
            _ => map.next_value_seed(Skip(context))?,
        }
        Ok(())
    }

    fn finish<E: Error>(self, _: &Context<'a>) -> Result<TypeEntry<'a>, E> {
        Ok(TypeEntry {
            pattern: self.pattern.ok_or_else(|| E::custom("no \"mdev_type\""))?,
            model: self.model.ok_or_else(|| E::custom("no \"model\""))?,
            params: self.params.unwrap_or_default(),
        })
    }
}

/// `{"<param>": [value, …], …}`
struct ListedValues;

impl<'a> Entry<'a> for ListedValues {
    type Item = Listed<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        _: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        check_name(name)?;
        let values = map.next_value_seed(ListOf(context, AnyGiven(context)))?;
        if values.is_empty() {
            return Err(A::Error::custom("nothing would do"));
        }
        Ok(Listed { name, values })
    }
}

/// The types that the entries stand for, each with its name.
fn named_types<'a>(
    context: &Context<'a>,
    own: &Source<'a>,
    entries: &[TypeEntry<'a>],
) -> Result<&'a [NamedType<'a>], String> {
    let mut types = ArenaVec::new_in(context.arena);
    for entry in entries {
        let fail = |what: &str| format!("{}: {what}", entry.pattern);
        // Each variable, and the values it may have.
        let mut variables: Vec<(&'a str, Vec<Value<'a>>)> = Vec::new();
        for part in parts(entry.pattern) {
            let Part::Variable(name) = part else { continue };
            if variables.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let listed = entry.params.iter().find(|listed| listed.name == name);
            let listed = listed
                .ok_or_else(|| fail(&format!("no values are listed for the parameter {name}")))?;
            variables.push((
                name,
                each(&listed_values(context, own, listed)?)
                    .ok_or_else(|| fail("too many types"))?,
            ));
        }
        let count = variables
            .iter()
            .try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
        let room = MAX_ENTRIES - types.len();
        let count = count
            .filter(|count| *count <= room)
            .ok_or_else(|| fail("too many types"))?;
        for number in 0..count {
            // The digits of `number`, one a variable, the last one counting fastest.
            let mut rest = number;
            let mut chosen: Vec<Param<'a>> = Vec::new();
            for (name, values) in variables.iter().rev() {
                chosen.push(Param {
                    name,
                    value: values[rest % values.len()],
                });
                rest /= values.len();
            }
            types.push(NamedType {
                mdev_type: substituted(context, entry.pattern, &chosen),
                ty: one_type(context, own, entry, &chosen)?,
            });
        }
    }
    Ok(types.into_bump_slice())
}

/// What one type allows.
fn one_type<'a>(
    context: &Context<'a>,
    own: &Source<'a>,
    entry: &TypeEntry<'a>,
    chosen: &[Param<'a>],
) -> Result<Type<'a>, String> {
    let arena = context.arena;
    let mut params = ArenaVec::with_capacity_in(entry.params.len(), arena);
    for listed in entry.params {
        let name = listed.name;
        let own_has_it = own.params.iter().any(|param| param.name == name);
        let def = match chosen.iter().find(|param| param.name == name) {
            // Which of the family's values is the off value is not said.
            Some(Param { value, .. }) => ParamDef {
                allowed: only(context, *value),
                ..ParamDef::new(name, *value)
            },
            None => {
                let allowed = listed_values(context, own, listed)?;
                // Numbers of more than 64 bits are none that anybody here has: nothing may be left.
                let first = first(&allowed);
                ParamDef {
                    allowed,
                    // One of them is, if an instance like `self` can be made.
                    off: first.filter(|_| !own_has_it),
                    ..ParamDef::new(name, first.unwrap_or(Value::Int(0)))
                }
            }
        };
        params.push(def);
    }
    // Where any value would do, none are listed.
    for param in own.params {
        if !entry.params.iter().any(|listed| listed.name == param.name) {
            params.push(ParamDef::new(param.name, param.value));
        }
    }
    Ok(Type::of(arena.alloc(Model {
        name: entry.model,
        params: params.into_bump_slice(),
        versions: &[],
        init_version: None,
    })))
}

/// The values listed for a parameter. Their type is not said: `self` may tell it, or else the values.
fn listed_values<'a>(
    context: &Context<'a>,
    own: &Source<'a>,
    listed: &Listed<'a>,
) -> Result<Allowed<'a>, String> {
    let own = own.params.iter().find(|param| param.name == listed.name);
    let kind_of = |given: &Given<'_>| match given {
        Given::Value(Value::Str(text)) if allowed::is_range(text) => Kind::Int,
        Given::Value(value) => value.kind(),
        Given::TooLarge => Kind::Int,
    };
    let kinds = || listed.values.iter().map(kind_of);
    let kind = match own {
        Some(param) => param.value.kind(),
        None if kinds().all(|kind| kind == Kind::Int) => Kind::Int,
        // A range among texts is a text.
        None => kinds().find(|kind| *kind != Kind::Int).unwrap_or(Kind::Int),
    };
    allowed::from_list(context, kind, listed.values)
        .map_err(|what| format!("{}: {what}", listed.name))
}

/// The values one by one, unless there are too many.
fn each<'a>(allowed: &Allowed<'a>) -> Option<Vec<Value<'a>>> {
    Some(match allowed {
        Allowed::Any | Allowed::Ascii { .. } => return None,
        Allowed::Bool(values) => values.iter().copied().map(Value::Bool).collect(),
        Allowed::Str(values) => values.iter().copied().map(Value::Str).collect(),
        Allowed::Int(ranges) => {
            let mut values = Vec::new();
            for range in *ranges {
                let room = MAX_ENTRIES - values.len();
                if range.max - range.min >= room as u64 {
                    return None;
                }
                values.extend((range.min..=range.max).map(Value::Int));
            }
            values
        }
    })
}

fn first<'a>(allowed: &Allowed<'a>) -> Option<Value<'a>> {
    match allowed {
        Allowed::Any | Allowed::Ascii { .. } => None,
        Allowed::Bool(values) => values.first().copied().map(Value::Bool),
        Allowed::Int(ranges) => ranges.first().map(|range| Value::Int(range.min)),
        Allowed::Str(values) => values.first().copied().map(Value::Str),
    }
}

fn only<'a>(context: &Context<'a>, value: Value<'a>) -> Allowed<'a> {
    let arena = context.arena;
    match value {
        Value::Bool(value) => Allowed::Bool(arena.alloc_slice_copy(&[value])),
        Value::Int(value) => Allowed::Int(arena.alloc_slice_copy(&[IntRange::one(value)])),
        Value::Str(value) => Allowed::Str(arena.alloc_slice_copy(&[value])),
    }
}

/// A piece of a pattern.
enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Takes a pattern apart. A `${` that is never closed is text.
fn parts(pattern: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = pattern;
    let mut variable = None;
    std::iter::from_fn(move || {
        if let Some(name) = variable.take() {
            return Some(Part::Variable(name));
        }
        if rest.is_empty() {
            return None;
        }
        let found = rest
            .split_once("${")
            .and_then(|(text, after)| Some((text, after.split_once('}')?)));
        let text;
        (text, rest) = match found {
            Some((text, (name, after))) => {
                variable = Some(name);
                (text, after)
            }
            None => (rest, ""),
        };
        Some(Part::Text(text))
    })
}

/// The name of a type: the pattern with the values put in.
fn substituted<'a>(context: &Context<'a>, pattern: &str, chosen: &[Param<'a>]) -> &'a str {
    let mut name = ArenaString::new_in(context.arena);
    for part in parts(pattern) {
        match part {
            Part::Text(text) => name.push_str(text),
            Part::Variable(variable) => {
                let value = chosen.iter().find(|param| param.name == variable);
                if let Some(Param { value, .. }) = value {
                    name.push_str(&value.to_string());
                }
            }
        }
    }
    name.into_bump_str()
}
