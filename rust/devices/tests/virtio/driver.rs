// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A driver's side of a packed ring.

use crate::memory::Memory;
use std::collections::HashMap;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// A buffer: address, length, and whether the device writes it.
pub type Buffer = (u64, u32, bool);

/// A queue as the driver keeps it (virtio 1.2, 2.8.21 and 2.8.22).
#[derive(Clone, Debug)]
pub struct Queue {
    pub size: u16,
    pub descriptors: u64,
    pub driver: u64,
    pub device: u64,
    /// Where the next chain goes, and the lap.
    pub next: u16,
    pub wrap: bool,
    /// Where the next completion comes, and the lap.
    pub used: u16,
    pub used_wrap: bool,
    /// Places that are free.
    pub free: u16,
    /// How many places each chain takes that is with the device.
    pub out: HashMap<u16, u16>,
    pub next_id: u16,
}

impl Queue {
    /// A queue whose three parts lie one behind the other from `at` on.
    pub fn at(at: u64, size: u16) -> Queue {
        let driver = at + u64::from(size) * 16;
        Queue {
            size,
            descriptors: at,
            driver,
            device: driver + 4,
            next: 0,
            wrap: true,
            used: 0,
            used_wrap: true,
            free: size,
            out: HashMap::new(),
            next_id: 0,
        }
    }

    fn flags(&self, more: u16) -> u16 {
        more | if self.wrap { 0x0080 } else { 0x8000 }
    }

    pub fn descriptor(&self, index: u16) -> u64 {
        self.descriptors + u64::from(index) * 16
    }

    fn advance(&mut self) {
        self.next += 1;
        if self.next == self.size {
            self.next = 0;
            self.wrap = !self.wrap;
        }
    }

    /// Everything of a descriptor but its flags.
    fn write(&self, memory: &mut Memory, (address, len, _): Buffer, id: u16) {
        let at = self.descriptor(self.next);
        memory.put(at, &address.to_le_bytes());
        memory.put(at + 8, &len.to_le_bytes());
        memory.put(at + 12, &id.to_le_bytes());
    }

    /// Writes a chain, all but the flags of its first descriptor; returns where they go and what they are.
    pub fn prepare(
        &mut self,
        memory: &mut Memory,
        buffers: &[Buffer],
        table: Option<u64>,
    ) -> (u16, u64, u16) {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(0x101);
        let at = self.descriptor(self.next) + 14;
        if let Some(table) = table {
            for (i, &(address, len, writable)) in (0u64..).zip(buffers) {
                let flags = if writable { WRITE } else { 0 };
                memory.put(table + i * 16, &address.to_le_bytes());
                memory.put(table + i * 16 + 8, &len.to_le_bytes());
                // What is reserved there is of no meaning.
                memory.put(table + i * 16 + 12, &[0xa5, 0x5a]);
                memory.put(table + i * 16 + 14, &(flags | NEXT).to_le_bytes());
            }
            self.write(memory, (table, buffers.len() as u32 * 16, false), id);
            let flags = self.flags(INDIRECT);
            self.advance();
            self.out.insert(id, 1);
            self.free -= 1;
            return (id, at, flags);
        }
        let mut first = 0;
        for (i, &buffer) in buffers.iter().enumerate() {
            let last = i + 1 == buffers.len();
            // Only the last descriptor's ID counts.
            self.write(memory, buffer, if last { id } else { 0xdead });
            let write = if buffer.2 { WRITE } else { 0 };
            let flags = self.flags(write | if last { 0 } else { NEXT });
            match i {
                0 => first = flags,
                _ => memory.put(self.descriptor(self.next) + 14, &flags.to_le_bytes()),
            }
            self.advance();
        }
        let places = buffers.len() as u16;
        self.out.insert(id, places);
        self.free -= places;
        (id, at, first)
    }

    /// Makes a chain available; returns its ID.
    pub fn submit(&mut self, memory: &mut Memory, buffers: &[Buffer], table: Option<u64>) -> u16 {
        let (id, at, flags) = self.prepare(memory, buffers, table);
        memory.put(at, &flags.to_le_bytes());
        id
    }

    /// Whether these flags say that the place was used in this lap.
    pub fn is_used(&self, flags: u16) -> bool {
        let (avail, used) = (flags & 0x0080 != 0, flags & 0x8000 != 0);
        avail == used && used == self.used_wrap
    }

    /// Takes a completion: ID and number of bytes written.
    pub fn reap(&mut self, memory: &Memory) -> Option<(u16, u32)> {
        let at = self.descriptor(self.used);
        if !self.is_used(memory.u16(at + 14)) {
            return None;
        }
        let (id, len) = (memory.u16(at + 12), memory.u32(at + 8));
        let places = self
            .out
            .remove(&id)
            .expect("a chain that is with the device");
        self.used += places;
        self.free += places;
        if self.used >= self.size {
            self.used -= self.size;
            self.used_wrap = !self.used_wrap;
        }
        Some((id, len))
    }
}
