// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `vfio-migrate`: see `--help`, and Documentation/vfio-migrate.rst.

#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;
use vfio_migrate::error::{Error, Kind};
use vfio_migrate::sysfs::Sysfs;

use cli::{Cli, Command};
use commands::Context;

mod cli;
mod commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut context = Context {
        sysfs: Sysfs::at(&cli.sysfs),
        json: cli.json,
        out: BufWriter::new(io::stdout().lock()),
    };
    let result = run(&cli.command, &mut context);
    let flushed = context.out.flush().map_err(commands::output);
    match result.and_then(|answer| flushed.map(|()| answer)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // Nobody reads on: nothing is wrong, and nobody is told.
            if error.to_string() == commands::CLOSED {
                return ExitCode::SUCCESS;
            }
            eprintln!("vfio-migrate: {error}");
            ExitCode::from(match error.kind {
                Kind::Refused => 1,
                Kind::Failed => 2,
            })
        }
    }
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
        Command::Select(select) => commands::choose::select(context, select),
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
        Command::Man { directory } => commands::help::man(context, directory.as_deref()),
    }
}
