// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests the migration interface in sysfs and the program `vfio-migrate` with the serial card's driver. Runs as root in the
//! test machine; prints KTAP. `--list` prints the names of the tests, other arguments choose those whose name contains one of
//! them. Exit status 0 if all passed, 1 if not.
//!
//! Expectations come from the compatibility contract; its section 8 lists the refusals.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use guest_tests::ktap::Suite;

/// Adds functions as tests of the same name.
macro_rules! tests {
    ($suite:expr, $($name:ident),+ $(,)?) => {
        $($suite.test(stringify!($name), $name);)+
    };
}

mod any_list;
mod behind;
mod callout;
mod capacity;
mod disk;
mod disk_programs;
mod examples;
mod files;
mod host;
mod mdevctl;
mod old_parent;
mod outputs;
mod plain_files;
mod programs;
mod protocols;
mod refusals;
mod set_up;
mod setup_record;
mod tool;
mod uevents;
mod versions;
mod watching;

fn main() -> ExitCode {
    let mut suite = Suite::new();
    suite.limit(Duration::from_secs(100));
    files::add(&mut suite);
    plain_files::add(&mut suite);
    refusals::add(&mut suite);
    versions::add(&mut suite);
    capacity::add(&mut suite);
    setup_record::add(&mut suite);
    tool::add(&mut suite);
    outputs::add(&mut suite);
    protocols::add(&mut suite);
    programs::add(&mut suite);
    behind::add(&mut suite);
    set_up::add(&mut suite);
    disk::add(&mut suite);
    disk_programs::add(&mut suite);
    watching::add(&mut suite);
    any_list::add(&mut suite);
    mdevctl::add(&mut suite);
    callout::add(&mut suite);
    examples::add(&mut suite);
    // These load the driver anew.
    old_parent::add(&mut suite);
    uevents::add(&mut suite);
    suite.run()
}
