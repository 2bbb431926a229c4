// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Laying a configuration space out.
//!
//! The layout is part of the hardware interface: QEMU refuses to load a machine whose function has its
//! capabilities elsewhere. So capabilities lie in the order in which they are added, the first one at
//! 0x40, each aligned to 4 bytes.

use core::fmt;

use super::registers as reg;
use super::registers::{bar, command, status};
use super::space::{ConfigSpace, CONFIG_SPACE_BYTES, MAX_BARS};

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code: base class, subclass and programming interface, 24 bits.
    pub class: u32,
    /// The subsystem's vendor ID.
    pub subsystem_vendor: u16,
    /// The subsystem ID.
    pub subsystem: u16,
}

/// A base address: what it decodes, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// I/O space.
    Io {
        /// Bytes, a power of two of at least 4.
        size: u32,
    },
    /// Memory below 4 GiB.
    Memory32 {
        /// Bytes, a power of two of at least 16.
        size: u32,
        /// Reading has no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; takes the next base address register as well.
    Memory64 {
        /// Bytes, a power of two of at least 16.
        size: u64,
        /// Reading has no side effects.
        prefetchable: bool,
    },
}

impl Bar {
    /// `size` bytes of memory below 4 GiB.
    pub const fn memory32(size: u32) -> Bar {
        Bar::Memory32 {
            size,
            prefetchable: false,
        }
    }

    /// `size` bytes of memory anywhere, of which reading has no side effects.
    pub const fn prefetchable64(size: u64) -> Bar {
        Bar::Memory64 {
            size,
            prefetchable: true,
        }
    }

    /// The number of bytes it decodes.
    pub const fn size(self) -> u64 {
        match self {
            Bar::Io { size } | Bar::Memory32 { size, .. } => size as u64,
            Bar::Memory64 { size, .. } => size,
        }
    }

    /// How many registers it takes.
    const fn registers(self) -> usize {
        match self {
            Bar::Io { .. } | Bar::Memory32 { .. } => 1,
            Bar::Memory64 { .. } => 2,
        }
    }

    /// The bits at its low end that are no address.
    const fn flags(self) -> u32 {
        match self {
            Bar::Io { .. } => bar::IO,
            Bar::Memory32 {
                prefetchable: true, ..
            } => bar::PREFETCHABLE,
            Bar::Memory32 { .. } => 0,
            Bar::Memory64 {
                prefetchable: true, ..
            } => bar::MEMORY_64 | bar::PREFETCHABLE,
            Bar::Memory64 { .. } => bar::MEMORY_64,
        }
    }

    /// What its size cannot be less than, in bytes.
    const fn smallest(self) -> u64 {
        match self {
            Bar::Io { .. } => 4,
            Bar::Memory32 { .. } | Bar::Memory64 { .. } => 16,
        }
    }
}

/// Why a configuration space cannot be laid out so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// There are six base address registers; a 64-bit one takes two.
    NoSuchBar(usize),
    /// The register is taken.
    BarTaken(usize),
    /// A base address decodes a power of two of bytes, 4 at least in I/O space and 16 in memory.
    BarSize(usize),
    /// What a capability points to is not in the BAR.
    OutsideBar(usize),
    /// Two things that a capability points to overlap, or one is not aligned to 8 bytes.
    Overlap,
    /// There is no room for the capability.
    Full,
    /// A capability says of more bytes that they can be written than it has.
    Mask,
    /// There is no function with so many vectors.
    Vectors(u16),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchBar(bar) => write!(f, "there is no BAR {bar}"),
            Self::BarTaken(bar) => write!(f, "BAR {bar} is taken"),
            Self::BarSize(bar) => write!(f, "BAR {bar} has a size that no BAR has"),
            Self::OutsideBar(bar) => write!(f, "a structure is not inside of BAR {bar}"),
            Self::Overlap => f.write_str("two structures overlap, or one is not aligned"),
            Self::Full => f.write_str("configuration space has no room for a capability"),
            Self::Mask => f.write_str("a capability's mask is longer than the capability"),
            Self::Vectors(n) => write!(f, "a function cannot have {n} vectors"),
        }
    }
}

impl core::error::Error for BuildError {}

/// A configuration space that is being laid out.
#[derive(Clone, Debug)]
pub struct Builder {
    space: ConfigSpace,
    /// Where the next capability goes.
    free: u16,
    /// Where the offset of the next capability is to be written.
    pointer: u8,
}

