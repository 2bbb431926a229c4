// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Accesses of any kind to configuration space and BARs of a virtio disk.
//!
//! What cannot be written stays, what was saved loads, and a driver can always start again.

#![no_main]

use devices::blk::Device;
use devices::virtio::Outcome;
use fuzz::guest::{config, start, status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let fresh = Device::new(&config()).expect("a device");
    let mut device = fresh.clone();
    let mut out = Vec::new();
    for step in input.chunks(8) {
        let &[what, at0, at1, len, ref data @ ..] = step else {
            break;
        };
        let at = u64::from(u16::from_le_bytes([at0, at1]));
        let mut bytes = [0; 16];
        bytes[..data.len()].copy_from_slice(data);
        let bytes = &mut bytes[..usize::from(len % 17)];
        let function = device.function_mut();
        match what % 12 {
            0 => function.read_config(at, bytes),
            1 => function.write_config(at, bytes),
            2 | 3 => function.read_bar(usize::from(what % 8), at, bytes),
            4..=6 => function.write_bar(4, at, bytes),
            7 => function.write_bar(1, at, bytes),
            8 => out.extend(function.begin()),
            9 => {
                if let Some(work) = out.pop() {
                    let interrupt = len & 1 != 0;
                    let more = len & 2 != 0;
                    let error = None;
                    function.finish(
                        work,
                        &Outcome {
                            interrupt,
                            more,
                            error,
                        },
                    );
                }
            }
            10 => function.set_running(len & 1 != 0),
            _ => function.set_route(u16::from(len), at & 1 != 0),
        }
        assert_eq!(function.is_quiesced(), out.is_empty());
        assert_eq!(function.take_messages() & !0b111, 0);
    }
    for work in out {
        let outcome = Outcome {
            interrupt: false,
            more: false,
            error: None,
        };
        device.function_mut().finish(work, &outcome);
    }
    let state = device.function().state().expect("the device is quiet");
    // Only a function of the same layout takes what this one stored.
    let mut other = fresh.clone();
    let restored = other.function_mut().restore(&state);
    restored.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(other.function().state(), Some(state));
    start(&mut device);
    assert_eq!(status(&mut device), 0xf);
    device.function_mut().reset();
    other.function_mut().reset();
    assert_eq!(device.function().state(), fresh.function().state());
    assert_eq!(other.function().state(), fresh.function().state());
});
