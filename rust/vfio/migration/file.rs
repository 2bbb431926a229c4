// SPDX-License-Identifier: GPL-2.0

//! The data file of protocol v2: the descriptor that `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` returns.
//!
//! It may outlive its session and the device: it then answers `ENODEV`. It keeps the instance's memory, and the driver
//! module, until it is closed; closing it ends nothing, because QEMU closes it before it leaves RESUMING.

use crate::anon_file::{AnonFile, Mode, OpenFile, Ready};
use crate::device::Instance;
use crate::lock_class::new_mutex;
use crate::migration::session::{Session, SessionId};
use crate::model::Device;
use ::migration::fsm::State;
use kernel::bindings;
use kernel::ffi::c_int;
use kernel::fs::File;
use kernel::prelude::*;
use kernel::sync::poll::PollTable;
use kernel::sync::{Arc, Mutex};
use kernel::uaccess::{UserPtr, UserSlice, UserSliceReader, UserSliceWriter};

/// Most bytes copied from user space at a time.
const CHUNK: usize = 4096;

/// Bytes of `struct vfio_precopy_info`: argsz, flags, initial_bytes, dirty_bytes.
const PRECOPY_INFO: usize = core::mem::size_of::<vfio_bindings::vfio_precopy_info>();

/// A data file.
#[pin_data]
pub(crate) struct DataFile<T: Device> {
    instance: Arc<Instance<T>>,
    session: SessionId,
    /// Held through a read or write, so that two of them do not mix their bytes. A page fault never takes it.
    #[pin]
    order: Mutex<()>,
}

impl<T: Device> DataFile<T> {
    /// Opens the file of a session.
    pub(crate) fn open(
        instance: &Arc<Instance<T>>,
        session: SessionId,
        mode: Mode,
    ) -> Result<OpenFile> {
        let file = KBox::pin_init(
            pin_init!(Self {
                instance: instance.clone(),
                session,
                order <- new_mutex!((), c"vfio_data_file"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        OpenFile::new(file, mode)
    }
}

impl<T: Device> AnonFile for DataFile<T> {
    type OwnerModule = T::OwnerModule;
    const NAME: &'static CStr = c"vfio-migration";

    /// Gives the next bytes of the stream. `ENOMSG` when there are none yet (pre-copy), 0 at the end (stop-and-copy),
    /// `ENODEV` once the session is over, `EFAULT` when user space cannot be written: the bytes then come again.
    fn read(&self, mut to: UserSliceWriter) -> Result<usize> {
        let _order = self.order.lock();
        let claim = {
            let mut state = self.instance.state.lock();
            let stopped = state.migration.current == State::StopCopy;
            let saving = state.migration.saving(self.session).ok_or(ENODEV)?;
            let claim = saving.claim(to.len())?;
            if saving.remaining() == 0 && claim.start == claim.end && !to.is_empty() && !stopped {
                // Linux 7.2 does not have it by name.
                return Err(Error::from_errno(-(bindings::ENOMSG as c_int)));
            }
            self.instance.stream_moved(&mut state);
            claim
        };
        let bytes = claim.bytes.get(claim.start..claim.end).ok_or(EIO)?;
        to.write_slice(bytes).inspect_err(|_| {
            let mut state = self.instance.state.lock();
            if let Some(saving) = state.migration.saving(self.session) {
                saving.return_claim(&claim);
                self.instance.stream_moved(&mut state);
            }
        })?;
        Ok(bytes.len())
    }

    /// Takes the next bytes of the stream: all of them, unless a signal arrives. `ENODEV` once the session is over and after a refusal, the errnos of
    /// [`crate::migration::session::Resuming::push`] for a refusal, `EFAULT` when user space cannot be read.
    fn write(&self, mut from: UserSliceReader) -> Result<usize> {
        let _order = self.order.lock();
        let count = from.len();
        let mut buffer = KVec::from_elem(0u8, count.min(CHUNK), GFP_KERNEL_ACCOUNT)?;
        loop {
            let done = count - from.len();
            let len = from.len().min(CHUNK);
            let chunk = buffer.get_mut(..len).ok_or(EINVAL)?;
            match from.read_slice(chunk) {
                Err(_) if done > 0 => return Ok(done),
                result => result?,
            }
            let mut guard = self.instance.state.lock();
            let state = &mut *guard;
            match &mut state.migration.session {
                Some(Session::Resuming(resuming)) if resuming.id() == self.session => resuming
                    .push(&state.values, &*state.device, chunk, &mut state.reason)
                    // Nothing more is taken, which whoever polls the file is to know.
                    .inspect_err(|_| self.instance.progress.notify_all())?,
                _ => return Err(ENODEV),
            }
            self.instance.stream_moved(state);
            if from.is_empty() {
                return Ok(count);
            }
            // One call can bring any amount of sections that are to be skipped, and must not keep its caller from ending.
            if kernel::current!().signal_pending() {
                return Ok(count - from.len());
            }
        }
    }

    fn poll(&self, file: &File, table: PollTable<'_>) -> Ready {
        table.register_wait(file, &self.instance.progress);
        let state = self.instance.state.lock();
        let stopped = state.migration.current == State::StopCopy;
        if !state.migration.is_session(self.session) {
            return Ready::Over;
        }
        match &state.migration.session {
            Some(Session::Saving(saving)) if saving.remaining() > 0 || stopped => Ready::Readable,
            Some(Session::Saving(_)) => Ready::No,
            Some(Session::Resuming(resuming)) if !resuming.has_refused() => Ready::Writable,
            _ => Ready::Over,
        }
    }

    /// `VFIO_MIG_GET_PRECOPY_INFO`. `ENOTTY` for another command, `EFAULT`, `EINVAL` for a short structure or outside
    /// pre-copy, `ENODEV` once the session is over.
    fn ioctl(&self, cmd: u32, arg: UserPtr) -> Result {
        if cmd != vfio_bindings::VFIO_MIG_GET_PRECOPY_INFO {
            return Err(ENOTTY);
        }
        let mut reader = UserSlice::new(arg, 8).reader();
        let (argsz, flags) = (reader.read::<u32>()?, reader.read::<u32>()?);
        if (argsz as usize) < PRECOPY_INFO {
            return Err(EINVAL);
        }
        let (initial, v2) = {
            let mut state = self.instance.state.lock();
            let current = state.migration.current;
            let v2 = state.precopy_info_v2();
            if !state.migration.is_session(self.session) {
                return Err(ENODEV);
            }
            let saving = state.migration.saving(self.session).ok_or(EINVAL)?;
            if !matches!(current, State::PreCopy | State::PreCopyP2p) {
                return Err(EINVAL);
            }
            (saving.remaining() as u64, v2)
        };
        // The setup record is all there is before the device stops, and nothing makes it come again: no bytes are dirty, and
        // VFIO_PRECOPY_INFO_REINIT is never set. Without the v2 form of this call, flags are not ours to write.
        let flags = if v2 { 0 } else { flags };
        let mut writer = UserSlice::new(arg, PRECOPY_INFO).writer();
        writer.write(&argsz)?;
        writer.write(&flags)?;
        writer.write(&initial)?;
        writer.write(&0u64)
    }
}
