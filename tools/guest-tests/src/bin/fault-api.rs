// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Makes one thing after another fail inside the system calls of a card's life, where the kernel can be asked for that. Runs as root
//! in the test machine; prints KTAP. `--list` prints the names of the tests, other arguments choose those whose name contains one of
//! them. Exit status 0 if all passed, 1 if not.

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_tests::fault_api::suite().run()
}
