// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The forms that documents are made of: objects without duplicate members, bounded lists, strings, values.

use std::fmt;

use bumpalo::collections::Vec as ArenaVec;
use migration::value::Value;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Context, MAX_ENTRIES};

/// What becomes of the members of an object.
pub(super) trait Object<'a>: Sized {
    /// What it is all in all.
    type Output;

    /// Takes the value of one member: each name comes once.
    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error>;

    /// All members have come.
    fn finish<E: Error>(self, context: &Context<'a>) -> Result<Self::Output, E>;
}

/// What a member of an object is that is a list: its members are entries, in their order.
pub(super) trait Entry<'a> {
    /// An entry.
    type Item: 'a;

    /// Reads the entry `name`, which comes after `earlier`.
    fn read<A: MapAccess<'a>>(
        &self,
        context: &Context<'a>,
        name: &'a str,
        earlier: &[Self::Item],
        map: &mut A,
    ) -> Result<Self::Item, A::Error>;
}

/// An object that is a list.
pub(super) struct List<'a, E: Entry<'a>> {
    entry: E,
    items: ArenaVec<'a, E::Item>,
}

impl<'a, E: Entry<'a>> List<'a, E> {
    /// Reads it, as the value of the member that `map` is at.
    pub(super) fn read<A: MapAccess<'a>>(
        context: &Context<'a>,
        entry: E,
        map: &mut A,
    ) -> Result<&'a [E::Item], A::Error> {
        let items = ArenaVec::new_in(context.arena);
        map.next_value_seed(ObjectSeed::new(context, Self { entry, items }))
    }

    /// Takes it from an object that is being read.
    pub(super) fn visit<A: MapAccess<'a>>(
        context: &Context<'a>,
        entry: E,
        map: A,
    ) -> Result<&'a [E::Item], A::Error> {
        let items = ArenaVec::new_in(context.arena);
        ObjectSeed::new(context, Self { entry, items }).visit_map(map)
    }
}

impl<'a, E: Entry<'a>> Object<'a> for List<'a, E> {
    type Output = &'a [E::Item];

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        name: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let item = self.entry.read(context, name, &self.items, map)?;
        self.items.push(item);
        Ok(())
    }

    fn finish<Er: Error>(self, _: &Context<'a>) -> Result<Self::Output, Er> {
        Ok(self.items.into_bump_slice())
    }
}

/// Reads an object.
pub(super) struct ObjectSeed<'c, 'a, O> {
    context: &'c Context<'a>,
    object: O,
}

impl<'c, 'a, O> ObjectSeed<'c, 'a, O> {
    pub(super) fn new(context: &'c Context<'a>, object: O) -> Self {
        Self { context, object }
    }
}

impl<'a, O: Object<'a>> DeserializeSeed<'a> for ObjectSeed<'_, 'a, O> {
    type Value = O::Output;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<O::Output, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a, O: Object<'a>> Visitor<'a> for ObjectSeed<'_, 'a, O> {
    type Value = O::Output;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<O::Output, A::Error> {
        let context = self.context;
        let mut seen = ArenaVec::new_in(context.arena);
        while let Some(name) = map.next_key_seed(Text(context))? {
            context.enter(name);
            if seen.contains(&name) {
                return Err(Error::custom("the member is there twice"));
            }
            if seen.len() == MAX_ENTRIES {
                return Err(Error::custom(format!("more than {MAX_ENTRIES} members")));
            }
            seen.push(name);
            self.object.member(context, name, &mut map)?;
            context.leave();
        }
        self.object.finish(context)
    }
}

/// Reads a string.
#[derive(Clone, Copy)]
pub(super) struct Text<'c, 'a>(pub(super) &'c Context<'a>);

impl<'a> DeserializeSeed<'a> for Text<'_, 'a> {
    type Value = &'a str;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<&'a str, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Text<'_, 'a> {
    type Value = &'a str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<&'a str, E> {
        Ok(text)
    }

    /// One with escapes in it.
    fn visit_str<E: Error>(self, text: &str) -> Result<&'a str, E> {
        Ok(self.0.arena.alloc_str(text))
    }
}

