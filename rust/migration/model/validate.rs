// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Finding mistakes in tables, while they are compiled.
//!
//! Everything here is `const`, hence the loops by hand.

use super::{Allowed, Model, Narrowed, ParamDef, Version, MAX_PARAMS, MAX_TEXTS};
use crate::value::{model_problem, name_problem, Kind, Param, Value, MAX_STR_LEN, RESERVED_NAMES};
use compare::{allows, is_within, kind_eq, listed, str_eq, value_eq};

pub(crate) mod compare;
mod types;

const fn is_reserved(name: &str) -> bool {
    let mut i = 0;
    while i < RESERVED_NAMES.len() {
        if str_eq(RESERVED_NAMES[i], name) {
            return true;
        }
        i += 1;
    }
    false
}

/// What is wrong with a name that a table gives to a parameter or version.
const fn table_name_problem(name: &str) -> Option<&'static str> {
    if name_problem(name).is_some() {
        return Some("a name is empty, too long, or contains '=', '/' or white space");
    }
    if is_reserved(name) {
        return Some("a name is reserved");
    }
    None
}

const fn value_problem(value: &Value<'_>) -> Option<&'static str> {
    match value.problem() {
        Some(_) => Some("a string value is too long or contains a control character"),
        None => None,
    }
}

/// What is wrong with what is allowed for a parameter of this type.
const fn allowed_problem(allowed: &Allowed<'_>, kind: Kind) -> Option<&'static str> {
    let (list_kind, len) = match allowed {
        Allowed::Any => return None,
        Allowed::Bool(allowed) => (Kind::Bool, allowed.len()),
        Allowed::Int(allowed) => (Kind::Int, allowed.len()),
        Allowed::Str(allowed) => (Kind::Str, allowed.len()),
        Allowed::Ascii { max } if 0 < *max && *max <= MAX_STR_LEN => (Kind::Str, 1),
        Allowed::Ascii { .. } => {
            return Some("texts allowed are of none or of too many characters")
        }
    };
    if !kind_eq(list_kind, kind) {
        return Some("allowed values are not of the parameter's type");
    }
    if len == 0 {
        return Some("a list of allowed values is empty");
    }
    let mut i = 0;
    while i < len {
        match allowed {
            // No list.
            Allowed::Any | Allowed::Ascii { .. } => {}
            Allowed::Bool(allowed) => {
                if i > 0 && allowed[i] == allowed[i - 1] || i > 1 {
                    return Some("an allowed value is listed twice");
                }
            }
            Allowed::Int(allowed) => {
                if allowed[i].min > allowed[i].max {
                    return Some("a range of integers is empty");
                }
                if i > 0 && allowed[i].min <= allowed[i - 1].max {
                    return Some("ranges of integers overlap or are not ascending");
                }
            }
            Allowed::Str(allowed) => {
                if let Some(problem) = value_problem(&Value::Str(allowed[i])) {
                    return Some(problem);
                }
                let mut j = 0;
                while j < i {
                    if str_eq(allowed[i], allowed[j]) {
                        return Some("an allowed value is listed twice");
                    }
                    j += 1;
                }
            }
        }
        i += 1;
    }
    None
}

impl ParamDef<'_> {
    /// Whether the parameter takes texts that are not listed, which needs room of its own in [`super::Values`].
    pub(super) const fn takes_text(&self) -> bool {
        matches!(
            (self.kind, &self.allowed),
            (Kind::Str, Allowed::Any | Allowed::Ascii { .. })
        )
    }

    /// What is wrong with the parameter by itself.
    const fn problem(&self) -> Option<&'static str> {
        if let Some(problem) = table_name_problem(self.name) {
            return Some(problem);
        }
        if let Some(problem) = allowed_problem(&self.allowed, self.kind) {
            return Some(problem);
        }
        if let Some(problem) = self.fits(&self.init) {
            return Some(problem);
        }
        match &self.off {
            Some(off) => self.fits(off),
            // Then the requirement would always have to hold: narrow the other parameter instead.
            None if !self.requires.is_empty() => {
                Some("a parameter without off value cannot require anything")
            }
            None => None,
        }
    }

    /// What is wrong with one of the parameter's values in the table.
    const fn fits(&self, value: &Value<'_>) -> Option<&'static str> {
        if !kind_eq(value.kind(), self.kind) {
            return Some("a value is not of its parameter's type");
        }
        if !allows(&self.allowed, value) {
            return Some("a value is not among those its parameter allows");
        }
        value_problem(value)
    }
}

impl<'a> Model<'a> {
    /// The table itself, if nothing is wrong with it. Otherwise panics, which in a `const` or
    /// `static` is an error of the compiler.
    ///
    /// Checked are: names (form, reserved, twice), types and allowed values of all values, that
    /// requirements name earlier parameters and hold for new devices and all versions, that the
    /// versions name the same parameters and differ, that the values of a new device are those of
    /// the initial version, and the limits of [`super::Values`].
    ///
    /// None of these builds:
    ///
    /// ```compile_fail,E0080
    /// # use migration::{model::*, value::*};
    /// // An initial value that is not allowed.
    /// static MODEL: Model<'static> = Model {
    ///     name: "example.org/card",
    ///     params: &[ParamDef {
    ///         allowed: Allowed::Int(&[IntRange::new(1, 4)]),
    ///         ..ParamDef::new("ports", Value::Int(5))
    ///     }],
    ///     versions: &[],
    ///     init_version: None,
    /// }
    /// .validated();
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use migration::{model::*, value::*};
    /// // A version that names an unknown parameter.
    /// static MODEL: Model<'static> = Model {
    ///     name: "example.org/card",
    ///     params: &[],
    ///     versions: &[Version {
    ///         name: "v1",
    ///         values: &[Param { name: "ports", value: Value::Int(1) }],
    ///     }],
    ///     init_version: Some("v1"),
    /// }
    /// .validated();
    /// ```
    ///
    /// ```compile_fail,E0080
    /// # use migration::{model::*, value::*};
    /// // A name that another file of the directory has.
    /// static MODEL: Model<'static> = Model {
    ///     name: "example.org/card",
    ///     params: &[ParamDef::new("version", Value::Int(1))],
    ///     versions: &[],
    ///     init_version: None,
    /// }
    /// .validated();
    /// ```
    pub const fn validated(self) -> Self {
        if let Some(problem) = self.problem() {
            panic!("{}", problem);
        }
        if let Some(problem) = self.size_problem() {
            panic!("{}", problem);
        }
        self
    }

    /// What stands against a device having the model.
    const fn size_problem(&self) -> Option<&'static str> {
        if self.params.len() > MAX_PARAMS {
            return Some("a model has too many parameters");
        }
        let mut texts = 0;
        let mut i = 0;
        while i < self.params.len() {
            if self.params[i].takes_text() {
                texts += 1;
            }
            i += 1;
        }
        if texts > MAX_TEXTS {
            return Some("a model has too many parameters that take text");
        }
        None
    }

    /// What is wrong with the model, if anything; [`Model::validated`] for tables that come from
    /// outside.
    pub const fn problem(&self) -> Option<&'static str> {
        if model_problem(self.name).is_some() {
            return Some("the device model string is malformed");
        }
        let mut i = 0;
        while i < self.params.len() {
            if let Some(problem) = self.params[i].problem() {
                return Some(problem);
            }
            if self.index_of(self.params[i].name, i).is_some() {
                return Some("two parameters have the same name");
            }
            if let Some(problem) = self.requires_problem(i) {
                return Some(problem);
            }
            i += 1;
        }
        if self.breaks_requirement(&[], &[]) {
            return Some("the initial values break a requirement");
        }
        self.versions_problem()
    }

    /// The position of a parameter among the first `end`.
    const fn index_of(&self, name: &str, end: usize) -> Option<usize> {
        let mut i = 0;
        while i < end {
            if str_eq(self.params[i].name, name) {
                return Some(i);
            }
            i += 1;
        }
        None
    }

    const fn requires_problem(&self, at: usize) -> Option<&'static str> {
        let requires = self.params[at].requires;
        let mut i = 0;
        while i < requires.len() {
            // Requiring only what is declared before leaves no room for a cycle.
            let Some(other) = self.index_of(requires[i].param, at) else {
                return Some("a requirement names no earlier parameter");
            };
            let other = &self.params[other];
            match requires[i].allowed {
                Allowed::Any => return Some("a requirement allows any value"),
                // Migration information has lists of what a parameter requires, and nothing else.
                Allowed::Ascii { .. } => return Some("a requirement does not list its values"),
                Allowed::Bool(_) | Allowed::Int(_) | Allowed::Str(_) => {}
            }
            if let Some(problem) = allowed_problem(&requires[i].allowed, other.kind) {
                return Some(problem);
            }
            if !is_within(&requires[i].allowed, &other.allowed) {
                return Some("a requirement names a value that is not allowed");
            }
            let mut j = 0;
            while j < i {
                if str_eq(requires[i].param, requires[j].param) {
                    return Some("a parameter requires the same parameter twice");
                }
                j += 1;
            }
            i += 1;
        }
        None
    }

    /// The value a new device has: from the first list that names the parameter.
    const fn start_value(
        &self,
        at: usize,
        values: &[Param<'a>],
        narrowed: &[Narrowed<'a>],
    ) -> Value<'a> {
        let param = &self.params[at];
        if let Some(value) = listed(values, param.name) {
            return value;
        }
        let mut i = 0;
        while i < narrowed.len() {
            if str_eq(narrowed[i].param, param.name) {
                return narrowed[i].init;
            }
            i += 1;
        }
        param.init
    }

    /// Whether a device with these values, and initial ones for the rest, breaks a requirement.
    const fn breaks_requirement(&self, values: &[Param<'a>], narrowed: &[Narrowed<'a>]) -> bool {
        let mut at = 0;
        while at < self.params.len() {
            let param = &self.params[at];
            let value = self.start_value(at, values, narrowed);
            let is_off = match &param.off {
                Some(off) => value_eq(off, &value),
                None => false,
            };
            let mut i = 0;
            while i < param.requires.len() && !is_off {
                let required = &param.requires[i];
                let Some(other) = self.index_of(required.param, at) else {
                    return true;
                };
                if !allows(
                    &required.allowed,
                    &self.start_value(other, values, narrowed),
                ) {
                    return true;
                }
                i += 1;
            }
            at += 1;
        }
        false
    }

    const fn versions_problem(&self) -> Option<&'static str> {
        let mut i = 0;
        while i < self.versions.len() {
            let version = &self.versions[i];
            if let Some(problem) = table_name_problem(version.name) {
                return Some(problem);
            }
            if let Some(problem) = self.bundle_problem(version) {
                return Some(problem);
            }
            let mut j = 0;
            while j < i {
                let other = &self.versions[j];
                if str_eq(version.name, other.name) {
                    return Some("two versions have the same name");
                }
                if version.values.len() != other.values.len() {
                    return Some("versions do not name the same parameters");
                }
                let mut differs = false;
                let mut k = 0;
                while k < version.values.len() {
                    match listed(other.values, version.values[k].name) {
                        None => return Some("versions do not name the same parameters"),
                        Some(value) => differs |= !value_eq(&value, &version.values[k].value),
                    }
                    k += 1;
                }
                if !differs {
                    return Some("two versions have the same values");
                }
                j += 1;
            }
            i += 1;
        }
        self.init_version_problem(self.init_version, &[])
    }

    /// What is wrong with the values of a version by themselves.
    const fn bundle_problem(&self, version: &Version<'a>) -> Option<&'static str> {
        let values = version.values;
        let mut i = 0;
        while i < values.len() {
            let Some(param) = self.index_of(values[i].name, self.params.len()) else {
                return Some("a version names an unknown parameter");
            };
            if let Some(problem) = self.params[param].fits(&values[i].value) {
                return Some(problem);
            }
            let mut j = 0;
            while j < i {
                if str_eq(values[i].name, values[j].name) {
                    return Some("a version names a parameter twice");
                }
                j += 1;
            }
            i += 1;
        }
        if self.breaks_requirement(values, &[]) {
            return Some("the values of a version break a requirement");
        }
        None
    }

    /// What is wrong with the initial version of a type.
    const fn init_version_problem(
        &self,
        name: Option<&str>,
        narrowed: &[Narrowed<'a>],
    ) -> Option<&'static str> {
        let Some(name) = name else {
            return if self.versions.is_empty() {
                None
            } else {
                Some("there are versions, but no initial one")
            };
        };
        let mut i = 0;
        while i < self.versions.len() {
            if str_eq(self.versions[i].name, name) {
                let values = self.versions[i].values;
                let mut at = 0;
                while at < self.params.len() {
                    if let Some(value) = listed(values, self.params[at].name) {
                        if !value_eq(&value, &self.start_value(at, &[], narrowed)) {
                            return Some("the initial values are not those of the initial version");
                        }
                    }
                    at += 1;
                }
                return None;
            }
            i += 1;
        }
        Some("the initial version is unknown")
    }
}
