// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a test run consists of.

use crate::environment::Environment;
use crate::image::needs::Needs;
use crate::modules::Module;
use crate::self_check;
use anyhow::{bail, Context, Result};
use lab_protocol::PART;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The modules under test, in no order.
pub const MODULES: [&str; 2] = ["rust_vfio", "mdev_serial"];

/// Name by which the modules' own tests are asked for.
pub const KUNIT: &str = "kunit";

/// Name by which the gate of the bench is asked for.
pub const BENCH: &str = crate::bench::baseline::SUITE;

/// Name by which it is asked for that faults are noticed.
pub const SELF_CHECK: &str = self_check::SUITE;

/// The line of the configuration of a kernel that looks for faults by itself.
pub const CHECKED: &str = "CONFIG_DEBUG_KMEMLEAK=y";

/// The program that asks such a kernel what it found.
const CHECKERS: (&str, Duration) = ("checkers", Duration::from_secs(120));

/// The program that tries the command line tool.
const MIGRATE_TOOL: &str = "migrate-tool";

/// Programs that try the user API, protocol by protocol and as other monitors use it, and the command line tool, without QEMU.
const HARNESSES: [(&str, Duration); 5] = [
    ("v2-api", Duration::from_secs(300)),
    ("v1-api", Duration::from_secs(240)),
    ("vmm-api", Duration::from_secs(240)),
    ("blk-api", Duration::from_secs(300)),
    (MIGRATE_TOOL, Duration::from_secs(240)),
];

/// Those of them that take longest, and how many parts each is run in.
const LONG: [&str; 2] = [HARNESSES[0].0, HARNESSES[1].0];
const PARTS: usize = 3;

/// The program that has things fail inside the kernel, and the line of the configuration of a kernel that can be asked for it.
const FAULTS: (&str, Duration) = ("fault-api", Duration::from_secs(240));
const FAILING: &str = "CONFIG_FAULT_INJECTION=y";

/// Program that runs guests; it lists its scenarios with `--list`.
const SCENARIOS: (&str, Duration) = ("scenarios", Duration::from_secs(180));

/// The program that is a device, over a socket.
pub const DEVICE_PROGRAM: &str = "vfio-user-device";

/// Those that start others, and what they start.
const STARTERS: [&str; 2] = [SCENARIOS.0, MIGRATE_TOOL];
const STARTED: [&str; 2] = [DEVICE_PROGRAM, "vfio-migrate"];

/// One program to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Name of the suite its cases belong to.
    pub suite: String,
    /// Its own name, under which its logs are filed.
    pub label: String,
    /// The command.
    pub argv: Vec<String>,
    /// How long it may take.
    pub deadline: Duration,
    /// The version of the QEMU it needs, if it needs one.
    pub qemu: Option<String>,
}

/// A test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Modules in the order in which they are loaded.
    pub modules: Vec<Module>,
    /// Whether what the modules' own tests say is part of the results.
    pub kunit: bool,
    /// Whether operations are counted and compared with the baseline.
    pub bench: bool,
    /// Whether faults are made, to see that they are noticed.
    pub self_check: bool,
    /// Programs to be run.
    pub jobs: Vec<Job>,
}

impl Plan {
    /// The plan for the tests named in `only`, or for all of them, without those in `leave_out`.
    pub fn new(
        env: &Environment,
        all: &[Module],
        only: &[String],
        leave_out: &[String],
    ) -> Result<Self> {
        let modules = env
            .modules_to_load(all, &MODULES)?
            .into_iter()
            .cloned()
            .collect();
        let directory = env.guest_tests()?;
        for (program, _) in HARNESSES.into_iter().chain([FAULTS, SCENARIOS, CHECKERS]) {
            if !directory.join(program).is_file() {
                bail!(
                    "{} has no {program}: build the guest programs first",
                    directory.display()
                );
            }
        }
        let faults = env.kernel_is_configured(FAILING).then_some(FAULTS);
        let mut jobs: Vec<Job> = HARNESSES
            .into_iter()
            .chain(faults)
            .flat_map(|(program, deadline)| parts(program, deadline))
            .collect();
        jobs.extend(parse_list(&list(&directory.join(SCENARIOS.0))?)?);
        let mut plan = Self {
            modules,
            kunit: true,
            bench: true,
            self_check: self_check::is_possible(all),
            jobs,
        };
        if !only.is_empty() {
            plan.choose(only)?;
        }
        plan.leave_out(leave_out)?;
        Ok(plan)
    }

