// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: a driver, parents whose types user space creates instances of, and the instances.
//!
//! C header: `include/linux/mdev.h`.

mod param_files;
mod types;

use crate::bound::Bound;
use crate::capacity::Capacity;
use crate::class::ClassDevice;
use crate::device::ops::Registration;
use crate::device::Instance;
use crate::model::Device;
use crate::module::this_module;
use crate::names::DEVICE_API;
use crate::page::PageWriter;
use crate::sysfs::Groups;
use ::migration::info::{longest_compatible, Family};
use ::migration::model::Values;
use core::fmt::Write;
use kernel::bindings;
use kernel::error::to_result;
use kernel::ffi::{c_char, c_int, c_uint};
use kernel::page::PAGE_SIZE;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::types::{ForeignOwnable, Opaque};
use vfio_bindings::{mdev_device, mdev_driver, mdev_parent, mdev_type};

pub use crate::table::Type;
use types::TypeNode;

impl Type {
    /// Whether what is told of the type and of its instances fits the files that tell it. `EINVAL` if not, and the kernel's log
    /// says what.
    fn fits_files<T: Device>(&self, families: &[Family<'_>]) -> Result {
        let name = self.full_name::<T>()?;
        let name = name.to_str().map_err(|_| EINVAL)?;
        let compatible = longest_compatible(name, DEVICE_API, self.migration, families);
        // A description ends with a newline.
        let description = self.description.len() + 1;
        for (file, len) in [
            ("migration/compatible", compatible),
            ("description", description),
        ] {
            if len > PageWriter::ROOM {
                let room = PageWriter::ROOM;
                pr_err!("{name}: {file} can become {len} bytes long, and a file of sysfs has {room} at most\n");
                return Err(EINVAL);
            }
        }
        Ok(())
    }
}

/// A registered mdev driver. Unregistered when dropped, which the parents that use it prevent.
///
/// # Invariants
///
/// `raw` is registered and pinned.
#[pin_data(PinnedDrop)]
pub struct Driver<T: Device> {
    #[pin]
    raw: Opaque<mdev_driver>,
    // Dropped after the driver has been unregistered.
    groups: Groups,
    _device: core::marker::PhantomData<fn(T)>,
}

// SAFETY: A driver may be used and unregistered from any thread.
unsafe impl<T: Device> Send for Driver<T> {}
// SAFETY: As above; the driver core does its own locking.
unsafe impl<T: Device> Sync for Driver<T> {}

impl<T: Device> Driver<T> {
    /// Registers the driver under [`Device::NAME`]. `types` are those of all its parents. `EBUSY` when the mdev bus has a
    /// driver of that name already.
    pub fn new(types: &[&'static [Type]]) -> Result<Arc<Self>> {
        let groups = Groups::new::<T>(types)?;
        let callbacks = Self::callbacks(&groups);
        Arc::pin_init(
            try_pin_init!(Self {
                // INVARIANT: Registered here, and pinned by the `Arc`.
                raw <- Opaque::try_ffi_init(|slot: *mut mdev_driver| {
                    // SAFETY: `slot` is valid for writes.
                    unsafe { slot.write(callbacks) };
                    // SAFETY: `slot` is pinned and stays valid until `drop` unregisters it; what it points to is static or
                    // the groups', which are dropped later.
                    to_result(unsafe { vfio_bindings::mdev_register_driver(slot) })
                }),
                groups,
                _device: core::marker::PhantomData,
            }),
            GFP_KERNEL,
        )
    }

    fn callbacks(groups: &Groups) -> mdev_driver {
        mdev_driver {
            device_api: c"vfio-pci".as_char_ptr(),
            probe: Some(Self::probe),
            remove: Some(Self::remove),
            get_available: Some(Self::get_available),
            show_description: Some(Self::show_description),
            driver: bindings::device_driver {
                name: T::NAME.as_char_ptr(),
                // The VFIO core takes a reference to this module while a device is open.
                owner: this_module::<T::OwnerModule>().as_ptr(),
                dev_groups: groups.as_ptr().cast_mut().cast(),
                ..pin_init::zeroed()
            },
            ..pin_init::zeroed()
        }
    }

    /// # Safety
    ///
    /// Called by the mdev bus on a new instance of one of our types.
    unsafe extern "C" fn probe(mdev: *mut mdev_device) -> c_int {
        // SAFETY: By contract, the type is one of ours.
        let node = unsafe { TypeNode::from_raw((*mdev).type_) };
        // SAFETY: The device is valid, and `remove` drops the registration before it is unbound.
        match unsafe { Self::bind(&raw mut (*mdev).dev, node) } {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// `dev` must be a device that is being bound to this driver.
    unsafe fn bind(dev: *mut bindings::device, node: &TypeNode) -> Result {
        let instance = Instance::<T>::new(node.info, node.families, &node.capacity)?;
        let mut bound = KBox::new(
            Bound {
                registration: None,
                instance: instance.clone(),
            },
            GFP_KERNEL,
        )?;
        // SAFETY: By contract; the driver core calls `remove` before the device is unbound.
        bound.registration = Some(unsafe { Registration::new(dev, instance)? });
        // SAFETY: The driver data of a device that is being bound is its driver's.
        unsafe { bindings::dev_set_drvdata(dev, bound.into_foreign()) };
        Ok(())
    }

    /// # Safety
    ///
    /// Called by the mdev bus on a device that `probe` has bound.
    unsafe extern "C" fn remove(mdev: *mut mdev_device) {
        // SAFETY: `probe` stored this, and nobody borrows it any more: the attributes are gone.
        let bound = unsafe {
            KBox::<Bound<T>>::from_foreign(bindings::dev_get_drvdata(&raw mut (*mdev).dev))
        };
        drop(bound);
    }

    /// # Safety
    ///
    /// Called by the mdev core on one of our types.
    unsafe extern "C" fn get_available(raw: *mut mdev_type) -> c_uint {
        // SAFETY: By contract.
        let node = unsafe { TypeNode::from_raw(raw) };
        let units = T::units(&Values::new(node.info.migration));
        node.capacity.instances(units)
    }

    /// # Safety
    ///
    /// Called by the mdev core on one of our types; `buf` is a zeroed page of the caller's.
    unsafe extern "C" fn show_description(raw: *mut mdev_type, buf: *mut c_char) -> isize {
        // SAFETY: By contract.
        let node = unsafe { TypeNode::from_raw(raw) };
        // SAFETY: By contract.
        let mut out = PageWriter::new(unsafe { &mut *buf.cast::<[u8; PAGE_SIZE]>() });
        let written = writeln!(out, "{}", node.info.description);
        out.shown(written)
    }
}

#[pinned_drop]
impl<T: Device> PinnedDrop for Driver<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant, the driver is registered; no parent refers to it any more.
        unsafe { vfio_bindings::mdev_unregister_driver(self.raw.get()) };
    }
}

/// A registered parent: a device under which user space creates instances. Removes all of them when dropped.
///
/// # Invariants
///
/// `raw` is registered; `nodes` and `pointers` are what it refers to and do not move.
pub struct Parent<T: Device> {
    // Dropped first. Somebody may still refer to a type's kobject when its directory is gone; each of them has a reference to
    // the device, and the device's end is waited for. Only then are the types free.
    device: ClassDevice,
    raw: KBox<Opaque<mdev_parent>>,
    _pointers: KVec<*mut mdev_type>,
    _nodes: KVec<KBox<TypeNode>>,
    _driver: Arc<Driver<T>>,
}

// SAFETY: A parent may be unregistered from any thread; the pointers are only read by the mdev core.
unsafe impl<T: Device> Send for Parent<T> {}
// SAFETY: No method works on a shared reference.
unsafe impl<T: Device> Sync for Parent<T> {}

impl<T: Device> Parent<T> {
    /// Makes `device` a parent with these types, whose instances share `capacity` units. `EINVAL` when the tables say more than
    /// a file of sysfs holds, which is nearly a page; the kernel's log has the figures.
    ///
    /// `families` tells who looks for a destination how the types belong together; see [`Family`].
    pub fn new(
        driver: Arc<Driver<T>>,
        device: ClassDevice,
        types: &'static [Type],
        families: &'static [Family<'static>],
        capacity: u32,
    ) -> Result<Self> {
        types
            .iter()
            .try_for_each(|info| info.fits_files::<T>(families))?;
        let capacity = Capacity::new(capacity)?;
        let mut nodes = KVec::with_capacity(types.len(), GFP_KERNEL)?;
        let mut pointers = KVec::with_capacity(types.len(), GFP_KERNEL)?;
        for info in types {
            let node = TypeNode::new(info, families, capacity.clone())?;
            pointers.push(node.as_raw(), GFP_KERNEL)?;
            nodes.push(node, GFP_KERNEL)?;
        }
        let raw = KBox::new(Opaque::new(pin_init::zeroed::<mdev_parent>()), GFP_KERNEL)?;
        // SAFETY: The device and the driver are registered and are kept until the parent is unregistered, as are the types
        // and the array of pointers, all of them in allocations of their own.
        let registered = to_result(unsafe {
            vfio_bindings::mdev_register_parent(
                raw.get(),
                device.as_raw(),
                driver.raw.get(),
                pointers.as_mut_ptr(),
                types.len() as c_uint,
            )
        });
        if let Err(error) = registered {
            // Before the types, as in a `Parent`: some of them may have been registered for a while.
            drop(device);
            return Err(error);
        }
        // INVARIANT: Just registered.
        let parent = Self {
            device,
            raw,
            _pointers: pointers,
            _nodes: nodes,
            _driver: driver,
        };
        for node in &parent._nodes {
            // SAFETY: The type is registered, and its directory is removed when the parent is unregistered.
            unsafe { node.add_files()? };
        }
        // Who waits for the parent to be complete has been told too early by the mdev core.
        parent.device.announce_change();
        Ok(parent)
    }
}

impl<T: Device> Drop for Parent<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the parent is registered.
        unsafe { vfio_bindings::mdev_unregister_parent(self.raw.get()) };
    }
}
