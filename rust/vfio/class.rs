// SPDX-License-Identifier: GPL-2.0

//! A device class of a driver's own, and virtual devices in it, for mdev parents that have no hardware.
//!
//! The mdev core names type directories after the parent's driver, bus or class. A device in a class named after the driver
//! gives `mdev_serial-1` and so on.
//!
//! C header: `include/linux/device/class.h`.

use core::ptr::NonNull;
use kernel::bindings;
use kernel::container_of;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::sync::{Arc, Completion};
use kernel::types::Opaque;

/// A class under `/sys/class`, removed when dropped.
///
/// # Invariants
///
/// The pointer is a class that `class_create()` returned and that is not destroyed yet.
pub struct Class(NonNull<bindings::class>);

// SAFETY: A class may be used and destroyed from any thread.
unsafe impl Send for Class {}
// SAFETY: As above; the driver core does its own locking.
unsafe impl Sync for Class {}

impl Class {
    /// Creates `/sys/class/<name>`. `EEXIST` when there is one already.
    pub fn new(name: &'static CStr) -> Result<Arc<Self>> {
        // SAFETY: The name is a NUL-terminated string that lives for ever.
        let class = from_err_ptr(unsafe { bindings::class_create(name.as_char_ptr()) })?;
        // INVARIANT: Just created, and destroyed only in `drop`.
        Ok(Arc::new(
            Self(NonNull::new(class).ok_or(ENOMEM)?),
            GFP_KERNEL,
        )?)
    }
}

impl Drop for Class {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; every device in the class holds a reference to this value and is gone.
        unsafe { bindings::class_destroy(self.0.as_ptr()) };
    }
}

/// A virtual device in a [`Class`], removed when dropped.
///
/// Dropping it waits until nobody refers to the device any more, so that what its other users need can be freed after it: the mdev
/// core keeps a reference to the parent for each of its types, until it has done with the type.
///
/// # Invariants
///
/// The device is registered.
pub struct ClassDevice(Pin<KBox<Inner>>);

/// The memory of a device.
///
/// # Invariants
///
/// `dev` is initialized, one reference to it belongs to this value, and its release function is [`released`].
#[pin_data(PinnedDrop)]
struct Inner {
    #[pin]
    dev: Opaque<bindings::device>,
    #[pin]
    released: Completion,
    // Dropped after the device has been released.
    class: Arc<Class>,
}

// SAFETY: A device may be used and unregistered from any thread.
unsafe impl Send for Inner {}
// SAFETY: As above; the driver core does its own locking.
unsafe impl Sync for Inner {}

impl ClassDevice {
    /// Creates `/sys/devices/virtual/<class>/<name>`. `EEXIST` when there is one already.
    pub fn new(class: Arc<Class>, name: &CStr) -> Result<Self> {
        let parent_class = class.0.as_ptr();
        let inner = KBox::pin_init(
            // INVARIANT: Initialized here, which gives the first reference.
            pin_init!(Inner {
                dev <- Opaque::ffi_init(|slot: *mut bindings::device| {
                    let device = bindings::device {
                        class: parent_class,
                        release: Some(released),
                        ..pin_init::zeroed()
                    };
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(device) };
                    // SAFETY: `slot` is pinned; every field that must be set before is.
                    unsafe { bindings::device_initialize(slot) };
                }),
                released <- Completion::new(),
                class,
            }),
            GFP_KERNEL,
        )?;
        let dev = inner.dev.get();
        // SAFETY: The device is initialized; the format and its one string argument are NUL-terminated.
        to_result(unsafe { bindings::dev_set_name(dev, c"%s".as_char_ptr(), name.as_char_ptr()) })?;
        // SAFETY: The device is initialized and has a name, and its class is registered.
        to_result(unsafe { bindings::device_add(dev) })?;
        // INVARIANT: Just registered, and unregistered only in `drop`.
        Ok(Self(inner))
    }

    /// Tells user space that what the device offers has changed.
    pub(crate) fn announce_change(&self) {
        // SAFETY: The device is registered. Failing to send an event is no failure of the device's.
        unsafe {
            bindings::kobject_uevent(
                &raw mut (*self.as_raw()).kobj,
                bindings::kobject_action_KOBJ_CHANGE,
            )
        };
    }

    /// The C device, valid for as long as this value.
    pub(crate) fn as_raw(&self) -> *mut bindings::device {
        self.0.dev.get()
    }
}

impl Drop for ClassDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the device is registered.
        unsafe { bindings::device_del(self.as_raw()) };
    }
}

#[pinned_drop]
impl PinnedDrop for Inner {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant, the device is initialized and this reference is ours.
        unsafe { bindings::put_device(self.dev.get()) };
        self.released.wait_for_completion();
    }
}

/// # Safety
///
/// Called by the driver core on the device of an [`Inner`], when nobody refers to it any more.
unsafe extern "C" fn released(dev: *mut bindings::device) {
    // SAFETY: By contract; `Inner` goes away only after it was told here, and the driver core has done with the device.
    let inner = unsafe { &*container_of!(Opaque::cast_from(dev), Inner, dev) };
    inner.released.complete_all();
}
