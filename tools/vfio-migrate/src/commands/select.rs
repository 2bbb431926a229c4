// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `select`: which of many destinations can take a source.

use std::io::BufReader;

use serde_json::{json, Value as Json};
use vfio_migrate::error::{Error, Result};
use vfio_migrate::json::Bump;
use vfio_migrate::note::{records, texts};
use vfio_migrate::operand::{self, STANDARD};
use vfio_migrate::select::{Cache, Copy, Judged, Selection, Verdict, Why};

use super::{count, Context};
use crate::cli::Select;
use crate::output::{complain, tell};

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
    let cache = arguments.cache.as_deref().map(Cache::at).transpose()?;
    let mut selection = Selection::new(&source).with_cache(cache);
    for word in &arguments.candidates {
        match word.as_str() {
            STANDARD => {
                let input = BufReader::with_capacity(1 << 18, std::io::stdin().lock());
                selection.stream(operand::display(STANDARD), input)?;
            }
            word => selection.word(&context.sysfs, word),
        }
    }
    let judged = selection.finish();
    let number = |is_it: fn(&Verdict) -> bool| judged.iter().filter(|j| is_it(&j.verdict)).count();
    let compatible = number(|verdict| matches!(verdict, Verdict::Compatible { .. }));
    let unreadable = number(|verdict| matches!(verdict, Verdict::Unreadable(_)));
    let shown = arguments
        .best
        .map_or(judged.len(), |best| best.min(compatible));
    for (index, candidate) in judged.iter().enumerate() {
        match (index < shown, context.json, &candidate.verdict) {
            (true, true, _) => context.out.json(json_row(candidate, index)),
            (true, false, _) => context.line(row(candidate)),
            // What is in no row is not lost.
            (false, _, Verdict::Unreadable(why)) => complain(why),
            (false, _, _) => {}
        }
    }
    if arguments.cache.is_some() {
        tell_of_cache(&judged);
    }
    if unreadable > 0 {
        return Err(Error::failed(format!(
            "{} of {} could not be read",
            count(unreadable, "candidate"),
            judged.len()
        )));
    }
    Ok(compatible > 0)
}

/// The name, and the type where one input offers several.
fn name(candidate: &Judged) -> String {
    match &candidate.mdev_type {
        None => candidate.name.clone(),
        Some(mdev_type) => format!("{} {mdev_type}", candidate.name),
    }
}

/// A candidate for people.
fn row(candidate: &Judged) -> String {
    let name = name(candidate);
    let row = match &candidate.verdict {
        Verdict::Compatible { changes: None, .. } => {
            format!("yes  {name}  (what to change is not told)")
        }
        Verdict::Compatible {
            changes: Some(changes),
            ..
        } => {
            let colon = if changes.is_empty() { "" } else { ": " };
            format!(
                "yes  {name}  ({} to change{colon}{})",
                count(changes.len(), "parameter"),
                texts(changes, ", ")
            )
        }
        Verdict::Refused(reasons) => format!("no   {name}  {}", texts(reasons, "; ")),
        Verdict::Unreadable(why) => {
            let why = why.strip_prefix(&format!("{name}:")).unwrap_or(why);
            format!("?    {name}  {}", why.trim_start())
        }
    };
    match &candidate.copy {
        Copy::None => row,
        Copy::Used => format!("{row}  [from the cache]"),
        Copy::NotKept => format!("{row}  [not in the cache: it has no generation]"),
        Copy::NotWritten(_) => format!("{row}  [not in the cache]"),
        Copy::Refreshed(Why::New) => format!("{row}  [cache refreshed: it was not there]"),
        Copy::Refreshed(Why::Generation(was)) => {
            format!("{row}  [cache refreshed: the generation was {was:?}]")
        }
        Copy::Refreshed(Why::Damaged) => format!("{row}  [cache refreshed: the copy was damaged]"),
    }
}

/// A candidate for programs.
fn json_row(candidate: &Judged, index: usize) -> Json {
    let mut row = match &candidate.verdict {
        Verdict::Compatible { changes, .. } => {
            let changes = changes.as_deref().map(records);
            json!({"compatible": true, "rank": index + 1, "changes": changes})
        }
        Verdict::Refused(reasons) => json!({"compatible": false, "reasons": records(reasons)}),
        Verdict::Unreadable(why) => json!({"compatible": null, "error": why}),
    };
    row["name"] = json!(candidate.name);
    if let Some(mdev_type) = &candidate.mdev_type {
        row["mdev_type"] = json!(mdev_type);
    }
    let copy = match &candidate.copy {
        Copy::None => return row,
        Copy::Used => json!({"state": "used"}),
        Copy::NotKept => json!({"state": "not-kept"}),
        Copy::NotWritten(why) => json!({"state": "not-written", "error": why}),
        Copy::Refreshed(Why::New) => json!({"state": "refreshed", "why": "new"}),
        Copy::Refreshed(Why::Generation(was)) => {
            json!({"state": "refreshed", "why": "generation", "was": was})
        }
        Copy::Refreshed(Why::Damaged) => json!({"state": "refreshed", "why": "damaged"}),
    };
    row["cache"] = copy;
    row
}

/// Says in a line what became of the copies, of candidates that are in no row as well.
fn tell_of_cache(judged: &[Judged]) {
    let number = |is_it: fn(&Copy) -> bool| judged.iter().filter(|j| is_it(&j.copy)).count();
    for candidate in judged {
        if let Copy::NotWritten(why) = &candidate.copy {
            complain(format_args!("{}: {why}", candidate.name));
        }
    }
    tell(format_args!(
        "cache: {} used, {} refreshed",
        number(|copy| *copy == Copy::Used),
        number(|copy| matches!(copy, Copy::Refreshed(_)))
    ));
}
