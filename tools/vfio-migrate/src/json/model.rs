// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A model as a type or program offers it, and its parameters.

use bumpalo::collections::Vec as ArenaVec;
use migration::model::{
    parse_value, Allowed, IntRange, Model, ParamDef, Requirement, Type, Version,
};
use migration::value::{name_problem, Kind, Param, Value, RESERVED_NAMES};
use serde::de::{Error, MapAccess};

use super::root::{check_room, Params};
use super::strict::{AnyValue, Entry, List, Object, ObjectSeed, Skip, Switch, Text, ValueList};
use super::Context;

/// `{"params": {…}, "versions": {…}, "init_version": "…"}`
pub(super) struct ModelObject<'a> {
    name: &'a str,
    params: Option<&'a [ParamDef<'a>]>,
    versions: &'a [Version<'a>],
    init_version: Option<&'a str>,
}

impl<'a> ModelObject<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self {
            name,
            params: None,
            versions: &[],
            init_version: None,
        }
    }
}

impl<'a> Object<'a> for ModelObject<'a> {
    type Output = &'a Model<'a>;

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "params" => self.params = Some(List::read(context, Defs, map)?),
            "versions" => self.versions = List::read(context, Versions, map)?,
            "init_version" => self.init_version = Some(map.next_value_seed(Text(context))?),
            _ => map.next_value_seed(Skip(context))?,
        }
        Ok(())
    }

    fn finish<E: Error>(self, context: &Context<'a>) -> Result<&'a Model<'a>, E> {
        let params = self.params.ok_or_else(|| E::custom("no \"params\""))?;
        let model: &'a Model<'a> = context.arena.alloc(Model {
            name: self.name,
            params,
            versions: self.versions,
            init_version: self.init_version,
        });
        let ty = Type::of(model);
        let init = |at: usize| params.get(at).map(|param| param.init);
        if let Some(unmet) = ty.unmet(init).next() {
            return Err(E::custom(format!("the initial values do not fit: {unmet}")));
        }
        for version in model.versions {
            for param in version.values {
                let known = model.param(param.name);
                if !known.is_some_and(|known| ty.allows(known, &param.value)) {
                    let version = version.name;
                    return Err(E::custom(format!(
                        "version {version} has {param}, which is not offered"
                    )));
                }
            }
        }
        match model.init_version {
            Some(init) if model.version(init).is_none() => Err(E::custom(format!(
                "\"init_version\" is {init}, which is no version"
            ))),
            _ => Ok(model),
        }
    }
}

/// What is wrong with the name of a parameter or version.
fn check_name<E: Error>(name: &str) -> Result<(), E> {
    match name_problem(name) {
        Some(problem) => Err(E::custom(format!("the name {problem}"))),
        None if RESERVED_NAMES.contains(&name) => Err(E::custom("the name is reserved")),
        None => Ok(()),
    }
}

/// `{"<param>": {…}, …}`, parameters in declaration order.
struct Defs;

impl<'a> Entry<'a> for Defs {
    type Item = ParamDef<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        earlier: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        check_name(name)?;
        check_room(earlier)?;
        map.next_value_seed(ObjectSeed::new(context, DefObject::new(name, earlier)))
    }
}

/// `{"type": …, "init_value": …, …}`
struct DefObject<'a, 'e> {
    name: &'a str,
    /// The parameters declared before.
    earlier: &'e [ParamDef<'a>],
    kind: Option<Kind>,
    allowed: Option<&'a [Value<'a>]>,
    minimum: Option<Value<'a>>,
    maximum: Option<Value<'a>>,
    description: &'a str,
    init: Option<Value<'a>>,
    off: Option<Value<'a>>,
    runtime: bool,
    requires: &'a [Requirement<'a>],
}

