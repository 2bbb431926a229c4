// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Asks the checkers of a debug kernel what they found so far, and whether they were still looking. Runs as root in the test
//! machine, after the tests; prints KTAP. Exit status 0 if all is well, 1 if not.

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_tests::checkers::suite().run()
}
