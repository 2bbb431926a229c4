// SPDX-License-Identifier: GPL-2.0

//! DMA logging: which of the guest's memory the device wrote.
//!
//! Device models do no DMA yet, so a report is empty: that is exactly what the device wrote. The log still keeps its ranges
//! and refuses what the user API has no meaning for, because the VFIO core leaves that to drivers.

use kernel::prelude::*;

/// Smallest page the log can be asked to track, in bytes.
const MIN_PAGE: u64 = 4096;

/// A range of I/O virtual addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Range {
    /// The range of `length` bytes from `first`. `EINVAL` when it is empty or wraps.
    pub(crate) fn new(first: u64, length: u64) -> Result<Self> {
        let last = first
            .checked_add(length.checked_sub(1).ok_or(EINVAL)?)
            .ok_or(EINVAL)?;
        Ok(Self { first, last })
    }
}

/// The ranges whose writes are logged, in ascending order and without overlap.
pub(crate) struct DirtyLog {
    ranges: KVec<Range>,
}

impl DirtyLog {
    /// Checks what the user asked for. `EINVAL` for a page size that is not a power of two or below 4 KiB, for no range, and
    /// for a range that is empty or backwards.
    pub(crate) fn new(page_size: u64, ranges: KVec<Range>) -> Result<Self> {
        // The core turns a range without length at address 0 into one of the whole address space, which nobody can ask for.
        let empty = |range: &Range| range.last < range.first || range.last == u64::MAX;
        let backwards = ranges.iter().any(empty);
        if !page_size.is_power_of_two() || page_size < MIN_PAGE || ranges.is_empty() || backwards {
            return Err(EINVAL);
        }
        Ok(Self { ranges })
    }

    /// Whether every byte from `iova` on is logged. `EINVAL` where not, and for an empty range.
    pub(crate) fn covers(&self, iova: u64, length: u64) -> Result {
        let asked = Range::new(iova, length)?;
        let mut next = asked.first;
        for range in &self.ranges {
            if next < range.first {
                break;
            }
            if asked.last <= range.last {
                return Ok(());
            }
            if next <= range.last {
                // Below `asked.last`, so this does not wrap. A range that follows without a gap goes on here.
                next = range.last + 1;
            }
        }
        Err(EINVAL)
    }
}
