// SPDX-License-Identifier: GPL-2.0

//! Regions: the parts of a device that a user reads and writes, and where they lie in the device's file.
//!
//! A region's bytes start at its index shifted by [`OFFSET_SHIFT`], as vfio-pci lays them out.
//!
//! C header: `include/uapi/linux/vfio.h`.

use core::ops::Range;
use kernel::prelude::*;

/// Bits of a file offset that count within one region.
pub(crate) const OFFSET_SHIFT: u32 = 40;

/// Number of regions a device reports: those of every PCI device (`VFIO_PCI_NUM_REGIONS`), and the migration region.
pub(crate) const NUM_REGIONS: u32 = MIGRATION_INDEX + 1;

/// The index of the migration region, after those of every PCI device.
pub(crate) const MIGRATION_INDEX: u32 = vfio_bindings::VFIO_PCI_NUM_REGIONS;

/// A region of a PCI device (`VFIO_PCI_*_REGION_INDEX`), or the migration region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    /// A base address register's, 0 to 5.
    Bar(u8),
    /// The expansion ROM.
    Rom,
    /// The configuration space.
    Config,
    /// The legacy VGA ranges.
    Vga,
    /// The migration region of protocol v1, which a device model never sees.
    Migration,
}

impl TryFrom<u32> for Region {
    type Error = Error;

    /// `EINVAL` for a number that is no region.
    fn try_from(index: u32) -> Result<Self> {
        Ok(match index {
            0..=5 => Self::Bar(index as u8),
            vfio_bindings::VFIO_PCI_ROM_REGION_INDEX => Self::Rom,
            vfio_bindings::VFIO_PCI_CONFIG_REGION_INDEX => Self::Config,
            vfio_bindings::VFIO_PCI_VGA_REGION_INDEX => Self::Vga,
            MIGRATION_INDEX => Self::Migration,
            _ => return Err(EINVAL),
        })
    }
}

/// A place in a region, from the offset of a read or write on the device's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The region.
    pub(crate) region: Region,
    /// Bytes from its start.
    pub(crate) offset: u64,
}

impl TryFrom<i64> for Position {
    type Error = Error;

    /// `EINVAL` for a negative offset and for one beyond the last region.
    #[inline]
    fn try_from(offset: i64) -> Result<Self> {
        let offset = u64::try_from(offset).map_err(|_| EINVAL)?;
        let index = u32::try_from(offset >> OFFSET_SHIFT).map_err(|_| EINVAL)?;
        Ok(Self {
            region: Region::try_from(index)?,
            offset: offset & ((1 << OFFSET_SHIFT) - 1),
        })
    }
}

impl Position {
    /// Whether a bus makes an access of `len` bytes here in one: [`accesses`] would not take it apart.
    #[inline]
    pub(crate) fn is_one_access(self, len: usize) -> bool {
        self.region != Region::Migration
            && len.is_power_of_two()
            && len <= widest(self.region)
            && self.offset & (len as u64).wrapping_sub(1) == 0
    }
}

/// The widest access to a region that a bus makes, in bytes.
#[inline]
fn widest(region: Region) -> usize {
    match region {
        Region::Config => 4,
        _ => 8,
    }
}

/// Most bytes that are taken from or to user space at a time. The instance's mutex is free in between.
pub(crate) const CHUNK: usize = 64;

/// How many of the `left` bytes from `offset` on are taken at a time: to the next multiple of [`CHUNK`], so that no access that
/// a bus makes in one is made in two.
pub(crate) fn chunk_len(offset: u64, left: usize) -> usize {
    // Less than CHUNK.
    let into = (offset % CHUNK as u64) as usize;
    left.min(CHUNK - into)
}

/// The accesses that a bus makes of `len` bytes from `offset` on, as ranges of these bytes: each the largest one that starts at
/// a multiple of its size.
pub(crate) fn accesses(
    region: Region,
    offset: u64,
    len: usize,
) -> impl Iterator<Item = Range<usize>> {
    let widest = widest(region);
    let mut start = 0usize;
    core::iter::from_fn(move || {
        let left = len.checked_sub(start).filter(|left| *left > 0)?;
        let at = offset + start as u64;
        let mut size = widest;
        // Down to 1, which always fits.
        while size > left || at & (size as u64).wrapping_sub(1) != 0 {
            size /= 2;
        }
        let access = start..start + size;
        start = access.end;
        Some(access)
    })
}
