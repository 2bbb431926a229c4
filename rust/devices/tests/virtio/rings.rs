// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Rings: laps, chains, tables, suppression, and what is no ring.

use crate::driver::{Buffer, INDIRECT, NEXT, WRITE};
use crate::machine::*;
use devices::blk::Config;
use devices::virtio::{features, RingError};

fn config(size: u64) -> Config {
    let mut config = Config::new(1);
    config.queue_size = size.try_into().unwrap();
    config
}

#[test]
fn rings_go_round_many_times_with_chains_and_tables() {
    for indirect in [false, true] {
        let mut machine = Machine::on(&config(16));
        for lap in 0..100u32 {
            let data = machine.data();
            let buffers: Vec<Buffer> = (0..1 + u64::from(lap) % 7)
                .map(|i| (data + i * 512, 512, true))
                .collect();
            let (len, status) = machine.request(0, u64::from(lap), &buffers, indirect);
            assert_eq!((len, status), (buffers.len() as u32 * 512 + 1, 0), "{lap}");
        }
        let queue = &machine.queues[0];
        assert_eq!((queue.next, queue.wrap), (queue.used, queue.used_wrap));
        assert_eq!(machine.error, None);
    }
}

#[test]
fn one_interrupt_tells_of_all_that_a_notification_started() {
    let mut machine = Machine::on(&config(16));
    let heap = machine.heap;
    for i in 0..5 {
        let at = heap + i * 32;
        machine.memory.put(at, &4u32.to_le_bytes());
        machine.submit(0, &[(at, 16, false), (at + 16, 1, true)], None);
    }
    machine.notify(0);
    machine.serve();
    assert_eq!(machine.sent, [0, 1]);
    for _ in 0..5 {
        assert!(machine.queues[0].reap(&machine.memory).is_some());
    }
}

#[test]
fn a_driver_that_wants_no_interrupts_gets_none() {
    let mut machine = Machine::on(&config(16));
    let driver = machine.queues[0].driver;
    machine.memory.put(driver + 2, &[1, 0]);
    machine.request(4, 0, &[], false);
    assert_eq!(machine.sent, [0, 0]);
    // What it cannot have asked for, since it was not offered, is no wish for silence.
    for (flags, sent) in [(0, 1), (2, 2), (3, 3)] {
        machine.memory.put(driver + 2, &[flags, 0]);
        machine.request(4, 0, &[], false);
        assert_eq!(machine.sent, [0, sent], "{flags}");
    }
}

#[test]
fn notifications_are_wanted_again_when_the_ring_is_empty() {
    let mut machine = Machine::on(&config(16));
    let device = machine.queues[0].device;
    machine.memory.put(device, &[0xaa, 0xbb, 0xcc, 0xdd]);
    machine.request(4, 0, &[], false);
    assert_eq!(machine.memory.get(device, 4), [0xaa, 0xbb, 0, 0xdd]);
}

/// A machine in which these bytes are the first descriptors of the ring.
fn with(descriptors: &[(u64, u32, u16)]) -> Machine {
    with_features(descriptors, u64::MAX)
}

fn with_features(descriptors: &[(u64, u32, u16)], features: u64) -> Machine {
    let mut machine = Machine::off(&config(16));
    machine.start(features);
    let heap = machine.heap;
    machine.memory.put(heap, &4u32.to_le_bytes());
    let ring = machine.queues[0].descriptors;
    for (i, &(address, len, flags)) in (0u64..).zip(descriptors) {
        let at = ring + i * 16;
        // Small addresses are in the heap.
        let address = if address < 0x1000 {
            heap + address
        } else {
            address
        };
        machine.memory.put(at, &address.to_le_bytes());
        machine.memory.put(at + 8, &len.to_le_bytes());
        machine.memory.put(at + 12, &7u16.to_le_bytes());
        machine.memory.put(at + 14, &(flags | 0x80).to_le_bytes());
    }
    machine
}

/// Serves it; says what was wrong with the ring, and checks that only a reset helps.
fn error(mut machine: Machine) -> Option<RingError> {
    machine.notify(0);
    machine.serve();
    let error = machine.error;
    if error.is_some() {
        assert_eq!(machine.status(), 0xf | NEEDS_RESET);
        assert_eq!(machine.sent[0], 1, "told");
        let before = machine.memory.accesses;
        machine.notify(0);
        machine.serve();
        assert_eq!(machine.memory.accesses, before, "not served");
        machine.set_status(0);
        machine.start(u64::MAX);
        assert_eq!(machine.request(4, 0, &[], true), (1, 0));
    }
    error
}

