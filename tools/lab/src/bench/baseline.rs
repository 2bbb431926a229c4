// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The gate: what our drivers' operations may cost.
//!
//! The baseline is a file of the source tree. A figure is exact for the same kernel and compilers, so it is no test of time; with others
//! the gate says so and judges nothing.

use super::{Figures, DISK, OURS};
use crate::report::{Case, Outcome, Suite};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// What may be added to the baseline, as a part of it.
const MARGIN: f64 = 0.03;

/// Name of the suite.
pub const SUITE: &str = "bench";

/// How a baseline is moved on purpose.
const MOVE: &str = "if that is meant, move the baseline with: make bench ARGS=--update-baseline, and say why in the commit";

/// The operations that the gate counts: each path through the library once.
const OPERATIONS: [(&str, &str); 13] = [
    ("register read, 1 byte", OURS),
    ("register write, 1 byte", OURS),
    ("configuration read, 4 bytes", OURS),
    ("a character and its interrupt", OURS),
    ("SET_IRQS, unmask", OURS),
    ("open and close", OURS),
    ("create and remove", OURS),
    ("save and load by v2", OURS),
    ("4 KiB written by a request", DISK),
    ("4 KiB read by a request", DISK),
    ("MiB of state saved by v2", DISK),
    ("MiB of state loaded by v2", DISK),
    ("MiB of state saved by v1, read", DISK),
];

/// Their names, by which all drivers' are counted.
pub fn names() -> Vec<&'static str> {
    OPERATIONS.map(|(operation, _)| operation).to_vec()
}

/// Reads the baseline.
pub fn read(path: &Path) -> Result<Figures> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no baseline", path.display()))
}

/// Writes these figures as the baseline: ours, without the commit, which would be an earlier one.
pub fn write(path: &Path, figures: &Figures) -> Result<()> {
    let mut baseline = figures.clone();
    baseline.conditions.commit = String::new();
    baseline
        .rows
        .retain(|row| [OURS, DISK].contains(&row.subject.as_str()));
    baseline.memory.clear();
    baseline.modules.clear();
    let text = serde_json::to_string_pretty(&baseline)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Compares.
pub fn judge(figures: &Figures, baseline: &Figures) -> Suite {
    let other = figures.conditions.difference(&baseline.conditions);
    let mut cases = Vec::new();
    for (operation, subject) in OPERATIONS {
        let now = figures.get(operation, subject);
        let outcome = match (&other, now, baseline.get(operation, subject)) {
            (_, None, _) => Outcome::Failed("it was not counted".to_owned()),
            (Some(other), ..) => {
                Outcome::Skipped(format!("the baseline is of other tools: {other}"))
            }
            (None, Some(now), Some(limit)) if now <= limit * (1.0 + MARGIN) => Outcome::Passed,
            (None, Some(now), Some(limit)) => Outcome::Failed(format!(
                "{now:.0} instructions, {:.1} % above the baseline's {limit:.0}; {MOVE}",
                (now / limit - 1.0) * 100.0
            )),
            (None, Some(_), None) => Outcome::Failed(format!("it is not in the baseline; {MOVE}")),
        };
        cases.push(Case::new(operation, outcome));
    }
    Suite {
        name: SUITE.to_owned(),
        cases,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{conditions::Conditions, Row};
    use super::*;

    fn figures(kernel: &str, factor: f64) -> Figures {
        Figures {
            conditions: Conditions {
                kernel: kernel.to_owned(),
                ..Conditions::default()
            },
            rows: OPERATIONS
                .iter()
                .map(|(operation, subject)| Row {
                    operation: (*operation).to_owned(),
                    subject: (*subject).to_owned(),
                    instructions: 1000.0 * factor,
                    spread: 0.0,
                    exponent: None,
                })
                .collect(),
            memory: vec![],
            modules: vec![],
        }
    }

    fn all(suite: &Suite, is: impl Fn(&Outcome) -> bool) -> bool {
        suite.cases.len() == OPERATIONS.len() && suite.cases.iter().all(|case| is(&case.outcome))
    }

    #[test]
    fn what_costs_three_percent_more_passes_and_what_costs_four_fails() {
        let baseline = figures("7.3", 1.0);
        let passed = judge(&figures("7.3", 1.03), &baseline);
        assert!(all(&passed, |outcome| matches!(outcome, Outcome::Passed)));
        let failed = judge(&figures("7.3", 1.04), &baseline);
        assert!(all(&failed, |outcome| matches!(
            outcome,
            Outcome::Failed(_)
        )));
    }

    #[test]
    fn other_tools_are_not_judged_but_what_was_not_counted_is() {
        let baseline = figures("7.3", 1.0);
        let skipped = judge(&figures("7.4", 9.0), &baseline);
        assert!(all(&skipped, |outcome| matches!(
            outcome,
            Outcome::Skipped(_)
        )));
        let mut none = figures("7.4", 1.0);
        none.rows.clear();
        let failed = judge(&none, &baseline);
        assert!(all(&failed, |outcome| matches!(
            outcome,
            Outcome::Failed(_)
        )));
    }
}