impl Builder {
    /// A function without BARs, capabilities and interrupt pin.
    pub fn new(identity: Identity) -> Builder {
        let mut space = ConfigSpace::empty();
        space.set_u16(reg::VENDOR_ID, identity.vendor);
        space.set_u16(reg::DEVICE_ID, identity.device);
        let [class0, class1, class2, _] = identity.class.to_le_bytes();
        let class = [identity.revision, class0, class1, class2];
        space.set_u32(reg::REVISION, u32::from_le_bytes(class));
        space.set_u16(reg::SUBSYSTEM_VENDOR_ID, identity.subsystem_vendor);
        space.set_u16(reg::SUBSYSTEM_ID, identity.subsystem);
        space.allow(
            reg::COMMAND,
            &(command::MASTER | command::SERR).to_le_bytes(),
        );
        space.allow(reg::INTERRUPT_LINE, &[0xff]);
        Builder {
            space,
            free: u16::from(reg::HEADER_END),
            pointer: reg::CAPABILITIES_POINTER,
        }
    }

    /// The function can interrupt by INTA#.
    pub fn interrupt_pin(&mut self) -> Result<(), BuildError> {
        self.space.set_u8(reg::INTERRUPT_PIN, 1);
        self.space
            .allow(reg::COMMAND, &command::INTX_DISABLE.to_le_bytes());
        Ok(())
    }

    /// The base address register `index` decodes this.
    pub fn bar(&mut self, index: usize, bar: Bar) -> Result<(), BuildError> {
        let end = index.saturating_add(bar.registers());
        if end > MAX_BARS {
            return Err(BuildError::NoSuchBar(index));
        }
        if !bar.size().is_power_of_two() || bar.size() < bar.smallest() {
            return Err(BuildError::BarSize(index));
        }
        if (index..end).any(|at| self.space.bar_uses(at)) {
            return Err(BuildError::BarTaken(index));
        }
        self.space.set_bar(index, bar);
        let at = bar_offset(index);
        self.space.set_u32(at, bar.flags());
        let mask = !(bar.size() - 1);
        self.space.allow(at, &(mask as u32).to_le_bytes());
        let decode = match bar {
            Bar::Io { .. } => command::IO,
            Bar::Memory32 { .. } => command::MEMORY,
            Bar::Memory64 { .. } => {
                let high = (mask >> 32) as u32;
                self.space.allow(bar_offset(index + 1), &high.to_le_bytes());
                command::MEMORY
            }
        };
        self.space.allow(reg::COMMAND, &decode.to_le_bytes());
        Ok(())
    }

    /// Adds a capability: `body` is what follows its first two bytes (identifier and next pointer),
    /// `writable` which of its bits can be written; what that does not reach cannot. Bits that can
    /// be written are zero after reset. Says at which offset the capability lies.
    pub fn capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u8, BuildError> {
        if writable.len() > body.len() {
            return Err(BuildError::Mask);
        }
        let end = usize::from(self.free) + 2 + body.len();
        let at = match u8::try_from(self.free) {
            Ok(at) if end <= usize::from(CONFIG_SPACE_BYTES) => at,
            _ => return Err(BuildError::Full),
        };
        self.space.set_u8(at, id);
        for (i, &byte) in (0u8..).zip(body) {
            self.space
                .set_u8(at.saturating_add(2).saturating_add(i), byte);
        }
        self.space.allow(at.saturating_add(2), writable);
        self.space.clear_writable();
        self.space.set_u8(self.pointer, at);
        self.space.set_u16(reg::STATUS, status::CAPABILITIES);
        self.pointer = at.saturating_add(1);
        // At most 256 + 3.
        self.free = (end.next_multiple_of(4)) as u16;
        Ok(at)
    }

    /// Checks that `len` bytes at `offset` are inside of a BAR.
    pub fn check_inside(&self, index: usize, offset: u32, len: u32) -> Result<(), BuildError> {
        let bar = self.space.bar(index).ok_or(BuildError::NoSuchBar(index))?;
        match u64::from(offset) + u64::from(len) <= bar.size() {
            true => Ok(()),
            false => Err(BuildError::OutsideBar(index)),
        }
    }

    /// The function, as after reset.
    pub fn build(self) -> ConfigSpace {
        self.space
    }
}

/// The offset of a base address register; of the first one if there is none of the index.
pub(super) fn bar_offset(index: usize) -> u8 {
    match u8::try_from(index) {
        Ok(index) if usize::from(index) < MAX_BARS => reg::BAR_0 + index * 4,
        _ => reg::BAR_0,
    }
}
