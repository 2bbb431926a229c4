// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Whether a destination can take a source's state, and every reason why not.
//!
//! Two questions are asked at different times of the same list, the source's migration parameters
//! in effect:
//!
//! * [`check`]: could an instance of this *type* be set up so that the state loads? This needs no
//!   device, so it also serves to choose a destination.
//! * [`verify`]: is this *instance* set up so? The destination asks it of each setup record of a
//!   stream, before it accepts any state.
//!
//! Both are iterators over [`Reason`]s and allocate nothing; no reason means yes.
//!
//! ```
//! # use migration::model::*;
//! # use migration::value::*;
//! # static MODEL: Model<'static> = Model {
//! #     name: "example.org/pci/card",
//! #     params: &[ParamDef {
//! #         allowed: Allowed::Int(&[IntRange::new(1, 2)]),
//! #         ..ParamDef::new("num-ports", Value::Int(2))
//! #     }],
//! #     versions: &[],
//! #     init_version: None,
//! # }
//! # .validated();
//! # static TYPE: Type<'static> = Type::of(&MODEL).validated();
//! let list = [Param { name: "num-ports", value: Value::Int(4) }];
//! let mut reasons = migration::check::check(MODEL.name, list.into_iter(), &TYPE);
//! assert_eq!(
//!     reasons.next().unwrap().to_string(),
//!     "num-ports: source has 4, this device allows 1-2"
//! );
//! ```

use crate::model::{Allowed, ParamDef, Type, Unmet, Values};
use crate::value::{model_problem, name_problem, InWords, Kind, Param, Value};
use core::fmt;

#[cfg(test)]
mod tests;

/// One reason why a destination does not take a source's state. Prints as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// The device models differ. Then nothing else is compared.
    Model {
        /// The source's.
        source: &'a str,
        /// The destination's.
        destination: &'a str,
    },
    /// The destination does not know a parameter of the source.
    Unknown(Param<'a>),
    /// The source gives a parameter twice.
    Twice(Param<'a>),
    /// The source has more than a stream or a device here can have.
    Limit {
        /// The parameter's name.
        name: &'a str,
        /// What of it.
        part: Part,
        /// Why that cannot be had.
        problem: &'static str,
    },
    /// The source's value is of another type.
    Kind {
        /// The parameter as the source has it.
        param: Param<'a>,
        /// The type the destination expects.
        expected: Kind,
    },
    /// The destination does not allow the source's value.
    NotAllowed {
        /// The parameter as the source has it.
        param: Param<'a>,
        /// What the destination allows.
        allowed: Allowed<'a>,
    },
    /// The source lacks a parameter that the destination cannot disable.
    Missing {
        /// The parameter's name.
        name: &'a str,
        /// What the destination allows.
        allowed: Allowed<'a>,
    },
    /// The values would be allowed one by one, but not together.
    Unmet(Unmet<'a>),
    /// The destination has another value, though it could be given the source's.
    Differs {
        /// The parameter as the source has it; its off value if the source lacks it.
        param: Param<'a>,
        /// The destination's value.
        here: Value<'a>,
    },
}

/// The part of a source that is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The device model.
    Model,
    /// The name of a parameter.
    Name,
    /// The value of a parameter, given or off.
    Value,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Name => "name",
            Self::Value => "value",
        })
    }
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model {
                source,
                destination,
            } => write!(f, "model: source is {source}, this device is {destination}"),
            Self::Unknown(Param { name, value }) => {
                write!(
                    f,
                    "{name}: source has {}, this device does not know it",
                    InWords(*value)
                )
            }
            Self::Twice(Param { name, .. }) => write!(f, "{name}: source gives it twice"),
            Self::Limit {
                name,
                part,
                problem,
            } => write!(f, "{name}: the source's {part} {problem}"),
            Self::Kind {
                param: Param { name, value },
                expected,
            } => write!(
                f,
                "{name}: source has {} of type {}, this device expects {expected}",
                InWords(*value),
                value.kind()
            ),
            Self::NotAllowed {
                param: Param { name, value },
                allowed,
            } => write!(
                f,
                "{name}: source has {}, this device allows {allowed}",
                InWords(*value)
            ),
            Self::Missing { name, allowed } => {
                write!(f, "{name}: source lacks it, this device needs {allowed}")
            }
            Self::Unmet(unmet) => unmet.fmt(f),
            Self::Differs {
                param: Param { name, value },
                here,
            } => write!(
                f,
                "{name}: source has {}, this device has {}",
                InWords(*value),
                InWords(*here)
            ),
        }
    }
}

/// Every reason why no instance of the type can be set up to take the state of a source with this
/// model and these parameters in effect; none if one can.
///
/// Reasons come in the order of the list, then in declaration order.
pub fn check<'a, L>(model: &'a str, list: L, ty: &'a Type<'a>) -> impl Iterator<Item = Reason<'a>>
where
    L: Iterator<Item = Param<'a>> + Clone,
{
    Comparison { list, ty }.reasons(model, move |_, source| match source {
        Source::Acceptable(_) => None,
        Source::Limit(reason) => Some(reason),
        Source::NotAllowed(param, allowed) => Some(Reason::NotAllowed { param, allowed }),
        Source::Missing(name, allowed) => Some(Reason::Missing { name, allowed }),
    })
}

