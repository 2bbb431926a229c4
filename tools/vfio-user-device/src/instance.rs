// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The card that a command line asks for, and what the program offers.

use std::fmt::Write;

use migration::check::check;
use migration::info::MigrationInfo;
use migration::model::{Allowed, InUse, IntRange, Model, Narrowed, ParamDef, Type, Values};
use migration::value::{Param, Value};
use sha2::{Digest, Sha256};

use crate::serial::model::{FOUR, MODEL, NUM_PORTS, ONE, TWO};

/// Most ports that the program is told to offer: every number of ports that a card can have up to that.
const PORTS: [(u64, &[IntRange]); 3] = [(1, &[ONE]), (2, &[ONE, TWO]), (4, &[ONE, TWO, FOUR])];

/// The numbers of ports that the program can be told to stop at.
pub const MAX_PORTS: [&str; 3] = ["1", "2", "4"];

/// The device model.
pub fn model() -> &'static Model<'static> {
    &MODEL
}

/// What a command line says about the card.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The device model.
    pub model: Option<String>,
    /// A version of it.
    pub version: Option<String>,
    /// Parameters, by their position in the model's table, as text.
    pub params: Vec<(usize, String)>,
}

/// Why a card cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOffered {
    /// It is of another model.
    #[error("this program has {has}, and not {wanted}")]
    Model {
        /// The model that there is.
        has: String,
        /// The model that is wanted.
        wanted: String,
    },
    /// There is no such version.
    #[error("{0}")]
    Version(String),
    /// A parameter does not have such a value.
    #[error("{0}")]
    Param(String),
    /// No card takes the state of such a source, for these reasons.
    #[error("{}", .0.join("; "))]
    Source(Vec<String>),
}

/// What the program offers.
#[derive(Clone, Debug)]
pub struct Offer {
    narrowed: [Narrowed<'static>; 1],
}

impl Offer {
    /// Cards of up to so many ports.
    pub fn new(max_ports: u64) -> Self {
        let found = PORTS.iter().rev().find(|(ports, _)| *ports <= max_ports);
        let (_, allowed) = found.unwrap_or(&PORTS[0]);
        Self {
            narrowed: [Narrowed {
                param: NUM_PORTS,
                allowed: Allowed::Int(allowed),
                init: Value::Int(1),
            }],
        }
    }

    /// The type of the cards.
    pub fn ty(&self) -> Type<'_> {
        Type {
            model: &MODEL,
            narrowed: &self.narrowed,
            init_version: None,
        }
    }

    /// Migration information as JSON. Its generation is made from all the rest of it: it is another one when, and only when,
    /// something else is, on whichever host and with whichever build.
    pub fn information(&self) -> String {
        let types = [self.ty()];
        let print = |generation| {
            MigrationInfo {
                generation,
                types: &types,
            }
            .to_string()
        };
        let digest = Sha256::digest(print(None));
        let mut generation = String::new();
        for byte in digest.iter().take(8) {
            // Writing to a string does not fail.
            let _ = write!(generation, "{byte:02x}");
        }
        print(Some(&generation))
    }
}

impl Wish {
    /// The values that are wished for, of a card of this type.
    pub fn values<'t>(&self, ty: &'t Type<'t>) -> Result<Values<'t>, NotOffered> {
        let model = ty.model;
        if let Some(wanted) = self.model.as_ref().filter(|wanted| *wanted != model.name) {
            let (has, wanted) = (model.name.to_string(), wanted.clone());
            return Err(NotOffered::Model { has, wanted });
        }
        let mut wanted = Values::new(ty);
        if let Some(version) = &self.version {
            let with = wanted.with_version(version.as_bytes(), InUse::Closed);
            wanted = with.map_err(|error| NotOffered::Version(error.to_string()))?;
        }
        let named = |position: usize| {
            let named = self.params.iter().find(|(at, _)| *at == position);
            match (named, wanted.get(position)) {
                (Some((_, text)), _) => Some(text.clone()),
                (None, value) => value.map(|value| value.to_string()),
            }
        };
        set_up(ty, named)
    }
}

/// The values with these texts, by position. A parameter without one is off.
fn set_up<'t>(
    ty: &'t Type<'t>,
    text: impl Fn(usize) -> Option<String>,
) -> Result<Values<'t>, NotOffered> {
    // Everything off first, then what is wanted in the order of declaration, which is the order of set-up: no parameter is in
    // another one's way before that has its value.
    let mut values = Values::new(ty);
    for off in ty.off_values() {
        let position = ty.model.position(off.name).unwrap_or(usize::MAX);
        let text = off.value.to_string();
        let with = values.with_text(position, text.as_bytes(), InUse::Closed);
        values = with.map_err(|error| NotOffered::Param(error.to_string()))?;
    }
    for position in 0..ty.model.params.len() {
        let Some(text) = text(position) else {
            continue;
        };
        let with = values.with_text(position, text.as_bytes(), InUse::Closed);
        values = with.map_err(|error| NotOffered::Param(error.to_string()))?;
    }
    Ok(values)
}

/// The values of a destination for a source with these parameters in effect: those, and everything else off. All reasons if there
/// is no such destination.
pub fn destination<'t>(
    ty: &'t Type<'t>,
    model: &str,
    list: &[Param<'_>],
) -> Result<Values<'t>, NotOffered> {
    let reasons: Vec<String> = check(model, list.iter().copied(), ty)
        .map(|reason| reason.to_string())
        .collect();
    if !reasons.is_empty() {
        return Err(NotOffered::Source(reasons));
    }
    set_up(ty, |position| {
        let name = ty.model.params.get(position)?.name;
        let param = list.iter().find(|param| param.name == name)?;
        Some(param.value.to_string())
    })
}

/// The values that a parameter can have, for those who read about it.
pub fn words(param: &ParamDef<'_>) -> String {
    match param.allowed {
        Allowed::Any | Allowed::Ascii { .. } => param.kind.to_string(),
        Allowed::Bool(_) => "on|off".to_string(),
        allowed => allowed.to_string().replace(", ", "|"),
    }
}
