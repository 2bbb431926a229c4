// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Setting a destination up for a source: off values in reverse declaration order, then the source's list in declaration
//! order. What fails is taken back.
//!
//! Declaration order has what a parameter requires before it, so that each of these writes leaves values that go together,
//! whatever they were before. There is one exception: what is always on may require another parameter not to be off. Then that
//! one is always on as well, and its off value is not written. (A driver whose tables were validated has no such parameters.)

use std::io;

use migration::model::{parse_value, Type};
use migration::value::Param;

use crate::error::Result;
use crate::json::Source;
use crate::sysfs::{refusal, Parameters};

/// The writes that set an instance of the type up, in their order.
pub fn steps<'a>(ty: &Type<'a>, source: &Source<'a>) -> Vec<Param<'a>> {
    let params = source.params;
    let listed = ty.model.params.iter().filter_map(|def| {
        let mut params = params.iter();
        params.find(|param| param.name == def.name).copied()
    });
    off_steps(ty).into_iter().chain(listed).collect()
}

/// The writes that switch off what can be, in reverse declaration order.
fn off_steps<'a>(ty: &Type<'a>) -> Vec<Param<'a>> {
    let params = ty.model.params;
    // Whether something that is always on requires the parameter not to be off.
    let mut needed = vec![false; params.len()];
    let mut steps = Vec::new();
    for (place, def) in params.iter().enumerate().rev() {
        match ty.off(def).filter(|_| !needed[place]) {
            Some(value) => steps.push(Param {
                name: def.name,
                value,
            }),
            None => {
                for required in def.requires {
                    if let Some(other) = ty.model.position(required.param) {
                        let off = params[other].off;
                        needed[other] |= !off.is_some_and(|off| required.allowed.contains(&off));
                    }
                }
            }
        }
    }
    steps
}

/// The values after these steps that are others than `values`: name, value now, value then.
pub fn changes<'a>(values: &[Param<'a>], steps: &[Param<'a>]) -> Vec<(Param<'a>, Param<'a>)> {
    let change = |now: &Param<'a>| {
        let mut last = steps.iter().rev();
        let then = last.find(|step| step.name == now.name)?;
        (then.value != now.value).then_some((*now, *then))
    };
    values.iter().filter_map(change).collect()
}

/// A parameter that has not the value it had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRestored {
    /// Its name.
    pub name: String,
    /// The value it had.
    pub was: String,
    /// The value it has.
    pub is: String,
    /// Why it could not be given back its value.
    pub why: String,
}

/// Set-up failed.
#[derive(Debug)]
pub struct Failure {
    /// The write that failed, as `name=value`.
    pub step: String,
    /// The error of the write.
    pub error: io::Error,
    /// What the driver says about it.
    pub reason: String,
    /// What could not be taken back; empty if the instance is as it was.
    pub not_restored: Vec<NotRestored>,
}

impl Failure {
    /// Whether the driver was not asked: there is no permission, or no file.
    pub fn is_access(&self) -> bool {
        self.error.raw_os_error().is_some_and(is_access)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} was refused: {}",
            self.step,
            refusal(&self.error, &self.reason)
        )?;
        if self.not_restored.is_empty() {
            return f.write_str("; the instance is as it was");
        }
        f.write_str("; and the instance is not as it was:")?;
        for (index, left) in self.not_restored.iter().enumerate() {
            let NotRestored { name, was, is, why } = left;
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator} {name} is {is}, was {was} ({why})")?;
        }
        Ok(())
    }
}

