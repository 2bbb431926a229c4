// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Clients of two programs, and remote calls, that migrate a card from one to the other, or do anything else.
//!
//! What fails changes nothing, the states of migration are passed through as they may be, and what was saved is loaded as the same.

#![no_main]

use fuzz::migrating::run_serial;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    run_serial(input);
});
