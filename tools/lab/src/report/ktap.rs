// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reads KTAP (Documentation/dev-tools/ktap.rst of the kernel) line by line, as it arrives.
//!
//! Nested results become cases named `parent/child`; a parent is a case of its own only if it failed though none of its
//! children did. Depth is told by indentation alone, of any width: KUnit uses four columns where the text says two. What
//! contradicts the plan or its own numbering is a failure: a test that lost count did not report.

use super::{Case, Outcome, NOT_OK};
use std::time::Instant;

/// Most diagnostic lines that are kept for one case.
const DETAILS: usize = 200;

/// One level of nesting.
struct Level {
    indent: usize,
    plan: Option<u64>,
    skip_all: Option<String>,
    seen: u64,
    diagnostics: Vec<String>,
    /// Cases of this level's children and its own, complete but for the names of the levels above.
    cases: Vec<Case>,
    /// Nested results whose parent's result line has not come yet.
    nested: Option<Vec<Case>>,
    since: Instant,
}

impl Level {
    fn new(indent: usize, now: Instant) -> Self {
        Self {
            indent,
            plan: None,
            skip_all: None,
            seen: 0,
            diagnostics: vec![],
            cases: vec![],
            nested: None,
            since: now,
        }
    }

    /// What the level lacks now that it is over.
    fn close(mut self, whole: bool) -> Vec<Case> {
        if let Some(orphans) = self.nested.take() {
            self.cases.extend(orphans);
            self.cases.push(Case::new(
                "(end)",
                failed("nested results without the result of their parent"),
            ));
        }
        match self.plan {
            Some(plan) if self.seen != plan => {
                let why = format!("{} of {plan} planned tests reported", self.seen);
                self.cases.push(Case {
                    details: self.diagnostics.join("\n"),
                    ..Case::new("(plan)", failed(why))
                });
            }
            None if whole => self.cases.push(Case::new(
                "(plan)",
                failed("no plan: the test did not say how many results to expect"),
            )),
            _ => {}
        }
        self.cases
    }
}

/// The reader.
#[derive(Default)]
pub struct Reader {
    levels: Vec<Level>,
}

/// A line that means something.
enum Line<'a> {
    Version,
    Plan {
        count: u64,
        skip: Option<&'a str>,
    },
    Result {
        good: bool,
        number: u64,
        name: &'a str,
        directive: Option<(&'a str, &'a str)>,
    },
    Diagnostic,
}

impl Reader {
    /// Takes the next line, and returns the cases that it completes.
    pub fn line(&mut self, line: &str, now: Instant) -> Vec<Case> {
        let text = line.trim_end();
        let indent = text.len() - text.trim_start().len();
        match parse(text.trim_start()) {
            Line::Version => self.version(indent, now),
            Line::Plan { count, skip } => self.plan(indent, count, skip),
            Line::Result {
                good,
                number,
                name,
                directive,
            } => self.result(indent, good, number, name, directive, now),
            Line::Diagnostic => {
                self.diagnostic(text);
                vec![]
            }
        }
    }

    /// Ends the reading, and returns a case for everything that was promised and did not come.
    pub fn finish(mut self) -> Vec<Case> {
        let mut inner: Option<Vec<Case>> = None;
        while let Some(mut level) = self.levels.pop() {
            if let Some(cases) = inner {
                level.nested.get_or_insert_default().extend(cases);
            }
            inner = Some(level.close(self.levels.is_empty()));
        }
        match inner {
            Some(cases) => cases,
            None => vec![Case::new(
                "(report)",
                failed("no test results: nothing in KTAP form was printed"),
            )],
        }
    }

    fn version(&mut self, indent: usize, now: Instant) -> Vec<Case> {
        match self.levels.last() {
            Some(top) if indent <= top.indent => {
                vec![Case::new(
                    "(version)",
                    failed("a second version line: results of two tests are mixed"),
                )]
            }
            _ => {
                self.levels.push(Level::new(indent, now));
                vec![]
            }
        }
    }

