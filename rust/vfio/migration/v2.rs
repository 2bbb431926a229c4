// SPDX-License-Identifier: GPL-2.0

//! Protocol v2: the callbacks behind `VFIO_DEVICE_FEATURE_MIGRATION`, `…_MIG_DEVICE_STATE` and `…_MIG_DATA_SIZE`.
//!
//! C header: `include/linux/vfio.h` (`struct vfio_migration_ops`); states in `include/uapi/linux/vfio.h`.

use crate::anon_file::{Mode, OpenFile};
use crate::device::{Device, Instance, State as DeviceState, VfioDevice};
use crate::migration::file::DataFile;
use crate::migration::session::{stop_copy_len, Resuming, Saving, Session, SUPPORT};
use crate::sysfs::PROGRESS;
use ::migration::fsm::{next_arc, Arc as Transition, State, TransitionError};
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
    /// before the stream is complete; `EIO` in the error state. An error leaves the device in the last state it reached.
    fn set_state(self: &Arc<Self>, target: u32) -> Result<Option<OpenFile>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // The error state is judged first: nothing but a reset leads out of it.
        let target = match State::try_from(target) {
            Ok(target) => target,
            Err(_) if state.migration.current == State::Error => return Err(EIO),
            Err(unknown) => {
                state.reason.set(format_args!("{unknown}"));
                return Err(EINVAL);
            }
        };
        let mut file = None;
        loop {
            let next = next_arc(state.migration.current, target, SUPPORT);
            let arc = next.map_err(|error| {
                state.reason.set(format_args!("{error}"));
                match error {
                    TransitionError::Failed => EIO,
                    TransitionError::Unsupported(_) | TransitionError::Blocked { .. } => EINVAL,
                }
            })?;
            let Some(arc) = arc else { break };
            // Sessions start with the last arc of a path only, so there is one file at most.
            file = self.step(state, arc)?;
            state.migration.current = arc.to();
            state.notify(&PROGRESS);
        }
        self.settle(state);
        Ok(file)
    }

    /// Takes one arc. Nothing has changed if it fails.
    fn step(
        self: &Arc<Self>,
        state: &mut DeviceState<T>,
        arc: Transition,
    ) -> Result<Option<OpenFile>> {
        use Transition::*;

        let migration = &mut state.migration;
        match arc {
            RunningToPreCopy | RunningP2pToPreCopyP2p => {
                let id = migration.next_id();
                let saving = Saving::pre_copy(id, &state.values)?;
                let file = DataFile::open(self, id, Mode::Read)?;
                migration.session = Some(Session::Saving(saving));
                return Ok(Some(file));
            }
            StopToStopCopy => {
                let id = migration.next_id();
                let saving = Saving::stop_copy(id, &state.values, &*state.device)?;
                let file = DataFile::open(self, id, Mode::Read)?;
                migration.session = Some(Session::Saving(saving));
                return Ok(Some(file));
            }
            PreCopyToStopCopy | PreCopyP2pToStopCopy => {
                if let Some(Session::Saving(saving)) = &mut migration.session {
                    saving.stop(&state.values, &*state.device)?;
                }
            }
            StopToResuming => {
                let id = migration.next_id();
                let resuming = Resuming::new(id, &*state.device)?;
                let file = DataFile::open(self, id, Mode::Write)?;
                migration.session = Some(Session::Resuming(resuming));
                state.reason.clear();
                return Ok(Some(file));
            }
            ResumingToStop => {
                if let Some(Session::Resuming(resuming)) = &migration.session {
                    resuming.commit(&mut state.device, &mut state.reason)?;
                }
                migration.session = None;
            }
            PreCopyToRunning | PreCopyP2pToRunningP2p | StopCopyToStop => migration.session = None,
            StopToRunning | StopToRunningP2p => state.device.resume(),
            // The device has no DMA of its own, and nothing happens in it between two calls.
            RunningToStop | RunningToRunningP2p | RunningP2pToRunning | RunningP2pToStop
            | PreCopyToPreCopyP2p | PreCopyP2pToPreCopy => {}
        }
        Ok(None)
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
    /// Called by the VFIO core on an open device, as are all functions below.
    unsafe extern "C" fn set_state(
        vdev: *mut vfio_device,
        new_state: vfio_bindings::vfio_device_mig_state,
    ) -> *mut bindings::file {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        match instance.set_state(new_state) {
            Ok(Some(file)) => file.into_raw(),
            Ok(None) => core::ptr::null_mut(),
            Err(error) => error.to_ptr(),
        }
    }

    unsafe extern "C" fn get_state(
        vdev: *mut vfio_device,
        current: *mut vfio_bindings::vfio_device_mig_state,
    ) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let state = instance.state.lock().migration.current;
        // SAFETY: The core passes a variable of its own.
        unsafe { *current = state.as_u32() };
        0
    }

    unsafe extern "C" fn get_data_size(vdev: *mut vfio_device, length: *mut c_ulong) -> c_int {
        // SAFETY: The device is open.
        let instance = unsafe { VfioDevice::<T>::instance(vdev) };
        let size = {
            let state = instance.state.lock();
            stop_copy_len(&state.values, &*state.device)
        };
        // SAFETY: The core passes a variable of its own.
        unsafe { *length = size as c_ulong };
        0
    }
}
