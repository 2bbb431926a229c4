// SPDX-License-Identifier: GPL-2.0

//! DMA logging: the callbacks behind `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`, `…_STOP` and `…_REPORT`.
//!
//! C header: `include/linux/vfio.h` (`struct vfio_log_ops`).

use crate::device::allocation::VfioDevice;
use crate::migration::log::{DirtyLog, Range};
use crate::model::Device;
use core::marker::PhantomData;
use kernel::bindings;
use kernel::ffi::{c_int, c_ulong};
use kernel::prelude::*;
use vfio_bindings::vfio_device;

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
