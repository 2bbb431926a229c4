// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest's memory, and that of a medium.

use devices::blk::{Allocator, Heap, NoSpace};
use devices::virtio::{Barrier, Fault, GuestMemory};

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

/// A medium on the heap.
pub type Blocks = devices::blk::Blocks<Limited>;

/// The heap, for so many blocks more.
#[derive(Clone, Debug)]
pub struct Limited(pub usize);

impl Default for Limited {
    fn default() -> Limited {
        Limited(usize::MAX)
    }
}

impl Allocator for Limited {
    type Block = <Heap as Allocator>::Block;
    type Table = <Heap as Allocator>::Table;

    fn table(&mut self, places: usize) -> Result<Self::Table, NoSpace> {
        Heap.table(places)
    }

    fn block(&mut self) -> Result<Self::Block, NoSpace> {
        self.0 = self.0.checked_sub(1).ok_or(NoSpace)?;
        Heap.block()
    }
}
