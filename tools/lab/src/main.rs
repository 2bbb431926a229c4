// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Boots the test machine, runs programs in it, and turns what they and the machine's kernel say into a verdict.
//!
//! Exit status: 0 if all is well, 1 if a test or the command failed, 2 if the lab could not do its work (one line on standard
//! error says why and what to do). `lab shell` ends with the status of the shell.

mod bench;
mod cli;
mod clock;
mod command;
mod coverage;
mod environment;
mod image;
mod interactive;
mod machine;
mod measure;
mod modules;
mod plan;
mod report;
mod runner;
mod screen;
mod self_check;
mod session;
mod test;
mod verdict;

use clap::Parser;
use cli::{Action, Cli};
use command::{command, demo, shell};
use measure::measure;
use std::process::ExitCode;
use std::time::Duration;
use test::{prepare, test};

fn main() -> ExitCode {
    let Cli { env, action } = Cli::parse();
    let done = match action {
        Action::Image => prepare(&env),
        Action::Run(args) if !args.tests.is_empty() => test(
            &env,
            &args.tests,
            &args.leave_out,
            &[],
            &args.with,
            args.machines,
        ),
        Action::Run(args) => command(&env, &args),
        Action::Test(args) => test(&env, &[], &[], &args.host_tests, &args.with, args.machines),
        Action::Shell(args) => shell(&env, &args),
        Action::Demo {
            timeout,
            qemu,
            device,
        } => demo(&env, Duration::from_secs(timeout), [qemu, device]),
        Action::Bench(args) => measure(&env, &args),
    };
    done.unwrap_or_else(|e| {
        eprintln!("lab: {e:#}");
        ExitCode::from(2)
    })
}
