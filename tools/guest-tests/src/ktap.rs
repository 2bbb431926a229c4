// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Results in KTAP version 1 (Documentation/dev-tools/ktap.rst), one flat list of tests on standard output.
//!
//! A test is a name that reads as a sentence and a closure that returns `Result`: the error, with its whole chain of causes,
//! becomes the diagnostic of the `not ok` line. A panic counts as a failure and does not end the program.
//!
//! ```no_run
//! use guest_tests::ktap::{self, Suite};
//!
//! fn main() -> std::process::ExitCode {
//!     let mut suite = Suite::new();
//!     suite.test("two_and_two_is_four", || {
//!         anyhow::ensure!(2 + 2 == 4, "arithmetic is broken");
//!         Ok(())
//!     });
//!     suite.test("the_region_can_be_mapped", || ktap::skip("the card has no mappable region"));
//!     suite.run()
//! }
//! ```

use crate::coverage;
use lab_protocol::{ALLOW, EXPECT};
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The time a test may take on a machine of normal speed, unless [`Suite::limit`] says otherwise.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(120);

/// Environment variable with the factor (a decimal number, 1 or more) by which time limits grow on a slow machine.
pub const SCALE_VARIABLE: &str = "LAB_SCALE";

/// What a test returns.
pub type Outcome = anyhow::Result<()>;

/// The error that turns a result into `ok … # SKIP`.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends the running test as skipped, for `reason`.
pub fn skip<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(Skip(reason.into()).into())
}

/// Prints a diagnostic: each line of `text` becomes a line that starts with `# `.
pub fn diagnostic(text: impl AsRef<str>) {
    let mut out = String::new();
    for line in text.as_ref().lines() {
        out.push_str("# ");
        out.push_str(line);
        out.push('\n');
    }
    emit(&out);
}

/// Prints a diagnostic from format arguments, like `println!`.
#[macro_export]
macro_rules! diag {
    ($($arg:tt)*) => { $crate::ktap::diagnostic(format!($($arg)*)) };
}

/// Announces a line at warning level in the kernel log, by a regular expression: the running test provokes it.
///
/// The lab reads this note in the kernel log. A test that cannot write it goes on; the line then counts against it.
pub fn expect_kernel_log(expression: &str) {
    announce(EXPECT, expression);
}

/// As [`expect_kernel_log`] for a line that may come or not.
pub fn allow_kernel_log(expression: &str) {
    announce(ALLOW, expression);
}

fn announce(what: &str, expression: &str) {
    let note = format!("{what}{expression}\n");
    if let Err(error) = std::fs::write("/dev/kmsg", note) {
        diagnostic(format!("/dev/kmsg: {error}"));
    }
}

/// Multiplies `time` by the factor in [`SCALE_VARIABLE`]. Use it for every deadline.
pub fn scaled(time: Duration) -> Duration {
    let factor = std::env::var(SCALE_VARIABLE)
        .ok()
        .and_then(|text| text.trim().parse::<f64>().ok());
    match factor {
        Some(factor) if (1.0..1000.0).contains(&factor) => time.mul_f64(factor),
        _ => time,
    }
}

