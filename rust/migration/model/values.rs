// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The values an instance has.

use super::{
    parse_value, parse_version, Allowed, Model, ParamDef, ParseError, Type, Unmet, Version,
    MAX_PARAMS, MAX_TEXTS,
};
use crate::value::{Kind, Param, Value, MAX_STR_LEN};
use core::fmt;

/// Text of bounded length, kept in place.
#[derive(Clone, Copy, Debug)]
struct Text {
    len: u8,
    bytes: [u8; MAX_STR_LEN],
}

impl Text {
    const EMPTY: Text = Text {
        len: 0,
        bytes: [0; MAX_STR_LEN],
    };

    fn new(text: &str) -> Option<Self> {
        let mut new = Self::EMPTY;
        new.bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        new.len = u8::try_from(text.len()).ok()?;
        Some(new)
    }

    fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }
}

/// One value, as small as it gets.
#[derive(Clone, Copy, Debug)]
enum Slot {
    Bool(bool),
    Int(u64),
    /// Which of the strings the model allows.
    Choice(u16),
    /// Which of the texts.
    Text(u8),
}

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
            Self::Kind { name, expected } => write!(f, "{name}: the value is not of type {expected}"),
            Self::NotAllowed {
                name,
                value,
                allowed,
            } => write!(f, "{name}: {value} is not one of {allowed}"),
            Self::Unmet(unmet) => unmet.fmt(f),
            Self::Busy { name, in_use } => {
                let why = match in_use {
                    InUse::Migrating => "while state is saved or loaded",
                    _ => "while the device is open",
                };
                write!(f, "{name}: cannot change {why}")
            }
            Self::ParseVersion(error) => error.fmt(f),
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

/// The parameter values of an instance of a type.
///
/// They always are values the type allows, and meet every requirement. Changing one is making a new
/// set with it and, when everything else agrees (the capacity of the parent, say), storing that in
/// place of the old one: a refused change changes nothing.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    ty: &'a Type<'a>,
    slots: [Slot; MAX_PARAMS],
    texts: [Text; MAX_TEXTS],
}

impl<'a> Values<'a> {
    /// What a new instance of the type has. The type's tables are valid: see [`Type::validated`].
    pub fn new(ty: &'a Type<'a>) -> Self {
        let mut values = Self {
            ty,
            slots: [Slot::Int(0); MAX_PARAMS],
            texts: [Text::EMPTY; MAX_TEXTS],
        };
        for (position, param) in ty.model.params.iter().enumerate() {
            values.store(position, &ty.init(param));
        }
        values
    }

    /// The type.
    pub const fn ty(&self) -> &'a Type<'a> {
        self.ty
    }

    /// The model.
    pub const fn model(&self) -> &'a Model<'a> {
        self.ty.model
    }

    fn params(&self) -> &'a [ParamDef<'a>] {
        self.ty.model.params
    }

    /// The value at a position in the declaration order.
    pub fn get(&self, position: usize) -> Option<Value<'_>> {
        let param = self.params().get(position)?;
        Some(match *self.slots.get(position)? {
            Slot::Bool(value) => Value::Bool(value),
            Slot::Int(value) => Value::Int(value),
            Slot::Choice(choice) => match param.allowed {
                Allowed::Str(allowed) => Value::Str(allowed.get(usize::from(choice))?),
                _ => return None,
            },
            Slot::Text(text) => Value::Str(self.texts.get(usize::from(text))?.as_str()),
        })
    }

    /// The value of the parameter of this name.
    pub fn named(&self, name: &str) -> Option<Value<'_>> {
        self.get(self.model().position(name)?)
    }

    /// All parameters, in declaration order.
    pub fn all(&self) -> impl Iterator<Item = Param<'_>> + Clone + use<'_, 'a> {
        let of = |(position, param): (usize, &'a ParamDef<'a>)| {
            Some(Param {
                name: param.name,
                value: self.get(position)?,
            })
        };
        self.params().iter().enumerate().filter_map(of)
    }

    /// The migration parameter list: the parameters in effect, whose value differs from their off
    /// value, in declaration order.
    pub fn effective(&self) -> impl Iterator<Item = Param<'_>> + Clone + use<'_, 'a> {
        self.all()
            .zip(self.params())
            .filter(|(param, def)| def.off != Some(param.value))
            .map(|(param, _)| param)
    }

    /// The name of the version whose values these are; `None` if they are those of no version, in
    /// which case the version file reads [`CUSTOM_VERSION`](super::CUSTOM_VERSION).
    pub fn version(&self) -> Option<&'a str> {
        let is_met = |version: &&Version<'_>| {
            let mut bundled = version.values.iter();
            bundled.all(|param| self.named(param.name) == Some(param.value))
        };
        self.ty.versions().find(is_met).map(|version| version.name)
    }

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
        let allowed = self.ty.allowed(param);
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
        if let Some(unmet) = self.ty.unmet(value_of).next() {
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
    pub fn with_version<'e>(
        &'e self,
        text: &'e [u8],
        in_use: InUse,
    ) -> Result<Self, SetError<'e>> {
        let name = parse_version(text).map_err(SetError::ParseVersion)?;
        let ty = self.ty;
        let version = ty
            .versions()
            .find(|version| version.name == name)
            .ok_or(SetError::NoVersion { name, ty })?;
        let bundled = |param: &ParamDef<'_>| {
            let mut values = version.values.iter();
            values.find(|bundled| bundled.name == param.name)
        };
        for (position, param) in self.params().iter().enumerate() {
            let changes = bundled(param).is_some_and(|new| self.get(position) != Some(new.value));
            if changes {
                may_change(param, in_use)?;
            }
        }
        let value_of = |position| {
            let param = self.params().get(position)?;
            match bundled(param) {
                Some(new) => Some(new.value),
                None => self.get(position),
            }
        };
        if let Some(unmet) = ty.unmet(value_of).next() {
            return Err(SetError::Unmet(unmet));
        }
        let mut new = self.clone();
        for (position, param) in self.params().iter().enumerate() {
            if let Some(bundled) = bundled(param) {
                new.store(position, &bundled.value);
            }
        }
        Ok(new)
    }

    /// Stores a value that was found to be allowed.
    fn store(&mut self, position: usize, value: &Value<'_>) {
        let slot = match *value {
            Value::Bool(value) => Some(Slot::Bool(value)),
            Value::Int(value) => Some(Slot::Int(value)),
            Value::Str(text) => self.store_str(position, text),
        };
        if let (Some(slot), Some(place)) = (slot, self.slots.get_mut(position)) {
            *place = slot;
        }
    }

    fn store_str(&mut self, position: usize, text: &str) -> Option<Slot> {
        let (earlier, rest) = self.params().split_at_checked(position)?;
        if let Allowed::Str(allowed) = rest.first()?.allowed {
            let choice = allowed.iter().position(|choice| *choice == text)?;
            return u16::try_from(choice).ok().map(Slot::Choice);
        }
        // The parameters that take any text own the texts in their order.
        let index = earlier.iter().filter(|param| param.takes_text()).count();
        *self.texts.get_mut(index)? = Text::new(text)?;
        u8::try_from(index).ok().map(Slot::Text)
    }
}

impl PartialEq for Values<'_> {
    /// Whether two sets hold the same values of the same model.
    fn eq(&self, other: &Self) -> bool {
        self.model() == other.model() && self.all().eq(other.all())
    }
}

impl Eq for Values<'_> {}

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