    fn plan(&mut self, indent: usize, count: u64, skip: Option<&str>) -> Vec<Case> {
        let Some(level) = self
            .levels
            .iter_mut()
            .rev()
            .find(|level| level.indent == indent)
        else {
            return vec![];
        };
        if level.plan.is_some() {
            return vec![Case::new("(plan)", failed("a second plan"))];
        }
        level.plan = Some(count);
        level.skip_all = skip.map(str::to_owned);
        match (count, skip) {
            (0, Some(reason)) => {
                let case = Case::new("(all)", Outcome::Skipped(reason.to_owned()));
                self.complete(case)
            }
            _ => vec![],
        }
    }

    fn result(
        &mut self,
        indent: usize,
        good: bool,
        number: u64,
        name: &str,
        directive: Option<(&str, &str)>,
        now: Instant,
    ) -> Vec<Case> {
        // Before the first version line nothing is KTAP yet.
        if self.levels.is_empty() {
            return vec![];
        }
        let Some(depth) = self.levels.iter().position(|level| level.indent == indent) else {
            return vec![Case::new(
                name,
                failed("a result at a depth that no version line opened"),
            )];
        };
        while self.levels.len() > depth + 1 {
            self.close_top();
        }
        let level = &mut self.levels[depth];
        level.seen += 1;
        let children = level.nested.take();
        let mut outcome = outcome(good, directive);
        if number != level.seen {
            outcome = failed(format!("result {number} came where {} was due", level.seen));
            level.seen = number;
        }
        let name = if name.is_empty() {
            format!("{number}")
        } else {
            name.to_owned()
        };
        let details = std::mem::take(&mut level.diagnostics).join("\n");
        let duration = Some(now.duration_since(std::mem::replace(&mut level.since, now)));
        let own = Case {
            name: name.clone(),
            outcome,
            details,
            duration,
        };
        let mut completed = Vec::new();
        let Some(children) = children.filter(|children| !children.is_empty()) else {
            return self.complete(own);
        };
        let child_failed = children
            .iter()
            .any(|case| matches!(case.outcome, Outcome::Failed(_)));
        let own = match own.outcome {
            Outcome::Failed(_) if !child_failed => Some(own),
            Outcome::Passed if child_failed => Some(Case {
                outcome: failed("reported as passed though a nested test failed"),
                ..own
            }),
            _ => None,
        };
        for mut case in children {
            case.name = format!("{name}/{}", case.name);
            completed.extend(self.complete(case));
        }
        completed.extend(own.map(|own| self.complete(own)).unwrap_or_default());
        completed
    }

    /// Files a case of the topmost level: outermost cases are complete, nested ones wait for their parent's name.
    fn complete(&mut self, case: Case) -> Vec<Case> {
        match self.levels.as_mut_slice() {
            [] | [_] => vec![case],
            [.., top] => {
                top.cases.push(case);
                vec![]
            }
        }
    }

    fn close_top(&mut self) {
        let Some(level) = self.levels.pop() else {
            return;
        };
        let cases = level.close(false);
        if let Some(parent) = self.levels.last_mut() {
            parent.nested.get_or_insert_default().extend(cases);
        }
    }

    fn diagnostic(&mut self, text: &str) {
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        if level.diagnostics.len() == DETAILS {
            level.diagnostics.remove(0);
        }
        level.diagnostics.push(text.to_owned());
    }
}

fn failed(why: impl Into<String>) -> Outcome {
    Outcome::Failed(why.into())
}

fn outcome(good: bool, directive: Option<(&str, &str)>) -> Outcome {
    match (directive, good) {
        (Some(("SKIP", reason)), _) => Outcome::Skipped(reason.to_owned()),
        (Some((word @ ("TODO" | "XFAIL"), reason)), false) => {
            Outcome::Skipped(format!("{word}: {reason}"))
        }
        (Some(("TIMEOUT", reason)), _) => failed(format!("timed out: {reason}")),
        (Some(("ERROR", reason)), _) => failed(format!("error: {reason}")),
        (_, true) => Outcome::Passed,
        (Some((word, reason)), false) => failed(format!("{word} {reason}").trim()),
        (None, false) => failed(NOT_OK),
    }
}

