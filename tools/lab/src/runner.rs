// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Works a plan off on one or several machines at a time. Each takes the next program when it is done with one; a machine that
//! died is replaced, so that one bad test does not take the others with it.

use crate::environment::Environment;
use crate::image::Image;
use crate::plan::{self, Job, Plan};
use crate::report::{Case, Outcome, Suite};
use crate::screen::Screen;
use crate::session::{Session, Stream};
use crate::verdict::{self, failed, Follower};
use anyhow::{Context, Result};
use lab_protocol::{ModuleAction, Program};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Machines that may be started in place of dead ones before the run is given up.
const REPLACEMENTS: usize = 4;

/// Suite of the cases about loading and unloading modules.
const MODULES: &str = "modules";

/// Suite of the cases about kernel logs.
const KERNEL_LOG: &str = "kernel-log";

/// Suite of the cases about machines.
const MACHINE: &str = "machine";

/// A run in progress.
struct Runner<'a> {
    env: &'a Environment,
    plan: &'a Plan,
    image: &'a Image,
    screen: &'a Screen,
    state: Mutex<State>,
}

struct State {
    queue: VecDeque<Job>,
    suites: Vec<Suite>,
    started: usize,
    may_start: usize,
    /// What each machine does.
    doing: Vec<String>,
    /// The modules' own tests have been reported.
    kunit_done: bool,
}

/// Runs the plan on up to `machines` machines at a time and returns all results.
pub fn run(
    env: &Environment,
    plan: &Plan,
    image: &Image,
    machines: usize,
    screen: &Screen,
) -> Vec<Suite> {
    let state = State {
        queue: plan.jobs.clone().into(),
        suites: vec![],
        started: 0,
        may_start: machines + REPLACEMENTS,
        doing: vec![String::new(); machines],
        kunit_done: false,
    };
    screen.total(plan.jobs.len());
    let runner = Runner {
        env,
        plan,
        image,
        screen,
        state: Mutex::new(state),
    };
    thread::scope(|scope| {
        for place in 0..machines {
            let runner = &runner;
            scope.spawn(move || runner.work(place));
        }
    });
    for job in runner.state().queue.drain(..).collect::<Vec<_>>() {
        runner.report(
            &job.suite,
            vec![failed(
                job.name(),
                "did not run: there was no machine to run it on",
            )],
        );
    }
    screen.clear();
    runner
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .suites
}

