// SPDX-License-Identifier: GPL-2.0

//! DMA logging: which of the guest's memory the device wrote.
//!
//! Device models do no DMA yet, so a report is empty: that is exactly what the device wrote. The log still keeps its ranges
//! and refuses what the user API has no meaning for, because the VFIO core leaves that to drivers.
//!
//! C header: `include/linux/vfio.h` (`struct vfio_log_ops`).

use crate::device::{Device, VfioDevice};
use core::marker::PhantomData;
use kernel::bindings;
use kernel::ffi::{c_int, c_ulong};
use kernel::prelude::*;
use vfio_bindings::vfio_device;

/// Smallest page the log can be asked to track, in bytes.
const MIN_PAGE: u64 = 4096;

/// A range of I/O virtual addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    first: u64,
    last: u64,
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

/// The callbacks of a device model `T`.
pub(crate) struct Callbacks<T>(PhantomData<T>);

impl<T: Device> Callbacks<T> {
    pub(crate) const OPS: vfio_bindings::vfio_log_ops = vfio_bindings::vfio_log_ops {
        log_start: Some(Self::start),
        log_stop: Some(Self::stop),
        log_read_and_clear: Some(Self::report),
    };

    /// # Safety
    ///
    /// Called by the VFIO core on an open device; `root` is a tree of `nodes` ranges.
    unsafe extern "C" fn start(
        vdev: *mut vfio_device,
        root: *mut bindings::rb_root_cached,
        nodes: u32,
        page_size: *mut u64,
    ) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        // SAFETY: The core passes its tree and its number, which nobody else changes during the call.
        let log =
            unsafe { collect(root, nodes).and_then(|ranges| DirtyLog::new(*page_size, ranges)) };
        let mut state = instance.state.lock();
        match log {
            // The core does not remember whether a log is on.
            Ok(_) if state.migration.log.is_some() => EINVAL.to_errno(),
            Ok(log) => {
                state.migration.log = Some(log);
                0
            }
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn stop(vdev: *mut vfio_device) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let log = instance.state.lock().migration.log.take();
        drop(log);
        0
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn report(
        vdev: *mut vfio_device,
        iova: c_ulong,
        length: c_ulong,
        _dirty: *mut bindings::iova_bitmap,
    ) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let state = instance.state.lock();
        let covered = match &state.migration.log {
            Some(log) => log.covers(iova as u64, length as u64),
            None => Err(EINVAL),
        };
        covered.map_or_else(|error| error.to_errno(), |()| 0)
    }
}

/// The ranges of the core's tree.
///
/// # Safety
///
/// `root` must be an interval tree that does not change during the call.
unsafe fn collect(root: *mut bindings::rb_root_cached, nodes: u32) -> Result<KVec<Range>> {
    let mut ranges = KVec::with_capacity(nodes as usize, GFP_KERNEL_ACCOUNT)?;
    // SAFETY: By contract.
    let mut node = unsafe { bindings::interval_tree_iter_first(root, 0, c_ulong::MAX) };
    while !node.is_null() {
        // SAFETY: The tree's nodes are valid.
        let (first, last) = unsafe { ((*node).start as u64, (*node).last as u64) };
        ranges.push(Range { first, last }, GFP_KERNEL_ACCOUNT)?;
        // SAFETY: As above.
        node = unsafe { bindings::interval_tree_iter_next(node, 0, c_ulong::MAX) };
    }
    Ok(ranges)
}
