// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Counts what operations cost, and measures migrations.

use crate::bench::{self, profile::Recording};
use crate::cli::{BenchArgs, LoadArgs};
use crate::command::{boot, complaints, pass_on, start, ONLY_MACHINE, SCENARIOS};
use crate::environment::Environment;
use crate::image::needs::Needs;
use crate::report::kernel_log::Finding;
use crate::report::Suite;
use crate::screen::Screen;
use crate::session::Session;
use crate::{runner, verdict};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::process::ExitCode;
use std::time::Duration;

/// Name of the machine that counts, for its logs.
const COUNTING: &str = "counting";

/// What `lab bench` does.
pub fn measure(env: &Environment, args: &BenchArgs) -> Result<ExitCode> {
    bench::prepare(env)?;
    if let Some(operation) = &args.profile {
        return profile(env, operation, &args.of);
    }
    let (figures, complaints) = count(env)?;
    println!("{}", figures.publish(env)?);
    for complaint in &complaints {
        eprintln!("lab: {complaint}");
    }
    let mut good = complaints.is_empty();
    if args.update_baseline {
        bench::baseline::write(&env.baseline, &figures)?;
        println!("The baseline is now {}.", env.baseline.display());
    }
    if !args.count_only && !args.update_baseline {
        good &= migrations(env, Duration::from_secs(args.timeout))?;
    }
    println!(
        "The figures are in {} as well; logs are in {}.",
        env.results.display(),
        runner::logs(env)?.display()
    );
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// A machine that counts, with what there is to compare; `say` says that it is up.
fn boot_counting(env: &Environment, say: impl Fn(&str)) -> Result<Session> {
    let load = LoadArgs {
        load: bench::LOAD.map(str::to_owned).to_vec(),
        bare: false,
    };
    start(
        &env.counting(),
        &load,
        COUNTING,
        &Needs::programs(&bench::PROGRAMS),
        say,
    )
}

/// Says something to whoever asked for figures.
fn say(text: &str) {
    eprintln!("lab: {text}");
}

/// Shows where the instructions of an operation go.
fn profile(env: &Environment, operation: &str, of: &str) -> Result<ExitCode> {
    let mut session = boot_counting(env, say)?;
    let directory = runner::logs(env)?.join(COUNTING);
    let recording = Recording::take(&mut session, &directory, operation, of);
    session.end()?;
    let text = recording.and_then(Recording::read).with_context(|| {
        let names = bench::profile::names();
        format!(
            "cannot profile {operation:?} of {of} (there are {names}, and the rows of the table)"
        )
    })?;
    println!("{text}");
    let path = env.results.join("profile.txt");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("This is in {} as well.", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Counts every operation in a machine of its own. Also what there was to complain of.
fn count(env: &Environment) -> Result<(bench::Figures, Vec<String>)> {
    let mut session = boot_counting(env, say)?;
    let (figures, complaint) = bench::count(&env.counting(), &mut session, &[])?;
    let of_kernel = end_counting(&mut session)?;
    Ok((figures, complaint.into_iter().chain(of_kernel).collect()))
}

/// Ends a machine that counts; returns what its kernel complained of.
fn end_counting(session: &mut Session) -> Result<Vec<String>> {
    session.end()?;
    let findings = session.log().finish();
    let complaint = |finding: &Finding| format!("the kernel says: {}", finding.title);
    Ok(findings.iter().map(complaint).collect())
}

/// Pairs of migrations, by the clock.
fn migrations(env: &Environment, timeout: Duration) -> Result<bool> {
    let load = LoadArgs {
        load: vec!["mtty".to_owned()],
        bare: false,
    };
    let mut session = boot(env, &load, ONLY_MACHINE, &Needs::Everything)?;
    let path = env.results.join("bench.txt");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let argv = vec![SCENARIOS.to_owned(), "--bench".to_owned()];
    let run = pass_on(&mut session, "bench", argv, timeout, Some(file))?;
    let complaints = complaints(&mut session, &run)?;
    for complaint in &complaints {
        eprintln!("lab: {complaint}");
    }
    Ok(complaints.is_empty())
}

/// The gate: what our operations cost, against the baseline, and one of them in two ways.
pub fn gate(env: &Environment, screen: &Screen) -> Result<Suite> {
    let baseline = bench::baseline::read(&env.baseline)?;
    let mut session = boot_counting(env, |text| {
        screen.line(&format!("     {text}"));
    })?;
    let (figures, complaint) =
        bench::count(&env.counting(), &mut session, &bench::baseline::names())?;
    let directory = runner::logs(env)?.join(COUNTING);
    let recording = Recording::take(
        &mut session,
        &directory,
        bench::profile::PROVED,
        bench::OURS,
    );
    let of_kernel = end_counting(&mut session)?;
    let mut suite = bench::baseline::judge(&figures, &baseline);
    suite.cases.push(bench::profile::judge(&figures, recording));
    let complaints = complaint.into_iter().chain(of_kernel);
    suite
        .cases
        .extend(complaints.map(|why| verdict::failed("counting", why)));
    Ok(suite)
}
