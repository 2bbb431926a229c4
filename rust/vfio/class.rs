// SPDX-License-Identifier: GPL-2.0

//! A device class of a driver's own, and virtual devices in it, for mdev parents that have no hardware.
//!
//! The mdev core names type directories after the parent's driver, bus or class. A device in a class named after the driver
//! gives `mdev_serial-1` and so on.
//!
//! C header: `include/linux/device/class.h`.

use core::ptr::NonNull;
use kernel::bindings;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::Arc;

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
/// # Invariants
///
/// The pointer is a registered device that `device_create()` returned.
pub struct ClassDevice {
    dev: NonNull<bindings::device>,
    _class: Arc<Class>,
}

// SAFETY: A device may be used and unregistered from any thread.
unsafe impl Send for ClassDevice {}
// SAFETY: As above; the driver core does its own locking.
unsafe impl Sync for ClassDevice {}

impl ClassDevice {
    /// Creates `/sys/devices/virtual/<class>/<name>`. `EEXIST` when there is one already.
    pub fn new(class: Arc<Class>, name: &CStr) -> Result<Self> {
        // SAFETY: The class is registered; the format and its one string argument are NUL-terminated.
        let dev = from_err_ptr(unsafe {
            bindings::device_create(
                class.0.as_ptr(),
                core::ptr::null_mut(),
                0,
                core::ptr::null_mut(),
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        })?;
        // INVARIANT: Just registered, and unregistered only in `drop`.
        Ok(Self {
            dev: NonNull::new(dev).ok_or(ENOMEM)?,
            _class: class,
        })
    }

    /// Tells user space that what the device offers has changed.
    pub(crate) fn announce_change(&self) {
        // SAFETY: The device is registered. Failing to send an event is no failure of the device's.
        unsafe {
            bindings::kobject_uevent(
                &raw mut (*self.dev.as_ptr()).kobj,
                bindings::kobject_action_KOBJ_CHANGE,
            )
        };
    }

    /// The C device, valid for as long as this value.
    pub(crate) fn as_raw(&self) -> *mut bindings::device {
        self.dev.as_ptr()
    }
}

impl Drop for ClassDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the device is registered.
        unsafe { bindings::device_unregister(self.dev.as_ptr()) };
    }
}
