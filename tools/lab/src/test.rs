// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Runs tests, counts them with those that ran elsewhere, and tells what came out.

use crate::environment::Environment;
use crate::image::{self, needs::Needs, Image};
use crate::measure;
use crate::plan::Plan;
use crate::report::saved::{self, Earlier};
use crate::report::{junit, libtest, Outcome, Suite, Totals};
use crate::runner;
use crate::screen::Screen;
use crate::{bench, coverage, self_check, verdict};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

/// Prepares what the root file system of every machine shares.
pub fn prepare(env: &Environment) -> Result<ExitCode> {
    let started = Instant::now();
    for kept in image::kept_archives(env, &Needs::Everything)? {
        let size = kept.file.metadata()?.len() >> 20;
        println!("{} ({size} MiB)", kept.path.display());
    }
    println!("{:.1} s", started.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Runs the tests named in `only`, or all, without those in `leave_out`.
pub fn test(
    env: &Environment,
    only: &[String],
    leave_out: &[String],
    host_tests: &[PathBuf],
    with: &[Earlier],
    machines: Option<usize>,
) -> Result<ExitCode> {
    let started = Instant::now();
    let all = env.all_modules()?;
    let plan = Plan::new(env, &all, only, leave_out)?;
    let image = Image::build(env, &all, &plan.needs())?;
    let results = runner::prepare_results(env)?;
    let screen = Screen::default();
    let mut suites = host_suites(host_tests, with, &screen)?;
    let machines = machines
        .unwrap_or_else(machines_at_a_time)
        .clamp(1, plan.jobs.len().max(1));
    // What counts instructions is not disturbed by what else the host does.
    let (ran, counted) = thread::scope(|scope| {
        let counted = plan
            .bench
            .then(|| scope.spawn(|| measure::gate(env, &screen)));
        let mut ran = runner::run(env, &plan, &image, machines, &screen);
        if plan.self_check {
            ran.push(told(
                &screen,
                self_check::SUITE,
                "machine",
                self_check::run(env, &image),
            ));
        }
        (ran, counted.map(joined))
    });
    suites.extend(ran);
    suites.extend(counted.map(|suite| told(&screen, bench::baseline::SUITE, "counting", suite)));
    let earlier: Vec<_> = with.iter().map(Earlier::results).collect();
    let coverage = coverage::answer(env, &all, &earlier).unwrap_or_else(|error| {
        suites.push(Suite {
            name: coverage::SUITE.to_owned(),
            cases: vec![verdict::failed("unsafe blocks", format!("{error:#}"))],
        });
        None
    });
    junit::write(&results.join("junit.xml"), &suites)?;
    saved::write(&results, &suites)?;

    let totals = Totals::of(&suites);
    let failures = suites
        .iter()
        .flat_map(|suite| suite.cases.iter().map(move |case| (suite, case)));
    let failures: Vec<_> = failures
        .filter(|(_, case)| matches!(case.outcome, Outcome::Failed(_)))
        .collect();
    if !failures.is_empty() {
        screen.line("\nWhat failed:");
        for (suite, case) in failures {
            screen.failure(&suite.name, case);
        }
    }
    screen.line(&format!(
        "\nThe machine part took {:.0} s. Results: {}",
        started.elapsed().as_secs_f64(),
        results.join("junit.xml").display()
    ));
    screen.line(&format!("Logs: {}", results.join("logs").display()));
    if let Some(coverage) = coverage {
        screen.line(&format!("unsafe code: {coverage}"));
    }
    screen.line(&totals.to_string());
    Ok(if totals.good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// What a thread came to.
fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A suite, told case by case; one that could not be run is a failed case called `part`.
fn told(screen: &Screen, name: &str, part: &str, suite: Result<Suite>) -> Suite {
    let suite = suite.unwrap_or_else(|error| Suite {
        name: name.to_owned(),
        cases: vec![verdict::failed(part, format!("{error:#}"))],
    });
    for case in &suite.cases {
        screen.case(&suite.name, case);
    }
    suite
}

/// The suites of the tests that ran on the host, and of earlier runs; those that passed are summed up in a line.
fn host_suites(files: &[PathBuf], with: &[Earlier], screen: &Screen) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for file in files {
        let text = fs::read(file)
            .with_context(|| format!("cannot read {}: run the host tests first", file.display()))?;
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        suites.extend(libtest::read(&name, &String::from_utf8_lossy(&text)));
    }
    // What an earlier run has to tell of its cases, it has told.
    let told = suites.len();
    for earlier in with {
        suites.extend(earlier.read()?);
    }
    for (index, suite) in suites.iter().enumerate() {
        for case in suite
            .cases
            .iter()
            .filter(|case| index < told && case.outcome != Outcome::Passed)
        {
            screen.case(&suite.name, case);
        }
        screen.line(&format!(
            "     {}: {}",
            suite.name,
            Totals::of(std::slice::from_ref(suite))
        ));
    }
    Ok(suites)
}

/// Two machines on two processors or more: each keeps one busy, and together they are done sooner.
fn machines_at_a_time() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(2))
}
