// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The card that a command line asks for, and what the program offers.

use std::fmt::Write;

use anyhow::{anyhow, bail, Result};
use migration::info::MigrationInfo;
use migration::model::{Allowed, InUse, IntRange, Model, Narrowed, ParamDef, Type, Values};
use migration::value::Value;
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

/// What the program offers.
#[derive(Debug)]
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

    fn offer(&self) -> Type<'_> {
        Type {
            model: &MODEL,
            narrowed: &self.narrowed,
            init_version: None,
        }
    }

    /// Migration information as JSON. Its generation is made from all the rest of it: it is another one when, and only when,
    /// something else is, on whichever host and with whichever build.
    pub fn information(&self) -> String {
        let types = [self.offer()];
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

    /// Hands the values that are wished for on. A refusal says which one cannot be had, and why.
    pub fn with_values<R>(&self, wish: &Wish, then: impl FnOnce(Values<'_>) -> R) -> Result<R> {
        let ty = self.offer();
        if let Some(model) = &wish.model {
            if model != MODEL.name {
                bail!(
                    "--migration-model: this program has {}, and not {model}",
                    MODEL.name
                );
            }
        }
        let mut wanted = Values::new(&ty);
        if let Some(version) = &wish.version {
            let with = wanted.with_version(version.as_bytes(), InUse::Closed);
            wanted = with.map_err(|error| anyhow!("--migration-version: {error}"))?;
        }
        // Everything off first, then what is wanted in the order of declaration, which is the order of set-up: no parameter is
        // in another one's way before that has its value.
        let mut values = Values::new(&ty);
        for off in ty.off_values() {
            let position = MODEL.position(off.name).unwrap_or(usize::MAX);
            let text = off.value.to_string();
            let with = values.with_text(position, text.as_bytes(), InUse::Closed);
            values = with.map_err(|error| anyhow!("{error}"))?;
        }
        for position in 0..MODEL.params.len() {
            let named = wish.params.iter().find(|(at, _)| *at == position);
            let text = match (named, wanted.get(position)) {
                (Some((_, text)), _) => text.clone(),
                (None, Some(value)) => value.to_string(),
                (None, None) => continue,
            };
            let with = values.with_text(position, text.as_bytes(), InUse::Closed);
            values = with.map_err(|error| anyhow!("--m-{error}"))?;
        }
        Ok(then(values))
    }
}

/// The values that a parameter can have, for those who read about it.
pub fn words(param: &ParamDef<'_>) -> String {
    match param.allowed {
        Allowed::Any => param.kind.to_string(),
        Allowed::Bool(_) => "on|off".to_string(),
        allowed => allowed.to_string().replace(", ", "|"),
    }
}