#[test]
fn rings_that_make_no_sense_need_a_reset() {
    let header = (0, 16, NEXT);
    let status = (0x20, 1, WRITE);
    assert_eq!(error(with(&[header, status])), None);
    assert_eq!(
        error(with(&[(0, 0, NEXT), status])),
        Some(RingError::EmptyBuffer)
    );
    assert_eq!(
        error(with(&[header, (0x20, 0, WRITE)])),
        Some(RingError::EmptyBuffer)
    );
    assert_eq!(
        error(with(&[(u64::MAX - 14, 16, NEXT), status])),
        Some(RingError::AddressOverflow)
    );
    // The last bytes that there are can be named; there is no memory.
    assert_eq!(
        error(with(&[(u64::MAX - 15, 16, NEXT), status])),
        Some(RingError::Fault)
    );
    assert_eq!(
        error(with(&[(0x20, 1, WRITE | NEXT), (0, 16, 0)])),
        Some(RingError::ReadableAfterWritable)
    );
    assert_eq!(
        error(with(&[header, (0x40, 16, INDIRECT)])),
        Some(RingError::IndirectInChain)
    );
    assert_eq!(
        error(with(&[(0x40, 16, INDIRECT | NEXT), status])),
        Some(RingError::IndirectInChain)
    );
    assert_eq!(
        error(with(&[(0x9000_0000, 16, INDIRECT)])),
        Some(RingError::Fault)
    );
    assert_eq!(
        error(with(&[(u64::MAX - 14, 16, INDIRECT)])),
        Some(RingError::AddressOverflow)
    );
    for len in [0, 8, 17, 129 * 16, u32::MAX, 0x8000_0000] {
        let found = error(with(&[(0x40, len, INDIRECT)]));
        assert_eq!(found, Some(RingError::TableLength(len)));
    }
    let none = !features::INDIRECT_DESC;
    assert_eq!(
        error(with_features(&[(0x40, 16, INDIRECT)], none)),
        Some(RingError::IndirectNotNegotiated)
    );
    // The chain bites its tail: all sixteen places go on.
    assert_eq!(error(with(&[header; 16])), Some(RingError::ChainTooLong));
}

#[test]
fn a_table_in_a_table_needs_a_reset() {
    let mut machine = with(&[(0x40, 32, INDIRECT)]);
    let table = machine.heap + 0x40;
    machine.memory.put(table, &(table + 0x100).to_le_bytes());
    machine.memory.put(table + 8, &16u32.to_le_bytes());
    machine.memory.put(table + 14, &INDIRECT.to_le_bytes());
    assert_eq!(error(machine), Some(RingError::IndirectInTable));
}

#[test]
fn chains_without_header_or_status_need_a_reset() {
    let is_request = |found| matches!(found, Some(RingError::Request(_)));
    assert!(is_request(error(with(&[(0, 16, 0)]))));
    assert!(is_request(error(with(&[(0x20, 1, WRITE)]))));
    assert!(is_request(error(with(&[(0, 15, NEXT), (0x20, 1, WRITE)]))));
}

#[test]
fn a_ring_that_is_not_there_needs_a_reset() {
    for part in 0..3 {
        let mut machine = Machine::off(&config(16));
        machine.master(true);
        machine.negotiate(u64::MAX);
        machine.set_common(16, 2, 0);
        let mut queue = crate::driver::Queue::at(machine.heap, 16);
        let nowhere = 0x7fff_ffff_0000;
        match part {
            0 => queue.descriptors = nowhere,
            1 => queue.driver = nowhere,
            _ => queue.device = nowhere,
        }
        machine.enable(0, &queue);
        machine.set_status(0xf);
        machine.heap += 0x1000;
        let heap = machine.heap;
        machine.memory.put(heap, &4u32.to_le_bytes());
        if part > 0 {
            queue.submit(
                &mut machine.memory,
                &[(heap, 16, false), (heap + 16, 1, true)],
                None,
            );
        }
        assert_eq!(error(machine), Some(RingError::Fault), "{part}");
    }
}
