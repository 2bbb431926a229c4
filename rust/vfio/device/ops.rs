// SPDX-License-Identifier: GPL-2.0

//! Registering an instance with VFIO, and the callbacks that the core makes.

use super::allocation::{release, VfioDevice};
use super::{Instance, VfioHandle};
use crate::anon_file::ssize;
use crate::migration::{log_ops, v2};
use crate::model::Device;
use crate::region::{Region, OFFSET_SHIFT};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use kernel::bindings;
use kernel::error::{from_err_ptr, to_result};
use kernel::ffi::{c_char, c_int, c_long, c_uint, c_ulong};
use kernel::page::PAGE_SHIFT;
use kernel::prelude::*;
use kernel::sync::{Arc, Completion};
use kernel::uaccess::UserPtr;
use vfio_bindings::vfio_device;

/// A registered VFIO device. Dropping it asks its user to let go, waits for that, unregisters it, and waits until the core has
/// released it: no callback of the driver's runs afterwards.
///
/// # Invariants
///
/// The pointer is a `VfioDevice<T>` that is registered, of which this value owns the initial reference.
pub(crate) struct Registration<T: Device> {
    vdev: NonNull<vfio_device>,
    released: Arc<Completion>,
    _device: PhantomData<fn(T)>,
}

// SAFETY: A VFIO device may be unregistered and put from any thread.
unsafe impl<T: Device> Send for Registration<T> {}
// SAFETY: No method works on a shared reference but by the instance's own locks.
unsafe impl<T: Device> Sync for Registration<T> {}

impl<T: Device> Registration<T> {
    /// Registers an instance with VFIO, as group and as character device.
    ///
    /// # Safety
    ///
    /// `dev` must be a device that stays bound to its driver until the registration has been dropped.
    pub(crate) unsafe fn new(
        dev: *mut bindings::device,
        instance: Arc<Instance<T>>,
    ) -> Result<Self> {
        let shared = instance.clone();
        let released = Arc::pin_init(Completion::new(), GFP_KERNEL)?;
        // SAFETY: `dev` is valid by contract; the size is that of a structure with `struct vfio_device` at its start, and
        // the operations are static.
        let vdev = from_err_ptr(unsafe {
            vfio_bindings::_vfio_alloc_device(
                core::mem::size_of::<VfioDevice<T>>(),
                dev,
                &Callbacks::<T>::OPS,
            )
        })?;
        // SAFETY: The allocation is a `VfioDevice<T>` that nobody else knows yet. The migration operations must be in
        // place before registration.
        unsafe {
            let allocation = vdev.cast::<VfioDevice<T>>();
            (&raw mut (*allocation).instance).write(MaybeUninit::new(instance));
            (&raw mut (*allocation).header.released).write(MaybeUninit::new(released.clone()));
            (&raw mut (*allocation).header.drop_instance).write(VfioDevice::<T>::drop_instance);
            (*vdev).migration_flags = v2::FLAGS;
            (*vdev).mig_ops = &v2::Callbacks::<T>::OPS;
            // Without them the core answers that there is no DMA logging. A kernel that has no iova_bitmap could start a log and
            // never report it: its user would take the device, and fail in the middle of a migration.
            if cfg!(CONFIG_IOMMUFD_DRIVER) {
                (*vdev).log_ops = &log_ops::Callbacks::<T>::OPS;
            }
        }
        shared.state.lock().vdev = NonNull::new(vdev).map(VfioHandle);
        // SAFETY: The device is initialised and not registered.
        let registered = unsafe { vfio_bindings::vfio_register_emulated_iommu_dev(vdev) };
        if let Err(error) = to_result(registered) {
            // SAFETY: The initial reference is ours; `release` drops the instance.
            unsafe { put(vdev) };
            released.wait_for_completion();
            return Err(error);
        }
        // INVARIANT: Registered, and the reference not given away.
        Ok(Self {
            vdev: NonNull::new(vdev).ok_or(ENOMEM)?,
            released,
            _device: PhantomData,
        })
    }
}

impl<T: Device> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the device is registered and the reference is ours.
        unsafe {
            vfio_bindings::vfio_unregister_group_dev(self.vdev.as_ptr());
            put(self.vdev.as_ptr());
        }
        self.released.wait_for_completion();
    }
}

/// Gives a reference to a VFIO device back.
///
/// # Safety
///
/// The caller must own a reference.
unsafe fn put(vdev: *mut vfio_device) {
    // SAFETY: The embedded device carries the reference count.
    unsafe { bindings::put_device(&raw mut (*vdev).device) };
}