impl Runner<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts machines in one place until nothing is left to do.
    fn work(&self, place: usize) {
        loop {
            let number = {
                let mut state = self.state();
                // The first machine runs in any case: the modules' own tests need one.
                if state.started > 0 && state.queue.is_empty() || state.may_start == 0 {
                    return;
                }
                state.may_start -= 1;
                state.started += 1;
                state.started
            };
            let name = format!("machine-{number}");
            if let Err(e) = self.machine(place, &name) {
                self.report(MACHINE, vec![failed(&name, format!("{e:#}"))]);
                return;
            }
        }
    }

    /// The life of one machine.
    fn machine(&self, place: usize, name: &str) -> Result<()> {
        self.doing(place, format!("{name} boots"));
        let directory = self.env.results.join("logs").join(name);
        let mut session = Session::boot(self.env, self.image, &directory)?;
        self.screen.line(&format!(
            "     {name}: Linux {} is up after {:.1} s, deadlines are stretched by {:.2}",
            session.kernel(),
            session.boot_time().as_secs_f64(),
            session.scale()
        ));
        if self.load(place, &mut session) {
            while let Some(job) = self.next_job() {
                self.doing(place, format!("{name}: {}", job.label));
                self.job(&mut session, &job)?;
                self.screen.step();
                if !usable(&mut session) {
                    break;
                }
            }
            if usable(&mut session) {
                self.unload(place, &mut session);
                self.ask_checkers(&mut session, name)?;
            }
        } else {
            // What could not be loaded here cannot be loaded elsewhere.
            self.state().may_start = 0;
        }
        self.doing(place, format!("{name} ends"));
        let troubles = session.troubles().to_vec();
        session.end()?;
        let findings = session.log().finish();
        self.report(KERNEL_LOG, verdict::kernel_log(name, findings, &troubles));
        self.doing(place, String::new());
        Ok(())
    }

    fn next_job(&self) -> Option<Job> {
        self.state().queue.pop_front()
    }

    /// Loads the modules and reports what they say about themselves, once. Whether all are there.
    fn load(&self, place: usize, session: &mut Session) -> bool {
        let first = !std::mem::replace(&mut self.state().kunit_done, true);
        for module in &self.plan.modules {
            self.doing(place, format!("loads {}", module.name));
            let action = ModuleAction::Load(String::new());
            let label = action.label(&module.name);
            let started = Instant::now();
            let error = session.module(&module.name, action);
            let title = format!("{} loads", module.name);
            let loaded = error.is_none();
            match error {
                Some(why) => self.report(MODULES, vec![failed(&title, why)]),
                None if first => {
                    let case = Case {
                        duration: Some(started.elapsed()),
                        ..Case::new(title, Outcome::Passed)
                    };
                    self.report(MODULES, vec![case]);
                }
                None => {}
            }
            if first && self.plan.kunit {
                if session.lost().is_some() {
                    // Its last words are on the console only.
                    session.log().read_console_tail();
                }
                let cases = verdict::kunit(module, session.log(), &label);
                self.report(&format!("kunit/{}", module.name), cases);
            }
            if !loaded {
                return false;
            }
        }
        true
    }

    /// Unloads the modules in reverse: whoever still holds one has leaked something.
    fn unload(&self, place: usize, session: &mut Session) {
        for module in self.plan.modules.iter().rev() {
            self.doing(place, format!("unloads {}", module.name));
            let title = format!("{} unloads", module.name);
            match session.module(&module.name, ModuleAction::Unload) {
                Some(why) => self.report(MODULES, vec![failed(&title, why)]),
                None => self.report_once(MODULES, Case::new(title, Outcome::Passed)),
            }
        }
    }

    /// Has a debug kernel's checkers say what they found so far.
    fn ask_checkers(&self, session: &mut Session, machine: &str) -> Result<()> {
        if !self.env.kernel_is_configured(plan::CHECKED) {
            return Ok(());
        }
        self.job(session, &plan::checkers(machine, "unloaded"))
    }

    fn job(&self, session: &mut Session, job: &Job) -> Result<()> {
        let directory = session.logs_of(&job.label);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let mut stdout = File::create(directory.join("stdout.ktap"))?;
        let mut stderr = File::create(directory.join("stderr.log"))?;
        let program = Program {
            label: job.label.clone(),
            argv: job.argv.clone(),
            env: vec![],
            terminal: None,
        };
        let mut follower = Follower::default();
        let mut written = Ok(());
        let run = session.run(program, Some(job.deadline), &mut |stream, bytes| {
            let file = if stream == Stream::Stdout {
                &mut stdout
            } else {
                &mut stderr
            };
            if written.is_ok() {
                written = file.write_all(bytes);
            }
            if stream == Stream::Stdout {
                for case in follower.take(bytes) {
                    self.screen.case(&job.suite, &case);
                }
            }
        });
        written.with_context(|| format!("cannot write to {}", directory.display()))?;
        let (last, mut cases) = follower.finish(job.name(), &run);
        for case in last {
            self.screen.case(&job.suite, &case);
        }
        if let [only] = cases.as_mut_slice() {
            // A program with one case took as long as the case: start and cleaning up included.
            only.duration = Some(run.duration);
        }
        self.file(&job.suite, cases);
        Ok(())
    }

    fn report(&self, suite: &str, cases: Vec<Case>) {
        for case in &cases {
            self.screen.case(suite, case);
        }
        self.file(suite, cases);
    }

    /// Reports what several machines may say the same about.
    fn report_once(&self, suite: &str, case: Case) {
        let known = self
            .state()
            .suites
            .iter()
            .any(|s| s.name == suite && s.cases.iter().any(|c| c.name == case.name));
        if !known {
            self.report(suite, vec![case]);
        }
    }

    fn file(&self, suite: &str, cases: Vec<Case>) {
        if cases.is_empty() {
            return;
        }
        let mut state = self.state();
        match state.suites.iter_mut().find(|known| known.name == suite) {
            Some(known) => known.cases.extend(cases),
            None => state.suites.push(Suite {
                name: suite.to_owned(),
                cases,
            }),
        }
    }

    fn doing(&self, place: usize, what: String) {
        let mut state = self.state();
        state.doing[place] = what;
        let all: Vec<_> = state
            .doing
            .iter()
            .filter(|text| !text.is_empty())
            .map(String::as_str)
            .collect();
        self.screen.status(&all.join("; "));
    }
}

/// Whether more can be tried on a machine: it answers, and its kernel has not reported a bug in itself.
fn usable(session: &mut Session) -> bool {
    session.lost().is_none() && !session.log().is_lost()
}

/// Where results go: what an earlier run left is removed.
pub fn prepare_results(env: &Environment) -> Result<PathBuf> {
    let results = &env.results;
    fs::create_dir_all(results).with_context(|| format!("cannot make {}", results.display()))?;
    let logs = results.join("logs");
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("cannot remove {}", logs.display()))?;
    }
    let junit = results.join("junit.xml");
    if junit.exists() {
        fs::remove_file(&junit).with_context(|| format!("cannot remove {}", junit.display()))?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    fs::canonicalize(results).with_context(|| format!("cannot find {}", results.display()))
}

/// Where the logs of a run are.
pub fn logs(env: &Environment) -> Result<PathBuf> {
    let path = env.results.join("logs");
    fs::canonicalize(&path).with_context(|| format!("cannot find {}", path.display()))
}
