// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A driver on other processors goes on adding requests while its queue is served: serving ends, and nothing is forgotten.
//!
//! Calls of a user are what serves: each notification is a call, which serves as long as there is work, at most
//! [`MOST`] turns, one after the other with those of other calls. All of them, and the driver, run in between any two accesses to
//! memory.

use crate::driver::Queue;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::requests::FLUSH;
use devices::blk::{serve_while, Config, Device};
use devices::virtio::{Barrier, Fault, GuestMemory, Turn, COMMON_BAR, NOTIFY_OFFSET};
use proptest::prelude::*;

const SIZE: u16 = 16;

/// The fewest turns of a call that are enough: two for each queue.
const MOST: u32 = 2;

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// It will see whether there is work; so many turns are done.
    Looks(u32),
    /// It waits until no other call serves.
    Waits(u32),
}

struct World {
    device: Device,
    memory: Memory,
    queue: Queue,
    heap: u64,
    numbers: u64,
    calls: Vec<Call>,
    /// Requests still to be added.
    left: u32,
    /// Out of 16 times, how often the driver adds something when it can.
    eagerness: u64,
    /// Whether requests take one place (by a table) or two.
    indirect: bool,
    /// Turns are cut short after so many requests; whoever serves goes on as long as there is work.
    cut: Option<u32>,
    /// Something was added, and whether to notify was not looked up yet.
    owes_a_look: bool,
    added: u32,
    kicks: u32,
    /// Turns that were handed out, and requests done in the present one.
    turns: u32,
    done: u32,
}

impl World {
    fn new(left: u32, eagerness: u64, indirect: bool, numbers: u64) -> (World, Machine) {
        let mut config = Config::new(1);
        config.queue_size = u64::from(SIZE).try_into().unwrap();
        let mut machine = Machine::on(&config);
        let heap = machine.heap;
        machine.memory.put(heap, &FLUSH.to_le_bytes());
        let world = World {
            device: machine.device.clone(),
            memory: machine.memory.clone(),
            queue: machine.queues[0].clone(),
            heap,
            numbers: numbers | 1,
            calls: Vec::new(),
            left,
            eagerness,
            indirect,
            cut: None,
            owes_a_look: false,
            added: 0,
            kicks: 0,
            turns: 0,
            done: 0,
        };
        (world, machine)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.numbers ^= self.numbers >> 12;
        self.numbers ^= self.numbers << 25;
        self.numbers ^= self.numbers >> 27;
        (self.numbers.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % n
    }

    fn add(&mut self) {
        let at = self.heap + 0x100 + u64::from(self.queue.next) * 64;
        let table = self.indirect.then_some(at);
        let buffers = [(self.heap, 16, false), (self.heap + 0x40, 1, true)];
        self.queue.submit(&mut self.memory, &buffers, table);
        self.left -= 1;
        self.added += 1;
        self.owes_a_look = true;
    }

    fn reap(&mut self) {
        while self.queue.reap(&self.memory).is_some() {
            self.done += 1;
        }
    }

    /// What a driver does after it has added something: it notifies, unless it is asked not to.
    fn look(&mut self) {
        self.owes_a_look = false;
        if self.memory.get(self.queue.device + 2, 1) != [1] {
            self.kicks += 1;
            let function = self.device.function_mut();
            function.write_bar(COMMON_BAR, NOTIFY_OFFSET.into(), &[0, 0]);
            self.calls.push(Call::Looks(0));
        }
    }

    /// The driver, on whatever processor, does something or does not.
    fn drive(&mut self) {
        self.reap();
        let needed = if self.indirect { 1 } else { 2 };
        let room = self.left > 0 && self.queue.free >= needed;
        if room && self.below(16) < self.eagerness {
            self.add();
        } else if self.owes_a_look && self.below(2) == 0 {
            self.look();
        }
    }

    /// A call goes on that need not wait.
    fn call(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let index = self.below(self.calls.len() as u64) as usize;
        let most = self.cut.map_or(MOST, |_| u32::MAX);
        match self.calls[index] {
            Call::Looks(turns) if turns < most && self.device.function().has_work() => {
                self.calls[index] = Call::Waits(turns);
            }
            Call::Looks(_) => drop(self.calls.remove(index)),
            Call::Waits(_) => {}
        }
    }

    fn others(&mut self) {
        self.drive();
        if self.below(4) == 0 {
            self.call();
        }
    }

    /// One of those that wait serves.
    fn serve(&mut self, machine: &mut Machine) {
        let waits = |call: &Call| matches!(call, Call::Waits(_));
        let Some(index) = self.calls.iter().position(waits) else {
            return;
        };
        let Call::Waits(turns) = self.calls.remove(index) else {
            unreachable!()
        };
        let Some(mut work) = self.device.function_mut().begin() else {
            return;
        };
        self.reap();
        self.done = 0;
        self.turns += 1;
        let geometry = *self.device.geometry();
        let turn = work.turn();
        let (disk, scratch) = (&mut machine.disk, &mut machine.scratch);
        let most = self.cut.unwrap_or(u32::MAX);
        let mut left = most;
        let outcome = serve_while(&mut work, &geometry, self, disk, scratch, || {
            left -= 1;
            left > 0
        });
        self.reap();
        assert_eq!(outcome.error, None);
        let most = most.min(SIZE.into());
        assert!(self.done <= most, "{} in a turn", self.done);
        assert!(turn == Turn::First || self.cut.is_some() || !outcome.more);
        self.others();
        self.device.function_mut().finish(work, &outcome);
        self.calls.push(Call::Looks(turns + 1));
    }

    /// Until nobody has anything to do.
    fn run(&mut self, machine: &mut Machine) {
        while self.left > 0 || self.owes_a_look || !self.calls.is_empty() {
            let before = (self.left, self.owes_a_look, self.calls.len(), self.turns);
            match self.below(3) {
                0 => self.drive(),
                1 => self.call(),
                _ => self.serve(machine),
            }
            // Nobody waits for a request that nobody will do.
            let after = (self.left, self.owes_a_look, self.calls.len(), self.turns);
            let full = self.queue.free == 0 || (!self.indirect && self.queue.free == 1);
            if before == after && self.calls.is_empty() && !self.owes_a_look && full {
                break;
            }
        }
        self.reap();
    }
}

impl GuestMemory for World {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.others();
        self.memory.read(address, into)?;
        self.others();
        Ok(())
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        self.others();
        self.memory.write(address, from)?;
        self.others();
        Ok(())
    }

