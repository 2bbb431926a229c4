// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Results as JUnit XML, the form that continuous integration systems read.

use super::{Outcome, Suite};
use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::fs::File;
use std::path::Path;

/// Writes the file.
pub fn write(path: &Path, suites: &[Suite]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    report(suites)
        .serialize(file)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn report(suites: &[Suite]) -> Report {
    let mut report = Report::new("lab");
    for suite in suites {
        let mut out = TestSuite::new(suite.name.as_str());
        for case in &suite.cases {
            let status = match &case.outcome {
                Outcome::Passed => TestCaseStatus::success(),
                Outcome::Skipped(reason) => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(reason.as_str());
                    status
                }
                Outcome::Failed(reason) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(reason.as_str());
                    status
                }
            };
            let mut test = TestCase::new(case.name.as_str(), status);
            test.set_classname(suite.name.as_str());
            if let Some(duration) = case.duration {
                test.set_time(duration);
            }
            if !case.details.is_empty() {
                test.set_system_out(case.details.as_str());
            }
            out.add_test_case(test);
        }
        report.add_test_suite(out);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Case;
    use std::time::Duration;

    #[test]
    fn every_outcome_has_its_element_and_text_is_escaped() {
        let cases = vec![
            Case {
                duration: Some(Duration::from_millis(1500)),
                ..Case::new("good", Outcome::Passed)
            },
            Case {
                details: "a < b".into(),
                ..Case::new("bad", Outcome::Failed("1 & 2".into()))
            },
            Case::new("none", Outcome::Skipped("no KVM".into())),
        ];
        let xml = report(&[Suite {
            name: "suite".into(),
            cases,
        }])
        .to_string()
        .unwrap();
        assert!(
            xml.contains(r#"<testsuites name="lab" tests="3" failures="1""#),
            "{xml}"
        );
        assert!(
            xml.contains(r#"<testcase name="good" classname="suite" time="1.500""#),
            "{xml}"
        );
        assert!(xml.contains(r#"<failure message="1 &amp; 2""#), "{xml}");
        assert!(xml.contains("a &lt; b"), "{xml}");
        assert!(xml.contains(r#"<skipped message="no KVM""#), "{xml}");
    }
}
