// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The input is the guest's memory: a ring, tables, requests. It is served as long as there is something, and a bit more.

#![no_main]

use devices::blk::{serve, Device, Scratch};
use fuzz::guest::{config, disk, notify, start, status, Memory};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let config = config();
    let mut device = Device::new(&config).expect("a device");
    let mut disk = disk(&config);
    let mut memory = Memory(input.to_vec());
    let mut scratch = Box::new(Scratch::new());
    start(&mut device);
    notify(&mut device);
    let geometry = *device.geometry();
    let mut broken = false;
    let mut turns = 0;
    while let Some(mut work) = device.function_mut().begin() {
        let outcome = serve(&mut work, &geometry, &mut memory, &mut disk, &mut scratch);
        broken |= outcome.error.is_some();
        device.function_mut().finish(work, &outcome);
        turns += 1;
        // A request can write to the ring itself, and make places available again: without a notification, that does not go on.
        assert!(turns <= 2);
    }
    assert_eq!(broken, status(&mut device) & 0x40 != 0);
    start(&mut device);
});
