// SPDX-License-Identifier: GPL-2.0 OR MIT

//! An instance and the types that can take its state, in the form of the July 2020 proposal.

use super::json::{Literal, Object, Quoted};
use super::migration_info::print_values;
use crate::check::check;
use crate::model::validate::compare::{allowed_eq, bytes_eq, is_single, str_eq};
use crate::model::{Model, Type, Values};
use core::fmt;

/// Types that differ in nothing but the values that their names are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family<'a> {
    /// The names of the types, with `${parameter}` where they carry the value of a parameter.
    pub pattern: &'a str,
    /// The types. Each allows exactly one value of the parameters in the pattern.
    pub types: &'a [Type<'a>],
}

impl<'a> Family<'a> {
    /// The family itself, if nothing is wrong with it. Otherwise panics, which in a `const` or
    /// `static` is an error of the compiler.
    ///
    /// Checked are that the types are valid ones of the same model, that the pattern names
    /// parameters of it of which each type allows one value, and that the types allow the same of
    /// the other parameters.
    pub const fn validated(self) -> Self {
        if let Some(problem) = self.problem() {
            panic!("{}", problem);
        }
        self
    }

    /// What is wrong with the family, if anything.
    pub const fn problem(&self) -> Option<&'static str> {
        let [first, ..] = self.types else {
            return Some("a family has no types");
        };
        let mut rest = self.pattern.as_bytes();
        while let Some((variable, after)) = next_variable(rest) {
            if position(first.model, variable).is_none() {
                return Some("a pattern names an unknown parameter");
            }
            rest = after;
        }
        let mut i = 0;
        while i < self.types.len() {
            let ty = &self.types[i];
            if let Some(problem) = ty.problem() {
                return Some(problem);
            }
            if !str_eq(ty.model.name, first.model.name)
                || ty.model.params.len() != first.model.params.len()
            {
                return Some("the types of a family have different models");
            }
            let mut at = 0;
            while at < ty.model.params.len() {
                let allowed = ty.allowed_at(at);
                if self.has_variable(ty.model.params[at].name) {
                    if !is_single(allowed) {
                        return Some("a type allows several values of a parameter in the pattern");
                    }
                } else if !allowed_eq(allowed, first.allowed_at(at)) {
                    return Some("the types of a family differ in a parameter not in the pattern");
                }
                at += 1;
            }
            i += 1;
        }
        None
    }

    const fn has_variable(&self, name: &str) -> bool {
        let mut rest = self.pattern.as_bytes();
        while let Some((variable, after)) = next_variable(rest) {
            if bytes_eq(variable, name.as_bytes()) {
                return true;
            }
            rest = after;
        }
        false
    }

    /// The name of one of the types: the pattern with the type's initial values put in.
    pub fn name_of(&self, ty: &'a Type<'a>) -> impl fmt::Display + 'a {
        Substituted {
            pattern: self.pattern,
            ty,
        }
    }
}

/// The name in the first `${name}` of a pattern, and what follows it.
const fn next_variable(mut pattern: &[u8]) -> Option<(&[u8], &[u8])> {
    while let [first, rest @ ..] = pattern {
        if let (b'$', [b'{', inner @ ..]) = (*first, rest) {
            let mut end = 0;
            while end < inner.len() {
                if inner[end] == b'}' {
                    let (name, [_, after @ ..]) = inner.split_at(end) else {
                        return None;
                    };
                    return Some((name, after));
                }
                end += 1;
            }
        }
        pattern = rest;
    }
    None
}

/// The position of a parameter in a model.
const fn position(model: &Model<'_>, name: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < model.params.len() {
        if bytes_eq(model.params[at].name.as_bytes(), name) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// A piece of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Takes a pattern apart. A `${` that is never closed is text.
fn parts(pattern: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = pattern;
    let mut variable = None;
    core::iter::from_fn(move || {
        if let Some(name) = variable.take() {
            return Some(Part::Variable(name));
        }
        if rest.is_empty() {
            return None;
        }
        let found = rest.split_once("${").and_then(|(text, after)| {
            let (name, after) = after.split_once('}')?;
            Some((text, name, after))
        });
        let (text, after) = match found {
            Some((text, name, after)) => {
                variable = Some(name);
                (text, after)
            }
            None => (rest, ""),
        };
        rest = after;
        Some(Part::Text(text))
    })
}

struct Substituted<'a> {
    pattern: &'a str,
    ty: &'a Type<'a>,
}

impl fmt::Display for Substituted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in parts(self.pattern) {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Variable(name) => match self.ty.model.param(name) {
                    Some(param) => self.ty.init(param).fmt(f)?,
                    None => write!(f, "${{{name}}}")?,
                },
            }
        }
        Ok(())
    }
}

/// An instance and the types that can take its state. Prints as JSON, with a newline at the end.
///
/// Of each type it gives the values with which an instance of it does: those of this one, and no
/// others. So what `${…}` in a type's name may stand for is one value, too.
#[derive(Clone, Copy, Debug)]
pub struct Compatible<'a> {
    /// The instance's type as user space names it.
    pub mdev_type: &'a str,
    /// The kind of device it is for user space: `vfio-pci`.
    pub device_api: &'a str,
    /// The instance's values.
    pub values: &'a Values<'a>,
    /// The types to choose from. Those that cannot take the state are left out.
    pub families: &'a [Family<'a>],
}

impl fmt::Display for Compatible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.values.model().name;
        let mut root = Object::root(f)?;
        let mut own = root.object("self")?;
        own.member("mdev_type", Quoted(self.mdev_type))?;
        own.member("device_api", Quoted(self.device_api))?;
        own.member("model", Quoted(model))?;
        print_values(own.object("params")?, self.values.effective())?;
        own.end()?;
        let mut compatible = root.objects("compatible")?;
        for family in self.families {
            // Of the types of a family no more than one has the value that its name is made of.
            let takes = |ty: &&Type<'_>| check(model, self.values.effective(), ty).next().is_none();
            let Some(ty) = family.types.iter().find(takes) else {
                continue;
            };
            let mut out = compatible.object()?;
            out.member("mdev_type", Quoted(family.pattern))?;
            out.member("model", Quoted(model))?;
            self.print_fitting(out.object("params")?, ty)?;
            out.end()?;
        }
        compatible.end()?;
        root.end()?;
        f.write_str("\n")
    }
}

impl Compatible<'_> {
    /// Prints what an instance of the type has to have of each parameter: what is in effect here, and
    /// the off value of what is not.
    fn print_fitting(&self, mut out: Object<'_, '_>, ty: &Type<'_>) -> fmt::Result {
        for param in ty.model.params {
            let mut listed = self.values.effective();
            let listed = listed.find(|listed| listed.name == param.name);
            if let Some(value) = listed.map(|listed| listed.value).or(ty.off(param)) {
                out.member(param.name, format_args!("[{}]", Literal(value)))?;
            }
        }
        out.end()
    }
}
