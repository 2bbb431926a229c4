// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A model as a type or program offers it, and its parameters.

use bumpalo::collections::Vec as ArenaVec;
use migration::model::{Allowed, Model, ParamDef, Requirement, Type, Version, VERSION};
use migration::value::{name_form_problem, Kind, Value, RESERVED_NAMES};
use serde::de::{Error, MapAccess};

use super::allowed::{self, form_problem, Bounds};
use super::order::{by_requirement, Node, Preference};
use super::strict::{
    AnyGiven, AnyValue, Entry, Given, List, ListOf, Object, ObjectSeed, Skip, Switch, Text,
};
use super::versions::{AnyVersions, Versions};
use super::Context;

/// `{"params": {…}, "versions": {…}, "init_version": "…"}`, or `{"versions": […]}` alone
pub(super) struct ModelObject<'a> {
    name: &'a str,
    params: Option<&'a [RawDef<'a>]>,
    param_order: Preference<'a>,
    versions: Option<Versions<'a>>,
    version_order: Preference<'a>,
    init_version: Option<&'a str>,
}

impl<'a> ModelObject<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self {
            name,
            params: None,
            param_order: Preference(&[]),
            versions: None,
            version_order: Preference(&[]),
            init_version: None,
        }
    }

    /// The parameters and versions of a model that has parameters.
    fn with_params<E: Error>(
        &self,
        context: &Context<'a>,
        params: &'a [RawDef<'a>],
    ) -> Result<(&'a [ParamDef<'a>], &'a [Version<'a>]), E> {
        context.enter("params");
        let params = declared(context, params, self.param_order)?;
        context.leave();
        let versions = match self.versions {
            Some(versions) => versions.of_params(context, params, self.version_order)?,
            None => &[],
        };
        Ok((params, versions))
    }

    /// The version as the only parameter, of a model that is known by its versions alone. Which one a new device has is known
    /// if the document says so; otherwise it is taken to be the latest.
    fn with_versions<E: Error>(
        &self,
        context: &Context<'a>,
        names: &'a [&'a str],
    ) -> Result<&'a [ParamDef<'a>], E> {
        let names = names.iter().map(|name| Given::Value(Value::Str(name)));
        let names: Vec<Given<'a>> = names.collect();
        let allowed = allowed::from_list(context, Kind::Str, &names).map_err(E::custom)?;
        let latest = match allowed {
            Allowed::Str(names) => names.last().copied(),
            _ => None,
        };
        let latest = latest.ok_or_else(|| E::custom("\"versions\" is empty"))?;
        let init = self.init_version.unwrap_or(latest);
        Ok(context.arena.alloc_slice_copy(&[ParamDef {
            description: "",
            allowed,
            ..ParamDef::new(VERSION, Value::Str(init))
        }]))
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
        let names = ListOf(context, Text(context));
        match name {
            "params" => self.params = Some(List::read(context, Defs, map)?),
            "param_order" => self.param_order = Preference(map.next_value_seed(names)?),
            "versions" => self.versions = Some(map.next_value_seed(AnyVersions(context))?),
            "version_order" => self.version_order = Preference(map.next_value_seed(names)?),
            "init_version" => self.init_version = Some(map.next_value_seed(Text(context))?),
            _ => map.next_value_seed(Skip(context))?,
        }
        Ok(())
    }

    fn finish<E: Error>(self, context: &Context<'a>) -> Result<&'a Model<'a>, E> {
        let (params, versions) = match (self.params, self.versions) {
            (Some(params), _) => self.with_params(context, params)?,
            (None, Some(Versions::Names(names))) => (self.with_versions(context, names)?, &[][..]),
            _ => return Err(E::custom("no \"params\"")),
        };
        let model: &'a Model<'a> = context.arena.alloc(Model {
            name: self.name,
            params,
            versions,
            init_version: self.init_version,
        });
        let init = |at: usize| params.get(at).map(|param| param.init);
        if let Some(unmet) = Type::of(model).unmet(init).next() {
            return Err(E::custom(format!("the initial values do not fit: {unmet}")));
        }
        let is_known = |init: &str| match model.bare_versions() {
            Some(names) => names.contains(&init),
            None => model.version(init).is_some(),
        };
        match model.init_version {
            Some(init) if !is_known(init) => Err(E::custom(format!(
                "\"init_version\" is {init}, which is no version"
            ))),
            _ => Ok(model),
        }
    }
}

/// What a parameter requires of another one, as it is written.
type RawRequirement<'a> = (&'a str, &'a [Given<'a>]);

/// A parameter, without what it requires, and that as it is written.
pub(super) type RawDef<'a> = (ParamDef<'a>, &'a [RawRequirement<'a>]);

