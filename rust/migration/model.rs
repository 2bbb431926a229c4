// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a device model is, as tables: its migration parameters, its versions, its types.
//!
//! A driver author writes the tables as constants and has them checked where they are compiled:
//!
//! ```
//! use migration::model::{Allowed, IntRange, Model, Narrowed, ParamDef, Type, Values};
//! use migration::value::{Kind, Value};
//!
//! static MODEL: Model<'static> = Model {
//!     name: "example.org/pci/disk",
//!     params: &[ParamDef {
//!         description: "number of request queues",
//!         allowed: Allowed::Int(&[IntRange::new(1, 8)]),
//!         off: Some(Value::Int(1)),
//!         ..ParamDef::new("queues", Value::Int(4))
//!     }],
//!     versions: &[],
//!     init_version: None,
//! }
//! .validated();
//!
//! static SMALL: Type<'static> = Type {
//!     model: &MODEL,
//!     narrowed: &[Narrowed {
//!         param: "queues",
//!         allowed: Allowed::Int(&[IntRange::new(1, 2)]),
//!         init: Value::Int(2),
//!     }],
//!     init_version: None,
//! }
//! .validated();
//!
//! let values = Values::new(&SMALL);
//! assert_eq!(values.named("queues"), Some(Value::Int(2)));
//! ```
//!
//! The tables borrow what they hold, so a tool can build the same structures from the migration
//! information of another host and use the same checks.

use crate::value::{is_ascii_of, InWords, Kind, Param, Value};
use core::fmt;

mod change;
mod parse;
mod types;
pub(crate) mod validate;
mod values;

#[cfg(test)]
pub(crate) mod tests;

pub use change::{InUse, SetClass, SetError};
pub use parse::{parse_model, parse_value, parse_version, ParseError};
pub use types::{Narrowed, Type, Unmet};
pub use values::Values;

/// Most parameters of a model that a device can have.
pub const MAX_PARAMS: usize = 16;

/// Most parameters of a model that a device can have whose values are texts that are not listed.
pub const MAX_TEXTS: usize = 2;

/// The file that names the version, and the parameter that stands for it in a model that is known
/// by its versions alone.
pub const VERSION: &str = "version";

/// What the version file reads when the values are those of no version.
pub const CUSTOM_VERSION: &str = "custom";

/// A range of integers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntRange {
    /// The smallest.
    pub min: u64,
    /// The largest.
    pub max: u64,
}

impl IntRange {
    /// From `min` to `max`.
    pub const fn new(min: u64, max: u64) -> Self {
        Self { min, max }
    }

    /// Just the one.
    pub const fn one(value: u64) -> Self {
        Self::new(value, value)
    }

    /// Whether the range holds the value.
    pub const fn contains(&self, value: u64) -> bool {
        self.min <= value && value <= self.max
    }
}

impl fmt::Display for IntRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            self.min.fmt(f)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

/// The values a parameter may have. Prints as a list for people: `1, 4-8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed<'a> {
    /// Every value of the parameter's type.
    Any,
    /// These.
    Bool(&'a [bool]),
    /// These, ascending and without overlap.
    Int(&'a [IntRange]),
    /// These.
    Str(&'a [&'a str]),
    /// Text of printable ASCII characters, space to tilde, as some field of a device has room for.
    Ascii {
        /// The most characters.
        max: usize,
    },
}

impl Allowed<'_> {
    /// Whether they are one value.
    pub const fn is_single(&self) -> bool {
        validate::compare::is_single(self)
    }

    /// Whether the value is among them. `Any` takes values of every type: the caller has compared
    /// the type with the parameter's.
    pub fn contains(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Allowed::Any, _) => true,
            (Allowed::Bool(allowed), Value::Bool(value)) => allowed.contains(value),
            (Allowed::Int(allowed), Value::Int(value)) => {
                allowed.iter().any(|range| range.contains(*value))
            }
            (Allowed::Str(allowed), Value::Str(value)) => allowed.contains(value),
            (Allowed::Ascii { max }, Value::Str(value)) => is_ascii_of(value, *max),
            _ => false,
        }
    }
}

