// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Boots the test machine, runs programs in it, and turns what they and the machine's kernel say into a verdict.
//!
//! Exit status: 0 if all is well, 1 if a test or the command failed, 2 if the lab could not do its work (one line on standard
//! error says why and what to do). `lab shell` ends with the status of the shell.

mod bench;
mod clock;
mod coverage;
mod environment;
mod image;
mod interactive;
mod machine;
mod modules;
mod plan;
mod report;
mod runner;
mod screen;
mod self_check;
mod session;
mod verdict;

use anyhow::{bail, Context, Result};
use bench::profile::Recording;
use clap::{Args, Parser, Subcommand};
use environment::Environment;
use image::Image;
use lab_protocol::{Ending, ModuleAction, Program};
use modules::Module;
use plan::Plan;
use report::kernel_log::Finding;
use report::saved::{self, Earlier};
use report::{junit, libtest, Outcome, Suite, Totals};
use screen::Screen;
use session::{Run, RunEnd, Session, Stream};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The program that shows what the project does.
const SCENARIOS: &str = "/tests/scenarios";

/// Name of the only machine of commands other than `test`.
const ONLY_MACHINE: &str = "machine-1";

/// Boots the test machine, runs programs in it and reports.
///
/// Exit status: 0 all is well, 1 a test or the command failed, 2 the lab could not do its work.
#[derive(Parser)]
#[command(name = "lab", version)]
struct Cli {
    #[command(flatten)]
    env: Environment,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Prepares what the machine's root file system can share between runs
    Image,
    /// Runs a command, or some of the tests, in the machine
    Run(RunArgs),
    /// Runs all tests and writes results/junit.xml and results/logs
    Test(TestArgs),
    /// Gives a prompt in the machine
    Shell(LoadArgs),
    /// Shows a migration from start to end
    Demo {
        /// Seconds it may take
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        /// The QEMU that is shown, of those in the machine
        #[arg(long, default_value = "10.0", value_name = "VERSION")]
        qemu: String,
        /// The device that is shown
        #[arg(long, default_value = "serial", value_parser = ["serial", "blk"])]
        device: String,
    },
    /// Counts what operations cost, in instructions, then measures migrations; writes results/bench.json, bench.svg and bench.txt
    Bench(BenchArgs),
}

#[derive(Args)]
struct LoadArgs {
    /// Load this module, and what it depends on, beside those under test; parameters follow a colon
    #[arg(long, value_name = "MODULE[:PARAMETERS]")]
    load: Vec<String>,
    /// Load no module but those named with --load
    #[arg(long)]
    bare: bool,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Seconds the command may take, before they are stretched for this machine
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// Run these tests and judge them as `lab test` does: kunit, v2-api, scenarios or the name of one
    #[arg(long, value_name = "NAME", num_args = 1.., conflicts_with_all = ["command", "load", "bare"])]
    tests: Vec<String>,
    /// Tests that the chosen programs leave out
    #[arg(
        long,
        value_name = "PROGRAM/NAME",
        num_args = 1..,
        requires = "tests"
    )]
    leave_out: Vec<String>,
    /// Machines to use at a time for --tests
    #[arg(long, env = "LAB_MACHINES", value_name = "N")]
    machines: Option<usize>,
    /// Results of an earlier run, the suites.json that it wrote, to be counted with those of --tests under this name
    #[arg(long, value_name = "NAME=FILE", requires = "tests")]
    with: Vec<Earlier>,
    /// The command and its arguments
    #[arg(last = true, required_unless_present = "tests")]
    command: Vec<String>,
}

#[derive(Args)]
struct TestArgs {
    /// What `cargo test` printed, to be counted with the rest
    #[arg(long, value_name = "FILE", num_args = 1..)]
    host_tests: Vec<PathBuf>,
    /// Results of an earlier run, the suites.json that it wrote, to be counted with the rest under this name
    #[arg(long, value_name = "NAME=FILE")]
    with: Vec<Earlier>,
    /// Machines to use at a time
    #[arg(long, env = "LAB_MACHINES", value_name = "N")]
    machines: Option<usize>,
}

#[derive(Args)]
struct BenchArgs {
    /// Seconds the migrations may take
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
    /// Only count: no migrations
    #[arg(long)]
    count_only: bool,
    /// Show where the instructions of one call of this operation go, and measure nothing: read, write, save or the name in the table
    #[arg(long, value_name = "OPERATION", conflicts_with_all = ["count_only", "update_baseline"])]
    profile: Option<String>,
    /// Whose operation to profile: mdev_serial or mtty
    #[arg(long, value_name = "DRIVER", default_value = bench::OURS, requires = "profile")]
    of: String,
    /// Makes the figures of our driver the baseline of the tests, which is a file of the checkout
    #[arg(long)]
    update_baseline: bool,
}

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

