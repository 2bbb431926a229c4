// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The kernel log of one machine: which test each line belongs to, and which lines should not be there.
//!
//! /dev/kmsg gives every record with its level. The console gives the same lines without levels, but to the very end: what came
//! after the last record, when the machine dies, is read from there.
//!
//! Two rules find trouble. The sentences with which the kernel reports its own bugs are trouble at any time. Any line at
//! level warning or worse is trouble from the moment the first process runs: before that the kernel comments on the emulated
//! hardware, which is not under test. A test announces what it provokes with a line `lab: expect REGEX` or
//! `lab: allow REGEX` in the kernel log, and [`rules::HARMLESS`] lists what is always allowed and why.

mod records;
mod rules;

use lab_protocol::{ALLOW, EXPECT, MARK};
use records::{parse_console, parse_kmsg, Record, LEVELS};
use regex::{Regex, RegexSet};
use rules::{ALARMS, FATAL, HARMLESS};

const WARNING: u8 = 4;

/// While a module is loaded its KUnit suites run. They print failed assertions as errors, indented by at least this: those are
/// part of the suites' results, and counted there.
const LOADING: &str = "insmod/";
const KUNIT_INDENT: &str = "    ";

/// Records between two bad ones that still count as one finding.
const GAP: usize = 3;

/// Something the log should not contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The test that was running.
    pub test: Option<String>,
    /// Its most telling line.
    pub title: String,
    /// All lines that belong to it.
    pub lines: Vec<String>,
}

struct Announcement {
    pattern: Regex,
    required: bool,
    seen: bool,
}

/// Lines that may make up a finding together.
struct Group {
    finding: Finding,
    /// Between `cut here` and `end trace`: belongs together whatever the levels are.
    framed: bool,
    quiet: usize,
}

/// The log of one machine.
pub struct KernelLog {
    alarms: RegexSet,
    fatal: Regex,
    harmless: RegexSet,
    /// The lines of each test's time, in order.
    tests: Vec<(String, Vec<String>)>,
    running: Option<String>,
    user_space: bool,
    announced: Vec<Announcement>,
    group: Option<Group>,
    findings: Vec<Finding>,
    is_lost: bool,
    last_micros: Option<u64>,
    console: Vec<u8>,
}

impl Default for KernelLog {
    fn default() -> Self {
        let set = |patterns: &[&str]| RegexSet::new(patterns).expect("the tables are tested");
        Self {
            alarms: set(&ALARMS),
            fatal: Regex::new(FATAL).expect("the pattern is tested"),
            harmless: set(&HARMLESS.map(|(pattern, _)| pattern)),
            tests: vec![],
            running: None,
            user_space: false,
            announced: vec![],
            group: None,
            findings: vec![],
            is_lost: false,
            last_micros: None,
            console: vec![],
        }
    }
}

impl KernelLog {
    /// Takes one record of /dev/kmsg and returns its lines for people.
    pub fn kmsg(&mut self, bytes: &[u8]) -> Vec<String> {
        let records = parse_kmsg(&String::from_utf8_lossy(bytes));
        let mut lines = Vec::new();
        for record in records {
            let level = record.level.map_or("?", |level| LEVELS[usize::from(level)]);
            lines.push(format!(
                "[{:>5}.{:06}] {level:<6} {}",
                record.micros / 1_000_000,
                record.micros % 1_000_000,
                record.text
            ));
            self.last_micros = Some(record.micros);
            self.take(record);
        }
        lines
    }

    /// Takes what the console showed.
    pub fn console(&mut self, bytes: &[u8]) {
        self.console.extend_from_slice(bytes);
    }

    /// Whether the kernel is past relying on.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The kernel's lines while a test ran.
    pub fn lines_of<'a>(&'a self, test: &'a str) -> impl Iterator<Item = &'a str> {
        let of_test = self.tests.iter().filter(move |(name, _)| name == test);
        of_test.flat_map(|(_, lines)| lines.iter().map(String::as_str))
    }

    /// Takes from the console what /dev/kmsg did not give. To be called when the machine is gone.
    pub fn read_console_tail(&mut self) {
        let console = String::from_utf8_lossy(&std::mem::take(&mut self.console)).into_owned();
        for line in console.lines() {
            let Some(record) = parse_console(line) else {
                continue;
            };
            if self.last_micros.is_none_or(|last| record.micros > last) {
                self.take(record);
            }
        }
    }

    /// The findings so far. An announced line that never came is one.
    pub fn finish(&mut self) -> Vec<Finding> {
        self.end_test();
        self.close_group();
        std::mem::take(&mut self.findings)
    }