/// Carries out the steps on an instance of the type, unless it has those values already. If one fails, or its value does not
/// arrive, the instance gets back the values it had.
///
/// The outer result is about reading the values it has.
pub fn prepare(
    instance: &mut impl Parameters,
    ty: &Type<'_>,
    steps: &[Param<'_>],
) -> Result<std::result::Result<(), Failure>> {
    let before = snapshot(instance, ty)?;
    if is_set_up(ty, &before, steps) {
        return Ok(Ok(()));
    }
    for step in steps {
        let written = instance.write(step.name, &step.value.to_string());
        if let Err(error) = written.and_then(|()| arrived(instance, step)) {
            let reason = match error.raw_os_error() {
                // The file could not even be opened: what the driver said last is about something else.
                Some(errno) if is_access(errno) => String::new(),
                _ => instance.reason(),
            };
            return Ok(Err(Failure {
                step: step.to_string(),
                error,
                reason,
                not_restored: restore(instance, ty, &before),
            }));
        }
    }
    Ok(Ok(()))
}

/// Whether the steps would end at the values that the parameters have.
fn is_set_up(ty: &Type<'_>, texts: &[String], steps: &[Param<'_>]) -> bool {
    let mut params = ty.model.params.iter().zip(texts);
    params.all(|(def, text)| {
        let last = steps.iter().rev().find(|step| step.name == def.name);
        last.is_none_or(|last| parse_value(def.kind, text.as_bytes()) == Ok(last.value))
    })
}

/// Fails unless the parameter has the value that was written, which was not refused.
fn arrived(instance: &impl Parameters, step: &Param<'_>) -> io::Result<()> {
    let is = instance.read(step.name).map_err(io::Error::other)?;
    match parse_value(step.value.kind(), is.as_bytes()) == Ok(step.value) {
        true => Ok(()),
        false => Err(io::Error::other(format!("it did not arrive, it is {is:?}"))),
    }
}

fn is_access(errno: i32) -> bool {
    use nix::errno::Errno;
    matches!(
        Errno::from_raw(errno),
        Errno::EACCES | Errno::EPERM | Errno::ENOENT | Errno::EROFS
    )
}

/// The texts of all parameters, in declaration order.
fn snapshot(instance: &impl Parameters, ty: &Type<'_>) -> Result<Vec<String>> {
    ty.model
        .params
        .iter()
        .map(|def| instance.read(def.name))
        .collect()
}

/// Gives the parameters back the values they had, and returns those that could not be.
fn restore(instance: &mut impl Parameters, ty: &Type<'_>, before: &[String]) -> Vec<NotRestored> {
    // First only what differs, so that what an instance holds of its parent's capacity is not let go without need. Where
    // values depend on each other that may not be enough: then as set-up does.
    let mut why = String::new();
    for everything in [false, true] {
        let differing = differing(instance, ty, before);
        if differing.is_empty() {
            return Vec::new();
        }
        let chosen = |name: &str| everything || differing.iter().any(|left| left.name == name);
        for off in off_steps(ty).iter().filter(|off| chosen(off.name)) {
            // One that another parameter still requires is refused, and need not be off.
            let _ = instance.write(off.name, &off.value.to_string());
        }
        for (def, value) in ty.model.params.iter().zip(before) {
            if !chosen(def.name) {
                continue;
            }
            if let Err(error) = instance.write(def.name, value) {
                why = refusal(&error, &instance.reason());
            }
        }
    }
    let mut left = differing(instance, ty, before);
    for parameter in &mut left {
        parameter.why.clone_from(&why);
    }
    left
}

/// The parameters whose values differ from those they had.
fn differing(instance: &impl Parameters, ty: &Type<'_>, before: &[String]) -> Vec<NotRestored> {
    let differs = |(def, was): (&migration::model::ParamDef<'_>, &String)| {
        let is = instance
            .read(def.name)
            .unwrap_or_else(|error| error.to_string());
        let same = match (
            parse_value(def.kind, is.as_bytes()),
            parse_value(def.kind, was.as_bytes()),
        ) {
            (Ok(is), Ok(was)) => is == was,
            _ => is == *was,
        };
        (!same).then(|| NotRestored {
            name: def.name.to_string(),
            was: was.clone(),
            is,
            why: String::new(),
        })
    };
    ty.model
        .params
        .iter()
        .zip(before)
        .filter_map(differs)
        .collect()
}

#[cfg(test)]
mod tests;
