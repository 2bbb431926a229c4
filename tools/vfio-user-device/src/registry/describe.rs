// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a device is to be, and how one is.

use std::borrow::Borrow;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use migration::fsm::State;
use migration::model::{Model, Type, Values};
use migration::value::{Param, Value};

use super::Error;
use crate::instance::{destination, NotOffered, Wish};
use crate::model::Owner;

/// Longest name of a device, in bytes.
const MAX_NAME: usize = 64;

/// The name of a device: 1 to 64 letters, digits, `-`, `_` and `.`, the first of which is a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceName(String);

impl DeviceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        match begins && name.len() <= MAX_NAME && name.chars().all(allowed) {
            true => Ok(Self(name)),
            false => Err(Error::Invalid(format!(
                "a device's name is 1 to {MAX_NAME} letters, digits, '-', '_' and '.', and begins with a letter or a digit"
            ))),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for DeviceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamValue {
    /// On or off.
    Bool(bool),
    /// A number.
    Int(u64),
    /// A text.
    Str(String),
}

impl ParamValue {
    /// The same value, borrowed.
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Str(value) => Value::Str(value),
        }
    }
}

impl From<Value<'_>> for ParamValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(value),
            Value::Int(value) => Self::Int(value),
            Value::Str(value) => Self::Str(value.to_string()),
        }
    }
}

/// Where a device's clients come from.
#[derive(Debug)]
pub enum Endpoint {
    /// A socket is made at this path, where nothing must be yet. It goes with the device.
    Path(PathBuf),
    /// A socket that somebody else made: one that listens, or a connection, with whose end the device ends.
    Fd(OwnedFd),
}

/// A device that is to be made.
#[derive(Debug)]
pub struct NewDevice {
    /// Its name.
    pub name: DeviceName,
    /// The device model, which is the serial card's unless this says otherwise.
    pub model: Option<String>,
    /// The version of the device model, which parameters change further.
    pub version: Option<String>,
    /// Migration parameters. What is not among them has its initial value.
    pub params: Vec<(String, ParamValue)>,
    /// Where its clients come from.
    pub endpoint: Endpoint,
}

impl NewDevice {
    /// What is wished for, in terms of the model's table.
    pub(super) fn wish(&self, model: &Model<'_>) -> Result<Wish, Error> {
        let mut params: Vec<(usize, String)> = Vec::new();
        for (name, value) in &self.params {
            let position = model.position(name);
            let def = position.and_then(|position| Some((position, model.params.get(position)?)));
            let Some((position, def)) = def else {
                let reason = format!("{name}: {} has no such parameter", model.name);
                return Err(Error::Invalid(reason));
            };
            let value = value.as_value();
            if value.kind() != def.kind {
                let reason = format!("{name}: the value is not of type {}", def.kind);
                return Err(Error::Invalid(reason));
            }
            if params.iter().any(|(earlier, _)| *earlier == position) {
                return Err(Error::Invalid(format!("{name}: it is given twice")));
            }
            params.push((position, value.to_string()));
        }
        Ok(Wish {
            version: self.version.clone(),
            params,
        })
    }
}

/// What a source has: its device model, and the parameters that are in effect there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceList {
    /// The device model.
    pub model: String,
    /// The parameters in effect.
    pub params: Vec<(String, ParamValue)>,
}

impl SourceList {
    /// The values of its destination, of this type.
    pub(super) fn destination<'t>(&self, ty: &'t Type<'t>) -> Result<Values<'t>, NotOffered> {
        let list: Vec<Param<'_>> = self
            .params
            .iter()
            .map(|(name, value)| Param {
                name,
                value: value.as_value(),
            })
            .collect();
        destination(ty, &self.model, &list)
    }
}

/// A migration parameter of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: ParamValue,
    /// Whether it is in the device's migration parameter list: it is not off.
    pub in_effect: bool,
}

/// How a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: DeviceName,
    /// Its device model.
    pub model: String,
    /// The version whose values its parameters have, if they are those of one.
    pub version: Option<String>,
    /// Its parameters, in declaration order.
    pub params: Vec<ParamInfo>,
    /// Where its socket is, if one was made for it.
    pub socket: Option<PathBuf>,
    /// Whether a vfio-user client is connected.
    pub has_client: bool,
    /// Its migration state.
    pub state: State,
    /// Who has taken it out of RUNNING, if somebody has.
    pub owner: Option<Owner>,
    /// Why migrating it was refused last; empty if it was not.
    pub refusal: String,
}

/// The parameters of a device with these values.
pub(crate) fn params(values: &Values<'_>) -> Vec<ParamInfo> {
    let info = |param: Param<'_>| ParamInfo {
        name: param.name.to_string(),
        value: param.value.into(),
        in_effect: values.effective().any(|other| other.name == param.name),
    };
    values.all().map(info).collect()
}