/// The callbacks of a device model `T`.
struct Callbacks<T>(PhantomData<T>);

impl<T: Device> Callbacks<T> {
    const OPS: vfio_bindings::vfio_device_ops = vfio_bindings::vfio_device_ops {
        // The core only prints it. `as_char_ptr()` is not const.
        #[allow(clippy::disallowed_methods)]
        name: T::NAME.as_ptr().cast_mut().cast(),
        release: Some(release),
        // Without iommufd, the header has macros of these names that are NULL.
        #[cfg(CONFIG_IOMMUFD)]
        bind_iommufd: Some(vfio_bindings::vfio_iommufd_emulated_bind),
        #[cfg(CONFIG_IOMMUFD)]
        unbind_iommufd: Some(vfio_bindings::vfio_iommufd_emulated_unbind),
        #[cfg(CONFIG_IOMMUFD)]
        attach_ioas: Some(vfio_bindings::vfio_iommufd_emulated_attach_ioas),
        #[cfg(CONFIG_IOMMUFD)]
        detach_ioas: Some(vfio_bindings::vfio_iommufd_emulated_detach_ioas),
        open_device: Some(Self::open_device),
        close_device: Some(Self::close_device),
        read: Some(Self::read),
        write: Some(Self::write),
        ioctl: Some(Self::ioctl),
        get_region_info_caps: Some(Self::get_region_info_caps),
        mmap: Some(Self::mmap),
        request: Some(Self::request),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the VFIO core on a registered device that is not open.
    unsafe extern "C" fn open_device(vdev: *mut vfio_device) -> c_int {
        // SAFETY: The device is registered.
        match unsafe { VfioDevice::<T>::instance(vdev) }.open() {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn close_device(vdev: *mut vfio_device) {
        // SAFETY: The device is not released before it is closed.
        unsafe { VfioDevice::<T>::instance(vdev) }.close();
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn read(
        vdev: *mut vfio_device,
        buf: *mut c_char,
        count: usize,
        ppos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        // SAFETY: The core passes a valid file position that nobody else changes during the call.
        let position = unsafe { &mut *ppos };
        ssize(instance.read(UserPtr::from_ptr(buf.cast()), count, position))
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn write(
        vdev: *mut vfio_device,
        buf: *const c_char,
        count: usize,
        ppos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        // SAFETY: The core passes a valid file position that nobody else changes during the call.
        let position = unsafe { &mut *ppos };
        let written = instance.write(UserPtr::from_ptr(buf.cast_mut().cast()), count, position);
        // SAFETY: The device is open, and nothing is held here.
        unsafe { instance.serve_jobs(vdev) };
        ssize(written)
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn ioctl(vdev: *mut vfio_device, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let result = instance.ioctl(cmd, UserPtr::from_addr(arg));
        // SAFETY: The device is open, and nothing is held here.
        unsafe { instance.serve_jobs(vdev) };
        match result {
            Ok(()) => 0,
            Err(error) => error.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn get_region_info_caps(
        vdev: *mut vfio_device,
        info: *mut vfio_bindings::vfio_region_info,
        caps: *mut vfio_bindings::vfio_info_cap,
    ) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        // SAFETY: The core passes its own structures, the first filled from user space.
        let (info, caps) = unsafe { (&mut *info, &mut *caps) };
        match instance.region_info(info, caps) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn mmap(vdev: *mut vfio_device, vma: *mut bindings::vm_area_struct) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        // SAFETY: The core passes a mapping that is being made, which nobody else changes.
        let first = unsafe { (*vma).vm_pgoff as u64 };
        let region = u32::try_from(first >> (OFFSET_SHIFT - PAGE_SHIFT as u32));
        let region = region.map_err(|_| EINVAL).and_then(Region::try_from);
        let pages = region.and_then(|region| instance.mappable(region));
        // SAFETY: The core passes a mapping of the device's file that is being made.
        match pages.and_then(|pages| unsafe { pages.map(vma) }) {
            Ok(()) => 0,
            Err(error) => error.to_errno(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFIO core on a device that is being unregistered, which is released only after that. Somebody has it open, or
    /// has its file and has not bound it; he may open or close it at the same time.
    unsafe extern "C" fn request(vdev: *mut vfio_device, count: c_uint) {
        // SAFETY: By contract, the device is not released yet, and the parent that it is unregistered from is there.
        let (instance, dev) = unsafe {
            (
                VfioDevice::<T>::instance(vdev),
                kernel::device::Device::from_raw((*vdev).dev),
            )
        };
        instance.request(dev, count);
    }
}
