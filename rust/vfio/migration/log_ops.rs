// SPDX-License-Identifier: GPL-2.0

//! DMA logging: the callbacks behind `VFIO_DEVICE_FEATURE_DMA_LOGGING_START`, `…_STOP` and `…_REPORT`.
//!
//! C header: `include/linux/vfio.h` (`struct vfio_log_ops`).

use crate::device::allocation::VfioDevice;
use crate::dirty_log::{DirtyLog, Range, PAGE_BYTES, WORDS};
use crate::model::Device;
use core::marker::PhantomData;
use kernel::bindings;
use kernel::ffi::{c_int, c_ulong};
use kernel::prelude::*;
use kernel::sync::Mutex;
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
        let mut current = instance.log.lock();
        match log {
            // The core does not remember whether a log is on.
            Ok(_) if current.is_some() => return EINVAL.to_errno(),
            Ok(log) => *current = Some(log),
            Err(error) => return error.to_errno(),
        }
        // SAFETY: The core passes a variable of its own, for the answer.
        unsafe { *page_size = PAGE_BYTES };
        0
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn stop(vdev: *mut vfio_device) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let log = instance.log.lock().take();
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
        dirty: *mut vfio_bindings::iova_bitmap,
    ) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let reported = Range::new(iova as u64, length as u64).and_then(|asked| {
            // SAFETY: The core passes its bitmap, which is valid during the call, and nothing is held here.
            unsafe { take(&instance.log, asked, dirty) }
        });
        reported.map_or_else(|error| error.to_errno(), |()| 0)
    }
}

/// Takes what was written in a range out of the log, into the user's bitmap. `EINVAL` unless all of it is logged; `ENOMEM`, and nothing
/// was taken then.
///
/// # Safety
///
/// `dirty` must be a bitmap of the core's that is valid during the call. The caller must hold no lock that a page fault waits for.
unsafe fn take(
    log: &Mutex<Option<DirtyLog>>,
    asked: Range,
    dirty: *mut vfio_bindings::iova_bitmap,
) -> Result {
    let mut words = KVec::from_elem(0u64, WORDS, GFP_KERNEL_ACCOUNT)?;
    let words: &mut [u64; WORDS] = words.first_chunk_mut().ok_or(ENOMEM)?;
    let rest = {
        let mut log = log.lock();
        let log = Option::as_mut(&mut log).ok_or(EINVAL)?;
        log.covers(asked)?;
        log.take_rest(asked)
    };
    if let Some(range) = rest {
        // SAFETY: By contract.
        unsafe { set(dirty, range) };
    }
    let mut left = Some(asked);
    while let Some(asked) = left {
        // Without the log's lock, the bits are set: that writes to the user's memory.
        let taken = Option::as_mut(&mut log.lock()).and_then(|log| log.take_chunk(asked, words));
        let Some(taken) = taken else {
            break;
        };
        for range in taken.ranges(words) {
            // SAFETY: By contract.
            unsafe { set(dirty, range) };
        }
        left = asked.after(taken.within);
    }
    Ok(())
}

/// Sets the bits of a range.
///
/// # Safety
///
/// `dirty` must be a valid bitmap, and the caller must hold no lock that a page fault waits for.
#[cfg(CONFIG_IOMMUFD_DRIVER)]
#[inline(never)]
unsafe fn set(dirty: *mut vfio_bindings::iova_bitmap, range: Range) {
    // No range is the whole address space, so its length fits.
    let len = (range.last - range.first + 1) as usize;
    // SAFETY: By contract.
    unsafe { vfio_bindings::iova_bitmap_set(dirty, range.first as c_ulong, len) };
}

/// Such a kernel has no bitmaps, and no log is started there.
///
/// # Safety
///
/// None.
#[cfg(not(CONFIG_IOMMUFD_DRIVER))]
unsafe fn set(_dirty: *mut vfio_bindings::iova_bitmap, _range: Range) {}

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
