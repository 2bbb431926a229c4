// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests the serial card's mdev instances with the VFIO library of other virtual machine monitors. Runs as root in the test
//! machine; prints KTAP. `--list` prints the names of the tests, other arguments choose those whose name contains one of
//! them. Exit status 0 if all passed, 1 if not.

use std::process::ExitCode;

use guest_tests::vmm_api;

fn main() -> ExitCode {
    // The tests start this program again, to be a monitor of its own that can die.
    vmm_api::process::serve().unwrap_or_else(|| vmm_api::suite().run())
}
