// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `command-line`: how a device program is started as a destination.

use migration::check::check as reasons;
use migration::value::Param;
use serde_json::json;
use vfio_migrate::error::{Error, Result};
use vfio_migrate::json::Bump;
use vfio_migrate::note::{texts, Note};
use vfio_migrate::operand;
use vfio_migrate::prepare::steps;
use vfio_migrate::program::path;

use super::choose::quoted;
use super::Context;

/// `command-line`
pub fn command_line(context: &mut Context<'_>, source: &str, program: &str) -> Result<bool> {
    let arena = Bump::new();
    let from = operand::source(&arena, &context.sysfs, source)?;
    let to = operand::destination(&arena, &context.sysfs, program)?;
    if !to.is_program {
        return Err(Error::failed(format!(
            "{program}: not a program; `vfio-migrate prepare` sets an instance up"
        )));
    }
    let mut types = to.types.iter();
    let found = types.find(|ty| ty.model.name == from.model);
    // Of a program without the model, one reason is that.
    let ty = found.or(to.types.first());
    let ty = ty.ok_or_else(|| Error::failed(format!("{program}: it offers no device model")))?;
    let refused: Vec<Note> = reasons(from.model, from.params.iter().copied(), ty)
        .map(|reason| Note::reason(&reason))
        .collect();
    if !refused.is_empty() {
        let message = format!("{program}: not compatible: {}", texts(&refused, "; "));
        return Err(Error::refused(message).because(refused));
    }
    let mut arguments = Vec::new();
    let is_by_version = ty.model.bare_versions().is_some();
    if is_by_version || to.types.len() > 1 {
        arguments.push(format!("--migration-model={}", ty.model.name));
    }
    // The last of its steps is what a parameter has in the end.
    let steps = steps(ty, &from);
    for def in ty.model.params {
        let mut last = steps.iter().rev();
        if let Some(Param { value, .. }) = last.find(|step| step.name == def.name) {
            arguments.push(match is_by_version {
                true => format!("--migration-version={value}"),
                false => format!("--m-{}={value}", def.name),
            });
        }
    }
    let program = path(program);
    if context.json {
        context.document(&json!({"program": program, "arguments": arguments}));
    } else {
        let words = std::iter::once(&program).chain(&arguments);
        let words: Vec<String> = words.map(|word| quoted(word)).collect();
        context.line(words.join(" "));
    }
    Ok(true)
}