    fn take(&mut self, record: Record) {
        if let Some(mark) = record.text.strip_prefix(MARK) {
            self.user_space = true;
            self.mark(mark.to_owned(), &record.text);
            return;
        }
        if let Some((_, lines)) = self.tests.last_mut().filter(|_| self.running.is_some()) {
            lines.push(record.text.clone());
        }
        self.is_lost |= record.from_kernel && self.fatal.is_match(&record.text);
        self.judge(record);
    }

    fn mark(&mut self, mark: String, whole: &str) {
        if let Some(test) = mark
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" starts"))
        {
            self.end_test();
            self.running = Some(test.to_owned());
            self.tests.push((test.to_owned(), vec![]));
        } else if mark.starts_with("test ") && mark.ends_with(" ends") {
            self.end_test();
        } else if let Some(pattern) = whole.strip_prefix(EXPECT) {
            self.announce(pattern, true);
        } else if let Some(pattern) = whole.strip_prefix(ALLOW) {
            self.announce(pattern, false);
        }
    }

    fn announce(&mut self, pattern: &str, required: bool) {
        match Regex::new(pattern.trim()) {
            Ok(pattern) => self.announced.push(Announcement {
                pattern,
                required,
                seen: false,
            }),
            Err(_) => self.add(format!(
                "a test announced a line with a pattern that cannot be read: {pattern}"
            )),
        }
    }

    fn end_test(&mut self) {
        self.close_group();
        for announced in std::mem::take(&mut self.announced) {
            if announced.required && !announced.seen {
                self.add(format!(
                    "the announced line never came: {}",
                    announced.pattern
                ));
            }
        }
        self.running = None;
    }

    fn add(&mut self, title: String) {
        self.findings.push(Finding {
            test: self.running.clone(),
            title,
            lines: vec![],
        });
    }

    fn judge(&mut self, record: Record) {
        let frame_opens = record.text.contains("[ cut here ]");
        if let Some(group) = self
            .group
            .as_mut()
            .filter(|group| group.framed && !frame_opens)
        {
            let over = record.text.contains("---[ end trace");
            group.finding.lines.push(record.text);
            if over {
                self.close_group();
            }
            return;
        }
        if frame_opens {
            self.close_group();
            let finding = Finding {
                test: self.running.clone(),
                title: String::new(),
                lines: vec![record.text],
            };
            self.group = Some(Group {
                finding,
                framed: true,
                quiet: 0,
            });
            return;
        }
        if !self.is_bad(&record) || self.is_announced(&record.text) {
            if let Some(group) = &mut self.group {
                group.quiet += 1;
                if group.quiet > GAP {
                    self.close_group();
                }
            }
            return;
        }
        let test = self.running.clone();
        let group = self.group.get_or_insert_with(|| Group {
            finding: Finding {
                test,
                title: String::new(),
                lines: vec![],
            },
            framed: false,
            quiet: 0,
        });
        group.quiet = 0;
        group.finding.lines.push(record.text);
    }

    fn is_bad(&self, record: &Record) -> bool {
        let kunit = self
            .running
            .as_deref()
            .is_some_and(|test| test.starts_with(LOADING))
            && record.text.starts_with(KUNIT_INDENT);
        let loud = self.user_space && !kunit && record.level.is_some_and(|level| level <= WARNING);
        record.from_kernel
            && (self.alarms.is_match(&record.text) || loud && !self.harmless.is_match(&record.text))
    }

    fn is_announced(&mut self, text: &str) -> bool {
        let mut found = false;
        for announced in &mut self.announced {
            if announced.pattern.is_match(text) {
                announced.seen = true;
                found = true;
            }
        }
        found
    }

    fn close_group(&mut self) {
        let Some(Group {
            mut finding,
            framed,
            ..
        }) = self.group.take()
        else {
            return;
        };
        if framed
            && finding
                .lines
                .clone()
                .iter()
                .any(|line| self.is_announced(line))
        {
            return;
        }
        let telling =
            |line: &&String| self.alarms.is_match(line) && !line.starts_with("Call Trace:");
        let title = finding.lines.iter().find(telling).or_else(|| {
            finding
                .lines
                .iter()
                .find(|line| !line.contains("[ cut here ]"))
        });
        finding.title = title.or(finding.lines.first()).cloned().unwrap_or_default();
        self.findings.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with these messages: level, facility and text.
    fn log(messages: &[(u8, u32, &str)]) -> KernelLog {
        let mut log = KernelLog::default();
        for (i, (level, facility, text)) in messages.iter().enumerate() {
            log.kmsg(
                format!(
                    "{},{i},{},-;{text}\n SUBSYSTEM=pci\n",
                    (facility << 3) | u32::from(*level),
                    i * 10
                )
                .as_bytes(),
            );
        }
        log
    }

    const START: (u8, u32, &str) = (6, 1, "lab: test scenarios/a starts");
    const END: (u8, u32, &str) = (6, 1, "lab: test scenarios/a ends");

    fn titles(log: &mut KernelLog) -> Vec<String> {
        log.finish()
            .into_iter()
            .map(|finding| finding.title)
            .collect()
    }

    #[test]
    fn a_warning_is_a_finding_of_the_test_that_ran() {
        let mut log = log(&[
            START,
            (4, 0, "mdev_serial: odd"),
            (6, 0, "fine"),
            END,
            (6, 0, "later"),
        ]);
        let findings = log.finish();
        assert_eq!(
            findings,
            [Finding {
                test: Some("scenarios/a".into()),
                title: "mdev_serial: odd".into(),
                lines: vec!["mdev_serial: odd".into()]
            }]
        );
    }

    #[test]
    fn the_emulated_hardware_may_be_commented_on_before_the_first_process_but_not_with_a_splat() {
        let mut log = log(&[
            (4, 0, "acpi: odd"),
            (4, 0, "WARNING: CPU: 0 PID: 1 at x.c:3"),
            START,
            END,
        ]);
        // The first line is adjacent to the second, but no finding itself.
        assert_eq!(titles(&mut log), ["WARNING: CPU: 0 PID: 1 at x.c:3"]);
    }

    #[test]
    fn a_splat_is_one_finding_from_cut_to_end_whatever_the_levels() {
        let splat = [
            START,
            (4, 0, "------------[ cut here ]------------"),
            (6, 0, "vfio: assertion"),
            (
                4,
                0,
                "WARNING: drivers/vfio/x.c:3 at f+0x1/0x2, CPU#0: insmod/9",
            ),
            (4, 0, "Call Trace:"),
            (4, 0, " <TASK>"),
            (6, 0, "an interrupting line"),
            (4, 0, "---[ end trace 0000000000000000 ]---"),
            (6, 0, "fine"),
        ];
        let findings = log(&splat).finish();
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].title,
            "WARNING: drivers/vfio/x.c:3 at f+0x1/0x2, CPU#0: insmod/9"
        );
        assert_eq!(findings[0].lines.len(), 7);
    }

    #[test]
    fn alarms_count_at_any_level() {
        for text in [
            "BUG: sleeping function called from invalid context at x.c:1",
            "UBSAN: array-index-out-of-bounds in x.c:1:2",
            "BUG: KASAN: slab-out-of-bounds in f+0x1/0x2",
            "WARNING: possible circular locking dependency detected",
            "INFO: possible recursive locking detected",
            "WARNING: suspicious RCU usage",
            "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "unreferenced object 0xffff888003d0a000 (size 1024):",
            "INFO: task cat:12 blocked for more than 30 seconds.",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "BUG: scheduling while atomic: cat/12/0x00000002",
            "Oops: general protection fault, 0000 [#1] SMP",
            "ODEBUG: free active (active state 0) object: ffff888003d0a000 object type: timer_list hint: 0x0",
            "ODEBUG: Out of memory. ODEBUG disabled",
            "kobject (00000000b1f6d2a4): tried to init an initialized object, something is seriously wrong.",
            "kobject: 'a' (00000000b1f6d2a4): is not initialized, yet kobject_put() is being called.",
            "BUG: MAX_LOCKDEP_CHAINS too low!",
            "turning off the locking correctness validator.",
            "WARNING: possible irq lock inversion dependency detected",
            "refcount_t: addition on 0; use-after-free.",
            "kmemleak: Kernel memory leak detector disabled",
        ] {
            assert_eq!(titles(&mut log(&[START, (6, 0, text), END])), [text]);
        }
    }

    #[test]
    fn a_checker_that_says_that_it_is_there_has_found_nothing() {
        for text in [
            "rcu: \tRCU callback double-/use-after-free debug is enabled.",
            "kasan: KernelAddressSanitizer initialized (generic)",
            "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
            "kmemleak: Kernel memory leak detector initialized (mem pool available: 14764)",
        ] {
            assert!(
                titles(&mut log(&[START, (6, 0, text), END])).is_empty(),
                "{text}"
            );
        }
    }

    #[test]
    fn failed_assertions_of_a_suite_are_left_to_its_results_and_a_warning_beside_them_is_not() {
        let start = (6, 1, "lab: test insmod/rust_vfio starts");
        let mut log = log(&[
            start,
            (3, 0, "    # a: ASSERTION FAILED at x.rs:3"),
            (3, 0, "    Expected b, but is false"),
            (4, 0, "rust_vfio: odd"),
        ]);
        assert_eq!(titles(&mut log), ["rust_vfio: odd"]);
    }

    #[test]
    fn what_a_test_writes_to_the_log_is_no_finding() {
        assert!(titles(&mut log(&[START, (3, 1, "BUG: says the test"), END])).is_empty());
    }

    #[test]
    fn an_announced_line_is_no_finding_and_an_unannounced_beside_it_is() {
        let mut log = log(&[
            START,
            (6, 1, "lab: expect ^mdev_serial: refused \\d+"),
            (4, 0, "mdev_serial: refused 7"),
            (4, 0, "mdev_serial: odd"),
            END,
        ]);
        assert_eq!(titles(&mut log), ["mdev_serial: odd"]);
    }

    #[test]
    fn an_announced_splat_is_no_finding() {
        let mut log = log(&[
            START,
            (6, 1, "lab: expect WARNING: x.c:3"),
            (4, 0, "[ cut here ]"),
            (4, 0, "WARNING: x.c:3"),
            (4, 0, "---[ end trace 0 ]---"),
            END,
        ]);
        assert!(titles(&mut log).is_empty());
    }

    #[test]
    fn an_announcement_ends_with_its_test() {
        let second = (6, 1, "lab: test scenarios/b starts");
        let mut log = log(&[START, (6, 1, "lab: allow odd"), END, second, (4, 0, "odd")]);
        assert_eq!(titles(&mut log), ["odd"]);
    }

    #[test]
    fn an_announced_line_that_never_came_is_a_finding_unless_it_was_only_allowed() {
        let mut log = log(&[
            START,
            (6, 1, "lab: expect one"),
            (6, 1, "lab: allow two"),
            END,
        ]);
        assert_eq!(titles(&mut log), ["the announced line never came: one"]);
    }

    #[test]
    fn an_unreadable_announcement_is_a_finding() {
        assert_eq!(
            titles(&mut log(&[START, (6, 1, "lab: expect ("), END])).len(),
            1
        );
    }

    #[test]
    fn registers_that_kvm_does_not_have_are_no_finding_whoever_says_so() {
        for text in [
            "kvm_amd: kvm [254]: vcpu0, guest rIP: 0xffffffff81040c54 Unhandled WRMSR(0x1d9) = 0x0",
            "kvm: kvm [254]: vcpu1, guest rIP: 0xffffffff81040c54 Unhandled RDMSR(0x1d9)",
            "kvm [254]: vcpu0, guest rIP: 0x0 Unhandled WRMSR(0x1d9) = 0x0",
            "kvm_pr_unimpl_wrmsr: 3 callbacks suppressed",
        ] {
            assert!(
                titles(&mut log(&[START, (3, 0, text), END])).is_empty(),
                "{text}"
            );
        }
        let other = "kvm_amd: kvm [254]: vcpu0, guest rIP: 0x0 unexpected exit reason 0x7f";
        assert_eq!(titles(&mut log(&[START, (3, 0, other), END])), [other]);
    }

    #[test]
    fn each_harmless_pattern_reads() {
        let mut log = log(&[
            START,
            (4, 0, "rust_vfio: loading out-of-tree module taints kernel."),
            END,
        ]);
        assert!(titles(&mut log).is_empty());
    }

    #[test]
    fn the_console_tells_what_came_after_the_last_record() {
        let mut log = log(&[START, (6, 0, "fine")]);
        log.console(b"[    0.000010] fine\r\n[    0.000020] BUG: kernel NULL pointer dereference, address: 0\r\n[    0.000030] Kernel panic - not syncing: x\r\n");
        log.read_console_tail();
        let findings = log.finish();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].test.as_deref(), Some("scenarios/a"));
        assert!(findings[0].title.starts_with("BUG: kernel NULL pointer"));
        assert!(log.is_lost());
    }

    #[test]
    fn the_lines_of_a_test_are_found_again_with_their_indentation() {
        let start = (6, 1, "lab: test insmod/rust_vfio starts");
        let log = log(&[
            (6, 0, "before"),
            start,
            (6, 0, "KTAP version 1"),
            (6, 0, "    ok 1 a\\x0a    ok 2 b"),
            (6, 1, "lab: test insmod/rust_vfio ends"),
            (6, 0, "after"),
        ]);
        let lines: Vec<_> = log.lines_of("insmod/rust_vfio").collect();
        assert_eq!(lines, ["KTAP version 1", "    ok 1 a", "    ok 2 b"]);
    }

    #[test]
    fn records_are_shown_with_time_and_level() {
        let mut log = KernelLog::default();
        assert_eq!(
            log.kmsg(b"6,1,1234567,-;text\n"),
            ["[    1.234567] info   text"]
        );
    }
}
