// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Feature negotiation, the status machine, queues' registers, interrupts.

use crate::driver::Queue;
use crate::machine::*;
use crate::memory::BASE;
use devices::blk::{Config, Device};
use devices::pci::Gate;
use devices::virtio::features;

fn config() -> Config {
    let mut config = Config::new(1);
    config.queues = 2.try_into().unwrap();
    config.queue_size = 16.try_into().unwrap();
    config
}

#[test]
fn features_without_packed_rings_or_virtio_1_are_refused() {
    for missing in [features::RING_PACKED, features::VERSION_1] {
        let mut machine = Machine::off(&config());
        assert!(!machine.negotiate(!missing));
        machine.set_status(ACKNOWLEDGE_DRIVER | DRIVER_OK);
        assert_eq!(machine.status(), ACKNOWLEDGE_DRIVER);
    }
    let mut machine = Machine::off(&config());
    assert!(machine.negotiate(features::REQUIRED));
}

#[test]
fn features_that_are_not_offered_are_refused() {
    let mut machine = Machine::off(&config());
    assert_eq!(machine.offered() & features::EVENT_IDX, 0);
    for (select, word) in [(1, 0x7), (0, 0x3000_0000)] {
        machine.set_common(8, 4, select);
        machine.set_common(12, 4, word);
    }
    machine.set_status(ACKNOWLEDGE_DRIVER | FEATURES_OK);
    assert_eq!(machine.status(), ACKNOWLEDGE_DRIVER);
    // What is settled cannot be changed any longer.
    assert!(machine.negotiate(features::REQUIRED));
    machine.set_common(8, 4, 1);
    machine.set_common(12, 4, 0);
    assert_eq!(machine.common(12, 4), 0x5);
    // Beyond 64 bits there is nothing.
    machine.set_common(0, 4, 2);
    assert_eq!(machine.common(4, 4), 0);
}

#[test]
fn status_bits_are_set_one_by_one_and_cleared_together() {
    let mut machine = Machine::on(&config());
    assert_eq!(machine.status(), 0xf);
    machine.set_status(1);
    machine.set_status(NEEDS_RESET);
    assert_eq!(machine.status(), 0xf);
    machine.set_status(0);
    assert_eq!(machine.status(), 0);
    machine.set_common(22, 2, 1);
    assert_eq!(machine.common(28, 2), 0);
    assert_eq!(machine.common(26, 2), 0xffff);
    assert_eq!(machine.common(16, 2), 0xffff);
}

#[test]
fn a_queue_keeps_what_it_was_given_until_it_is_reset() {
    let mut machine = Machine::on(&config());
    machine.set_common(22, 2, 1);
    let before: Vec<_> = (32..56)
        .step_by(4)
        .map(|at| machine.common(at, 4))
        .collect();
    for at in (32..56).step_by(4) {
        machine.set_common(at, 4, 0x1000);
    }
    machine.set_common(24, 2, 8);
    machine.set_common(28, 2, 0);
    let after: Vec<_> = (32..56)
        .step_by(4)
        .map(|at| machine.common(at, 4))
        .collect();
    assert_eq!(before, after);
    assert_eq!((machine.common(24, 2), machine.common(28, 2)), (16, 1));
    assert_eq!(machine.common(30, 2), 1, "its notification register");
    // By itself (RING_RESET).
    machine.set_common(58, 2, 1);
    assert_eq!((machine.common(58, 2), machine.common(28, 2)), (0, 0));
    assert_eq!(machine.common(32, 4), 0);
    machine.set_common(22, 2, 0);
    assert_eq!(machine.common(28, 2), 1);
}

#[test]
fn without_ring_reset_a_queue_is_not_reset_by_itself() {
    let mut machine = Machine::off(&config());
    machine.start(!features::RING_RESET);
    machine.set_common(58, 2, 1);
    assert_eq!(machine.common(28, 2), 1);
}