/// A parameter's value, whose type is known only later.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    /// One that a parameter can have.
    Value(Value<'a>),
    /// A whole number of more than 64 bits.
    TooLarge,
}

/// Reads a parameter's value that may be too large a number.
#[derive(Clone, Copy)]
pub(super) struct AnyGiven<'c, 'a>(pub(super) &'c Context<'a>);

impl<'a> DeserializeSeed<'a> for AnyGiven<'_, 'a> {
    type Value = Given<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Given<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for AnyGiven<'_, 'a> {
    type Value = Given<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, a number or a string")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Given<'a>, E> {
        Ok(Given::Value(Value::Bool(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Given<'a>, E> {
        Ok(Given::Value(Value::Int(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Given<'a>, E> {
        match u64::try_from(value) {
            Ok(value) => Ok(Given::Value(Value::Int(value))),
            Err(_) => Err(out_of_range()),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Given<'a>, E> {
        // What does not fit an integer arrives as such a number. From 2 to the 64th on all of them are whole.
        match value >= 18_446_744_073_709_551_616.0 {
            true => Ok(Given::TooLarge),
            false => Err(out_of_range()),
        }
    }

    fn visit_borrowed_str<E: Error>(self, text: &'a str) -> Result<Given<'a>, E> {
        Ok(Given::Value(Value::Str(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Given<'a>, E> {
        let text = Text(self.0).visit_str(text)?;
        Ok(Given::Value(Value::Str(text)))
    }
}

/// Reads a parameter's value.
#[derive(Clone, Copy)]
pub(super) struct AnyValue<'c, 'a>(pub(super) &'c Context<'a>);

impl<'a> DeserializeSeed<'a> for AnyValue<'_, 'a> {
    type Value = Value<'a>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Value<'a>, D::Error> {
        match AnyGiven(self.0).deserialize(deserializer)? {
            Given::Value(value) => Ok(value),
            Given::TooLarge => Err(out_of_range()),
        }
    }
}

fn out_of_range<E: Error>() -> E {
    E::custom("the number is not one of 0, 1, 2 ... 18446744073709551615")
}

/// Reads a list, whose entries are read by a seed. What it may hold is bounded by the length of the document.
pub(super) struct ListOf<'c, 'a, S>(pub(super) &'c Context<'a>, pub(super) S);

impl<'a, S: DeserializeSeed<'a> + Copy> DeserializeSeed<'a> for ListOf<'_, 'a, S>
where
    S::Value: 'a,
{
    type Value = &'a [S::Value];

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a, S: DeserializeSeed<'a> + Copy> Visitor<'a> for ListOf<'_, 'a, S>
where
    S::Value: 'a,
{
    type Value = &'a [S::Value];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = ArenaVec::new_in(self.0.arena);
        while let Some(item) = list.next_element_seed(self.1)? {
            items.push(item);
        }
        Ok(items.into_bump_slice())
    }
}

/// Reads `true` or `false`, and nothing else.
pub(super) struct Switch;

impl<'a> DeserializeSeed<'a> for Switch {
    type Value = bool;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<bool, D::Error> {
        serde::Deserialize::deserialize(deserializer)
    }
}

/// Reads past a value of a member that is not known. Its objects have no duplicate members either.
#[derive(Clone, Copy)]
pub(super) struct Skip<'c, 'a>(pub(super) &'c Context<'a>);

impl<'a> DeserializeSeed<'a> for Skip<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Skip<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<(), A::Error> {
        ObjectSeed::new(self.0, Skipped).visit_map(map)
    }
}

/// An object that is not known.
struct Skipped;

impl<'a> Object<'a> for Skipped {
    type Output = ();

    fn member<A: MapAccess<'a>>(
        &mut self,
        context: &Context<'a>,
        _: &'a str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        map.next_value_seed(Skip(context))
    }

    fn finish<E: Error>(self, _: &Context<'a>) -> Result<(), E> {
        Ok(())
    }
}
