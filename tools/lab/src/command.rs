// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One program in one machine: a command, a prompt, the demonstration.

use crate::cli::{LoadArgs, RunArgs};
use crate::environment::Environment;
use crate::image::{needs::Needs, Image};
use crate::modules::Module;
use crate::session::{Run, RunEnd, Session, Stream};
use crate::{interactive, plan, runner};
use anyhow::{bail, Context, Result};
use lab_protocol::{Ending, ModuleAction, Program};
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// The program that shows what the project does.
pub const SCENARIOS: &str = "/tests/scenarios";

/// Name of the only machine of commands other than `test`.
pub const ONLY_MACHINE: &str = "machine-1";

/// A session with modules loaded, for commands that run one program.
fn open(env: &Environment, load: &LoadArgs) -> Result<Session> {
    runner::prepare_results(env)?;
    boot(env, load, ONLY_MACHINE, &Needs::Everything)
}

/// Starts a machine of this name, with what it needs, loads modules, and says so. What earlier machines left in the results stays.
pub fn boot(env: &Environment, load: &LoadArgs, name: &str, needs: &Needs) -> Result<Session> {
    start(env, load, name, needs, |text| eprintln!("lab: {text}"))
}

/// As [`boot`], with somebody else to say that the machine is up.
pub fn start(
    env: &Environment,
    load: &LoadArgs,
    name: &str,
    needs: &Needs,
    say: impl Fn(&str),
) -> Result<Session> {
    let all = env.all_modules()?;
    let image = Image::build(env, &all, needs)?;
    let directory = env.results.join("logs").join(name);
    let mut session = Session::boot(env, &image, &directory)?;
    say(&format!(
        "Linux {} is up after {:.1} s; logs are in {}",
        session.kernel(),
        session.boot_time().as_secs_f64(),
        directory.display()
    ));
    for (module, parameters) in wanted(env, &all, load)? {
        if let Some(why) = session.module(&module.name, ModuleAction::Load(parameters)) {
            bail!("{why}: see {}", directory.join("kernel.log").display());
        }
    }
    Ok(session)
}

/// Modules to be loaded, in order, with their parameters.
fn wanted<'a>(
    env: &Environment,
    all: &'a [Module],
    load: &LoadArgs,
) -> Result<Vec<(&'a Module, String)>> {
    let asked: Vec<_> = load
        .load
        .iter()
        .map(|text| text.split_once(':').unwrap_or((text, "")))
        .collect();
    let mut names: Vec<_> = asked.iter().map(|(name, _)| *name).collect();
    if !load.bare {
        let present = plan::MODULES
            .iter()
            .filter(|name| all.iter().any(|module| module.name == **name));
        names.extend(present);
    }
    let parameters = |name: &str| {
        asked
            .iter()
            .find(|(asked, _)| *asked == name)
            .map_or("", |(_, parameters)| parameters)
    };
    Ok(env
        .modules_to_load(all, &names)?
        .into_iter()
        .map(|module| (module, parameters(&module.name).to_owned()))
        .collect())
}

/// Runs one program, its output passed on as it comes, and a copy of standard output written to `copy`.
pub fn pass_on(
    session: &mut Session,
    label: &str,
    argv: Vec<String>,
    timeout: Duration,
    mut copy: Option<File>,
) -> Result<Run> {
    let program = Program {
        label: label.to_owned(),
        argv,
        env: vec![],
        terminal: None,
    };
    let mut copied = Ok(());
    let run = session.run(program, Some(timeout), &mut |stream, bytes| {
        // Whoever closed the output does not want it: the program runs on all the same.
        let _ = match stream {
            Stream::Stdout => std::io::stdout()
                .write_all(bytes)
                .and_then(|()| std::io::stdout().flush()),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
        if let (Stream::Stdout, Some(file), true) = (stream, copy.as_mut(), copied.is_ok()) {
            copied = file.write_all(bytes);
        }
    });
    copied.context("cannot write the copy of the output")?;
    Ok(run)
}

/// Ends the session and says what is wrong, if anything: how the program ended, what the kernel said.
pub fn complaints(session: &mut Session, run: &Run) -> Result<Vec<String>> {
    let mut all = Vec::new();
    match &run.end {
        RunEnd::Ended(Ending::Code(0)) => {}
        RunEnd::Ended(ending) => all.push(ending.to_string()),
        RunEnd::TimedOut(limit) => all.push(format!(
            "did not end within {:.0} s and was stopped",
            limit.as_secs_f64()
        )),
        RunEnd::KernelBug => {
            all.push("was stopped because the kernel reported a bug in itself".to_owned())
        }
        RunEnd::Lost(why) => all.push(why.clone()),
    }
    all.extend(
        run.leftovers
            .iter()
            .map(|command| format!("left running: {command}")),
    );
    all.extend(
        run.unkillable
            .iter()
            .map(|command| format!("cannot be killed: {command}")),
    );
    all.extend(session.troubles().iter().cloned());
    session.end()?;
    all.extend(
        session
            .log()
            .finish()
            .into_iter()
            .map(|finding| format!("kernel log: {}", finding.title)),
    );
    Ok(all)
}

/// Runs a command, and says what was wrong with it.
pub fn command(env: &Environment, args: &RunArgs) -> Result<ExitCode> {
    let mut session = open(env, &args.load)?;
    let run = pass_on(
        &mut session,
        "command",
        args.command.clone(),
        Duration::from_secs(args.timeout),
        None,
    )?;
    let complaints = complaints(&mut session, &run)?;
    for complaint in &complaints {
        eprintln!("lab: {complaint}");
    }
    Ok(if complaints.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Gives a prompt.
pub fn shell(env: &Environment, args: &LoadArgs) -> Result<ExitCode> {
    let mut session = open(env, args)?;
    let status = interactive::shell(&mut session)?;
    session.end()?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

/// Shows a migration, with a QEMU and of a device.
pub fn demo(env: &Environment, timeout: Duration, what: [String; 2]) -> Result<ExitCode> {
    let mut session = open(
        env,
        &LoadArgs {
            load: vec![],
            bare: false,
        },
    )?;
    let [qemu, device] = what;
    let argv = vec![SCENARIOS.to_owned(), "--demo".to_owned(), qemu, device];
    let run = pass_on(&mut session, "demo", argv, timeout, None)?;
    let complaints = complaints(&mut session, &run)?;
    let logs = runner::logs(env)?;
    if complaints.is_empty() {
        println!(
            "The demonstration succeeded. Its logs, the kernel's among them, are in {}.",
            logs.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "The demonstration failed: {}. Its logs are in {}.",
        complaints.join("; "),
        logs.display()
    );
    Ok(ExitCode::from(1))
}
