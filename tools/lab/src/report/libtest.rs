// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reads what `cargo test` prints, Cargo's standard error and the tests' standard output together, as people see it: libtest's
//! machine-readable form is not stable. Each test binary announces how many tests it runs and sums up at the end; a binary that
//! did not come to its end, or a sum that is not what was read, is a failure.

use super::{Case, Outcome, Suite};
use std::collections::HashMap;

/// One test binary, or one crate's documentation tests.
struct Section {
    name: String,
    announced: usize,
    cases: Vec<Case>,
    /// Lines that begin as a result does and have none.
    torn: Vec<String>,
    /// `(passed, failed, ignored)` from the closing line.
    sum: Option<(usize, usize, usize)>,
    /// Output of failed tests by name.
    output: HashMap<String, Vec<String>>,
}

enum At {
    /// Between binaries.
    Outside,
    /// In the list of results.
    Results,
    /// In the report on failures, inside the output of this test.
    Failures(Option<String>),
}

/// The suites in the captured output `text`, which is called `source` where it has no names of its own.
pub fn read(source: &str, text: &str) -> Vec<Suite> {
    let mut sections: Vec<Section> = Vec::new();
    let mut name: Option<String> = None;
    let mut errors = Vec::new();
    let mut at = At::Outside;
    for line in text.lines() {
        if let Some(announced) = announcement(line) {
            let name = name
                .take()
                .unwrap_or_else(|| format!("{source} {}", sections.len() + 1));
            sections.push(Section {
                name,
                announced,
                cases: vec![],
                torn: vec![],
                sum: None,
                output: HashMap::new(),
            });
            at = At::Results;
            continue;
        }
        match (&mut at, sections.last_mut()) {
            (At::Outside, _) | (_, None) => {
                if line.starts_with("error") {
                    errors.push(line.to_owned());
                }
                name = binary_name(line).or(name);
            }
            (At::Results | At::Failures(_), Some(section)) if line.starts_with("test result: ") => {
                section.sum = sum(line);
                at = At::Outside;
            }
            (At::Results, Some(section)) => {
                match result(line) {
                    Some(case) => section.cases.push(case),
                    None if line.starts_with("test ") => section.torn.push(line.to_owned()),
                    None => (),
                }
                if line == "failures:" {
                    at = At::Failures(None);
                } else if let Some(next) = binary_name(line) {
                    // The binary before died without a sum.
                    name = Some(next);
                    at = At::Outside;
                }
            }
            (At::Failures(test), Some(section)) => {
                if let Some(next) = line
                    .strip_prefix("---- ")
                    .and_then(|rest| rest.strip_suffix(" stdout ----"))
                {
                    *test = Some(next.to_owned());
                } else if line == "failures:" {
                    *test = None;
                } else if let Some(test) = test {
                    section
                        .output
                        .entry(test.clone())
                        .or_default()
                        .push(line.to_owned());
                }
            }
        }
    }
    finish(source, sections, &errors)
}

fn finish(source: &str, sections: Vec<Section>, errors: &[String]) -> Vec<Suite> {
    let mut suites: Vec<Suite> = sections
        .into_iter()
        .map(Section::suite)
        .filter(|suite| !suite.cases.is_empty())
        .collect();
    let none_failed = !suites
        .iter()
        .flat_map(|suite| &suite.cases)
        .any(|case| matches!(case.outcome, Outcome::Failed(_)));
    let why = match errors.first() {
        Some(error) if none_failed => Some(error.clone()),
        None if suites.is_empty() => {
            Some("no test results: nothing that cargo test prints was found".to_owned())
        }
        _ => None,
    };
    if let Some(why) = why {
        let case = Case {
            details: errors.join("\n"),
            ..Case::new("(report)", Outcome::Failed(why))
        };
        suites.push(Suite {
            name: source.to_owned(),
            cases: vec![case],
        });
    }
    suites
}

impl Section {
    fn suite(mut self) -> Suite {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.cases
                .iter()
                .filter(|case| wanted(&case.outcome))
                .count()
        };
        let read = (
            count(|outcome| *outcome == Outcome::Passed),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        );
        let problem = match self.sum {
            None => Some(format!(
                "the test binary ended before its summary: {} of {} tests reported",
                self.cases.len(),
                self.announced
            )),
            Some(_) if self.cases.len() != self.announced => {
                let torn = self.torn.first();
                let torn =
                    torn.map(|line| format!("; somebody wrote into the line of one: {line:?}"));
                Some(format!(
                    "{} of {} announced tests reported{}",
                    self.cases.len(),
                    self.announced,
                    torn.unwrap_or_default()
                ))
            }
            Some(sum) if sum != read => Some(format!(
                "the summary says {sum:?} passed, failed and ignored, the lines say {read:?}"
            )),
            Some(_) => None,
        };
        for case in &mut self.cases {
            if let (Outcome::Failed(why), Some(output)) =
                (&mut case.outcome, self.output.get(&case.name))
            {
                if let Some(line) = output
                    .iter()
                    .skip_while(|line| !line.contains("panicked at"))
                    .nth(1)
                {
                    *why = line.clone();
                }
                case.details = output.join("\n");
            }
        }
        self.cases
            .extend(problem.map(|why| Case::new("(report)", Outcome::Failed(why))));
        Suite {
            name: self.name,
            cases: self.cases,
        }
    }
}

/// `running 3 tests`
fn announcement(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("running ")?;
    let (count, noun) = rest.split_once(' ')?;
    ["test", "tests"]
        .contains(&noun)
        .then(|| count.parse().ok())?
}

