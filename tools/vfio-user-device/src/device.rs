// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a device model has to offer to be served.

use std::ops::Range;
use std::os::fd::BorrowedFd;

pub use devices::virtio::{Barrier, Fault, GuestMemory, RingError};
use migration::session::machine::Migratable;
use migration::session::Failure;
use vfio_user_protocol::refusal::errno::{EIO, ENOMEM};
use vfio_user_protocol::Area;

/// Regions that every PCI device reports: six BARs, ROM, configuration space, VGA.
pub const NUM_REGIONS: u32 = 9;
/// The index of configuration space among them.
pub const CONFIG_REGION: u32 = 7;

/// A region.
#[derive(Clone, Copy, Debug, Default)]
pub struct Region<'a> {
    /// Bytes; 0 if the device has no such region.
    pub size: u64,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// What the client can map of it, if there is something: the file, and where the region begins in it.
    pub file: Option<(BorrowedFd<'a>, u64)>,
    /// The parts that can be mapped, if not all of it can.
    pub areas: &'a [Area],
}

/// Which interrupts a device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whether it has an INTx pin.
    pub intx: bool,
    /// Number of MSI vectors, 0 to 32.
    pub msi: u32,
    /// Number of MSI-X vectors, 0 to 64.
    pub msix: u32,
}

/// The error number of a piece of saved state that could not be made: memory, or a device model that breaks the format's limits.
pub const fn errno(failure: Failure) -> u32 {
    match failure {
        Failure::NoMemory => ENOMEM,
        Failure::Record(_) => EIO,
    }
}

/// A device that is emulated: registers in, effects out. Effects (interrupts, a wish to be woken) are asked for after each access,
/// while it runs. Its errors are numbers of Linux.
pub trait Device: Migratable<Error = u32> {
    /// Registers as after power-on. A disk keeps its contents.
    fn reset(&mut self);
    /// What the region of this index is. Does not change.
    fn region(&self, index: u32) -> Region<'_>;
    /// Reads registers. The access is within the region, and one that a bus makes: of 1, 2, 4 or, outside of configuration
    /// space, 8 bytes, at a multiple of its size.
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]);
    /// Writes registers, as [`Device::read`] reads them.
    fn write(&mut self, region: u32, offset: u64, data: &[u8]);
    /// The interrupts that it has. Does not change.
    fn irqs(&self) -> Counts;
    /// Whether the INTx pin is asserted.
    fn intx(&self) -> bool;
    /// MSI vectors that became pending since the last call, a bit each.
    fn take_msi(&mut self) -> u32 {
        0
    }
    /// MSI-X vectors whose message is to be sent now, a bit each: those that became pending, as far as there is somewhere to send them
    /// ([`Device::set_route`]). The others stay pending in the device, and are part of its state.
    fn take_messages(&mut self) -> u64 {
        0
    }
    /// From now on messages of this MSI-X vector lead somewhere, or do not any longer. Nothing is said of those that never did. A
    /// reset changes no route.
    fn set_route(&mut self, vector: u16, leads_somewhere: bool) {
        let _ = (vector, leads_somewhere);
    }
    /// From now on the device may access guest memory, or may not until it is told otherwise: without a client that uses it, in a
    /// peer-to-peer state or stopped, it may not, which is how it starts. A reset does not change it.
    fn set_active(&mut self, active: bool) {
        let _ = active;
    }
    /// Whether there is something to be done with guest memory. Never while it may not access that.
    fn has_work(&self) -> bool {
        false
    }
    /// Does a part of that, and returns in time for whoever waits: what a guest asks for may be without end. What it has begun is
    /// done when this returns, so that a device that does not work is quiet. Says why a ring is served no longer, if that has become so.
    fn work(&mut self, memory: &mut dyn GuestMemory) -> Option<RingError> {
        let _ = memory;
        None
    }
    /// Tells the time, in nanoseconds for which the device has run. It stands still while there is no client, and while the
    /// device is stopped or being loaded.
    fn set_time(&mut self, now_ns: u64) {
        let _ = now_ns;
    }
    /// Nanoseconds from the time last told until the device wants to be told again, if it does.
    fn wake_after_ns(&self) -> Option<u64> {
        None
    }
    /// A register of one byte, by region and offset, whose reading has no effect at any time, if there is one. A monitor that has
    /// raised the device's interrupt takes it back when a register is read.
    fn idle_register(&self) -> Option<(u32, u64)> {
        None
    }
}

/// The accesses that a bus makes of `len` bytes from `offset` on: each the largest that starts at a multiple of its size.
pub fn accesses(region: u32, offset: u64, len: usize) -> impl Iterator<Item = Range<usize>> {
    let widest = if region == CONFIG_REGION { 4 } else { 8 };
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = len.checked_sub(start).filter(|left| *left > 0)?;
        let at = offset.wrapping_add(start as u64);
        // Down to 1, which always fits.
        let fits = |size: &usize| *size <= left && at % *size as u64 == 0;
        let size = [widest, 4, 2, 1].into_iter().find(fits)?;
        let access = start..start + size;
        start = access.end;
        Some(access)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_those_of_a_bus() {
        let lengths = |region, offset, len| {
            let lengths = accesses(region, offset, len).map(|access| access.len());
            lengths.collect::<Vec<usize>>()
        };
        assert_eq!(lengths(0, 0, 8), [8]);
        assert_eq!(lengths(CONFIG_REGION, 0, 8), [4, 4]);
        assert_eq!(lengths(0, 1, 8), [1, 2, 4, 1]);
        assert_eq!(lengths(0, 6, 3), [2, 1]);
        assert_eq!(lengths(CONFIG_REGION, 0, 256), [4; 64]);
        assert!(lengths(0, 5, 0).is_empty());
        for offset in 0..16 {
            for len in 0..40 {
                let mut next = 0;
                for access in accesses(0, offset, len) {
                    assert_eq!(access.start, next);
                    assert_eq!((offset + next as u64) % access.len() as u64, 0);
                    next = access.end;
                }
                assert_eq!(next, len);
            }
        }
    }
}
