// SPDX-License-Identifier: GPL-2.0 OR MIT

//! When a device may access the guest's memory, and what it does there.
//!
//! The states in which it may are the driver's. Beside that it takes a client that uses the device, which has given it memory, and has
//! accessed registers or set interrupts up. Somebody who takes over a device that is at work begins by saying where memory is; the
//! device must not look before, and never for somebody who only saves or loads it.

use std::sync::atomic::{fence, Ordering};

use super::log::WriteLog;
use super::Model;
use crate::device::{Barrier, Device, Fault, GuestMemory, RingError};
use crate::memory::Memory;

impl<D: Device> Model<'_, D> {
    /// The client uses the device.
    pub(super) fn take_up(&mut self) {
        if !self.is_used {
            self.is_used = true;
            self.tell_active();
        }
    }

    /// Tells the device when it may access memory, and when not any longer.
    pub(super) fn tell_active(&mut self) {
        let is_served = self.is_used && !self.memory.is_empty();
        let may = is_served && self.migration.machine.state().may_access_memory();
        if may != self.is_active {
            self.is_active = may;
            self.device.set_active(may);
        }
    }

    /// Has the device do a part of what there is to be done. Says why a ring is served no longer.
    pub(super) fn serve_memory(&mut self) -> Option<RingError> {
        self.device.work(&mut Reach {
            memory: &mut self.memory,
            log: self.migration.log.as_mut(),
        })
    }
}

/// The guest's memory, as a device reaches it; what is written there is logged.
struct Reach<'m> {
    memory: &'m mut Memory,
    log: Option<&'m mut WriteLog>,
}

impl GuestMemory for Reach<'_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.memory.read(address, into).map_err(|_| Fault)
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        let written = self.memory.write(address, from);
        // No more than that: a guest has requests go wherever it likes, and what is nowhere is not to use up the log.
        if let Some(log) = &mut self.log {
            log.mark(address, written);
        }
        match written == from.len() {
            true => Ok(()),
            false => Err(Fault),
        }
    }

    fn barrier(&mut self, barrier: Barrier) {
        fence(match barrier {
            Barrier::Read => Ordering::Acquire,
            Barrier::Write => Ordering::Release,
            Barrier::Full => Ordering::SeqCst,
        });
    }
}
