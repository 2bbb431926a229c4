// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What tests said, in one form, whatever form they said it in.

pub mod junit;
pub mod kernel_log;
pub mod ktap;
pub mod libtest;
pub mod saved;

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a test case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It did not run, for this reason.
    Skipped(String),
    /// It failed or did not report, for this reason: one line.
    Failed(String),
}

/// The reason of a failure whose test gave none on its result line.
pub const NOT_OK: &str = "not ok";

/// Characters of a test's own words that stand for its reason.
const REASON: usize = 300;

/// One test case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Names of the tests it is nested in, then its own.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it printed about it.
    pub details: String,
    /// How long it took, where that is known.
    pub duration: Option<Duration>,
}

impl Case {
    /// A case about which nothing more is known.
    pub fn new(name: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            name: name.into(),
            outcome,
            details: String::new(),
            duration: None,
        }
    }

    /// Why it failed, in one line, if it did: where the result line gave no reason, the last that the test printed.
    pub fn failure(&self) -> Option<String> {
        let Outcome::Failed(why) = &self.outcome else {
            return None;
        };
        let last = self.details.lines().rfind(|line| !line.trim().is_empty());
        Some(match last {
            Some(line) if why == NOT_OK => match line.char_indices().nth(REASON) {
                Some((end, _)) => format!("{} …", &line[..end]),
                None => line.to_owned(),
            },
            _ => why.clone(),
        })
    }
}

/// The cases of one program, crate or machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

impl Totals {
    /// Counts.
    pub fn of(suites: &[Suite]) -> Self {
        let mut totals = Self::default();
        for case in suites.iter().flat_map(|suite| &suite.cases) {
            match case.outcome {
                Outcome::Passed => totals.passed += 1,
                Outcome::Failed(_) => totals.failed += 1,
                Outcome::Skipped(_) => totals.skipped += 1,
            }
        }
        totals
    }

    /// Whether the run is good. One in which nothing passed is not: it shows nothing.
    pub fn good(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The last line is for programs too: it has one form. What was skipped stands above it.
        if self.skipped > 0 {
            writeln!(f, "{} skipped", self.skipped)?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(outcomes: Vec<Outcome>) -> Suite {
        Suite {
            name: "s".into(),
            cases: outcomes
                .into_iter()
                .map(|outcome| Case::new("c", outcome))
                .collect(),
        }
    }

    #[test]
    fn the_last_line_has_one_form_and_what_was_skipped_stands_above_it() {
        let two = [
            suite(vec![Outcome::Passed, Outcome::Passed]),
            suite(vec![Outcome::Failed("why".into())]),
        ];
        assert_eq!(Totals::of(&two).to_string(), "2 passed, 1 failed");
        let one = [suite(vec![Outcome::Passed, Outcome::Skipped("why".into())])];
        assert_eq!(
            Totals::of(&one).to_string(),
            "1 skipped\n1 passed, 0 failed"
        );
    }

    #[test]
    fn a_failure_without_a_reason_has_the_last_words_of_its_test() {
        let case = |why: &str, details: &str| Case {
            details: details.into(),
            ..Case::new("c", Outcome::Failed(why.into()))
        };
        let reason = |why: &str, details: &str| case(why, details).failure().unwrap();
        assert_eq!(reason(NOT_OK, "it began\nit broke\n \n"), "it broke");
        assert_eq!(reason(NOT_OK, ""), NOT_OK);
        assert_eq!(reason("timed out: 3 s", "it began"), "timed out: 3 s");
        let long = reason(NOT_OK, &"é".repeat(2 * REASON));
        assert_eq!(long.chars().count(), REASON + 2);
        assert_eq!(Case::new("c", Outcome::Passed).failure(), None);
    }

    #[test]
    fn a_run_in_which_nothing_passed_is_not_good() {
        assert!(!Totals::of(&[]).good());
        assert!(!Totals::of(&[suite(vec![Outcome::Skipped("why".into())])]).good());
        assert!(!Totals::of(&[suite(vec![Outcome::Passed, Outcome::Failed("why".into())])]).good());
        assert!(Totals::of(&[suite(vec![Outcome::Passed])]).good());
    }
}
