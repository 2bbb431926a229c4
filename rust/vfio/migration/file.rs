// SPDX-License-Identifier: GPL-2.0

//! The data file of protocol v2: the descriptor that `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE` returns.
//!
//! It may outlive its session and the device: it then answers `ENODEV`. It keeps the instance's memory, and the driver
//! module, until it is closed; closing it ends nothing, because QEMU closes it before it leaves RESUMING.

use crate::anon_file::{AnonFile, Mode, OpenFile, Ready};
use crate::device::Instance;
use crate::lock_class::new_mutex;
use crate::migration::session::{refusal, Chunk, Of, Session, SessionId};
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
    /// Held through a read or write, so that two of them do not mix their bytes. A page fault never takes it. What a saving session
    /// has made and nobody has read yet.
    #[pin]
    order: Mutex<Chunk>,
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
                order <- new_mutex!(Chunk::new(), c"vfio_data_file"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        OpenFile::new(file, mode)
    }

    /// Hands out the next bytes, at most `most`: how many of the chunk, and whether there are more.
    fn next(&self, chunk: &mut Chunk, most: usize) -> Result<(usize, bool)> {
        let mut guard = self.instance.state.lock();
        let state = &mut *guard;
        let stopped = state.migration.state() == State::StopCopy;
        let device = &mut Of(&mut *state.device);
        let saving = state.migration.saving(self.session).ok_or(ENODEV)?;
        saving.fill(chunk, device)?;
        let count = chunk.len().min(most);
        let more = saving.has_more(device);
        if chunk.is_empty() && most > 0 && !stopped {
            state.migration.set_drained();
            // Linux 7.2 does not have it by name.
            return Err(Error::from_errno(-(bindings::ENOMSG as c_int)));
        }
        saving.hand_out(count);
        self.instance.stream_moved(state);
        Ok((count, more))
    }
}

/// Has the next bytes take the place of those in the buffer: as many as it has room for, or as there are. They are copied once, and
/// nothing is zeroed for them.
fn take(from: &mut UserSliceReader, buffer: &mut KVec<u8>) -> Result {
    buffer.clear();
    let room = buffer.spare_capacity_mut();
    let len = from.len().min(room.len());
    from.read_raw(room.get_mut(..len).ok_or(EINVAL)?)?;
    // SAFETY: So many bytes behind those that there are, which are none, were just written.
    unsafe { buffer.inc_len(len) };
    Ok(())
}

impl<T: Device> AnonFile for DataFile<T> {
    type OwnerModule = T::OwnerModule;
    const NAME: &'static CStr = c"vfio-migration";

    /// Gives the next bytes of the stream: as many as there are, unless a signal arrives. `ENOMSG` when there are none yet
    /// (pre-copy), 0 at the end (stop-and-copy), `ENODEV` once the session is over, `EFAULT` when user space cannot be written, and
    /// `ENOMEM`: nothing is lost then.
    fn read(&self, mut to: UserSliceWriter) -> Result<usize> {
        let mut chunk = self.order.lock();
        let wanted = to.len();
        loop {
            let done = wanted - to.len();
            let (count, more) = match self.next(&mut chunk, to.len()) {
                Err(_) if done > 0 => return Ok(done),
                result => result?,
            };
            // The session has let go of them, so nobody changes them without `order`.
            let copied = to.write_slice(chunk.bytes().get(..count).ok_or(EIO)?);
            if let Err(error) = copied {
                let mut state = self.instance.state.lock();
                if let Some(saving) = state.migration.saving(self.session) {
                    saving.take_back(count);
                    self.instance.stream_moved(&mut state);
                }
                return if done > 0 { Ok(done) } else { Err(error) };
            }
            chunk.consume(count);
            if to.is_empty() || !more || kernel::current!().signal_pending() {
                return Ok(wanted - to.len());
            }
        }
    }

    /// Takes the next bytes of the stream: all of them, unless a signal arrives. `ENODEV` once the session is over and after a
    /// refusal, the errnos of [`refusal`] for a refusal, `EFAULT` when user space cannot be read.
    fn write(&self, mut from: UserSliceReader) -> Result<usize> {
        let _order = self.order.lock();
        let count = from.len();
        let mut buffer = KVec::with_capacity(count.min(CHUNK), GFP_KERNEL_ACCOUNT)?;
        loop {
            let done = count - from.len();
            match take(&mut from, &mut buffer) {
                Err(_) if done > 0 => return Ok(done),
                result => result?,
            }
            let mut guard = self.instance.state.lock();
            let state = &mut *guard;
            let is_ours = state.migration.is_session(self.session);
            match state.migration.session_mut() {
                Some(Session::Resuming(resuming)) if is_ours => resuming
                    .push(
                        &state.values,
                        &Of(&mut *state.device),
                        &buffer,
                        &mut state.reason,
                    )
                    .map_err(refusal)
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
        let mut guard = self.instance.state.lock();
        let state = &mut *guard;
        let stopped = state.migration.state() == State::StopCopy;
        if !state.migration.is_session(self.session) {
            return Ready::Over;
        }
        match state.migration.session() {
            Some(Session::Saving(saving)) => {
                if stopped || saving.is_readable(&Of(&mut *state.device)) {
                    return Ready::Readable;
                }
                state.migration.set_drained();
                Ready::No
            }
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
        let (left, v2) = {
            let mut guard = self.instance.state.lock();
            let state = &mut *guard;
            let v2 = state.precopy_info_v2();
            if !state.migration.is_session(self.session) {
                return Err(ENODEV);
            }
            let left = state.migration.precopy_left(&mut state.device);
            (left.ok_or(EINVAL)?, v2)
        };
        // What has changed is dirty, and nothing makes what was there at first come again: VFIO_PRECOPY_INFO_REINIT is never
        // set. Without the v2 form of this call, flags are not ours to write.
        let flags = if v2 { 0 } else { flags };
        let mut writer = UserSlice::new(arg, PRECOPY_INFO).writer();
        writer.write(&argsz)?;
        writer.write(&flags)?;
        writer.write(&(left.initial as u64))?;
        writer.write(&(left.dirty as u64))
    }
}
