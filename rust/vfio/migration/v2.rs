// SPDX-License-Identifier: GPL-2.0

//! Protocol v2: the callbacks behind `VFIO_DEVICE_FEATURE_MIGRATION`, `…_MIG_DEVICE_STATE` and `…_MIG_DATA_SIZE`.
//!
//! C header: `include/linux/vfio.h` (`struct vfio_migration_ops`); states in `include/uapi/linux/vfio.h`.

use crate::anon_file::{Mode, OpenFile};
use crate::device::allocation::VfioDevice;
use crate::device::Instance;
use crate::migration::file::DataFile;
use crate::migration::session::{Opening, Protocol, SessionId, SUPPORT};
use crate::model::Device;
use core::marker::PhantomData;
use kernel::bindings;
use kernel::ffi::{c_int, c_ulong};
use kernel::prelude::*;
use kernel::sync::Arc;
use vfio_bindings::vfio_device;

/// What `VFIO_DEVICE_FEATURE_MIGRATION` reports.
// The flags are the three lowest bits.
pub(crate) const FLAGS: u32 = SUPPORT.flags() as u32;

impl<T: Device> Instance<T> {
    /// Goes to a state, through those that lie between. Returns the data file where a session starts.
    ///
    /// `EINVAL` for a state that does not exist, that the device lacks, or that no path leads to, and on leaving RESUMING
    /// before the stream is complete; `EIO` in the error state; `EINTR` when the caller is killed while a job goes on. An error leaves the device in the last state it reached.
    fn set_state(self: &Arc<Self>, target: u32) -> Result<Option<OpenFile>> {
        let _quiet = self.quiesce()?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let target = state.migration.target(target, &mut state.reason)?;
        let before = state.migration.state();
        let changed = target != before;
        if changed {
            state.migration.claim(Protocol::V2).inspect_err(|_| {
                state
                    .reason
                    .set(format_args!("protocol v1 has a migration under way"));
            })?;
        }
        let mut files = Files {
            instance: self,
            opened: None,
        };
        let result = state.walk(target, &mut files);
        if changed {
            state.migration.settle_owner(Protocol::V2);
        }
        // The states between were nobody's to see: the mutex was held all the way.
        if state.migration.state() != before {
            state.notify_state();
            self.progress.notify_all();
        }
        self.settle(state);
        result.map(|()| files.opened)
    }
}

/// Opens the data file of a session that starts.
struct Files<'a, T: Device> {
    instance: &'a Arc<Instance<T>>,
    /// Sessions start with the last arc of a path only, so there is one at most.
    opened: Option<OpenFile>,
}

impl<T: Device> Opening for Files<'_, T> {
    fn open(&mut self, id: SessionId, saving: bool) -> Result {
        let mode = if saving { Mode::Read } else { Mode::Write };
        self.opened = Some(DataFile::open(self.instance, id, mode)?);
        Ok(())
    }
}

/// The callbacks of a device model `T`.
pub(crate) struct Callbacks<T>(PhantomData<T>);

impl<T: Device> Callbacks<T> {
    pub(crate) const OPS: vfio_bindings::vfio_migration_ops = vfio_bindings::vfio_migration_ops {
        migration_set_state: Some(Self::set_state),
        migration_get_state: Some(Self::get_state),
        migration_get_data_size: Some(Self::get_data_size),
    };

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn set_state(
        vdev: *mut vfio_device,
        new_state: vfio_bindings::vfio_device_mig_state,
    ) -> *mut bindings::file {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let result = instance.set_state(new_state);
        // SAFETY: The device is open, and nothing is held here.
        unsafe { instance.serve_jobs(vdev) };
        match result {
            Ok(Some(file)) => file.into_raw(),
            Ok(None) => core::ptr::null_mut(),
            Err(error) => error.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// Called by the VFIO core on a registered device: for a user who has it open, and for whoever reads the file in debugfs,
    /// which is removed before the device is unregistered.
    unsafe extern "C" fn get_state(
        vdev: *mut vfio_device,
        current: *mut vfio_bindings::vfio_device_mig_state,
    ) -> c_int {
        // SAFETY: A registered device is not released.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let state = instance.state.lock().migration.state();
        // SAFETY: The core passes a variable of its own.
        unsafe { *current = state.as_u32() };
        0
    }

    /// # Safety
    ///
    /// Called by the VFIO core on an open device.
    unsafe extern "C" fn get_data_size(vdev: *mut vfio_device, length: *mut c_ulong) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let size = {
            let mut guard = instance.state.lock();
            let state = &mut *guard;
            state.migration.data_size(&state.values, &mut state.device)
        };
        // SAFETY: The core passes a variable of its own.
        unsafe { *length = size as c_ulong };
        0
    }
}