impl<'a, 'e> DefObject<'a, 'e> {
    fn new(name: &'a str, earlier: &'e [ParamDef<'a>]) -> Self {
        Self {
            name,
            earlier,
            kind: None,
            allowed: None,
            minimum: None,
            maximum: None,
            description: "",
            init: None,
            off: None,
            runtime: false,
            requires: &[],
        }
    }

    /// The values allowed, from the list, the bounds or both.
    fn allowed(&self, context: &Context<'a>, kind: Kind) -> Result<Allowed<'a>, String> {
        let bound = |value: Option<Value<'_>>, default| match value {
            None => Ok(default),
            Some(Value::Int(value)) if kind == Kind::Int => Ok(value),
            Some(_) => {
                Err("\"minimum\" and \"maximum\" are numbers, of int parameters".to_string())
            }
        };
        let bounds = IntRange::new(bound(self.minimum, 0)?, bound(self.maximum, u64::MAX)?);
        let is_bounded = self.minimum.is_some() || self.maximum.is_some();
        match self.allowed {
            None if is_bounded => Ok(Allowed::Int(context.arena.alloc_slice_copy(&[bounds]))),
            None => Ok(Allowed::Any),
            Some(values) => {
                let allowed = allowed_values(context, kind, values)?;
                if let Allowed::Int([first, .., last] | [first @ last]) = allowed {
                    let agrees = self.minimum.is_none_or(|min| min == Value::Int(first.min))
                        && self.maximum.is_none_or(|max| max == Value::Int(last.max));
                    if !agrees {
                        return Err(
                            "\"minimum\" or \"maximum\" disagrees with \"allowed_values\""
                                .to_string(),
                        );
                    }
                }
                Ok(allowed)
            }
        }
    }
}

impl<'a> Object<'a> for DefObject<'a, '_> {
    type Output = ParamDef<'a>;

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let value = AnyValue(context);
        match name {
            "type" => {
                let text = map.next_value_seed(Text(context))?;
                let kinds = [Kind::Bool, Kind::Int, Kind::Str];
                let kind = kinds.into_iter().find(|kind| kind.name() == text);
                self.kind = Some(kind.ok_or_else(|| {
                    A::Error::custom(format!("{text} is none of the types bool, int and str"))
                })?);
            }
            "allowed_values" => self.allowed = Some(map.next_value_seed(ValueList(context))?),
            "minimum" => self.minimum = Some(map.next_value_seed(value)?),
            "maximum" => self.maximum = Some(map.next_value_seed(value)?),
            "description" => self.description = map.next_value_seed(Text(context))?,
            "init_value" => self.init = Some(map.next_value_seed(value)?),
            "off_value" => self.off = Some(map.next_value_seed(value)?),
            "runtime" => self.runtime = map.next_value_seed(Switch)?,
            "requires" => {
                self.requires = List::read(context, Requires(self.earlier), map)?;
            }
            _ => map.next_value_seed(Skip(context))?,
        }
        Ok(())
    }

