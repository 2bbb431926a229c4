// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The versions of a model: bundles of parameter values, or names and nothing else.

use std::fmt;

use migration::model::{ParamDef, Version};
use migration::value::Param;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::model::check_name;
use super::order::Preference;
use super::root::Params;
use super::strict::{Entry, List, ListOf, Text};
use super::Context;

/// What a model says of its versions.
#[derive(Clone, Copy)]
pub(super) enum Versions<'a> {
    /// `{"<version>": {"<param>": value, …}, …}`
    Bundles(&'a [Version<'a>]),
    /// `["<version>", …]`, oldest first.
    Names(&'a [&'a str]),
}

/// Reads either form.
#[derive(Clone, Copy)]
pub(super) struct AnyVersions<'c, 'a>(pub(super) &'c Context<'a>);

impl<'a> DeserializeSeed<'a> for AnyVersions<'_, 'a> {
    type Value = Versions<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for AnyVersions<'_, 'a> {
    type Value = Versions<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of names")
    }

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<Self::Value, A::Error> {
        List::visit(self.0, Bundles, map).map(Versions::Bundles)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, list: A) -> Result<Self::Value, A::Error> {
        let names = ListOf(self.0, Text(self.0)).visit_seq(list)?;
        Ok(Versions::Names(names))
    }
}

/// `{"<version>": {"<param>": value, …}, …}`
struct Bundles;

impl<'a> Entry<'a> for Bundles {
    type Item = Version<'a>;

    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        _: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error> {
        check_name(name)?;
        // A later version may name parameters that an earlier one does not know.
        let values = List::read(context, Params, map)?;
        Ok(Version { name, values })
    }
}

impl<'a> Versions<'a> {
    /// Its versions in their order, of a model with these parameters.
    pub(super) fn of_params<E: Error>(
        self,
        context: &Context<'a>,
        params: &[ParamDef<'a>],
        order: Preference<'a>,
    ) -> Result<&'a [Version<'a>], E> {
        let bundles = match self {
            Self::Names(names) => {
                let named = names.iter().map(|name| Version { name, values: &[] });
                return Ok(context.arena.alloc_slice_fill_iter(named));
            }
            Self::Bundles(bundles) => bundles,
        };
        context.enter("versions");
        let bundles = context.arena.alloc_slice_copy(bundles);
        bundles.sort_by_cached_key(|version| order.key(version.name));
        for version in bundles.iter_mut() {
            context.enter(version.name);
            version.values = in_order(context, params, version.values)?;
            context.leave();
        }
        context.leave();
        Ok(bundles)
    }
}

/// The values of a version in declaration order. A value that is not allowed makes a version that is not offered; one that no
/// parameter can have makes none.
fn in_order<'a, E: Error>(
    context: &Context<'a>,
    params: &[ParamDef<'a>],
    values: &[Param<'a>],
) -> Result<&'a [Param<'a>], E> {
    let position = |name: &str| params.iter().position(|def| def.name == name);
    for param in values {
        match position(param.name).and_then(|position| params.get(position)) {
            Some(def) if def.kind == param.value.kind() => {}
            Some(def) => {
                return Err(E::custom(format!("{param} is not of type {}", def.kind)));
            }
            None => {
                return Err(E::custom(format!(
                    "{}: the model has no such parameter",
                    param.name
                )))
            }
        }
    }
    let values = context.arena.alloc_slice_copy(values);
    values.sort_by_key(|param| position(param.name));
    Ok(values)
}
