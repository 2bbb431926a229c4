// SPDX-License-Identifier: GPL-2.0

//! The allocation that the VFIO core makes for a device, and what is the driver's in it.

use super::Instance;
use crate::model::Device;
use core::mem::MaybeUninit;
use kernel::sync::{Arc, Completion};
use kernel::types::Opaque;
use vfio_bindings::vfio_device;

/// The part of an allocation that does not depend on the device model.
#[repr(C)]
pub(super) struct Header {
    pub(super) vdev: Opaque<vfio_device>,
    /// Completed when the core has released the device.
    pub(super) released: MaybeUninit<Arc<Completion>>,
    /// Drops what the driver has in the allocation.
    pub(super) drop_instance: unsafe fn(*mut vfio_device),
}

/// The allocation that the VFIO core makes and frees.
///
/// # Invariants
///
/// `vdev` is initialised by the VFIO core, at offset 0, and everything else is initialised from before the device is registered
/// until the core calls `release`.
#[repr(C)]
pub(crate) struct VfioDevice<T: Device> {
    pub(super) header: Header,
    pub(super) instance: MaybeUninit<Arc<Instance<T>>>,
}

impl<T: Device> VfioDevice<T> {
    /// # Safety
    ///
    /// `vdev` must be a device that [`super::ops::Registration::new`] registered with the same `T`, not released during `'a`.
    pub(crate) unsafe fn instance<'a>(vdev: *mut vfio_device) -> &'a Arc<Instance<T>> {
        const {
            assert!(core::mem::offset_of!(Self, header) == 0);
            assert!(core::mem::offset_of!(Header, vdev) == 0);
        };
        // SAFETY: By contract, this is the allocation of a `VfioDevice<T>`; by its invariants the field is initialised.
        unsafe { (*vdev.cast::<Self>()).instance.assume_init_ref() }
    }

    /// # Safety
    ///
    /// `vdev` must be the allocation of a `VfioDevice<T>` whose instance nobody uses any more; to be called once.
    pub(super) unsafe fn drop_instance(vdev: *mut vfio_device) {
        // SAFETY: By contract; the instance is initialised by the type's invariants.
        unsafe { (*vdev.cast::<Self>()).instance.assume_init_drop() };
    }
}

/// `struct vfio_device_ops`, `release`.
///
/// The last reference may be given back after the core has let the driver module go: closing a character device does so. Whoever
/// unregisters the device waits for the completion, and it is completed here, in the library's module, which stays loaded as long
/// as the driver's: so nothing of the driver's code runs when its module may be gone.
///
/// # Safety
///
/// Called by the VFIO core when the last reference to the device is gone.
#[inline(never)]
pub(super) unsafe extern "C" fn release(vdev: *mut vfio_device) {
    let header = vdev.cast::<Header>();
    // SAFETY: The allocation starts with a header, which was initialised before the device could be released.
    let (released, drop_instance) = unsafe {
        (
            (*header).released.assume_init_read(),
            (*header).drop_instance,
        )
    };
    // SAFETY: The function fits the allocation, and nobody uses a device any more that is being released.
    unsafe { drop_instance(vdev) };
    released.complete_all();
}
