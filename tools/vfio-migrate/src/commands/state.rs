// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `save`, `load`, `copy` and `inspect`: device state without a virtual machine.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use migration::stream::section_len;
use serde_json::json;
use vfio_migrate::error::{Error, Result};
use vfio_migrate::exercise;
use vfio_migrate::inspect::{inspect as take_apart, Contents, OwnedParam, Record};
use vfio_migrate::operand::{self, STANDARD};
use vfio_migrate::state::{self, Protocol, Saved};
use vfio_migrate::text::{size, Table};

use super::{count, Context};
use crate::output::tell;
use crate::state_file::Target;
use vfio_migrate::note::json_value;

/// How long a transfer takes before its progress is shown.
const LONG: Duration = Duration::from_millis(500);

/// Shows the progress of a long transfer on standard error, if that is a terminal.
struct Bar {
    started: Instant,
    on_terminal: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    fn new() -> Self {
        Self::started(Instant::now(), std::io::stderr().is_terminal())
    }

    fn started(started: Instant, on_terminal: bool) -> Self {
        Self {
            started,
            on_terminal,
            bar: None,
        }
    }

    fn at(&mut self, bytes: u64, total: Option<u64>) {
        if !self.on_terminal || (self.bar.is_none() && self.started.elapsed() < LONG) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(
                "{bytes} of {total_bytes} {wide_bar} {bytes_per_sec} {eta}",
            );
            ProgressBar::no_length()
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        if let Some(total) = total {
            bar.set_length(total.max(bytes));
        }
        bar.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `save`
pub fn save(
    context: &mut Context<'_>,
    device: &str,
    file: &str,
    protocol: Protocol,
    exercise: bool,
    pre_copy: bool,
) -> Result<bool> {
    let to_standard = file == STANDARD;
    if to_standard && std::io::stdout().is_terminal() {
        return Err(Error::failed(
            "the state is not for terminals: give a file, or redirect standard output",
        ));
    }
    let device = operand::device(&context.sysfs, device)?;
    // Before the device is opened: that may be kept waiting for the reader of a FIFO.
    let target = match to_standard {
        true => None,
        false => Some(Target::open(Path::new(file))?),
    };
    let opened = state::open(&context.sysfs, device)?;
    if exercise {
        exercise::fill(&*opened)?;
    }
    let mut bar = Bar::new();
    let mut progress = |bytes, total| bar.at(bytes, total);
    let name = if to_standard { "standard output" } else { file };
    let lost = |error: io::Error| Error::file(Path::new(name), &error);
    let saved = match target {
        None => {
            let out = context.out.state();
            let mut sink = |bytes: &[u8]| out.write_all(bytes).map_err(lost);
            let saved = opened.save(protocol, pre_copy, &mut sink, &mut progress)?;
            out.flush().map_err(lost)?;
            saved
        }
        Some(mut target) => {
            let mut sink = |bytes: &[u8]| target.write(bytes).map_err(lost);
            let saved = opened.save(protocol, pre_copy, &mut sink, &mut progress)?;
            target.finish().map_err(lost)?;
            saved
        }
    };
    drop(bar);
    if to_standard {
        tell(format_args!("saved {}", describe(&saved)));
    } else if context.json {
        context.document(&json!({"saved": true, "pre_copy_bytes": saved.pre_copy, "stop_copy_bytes": saved.stop_copy}));
    } else {
        context.line(format_args!("saved {}", describe(&saved)));
    }
    Ok(true)
}

fn describe(saved: &Saved) -> String {
    match saved.pre_copy {
        0 => size(saved.stop_copy),
        pre_copy => format!(
            "{} in pre-copy and {} in stop-and-copy",
            size(pre_copy),
            size(saved.stop_copy)
        ),
    }
}

/// What to do about a destination that refuses a state.
fn advice(error: Error, source: &str, destination: &str) -> Error {
    use vfio_migrate::error::Kind;
    // The parameters of a program's device are in the state that it saves.
    let (save, source) = match operand::is_socket(source) {
        true => (
            format!("with what `vfio-migrate save {source} STATE` saves, "),
            "STATE",
        ),
        false => (String::new(), source),
    };
    match (error.kind, operand::is_socket(destination)) {
        (Kind::Refused, true) => error.and(&format!(
            "; {save}`vfio-migrate command-line {source} PROGRAM` tells how a program is started that takes it"
        )),
        (Kind::Refused, false) => error.and(&format!(
            "; {save}`vfio-migrate check {source} {destination}` tells whether it can be prepared"
        )),
        (Kind::Failed, _) => error,
    }
}

/// `load`
pub fn load(context: &mut Context<'_>, word: &str, file: &str, protocol: Protocol) -> Result<bool> {
    let device = operand::device(&context.sysfs, word)?;
    let mut input = operand::open(file)?;
    let opened = state::open(&context.sysfs, device)?;
    let mut bar = Bar::new();
    let total = match file {
        STANDARD => None,
        file => fs::metadata(file).ok().map(|metadata| metadata.len()),
    };
    let mut loading = opened.load(protocol)?;
    let pushed = loading.push_all(&mut *input, operand::display(file), &mut |bytes, _| {
        bar.at(bytes, total)
    });
    drop(bar);
    let bytes = pushed
        .and_then(|()| loading.finish())
        .map_err(|error| advice(error, file, word))?;
    if context.json {
        context.document(&json!({"accepted": true, "bytes": bytes}));
    } else {
        context.line(format_args!(
            "accepted: {}, and the device runs with it",
            size(bytes)
        ));
    }
    Ok(true)
}

/// `copy`
pub fn copy(
    context: &mut Context<'_>,
    source: &str,
    destination: &str,
    (by_from, by_to): (Protocol, Protocol),
    exercise: bool,
) -> Result<bool> {
    let from = operand::device(&context.sysfs, source)?;
    let to = operand::device(&context.sysfs, destination)?;
    if from.is(&to) {
        let kind = match from {
            operand::Device::Instance(_) => "instance",
            operand::Device::Socket { .. } => "device",
        };
        return Err(Error::failed(format!(
            "source and destination are the same {kind}: give two"
        )));
    }
    let from = state::open(&context.sysfs, from)?;
    let to = state::open(&context.sysfs, to)?;
    let contents = exercise.then(|| exercise::fill(&*from)).transpose()?;
    let started = Instant::now();
    let mut bar = Bar::new();
    let mut loading = to.load(by_to)?;
    let saved = from.save(
        by_from,
        from.has_pre_copy(by_from)?,
        &mut |bytes| loading.push(bytes),
        &mut |bytes, total| bar.at(bytes, total),
    );
    drop(bar);
    let saved = saved.and_then(|saved| loading.finish().map(|_| saved));
    let saved = saved.map_err(|error| advice(error, source, destination))?;
    let took = started.elapsed();
    let found = match &contents {
        Some(contents) => {
            exercise::verify(&*to, contents)?;
            let (ports, characters) = contents.count();
            format!(
                "; found again: {} and {}",
                count(ports, "port"),
                count(characters, "character")
            )
        }
        None => String::new(),
    };
    if context.json {
        context.document(&json!({
            "accepted": true,
            "pre_copy_bytes": saved.pre_copy,
            "stop_copy_bytes": saved.stop_copy,
            "microseconds": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "content_verified": contents.is_some(),
        }));
    } else {
        let millis = took.as_micros() / 1000;
        context.line(format_args!(
            "copied {} in {millis} ms{found}",
            describe(&saved)
        ));
    }
    Ok(true)
}

/// `inspect`
pub fn inspect(context: &mut Context<'_>, file: &str) -> Result<bool> {
    if file == STANDARD && std::io::stdin().is_terminal() {
        return Err(Error::failed(
            "give a file, or redirect standard input to a saved state",
        ));
    }
    let mut input = operand::open(file)?;
    let name = operand::display(file);
    let contents = take_apart(&mut *input).map_err(|error| Error::file(Path::new(name), &error))?;
    if context.json {
        let document = json_contents(&contents);
        context.document(&document);
    } else {
        print_contents(context, &contents);
    }
    match contents.damage {
        None => Ok(true),
        Some((offset, error)) => Err(Error::refused(format!(
            "{name}: damaged in the record at byte {offset}: {error}"
        ))),
    }
}

fn print_contents(context: &mut Context<'_>, contents: &Contents) {
    let mut shown = None;
    let mut table = Table::new(&["OFFSET", "BYTES", "PHASE", "RECORD"]);
    for (offset, record) in &contents.records {
        match record {
            Record::Setup {
                version,
                phase,
                model,
                params,
                len,
            } => {
                if shown.is_none() {
                    context.line(format_args!("format {version}"));
                    context.line(format_args!("model {model}"));
                    for OwnedParam { name, text, .. } in params {
                        context.line(format_args!("  {name}={text}"));
                    }
                    shown = Some(());
                }
                let what = format!("setup record, {}", count(params.len(), "parameter"));
                table.row([offset.to_string(), len.to_string(), phase.to_string(), what]);
            }
            Record::Section {
                id,
                name,
                phase,
                mandatory,
                payload,
            } => {
                let need = if *mandatory { "" } else { ", optional" };
                let name = name
                    .as_ref()
                    .map_or(String::new(), |name| format!(" ({name})"));
                let what = format!("section {id:#06x}{name}, {payload} bytes{need}");
                table.row([
                    offset.to_string(),
                    section_len(*payload).to_string(),
                    phase.to_string(),
                    what,
                ]);
            }
            Record::End => {
                table.row([
                    offset.to_string(),
                    section_len(0).to_string(),
                    String::new(),
                    "end".to_string(),
                ]);
            }
        }
    }
    context.out.lines(table);
    if contents.damage.is_none() {
        context.line(format_args!(
            "{} bytes, complete, all checksums right",
            contents.bytes
        ));
    }
}

fn json_contents(contents: &Contents) -> serde_json::Value {
    let record = |(offset, record): &(u64, Record)| match record {
        Record::Setup {
            version,
            phase,
            model,
            params,
            len,
        } => {
            let params = params
                .iter()
                .map(|param| (param.name.clone(), json_value(&param.value())));
            json!({
                "record": "setup",
                "offset": offset,
                "bytes": len,
                "phase": phase.name(),
                "format": version.to_string(),
                "model": model,
                "params": serde_json::Value::Object(params.collect()),
            })
        }
        Record::Section {
            id,
            name,
            phase,
            mandatory,
            payload,
        } => json!({
            "record": "section",
            "offset": offset,
            "bytes": section_len(*payload),
            "phase": phase.name(),
            "id": id,
            "name": name,
            "mandatory": mandatory,
            "payload_bytes": payload,
        }),
        Record::End => json!({"record": "end", "offset": offset, "bytes": section_len(0)}),
    };
    let damage = contents
        .damage
        .as_ref()
        .map(|(offset, error)| json!({"offset": offset, "error": error.to_string()}));
    json!({
        "bytes": contents.bytes,
        "complete": contents.damage.is_none(),
        "records": contents.records.iter().map(record).collect::<Vec<_>>(),
        "damage": damage,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_shown_of_long_transfers_on_terminals() {
        let long_ago = Instant::now()
            .checked_sub(LONG)
            .expect("a clock that has run");
        let never = Instant::now() + Duration::from_secs(1_000_000);
        for (started, on_terminal, is_shown) in [
            (long_ago, true, true),
            (long_ago, false, false),
            (never, true, false),
            (never, false, false),
        ] {
            let mut bar = Bar::started(started, on_terminal);
            bar.at(1, Some(2));
            assert_eq!(bar.bar.is_some(), is_shown, "{started:?} {on_terminal}");
        }
    }
}