/// `Running unittests src/lib.rs (target/debug/deps/devices-0123456789abcdef)` or `Doc-tests devices`
fn binary_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} doc-tests"));
    }
    let (kind, path) = line
        .strip_prefix("Running ")?
        .strip_suffix(')')?
        .rsplit_once(" (")?;
    let file = path.rsplit('/').next()?;
    let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
    let main = kind
        .strip_prefix("unittests ")
        .is_some_and(|source| source.ends_with("main.rs"));
    Some(if main {
        format!("{name} program")
    } else {
        name.to_owned()
    })
}

/// `test module::name ... ok`
fn result(line: &str) -> Option<Case> {
    let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    let outcome = match outcome {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed("failed".into()),
        "ignored" => Outcome::Skipped("ignored".into()),
        other => Outcome::Skipped(other.strip_prefix("ignored, ")?.to_owned()),
    };
    Some(Case::new(name, outcome))
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`
fn sum(line: &str) -> Option<(usize, usize, usize)> {
    let number = |word: &str| {
        let (before, _) = line.split_once(&format!(" {word}"))?;
        before.rsplit(' ').next()?.parse().ok()
    };
    Some((number("passed")?, number("failed")?, number("ignored")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "   Compiling devices v0.1.0\n    Finished `test` profile\n     Running unittests lib.rs (target/debug/deps/devices-0123456789abcdef)\n\nrunning 3 tests\ntest serial::fifo::overruns ... ok\ntest serial::ids ... ignored, needs an hour\ntest serial::bad - should panic ... ok\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n   Doc-tests devices\n\nrunning 1 test\ntest lib.rs - (line 3) ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s\n\n";

    fn failures(suites: &[Suite]) -> Vec<(String, String)> {
        let cases = suites.iter().flat_map(|suite| &suite.cases);
        cases
            .filter_map(|case| match &case.outcome {
                Outcome::Failed(why) => Some((case.name.clone(), why.clone())),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn binaries_and_documentation_tests_become_suites() {
        let suites = read("host", GOOD);
        let names: Vec<_> = suites.iter().map(|suite| suite.name.as_str()).collect();
        assert_eq!(names, ["devices", "devices doc-tests"]);
        let first: Vec<_> = suites[0]
            .cases
            .iter()
            .map(|case| (case.name.as_str(), case.outcome.clone()))
            .collect();
        let skipped = Outcome::Skipped("needs an hour".into());
        assert_eq!(
            first,
            [
                ("serial::fifo::overruns", Outcome::Passed),
                ("serial::ids", skipped),
                ("serial::bad", Outcome::Passed)
            ]
        );
    }

    #[test]
    fn a_failed_test_brings_its_message_and_output() {
        let text = "     Running unittests lib.rs (target/debug/deps/devices-01)\n\nrunning 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\nthread 'b' panicked at lib.rs:3:5:\nassertion failed: two\nnote: run with `RUST_BACKTRACE=1`\ntest a ... ok\n\n\nfailures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\nerror: test failed, to rerun pass `-p devices --lib`\n";
        let suites = read("host", text);
        assert_eq!(
            failures(&suites),
            [("b".to_owned(), "assertion failed: two".to_owned())]
        );
        assert!(suites[0].cases[1]
            .details
            .contains("panicked at lib.rs:3:5"));
    }

    #[test]
    fn a_binary_that_died_is_a_failure_and_the_next_one_is_read() {
        let text = "     Running unittests lib.rs (target/debug/deps/a-01)\n\nrunning 2 tests\ntest one ... ok\n     Running tests/t.rs (target/debug/deps/t-02)\n\nrunning 1 test\ntest two ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let suites = read("host", text);
        assert_eq!(
            suites
                .iter()
                .map(|suite| suite.name.as_str())
                .collect::<Vec<_>>(),
            ["a", "t"]
        );
        assert_eq!(failures(&suites).len(), 1);
        assert!(failures(&suites)[0].1.contains("1 of 2"));
    }

    #[test]
    fn a_sum_that_differs_from_the_lines_is_a_failure() {
        let text = "running 1 test\ntest one ... ok\n\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(failures(&read("host", text)).len(), 1);
    }

    #[test]
    fn a_missing_result_line_is_a_failure() {
        let text = "running 2 tests\ntest one ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(failures(&read("host", text)).len(), 1);
    }

    #[test]
    fn a_line_that_somebody_wrote_into_is_shown() {
        let text = "running 2 tests\ntest one ... ok\ntest two ... program: the client is gone\nok\n\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        let found = failures(&read("host", text));
        let [(name, why)] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(name, "(report)");
        assert!(why.contains("1 of 2"), "{why}");
        assert!(why.contains("test two ... program"), "{why}");
    }

    #[test]
    fn a_build_that_failed_is_a_failure() {
        let text = "   Compiling devices v0.1.0\nerror[E0308]: mismatched types\nerror: could not compile `devices` (lib test)\n";
        let found = failures(&read("host", text));
        assert_eq!(
            found,
            [(
                "(report)".to_owned(),
                "error[E0308]: mismatched types".to_owned()
            )]
        );
    }

    #[test]
    fn a_build_that_failed_beside_good_tests_is_a_failure() {
        assert_eq!(
            failures(&read(
                "host",
                &format!("{GOOD}error: could not compile `x`\n")
            ))
            .len(),
            1
        );
    }

    #[test]
    fn an_empty_file_is_a_failure() {
        assert_eq!(failures(&read("host", "")).len(), 1);
    }
}
