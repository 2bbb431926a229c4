// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests the VFIO user API of the serial card's mdev instances. Runs as root in the test machine; prints KTAP. `--list`
//! prints the names of the tests, other arguments choose those whose name contains one of them. Exit status 0 if all
//! passed, 1 if not.

use std::process::ExitCode;

fn main() -> ExitCode {
    match guest_tests::v2_api::in_another_process() {
        Some(done) => done,
        None => guest_tests::v2_api::suite().run(),
    }
}
