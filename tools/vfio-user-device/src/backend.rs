// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What is behind the socket.

use std::os::fd::OwnedFd;

use vfio_user_protocol::feature::Feature;
use vfio_user_protocol::request::SetIrqs;
use vfio_user_protocol::{Access, DmaMap, DmaUnmap, Limits, Progress};

use crate::device::Region;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// `GET_INFO`: what it is and can.
    pub flags: u32,
    /// Number of region indices.
    pub regions: u32,
    /// Number of interrupt indices.
    pub irqs: u32,
}

impl Info {
    /// It can be reset.
    pub const RESET: u32 = 1;
    /// It is a PCI device.
    pub const PCI: u32 = 2;
}

/// How many interrupts there are under an index, and what can be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqInfo {
    /// `GET_IRQ_INFO`: the flags.
    pub flags: u32,
    /// How many.
    pub count: u32,
}

/// A device as the protocol sees it: whatever carries out what a client asks for. Its errors are numbers of Linux.
pub trait Backend {
    /// Somebody has connected.
    fn connected(&mut self, system_ns: u64);
    /// Whoever has connected speaks the protocol, and uses the device from now on. An error ends the connection.
    fn claim(&mut self) -> Result<(), u32>;
    /// The client is gone, and with it whatever it had set up.
    fn disconnected(&mut self, system_ns: u64);
    /// Time has passed.
    fn tell_time(&mut self, system_ns: u64);
    /// Brings what the device asserts to the client.
    fn settle(&mut self);
    /// Nanoseconds until the device wants to be told the time, if it does.
    fn wake_after_ns(&self, system_ns: u64) -> Option<u64>;
    /// Whether there is something that it does by itself, such as serving what a guest has left in memory.
    fn has_work(&self) -> bool {
        false
    }
    /// Does a part of that, which takes a few milliseconds at most unless the client's memory is slow. Says what people should know.
    fn work(&mut self) -> Option<String> {
        None
    }
    /// The reason of the last refusal, if there is one that was not told yet.
    fn take_refusal(&mut self) -> Option<&str>;
    /// How a migration goes on, whoever does it.
    fn progress(&self) -> Progress;
    /// Why migrating was refused last; empty if it was not.
    fn last_refusal(&self) -> &str;

    /// What the device is. Does not change while it has a client.
    fn info(&self) -> Info;
    /// What the region of this index is; one without bytes if there is none. Does not change while the device has a client.
    fn region(&self, index: u32) -> Region<'_>;
    /// What the interrupts of this index are. Does not change while the device has a client.
    fn irq(&self, index: u32) -> Option<IrqInfo>;
    /// How interrupts are told.
    fn set_irqs(&mut self, irqs: &SetIrqs<'_>, fds: Vec<OwnedFd>) -> Result<(), u32>;
    /// The device may reach memory.
    fn dma_map(&mut self, map: &DmaMap, fd: Option<OwnedFd>) -> Result<(), u32>;
    /// It may no longer.
    fn dma_unmap(&mut self, unmap: &DmaUnmap) -> Result<(), u32>;
    /// Reads registers, which are within their region.
    fn read(&mut self, access: &Access, data: &mut [u8]) -> Result<(), u32>;
    /// Writes registers, which are within their region.
    fn write(&mut self, access: &Access, data: &[u8]) -> Result<(), u32>;
    /// Registers as after power-on. A disk keeps its contents.
    fn reset(&mut self, system_ns: u64) -> Result<(), u32>;

    /// Carries out what is asked of a feature, and gives the data that the reply has in the place of the request's.
    fn feature(
        &mut self,
        feature: &Feature<'_>,
        limits: &Limits,
        system_ns: u64,
    ) -> Result<Option<Vec<u8>>, u32>;
    /// The next bytes of saved state: as many as there are, up to `most`. None at the end, and while there are none of a device
    /// that still runs: an error would end the client's migration.
    fn saved(&mut self, most: usize) -> Result<Vec<u8>, u32>;
    /// Takes the next bytes of a state to load.
    fn load(&mut self, bytes: &[u8]) -> Result<(), u32>;
    /// Bytes that are left of pre-copy: from its beginning, and changed since.
    fn precopy_left(&self) -> Result<(u64, u64), u32>;
}
