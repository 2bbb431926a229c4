// SPDX-License-Identifier: GPL-2.0 OR MIT

//! From what happened in a machine to cases: a program's results and its end, a module's own tests, the kernel log.

use crate::modules::Module;
use crate::report::kernel_log::{Finding, KernelLog};
use crate::report::{ktap, Case, Outcome};
use crate::session::{Run, RunEnd};
use lab_protocol::Ending;
use std::time::Instant;

/// Follows a program's standard output.
#[derive(Default)]
pub struct Follower {
    reader: ktap::Reader,
    partial: Vec<u8>,
    cases: Vec<Case>,
    /// The last lines, for a failure that has nothing else to show.
    tail: Vec<String>,
}

/// Lines that [`Follower`] keeps.
const TAIL: usize = 30;

impl Follower {
    /// Takes output, and returns the cases that it completes.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Case> {
        self.partial.extend_from_slice(bytes);
        let mut completed = Vec::new();
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            completed.extend(self.line(&line));
        }
        completed
    }

    fn line(&mut self, line: &[u8]) -> Vec<Case> {
        let line = String::from_utf8_lossy(line).trim_end().to_owned();
        let cases = self.reader.line(&line, Instant::now());
        if self.tail.len() == TAIL {
            self.tail.remove(0);
        }
        self.tail.push(line);
        self.cases.extend(cases.iter().cloned());
        cases
    }

    /// The cases that the end of the program adds, then all of them. `name` stands for the program where it did not report.
    pub fn finish(mut self, name: &str, run: &Run) -> (Vec<Case>, Vec<Case>) {
        let rest = std::mem::take(&mut self.partial);
        let mut last = if rest.is_empty() {
            vec![]
        } else {
            self.line(&rest)
        };
        let Self {
            reader,
            mut cases,
            tail,
            ..
        } = self;
        let unfinished = reader.finish();
        let any_failed = cases
            .iter()
            .chain(&unfinished)
            .any(|case| matches!(case.outcome, Outcome::Failed(_)));
        let abnormal = match &run.end {
            RunEnd::Ended(Ending::Code(0)) => None,
            RunEnd::Ended(Ending::Code(_)) if any_failed => None,
            RunEnd::Ended(Ending::Code(code)) => {
                Some(format!("exit status {code} though no test failed"))
            }
            RunEnd::Ended(ending) => Some(ending.to_string()),
            RunEnd::TimedOut(limit) => Some(format!(
                "did not end within {:.0} s and was stopped",
                limit.as_secs_f64()
            )),
            RunEnd::KernelBug => {
                Some("was stopped because the kernel reported a bug in itself".to_owned())
            }
            RunEnd::Lost(why) => Some(why.clone()),
        };
        let mut more = Vec::new();
        match abnormal {
            // One reason is enough: that the plan was not fulfilled follows from it.
            Some(why) => {
                more.extend(
                    unfinished
                        .into_iter()
                        .filter(|case| !matches!(case.outcome, Outcome::Failed(_))),
                );
                more.push(Case {
                    details: tail.join("\n"),
                    duration: Some(run.duration),
                    ..failed(name, why)
                });
            }
            None => more.extend(unfinished.into_iter().map(|case| Case {
                name: format!("{name} {}", case.name),
                ..case
            })),
        }
        if !run.leftovers.is_empty() {
            more.push(failed(
                &format!("{name} (left-over processes)"),
                format!("left running: {}", run.leftovers.join("; ")),
            ));
        }
        if !run.unkillable.is_empty() {
            more.push(failed(
                &format!("{name} (unkillable processes)"),
                format!("cannot be killed: {}", run.unkillable.join("; ")),
            ));
        }
        cases.extend(more.iter().cloned());
        last.extend(more);
        (last, cases)
    }
}

/// The cases of a module's own tests, from the kernel's lines while it was loaded.
pub fn kunit(module: &Module, log: &KernelLog, label: &str) -> Vec<Case> {
    if module.kunit_suites == 0 {
        return vec![];
    }
    let mut reader = ktap::Reader::default();
    let now = Instant::now();
    let mut cases: Vec<Case> = log
        .lines_of(label)
        .flat_map(|line| reader.line(line, now))
        .collect();
    cases.extend(reader.finish());
    for case in &mut cases {
        // The lines were read at once: their times say nothing.
        case.duration = None;
    }
    cases
}

