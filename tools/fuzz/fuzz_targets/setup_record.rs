// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The setup record, by which a destination decides whether it can take a state.

#![no_main]

use fuzz::{can_be_written_again, with_checksums};
use libfuzzer_sys::fuzz_target;
use migration::stream::SetupRecord;

fuzz_target!(|input: &[u8]| {
    for input in [input, &with_checksums(input)] {
        if let Ok(record) = SetupRecord::parse(input) {
            can_be_written_again(&record);
        }
    }
});
