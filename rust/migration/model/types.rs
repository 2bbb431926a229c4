// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A type: what one kind of instance offers of a model.

use super::{Allowed, Model, ParamDef, Version};
use crate::value::{InWords, Param, Value};
use core::fmt;

/// What a type allows of one parameter, where that is less than the model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrowed<'a> {
    /// The parameter's name.
    pub param: &'a str,
    /// The values instances of the type may have, all of them values the model allows.
    pub allowed: Allowed<'a>,
    /// The value a new instance has.
    pub init: Value<'a>,
}

/// A device model as one kind of instance offers it. Several types may share a model and differ in
/// the values they allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type<'a> {
    /// The model.
    pub model: &'a Model<'a>,
    /// The parameters of which the type allows less than the model.
    pub narrowed: &'a [Narrowed<'a>],
    /// The version a new instance has, if it is another than the model's.
    pub init_version: Option<&'a str>,
}

impl<'a> Type<'a> {
    /// The whole model.
    pub const fn of(model: &'a Model<'a>) -> Self {
        Self {
            model,
            narrowed: &[],
            init_version: None,
        }
    }

    fn narrowed(&self, param: &ParamDef<'_>) -> Option<&'a Narrowed<'a>> {
        self.narrowed.iter().find(|n| n.param == param.name)
    }

    /// The values an instance may have for a parameter of the model.
    pub fn allowed(&self, param: &ParamDef<'a>) -> Allowed<'a> {
        match self.narrowed(param) {
            Some(narrowed) => narrowed.allowed,
            None => param.allowed,
        }
    }

    /// The value a new instance has for a parameter of the model.
    pub fn init(&self, param: &ParamDef<'a>) -> Value<'a> {
        match self.narrowed(param) {
            Some(narrowed) => narrowed.init,
            None => param.init,
        }
    }

    /// The off value of a parameter of the model, if instances may be given it. If they may not, it
    /// still is what a source has that does not name the parameter.
    pub fn off(&self, param: &ParamDef<'a>) -> Option<Value<'a>> {
        param.off.filter(|off| self.allows(param, off))
    }

    /// The off value as migration information has it: that of the model, unless the type leaves it
    /// out of what the model allows.
    pub(crate) fn stated_off(&self, param: &ParamDef<'a>) -> Option<Value<'a>> {
        match self.narrowed(param) {
            Some(_) => self.off(param),
            None => param.off,
        }
    }

    /// Whether an instance may be given the value, as far as the parameter alone decides.
    pub fn allows(&self, param: &ParamDef<'a>, value: &Value<'_>) -> bool {
        value.kind() == param.kind
            && value.problem().is_none()
            && self.allowed(param).contains(value)
    }

    /// Whether instances may have all values of a version.
    pub fn offers(&self, version: &Version<'_>) -> bool {
        version.values.iter().all(|bundled| {
            let param = self.model.param(bundled.name);
            param.is_some_and(|param| self.allows(param, &bundled.value))
        })
    }

    /// The versions that instances may have, in the order of the model.
    pub fn versions(&self) -> impl Iterator<Item = &'a Version<'a>> + Clone {
        let ty = *self;
        self.model.versions.iter().filter(move |v| ty.offers(v))
    }

    /// The version a new instance has.
    pub const fn init_version(&self) -> Option<&'a str> {
        match self.init_version {
            Some(version) => Some(version),
            None => self.model.init_version,
        }
    }

    /// What set-up writes first: the off values, in reverse declaration order, so that nothing is
    /// switched off while a later parameter still requires it. In a validated type nothing that is
    /// always on requires what can be off, so every one of these writes is good.
    pub fn off_values(&self) -> impl Iterator<Item = Param<'a>> + Clone {
        let ty = *self;
        let off = move |param: &'a ParamDef<'a>| {
            let name = param.name;
            ty.off(param).map(|value| Param { name, value })
        };
        self.model.params.iter().rev().filter_map(off)
    }

    /// The requirements that the values `value_of` gives (by position in the declaration order) do
    /// not meet. Those of parameters that are off are not tested, nor where a value is missing.
    pub fn unmet<'v, F>(&self, value_of: F) -> impl Iterator<Item = Unmet<'v>>
    where
        'a: 'v,
        F: Fn(usize) -> Option<Value<'v>>,
    {
        let model = self.model;
        // A flat walk over (parameter, requirement) keeps this an iterator without allocation.
        let mut param_at = 0;
        let mut requirement_at = 0;
        core::iter::from_fn(move || loop {
            let param = model.params.get(param_at)?;
            let value = value_of(param_at).filter(|value| param.off != Some(*value));
            let (Some(value), Some(requirement)) = (value, param.requires.get(requirement_at))
            else {
                param_at += 1;
                requirement_at = 0;
                continue;
            };
            requirement_at += 1;
            match model.position(requirement.param).and_then(&value_of) {
                Some(other_value) if !requirement.allowed.contains(&other_value) => {
                    return Some(Unmet {
                        name: param.name,
                        value,
                        other: requirement.param,
                        other_value,
                        allowed: requirement.allowed,
                    });
                }
                _ => {}
            }
        })
    }
}

/// A requirement that is not met. Prints as one line:
/// `msi: on requires num-ports 2, 4, not 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmet<'a> {
    /// The parameter that requires something.
    pub name: &'a str,
    /// Its value, which is not its off value.
    pub value: Value<'a>,
    /// The parameter required.
    pub other: &'a str,
    /// Its value.
    pub other_value: Value<'a>,
    /// The values that would do.
    pub allowed: Allowed<'a>,
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} requires {} {}, not {}",
            self.name,
            InWords(self.value),
            self.other,
            self.allowed,
            InWords(self.other_value)
        )
    }
}
