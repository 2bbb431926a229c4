// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What migration information says, in plain lines, for readers that take no JSON apart.

use crate::model::{Allowed, ParamDef, Type};
use crate::value::Value;
use core::fmt;

/// Models and versions as plain lines: the model with a colon, then its versions. For readers that
/// know versions and no parameters.
#[derive(Clone, Copy, Debug)]
pub struct DeviceModels<'a> {
    /// What is offered of each model.
    pub types: &'a [Type<'a>],
}

impl fmt::Display for DeviceModels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ty in self.types {
            writeln!(f, "{}:", ty.model.name)?;
            for version in ty.versions() {
                writeln!(f, "{}", version.name)?;
            }
        }
        Ok(())
    }
}

/// The names of a type's parameters, one a line, in declaration order.
#[derive(Clone, Copy, Debug)]
pub struct ParamNames<'a>(pub &'a Type<'a>);

impl fmt::Display for ParamNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut params = self.0.model.params.iter();
        params.try_for_each(|param| writeln!(f, "{}", param.name))
    }
}

/// The off value of a parameter, as the file of the parameter has it. Nothing if instances of the
/// type cannot be given it.
#[derive(Clone, Copy, Debug)]
pub struct OffValue<'a>(pub &'a Type<'a>, pub &'a ParamDef<'a>);

impl fmt::Display for OffValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.off(self.1) {
            Some(value) => writeln!(f, "{value}"),
            None => Ok(()),
        }
    }
}

/// The values of a parameter that instances of the type can be given, one a line, ranges of integers
/// as `8-16`. Nothing if they are not listed: any value of the parameter's type, or any text of some
/// length.
#[derive(Clone, Copy, Debug)]
pub struct AllowedValues<'a>(pub &'a Type<'a>, pub &'a ParamDef<'a>);

impl fmt::Display for AllowedValues<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.allowed(self.1) {
            Allowed::Any | Allowed::Ascii { .. } => Ok(()),
            Allowed::Bool(allowed) => {
                let mut allowed = allowed.iter();
                allowed.try_for_each(|&value| writeln!(f, "{}", Value::Bool(value)))
            }
            Allowed::Int(allowed) => {
                let mut allowed = allowed.iter();
                allowed.try_for_each(|range| writeln!(f, "{range}"))
            }
            Allowed::Str(allowed) => {
                let mut allowed = allowed.iter();
                allowed.try_for_each(|text| writeln!(f, "{text}"))
            }
        }
    }
}
