// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Finding mistakes in what a type says about its model.

use super::allowed_problem;
use super::compare::{allows, is_within, str_eq};
use crate::model::{Allowed, Type};

impl<'a> Type<'a> {
    /// The type itself, if nothing is wrong with it. Otherwise panics, which in a `const` or
    /// `static` is an error of the compiler.
    ///
    /// Checked are, beside everything that [`Model::validated`](crate::model::Model::validated) does: that the type names parameters
    /// of the model, allows only what the model does, and that its initial values are allowed, meet
    /// the requirements and are those of its initial version.
    pub const fn validated(self) -> Self {
        if let Some(problem) = self.problem() {
            panic!("{}", problem);
        }
        if let Some(problem) = self.model.size_problem() {
            panic!("{}", problem);
        }
        self
    }

    /// What is wrong with the type or its model, if anything; [`Type::validated`] for tables that
    /// come from outside.
    pub const fn problem(&self) -> Option<&'static str> {
        if let Some(problem) = self.model.problem() {
            return Some(problem);
        }
        let model = self.model;
        let mut i = 0;
        while i < self.narrowed.len() {
            let narrowed = &self.narrowed[i];
            let Some(at) = model.index_of(narrowed.param, model.params.len()) else {
                return Some("a type narrows an unknown parameter");
            };
            let param = &model.params[at];
            if let Some(problem) = allowed_problem(&narrowed.allowed, param.kind) {
                return Some(problem);
            }
            if !is_within(&narrowed.allowed, &param.allowed) {
                return Some("a type allows a value that its model does not");
            }
            if let Some(problem) = param.fits(&narrowed.init) {
                return Some(problem);
            }
            if !allows(&narrowed.allowed, &narrowed.init) {
                return Some("an initial value is not among those its type allows");
            }
            let mut j = 0;
            while j < i {
                if str_eq(narrowed.param, self.narrowed[j].param) {
                    return Some("a type narrows a parameter twice");
                }
                j += 1;
            }
            i += 1;
        }
        if model.breaks_requirement(&[], self.narrowed) {
            return Some("the initial values of a type break a requirement");
        }
        if self.may_break_always_on() {
            return Some("a parameter that a type cannot disable requires what is not always so");
        }
        model.init_version_problem(self.init_version(), self.narrowed)
    }
    /// What the type allows of the parameter at a position.
    pub(crate) const fn allowed_at(&self, at: usize) -> &Allowed<'a> {
        let name = self.model.params[at].name;
        let mut i = 0;
        while i < self.narrowed.len() {
            if str_eq(self.narrowed[i].param, name) {
                return &self.narrowed[i].allowed;
            }
            i += 1;
        }
        &self.model.params[at].allowed
    }

    /// Whether a parameter whose off value the type excludes requires something that the type lets
    /// another parameter miss. Set-up could then fail half way: it writes off values first.
    const fn may_break_always_on(&self) -> bool {
        let model = self.model;
        let mut at = 0;
        while at < model.params.len() {
            let param = &model.params[at];
            let can_be_off = match &param.off {
                Some(off) => allows(self.allowed_at(at), off),
                None => false,
            };
            let mut i = 0;
            while i < param.requires.len() && !can_be_off {
                let required = &param.requires[i];
                match model.index_of(required.param, at) {
                    Some(other) if is_within(self.allowed_at(other), &required.allowed) => {}
                    _ => return true,
                }
                i += 1;
            }
            at += 1;
        }
        false
    }
}