fn parse(text: &str) -> Line<'_> {
    if ["KTAP version 1", "TAP version 13", "TAP version 14"].contains(&text) {
        return Line::Version;
    }
    let (good, rest) = match (text.strip_prefix("ok "), text.strip_prefix("not ok ")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return parse_plan(text).unwrap_or(Line::Diagnostic),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let Ok(number) = number.parse() else {
        return Line::Diagnostic;
    };
    let (name, directive) = match rest.split_once('#') {
        Some((name, directive)) => (name, Some(split_word(directive))),
        None => (rest, None),
    };
    // TAP puts a dash before the description.
    let name = name.trim();
    Line::Result {
        good,
        number,
        name: name.strip_prefix("- ").unwrap_or(name),
        directive,
    }
}

fn parse_plan(text: &str) -> Option<Line<'_>> {
    let rest = text.strip_prefix("1..")?;
    let (count, directive) = rest
        .split_once('#')
        .map_or((rest, None), |(count, directive)| {
            (count, Some(split_word(directive)))
        });
    let count = count.trim().parse().ok()?;
    let skip = directive
        .filter(|(word, _)| *word == "SKIP")
        .map(|(_, reason)| reason);
    Some(Line::Plan { count, skip })
}

fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once(' ')
        .map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Outcome)> {
        let mut reader = Reader::default();
        let now = Instant::now();
        let mut cases: Vec<_> = text
            .lines()
            .flat_map(|line| reader.line(line, now))
            .collect();
        cases.extend(reader.finish());
        cases
            .into_iter()
            .map(|case| (case.name, case.outcome))
            .collect()
    }

    fn names_of_failures(text: &str) -> Vec<String> {
        read(text)
            .into_iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
            .map(|(name, _)| name)
            .collect()
    }

    fn passed(name: &str) -> (String, Outcome) {
        (name.to_owned(), Outcome::Passed)
    }

    #[test]
    fn flat_results_are_read_in_order() {
        let cases =
            read("KTAP version 1\n1..3\nok 1 one\nnot ok 2 two\nok 3 three # SKIP no device\n");
        let skipped = ("three".to_owned(), Outcome::Skipped("no device".into()));
        assert_eq!(
            cases,
            [passed("one"), ("two".to_owned(), failed("not ok")), skipped]
        );
    }

    #[test]
    fn three_levels_become_paths_and_parents_do_not_count() {
        let text = "KTAP version 1\n1..1\n  KTAP version 1\n  1..3\n    KTAP version 1\n    1..1\n    # test_1: initializing test_1\n    ok 1 test_1\n  ok 1 example_test_1\n    KTAP version 1\n    1..2\n    ok 1 test_1 # SKIP test_1 skipped\n    ok 2 test_2\n  ok 2 example_test_2\n    KTAP version 1\n    1..3\n    ok 1 test_1\n    # test_2: FAIL\n    not ok 2 test_2\n    ok 3 test_3 # SKIP test_3 skipped\n  not ok 3 example_test_3\nnot ok 1 main_test\n";
        let skipped = |name: &str, why: &str| (name.to_owned(), Outcome::Skipped(why.into()));
        assert_eq!(
            read(text),
            [
                passed("main_test/example_test_1/test_1"),
                skipped("main_test/example_test_2/test_1", "test_1 skipped"),
                passed("main_test/example_test_2/test_2"),
                passed("main_test/example_test_3/test_1"),
                (
                    "main_test/example_test_3/test_2".to_owned(),
                    failed("not ok")
                ),
                skipped("main_test/example_test_3/test_3", "test_3 skipped"),
            ]
        );
    }

    #[test]
    fn kunit_output_of_a_module_is_read_through_other_kernel_lines() {
        let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: rust_vfio_irq\n    # module: rust_vfio\n    1..2\nrandom: crng init done\n    ok 1 masks_nest\n    ok 2 bad_ranges_are_refused\n# rust_vfio_irq: pass:2 fail:0 skip:0 total:2\n# Totals: pass:2 fail:0 skip:0 total:2\nok 1 rust_vfio_irq\n";
        assert_eq!(
            read(text),
            [
                passed("rust_vfio_irq/masks_nest"),
                passed("rust_vfio_irq/bad_ranges_are_refused")
            ]
        );
    }

    #[test]
    fn diagnostics_belong_to_the_result_that_follows() {
        let mut reader = Reader::default();
        let now = Instant::now();
        reader.line("KTAP version 1", now);
        reader.line("1..2", now);
        reader.line("# expected 3", now);
        let one = reader.line("not ok 1 one", now);
        let two = reader.line("ok 2 two", now);
        assert_eq!(
            (one[0].details.as_str(), two[0].details.as_str()),
            ("# expected 3", "")
        );
    }

    #[test]
    fn results_are_handed_out_when_their_line_comes() {
        let mut reader = Reader::default();
        let now = Instant::now();
        reader.line("KTAP version 1", now);
        reader.line("1..2", now);
        assert_eq!(reader.line("ok 1 one", now).len(), 1);
    }

    #[test]
    fn fewer_results_than_planned_is_a_failure() {
        assert_eq!(
            names_of_failures("KTAP version 1\n1..3\nok 1 one\nok 2 two\n"),
            ["(plan)"]
        );
    }

    #[test]
    fn more_results_than_planned_is_a_failure() {
        assert_eq!(
            names_of_failures("KTAP version 1\n1..1\nok 1 one\nok 2 two\n"),
            ["(plan)"]
        );
    }

    #[test]
    fn fewer_nested_results_than_planned_is_a_failure_below_the_parent() {
        let text = "KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 one\nok 1 parent\n";
        assert_eq!(names_of_failures(text), ["parent/(plan)", "parent"]);
    }

    #[test]
    fn a_crash_inside_nested_results_keeps_what_had_passed() {
        let cases = read("KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 one\n");
        assert_eq!(cases[0], passed("one"));
        let failures = cases[1..]
            .iter()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Failed(_)))
            .count();
        assert_eq!(failures, cases.len() - 1);
        assert!(failures >= 2);
    }

    #[test]
    fn no_plan_is_a_failure() {
        assert_eq!(names_of_failures("KTAP version 1\nok 1 one\n"), ["(plan)"]);
    }

    #[test]
    fn no_output_is_a_failure() {
        assert_eq!(names_of_failures(""), ["(report)"]);
        assert_eq!(names_of_failures("Segmentation fault\n"), ["(report)"]);
        assert_eq!(
            names_of_failures("ok 1 before the version line\n"),
            ["(report)"]
        );
    }

    #[test]
    fn a_skipped_plan_skips_all() {
        let cases = read("KTAP version 1\n1..0 # SKIP no KVM\n");
        assert_eq!(
            cases,
            [("(all)".to_owned(), Outcome::Skipped("no KVM".into()))]
        );
    }

    #[test]
    fn numbers_out_of_order_are_failures() {
        assert_eq!(
            names_of_failures("KTAP version 1\n1..2\nok 2 two\nok 1 one\n"),
            ["two", "one", "(plan)"]
        );
    }

    #[test]
    fn a_parent_that_passed_over_a_failed_child_is_a_failure() {
        let text =
            "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 child\nok 1 parent\n";
        assert_eq!(names_of_failures(text), ["parent/child", "parent"]);
    }

    #[test]
    fn a_parent_that_failed_by_itself_is_a_failure() {
        let text =
            "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 child\nnot ok 1 parent\n";
        assert_eq!(names_of_failures(text), ["parent"]);
    }

    #[test]
    fn directives_decide() {
        let cases = read("KTAP version 1\n1..6\nok 1 a # rcode=0\nnot ok 2 b # TIMEOUT 30 seconds\nnot ok 3 c # ERROR no memory\nnot ok 4 d # XFAIL known\nnot ok 5 e # SKIP why\nnot ok 6 f # rcode=1\n");
        let outcomes: Vec<_> = cases.into_iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(
            outcomes,
            [
                Outcome::Passed,
                failed("timed out: 30 seconds"),
                failed("error: no memory"),
                Outcome::Skipped("XFAIL: known".into()),
                Outcome::Skipped("why".into()),
                failed("rcode=1"),
            ]
        );
    }

    #[test]
    fn a_second_test_in_the_same_output_is_a_failure() {
        assert_eq!(
            names_of_failures("KTAP version 1\n1..1\nok 1 one\nKTAP version 1\n1..1\nok 1 two\n")
                .first()
                .unwrap(),
            "(version)"
        );
    }
}
