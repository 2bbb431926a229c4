// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Values of migration parameters as D-Bus has them: `b`, `t` and `s`.

use std::collections::HashMap;

use zbus::zvariant::{OwnedValue, Str, Value};

use super::error::Error;
use crate::registry::{ParamInfo, ParamValue};

/// Parameters as a dictionary.
pub(super) fn values_out<'p>(
    params: impl Iterator<Item = &'p ParamInfo>,
) -> HashMap<String, OwnedValue> {
    let value = |param: &ParamInfo| {
        let value = match &param.value {
            ParamValue::Bool(value) => OwnedValue::from(*value),
            ParamValue::Int(value) => OwnedValue::from(*value),
            ParamValue::Str(value) => OwnedValue::from(Str::from(value.clone())),
        };
        (param.name.clone(), value)
    };
    params.map(value).collect()
}

/// A dictionary as parameters. Numbers may be of any width.
pub(super) fn params_in(
    values: HashMap<String, OwnedValue>,
) -> Result<Vec<(String, ParamValue)>, Error> {
    let param = |(name, value): (String, OwnedValue)| {
        let value = match Value::from(value) {
            Value::Bool(value) => ParamValue::Bool(value),
            Value::Str(value) => ParamValue::Str(value.to_string()),
            Value::U8(value) => ParamValue::Int(value.into()),
            Value::U16(value) => ParamValue::Int(value.into()),
            Value::U32(value) => ParamValue::Int(value.into()),
            Value::U64(value) => ParamValue::Int(value),
            Value::I16(value) => ParamValue::Int(natural(&name, value)?),
            Value::I32(value) => ParamValue::Int(natural(&name, value)?),
            Value::I64(value) => ParamValue::Int(natural(&name, value)?),
            _ => {
                let text = format!("{name}: the value is neither a boolean, a number nor a string");
                return Err(Error::Invalid(text));
            }
        };
        Ok((name, value))
    };
    values.into_iter().map(param).collect()
}

fn natural(name: &str, value: impl TryInto<u64>) -> Result<u64, Error> {
    let number = value.try_into();
    number.map_err(|_| Error::Invalid(format!("{name}: the value is below 0")))
}

/// A string.
pub(super) fn text(name: &str, value: &OwnedValue) -> Result<String, Error> {
    match &**value {
        Value::Str(text) => Ok(text.to_string()),
        _ => Err(Error::Invalid(format!("{name}: the value is not a string"))),
    }
}