    fn finish<E: Error>(self, context: &Context<'a>) -> Result<ParamDef<'a>, E> {
        let kind = self.kind.ok_or_else(|| E::custom("no \"type\""))?;
        let init = self.init.ok_or_else(|| E::custom("no \"init_value\""))?;
        let allowed = self.allowed(context, kind).map_err(E::custom)?;
        let alone = ParamDef {
            name: self.name,
            description: self.description,
            kind,
            allowed,
            init,
            off: self.off,
            runtime: self.runtime,
            requires: &[],
        };
        check_alone(&alone)?;
        // Whoever narrows a model for a type keeps its requirements, even of what the type cannot switch off.
        Ok(ParamDef {
            requires: self.requires,
            ..alone
        })
    }
}

/// Applies the rules for tables to one parameter.
fn check_alone<E: Error>(def: &ParamDef<'_>) -> Result<(), E> {
    let alone = Model {
        name: "example",
        params: std::slice::from_ref(def),
        versions: &[],
        init_version: None,
    };
    match alone.problem() {
        Some(problem) => Err(E::custom(problem)),
        None => Ok(()),
    }
}

/// Makes sense of a list of allowed values. Integers may come in any order; ranges that overlap become one.
fn allowed_values<'a>(
    context: &Context<'a>,
    kind: Kind,
    values: &[Value<'a>],
) -> Result<Allowed<'a>, String> {
    let arena = context.arena;
    let other = |value: &Value<'_>| format!("{value} is not of type {kind}");
    match kind {
        Kind::Bool => {
            let mut list = ArenaVec::with_capacity_in(values.len(), arena);
            for value in values {
                match value {
                    Value::Bool(value) => list.push(*value),
                    value => return Err(other(value)),
                }
            }
            Ok(Allowed::Bool(list.into_bump_slice()))
        }
        Kind::Str => {
            let mut list = ArenaVec::with_capacity_in(values.len(), arena);
            for value in values {
                match value {
                    Value::Str(text) => list.push(*text),
                    value => return Err(other(value)),
                }
            }
            Ok(Allowed::Str(list.into_bump_slice()))
        }
        Kind::Int => {
            let mut list = ArenaVec::<IntRange>::with_capacity_in(values.len(), arena);
            for value in values {
                list.push(match value {
                    Value::Int(value) => IntRange::one(*value),
                    Value::Str(text) => int_range(text)
                        .ok_or_else(|| format!("{text:?} is not a range like \"8-16\""))?,
                    value => return Err(other(value)),
                });
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
    }
}

/// `<min>-<max>`
fn int_range(text: &str) -> Option<IntRange> {
    let number = |text: &str| match parse_value(Kind::Int, text.as_bytes()) {
        // One trailing newline would be accepted.
        Ok(Value::Int(value)) if !text.ends_with('\n') => Some(value),
        _ => None,
    };
    let (min, max) = text.split_once('-')?;
    let (min, max) = (number(min)?, number(max)?);
    (min <= max).then_some(IntRange::new(min, max))
}

/// `{"<other>": [value, …], …}`, with the parameters declared before.
struct Requires<'a, 'e>(&'e [ParamDef<'a>]);

impl<'a> Entry<'a> for Requires<'a, '_> {
    type Item = Requirement<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        _: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        let values = map.next_value_seed(ValueList(context))?;
        let Some(other) = self.0.iter().find(|def| def.name == name) else {
            return Err(A::Error::custom(
                "no parameter before this one has that name",
            ));
        };
        let allowed = allowed_values(context, other.kind, values).map_err(A::Error::custom)?;
        let Some(first) = first(&allowed) else {
            return Err(A::Error::custom("nothing would do"));
        };
        // The list is well formed if a parameter could have it.
        check_alone(&ParamDef {
            allowed,
            ..ParamDef::new(name, first)
        })?;
        Ok(Requirement {
            param: name,
            allowed,
        })
    }
}

/// One of the values allowed, if they are listed.
fn first<'a>(allowed: &Allowed<'a>) -> Option<Value<'a>> {
    match allowed {
        Allowed::Any => None,
        Allowed::Bool(allowed) => allowed.first().copied().map(Value::Bool),
        Allowed::Int(allowed) => allowed.first().map(|range| Value::Int(range.min)),
        Allowed::Str(allowed) => allowed.first().copied().map(Value::Str),
    }
}

/// `{"<version>": {"<param>": value, …}, …}`
struct Versions;

impl<'a> Entry<'a> for Versions {
    type Item = Version<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        earlier: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        check_name(name)?;
        let values = List::read(context, Params, map)?;
        if let Some(other) = earlier.first() {
            let names_it = |param: &Param<'_>| other.values.iter().any(|p| p.name == param.name);
            if values.len() != other.values.len() || !values.iter().all(names_it) {
                return Err(A::Error::custom("versions do not name the same parameters"));
            }
        }
        Ok(Version { name, values })
    }
}
