// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `watch`: a migration in progress on one line.

use std::io::IsTerminal;

use serde_json::json;
use vfio_migrate::error::Result;
use vfio_migrate::operand;
use vfio_migrate::text::size;
use vfio_migrate::watch::{Sample, Watch, NO_PHASE};

use super::Context;

/// `watch`
pub fn watch(context: &mut Context<'_>, uuid: &str, once: bool, until_end: bool) -> Result<bool> {
    let instance = operand::instance(&context.sysfs, uuid)?;
    let watch = Watch::new(instance)?;
    let terminal = std::io::stdout().is_terminal() && !context.json && !once;
    let mut last: Option<Sample> = None;
    let mut seen_one = false;
    loop {
        let Some(sample) = watch.sample()? else {
            if terminal {
                context.line("");
            }
            context.line(if context.json {
                "null"
            } else {
                "the instance was removed"
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
        let busy = sample.phase != NO_PHASE;
        seen_one |= busy;
        if once || (until_end && seen_one && !busy) {
            if terminal {
                context.line("");
            }
            return Ok(true);
        }
        last = Some(sample);
        watch.wait()?;
    }
}

fn show(context: &mut Context<'_>, sample: &Sample, terminal: bool) {
    let Sample {
        state,
        phase,
        bytes,
    } = sample;
    if context.json {
        context
            .out
            .json(json!({"state": state, "phase": phase, "bytes": bytes}));
    } else {
        let text = format!("state {state:<13} phase {phase:<14} {}", size(*bytes));
        match terminal {
            true => context.out.replace_line(text),
            false => context.line(text),
        }
    }
    // Each change is to be seen when it is there.
    context.out.flush();
}
