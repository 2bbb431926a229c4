// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Rings full of anything: bounded work, no panic, and a reset recovers.
//!
//! `HOSTILE_RINGS` says how many; a million unless it does.

use crate::machine::*;
use crate::memory::BASE;
use crate::requests::{FLUSH, OK};
use devices::blk::{Config, MAX_REQUEST_BYTES};
use devices::virtio::{Barrier, Fault, GuestMemory};

/// A generator of numbers (xorshift64*), the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 32) % n
    }

    fn one_of<const N: usize>(&mut self, values: [u64; N]) -> u64 {
        values[self.below(N as u64) as usize]
    }
}

/// Memory that changes while it is read.
struct Changing<'m> {
    machine_memory: &'m mut crate::memory::Memory,
    numbers: &'m mut Numbers,
    ring: u64,
    bytes: u64,
}

impl GuestMemory for Changing<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        assert!(address.checked_add(into.len() as u64 - 1).is_some());
        self.bytes += into.len() as u64;
        if self.numbers.below(8) == 0 {
            let at = self.ring + self.numbers.below(0x1800);
            let byte = [self.numbers.next() as u8];
            self.machine_memory.put(at, &byte);
        }
        self.machine_memory.read(address, into)
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        assert!(address.checked_add(from.len() as u64 - 1).is_some());
        self.bytes += from.len() as u64;
        self.machine_memory.write(address, from)
    }

    fn barrier(&mut self, _: Barrier) {}
}

/// A descriptor of which a part makes sense.
fn descriptor(numbers: &mut Numbers, heap: u64) -> [u8; 16] {
    let place = heap + numbers.below(0x100) * 16;
    let address = numbers.one_of([
        place,
        place,
        place,
        place + 1,
        BASE - 1,
        0,
        u64::MAX - 7,
        numbers.0,
    ]);
    let len = numbers.one_of([16, 16, 1, 512, 32, 4096, 0, 0xffff_ffff, 17, 65536]);
    let flags = numbers.below(8) | numbers.one_of([0x80, 0x80, 0x80, 0x8000, 0x8080, 0]);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    bytes[12..14].copy_from_slice(&(numbers.next() as u16).to_le_bytes());
    bytes[14..].copy_from_slice(&(flags as u16).to_le_bytes());
    bytes
}

/// Chains as a driver makes them, and then a few bytes of them that are others.
fn nearly_good(machine: &mut Machine, numbers: &mut Numbers) {
    let (at, heap) = (machine.queues[0].descriptors, machine.heap);
    machine.memory.put(at, &[0; 16 * 16]);
    for _ in 0..1 + numbers.below(3) {
        let mut buffers = vec![(heap + numbers.below(0x40) * 64, 16, false)];
        let writable = numbers.below(2) == 0;
        for _ in 0..numbers.below(3) {
            let len = numbers.one_of([512, 512, 1024, 16, 20]);
            buffers.push((heap + numbers.below(0x100) * 16, len as u32, writable));
        }
        buffers.push((heap + 0x1800, 1, true));
        let table = (numbers.below(2) == 0).then_some(heap + 0x2000 + numbers.below(0x10) * 128);
        machine.submit(0, &buffers, table);
    }
    for _ in 0..numbers.below(3) {
        let byte = [numbers.next() as u8];
        let place = numbers.one_of([at, heap, heap + 0x2000]) + numbers.below(0x100);
        machine.memory.put(place, &byte);
    }
}

#[test]
fn random_rings_are_bounded_and_a_reset_recovers() {
    let rings: u64 = match std::env::var("HOSTILE_RINGS") {
        Ok(text) => text.parse().expect("HOSTILE_RINGS is a number"),
        Err(_) => 1_000_000,
    };
    let mut config = Config::new(1);
    config.queue_size = 16.try_into().unwrap();
    config.write_zeroes = true;
    let mut machine = Machine::on(&config);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut broken, mut answered) = (0u64, 0u64);
    for ring in 0..rings {
        machine.set_status(0);
        machine.start(u64::MAX);
        machine.error = None;
        let (at, heap) = (machine.queues[0].descriptors, machine.heap);
        for i in 0..16 {
            let bytes = descriptor(&mut numbers, heap);
            machine.memory.put(at + i * 16, &bytes);
        }
        // Tables and headers.
        for i in 0..0x100 {
            let mut bytes = descriptor(&mut numbers, heap);
            if i % 4 == 0 {
                let kind = numbers.one_of([0, 1, 4, 8, 11, 13, 5]);
                bytes[..8].copy_from_slice(&kind.to_le_bytes());
                let sector = numbers.one_of([0, 1, 2047, 2048, u64::MAX]);
                bytes[8..].copy_from_slice(&sector.to_le_bytes());
            }
            machine.memory.put(heap + i * 16, &bytes);
        }
        if ring % 2 == 0 {
            nearly_good(&mut machine, &mut numbers);
        }
        machine.notify(0);
        let mut memory = std::mem::replace(&mut machine.memory, crate::memory::Memory::new(0));
        memory.accesses = 0;
        let mut changing = Changing {
            machine_memory: &mut memory,
            numbers: &mut numbers,
            ring: at,
            bytes: 0,
        };
        let geometry = *machine.device.geometry();
        // A ring that the guest keeps filling is given up by the guest, not by us.
        for _ in 0..4 {
            let Some(mut work) = machine.device.function_mut().begin() else {
                break;
            };
            let before = changing.bytes;
            let outcome = devices::blk::serve(
                &mut work,
                &geometry,
                &mut changing,
                &mut machine.disk,
                &mut machine.scratch,
            );
            let bound = 16 * (MAX_REQUEST_BYTES + 8192);
            assert!(changing.bytes - before <= bound, "ring {ring}");
            answered += u64::from(outcome.interrupt);
            machine.error = machine.error.or(outcome.error);
            machine.device.function_mut().finish(work, &outcome);
        }
        let accesses = memory.accesses;
        machine.memory = memory;
        assert!(accesses < 4 * 16 * 5000, "ring {ring}: {accesses} accesses");
        let stopped = machine.status() & NEEDS_RESET != 0;
        assert_eq!(stopped, machine.error.is_some(), "ring {ring}");
        broken += u64::from(stopped);
        if ring % 16 == 0 {
            machine.set_status(0);
            machine.start(u64::MAX);
            assert_eq!(machine.request(FLUSH, 0, &[], true), (1, OK), "ring {ring}");
        }
    }
    // Both kinds of ring are among them, so that both ends are reached.
    assert!(broken > rings / 4, "{broken} of {rings}");
    assert!(answered > rings / 100, "{answered} of {rings}");
}
