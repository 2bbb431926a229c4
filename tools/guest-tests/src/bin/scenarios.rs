// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Live migration scenarios, run in the test machine: stock QEMUs, stock Linux guests, the cards of mdev_serial.
//!
//! ```text
//! scenarios [NAME…]           run all scenarios, or those called NAME or whose name contains it; KTAP on standard output. A whole
//!                             name may be one with another QEMU than those that the scenario is listed with
//! scenarios --list            print the names, each with the seconds it may take and the QEMU it needs
//! scenarios --demo [VERSION [DEVICE]]  one migration, told to a person, with this QEMU, of a serial card, a disk or a card with two homes (serial, blk, vfio-user)
//! scenarios --bench           scenario a with our card and with the kernel's C sample mtty, and what QEMU measured
//! ```
//!
//! Logs go to `$LOGDIR/<scenario>/`. Exit status: 0 if all went well, 1 if not, 2 for a wrong argument.

use std::process::ExitCode;
use std::time::Duration;

use guest_tests::ktap::{Outcome, Suite};
use guest_tests::scenarios::version::Version;
use guest_tests::scenarios::{
    bench, broken, contract, convergence, dirty_rate, disk, guest_driver, hotplug, kvm_intx, plain,
    removal, smooth, snapshot, story, two_cards, v1, vfio_user,
};

const USAGE: &str = "usage: scenarios [--list | --demo [VERSION [DEVICE]] | --bench | NAME...]";

/// Seconds that a scenario of one migration may take on a machine of normal speed.
const ONE: u64 = 120;
/// Seconds for ten migrations, or for a few with a wait for what does not come.
const MANY: u64 = 300;

/// A scenario.
struct Scenario {
    /// What it shows.
    title: &'static str,
    /// Seconds that it may take.
    seconds: u64,
    /// The QEMUs it is run with.
    versions: &'static [Version],
    /// What it does.
    body: fn(Version) -> Outcome,
}

impl Scenario {
    /// Its name with one of its QEMUs; the usual one is not named.
    fn name(&self, version: Version) -> String {
        match version {
            Version::V10_0 => self.title.to_owned(),
            other => format!("qemu_{}_{}", other.number().replace('.', "_"), self.title),
        }
    }
}

/// The usual QEMU only.
const USUAL: &[Version] = &[Version::V10_0];
/// Every QEMU of protocol v2.
const V2: &[Version] = &[Version::V10_0, Version::V11_1];
/// The QEMU of protocol v1 only.
const V1: &[Version] = &[Version::V7_2];
/// The usual QEMU, and that of protocol v1.
const BOTH: &[Version] = &[Version::V10_0, Version::V7_2];
/// The newest: the only one that speaks vfio-user, and enough where what is seen takes long and is the same with each of protocol v2.
const NEWEST: &[Version] = &[Version::V11_1];
/// Every QEMU.
const ALL: &[Version] = &[Version::V10_0, Version::V7_2, Version::V11_1];