/// The parameters in declaration order, with what they require in that order too.
fn declared<'a, E: Error>(
    context: &Context<'a>,
    raw: &[RawDef<'a>],
    order: Preference<'_>,
) -> Result<&'a [ParamDef<'a>], E> {
    let arena = context.arena;
    let position = |name: &str| raw.iter().position(|(def, _)| def.name == name);
    let mut nodes = Vec::with_capacity(raw.len());
    for (def, requires) in raw {
        let mut required = Vec::with_capacity(requires.len());
        for (name, _) in *requires {
            required.push(position(name).ok_or_else(|| {
                context.enter(def.name);
                context.enter("requires");
                context.enter(name);
                E::custom("no parameter has that name")
            })?);
        }
        let name = def.name;
        nodes.push(Node {
            name,
            requires: required,
        });
    }
    let order = by_requirement(&nodes, order).map_err(|(one, other)| {
        context.enter(one);
        context.enter("requires");
        match one == other {
            true => E::custom("the parameter requires itself"),
            false => E::custom(format!("{one} and {other} require each other")),
        }
    })?;
    let mut params = ArenaVec::with_capacity_in(raw.len(), arena);
    // By position in the document, the place in the order.
    let mut places = vec![0; raw.len()];
    for (place, &position) in order.iter().enumerate() {
        places[position] = place;
        let (def, written) = raw[position];
        let mut requires: Vec<(usize, Requirement<'a>)> = Vec::with_capacity(written.len());
        for ((name, values), &other) in written.iter().zip(&nodes[position].requires) {
            let kind = raw[other].0.kind;
            let allowed = allowed::from_list(context, kind, values).map_err(|problem| {
                context.enter(def.name);
                context.enter("requires");
                context.enter(name);
                E::custom(problem)
            })?;
            let param = *name;
            requires.push((places[other], Requirement { param, allowed }));
        }
        requires.sort_by_key(|(place, _)| *place);
        let requires = requires.into_iter().map(|(_, requirement)| requirement);
        params.push(ParamDef {
            requires: ArenaVec::from_iter_in(requires, arena).into_bump_slice(),
            ..def
        });
    }
    Ok(params.into_bump_slice())
}

/// What is wrong with the name of a parameter or version.
pub(super) fn check_name<E: Error>(name: &str) -> Result<(), E> {
    match name_form_problem(name) {
        Some(problem) => Err(E::custom(format!("the name {problem}"))),
        None if RESERVED_NAMES.contains(&name) => Err(E::custom("the name is reserved")),
        None => Ok(()),
    }
}

/// `{"<param>": {…}, …}`
struct Defs;

impl<'a> Entry<'a> for Defs {
    type Item = RawDef<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        _: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        check_name(name)?;
        map.next_value_seed(ObjectSeed::new(context, DefObject::new(name)))
    }
}

/// `{"type": …, "init_value": …, …}`
struct DefObject<'a> {
    name: &'a str,
    kind: Option<Kind>,
    values: Option<&'a [Given<'a>]>,
    bounds: Bounds<'a>,
    description: &'a str,
    init: Option<Value<'a>>,
    off: Option<Value<'a>>,
    runtime: bool,
    requires: &'a [RawRequirement<'a>],
}

impl<'a> DefObject<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            kind: None,
            values: None,
            bounds: Bounds::default(),
            description: "",
            init: None,
            off: None,
            runtime: false,
            requires: &[],
        }
    }
}

impl<'a> Object<'a> for DefObject<'a> {
    type Output = RawDef<'a>;

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let (value, given) = (AnyValue(context), AnyGiven(context));
        match name {
            "type" => {
                let text = map.next_value_seed(Text(context))?;
                let kinds = [Kind::Bool, Kind::Int, Kind::Str];
                let kind = kinds.into_iter().find(|kind| kind.name() == text);
                self.kind = Some(kind.ok_or_else(|| {
                    A::Error::custom(format!("{text} is none of the types bool, int and str"))
                })?);
            }
            "allowed_values" => self.values = Some(map.next_value_seed(ListOf(context, given))?),
            "minimum" => self.bounds.minimum = Some(map.next_value_seed(given)?),
            "maximum" => self.bounds.maximum = Some(map.next_value_seed(given)?),
            "max_length" => self.bounds.max_length = Some(map.next_value_seed(given)?),
            "description" => self.description = map.next_value_seed(Text(context))?,
            "init_value" => self.init = Some(map.next_value_seed(value)?),
            "off_value" => self.off = Some(map.next_value_seed(value)?),
            "runtime" => self.runtime = map.next_value_seed(Switch)?,
            "requires" => self.requires = List::read(context, Requires, map)?,
            _ => map.next_value_seed(Skip(context))?,
        }
        Ok(())
    }

    fn finish<E: Error>(self, context: &Context<'a>) -> Result<RawDef<'a>, E> {
        let kind = self.kind.ok_or_else(|| E::custom("no \"type\""))?;
        let init = self.init.ok_or_else(|| E::custom("no \"init_value\""))?;
        let bounds = self.bounds.allowed(context, kind, self.values);
        let allowed = bounds.map_err(E::custom)?;
        for (member, value) in [("init_value", Some(init)), ("off_value", self.off)] {
            let problem = match value {
                Some(value) if value.kind() != kind => {
                    Some(format!("{value} is not of type {kind}"))
                }
                Some(Value::Str(text)) => form_problem(text),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(E::custom(format!("\"{member}\": {problem}")));
            }
        }
        // Either value may be one that is not allowed: a new device has it, or a source that lacks the parameter, but nobody
        // can be given it.
        let def = ParamDef {
            name: self.name,
            description: self.description,
            kind,
            allowed,
            init,
            off: self.off,
            runtime: self.runtime,
            requires: &[],
        };
        Ok((def, self.requires))
    }
}

/// `{"<other>": [value, …], …}`, as it is written: what the values mean depends on the other parameter.
struct Requires;

impl<'a> Entry<'a> for Requires {
    type Item = RawRequirement<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        _: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        let values = map.next_value_seed(ListOf(context, AnyGiven(context)))?;
        Ok((name, values))
    }
}
