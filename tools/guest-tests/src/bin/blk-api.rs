// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests the virtio disk's mdev instances with a driver of its own. Runs as root in the test machine; prints KTAP. `--list` prints
//! the names of the tests, other arguments choose those whose name contains one of them. Exit status 0 if all passed, 1 if not.

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_tests::blk_api::run()
}