/// All scenarios.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        title: "a_type1_migration_loses_no_record",
        seconds: ONE,
        versions: ALL,
        body: smooth::type1,
    },
    Scenario {
        title: "b_iommufd_migration_loses_no_record",
        seconds: ONE,
        versions: V2,
        body: smooth::iommufd,
    },
    Scenario {
        title: "c_switchover_waits_for_the_acknowledgement",
        seconds: ONE,
        versions: V2,
        body: smooth::switchover_ack,
    },
    Scenario {
        title: "d_device_state_travels_through_multifd_channels",
        seconds: ONE,
        versions: V2,
        body: disk::multifd,
    },
    Scenario {
        title: "e_stopped_guest_migrates_without_pre_copy",
        seconds: ONE,
        versions: BOTH,
        body: smooth::stopped_first,
    },
    Scenario {
        title: "e_guest_that_never_ran_boots_at_the_destination",
        seconds: ONE,
        versions: BOTH,
        body: smooth::never_ran,
    },
    Scenario {
        // With protocol v2 a card goes there and back beside a disk, below.
        title: "f_five_times_there_and_back",
        seconds: MANY,
        versions: V1,
        body: smooth::there_and_back,
    },
    Scenario {
        title: "g_two_cards_in_one_guest",
        seconds: ONE,
        versions: USUAL,
        body: smooth::two_cards,
    },
    Scenario {
        title: "h_four_ports_all_busy",
        seconds: ONE,
        versions: V1,
        body: smooth::four_ports,
    },
    Scenario {
        title: "i_card_with_msi_keeps_interrupting",
        seconds: ONE,
        versions: BOTH,
        body: smooth::msi,
    },
    Scenario {
        title: "j_source_goes_on_when_the_destination_is_killed",
        seconds: ONE,
        versions: BOTH,
        body: broken::destination_killed,
    },
    Scenario {
        title: "j_source_goes_on_when_the_migration_is_cancelled",
        seconds: ONE,
        versions: USUAL,
        body: broken::cancelled,
    },
    Scenario {
        title: "j_destination_gives_up_when_the_source_is_killed",
        seconds: ONE,
        versions: BOTH,
        body: broken::source_killed,
    },
    Scenario {
        title: "k_destination_with_other_ports_refuses_in_pre_copy",
        seconds: ONE,
        versions: USUAL,
        body: broken::other_ports,
    },
    Scenario {
        title: "l_guest_reboots_in_pre_copy",
        seconds: ONE,
        versions: BOTH,
        body: broken::reboot,
    },
    Scenario {
        title: "m_removal_asks_qemu_and_waits_until_it_let_go",
        seconds: ONE,
        versions: USUAL,
        body: |_| removal::while_in_use(),
    },
    Scenario {
        title: "j_source_goes_on_when_the_migration_is_cancelled_at_the_switch_over",
        seconds: ONE,
        versions: BOTH,
        body: v1::cancelled_at_the_switch_over,
    },
    Scenario {
        title: "k_destination_with_other_ports_refuses_and_the_source_goes_on",
        seconds: ONE,
        versions: V1,
        body: v1::other_ports,
    },
    Scenario {
        title: "n_container_tracks_dirty_memory",
        seconds: ONE,
        versions: V1,
        body: v1::container_tracks,
    },
    Scenario {
        title: "o_source_goes_on_after_all_when_the_destination_dies_before_it_ran",
        seconds: ONE,
        versions: BOTH,
        body: v1::source_goes_on_after_all,
    },
    Scenario {
        title: "p_saved_in_an_image_and_loaded_again",
        seconds: ONE,
        versions: BOTH,
        body: snapshot::save_and_load,
    },
    Scenario {
        title: "q_postcopy_and_background_snapshot_are_refused_and_the_guest_goes_on",
        seconds: ONE,
        versions: NEWEST,
        body: broken::not_offered,
    },
    Scenario {
        title: "r_two_cards_are_refused_and_cancelled",
        seconds: ONE,
        versions: USUAL,
        body: two_cards::refused_and_cancelled,
    },
    Scenario {
        title: "r_two_cards_are_refused_and_cancelled_through_multifd_channels",
        seconds: ONE,
        versions: V2,
        body: two_cards::through_multifd_channels,
    },
    Scenario {
        title: "s_card_is_plugged_into_a_running_guest_that_migrates_then",
        seconds: ONE,
        versions: USUAL,
        body: hotplug::plugged_in,
    },
    Scenario {
        title: "t_removal_at_both_ends_waits_for_the_migration",
        seconds: ONE,
        versions: BOTH,
        body: removal::during_a_migration,
    },
    Scenario {
        title: "u_dirty_rate_is_measured_before_and_during_the_migration",
        seconds: ONE,
        versions: USUAL,
        body: dirty_rate::measured,
    },
    Scenario {
        title: "v_flow_control_in_effect_at_the_stop_holds_afterwards",
        seconds: ONE,
        versions: USUAL,
        body: guest_driver::flow_control,
    },
    Scenario {
        title: "w_guest_rebinds_its_driver_in_pre_copy",
        seconds: ONE,
        versions: USUAL,
        body: guest_driver::rebinds,
    },
    Scenario {
        title: "x_disk_goes_along_and_loses_no_block",
        seconds: ONE,
        versions: ALL,
        body: disk::live,
    },
    Scenario {
        title: "x_file_system_goes_along_through_iommufd",
        seconds: ONE,
        versions: NEWEST,
        body: disk::files,
    },
    Scenario {
        title: "x_disk_goes_there_and_back_five_times",
        seconds: MANY,
        versions: USUAL,
        body: disk::there_and_back,
    },
    Scenario {
        title: "x_memory_that_a_disk_writes_in_pre_copy_arrives",
        seconds: ONE,
        versions: USUAL,
        body: disk::log_is_needed,
    },
    Scenario {
        title: "x_memory_that_a_disk_writes_is_missed_if_its_log_forgets",
        seconds: ONE,
        versions: USUAL,
        body: disk::log_is_broken,
    },
    Scenario {
        title: "x_disk_of_another_capacity_refuses_in_pre_copy",
        seconds: ONE,
        versions: USUAL,
        body: disk::other_capacity,
    },
    Scenario {
        title: "x_disk_goes_along_after_a_cancelled_attempt",
        seconds: ONE,
        versions: USUAL,
        body: disk::cancelled,
    },
    Scenario {
        title: "x_disk_goes_along_after_either_side_was_killed",
        seconds: MANY,
        versions: USUAL,
        body: disk::killed,
    },
    Scenario {
        title: "x_disk_that_is_written_faster_than_it_is_sent_stays_in_pre_copy",
        seconds: MANY,
        versions: NEWEST,
        body: convergence::rates,
    },
    Scenario {
        title: "x_disk_is_saved_in_an_image_and_taken_up_again",
        seconds: MANY,
        versions: USUAL,
        body: disk::snapshot,
    },
    Scenario {
        title: "x_files_are_there_after_the_guest_rebooted_and_moved",
        seconds: ONE,
        versions: USUAL,
        body: disk::rebooted,
    },
    Scenario {
        title: "plain_commands_of_the_readme_on_q35",
        seconds: ONE,
        versions: BOTH,
        body: plain::q35,
    },
    Scenario {
        title: "plain_commands_of_the_readme_on_pc",
        seconds: ONE,
        versions: NEWEST,
        body: plain::pc,
    },
    Scenario {
        title: "kvm_intx_is_lost_by_a_migration",
        seconds: MANY,
        versions: NEWEST,
        body: kvm_intx::lost,
    },
    Scenario {
        title: "kvm_intx_is_kept_if_the_destination_does_something",
        seconds: MANY,
        versions: NEWEST,
        body: kvm_intx::kept,
    },
    Scenario {
        title: "vfio_user_guest_drives_the_card_that_a_program_is",
        // Two guests, and each access is a message to another process and back.
        seconds: MANY,
        versions: NEWEST,
        body: vfio_user::drives,
    },
    Scenario {
        title: "vfio_user_guest_drives_the_disk_that_a_program_is",
        seconds: MANY,
        versions: NEWEST,
        body: vfio_user::disks::drives,
    },
    Scenario {
        title: "vfio_user_guest_drives_the_drivers_devices_behind_programs",
        seconds: MANY,
        versions: NEWEST,
        body: vfio_user::behind::drives,
    },
    Scenario {
        title: "vfio_user_guest_goes_from_the_driver_to_a_program_and_back",
        // Five guests' worth of QEMUs.
        seconds: MANY,
        versions: NEWEST,
        body: vfio_user::both::migrates,
    },
    Scenario {
        title: "vfio_user_card_goes_along_by_dbus_vmstate",
        seconds: MANY,
        versions: NEWEST,
        body: vfio_user::carried::migrates,
    },
    Scenario {
        title: "vfio_user_card_with_msi_goes_along_by_dbus_vmstate",
        seconds: ONE,
        versions: NEWEST,
        body: vfio_user::carried::migrates_with_msi,
    },
    Scenario {
        title: "vfio_user_guest_migrates_as_any_other",
        seconds: ONE,
        versions: NEWEST,
        body: vfio_user::native::migrates,
    },
    Scenario {
        title: "contract_guest_sees_what_the_parameters_say",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::seen_by_the_guest(),
    },
    Scenario {
        title: "contract_one_port_card_goes_to_an_aggregating_type",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::other_type(),
    },
    Scenario {
        title: "contract_newer_source_goes_to_an_older_destination",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::newer_to_older(),
    },
    Scenario {
        title: "contract_older_source_goes_to_a_newer_destination",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::older_to_newer(),
    },
    Scenario {
        title: "contract_other_num_ports_are_refused_then_prepared",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::num_ports(),
    },
    Scenario {
        title: "contract_other_fifo_depth_is_refused_then_prepared",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::fifo_depth(),
    },
    Scenario {
        title: "contract_other_msi_is_refused_then_prepared",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::msi(),
    },
    Scenario {
        title: "contract_other_compact_state_is_refused_then_prepared",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::compact_state(),
    },
    Scenario {
        title: "contract_unknown_parameter_is_refused_then_turned_off_at_run_time",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::flipped_at_run_time(),
    },
    Scenario {
        title: "contract_stopped_guest_is_refused_in_stop_and_copy",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::stopped(),
    },
    Scenario {
        title: "contract_guest_that_uses_16_of_64_bytes_migrates",
        seconds: ONE,
        versions: USUAL,
        body: |_| contract::sixteen_of_sixty_four(),
    },
];

