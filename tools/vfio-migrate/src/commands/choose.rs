// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `check`, `select` and `prepare`: finding a destination and setting it up.

use std::io::BufReader;
use std::path::Path;

use migration::check::check as reasons;
use migration::model::Type;
use migration::value::Param;
use serde_json::json;
use vfio_migrate::error::{Error, Result};
use vfio_migrate::json::{Bump, Source};
use vfio_migrate::operand::{self, Destination, STANDARD};
use vfio_migrate::prepare::{changes, prepare as carry_out, steps};
use vfio_migrate::select::{judge, Judged, Selection, Verdict};
use vfio_migrate::text::one_line;

use super::{count, json_value, Context};
use crate::cli::Select;
use crate::output::complain;

/// `name=old -> new` for what is to be changed.
fn change_text((now, then): &(Param<'_>, Param<'_>)) -> String {
    format!("{} {} -> {}", now.name, now.value, then.value)
}

/// What `prepare` would change of an instance that is compatible.
fn pending<'a>(
    arena: &'a Bump,
    destination: &Destination<'a>,
    source: &Source<'a>,
) -> Result<Option<Vec<(Param<'a>, Param<'a>)>>> {
    let (Some(instance), [ty]) = (&destination.instance, destination.types) else {
        return Ok(None);
    };
    let values = instance.values(arena, ty)?;
    Ok(Some(changes(&values, &steps(ty, source))))
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
    match &verdict {
        Verdict::Compatible(_) => {
            let pending = pending(&arena, &to, &from)?;
            if context.json {
                let prepared = pending.as_ref().map(Vec::is_empty);
                let changes: Vec<_> = pending.iter().flatten().map(json_change).collect();
                let document = json!({"compatible": true, "reasons": [], "prepared": prepared, "changes": changes});
                context.document(&document);
                return Ok(true);
            }
            match pending.as_deref() {
                None => context.line("compatible"),
                Some([]) => context.line("compatible, and prepared"),
                Some(changes) => {
                    let changes: Vec<String> = changes.iter().map(change_text).collect();
                    context.line(format_args!(
                        "compatible, after `vfio-migrate prepare {} {}`: {}",
                        one_line(source),
                        one_line(destination),
                        changes.join(", ")
                    ));
                }
            }
            Ok(true)
        }
        Verdict::Refused(reasons) => {
            if context.json {
                context.document(&json!({"compatible": false, "reasons": reasons}));
            } else {
                context.line(format_args!(
                    "not compatible: {}",
                    count(reasons.len(), "reason")
                ));
                for reason in reasons {
                    context.line(format_args!("  {}", one_line(reason)));
                }
            }
            Ok(false)
        }
        Verdict::Unreadable(why) => Err(Error::failed(why.clone())),
    }
}

fn json_change((now, then): &(Param<'_>, Param<'_>)) -> serde_json::Value {
    json!({"name": now.name, "from": json_value(&now.value), "to": json_value(&then.value)})
}

/// `select`
pub fn select(context: &mut Context<'_>, arguments: &Select) -> Result<bool> {
    let standard = arguments
        .candidates
        .iter()
        .filter(|word| *word == STANDARD)
        .count();
    if standard + usize::from(arguments.source == STANDARD) > 1 {
        return Err(Error::failed("standard input can be given once only"));
    }
    let arena = Bump::new();
    let source = operand::source(&arena, &context.sysfs, &arguments.source)?;
    let mut selection = Selection::new(&source);
    for word in &arguments.candidates {
        match word.as_str() {
            STANDARD => {
                let input = BufReader::with_capacity(1 << 18, std::io::stdin().lock());
                selection.lines(operand::display(STANDARD), input)?;
            }
            path => selection.path(Path::new(path))?,
        }
    }
    let judged = selection.finish();
    for candidate in &judged {
        if let Verdict::Unreadable(why) = &candidate.verdict {
            complain(why);
        }
    }
    let is_compatible = |judged: &&Judged| matches!(judged.verdict, Verdict::Compatible(_));
    let compatible = judged.iter().filter(is_compatible).count();
    let unreadable = judged
        .iter()
        .filter(|j| matches!(j.verdict, Verdict::Unreadable(_)))
        .count();
    let shown = arguments
        .best
        .map_or(judged.len(), |best| best.min(compatible));
    for (index, candidate) in judged.iter().take(shown).enumerate() {
        if context.json {
            context.out.json(json_candidate(candidate, index));
            continue;
        }
        match &candidate.verdict {
            Verdict::Compatible(rank) => context.line(format_args!(
                "yes  {}  ({} to change)",
                candidate.name,
                count(rank.changes, "parameter")
            )),
            Verdict::Refused(reasons) => {
                context.line(format_args!(
                    "no   {}  {}",
                    candidate.name,
                    one_line(&reasons.join("; "))
                ));
            }
            Verdict::Unreadable(_) => context.line(format_args!("?    {}", candidate.name)),
        }
    }
    if unreadable > 0 {
        return Err(Error::failed(format!(
            "{} of {} could not be read: see above",
            count(unreadable, "candidate"),
            judged.len()
        )));
    }
    Ok(compatible > 0)
}

fn json_candidate(candidate: &Judged, index: usize) -> serde_json::Value {
    let name = &candidate.name;
    match &candidate.verdict {
        Verdict::Compatible(rank) => {
            json!({"name": name, "compatible": true, "rank": index + 1, "changes": rank.changes})
        }
        Verdict::Refused(reasons) => json!({"name": name, "compatible": false, "reasons": reasons}),
        Verdict::Unreadable(why) => json!({"name": name, "compatible": null, "error": why}),
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
    let refused: Vec<String> = reasons(from.model, from.params.iter().copied(), ty)
        .map(|reason| reason.to_string())
        .collect();
    if !refused.is_empty() {
        return Err(Error::refused(format!(
            "{}: not compatible, nothing was changed: {}",
            instance.uuid,
            one_line(&refused.join("; "))
        )));
    }
    let mut steps = steps(ty, &from);
    let changes = changes(&instance.values(&arena, ty)?, &steps);
    if changes.is_empty() {
        // Nothing is written then.
        steps.clear();
    }
    if !dry_run {
        if let Err(failure) = carry_out(&mut instance, ty, &steps)? {
            let message = format!("{}: {}", instance.uuid, one_line(&failure.to_string()));
            return Err(match failure.is_access() {
                true => Error::failed(message),
                false => Error::refused(message),
            });
        }
    }
    if context.json {
        let list =
            |params: &[Param<'_>]| -> Vec<String> { params.iter().map(Param::to_string).collect() };
        let changes: Vec<_> = changes.iter().map(json_change).collect();
        let document = json!({"prepared": !dry_run, "writes": list(&steps), "changes": changes});
        context.document(&document);
    } else if dry_run {
        for step in &steps {
            let path = instance.file(step.name);
            context.line(format_args!(
                "echo {} > {}",
                quoted(&step.value.to_string()),
                path.display()
            ));
        }
    } else if changes.is_empty() {
        context.line("prepared: it had these values already");
    } else {
        let changes: Vec<String> = changes.iter().map(change_text).collect();
        context.line(format_args!("prepared: {}", changes.join(", ")));
    }
    Ok(true)
}

/// The value as a word of the shell.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:+".contains(c);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_string(),
        false => format!("'{}'", value.replace('\'', "'\\''")),
    }
}
