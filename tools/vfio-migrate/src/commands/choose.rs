// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `check` and `prepare`: whether a destination will do, and setting it up.

use migration::check::check as reasons;
use migration::model::Type;
use migration::value::Param;
use serde_json::json;
use vfio_migrate::error::{Error, Result};
use vfio_migrate::json::{Bump, Source};
use vfio_migrate::note::{records, texts, Note};
use vfio_migrate::operand::{self, Destination, STANDARD};
use vfio_migrate::prepare::{changes, prepare as carry_out, steps};
use vfio_migrate::program::WARNING;
use vfio_migrate::select::{judge, Verdict};

use super::{count, Context};
use crate::output::complain;

/// What `prepare` would change of an instance that is compatible.
fn pending<'a>(
    arena: &'a Bump,
    destination: &Destination<'a>,
    source: &Source<'a>,
) -> Result<Option<Vec<Note>>> {
    let (Some(instance), [ty]) = (&destination.instance, destination.types) else {
        return Ok(None);
    };
    let values = instance.values(arena, ty)?;
    Ok(Some(Note::changes(&changes(&values, &steps(ty, source)))))
}

/// `check`
pub fn check(context: &mut Context<'_>, source: &str, destination: &str) -> Result<bool> {
    if source == STANDARD && destination == STANDARD {
        return Err(Error::failed(
            "source and destination cannot both be standard input",
        ));
    }
    let arena = Bump::new();
    let from = operand::source(&arena, &context.sysfs, source)?;
    let to = operand::destination(&arena, &context.sysfs, destination)?;
    let verdict = judge(&from, to.types);
    let warning = to.is_program.then_some(WARNING);
    match &verdict {
        Verdict::Compatible { .. } => {
            if let Some(warning) = warning {
                complain(warning);
            }
            let pending = pending(&arena, &to, &from)?;
            if context.json {
                let prepared = pending.as_ref().map(Vec::is_empty);
                let changes = records(pending.as_deref().unwrap_or_default());
                let mut document = json!({"compatible": true, "reasons": [], "prepared": prepared, "changes": changes});
                if let Some(warning) = warning {
                    document["warnings"] = json!([warning]);
                }
                context.document(&document);
                return Ok(true);
            }
            match pending.as_deref() {
                None if to.is_program => context.line(format_args!(
                    "compatible; `vfio-migrate command-line {} {}` says how to start it",
                    quoted(source),
                    quoted(destination)
                )),
                None => context.line("compatible"),
                Some([]) => context.line("compatible, and prepared"),
                Some(changes) => context.line(format_args!(
                    "compatible, after `vfio-migrate prepare {} {}`: {}",
                    quoted(source),
                    quoted(destination),
                    texts(changes, ", ")
                )),
            }
            Ok(true)
        }
        Verdict::Refused(reasons) => {
            if context.json {
                context.document(&json!({"compatible": false, "reasons": records(reasons)}));
            } else {
                context.line(format_args!(
                    "not compatible: {}",
                    count(reasons.len(), "reason")
                ));
                for reason in reasons {
                    context.line(format_args!("  {}", reason.text));
                }
            }
            Ok(false)
        }
        Verdict::Unreadable(why) => Err(Error::failed(why.clone())),
    }
}

/// `prepare`
pub fn prepare(
    context: &mut Context<'_>,
    source: &str,
    instance: &str,
    dry_run: bool,
) -> Result<bool> {
    let arena = Bump::new();
    let from = operand::source(&arena, &context.sysfs, source)?;
    let mut instance = operand::instance(&context.sysfs, instance)?;
    let ty: &Type<'_> = instance.offer(&arena)?;
    let refused: Vec<Note> = reasons(from.model, from.params.iter().copied(), ty)
        .map(|reason| Note::reason(&reason))
        .collect();
    if !refused.is_empty() {
        let message = format!(
            "{}: not compatible, nothing was changed: {}",
            instance.uuid,
            texts(&refused, "; ")
        );
        return Err(Error::refused(message).because(refused));
    }
    let mut steps = steps(ty, &from);
    let changes = Note::changes(&changes(&instance.values(&arena, ty)?, &steps));
    if changes.is_empty() {
        // Nothing is written then.
        steps.clear();
    }
    if !dry_run {
        if let Err(failure) = carry_out(&mut instance, ty, &steps)? {
            let message = format!("{}: {}", instance.uuid, failure);
            return Err(match failure.is_access() {
                true => Error::failed(message),
                false => Error::refused(message),
            });
        }
    }
    if context.json {
        let list =
            |params: &[Param<'_>]| -> Vec<String> { params.iter().map(Param::to_string).collect() };
        let document =
            json!({"prepared": !dry_run, "writes": list(&steps), "changes": records(&changes)});
        context.document(&document);
    } else if dry_run {
        for step in &steps {
            let path = instance.file(step.name);
            context.line(format_args!(
                "printf '%s\\n' {} > {}",
                quoted(&step.value.to_string()),
                quoted(&path.to_string_lossy())
            ));
        }
    } else if changes.is_empty() {
        context.line("prepared: it had these values already");
    } else {
        context.line(format_args!("prepared: {}", texts(&changes, ", ")));
    }
    Ok(true)
}

/// The value as a word of the shell, which is no command's first word unless it has a slash.
pub(super) fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:+/=".contains(c);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_string(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}