fn prepare(env: &Environment) -> Result<ExitCode> {
    let started = Instant::now();
    for kept in image::kept_archives(env, |_| true)? {
        let size = kept.file.metadata()?.len() >> 20;
        println!("{} ({size} MiB)", kept.path.display());
    }
    println!("{:.1} s", started.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

fn test(
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
    let image = Image::build(env, &all, |version| plan.needs_qemu(version))?;
    let results = runner::prepare_results(env)?;
    let screen = Screen::default();
    let mut suites = host_suites(host_tests, with, &screen)?;
    let machines = machines
        .unwrap_or_else(machines_at_a_time)
        .clamp(1, plan.jobs.len().max(1));
    suites.extend(runner::run(env, &plan, &image, machines, &screen));
    if plan.self_check {
        let checked = self_check::run(env, &image).unwrap_or_else(|error| Suite {
            name: self_check::SUITE.to_owned(),
            cases: vec![verdict::failed("machine", format!("{error:#}"))],
        });
        for case in &checked.cases {
            screen.case(&checked.name, case);
        }
        suites.push(checked);
    }
    if plan.bench {
        let counted = gate(env).unwrap_or_else(|error| Suite {
            name: bench::baseline::SUITE.to_owned(),
            cases: vec![verdict::failed("counting", format!("{error:#}"))],
        });
        for case in &counted.cases {
            screen.case(&counted.name, case);
        }
        suites.push(counted);
    }
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
        screen.line(&format!("rust/vfio: {coverage}"));
    }
    screen.line(&totals.to_string());
    Ok(if totals.good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
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

/// A session with modules loaded, for commands that run one program.
fn open(env: &Environment, load: &LoadArgs) -> Result<Session> {
    runner::prepare_results(env)?;
    boot(env, load, ONLY_MACHINE, |_| true)
}

/// Starts a machine of this name, with the QEMUs that are wanted, and loads modules. What earlier machines left in the
/// results stays.
fn boot(
    env: &Environment,
    load: &LoadArgs,
    name: &str,
    qemus: impl Fn(&str) -> bool,
) -> Result<Session> {
    let all = env.all_modules()?;
    let image = Image::build(env, &all, qemus)?;
    let directory = env.results.join("logs").join(name);
    let mut session = Session::boot(env, &image, &directory)?;
    eprintln!(
        "lab: Linux {} is up after {:.1} s; logs are in {}",
        session.kernel(),
        session.boot_time().as_secs_f64(),
        directory.display()
    );
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
fn pass_on(
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
fn complaints(session: &mut Session, run: &Run) -> Result<Vec<String>> {
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

fn command(env: &Environment, args: &RunArgs) -> Result<ExitCode> {
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

fn shell(env: &Environment, args: &LoadArgs) -> Result<ExitCode> {
    let mut session = open(env, args)?;
    let status = interactive::shell(&mut session)?;
    session.end()?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

fn demo(env: &Environment, timeout: Duration, what: [String; 2]) -> Result<ExitCode> {
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
    let logs = logs(env)?;
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

fn measure(env: &Environment, args: &BenchArgs) -> Result<ExitCode> {
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
        logs(env)?.display()
    );
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Name of the machine that counts, for its logs.
const COUNTING: &str = "counting";

/// A machine that counts, with what there is to compare.
fn boot_counting(env: &Environment) -> Result<Session> {
    let load = LoadArgs {
        load: bench::LOAD.map(str::to_owned).to_vec(),
        bare: false,
    };
    boot(&env.counting(), &load, COUNTING, |version| {
        version == image::qemu::INSTALLED
    })
}

/// Shows where the instructions of an operation go.
fn profile(env: &Environment, operation: &str, of: &str) -> Result<ExitCode> {
    let mut session = boot_counting(env)?;
    let directory = logs(env)?.join(COUNTING);
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
    let mut session = boot_counting(env)?;
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
    let mut session = boot(env, &load, ONLY_MACHINE, |_| true)?;
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
fn gate(env: &Environment) -> Result<Suite> {
    let baseline = bench::baseline::read(&env.baseline)?;
    let mut session = boot_counting(env)?;
    let (figures, complaint) =
        bench::count(&env.counting(), &mut session, &bench::baseline::OPERATIONS)?;
    let directory = logs(env)?.join(COUNTING);
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

fn logs(env: &Environment) -> Result<PathBuf> {
    let path: &Path = &env.results.join("logs");
    fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))
}
