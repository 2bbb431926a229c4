// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Guest memory, as the embedder provides it.

use core::fmt;

/// Guest memory could not be read or written there: nothing is mapped, or it may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("guest memory could not be accessed")
    }
}

impl core::error::Error for Fault {}

/// What is ordered against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Reads before against reads after.
    Read,
    /// Writes before against writes after.
    Write,
    /// Everything before against everything after.
    Full,
}

/// The guest's memory, by the addresses that the device uses for DMA.
///
/// Bytes are copied; nothing here ever refers to guest memory, which can change at any time. No byte
/// has to be copied together with another one: a device here only relies on single bytes being
/// whole, and on the [barriers](GuestMemory::barrier).
///
/// Who asks never asks for more than the buffer that it was lent, nor past the end of the address space.
pub trait GuestMemory {
    /// Copies from the guest. On an error `into` can hold anything.
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault>;

    /// Copies to the guest. On an error any part can have been written.
    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault>;

    /// Orders accesses before against those after, as the guest's processors see them.
    fn barrier(&mut self, barrier: Barrier);
}

impl<M: GuestMemory + ?Sized> GuestMemory for &mut M {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        (**self).read(address, into)
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        (**self).write(address, from)
    }

    fn barrier(&mut self, barrier: Barrier) {
        (**self).barrier(barrier)
    }
}