#[test]
fn sizes_vectors_and_queues_that_there_are_not_read_back_so() {
    let mut machine = Machine::off(&config());
    machine.negotiate(u64::MAX);
    for size in [0, 17, 0xffff] {
        machine.set_common(24, 2, size);
        assert_eq!(machine.common(24, 2), 16);
    }
    machine.set_common(24, 2, 5);
    assert_eq!(machine.common(24, 2), 5, "a packed ring has any size");
    for (vector, kept) in [(2, 2), (3, 0xffff), (0xffff, 0xffff)] {
        machine.set_common(16, 2, vector);
        machine.set_common(26, 2, vector);
        assert_eq!((machine.common(16, 2), machine.common(26, 2)), (kept, kept));
    }
    machine.set_common(22, 2, 2);
    assert_eq!((machine.common(22, 2), machine.common(24, 2)), (2, 0));
    machine.set_common(28, 2, 1);
    assert_eq!((machine.common(28, 2), machine.status()), (0, 0xb));
}

#[test]
fn a_queue_that_lies_nowhere_needs_a_reset() {
    let good = Queue::at(BASE, 16);
    for (descriptors, driver, device) in [
        (good.descriptors + 8, good.driver, good.device),
        (good.descriptors, good.driver + 2, good.device),
        (good.descriptors, good.driver, good.device + 1),
        (u64::MAX - 0xef, good.driver, good.device),
    ] {
        let mut machine = Machine::off(&config());
        machine.negotiate(u64::MAX);
        machine.enable(
            0,
            &Queue {
                descriptors,
                driver,
                device,
                ..good.clone()
            },
        );
        assert_eq!(
            machine.common(28, 2),
            0,
            "{descriptors:#x} {driver:#x} {device:#x}"
        );
        assert_eq!(machine.status(), 0xb | NEEDS_RESET);
        assert_eq!(machine.sent, [0, 0, 0], "nobody to be told yet");
        machine.set_status(0);
        machine.start(u64::MAX);
        assert_eq!(machine.status(), 0xf);
    }
    // The last one that there can be.
    let mut machine = Machine::off(&config());
    machine.negotiate(u64::MAX);
    machine.enable(
        0,
        &Queue {
            descriptors: u64::MAX - 0xff,
            ..good
        },
    );
    assert_eq!(machine.common(28, 2), 1);
}

#[test]
fn fields_are_written_by_their_own_width_and_read_by_any() {
    let mut machine = Machine::off(&config());
    machine.set_common(8, 1, 1);
    machine.set_common(8, 2, 1);
    machine.set_common(20, 2, 3);
    machine.set_common(20, 4, 3);
    machine.set_common(22, 1, 1);
    machine.set_common(16, 4, 1);
    for (at, value) in [(8, 0), (16, 0x0002_ffff), (20, 0)] {
        assert_eq!(machine.common(at, 4), value, "{at}");
    }
    machine.set_common(22, 2, 0x0102);
    assert_eq!((machine.common(22, 1), machine.common(23, 1)), (2, 1));
    // A 64-bit field in two halves, as vfio would do it for an access of 8 bytes.
    machine.negotiate(u64::MAX);
    machine.set_common(22, 2, 0);
    let address = 0x12_3456_7890u64.to_le_bytes();
    machine.device.function_mut().write_bar(4, 32, &address);
    let mut read = [0; 8];
    machine.device.function_mut().read_bar(4, 32, &mut read);
    assert_eq!(read, address);
}

#[test]
fn accesses_that_no_bus_makes_read_ones_and_write_nothing() {
    let mut machine = Machine::on(&config());
    let before = machine.device.clone();
    for (bar, at, len) in [
        (4, 1u64, 2usize),
        (4, 0, 3),
        (4, 20, 8),
        (4, 0, 16),
        (0, 0, 4),
        (5, 0, 4),
    ] {
        let mut bytes = [0; 16];
        let function = machine.device.function_mut();
        function.write_bar(bar, at, &bytes[..len]);
        function.read_bar(bar, at, &mut bytes[..len]);
        assert!(
            bytes[..len].iter().all(|byte| *byte == 0xff),
            "{bar} {at} {len}"
        );
        assert_eq!(machine.device, before);
    }
    for at in [0x4000, 0x1_0000_0000, u64::MAX - 3] {
        assert_eq!(machine.read((4, 0), at, 4), u32::MAX);
    }
}