    fn barrier(&mut self, _: Barrier) {
        self.others();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_forgotten_and_a_notification_is_worth_two_turns(
        numbers in any::<u64>(),
        left in 1u32..200,
        eagerness in 1u64..=16,
        indirect in any::<bool>(),
    ) {
        let (mut world, mut machine) = World::new(left, eagerness, indirect, numbers);
        world.run(&mut machine);
        prop_assert_eq!((world.left, world.added), (0, left));
        prop_assert!(world.queue.out.is_empty(), "{} were forgotten", world.queue.out.len());
        prop_assert!(world.turns <= 2 * world.kicks, "{} turns, {} notifications", world.turns, world.kicks);
        prop_assert!(!world.device.function().has_work());
    }

    #[test]
    fn nothing_is_forgotten_where_turns_are_cut_short(
        numbers in any::<u64>(),
        left in 1u32..200,
        eagerness in 1u64..=16,
        indirect in any::<bool>(),
        cut in 1u32..20,
    ) {
        let (mut world, mut machine) = World::new(left, eagerness, indirect, numbers);
        world.cut = Some(cut);
        world.run(&mut machine);
        prop_assert_eq!((world.left, world.added), (0, left));
        prop_assert!(world.queue.out.is_empty(), "{} were forgotten", world.queue.out.len());
        prop_assert!(!world.device.function().has_work());
    }
}

/// Adds what there is room for as long as serving looks, and never notifies.
struct Flood<'m> {
    memory: &'m mut Memory,
    queue: &'m mut Queue,
    heap: u64,
    left: u32,
    /// Nothing is added once notifications are wanted again.
    until_asked: bool,
}

impl Flood<'_> {
    fn fill(&mut self) {
        while self.queue.reap(self.memory).is_some() {}
        let asked = self.memory.get(self.queue.device + 2, 1) != [1];
        while self.left > 0 && self.queue.free > 0 && !(asked && self.until_asked) {
            let at = self.heap + 0x100 + u64::from(self.queue.next) * 64;
            let buffers = [(self.heap, 16, false), (self.heap + 0x40, 1, true)];
            self.queue.submit(self.memory, &buffers, Some(at));
            self.left -= 1;
        }
    }
}

impl GuestMemory for Flood<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.fill();
        self.memory.read(address, into)
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        self.memory.write(address, from)?;
        self.fill();
        Ok(())
    }

    fn barrier(&mut self, _: Barrier) {}
}

/// Has a driver notify once and flood the ring; returns how many requests were done.
fn flood(until_asked: bool) -> (u32, usize) {
    let (world, mut machine) = World::new(1, 16, true, 1);
    let (mut memory, mut queue) = (world.memory, world.queue);
    // So that the first access finds the ring full, and silence is asked for.
    let mut flood = Flood {
        memory: &mut memory,
        queue: &mut queue,
        heap: world.heap,
        left: 1000,
        until_asked: false,
    };
    flood.fill();
    flood.until_asked = until_asked;
    machine.notify(0);
    machine.serve_in(&mut flood);
    flood.fill();
    let added = 1000 - flood.left;
    let out = queue.out.len();
    (added - out as u32, out)
}

#[test]
fn a_full_ring_that_nothing_told_of_is_served_to_its_end() {
    // The ring is full, and nobody was notified, when notifications are wanted again.
    assert_eq!(flood(true), (2 * u32::from(SIZE), 0));
}

#[test]
fn a_driver_that_adds_as_fast_as_it_is_served_does_not_keep_a_call() {
    // It would have had to notify for what is in the ring now.
    assert_eq!(flood(false), (2 * u32::from(SIZE), SIZE.into()));
}
