// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Migration information: which models and parameters an implementation supports.

use super::json::{AllowedList, Literal, Object, Quoted, QuotedList};
use crate::model::{Allowed, ParamDef, Type, Version};
use crate::value::Param;
use core::fmt;

/// The migration information of a type (one model) or a program (one or several). Prints as JSON,
/// with a newline at the end.
#[derive(Clone, Copy, Debug)]
pub struct MigrationInfo<'a> {
    /// Changes whenever the rest could: who has a copy with the same generation need not read again.
    /// `None` if nobody sees to that: then there is no such member.
    pub generation: Option<&'a str>,
    /// What is offered of each model.
    pub types: &'a [Type<'a>],
}

impl fmt::Display for MigrationInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut root = Object::root(f)?;
        if let Some(generation) = self.generation {
            root.member("generation", Quoted(generation))?;
        }
        let mut models = root.object("models")?;
        for ty in self.types {
            let model = models.object(ty.model.name)?;
            print_model(model, ty)?;
        }
        models.end()?;
        root.end()?;
        f.write_str("\n")
    }
}

fn print_model(mut model: Object<'_, '_>, ty: &Type<'_>) -> fmt::Result {
    if let Some(names) = ty.model.bare_versions() {
        model.member("versions", AllowedList(Allowed::Str(names)))?;
        if let Some(version) = ty.init_version() {
            model.member("init_version", Quoted(version))?;
        }
        return model.end();
    }
    let mut params = model.object("params")?;
    for param in ty.model.params {
        print_param(params.object(param.name)?, ty, param)?;
    }
    params.end()?;
    let names = ty.model.params.iter().map(|param| param.name);
    print_order(&mut model, "param_order", names)?;
    if ty.versions().next().is_some() {
        let mut versions = model.object("versions")?;
        for version in ty.versions() {
            print_values(versions.object(version.name)?, in_order(ty, version))?;
        }
        versions.end()?;
        let names = ty.versions().map(|version| version.name);
        print_order(&mut model, "version_order", names)?;
    }
    let is_offered = |name: &&str| ty.versions().any(|version| version.name == *name);
    if let Some(version) = ty.init_version().filter(is_offered) {
        model.member("init_version", Quoted(version))?;
    }
    model.end()
}

/// The values of a version, in declaration order.
fn in_order<'a>(ty: &Type<'a>, version: &Version<'a>) -> impl Iterator<Item = Param<'a>> {
    let values = version.values;
    let of = |param: &ParamDef<'a>| values.iter().find(|value| value.name == param.name);
    ty.model.params.iter().filter_map(of).copied()
}

/// Prints the names of an object's members in their order, which JSON does not keep. One alone has
/// none.
fn print_order<'a>(
    out: &mut Object<'_, '_>,
    name: &str,
    names: impl Iterator<Item = &'a str> + Clone,
) -> fmt::Result {
    match names.clone().nth(1) {
        Some(_) => out.member(name, QuotedList(names)),
        None => Ok(()),
    }
}

fn print_param<'a>(mut out: Object<'_, '_>, ty: &Type<'a>, param: &ParamDef<'a>) -> fmt::Result {
    let allowed = ty.allowed(param);
    out.member("type", Quoted(param.kind))?;
    match allowed {
        Allowed::Any => {}
        // Not a list, so that readers who know no other bounds take it for any text: what they
        // offer beyond it is refused when it is written.
        Allowed::Ascii { max } => out.member("max_length", max)?,
        Allowed::Bool(_) | Allowed::Int(_) | Allowed::Str(_) => {
            out.member("allowed_values", AllowedList(allowed))?;
        }
    }
    // Also as numbers, for readers that would rather not take a string apart.
    if let Allowed::Int([range]) = allowed {
        out.member("minimum", range.min)?;
        out.member("maximum", range.max)?;
    }
    if !param.description.is_empty() {
        out.member("description", Quoted(param.description))?;
    }
    out.member("init_value", Literal(ty.init(param)))?;
    if let Some(off) = ty.stated_off(param) {
        out.member("off_value", Literal(off))?;
    }
    if param.runtime {
        out.member("runtime", true)?;
    }
    if !param.requires.is_empty() {
        let mut requires = out.object("requires")?;
        for other in ty.model.params {
            let mut required = param.requires.iter();
            if let Some(required) = required.find(|required| required.param == other.name) {
                requires.member(required.param, AllowedList(required.allowed))?;
            }
        }
        requires.end()?;
    }
    out.end()
}

/// Prints parameters as the members of an object.
pub(super) fn print_values<'a>(
    mut out: Object<'_, '_>,
    values: impl Iterator<Item = Param<'a>>,
) -> fmt::Result {
    for param in values {
        out.member(param.name, Literal(param.value))?;
    }
    out.end()
}

/// A source as a file that can be kept and checked against destinations later. Prints as JSON, with
/// a newline at the end.
#[derive(Clone, Copy, Debug)]
pub struct ParameterList<'a, L> {
    /// The device model.
    pub model: &'a str,
    /// The parameters in effect.
    pub params: L,
}

impl<'p, L> fmt::Display for ParameterList<'_, L>
where
    L: Iterator<Item = Param<'p>> + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut root = Object::root(f)?;
        root.member("model", Quoted(self.model))?;
        print_values(root.object("params")?, self.params.clone())?;
        root.end()?;
        f.write_str("\n")
    }
}
