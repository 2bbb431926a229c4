// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The values an instance has.

use super::{Allowed, Model, ParamDef, Type, Version, MAX_PARAMS, MAX_TEXTS};
use crate::value::{Param, Value, MAX_STR_LEN};

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

/// The parameter values of an instance of a type.
///
/// They always are values the type allows, and meet every requirement. Changing one is making a new
/// set with it ([`Values::with`]) and, when everything else agrees (the capacity of the parent,
/// say), storing that in place of the old one: a refused change changes nothing.
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

    pub(super) fn params(&self) -> &'a [ParamDef<'a>] {
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

    /// Stores a value that was found to be allowed.
    pub(super) fn store(&mut self, position: usize, value: &Value<'_>) {
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
        // The parameters whose texts are not listed own the texts in their order.
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
