// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Guest memory that is copied byte by byte, in any order, while the driver looks and writes in between.

use crate::driver::Queue;
use crate::machine::Machine;
use crate::memory::Memory;
use devices::blk::Config;
use devices::virtio::{Barrier, Fault, GuestMemory};
use proptest::prelude::*;

/// A guest that runs between any two bytes of the device's copies.
struct Torn<'m> {
    memory: Memory,
    guest: Guest<'m>,
    /// In which order bytes are copied.
    order: u64,
}

struct Guest<'m> {
    queue: &'m mut Queue,
    /// Chains still to be made available: where the first descriptor's flags go, what they are, and what is before them.
    prepared: Vec<(u64, u16, Vec<u8>)>,
    /// The byte of the flags that was written last; a processor writes both at once, or one at a time.
    half: Option<(u64, u8)>,
    /// How often it runs before it does something.
    pause: u32,
    patience: u32,
    /// The same after a completion, and between the two bytes of the flags.
    delay: u32,
    done: Vec<(u16, u32)>,
    /// The device is to be notified.
    kick: bool,
}

impl Guest<'_> {
    fn run(&mut self, memory: &mut Memory) {
        while let Some(done) = self.queue.reap(memory) {
            // The answer is there before the completion is.
            let status = memory.get(status_of(done.0), 1)[0];
            assert_eq!((done.1, status), (513, 0), "{done:?}");
            self.done.push(done);
            self.pause = self.delay;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        self.pause = self.patience;
        if let Some((at, byte)) = self.half.take() {
            memory.put(at, &[byte]);
            // It is told unless it says that it looks by itself.
            self.kick |= memory.get(self.queue.device + 2, 1) != [1];
        } else if let Some((at, flags, rest)) = self.prepared.pop() {
            memory.put(at - 14, &rest);
            // The high byte first; the chain becomes available by the second one.
            let [low, high] = flags.to_le_bytes();
            memory.put(at + 1, &[high]);
            self.half = Some((at, low));
            self.pause = self.delay;
        }
    }
}

/// Where the status of the chain with this ID is: the driver's IDs go up by 0x101.
fn status_of(id: u16) -> u64 {
    STATUS + u64::from(id / 0x101) * 16
}

const STATUS: u64 = 0x10_0000;
const HEADERS: u64 = 0x11_0000;
const DATA: u64 = 0x12_0000;

impl Torn<'_> {
    /// The positions of `len` bytes in some order.
    fn positions(&mut self, len: usize) -> Vec<usize> {
        let mut positions: Vec<usize> = (0..len).collect();
        for i in (1..len).rev() {
            self.order = self
                .order
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            positions.swap(i, (self.order >> 33) as usize % (i + 1));
        }
        positions
    }
}

impl GuestMemory for Torn<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        for i in self.positions(into.len()) {
            self.guest.run(&mut self.memory);
            self.memory.read(address + i as u64, &mut into[i..=i])?;
        }
        Ok(())
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        for i in self.positions(from.len()) {
            self.guest.run(&mut self.memory);
            self.memory.write(address + i as u64, &from[i..=i])?;
        }
        self.guest.run(&mut self.memory);
        Ok(())
    }

    fn barrier(&mut self, _: Barrier) {
        self.guest.run(&mut self.memory);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Requests are made available while others are served. Each is done once, its answer is there when
    /// its completion is, and no completion shows that is none.
    #[test]
    fn bytes_are_all_that_changes_hands(
        order in any::<u64>(),
        patience in 0u32..2000,
        delay in 0u32..8,
        indirect in any::<bool>(),
        before in 0usize..3,
        count in 1usize..5,
    ) {
        let mut config = Config::new(1);
        config.queue_size = 16.try_into().unwrap();
        let mut machine = Machine::on(&config);
        let mut memory = std::mem::replace(&mut machine.memory, Memory::new(0));
        let mut queue = machine.queues.remove(0);
        // Some laps before, so that places hold flags of earlier ones, also in the middle of chains.
        let chain = |queue: &mut Queue, memory: &mut Memory, more: u64| {
            let i = u64::from(queue.next) * 32;
            memory.put(HEADERS + i, &[0; 16]);
            let next_id = memory.u16(STATUS + 0xfff0);
            let status = status_of(next_id);
            memory.put(STATUS + 0xfff0, &next_id.wrapping_add(0x101).to_le_bytes());
            memory.put(status, &[0xff]);
            let half = 512 / (more as u32 + 1);
            let data = DATA + i * 64;
            let mut buffers = vec![(HEADERS + i, 16, false)];
            buffers.extend((0..=more).map(|n| (data + n * u64::from(half), half, true)));
            buffers.push((status, 1, true));
            let table = indirect.then_some(DATA + 0x8_0000 + i * 64);
            queue.prepare(memory, &buffers, table)
        };
        for lap in 0..before * 7 {
            let (_, at, flags) = chain(&mut queue, &mut memory, lap as u64 % 2);
            memory.put(at, &flags.to_le_bytes());
            machine.notify(0);
            machine.serve_in(&mut memory);
            prop_assert!(queue.reap(&memory).is_some());
        }
        let mut prepared = Vec::new();
        for i in 0..count {
            let (_, at, flags) = chain(&mut queue, &mut memory, i as u64 % 2);
            // Nothing of it is to be believed before the flags say so.
            prepared.push((at, flags, memory.get(at - 14, 14).to_vec()));
            memory.put(at - 14, &[0xff; 14]);
        }
        prepared.reverse();
        let guest = Guest { queue: &mut queue, prepared, half: None, pause: patience, patience, delay, done: Vec::new(), kick: false, };
        let mut torn = Torn { memory, guest, order };
        let mut idle = 0;
        while torn.guest.done.len() < count {
            let Torn { guest, memory, .. } = &mut torn;
            if core::mem::take(&mut guest.kick) {
                machine.notify(0);
                machine.serve_in(&mut torn);
                idle = 0;
            } else {
                guest.pause = 0;
                guest.run(memory);
                idle += 1;
            }
            prop_assert_eq!(machine.error, None);
            prop_assert!(idle < 20, "a chain was made available, and nobody looks");
        }
        let ids: Vec<u16> = torn.guest.done.iter().map(|done| done.0).collect();
        prop_assert!(ids.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(0x101)), "{:?}", ids);
        prop_assert!(queue.out.is_empty());
    }
}
