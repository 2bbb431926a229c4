// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The device that somebody asks for, and what the program offers.

use std::fmt::Write;

use migration::check::check;
use migration::info::MigrationInfo;
use migration::model::{Allowed, InUse, IntRange, Model, Narrowed, ParamDef, Type, Values};
use migration::value::{Param, Value};
use sha2::{Digest, Sha256};

use crate::blk::model as blk;
use crate::serial::model as serial;

pub use devices::blk::MAX_CAPACITY_MIB;

/// Most ports that the program is told to offer: every number of ports that a card can have up to that.
const PORTS: [(u64, &[IntRange]); 3] = [
    (1, &[serial::ONE]),
    (2, &[serial::ONE, serial::TWO]),
    (4, &[serial::ONE, serial::TWO, serial::FOUR]),
];

/// The numbers of ports that the program can be told to stop at.
pub const MAX_PORTS: [&str; 3] = ["1", "2", "4"];

/// The device models that the program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The serial card, which is what there is where nobody says which.
    Serial,
    /// The virtio disk.
    Disk,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Serial, Self::Disk];

    /// The device model.
    pub fn model(self) -> &'static Model<'static> {
        match self {
            Self::Serial => &serial::MODEL,
            Self::Disk => &blk::MODEL,
        }
    }

    /// How much of the program's memory a device of these values may take in the end, in MiB: its medium, if it has one.
    pub fn memory_mib(self, values: &Values<'_>) -> u64 {
        match (self, values.named(blk::CAPACITY_MIB)) {
            (Self::Disk, Some(Value::Int(mib))) => mib,
            _ => 0,
        }
    }

    /// The one whose model has this name.
    pub fn named(name: &str) -> Option<Self> {
        let is_it = |kind: &Self| kind.model().name == name;
        Self::ALL.into_iter().find(is_it)
    }

    /// The one that is wanted, by the name of its model if there is one.
    pub fn wanted(model: Option<&str>) -> Result<Self, NotOffered> {
        let Some(name) = model else {
            return Ok(Self::Serial);
        };
        Self::named(name).ok_or_else(|| NotOffered::Model {
            has: Self::ALL.map(|kind| kind.model().name).join(" and "),
            wanted: name.to_string(),
        })
    }
}

/// What somebody says about a device of a model.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// A version of it.
    pub version: Option<String>,
    /// Parameters, by their position in the model's table, as text.
    pub params: Vec<(usize, String)>,
}

/// Why a device cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOffered {
    /// There is no such model.
    #[error("this program has {has}, and not {wanted}")]
    Model {
        /// The models that there are.
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
    /// No device takes the state of such a source, for these reasons.
    #[error("{}", .0.join("; "))]
    Source(Vec<String>),
}

/// How much of each model the program offers at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Ports of a serial card: 1, 2 or 4.
    pub max_ports: u64,
    /// Size of a disk in MiB, 1 to [`MAX_CAPACITY_MIB`].
    pub max_capacity_mib: u64,
}

impl Limits {
    /// Whatever the models have.
    pub const NONE: Self = Self {
        max_ports: 4,
        max_capacity_mib: MAX_CAPACITY_MIB as u64,
    };
}

/// What the program offers.
#[derive(Clone, Debug)]
pub struct Offer {
    serial: [Narrowed<'static>; 1],
    disk: [Narrowed<'static>; 1],
}

impl Offer {
    /// Devices within these limits. A program makes few of these: what it takes is never given back.
    pub fn new(limits: &Limits) -> Self {
        let found = PORTS
            .iter()
            .rev()
            .find(|(ports, _)| *ports <= limits.max_ports);
        let (_, ports) = found.unwrap_or(&PORTS[0]);
        let most = limits.max_capacity_mib.clamp(1, MAX_CAPACITY_MIB.into());
        let capacity: &'static _ = Box::leak(Box::new([IntRange::new(1, most)]));
        Self {
            serial: [Narrowed {
                param: serial::NUM_PORTS,
                allowed: Allowed::Int(ports),
                init: Value::Int(1),
            }],
            disk: [Narrowed {
                param: blk::CAPACITY_MIB,
                allowed: Allowed::Int(capacity),
                init: Value::Int(most.min(USUAL_MIB)),
            }],
        }
    }

    /// The type of the devices of a model.
    pub fn ty(&self, kind: Kind) -> Type<'_> {
        Type {
            model: kind.model(),
            narrowed: match kind {
                Kind::Serial => &self.serial,
                Kind::Disk => &self.disk,
            },
            init_version: None,
        }
    }

    /// Migration information about some of the models as JSON. Its generation is made from all the rest of it: it is another one
    /// when, and only when, something else is, on whichever host and with whichever build.
    pub fn information(&self, kinds: &[Kind]) -> String {
        let types: Vec<Type<'_>> = kinds.iter().map(|kind| self.ty(*kind)).collect();
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

/// The size of a disk in MiB, if nobody says otherwise: the table's.
const USUAL_MIB: u64 = 64;

impl Wish {
    /// The values that are wished for, of a device of this type.
    pub fn values<'t>(&self, ty: &'t Type<'t>) -> Result<Values<'t>, NotOffered> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_models_have_a_parameter_of_the_same_name() {
        // Each is an option of the command line.
        let mut names: Vec<&str> = Kind::ALL
            .iter()
            .flat_map(|kind| kind.model().params)
            .map(|param| param.name)
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_disk_has_the_table_s_size_unless_that_is_too_much() {
        let init = |max_capacity_mib| {
            let offer = Offer::new(&Limits {
                max_capacity_mib,
                ..Limits::NONE
            });
            let ty = offer.ty(Kind::Disk);
            Values::new(&ty)
                .named(blk::CAPACITY_MIB)
                .map(|value| value.to_string())
        };
        let table = Type {
            model: Kind::Disk.model(),
            narrowed: &[],
            init_version: None,
        };
        let usual = Values::new(&table)
            .named(blk::CAPACITY_MIB)
            .map(|value| value.to_string());
        assert_eq!(init(4096), usual);
        assert_eq!(init(7).as_deref(), Some("7"));
    }
}
