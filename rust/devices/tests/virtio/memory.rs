// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest's memory, and a medium.

use devices::blk::{Medium, NoSpace, BLOCK_BYTES};
use devices::virtio::{Barrier, Fault, GuestMemory};
use std::collections::BTreeMap;

/// Where memory starts: nothing is mapped at 0.
pub const BASE: u64 = 0x1_0000;

/// Memory from [`BASE`] on; what is elsewhere faults.
#[derive(Clone, Debug)]
pub struct Memory {
    pub bytes: Vec<u8>,
    /// How many accesses the device made.
    pub accesses: u64,
}

impl Memory {
    pub fn new(len: usize) -> Memory {
        Memory {
            bytes: vec![0; len],
            accesses: 0,
        }
    }

    fn range(&self, address: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= self.bytes.len()).then_some(start..end)
    }

    /// The guest's own read.
    pub fn get(&self, address: u64, len: usize) -> &[u8] {
        let range = self.range(address, len).expect("the guest's own address");
        &self.bytes[range]
    }

    /// The guest's own write.
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        let range = self
            .range(address, bytes.len())
            .expect("the guest's own address");
        self.bytes[range].copy_from_slice(bytes);
    }

    pub fn u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.get(address, 2).try_into().unwrap())
    }

    pub fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.get(address, 4).try_into().unwrap())
    }
}

impl GuestMemory for Memory {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.accesses += 1;
        let range = self.range(address, into.len()).ok_or(Fault)?;
        into.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        self.accesses += 1;
        let range = self.range(address, from.len()).ok_or(Fault)?;
        self.bytes[range].copy_from_slice(from);
        Ok(())
    }

    fn barrier(&mut self, _: Barrier) {}
}

/// A medium that makes blocks as they are written, as long as it may.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    pub blocks: u32,
    pub map: BTreeMap<u32, Vec<u8>>,
    /// How many it may have.
    pub most: usize,
}

impl Blocks {
    pub fn new(blocks: u32) -> Blocks {
        Blocks {
            blocks,
            map: BTreeMap::new(),
            most: usize::MAX,
        }
    }
}

impl Medium for Blocks {
    fn blocks(&self) -> u32 {
        self.blocks
    }

    fn allocated(&self) -> u32 {
        self.map.len() as u32
    }

    fn is_allocated(&self, block: u32) -> bool {
        assert!(block < self.blocks);
        self.map.contains_key(&block)
    }

    fn read(&self, block: u32, at: usize, into: &mut [u8]) {
        assert!(block < self.blocks && at + into.len() <= BLOCK_BYTES);
        match self.map.get(&block) {
            Some(bytes) => into.copy_from_slice(&bytes[at..at + into.len()]),
            None => into.fill(0),
        }
    }

    fn write(&mut self, block: u32, at: usize, from: &[u8]) -> Result<(), NoSpace> {
        assert!(block < self.blocks && at + from.len() <= BLOCK_BYTES);
        if !self.map.contains_key(&block) && self.map.len() >= self.most {
            return Err(NoSpace);
        }
        let bytes = self
            .map
            .entry(block)
            .or_insert_with(|| vec![0; BLOCK_BYTES]);
        bytes[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn free(&mut self, block: u32) {
        assert!(block < self.blocks);
        self.map.remove(&block);
    }
}
