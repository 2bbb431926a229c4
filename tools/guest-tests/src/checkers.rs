// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the checkers of a debug kernel say only when they are asked.
//!
//! Most report into the kernel's log, which the lab judges. Leaks have to be looked for. And some checkers switch themselves off when
//! they run out of something, after which silence means nothing.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::kernel;
use crate::ktap::Suite;

/// The leak detector's file (Documentation/dev-tools/kmemleak.rst).
const LEAKS: &str = "/sys/kernel/debug/kmemleak";

/// Lock debugging's figures.
const LOCKS: &str = "/proc/lockdep_stats";

/// Memory that was allocated this long before a scan or longer is reported (MSECS_MIN_AGE in mm/kmemleak.c), and a bit: nothing says
/// when the youngest piece has come of age but the clock.
const AGE: Duration = Duration::from_millis(5200);

/// Scans that it takes: what has changed since the one before is not reported, and all has by the first.
const SCANS: usize = 2;

/// Reports that are shown. Those that follow are of the same kind most of the time.
const SHOWN: usize = 10;

/// All tests.
pub fn suite() -> Suite {
    let mut suite = Suite::new();
    suite.test("locks_were_watched_to_the_end", || {
        kernel::needs("PROVE_LOCKING")?;
        locks_were_watched_to_the_end()
    });
    suite.test("no_memory_was_lost", || {
        kernel::needs("DEBUG_KMEMLEAK")?;
        no_memory_was_lost()
    });
    suite
}

fn locks_were_watched_to_the_end() -> Result<()> {
    let text = fs::read_to_string(LOCKS).context(LOCKS)?;
    ensure!(
        watched(&text)?,
        "the kernel has stopped looking at locks, because of a fault that its log tells"
    );
    Ok(())
}

/// Whether lock debugging is on, by its own figures.
fn watched(figures: &str) -> Result<bool> {
    let line = figures
        .lines()
        .find_map(|line| line.trim().strip_prefix("debug_locks:"));
    let value = line.with_context(|| format!("{LOCKS} has no debug_locks"))?;
    Ok(value.trim() == "1")
}

fn no_memory_was_lost() -> Result<()> {
    thread::sleep(AGE);
    for _ in 0..SCANS {
        fs::write(LEAKS, "scan").context(LEAKS)?;
    }
    let found = fs::read(LEAKS).context(LEAKS)?;
    let found = reports(&String::from_utf8_lossy(&found));
    ensure!(
        found.is_empty(),
        "{} pieces of memory that nothing points to:\n{}{}",
        found.len(),
        found[..found.len().min(SHOWN)].join("\n"),
        match found.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!("\nand {more} more"),
        }
    );
    Ok(())
}

/// The reports in the detector's file: each begins with a line of its own, and what belongs to it is indented.
fn reports(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in text.lines() {
        match all.last_mut() {
            Some(last) if line.starts_with(' ') => {
                last.push('\n');
                last.push_str(line);
            }
            _ => all.push(line.to_owned()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_report_has_its_own_lines() {
        let text = "unreferenced object 0xffff888003d0a000 (size 1024):\n  comm \"insmod\", pid 61, jiffies 4294892000\n  \
                    backtrace (crc 5c43):\n    __kmalloc_noprof+0x1a0/0x2f0\nunreferenced object 0xffff888003d0b000 (size 8):\n  \
                    comm \"sh\", pid 7, jiffies 4294892001\n";
        let found = reports(text);
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("unreferenced object 0xffff888003d0a000"));
        assert!(found[0].ends_with("__kmalloc_noprof+0x1a0/0x2f0"));
        assert_eq!(found[1].lines().count(), 2);
        assert!(reports("").is_empty());
    }

    #[test]
    fn lock_debugging_that_is_off_or_unknown_is_not_on() {
        let figures = " lock-classes:                          812 [max: 8192]\n debug_locks:                             1\n";
        assert!(watched(figures).unwrap());
        assert!(!watched(&figures.replace("  1\n", "  0\n")).unwrap());
        assert!(watched(" lock-classes: 812\n").is_err());
    }
}
