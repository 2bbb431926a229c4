// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A driver's side of a packed ring (virtio 1.2, 2.8.21 and 2.8.22) in memory that the device accesses at the same time.
//!
//! The memory is copied byte by byte, in order. What changes hands does so by a single byte: a chain by the low byte of its first
//! descriptor's flags, which is written last.

use std::collections::HashMap;
use std::sync::atomic::{fence, Ordering};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::vfio::Mapping;

/// Where the memory is for the device.
pub const BASE: u64 = 0x4000_0000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A buffer: offset in the memory, length, and whether the device writes it.
pub type Buffer = (usize, u32, bool);

/// A queue as its driver keeps it.
pub struct Ring {
    memory: Arc<Mapping>,
    /// How many descriptors it has.
    pub size: u16,
    /// Where they are, as offsets in the memory; behind them the two event suppression structures.
    pub descriptors: usize,
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
    free: u16,
    /// Places of each chain that is with the device, by its ID.
    out: HashMap<u16, u16>,
    next_id: u16,
}

impl Ring {
    /// An empty ring.
    pub fn new(memory: &Arc<Mapping>, descriptors: usize, size: u16) -> Self {
        let ring = Self {
            memory: memory.clone(),
            size,
            descriptors,
            next: 0,
            wrap: true,
            used: 0,
            used_wrap: true,
            free: size,
            out: HashMap::new(),
            next_id: 0,
        };
        memory.put(descriptors, &vec![0; ring.length()]);
        ring
    }

    /// Bytes that it takes.
    pub fn length(&self) -> usize {
        usize::from(self.size) * 16 + 8
    }

    /// Where the driver says whether it wants interrupts.
    pub fn driver(&self) -> usize {
        self.descriptors + usize::from(self.size) * 16
    }

    /// Where the device says whether it wants notifications.
    pub fn device(&self) -> usize {
        self.driver() + 4
    }

    /// Places that are free.
    pub fn free(&self) -> u16 {
        self.free
    }

    /// The ID of the chain that was added last.
    pub fn last_id(&self) -> u16 {
        self.next_id.wrapping_sub(1)
    }

    /// Chains that are with the device.
    pub fn out(&self) -> usize {
        self.out.len()
    }

    fn put(&self, at: usize, (offset, length, _): Buffer, id: u16) {
        let mut bytes = (BASE + offset as u64).to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(id.to_le_bytes());
        self.memory.put(at, &bytes);
    }

    fn advance(&mut self) {
        self.next += 1;
        if self.next == self.size {
            self.next = 0;
            self.wrap = !self.wrap;
        }
    }

    /// Makes a chain available; `table` is where its descriptors go if it is to take one place only. Returns its ID.
    pub fn add(&mut self, buffers: &[Buffer], table: Option<usize>) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let first = self.descriptors + usize::from(self.next) * 16;
        let lap = |ring: &Self, flags: u16| flags | if ring.wrap { 0x0080 } else { 0x8000 };
        let places;
        let flags;
        if let Some(table) = table {
            for (index, &buffer) in buffers.iter().enumerate() {
                let at = table + index * 16;
                self.put(at, buffer, 0);
                let write = if buffer.2 { WRITE } else { 0 };
                self.memory.put(at + 14, &write.to_le_bytes());
            }
            self.put(first, (table, buffers.len() as u32 * 16, false), id);
            flags = lap(self, INDIRECT);
            places = 1;
            self.advance();
        } else {
            let mut first_flags = 0;
            for (index, &buffer) in buffers.iter().enumerate() {
                let at = self.descriptors + usize::from(self.next) * 16;
                let more = if index + 1 == buffers.len() { 0 } else { NEXT };
                let write = if buffer.2 { WRITE } else { 0 };
                let all = lap(self, write | more);
                self.put(at, buffer, id);
                match index {
                    0 => first_flags = all,
                    _ => self.memory.put(at + 14, &all.to_le_bytes()),
                }
                self.advance();
            }
            flags = first_flags;
            places = buffers.len() as u16;
        }
        self.out.insert(id, places);
        self.free -= places;
        let [low, high] = flags.to_le_bytes();
        fence(Ordering::Release);
        self.memory.put(first + 15, &[high]);
        fence(Ordering::Release);
        self.memory.put(first + 14, &[low]);
        id
    }

    /// Whether the device wants to be told of what was added.
    pub fn wants_notification(&self) -> bool {
        fence(Ordering::SeqCst);
        self.memory.get(self.device() + 2, 1) != [1]
    }

    /// Takes a completion, if there is one: ID and number of bytes written.
    pub fn take(&mut self) -> Result<Option<(u16, u32)>> {
        let at = self.descriptors + usize::from(self.used) * 16;
        let used = if self.used_wrap { 0x80 } else { 0 };
        if self.memory.get(at + 15, 1)[0] & 0x80 != used
            || self.memory.get(at + 14, 1)[0] & 0x80 != used
        {
            return Ok(None);
        }
        fence(Ordering::Acquire);
        let bytes = self.memory.get(at + 8, 6);
        let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let id = u16::from_le_bytes([bytes[4], bytes[5]]);
        let places = self.out.remove(&id);
        let places = places.with_context(|| format!("chain {id} was not with the device"))?;
        self.used += places;
        self.free += places;
        if self.used >= self.size {
            self.used -= self.size;
            self.used_wrap = !self.used_wrap;
        }
        Ok(Some((id, length)))
    }
}
