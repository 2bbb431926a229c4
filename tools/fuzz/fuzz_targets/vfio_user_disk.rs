// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Clients of two programs, and remote calls, that migrate a disk from one to the other, and guests that have it read and write
//! memory.
//!
//! Memory is reached where the clients say, and what was written there is in the log; a disk's contents go along.

#![no_main]

use fuzz::migrating::run_disk;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    run_disk(input);
});