#[test]
fn the_window_in_configuration_space_reaches_the_same_registers() {
    let mut machine = Machine::on(&config());
    let window = machine.places.window;
    let aim = |machine: &mut Machine, bar: u8, offset: u32, len: u32| {
        let function = machine.device.function_mut();
        function.write_config(window + 4, &[bar]);
        function.write_config(window + 8, &offset.to_le_bytes());
        function.write_config(window + 12, &len.to_le_bytes());
    };
    aim(&mut machine, 4, 20, 1);
    assert_eq!(read_config(&mut machine.device, window + 16, 1), 0xf);
    assert_eq!(
        read_config(&mut machine.device, window + 16, 4),
        u32::MAX,
        "not of that length"
    );
    aim(&mut machine, 4, 0x2000, 4);
    assert_eq!(read_config(&mut machine.device, window + 16, 4), 2048);
    aim(&mut machine, 4, 22, 2);
    machine
        .device
        .function_mut()
        .write_config(window + 16, &[1, 0]);
    assert_eq!(machine.common(22, 2), 1);
    for (bar, offset, len) in [
        (0, 0, 4),
        (4, 0x4000, 4),
        (4, 1, 2),
        (4, 0, 3),
        (4, 0, 0),
        (255, 0, 1),
    ] {
        aim(&mut machine, bar, offset, len);
        for width in [1, 2, 4] {
            let ones = u32::MAX >> (32 - width * 8);
            assert_eq!(
                read_config(&mut machine.device, window + 16, width as usize),
                ones
            );
        }
        let before = machine.device.clone();
        machine
            .device
            .function_mut()
            .write_config(window + 16, &[0; 4]);
        assert_eq!(machine.device, before);
    }
    aim(&mut machine, 4, 20, 1);
    machine
        .device
        .function_mut()
        .write_config(window + 16, &[0]);
    assert_eq!(machine.status(), 0, "a reset");
}

#[test]
fn without_msix_the_pin_is_asserted_until_the_isr_is_read() {
    let mut machine = Machine::off(&config());
    machine.device = Device::with_gate(&config(), Gate::Registers).unwrap();
    machine.device.function_mut().set_running(true);
    machine.start(u64::MAX);
    machine.device.function_mut().write_config(0x42, &[0, 0]);
    assert!(!machine.device.function().intx_asserted());
    assert_eq!(machine.request(4, 0, &[], false).1, 0);
    assert!(machine.device.function().intx_asserted());
    assert_eq!(read_config(&mut machine.device, 6, 2) & 8, 8);
    machine.device.function_mut().write_config(4, &[6, 4]);
    assert!(!machine.device.function().intx_asserted(), "disabled");
    machine.device.function_mut().write_config(4, &[6, 0]);
    assert!(machine.device.function().intx_asserted());
    assert_eq!(machine.read(machine.places.isr, 0, 1), 1);
    assert!(!machine.device.function().intx_asserted());
    assert_eq!(machine.read(machine.places.isr, 0, 1), 0);
    assert_eq!(machine.sent, [0, 0, 0]);
}

#[test]
fn a_message_without_a_route_waits_for_one() {
    let mut machine = Machine::on(&config());
    machine.device.function_mut().set_route(1, false);
    machine.request(4, 0, &[], false);
    assert_eq!(machine.sent, [0, 0, 0]);
    let pending = machine.read((1, 0x800), 0, 4);
    assert_eq!(pending, 2);
    machine.device.function_mut().set_route(1, true);
    machine.collect();
    assert_eq!(machine.sent, [0, 1, 0]);
    assert!(!machine.device.function().intx_asserted());
}

