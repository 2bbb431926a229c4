// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Live migration scenarios, run in the test machine: stock QEMUs, stock Linux guests, the cards of mdev_serial.
//!
//! ```text
//! scenarios [NAME…]     run all scenarios, or those called NAME or whose name contains it; KTAP on standard output
//! scenarios --list      print the names, each with the seconds it may take
//! scenarios --demo      one migration, told to a person
//! scenarios --bench     scenario a with our card and with the kernel's C sample mtty, and what QEMU measured
//! ```
//!
//! Logs go to `$LOGDIR/<scenario>/`. Exit status: 0 if all went well, 1 if not, 2 for a wrong argument.

use std::process::ExitCode;
use std::time::Duration;

use guest_tests::ktap::{Outcome, Suite};
use guest_tests::scenarios::{bench, broken, removal, smooth, story};

const USAGE: &str = "usage: scenarios [--list | --demo | --bench | NAME...]";

/// Seconds that a scenario of one migration may take on a machine of normal speed.
const ONE: u64 = 120;
/// Seconds for twenty migrations.
const TWENTY: u64 = 300;

/// What a scenario runs.
type Body = fn() -> Outcome;

/// All scenarios: name, seconds, what to run.
const SCENARIOS: [(&str, u64, Body); 16] = [
    ("a_type1_migration_loses_no_record", ONE, smooth::type1),
    ("b_iommufd_migration_loses_no_record", ONE, smooth::iommufd),
    (
        "c_switchover_waits_for_the_acknowledgement",
        ONE,
        smooth::switchover_ack,
    ),
    (
        "d_device_state_travels_through_multifd_channels",
        ONE,
        smooth::multifd,
    ),
    (
        "e_stopped_guest_migrates_without_pre_copy",
        ONE,
        smooth::stopped_first,
    ),
    (
        "e_guest_that_never_ran_boots_at_the_destination",
        ONE,
        smooth::never_ran,
    ),
    ("f_ten_times_there_and_back", TWENTY, smooth::there_and_back),
    ("g_two_cards_in_one_guest", ONE, smooth::two_cards),
    ("h_four_ports_all_busy", ONE, smooth::four_ports),
    ("i_card_with_msi_keeps_interrupting", ONE, smooth::msi),
    (
        "j_source_goes_on_when_the_destination_is_killed",
        ONE,
        broken::destination_killed,
    ),
    (
        "j_source_goes_on_when_the_migration_is_cancelled",
        ONE,
        broken::cancelled,
    ),
    (
        "j_destination_gives_up_when_the_source_is_killed",
        ONE,
        broken::source_killed,
    ),
    (
        "k_destination_with_other_ports_refuses_in_pre_copy",
        ONE,
        broken::other_ports,
    ),
    ("l_guest_reboots_in_pre_copy", ONE, broken::reboot),
    (
        "m_removal_asks_qemu_and_waits_until_it_let_go",
        ONE,
        removal::while_in_use,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--help"] => println!("{USAGE}"),
        // The lab's own deadline comes after that of the suite, which can say more.
        ["--list"] => SCENARIOS
            .iter()
            .for_each(|(name, seconds, _)| println!("{name}\t{}", seconds + 20)),
        ["--demo"] => {
            if let Err(error) = story::tell() {
                eprintln!("\nscenarios: the demonstration failed: {error:#}");
                return ExitCode::FAILURE;
            }
        }
        ["--bench"] => {
            if let Err(error) = bench::compare() {
                eprintln!("scenarios: {error:#}");
                return ExitCode::FAILURE;
            }
        }
        words if words.iter().any(|word| word.starts_with('-')) => {
            eprintln!("scenarios: unknown argument; {USAGE}");
            return ExitCode::from(2);
        }
        words => return run(words),
    }
    ExitCode::SUCCESS
}

/// Runs the scenarios called one of `names`, or all.
fn run(names: &[&str]) -> ExitCode {
    let chosen = |name: &str| {
        let called = |word: &&str| {
            if SCENARIOS.iter().any(|(name, ..)| name == word) {
                name == *word
            } else {
                name.contains(*word)
            }
        };
        names.is_empty() || names.iter().any(called)
    };
    let mut suite = Suite::new();
    let mut limit = Duration::ZERO;
    for (name, seconds, body) in SCENARIOS.iter().filter(|(name, ..)| chosen(name)) {
        limit = limit.max(Duration::from_secs(*seconds));
        suite.test(*name, *body);
    }
    suite.limit(limit);
    suite.run_chosen(&[])
}
