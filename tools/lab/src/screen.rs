// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a person sees: results as lines on standard output, progress on standard error. Progress is a line that changes where
//! standard error is a terminal, and nothing but the lines of results elsewhere.

use crate::report::{Case, Outcome};
use console::Style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Lines of a failed case's output that are shown at most; all of them are in the results.
const DETAILS: usize = 12;

/// The terminal, or what stands for it.
pub struct Screen {
    bar: ProgressBar,
    good: Style,
    bad: Style,
    dim: Style,
}

impl Default for Screen {
    fn default() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style =
            ProgressStyle::with_template("{spinner} [{elapsed_precise}] {pos}/{len} {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if std::io::stderr().is_terminal() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self {
            bar,
            good: Style::new().green(),
            bad: Style::new().red().bold(),
            dim: Style::new().dim(),
        }
    }
}

impl Screen {
    /// A line of its own.
    pub fn line(&self, text: &str) {
        self.bar.suspend(|| {
            // A closed output is no reason to give up a run whose results are in files as well.
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        });
    }

    /// The result of a case.
    pub fn case(&self, suite: &str, case: &Case) {
        let time = case
            .duration
            .filter(|time| *time >= Duration::from_millis(100));
        let time = time.map_or(String::new(), |time| {
            format!("  ({:.1} s)", time.as_secs_f64())
        });
        let time = self.dim.apply_to(time);
        match &case.outcome {
            Outcome::Passed => self.line(&format!(
                "{} {suite}: {}{time}",
                self.good.apply_to("ok  "),
                case.name
            )),
            Outcome::Skipped(why) => self.line(&format!(
                "{} {suite}: {} ({why})",
                self.dim.apply_to("skip"),
                case.name
            )),
            Outcome::Failed(_) => self.line(&format!(
                "{} {suite}: {}: {}{time}",
                self.bad.apply_to("FAIL"),
                case.name,
                case.failure().unwrap_or_default()
            )),
        }
    }

    /// The result of a failed case with the end of what it printed.
    pub fn failure(&self, suite: &str, case: &Case) {
        self.case(suite, case);
        let details: Vec<_> = case.details.lines().collect();
        for line in &details[details.len().saturating_sub(DETAILS)..] {
            self.line(&format!("       {}", self.dim.apply_to(line)));
        }
    }

    /// How much there is to do.
    pub fn total(&self, steps: usize) {
        self.bar.set_length(steps as u64);
    }

    /// One of them is done.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// What is going on.
    pub fn status(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// Takes the progress line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