/// Every reason why the instance with these values does not take the state of a source with this
/// model and these parameters in effect; none if it does.
///
/// It does if the same parameters are in effect here, with the same values: what a parameter is for
/// is that it has to match.
pub fn verify<'a, L>(
    model: &'a str,
    list: L,
    values: &'a Values<'a>,
) -> impl Iterator<Item = Reason<'a>>
where
    L: Iterator<Item = Param<'a>> + Clone,
{
    // As it mostly is: word for word what is in effect here, which has nothing against itself.
    let is_same = model == values.model().name && list.clone().eq(values.effective());
    let differ = (!is_same).then(|| differences(model, list, values));
    differ.into_iter().flatten()
}

/// What [`verify`] says of a source, by comparing one parameter after the other.
fn differences<'a, L>(
    model: &'a str,
    list: L,
    values: &'a Values<'a>,
) -> impl Iterator<Item = Reason<'a>>
where
    L: Iterator<Item = Param<'a>> + Clone,
{
    let ty = values.ty();
    Comparison { list, ty }.reasons(model, move |def, source| {
        let here = values.named(def.name)?;
        match source {
            Source::Acceptable(param) if param.value == here => None,
            Source::Acceptable(param) => Some(Reason::Differs { param, here }),
            Source::Limit(reason) => Some(reason),
            // Of a type that leaves no choice, the value says the same and is easier to read.
            Source::NotAllowed(param, allowed) if allowed.is_single() => {
                Some(Reason::Differs { param, here })
            }
            Source::NotAllowed(param, allowed) => Some(Reason::NotAllowed { param, allowed }),
            Source::Missing(name, allowed) => Some(Reason::Missing { name, allowed }),
        }
    })
}

/// What a source has of a parameter that the destination knows.
enum Source<'a> {
    /// A value that instances of the type may have, given or off.
    Acceptable(Param<'a>),
    /// A value that they may not have.
    NotAllowed(Param<'a>, Allowed<'a>),
    /// A value that nobody here may have, and the reason.
    Limit(Reason<'a>),
    /// No value, where instances of the type always have one.
    Missing(&'a str, Allowed<'a>),
}

/// A source's list against a type.
#[derive(Clone)]
struct Comparison<'a, L> {
    list: L,
    ty: &'a Type<'a>,
}

impl<'a, L> Comparison<'a, L>
where
    L: Iterator<Item = Param<'a>> + Clone,
{
    fn reasons<J>(self, model: &'a str, judge: J) -> impl Iterator<Item = Reason<'a>>
    where
        J: Fn(&'a ParamDef<'a>, Source<'a>) -> Option<Reason<'a>>,
    {
        let destination = self.ty.model.name;
        let other_model = (model != destination).then_some(Reason::Model {
            source: model,
            destination,
        });
        let long_model = model_problem(model).map(|problem| Reason::Limit {
            name: "model",
            part: Part::Model,
            problem,
        });
        // Parameters of different models have nothing to do with each other.
        let same_model = other_model.is_none().then_some((self, judge));
        let rest = same_model.into_iter().flat_map(|(this, judge)| {
            let malformed = this.clone().malformed();
            let unmet = this.clone().unmet();
            malformed.chain(this.each(judge)).chain(unmet)
        });
        long_model.into_iter().chain(other_model).chain(rest)
    }

    /// Entries that cannot be compared.
    fn malformed(self) -> impl Iterator<Item = Reason<'a>> {
        let Self { list, ty } = self;
        let earlier = list.clone();
        list.enumerate().filter_map(move |(index, param)| {
            let mut earlier = earlier.clone().take(index);
            if earlier.any(|other| other.name == param.name) {
                return Some(Reason::Twice(param));
            }
            if let Some(problem) = name_problem(param.name) {
                return Some(Reason::Limit {
                    name: param.name,
                    part: Part::Name,
                    problem,
                });
            }
            match ty.model.param(param.name) {
                None => Some(Reason::Unknown(param)),
                Some(def) if def.kind != param.value.kind() => Some(Reason::Kind {
                    param,
                    expected: def.kind,
                }),
                Some(_) => None,
            }
        })
    }

    /// What stands against the parameters that can be compared.
    fn each<J>(self, judge: J) -> impl Iterator<Item = Reason<'a>>
    where
        J: Fn(&'a ParamDef<'a>, Source<'a>) -> Option<Reason<'a>>,
    {
        let params = self.ty.model.params.iter();
        params.filter_map(move |def| judge(def, self.source(def)?))
    }

    /// What the source has of a parameter; `None` if that is of another type.
    fn source(&self, def: &'a ParamDef<'a>) -> Option<Source<'a>> {
        let allowed = self.ty.allowed(def);
        let name = def.name;
        let listed = self.list.clone().find(|param| param.name == name);
        let off = def.off.map(|value| Param { name, value });
        let Some(param) = listed.or(off) else {
            return Some(Source::Missing(name, allowed));
        };
        if param.value.kind() != def.kind {
            return None;
        }
        if let Some(problem) = param.value.problem() {
            let part = Part::Value;
            return Some(Source::Limit(Reason::Limit {
                name,
                part,
                problem,
            }));
        }
        Some(match self.ty.allows(def, &param.value) {
            true => Source::Acceptable(param),
            false => Source::NotAllowed(param, allowed),
        })
    }

    /// Requirements that the source's values do not meet here. Values that are not acceptable by
    /// themselves have been reported, and are left out.
    fn unmet(self) -> impl Iterator<Item = Reason<'a>> {
        let ty = self.ty;
        let value_of = move |position| match self.source(ty.model.params.get(position)?)? {
            Source::Acceptable(param) => Some(param.value),
            _ => None,
        };
        ty.unmet(value_of).map(Reason::Unmet)
    }
}