/// The cases of a kernel log: one for each finding, or one that says there are none.
pub fn kernel_log(machine: &str, findings: Vec<Finding>, troubles: &[String]) -> Vec<Case> {
    let mut cases: Vec<Case> = findings
        .into_iter()
        .map(|finding| {
            let during = finding.test.unwrap_or_else(|| "no test".to_owned());
            Case {
                details: finding.lines.join("\n"),
                ..failed(&format!("{machine}, during {during}"), finding.title)
            }
        })
        .collect();
    cases.extend(
        troubles
            .iter()
            .map(|text| failed(&format!("{machine}, machine"), text.clone())),
    );
    if cases.is_empty() {
        cases.push(Case::new(format!("{machine} is clean"), Outcome::Passed));
    }
    cases
}

/// A failed case.
pub fn failed(name: &str, why: impl Into<String>) -> Case {
    Case::new(name, Outcome::Failed(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const GOOD: &str = "KTAP version 1\n1..2\nok 1 one\nok 2 two\n";

    fn judge(output: &str, end: RunEnd, leftovers: &[&str]) -> Vec<(String, bool)> {
        let mut follower = Follower::default();
        for piece in output.as_bytes().chunks(3) {
            follower.take(piece);
        }
        let leftovers = leftovers.iter().map(|text| text.to_string()).collect();
        let run = Run {
            end,
            leftovers,
            unkillable: vec![],
            duration: Duration::from_secs(1),
        };
        let (_, cases) = follower.finish("program", &run);
        cases
            .into_iter()
            .map(|case| (case.name, case.outcome == Outcome::Passed))
            .collect()
    }

    fn exit(code: i32) -> RunEnd {
        RunEnd::Ended(Ending::Code(code))
    }

    fn pass(name: &str) -> (String, bool) {
        (name.to_owned(), true)
    }

    fn fail(name: &str) -> (String, bool) {
        (name.to_owned(), false)
    }

    #[test]
    fn a_program_that_reports_all_and_exits_well_adds_nothing() {
        assert_eq!(judge(GOOD, exit(0), &[]), [pass("one"), pass("two")]);
    }

    #[test]
    fn a_bad_exit_without_a_failed_test_is_a_failure_of_its_own() {
        assert_eq!(
            judge(GOOD, exit(1), &[]),
            [pass("one"), pass("two"), fail("program")]
        );
    }

    #[test]
    fn a_bad_exit_with_a_failed_test_is_explained_by_it() {
        assert_eq!(
            judge("KTAP version 1\n1..1\nnot ok 1 one\n", exit(1), &[]),
            [fail("one")]
        );
    }

    #[test]
    fn a_good_exit_does_not_excuse_missing_results() {
        assert_eq!(
            judge("KTAP version 1\n1..2\nok 1 one\n", exit(0), &[]),
            [pass("one"), fail("program (plan)")]
        );
        assert_eq!(judge("", exit(0), &[]), [fail("program (report)")]);
    }

    #[test]
    fn every_abnormal_end_is_one_failure_named_after_the_program() {
        let ends = [
            RunEnd::Ended(Ending::Signal(11)),
            RunEnd::Ended(Ending::NotStarted("no such file".into())),
            RunEnd::TimedOut(Duration::from_secs(3)),
            RunEnd::KernelBug,
            RunEnd::Lost("the machine died".into()),
        ];
        for end in ends {
            assert_eq!(
                judge("KTAP version 1\n1..2\nok 1 one\n", end, &[]),
                [pass("one"), fail("program")]
            );
        }
    }

    #[test]
    fn a_process_left_behind_is_a_failure() {
        assert_eq!(
            judge(GOOD, exit(0), &["qemu"]),
            [
                pass("one"),
                pass("two"),
                fail("program (left-over processes)")
            ]
        );
    }

    #[test]
    fn a_last_line_without_its_end_counts() {
        assert_eq!(
            judge("KTAP version 1\n1..1\nok 1 one", exit(0), &[]),
            [pass("one")]
        );
    }

    #[test]
    fn a_module_whose_tests_did_not_run_is_a_failure() {
        let module = Module {
            name: "m".into(),
            path: "m.ko".into(),
            depends: vec![],
            kunit_suites: 1,
        };
        let cases = kunit(&module, &KernelLog::default(), "insmod/m");
        assert!(
            matches!(
                cases.as_slice(),
                [Case {
                    outcome: Outcome::Failed(_),
                    ..
                }]
            ),
            "{cases:?}"
        );
    }

    #[test]
    fn a_clean_log_is_a_case_that_passed() {
        assert_eq!(kernel_log("l1", vec![], &[])[0].outcome, Outcome::Passed);
        let finding = Finding {
            test: None,
            title: "BUG: x".into(),
            lines: vec![],
        };
        assert_eq!(
            kernel_log("l1", vec![finding], &[])[0].outcome,
            Outcome::Failed("BUG: x".into())
        );
    }
}
