// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `watch`: a migration in progress on one line.

use std::io::IsTerminal;

use serde_json::json;
use vfio_migrate::error::Result;
use vfio_migrate::operand;
use vfio_migrate::text::size;
use vfio_migrate::watch::{End, Sample, Subject, Wake};

use super::Context;

/// `watch`
pub fn watch(context: &mut Context<'_>, word: &str, once: bool, until_end: bool) -> Result<bool> {
    let mut watch = Subject::new(operand::device(&context.sysfs, word)?)?;
    let terminal = std::io::stdout().is_terminal() && !context.json && !once;
    let mut last: Option<Sample> = None;
    let mut end = End::default();
    loop {
        let Some(sample) = watch.sample()? else {
            if terminal {
                context.line("");
            }
            context.line(if context.json {
                "null"
            } else {
                watch.farewell()
            });
            return Ok(true);
        };
        if last.as_ref() != Some(&sample) {
            show(context, &sample, terminal);
            // Nobody reads on.
            if !context.out.is_open() {
                return Ok(true);
            }
        }
        if once || (end.is_reached(&sample) && until_end) {
            if terminal {
                context.line("");
            }
            return Ok(true);
        }
        last = Some(sample);
        if watch.wait(std::io::stdout())? == Wake::NoReader {
            return Ok(true);
        }
    }
}

fn show(context: &mut Context<'_>, sample: &Sample, terminal: bool) {
    let Sample {
        state,
        phase,
        bytes,
        sessions,
    } = sample;
    if context.json {
        let line = json!({"state": state, "phase": phase, "bytes": bytes, "sessions": sessions});
        context.out.json(line);
    } else {
        let count = sessions.map_or(String::new(), |count| format!("  sessions {count}"));
        let text = format!(
            "state {state:<13} phase {phase:<14} {}{count}",
            size(*bytes)
        );
        match terminal {
            true => context.out.replace_line(text),
            false => context.line(text),
        }
    }
    // Each change is to be seen when it is there.
    context.out.flush();
}