    /// Has programs leave tests out, each named as `PROGRAM/NAME`.
    fn leave_out(&mut self, tests: &[String]) -> Result<()> {
        for test in tests {
            let (program, name) = test.split_once('/').with_context(|| {
                format!("{test} is no test to leave out: name it as PROGRAM/NAME")
            })?;
            let of_program = |job: &&mut Job| job.suite == program && program != SCENARIOS.0;
            let mut found = false;
            for job in self.jobs.iter_mut().filter(of_program) {
                job.argv.push(format!("-{name}"));
                found = true;
            }
            if !found {
                bail!("{test} cannot be left out: {program} is not to be run, or does not have such tests");
            }
        }
        Ok(())
    }

    /// What the programs need, and those that are run on every machine.
    pub fn needs(&self) -> Needs {
        let suites = self.jobs.iter().map(|job| job.suite.as_str());
        let started = suites
            .clone()
            .filter(|suite| STARTERS.contains(suite))
            .flat_map(|_| STARTED);
        let programs = suites.chain(started).chain([CHECKERS.0]);
        Needs::Only {
            qemus: self
                .jobs
                .iter()
                .filter_map(|job| job.qemu.clone())
                .collect(),
            programs: programs.map(str::to_owned).collect(),
        }
    }

    fn choose(&mut self, only: &[String]) -> Result<()> {
        for name in only {
            if ![KUNIT, BENCH, SELF_CHECK].contains(&name.as_str())
                && !self.jobs.iter().any(|job| job.is_called(name))
            {
                let mut names: Vec<_> = self.jobs.iter().map(|job| job.label.as_str()).collect();
                names.splice(0..0, [KUNIT, BENCH, SELF_CHECK]);
                bail!("there is no test {name}; there are {}", names.join(", "));
            }
        }
        self.kunit = only.iter().any(|name| name == KUNIT);
        self.bench = only.iter().any(|name| name == BENCH);
        let asked = only.iter().any(|name| name == SELF_CHECK);
        if asked && !self.self_check {
            bail!("{SELF_CHECK} needs the debug kernel: set KERNEL=debug");
        }
        self.self_check = asked;
        // In the order in which they were named: a long one can be first.
        let named = |job: &Job| only.iter().position(|name| job.is_called(name));
        self.jobs.retain(|job| named(job).is_some());
        self.jobs.sort_by_key(named);
        Ok(())
    }
}

impl Job {
    /// What it is called within its suite.
    pub fn name(&self) -> &str {
        self.label
            .strip_prefix(&self.suite)
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(&self.label)
    }

    /// Whether `name` asks for it: its suite, its label, or the label without the suite.
    fn is_called(&self, name: &str) -> bool {
        [self.suite.as_str(), &self.label, self.name()].contains(&name)
    }
}

/// The jobs of a program: one, or some that two machines can share.
fn parts(program: &str, deadline: Duration) -> Vec<Job> {
    let job = |label: String, part: Option<String>| Job {
        suite: program.to_owned(),
        label,
        argv: [Some(format!("/tests/{program}")), part]
            .into_iter()
            .flatten()
            .collect(),
        deadline,
        qemu: None,
    };
    if !LONG.contains(&program) {
        return vec![job(program.to_owned(), None)];
    }
    (1..=PARTS)
        .map(|part| {
            job(
                format!("{program}/part-{part}"),
                Some(format!("{PART}{part}/{PARTS}")),
            )
        })
        .collect()
}

/// The job that asks a debug kernel what it found, on a machine with the modules loaded, or unloaded again.
pub fn checkers(machine: &str, when: &str) -> Job {
    let (program, deadline) = CHECKERS;
    Job {
        suite: format!("{program}/{machine}, modules {when}"),
        label: format!("{program}-{when}"),
        argv: vec![format!("/tests/{program}")],
        deadline,
        qemu: None,
    }
}