/// Every scenario with every QEMU it is run with.
fn scenarios() -> impl Iterator<Item = (&'static Scenario, Version)> {
    let with = |scenario: &'static Scenario| {
        let versions = scenario.versions.iter();
        versions.map(move |version| (scenario, *version))
    };
    SCENARIOS.iter().flat_map(with)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--help"] => println!("{USAGE}"),
        // The lab's own deadline comes after that of the suite, which can say more.
        ["--list"] => scenarios().for_each(|(scenario, version)| {
            let (name, seconds) = (scenario.name(version), scenario.seconds + 20);
            println!("{name}\t{seconds}\t{version}");
        }),
        ["--demo"] => return demo(Version::V10_0, story::tell),
        ["--demo", version, device @ ..] if device.len() < 2 => {
            let story = story::by_name(device.first().unwrap_or(&"serial"));
            return match version.parse().and_then(|version| Ok((version, story?))) {
                Ok((version, story)) => demo(version, story),
                Err(error) => {
                    eprintln!("scenarios: {error}");
                    ExitCode::from(2)
                }
            };
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

/// Tells a story.
fn demo(version: Version, story: story::Story) -> ExitCode {
    if let Err(error) = story(version) {
        eprintln!("\nscenarios: the demonstration failed: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs the scenarios called one of `words`, or all. A word that is no scenario's name stands for all names that contain it; a name may
/// be one with a QEMU that the scenario is not run with otherwise.
fn run(words: &[&str]) -> ExitCode {
    let with_any = || {
        let with = |scenario| Version::ALL.map(|version| (scenario, version));
        SCENARIOS.iter().flat_map(with)
    };
    let is_name = |word: &str| with_any().any(|(scenario, version)| scenario.name(version) == word);
    let chosen = |name: &str, is_usual: bool| {
        let called = |word: &&str| {
            if is_name(word) {
                name == *word
            } else {
                is_usual && name.contains(*word)
            }
        };
        words.is_empty() && is_usual || words.iter().any(called)
    };
    let mut suite = Suite::new();
    let mut limit = Duration::ZERO;
    for (scenario, version) in with_any() {
        let name = scenario.name(version);
        if chosen(&name, scenario.versions.contains(&version)) {
            limit = limit.max(Duration::from_secs(scenario.seconds));
            suite.test(name, move || (scenario.body)(version));
        }
    }
    suite.limit(limit);
    suite.run_chosen(&[])
}
