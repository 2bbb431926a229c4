// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `vfio-migrate`: see `--help`, and Documentation/vfio-migrate.rst.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use vfio_migrate::error::Error;
use vfio_migrate::sysfs::Sysfs;
use vfio_migrate::text::visible;

use cli::{Cli, Command};
use commands::Context;
use output::{complain, Output};

mod cli;
mod commands;
mod output;
mod state_file;

const FAILED: u8 = 2;

fn main() -> ExitCode {
    let cli = command_line();
    let mut context = Context {
        sysfs: Sysfs::at(&cli.sysfs),
        json: cli.json,
        out: Output::new(),
    };
    let result = run(&cli.command, &mut context);
    if let (true, Err(error)) = (cli.json, &result) {
        context.out.failure(error);
    }
    let lost = context.out.finish();
    ExitCode::from(match result {
        Ok(yes) => match lost {
            Some(what) => {
                complain(what);
                match cli.command.answers() {
                    true => u8::from(!yes),
                    // What it had to say is all there is to it.
                    false => FAILED,
                }
            }
            None => u8::from(!yes),
        },
        Err(error) => {
            complain(&error);
            error.status()
        }
    })
}

/// The command line. Help and wrong usage end the program here.
fn command_line() -> Cli {
    let error = match Cli::try_parse() {
        Ok(cli) => return cli,
        Err(error) => error,
    };
    // The message repeats what is wrong, which may be the name of any file. The same words without control characters are
    // wrong in the same way.
    let words = std::env::args_os().map(|word| visible(&word.to_string_lossy()).into_owned());
    let error = Cli::try_parse_from(words).err().unwrap_or(error);
    if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default();
        let what = what.strip_prefix("error: ").unwrap_or(what);
        let mut out = Output::new();
        out.failure(&Error::failed(what));
        // The message says the same to people.
        let _ = out.finish();
    }
    let printed = error.print();
    let status = match printed.err().and_then(output::lost) {
        // Of help and the version, the output is all there is.
        Some(what) if !error.use_stderr() => {
            complain(what);
            FAILED.into()
        }
        _ => error.exit_code(),
    };
    std::process::exit(status)
}

/// Whether the answer is yes.
fn run(command: &Command, context: &mut Context<'_>) -> Result<bool, Error> {
    match command {
        Command::Types => commands::show::types(context),
        Command::Info { what } => commands::show::info(context, what),
        Command::Params { uuid } => commands::show::params(context, uuid),
        Command::Check {
            source,
            destination,
        } => commands::choose::check(context, source, destination),
        Command::HowToStart { source, program } => {
            commands::command_line::command_line(context, source, program)
        }
        Command::Select(arguments) => commands::select::select(context, arguments),
        Command::Callout(asked) => commands::callout::callout(context, asked),
        Command::Prepare {
            source,
            instance,
            dry_run,
        } => commands::choose::prepare(context, source, instance, *dry_run),
        Command::Save {
            uuid,
            file,
            exercise,
            pre_copy,
            protocol,
        } => commands::state::save(
            context,
            uuid,
            file,
            (*protocol).into(),
            *exercise,
            *pre_copy,
        ),
        Command::Load {
            uuid,
            file,
            protocol,
        } => commands::state::load(context, uuid, file, (*protocol).into()),
        Command::Copy {
            source,
            destination,
            exercise,
            from,
            to,
        } => {
            let protocols = ((*from).into(), (*to).into());
            commands::state::copy(context, source, destination, protocols, *exercise)
        }
        Command::Inspect { file } => commands::state::inspect(context, file),
        Command::Watch {
            uuid,
            once,
            until_end,
        } => commands::watch::watch(context, uuid, *once, *until_end),
        Command::Completions { shell } => commands::help::completions(context, *shell),
        Command::Man { directory } => commands::man::man(context, directory.as_deref()),
    }
}