/// The program's own list. It is static and runs on the host as well.
fn list(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--list").output();
    let output = output.with_context(|| format!("cannot run {} --list", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} --list failed: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A scenario a line: its name and, after tabs, its deadline in seconds if it needs one of its own, and the QEMU it needs.
fn parse_list(text: &str) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split('\t').map(str::trim);
        let name = fields.next().unwrap_or_default();
        let deadline = match fields.next() {
            Some(seconds) => Duration::from_secs(
                seconds
                    .parse()
                    .with_context(|| format!("the list of scenarios has no number in: {line}"))?,
            ),
            None => SCENARIOS.1,
        };
        jobs.push(Job {
            suite: SCENARIOS.0.to_owned(),
            label: format!("{}/{name}", SCENARIOS.0),
            argv: vec![format!("/tests/{}", SCENARIOS.0), name.to_owned()],
            deadline,
            qemu: fields.next().map(str::to_owned),
        });
    }
    if jobs.is_empty() {
        bail!("{} --list named no scenario", SCENARIOS.0);
    }
    // The longest first, so that no machine is left with one at the end.
    jobs.sort_by_key(|job| std::cmp::Reverse(job.deadline));
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_have_their_own_deadline_or_the_usual_one_and_the_longest_comes_first() {
        let jobs = parse_list("type1\nten-times\t400\n\n").unwrap();
        let got: Vec<_> = jobs
            .iter()
            .map(|job| (job.label.as_str(), job.deadline.as_secs()))
            .collect();
        assert_eq!(
            got,
            [("scenarios/ten-times", 400), ("scenarios/type1", 180)]
        );
        assert_eq!(jobs[1].argv, ["/tests/scenarios", "type1"]);
    }

    #[test]
    fn a_plan_needs_the_programs_and_qemus_of_the_tests_that_were_chosen() {
        let mut plan = Plan {
            modules: vec![],
            kunit: true,
            bench: true,
            self_check: true,
            jobs: parse_list("old\t60\t7.2\nusual\t60\t10.0\nnone\n").unwrap(),
        };
        plan.jobs.extend(parts("v2-api", Duration::from_secs(1)));
        let needs = plan.needs();
        assert!(needs.qemu("7.2") && needs.qemu("10.0") && !needs.qemu("11.1"));
        assert!(needs.program("scenarios") && needs.program("vfio-migrate"));
        assert!(needs.program("v2-api") && !needs.program("v1-api"));

        plan.choose(&["usual".to_owned(), "v2-api".to_owned()])
            .unwrap();
        assert!(!plan.needs().qemu("7.2") && plan.needs().qemu("10.0"));

        plan.choose(&["v2-api".to_owned()]).unwrap();
        let needs = plan.needs();
        assert!(needs.program("v2-api") && needs.program("checkers"));
        assert!(!needs.guests() && !needs.program("scenarios") && !needs.program("vfio-migrate"));
    }

    #[test]
    fn what_a_program_leaves_out_it_is_told() {
        let mut plan = Plan {
            modules: vec![],
            kunit: true,
            bench: true,
            self_check: true,
            jobs: parts("v2-api", Duration::from_secs(1)),
        };
        plan.jobs.extend(parse_list("a\n").unwrap());
        plan.leave_out(&["v2-api/one".to_owned(), "v2-api/two".to_owned()])
            .unwrap();
        assert_eq!(plan.jobs[0].argv[1..], ["--part=1/3", "-one", "-two"]);
        assert_eq!(plan.jobs[1].argv[1..], ["--part=2/3", "-one", "-two"]);
        assert_eq!(plan.jobs[2].argv[1..], ["--part=3/3", "-one", "-two"]);
        assert_eq!(plan.jobs[3].argv.len(), 2);
        assert!(plan.leave_out(&["v1-api/one".to_owned()]).is_err());
        assert!(plan.leave_out(&["scenarios/a".to_owned()]).is_err());
        assert!(plan.leave_out(&["one".to_owned()]).is_err());
    }

    #[test]
    fn a_list_that_names_nothing_or_has_no_number_is_an_error() {
        assert!(parse_list("\n").is_err());
        assert!(parse_list("a\tsoon\n").is_err());
    }

    fn labels(plan: &Plan) -> Vec<String> {
        plan.jobs.iter().map(|job| job.name().to_owned()).collect()
    }

    #[test]
    fn tests_are_chosen_by_suite_label_or_name_in_that_order_and_unknown_names_are_errors() {
        let whole = Plan {
            modules: vec![],
            kunit: true,
            bench: true,
            self_check: true,
            jobs: parse_list("a\nb\n").unwrap(),
        };
        let names =
            |of: &[&str]| -> Vec<String> { of.iter().map(|name| name.to_string()).collect() };
        let choose = |only: &[&str]| {
            let mut plan = whole.clone();
            plan.choose(&names(only))
                .map(|()| (plan.kunit, labels(&plan)))
        };
        assert_eq!(choose(&["scenarios"]).unwrap(), (false, names(&["a", "b"])));
        assert_eq!(
            choose(&["scenarios/a", "kunit"]).unwrap(),
            (true, names(&["a"]))
        );
        assert_eq!(choose(&["b"]).unwrap(), (false, names(&["b"])));
        assert_eq!(choose(&["b", "a"]).unwrap(), (false, names(&["b", "a"])));
        assert!(choose(&["c"]).is_err());
    }
}