/// Writes whole lines at once. Standard output that is gone cannot be reported anywhere: such an error is dropped.
fn emit(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

thread_local! {
    /// Where and with which words this thread panicked last.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// One named test.
struct Test {
    name: String,
    body: Box<dyn FnOnce() -> Outcome>,
}

/// The test that runs now, for the watchdog.
#[derive(Default)]
struct Current {
    /// Index of the test, and when it has to be over.
    running: Option<(usize, Instant)>,
    over: bool,
}

/// A list of tests that runs in order.
pub struct Suite {
    tests: Vec<Test>,
    limit: Duration,
}

impl Default for Suite {
    fn default() -> Self {
        Self::new()
    }
}

impl Suite {
    /// An empty list.
    pub fn new() -> Self {
        Self {
            tests: Vec::new(),
            limit: DEFAULT_LIMIT,
        }
    }

    /// Sets the time each test may take before [`scaled`]. A test that takes longer ends the program: it may hang in the
    /// kernel, and nothing after it could be believed.
    pub fn limit(&mut self, limit: Duration) -> &mut Self {
        self.limit = limit;
        self
    }

    /// Adds a test.
    ///
    /// # Panics
    ///
    /// If the name has a character that KTAP gives a meaning (`#`) or is not printable, or is taken.
    pub fn test<F>(&mut self, name: impl Into<String>, body: F) -> &mut Self
    where
        F: FnOnce() -> Outcome + 'static,
    {
        let name = name.into();
        assert!(
            !name.is_empty() && !name.contains('#') && !name.contains(char::is_control),
            "test name {name:?}"
        );
        assert!(
            self.tests.iter().all(|test| test.name != name),
            "two tests are called {name}"
        );
        self.tests.push(Test {
            name,
            body: Box::new(body),
        });
        self
    }

    /// Runs the tests and reports them. The program's arguments choose: `--list` prints the names; `-NAME` leaves the test of this
    /// name out, and `-BEGIN*END` those whose names start and end so; `--part=K/N` keeps the K-th of N parts of about the same size; any
    /// other argument keeps the tests whose name contains it. The result is success when no test failed and at least one was chosen.
    pub fn run(self) -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if arguments.iter().any(|argument| argument == "--list") {
            for test in &self.tests {
                emit(&format!("{}\n", test.name));
            }
            return ExitCode::SUCCESS;
        }
        self.run_chosen(&arguments)
    }

    /// Runs the tests whose name contains one of `filters` (all if there is none), but those that one leaves out, or those of a part
    /// of them.
    pub fn run_chosen(mut self, filters: &[String]) -> ExitCode {
        let (parts, filters): (Vec<_>, Vec<_>) = filters
            .iter()
            .partition(|filter| filter.starts_with(lab_protocol::PART));
        let (without, filters): (Vec<_>, Vec<_>) = filters
            .into_iter()
            .partition(|filter| filter.starts_with('-'));
        for name in without.iter().map(|filter| &filter[1..]) {
            let count = self.tests.len();
            self.tests.retain(|test| !is_called(&test.name, name));
            if self.tests.len() == count {
                diagnostic(format!("there is no test {name} to leave out"));
                return ExitCode::FAILURE;
            }
        }
        if !filters.is_empty() {
            self.tests.retain(|test| {
                filters
                    .iter()
                    .any(|filter| test.name.contains(filter.as_str()))
            });
        }
        for part in parts {
            let Some((which, of)) = parse_part(part) else {
                diagnostic(format!("{part} is no part: give the K-th of N as K/N"));
                return ExitCode::FAILURE;
            };
            // Neighbours are alike, and one is in each part.
            let mut index = 0..;
            self.tests
                .retain(|_| index.next().is_some_and(|index| index % of == which - 1));
        }
        emit(&format!("KTAP version 1\n1..{}\n", self.tests.len()));
        if self.tests.is_empty() {
            diagnostic("no test has such a name; --list prints the names");
            return ExitCode::FAILURE;
        }

        panic::set_hook(Box::new(|info| {
            let text = info.to_string();
            if thread::current().name() != Some("main") {
                diagnostic(format!(
                    "thread {:?}: {text}",
                    thread::current().name().unwrap_or("without name")
                ));
            }
            PANIC.with(|slot| *slot.borrow_mut() = Some(text));
        }));

        let limit = scaled(self.limit);
        let names: Vec<String> = self.tests.iter().map(|test| test.name.clone()).collect();
        let current = Arc::new((Mutex::new(Current::default()), Condvar::new()));
        let watchdog = {
            let (current, names) = (Arc::clone(&current), names.clone());
            thread::Builder::new()
                .name("watchdog".into())
                .spawn(move || watch(&current, &names, limit))
        };
        if let Err(error) = &watchdog {
            diagnostic(format!(
                "tests run without a time limit: no thread for the watchdog: {error}"
            ));
        }

        coverage::start();
        let mut failed = 0;
        for (index, test) in self.tests.into_iter().enumerate() {
            set(&current, |now| {
                now.running = Some((index, Instant::now() + limit))
            });
            let outcome = panic::catch_unwind(AssertUnwindSafe(test.body));
            set(&current, |now| now.running = None);
            coverage::file();
            if !report(index, &test.name, outcome) {
                failed += 1;
            }
        }

        coverage::print();
        set(&current, |now| now.over = true);
        if let Ok(watchdog) = watchdog {
            let _ = watchdog.join();
        }
        let _ = panic::take_hook();
        diagnostic(format!(
            "{} of {} tests passed",
            names.len() - failed,
            names.len()
        ));
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Whether a test's name is this one, or starts and ends as `BEGIN*END` says.
fn is_called(name: &str, which: &str) -> bool {
    match which.split_once('*') {
        Some((begin, end)) => name
            .strip_prefix(begin)
            .is_some_and(|rest| rest.ends_with(end)),
        None => name == which,
    }
}

/// Which part of how many an argument asks for.
fn parse_part(argument: &str) -> Option<(usize, usize)> {
    let (which, of) = argument.strip_prefix(lab_protocol::PART)?.split_once('/')?;
    let (which, of) = (which.parse().ok()?, of.parse().ok()?);
    (1..=of).contains(&which).then_some((which, of))
}

/// Prints the result line of one test; true unless it failed.
fn report(index: usize, name: &str, outcome: Result<Outcome, Box<dyn Any + Send>>) -> bool {
    let number = index + 1;
    let reason = match outcome {
        Ok(Ok(())) => {
            emit(&format!("ok {number} {name}\n"));
            return true;
        }
        Ok(Err(error)) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => {
                emit(&format!(
                    "ok {number} {name} # SKIP {}\n",
                    reason.replace('\n', " ")
                ));
                return true;
            }
            None => format!("{error:#}"),
        },
        Err(_) => PANIC
            .with(|slot| slot.borrow_mut().take())
            .unwrap_or_else(|| "panicked, without a message".to_string()),
    };
    diagnostic(reason);
    emit(&format!("not ok {number} {name}\n"));
    false
}

/// Changes the shared state and wakes the watchdog.
fn set(current: &(Mutex<Current>, Condvar), change: impl FnOnce(&mut Current)) {
    change(&mut current.0.lock().unwrap_or_else(PoisonError::into_inner));
    current.1.notify_all();
}

/// Waits for the end of each test; at the first that is late, reports where its threads are, fails it and all that
/// follow, and ends the program.
fn watch(current: &(Mutex<Current>, Condvar), names: &[String], limit: Duration) {
    let mut now = current.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !now.over {
        now = match now.running {
            None => current.1.wait(now).unwrap_or_else(PoisonError::into_inner),
            Some((index, end)) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    diagnostic(format!(
                        "no result after {} s; threads of this program:",
                        limit.as_secs()
                    ));
                    diagnostic(threads());
                    for (later, name) in names.iter().enumerate().skip(index) {
                        if later > index {
                            diagnostic("not run: the program ended before");
                        }
                        emit(&format!("not ok {} {name}\n", later + 1));
                    }
                    std::process::exit(1);
                }
                current
                    .1
                    .wait_timeout(now, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
    }
}

/// The kernel stacks of this program's threads, as far as they may be read.
fn threads() -> String {
    let mut text = String::new();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return text;
    };
    for task in tasks.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        text.push_str(&format!(
            "{} {}\n",
            read("comm").trim(),
            read("wchan").trim()
        ));
        for line in read("stack").lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{is_called, parse_part};

    #[test]
    fn a_name_or_its_begin_and_end_are_left_out() {
        assert!(is_called("a_by_group", "a_by_group"));
        assert!(is_called("a_by_group", "*_by_group"));
        assert!(!is_called("a_by_group", "by_group"));
        assert!(!is_called("a_by_group_or_not", "*_by_group"));
        assert!(is_called("arc_from_a_to_b", "arc_from_*"));
        assert!(!is_called("an_arc_from_a_to_b", "arc_from_*"));
        assert!(is_called("arc_from_a_is_refused", "arc_*_is_refused"));
        // What is in both is not there twice.
        assert!(is_called("a_b", "a*_b"));
        assert!(!is_called("a_b", "a_*_b"));
    }

    #[test]
    fn a_part_is_one_of_so_many() {
        assert_eq!(parse_part("--part=1/1"), Some((1, 1)));
        assert_eq!(parse_part("--part=2/3"), Some((2, 3)));
        for wrong in [
            "--part=",
            "--part=1",
            "--part=0/2",
            "--part=3/2",
            "--part=1/0",
            "1/2",
        ] {
            assert_eq!(parse_part(wrong), None, "{wrong}");
        }
    }
}