impl fmt::Display for Allowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(
            f: &mut fmt::Formatter<'_>,
            items: impl Iterator<Item = T>,
        ) -> fmt::Result {
            for (index, item) in items.enumerate() {
                if index > 0 {
                    f.write_str(", ")?;
                }
                item.fmt(f)?;
            }
            Ok(())
        }
        match self {
            Allowed::Any => f.write_str("any value"),
            Allowed::Bool([]) | Allowed::Int([]) | Allowed::Str([]) => f.write_str("no value"),
            Allowed::Bool(allowed) => list(f, allowed.iter().map(|&value| Value::Bool(value))),
            Allowed::Int(allowed) => list(f, allowed.iter()),
            Allowed::Str(allowed) => list(f, allowed.iter().map(|text| InWords(Value::Str(text)))),
            Allowed::Ascii { max } => write!(f, "printable ASCII of up to {max} characters"),
        }
    }
}

/// A value that is not allowed, and what is. Prints as `32 is not one of 16, 64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAmong<'a>(pub Value<'a>, pub Allowed<'a>);

impl fmt::Display for NotAmong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, allowed) = self;
        let one_of = match allowed {
            Allowed::Ascii { .. } => "",
            _ => "one of ",
        };
        write!(f, "{} is not {one_of}{allowed}", InWords(*value))
    }
}

/// A parameter that has to have one of these values for another one not to be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement<'a> {
    /// The name of the parameter required, declared earlier.
    pub param: &'a str,
    /// The values that will do.
    pub allowed: Allowed<'a>,
}

/// A migration parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamDef<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is, for people who debug. May be empty.
    pub description: &'a str,
    /// The type of its values.
    pub kind: Kind,
    /// The values it may have.
    pub allowed: Allowed<'a>,
    /// The value a new device has.
    pub init: Value<'a>,
    /// The value that means what devices did before the parameter existed; `None` if it cannot be
    /// disabled, so that it is always in the list.
    pub off: Option<Value<'a>>,
    /// Whether it only shapes the state representation, so that it may change while the device is
    /// open.
    pub runtime: bool,
    /// What has to hold for the parameter not to be off.
    pub requires: &'a [Requirement<'a>],
}

impl<'a> ParamDef<'a> {
    /// A parameter that takes any value of the type of `init`, cannot be disabled, does not change
    /// at run time and requires nothing. The rest of a table entry is written over it.
    pub const fn new(name: &'a str, init: Value<'a>) -> Self {
        Self {
            name,
            description: "",
            kind: init.kind(),
            allowed: Allowed::Any,
            init,
            off: None,
            runtime: false,
            requires: &[],
        }
    }
}

/// A named bundle of parameter values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// Its name.
    pub name: &'a str,
    /// The values. Every version of a model names the same parameters.
    pub values: &'a [Param<'a>],
}

/// A device model: hardware interface, state representation and the parameters that vary them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model<'a> {
    /// The device model string: a domain name, then path parts.
    pub name: &'a str,
    /// The parameters, in declaration order, which is the order of everything that lists them.
    pub params: &'a [ParamDef<'a>],
    /// The versions, oldest first. May be empty.
    pub versions: &'a [Version<'a>],
    /// The version a new device has; `None` if there are no versions.
    pub init_version: Option<&'a str>,
}

impl<'a> Model<'a> {
    /// The position of a parameter in the declaration order.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.params.iter().position(|param| param.name == name)
    }

    /// A parameter by its name.
    pub fn param(&self, name: &str) -> Option<&'a ParamDef<'a>> {
        self.params.iter().find(|param| param.name == name)
    }

    /// The versions of a model that is known by them alone, which is compared by its version as by
    /// the only parameter it has. Tables of drivers have no such model: the name is reserved.
    pub fn bare_versions(&self) -> Option<&'a [&'a str]> {
        match self.params {
            [ParamDef {
                name: VERSION,
                allowed: Allowed::Str(names),
                ..
            }] => Some(names),
            _ => None,
        }
    }

    /// A version by its name.
    pub fn version(&self, name: &str) -> Option<&'a Version<'a>> {
        self.versions.iter().find(|version| version.name == name)
    }
}
