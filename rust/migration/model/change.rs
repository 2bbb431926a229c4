// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Changing values: what may change when, and why not.

use super::{
    parse_model, parse_value, parse_version, Allowed, NotAmong, ParamDef, ParseError, Type, Unmet,
    Values, Version,
};
use crate::value::{Kind, Value};
use core::fmt;

/// What an instance is being used for, which decides what of it may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InUse {
    /// Nobody has it open: everything may change.
    Closed,
    /// It is open: only parameters that shape nothing but the state representation may change.
    Open,
    /// State is being saved or loaded: nothing may change, so that the two setup records of the
    /// stream agree.
    Migrating,
}

/// What kind of refusal it is; the caller gives each kind its errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetClass {
    /// The value is at fault. For EINVAL.
    Invalid,
    /// The moment is. For EBUSY.
    Busy,
}

/// Why a value was not set. Prints as one line: `fifo-depth: 32 is not one of 16, 64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetError<'a> {
    /// The model has no such parameter.
    NoParam,
    /// The text is no value of the parameter's type.
    Parse {
        /// The parameter.
        name: &'a str,
        /// What is wrong.
        error: ParseError,
    },
    /// The value is of another type.
    Kind {
        /// The parameter.
        name: &'a str,
        /// The type it has.
        expected: Kind,
    },
    /// The value is not allowed.
    NotAllowed {
        /// The parameter.
        name: &'a str,
        /// The value.
        value: Value<'a>,
        /// The values that are.
        allowed: Allowed<'a>,
    },
    /// With this value, the parameter or another one would miss what it requires.
    Unmet(Unmet<'a>),
    /// The parameter may not change now.
    Busy {
        /// The parameter.
        name: &'a str,
        /// Why not.
        in_use: InUse,
    },
    /// The text is no version name.
    ParseVersion(ParseError),
    /// The text is not the model.
    NoModel(&'a str),
    /// There is no such version, or the type does not offer it.
    NoVersion {
        /// The name asked for.
        name: &'a str,
        /// The type.
        ty: &'a Type<'a>,
    },
}

impl SetError<'_> {
    /// What kind of refusal it is.
    pub const fn class(&self) -> SetClass {
        match self {
            Self::Busy { .. } => SetClass::Busy,
            _ => SetClass::Invalid,
        }
    }
}

impl fmt::Display for SetError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoParam => f.write_str("no such parameter"),
            Self::Parse { name, error } => write!(f, "{name}: {error}"),
            Self::Kind { name, expected } => {
                write!(f, "{name}: the value is not of type {expected}")
            }
            Self::NotAllowed {
                name,
                value,
                allowed,
            } => write!(f, "{name}: {}", NotAmong(*value, *allowed)),
            Self::Unmet(unmet) => unmet.fmt(f),
            Self::Busy { name, in_use } => {
                let why = match in_use {
                    InUse::Migrating => "while state is saved or loaded",
                    _ => "while the device is open",
                };
                write!(f, "{name}: cannot change {why}")
            }
            Self::ParseVersion(error) => write!(f, "version: {error}"),
            Self::NoModel(model) => write!(f, "device_model: this device is a {model}"),
            Self::NoVersion { name, ty } => {
                write!(f, "version: {name} is not one of")?;
                for (index, version) in ty.versions().enumerate() {
                    let separator = if index == 0 { " " } else { ", " };
                    write!(f, "{separator}{}", version.name)?;
                }
                Ok(())
            }
        }
    }
}

impl Values<'_> {
    /// These values with another one at a position in the declaration order.
    pub fn with<'e>(
        &'e self,
        position: usize,
        value: Value<'e>,
        in_use: InUse,
    ) -> Result<Self, SetError<'e>> {
        let param = self.params().get(position).ok_or(SetError::NoParam)?;
        let name = param.name;
        if value.kind() != param.kind {
            let expected = param.kind;
            return Err(SetError::Kind { name, expected });
        }
        let allowed = self.ty().allowed(param);
        if !allowed.contains(&value) {
            return Err(SetError::NotAllowed {
                name,
                value,
                allowed,
            });
        }
        may_change(param, in_use)?;
        let value_of = |other| match other == position {
            true => Some(value),
            false => self.get(other),
        };
        if let Some(unmet) = self.ty().unmet(value_of).next() {
            return Err(SetError::Unmet(unmet));
        }
        let mut new = self.clone();
        new.store(position, &value);
        Ok(new)
    }

    /// These values with another one, given as text: [`parse_value`].
    pub fn with_text<'e>(
        &'e self,
        position: usize,
        text: &'e [u8],
        in_use: InUse,
    ) -> Result<Self, SetError<'e>> {
        let param = self.params().get(position).ok_or(SetError::NoParam)?;
        let value = parse_value(param.kind, text).map_err(|error| SetError::Parse {
            name: param.name,
            error,
        })?;
        self.with(position, value, in_use)
    }

    /// These values with those of a version in place of the ones it names. The version is given as
    /// text: [`parse_version`]. Values that stay the same are not in the way while the device is
    /// open.
    pub fn with_version<'e>(&'e self, text: &'e [u8], in_use: InUse) -> Result<Self, SetError<'e>> {
        let name = parse_version(text).map_err(SetError::ParseVersion)?;
        self.with_version_named(name, in_use)
    }

    /// These values with those of the initial version, if `text` is the model (one trailing newline
    /// is accepted). A device has one model, so there is nothing else to choose.
    pub fn with_model<'e>(&'e self, text: &'e [u8], in_use: InUse) -> Result<Self, SetError<'e>> {
        if parse_model(text) != Ok(self.model().name) {
            return Err(SetError::NoModel(self.model().name));
        }
        match self.ty().init_version() {
            Some(version) => self.with_version_named(version, in_use),
            None => Ok(self.clone()),
        }
    }

    fn with_version_named<'e>(
        &'e self,
        name: &'e str,
        in_use: InUse,
    ) -> Result<Self, SetError<'e>> {
        let ty = self.ty();
        let version = ty
            .versions()
            .find(|version| version.name == name)
            .ok_or(SetError::NoVersion { name, ty })?;
        for (position, param) in self.params().iter().enumerate() {
            let new = bundled(version, param);
            if new.is_some() && new != self.get(position) {
                may_change(param, in_use)?;
            }
        }
        let value_of = |position| {
            let param = self.params().get(position)?;
            bundled(version, param).or_else(|| self.get(position))
        };
        if let Some(unmet) = ty.unmet(value_of).next() {
            return Err(SetError::Unmet(unmet));
        }
        let mut new = self.clone();
        for (position, param) in self.params().iter().enumerate() {
            if let Some(value) = bundled(version, param) {
                new.store(position, &value);
            }
        }
        Ok(new)
    }
}

/// The value that a version gives to a parameter.
fn bundled<'a>(version: &Version<'a>, param: &ParamDef<'_>) -> Option<Value<'a>> {
    let mut values = version.values.iter();
    values
        .find(|bundled| bundled.name == param.name)
        .map(|bundled| bundled.value)
}

/// Whether the parameter may change in this moment.
fn may_change<'a>(param: &ParamDef<'a>, in_use: InUse) -> Result<(), SetError<'a>> {
    let free = match in_use {
        InUse::Closed => true,
        InUse::Open => param.runtime,
        InUse::Migrating => false,
    };
    match free {
        true => Ok(()),
        false => Err(SetError::Busy {
            name: param.name,
            in_use,
        }),
    }
}
