// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How long [`Compatible`](super::Compatible) can get, for a file that has an end.

use super::compatible::Family;
use super::json::{Literal, Object, Quoted};
use super::window::printed_len;
use crate::model::{Allowed, ParamDef, Type};
use crate::value::{Kind, Value, MAX_STR_LEN};
use core::fmt;

/// The most bytes that [`Compatible`](super::Compatible) prints for an instance of a type, whatever
/// its values.
pub fn longest_compatible(
    mdev_type: &str,
    device_api: &str,
    ty: &Type<'_>,
    families: &[Family<'_>],
) -> usize {
    printed_len(&Longest {
        mdev_type,
        device_api,
        ty,
        families,
    })
}

/// Prints as [`Compatible`](super::Compatible) does, with every parameter, every family and the
/// longest values.
struct Longest<'a> {
    mdev_type: &'a str,
    device_api: &'a str,
    ty: &'a Type<'a>,
    families: &'a [Family<'a>],
}

impl fmt::Display for Longest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.ty.model;
        let mut root = Object::root(f)?;
        let mut own = root.object("self")?;
        own.member("mdev_type", Quoted(self.mdev_type))?;
        own.member("device_api", Quoted(self.device_api))?;
        own.member("model", Quoted(model.name))?;
        let mut params = own.object("params")?;
        for param in model.params {
            params.member(param.name, Literal(longest(self.ty, param)))?;
        }
        params.end()?;
        own.end()?;
        let mut compatible = root.objects("compatible")?;
        for family in self.families {
            let mut out = compatible.object()?;
            out.member("mdev_type", Quoted(family.pattern))?;
            out.member("model", Quoted(model.name))?;
            let mut params = out.object("params")?;
            if let Some(ty) = family.types.first() {
                for param in ty.model.params {
                    // The instance's value, or the off value of what it does not have.
                    let own = model.param(param.name).map(|own| longest(self.ty, own));
                    let value = longer(own, param.off).unwrap_or(param.init);
                    params.member(param.name, format_args!("[{}]", Literal(value)))?;
                }
            }
            params.end()?;
            out.end()?;
        }
        compatible.end()?;
        root.end()?;
        f.write_str("\n")
    }
}

/// The value that prints as the longer literal.
fn longer<'a>(one: Option<Value<'a>>, other: Option<Value<'a>>) -> Option<Value<'a>> {
    let by_len = |value: &Value<'_>| printed_len(&Literal(*value));
    one.into_iter().chain(other).max_by_key(by_len)
}

/// The value of a parameter that prints as the longest literal.
fn longest<'a>(ty: &Type<'a>, param: &'a ParamDef<'a>) -> Value<'a> {
    /// Text of which every character is escaped.
    const QUOTES: &str = r#""""""""""""""""""""""""""""""""""""""""""""""""""""""""""""""""""#;
    const { assert!(QUOTES.len() == MAX_STR_LEN) };

    let init = Some(ty.init(param));
    let longest = match (ty.allowed(param), param.kind) {
        (Allowed::Any, Kind::Bool) | (Allowed::Bool(_), _) => Some(Value::Bool(false)),
        (Allowed::Any, Kind::Int) => Some(Value::Int(u64::MAX)),
        (Allowed::Any, Kind::Str) => Some(Value::Str(QUOTES)),
        (Allowed::Ascii { max }, _) => Some(Value::Str(QUOTES.get(..max).unwrap_or(QUOTES))),
        (Allowed::Int(ranges), _) => ranges.last().map(|range| Value::Int(range.max)),
        (Allowed::Str(texts), _) => texts
            .iter()
            .map(|text| Value::Str(text))
            .fold(None, |longest, text| longer(longest, Some(text))),
    };
    longer(init, longest).unwrap_or(param.init)
}