#[test]
fn nothing_is_served_while_bus_mastering_is_off_and_everything_after() {
    let mut machine = Machine::on(&config());
    machine.master(false);
    let heap = machine.heap;
    machine
        .memory
        .put(heap, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    machine.submit(0, &[(heap, 16, false), (heap + 16, 1, true)], None);
    machine.notify(0);
    let before = machine.memory.accesses;
    machine.serve();
    assert_eq!(machine.memory.accesses, before);
    machine.master(true);
    machine.serve();
    assert!(machine.queues[0].reap(&machine.memory).is_some());
    assert_eq!(machine.sent, [0, 1, 0]);
}

#[test]
fn a_reset_waits_for_the_queues_that_are_out() {
    let mut machine = Machine::on(&config());
    machine.notify(0);
    machine.notify(1);
    let first = machine.device.function_mut().begin().expect("a queue");
    let second = machine.device.function_mut().begin().expect("another");
    assert_ne!(first.queue(), second.queue());
    assert!(machine.device.function_mut().begin().is_none());
    assert!(machine.device.function().state().is_none());
    machine.set_status(0);
    machine.set_status(1);
    let outcome = devices::virtio::Outcome {
        interrupt: true,
        more: true,
        error: None,
    };
    assert_eq!(machine.status(), 0xf, "not complete");
    machine.device.function_mut().finish(first, &outcome);
    assert_eq!(machine.status(), 0xf, "not complete");
    machine.device.function_mut().finish(second, &outcome);
    assert_eq!(machine.status(), 0);
    machine.collect();
    assert_eq!(machine.sent, [0, 0, 0]);
    assert!(machine.device.function_mut().begin().is_none());
    assert!(machine.device.function().is_quiesced());
}

#[test]
fn the_reset_of_a_queue_waits_for_it_to_come_back() {
    let mut machine = Machine::on(&config());
    machine.notify(0);
    let work = machine.device.function_mut().begin().expect("a queue");
    machine.set_common(22, 2, 0);
    machine.set_common(58, 2, 1);
    assert_eq!((machine.common(58, 2), machine.common(28, 2)), (1, 1));
    let outcome = devices::virtio::Outcome {
        interrupt: false,
        more: true,
        error: None,
    };
    machine.device.function_mut().finish(work, &outcome);
    assert_eq!((machine.common(58, 2), machine.common(28, 2)), (0, 0));
    assert!(machine.device.function_mut().begin().is_none());
}

#[test]
fn a_change_of_the_configuration_is_told() {
    let mut machine = Machine::on(&config());
    let generation = machine.common(21, 1);
    machine.device.function_mut().set_config(&[0, 16]);
    machine.collect();
    assert_eq!(machine.sent, [1, 0, 0]);
    assert_ne!(machine.common(21, 1), generation);
    assert_eq!(machine.read(machine.places.device, 0, 4), 4096);
    assert_eq!(machine.read(machine.places.isr, 0, 1), 2);
}

#[test]
fn who_runs_again_looks_at_every_queue_and_signals_every_vector() {
    let mut machine = Machine::on(&config());
    machine.device.function_mut().set_running(false);
    let heap = machine.heap;
    machine
        .memory
        .put(heap, &[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    machine.submit(1, &[(heap, 16, false), (heap + 16, 1, true)], None);
    // A notification in there is served later, and one that was lost as well.
    let before = machine.memory.accesses;
    machine.serve();
    assert_eq!(machine.memory.accesses, before);
    machine.device.function_mut().set_running(true);
    machine.collect();
    assert_eq!(machine.sent, [0, 1, 1]);
    machine.serve();
    assert!(machine.queues[1].reap(&machine.memory).is_some());
    assert_eq!(machine.sent, [0, 1, 2]);
}
