// SPDX-License-Identifier: GPL-2.0

//! Protocol v1: the migration region, as Linux 5.8 to 5.17 documented it and QEMU 5.2 to 7.2 use it.
//!
//! A region of type `VFIO_REGION_TYPE_MIGRATION_DEPRECATED`, subtype 1. It starts with `struct vfio_device_migration_info`; a
//! page later follows the data section ([`staging`]), through which the stream goes piece by piece:
//!
//! * saving: reading `pending_bytes` says how much there is and acknowledges the piece before; reading `data_offset` or
//!   `data_size` makes a piece available; the piece is read. It counts as taken only if `data_size` was read, so that a user
//!   who reads `pending_bytes` twice loses nothing.
//! * resuming: a piece is written to the data section; writing `data_size` hands it in, and fails if it is refused.
//!
//! The stream, the states and the errors are those of protocol v2.
//!
//! C header: `include/uapi/linux/vfio.h`.

use crate::device::{Instance, State as DeviceState};
use crate::migration::session::{refusal, Of, Protocol, Saving, Session, Window};
use crate::migration::staging;
use crate::model::Device;
use ::migration::fsm::v1::{target, State as V1State, TargetError};
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// Length of the region in bytes.
pub(crate) const REGION_LEN: u64 = (staging::OFFSET + staging::LEN) as u64;

/// Most bytes copied at a time, from user space or from the data section.
const CHUNK: usize = 4096;

/// The fields of the header (`struct vfio_device_migration_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    DeviceState,
    Reserved,
    PendingBytes,
    DataOffset,
    DataSize,
}

impl Field {
    /// The field that an access is to. `EINVAL` unless it is to the whole of one.
    fn at(offset: u64, len: usize) -> Result<Self> {
        Ok(match (offset, len) {
            (0, 4) => Self::DeviceState,
            (4, 4) => Self::Reserved,
            (8, 8) => Self::PendingBytes,
            (16, 8) => Self::DataOffset,
            (24, 8) => Self::DataSize,
            _ => return Err(EINVAL),
        })
    }
}

/// Where an access to the region goes.
enum Place {
    Header(Field),
    /// The data section, so many bytes from its start.
    Data(usize),
}

impl Place {
    /// `EINVAL` for an access that is to no one thing.
    fn of(offset: u64, len: usize) -> Result<Self> {
        let data = staging::OFFSET as u64;
        match offset.checked_sub(data) {
            // The caller has limited the access to the region, so this fits.
            Some(start) => Ok(Self::Data(usize::try_from(start).map_err(|_| EINVAL)?)),
            None => Field::at(offset, len).map(Self::Header),
        }
    }
}

impl<T: Device> Instance<T> {
    /// Reads from the region. `EINVAL` for anything but a whole field, or bytes of the piece on offer.
    pub(crate) fn read_region(&self, buf: UserPtr, len: usize, offset: u64) -> Result<usize> {
        let mut to = UserSlice::new(buf, len).writer();
        match Place::of(offset, len)? {
            Place::Header(field) => {
                let (value, consequence) = self.read_field(field)?;
                match len {
                    // Fields of four bytes hold small numbers.
                    4 => to.write(&(value as u32))?,
                    _ => to.write(&value)?,
                }
                // Only what the user was told has consequences.
                self.told(consequence);
            }
            Place::Data(start) => {
                let mut buffer = KVec::from_elem(0u8, len.min(CHUNK), GFP_KERNEL_ACCOUNT)?;
                // All of it is within the piece, or nothing is copied.
                let piece = self.state.lock().piece(start, len)?;
                while !to.is_empty() {
                    let done = len - to.len();
                    let count = to.len().min(CHUNK);
                    let part = buffer.get_mut(..count).ok_or(EINVAL)?;
                    self.state.lock().copy_piece(piece, start + done, part)?;
                    to.write_slice(part)?;
                }
            }
        }
        Ok(len)
    }

    /// Writes to the region. `EINVAL` for anything but `device_state`, `data_size`, and the data section while resuming.
    pub(crate) fn write_region(&self, buf: UserPtr, len: usize, offset: u64) -> Result<usize> {
        let mut from = UserSlice::new(buf, len).reader();
        match Place::of(offset, len)? {
            Place::Header(Field::DeviceState) => self.write_state(from.read::<u32>()?)?,
            Place::Header(Field::Reserved) => {}
            Place::Header(Field::DataSize) => self.take_piece(from.read::<u64>()?)?,
            Place::Header(Field::PendingBytes | Field::DataOffset) => return Err(EINVAL),
            Place::Data(start) => {
                let mut buffer = KVec::from_elem(0u8, len.min(CHUNK), GFP_KERNEL_ACCOUNT)?;
                while !from.is_empty() {
                    let done = len - from.len();
                    let count = from.len().min(CHUNK);
                    let chunk = buffer.get_mut(..count).ok_or(EINVAL)?;
                    from.read_slice(chunk)?;
                    let mut guard = self.state.lock();
                    let state = &mut *guard;
                    state.resuming_by_region()?;
                    let staging = state.staging.as_mut().ok_or(ENODEV)?;
                    staging.put(start + done, chunk)?;
                }
            }
        }
        Ok(len)
    }

    /// Reads a field of the header: its value, and what follows once the user knows it.
    fn read_field(&self, field: Field) -> Result<(u64, Consequence)> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        Ok(match field {
            Field::DeviceState => (
                V1State::from_v2(state.migration.state()).bits().into(),
                Consequence::None,
            ),
            Field::Reserved => (0, Consequence::None),
            Field::PendingBytes => state.pending(),
            Field::DataOffset if state.resuming_by_region().is_ok() => {
                (staging::OFFSET as u64, Consequence::None)
            }
            Field::DataOffset => {
                state.offer()?;
                (staging::OFFSET as u64, Consequence::None)
            }
            Field::DataSize => {
                let size = state.offer()?;
                let piece = Piece(state.migration.window.pieces);
                (size as u64, Consequence::Announced(piece))
            }
        })
    }

    /// The user knows what it read.
    fn told(&self, consequence: Consequence) {
        let piece = match consequence {
            Consequence::None => return,
            Consequence::Announced(piece) | Consequence::Taken(piece) => piece,
        };
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // Another thread of the user may have gone on meanwhile.
        if state.is_on_offer(piece) {
            match consequence {
                Consequence::Announced(_) => state.migration.window.announced = true,
                _ => {
                    state.acknowledge();
                    self.stream_moved(state);
                }
            }
        }
    }

    /// `device_state` was written. `EINVAL` for what is no state or cannot be reached, `EBUSY` while protocol v2 has the
    /// device, `EIO` in the error state, `ENOMEM`, `EINTR` when the caller is killed while a job goes on. The state is what it was if this fails.
    fn write_state(&self, bits: u32) -> Result {
        let _quiet = self.quiesce()?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let before = state.migration.state();
        let from = V1State::from_v2(before);
        let to = target(from, bits).map_err(|error| {
            state.reason.set(format_args!("{error}"));
            match error {
                TargetError::Failed => EIO,
                TargetError::Malformed(_) | TargetError::Blocked { .. } => EINVAL,
            }
        })?;
        // A state that the device is in already is nobody's change.
        if to == from {
            return Ok(());
        }
        state.migration.claim(Protocol::V1).inspect_err(|_| {
            state
                .reason
                .set(format_args!("protocol v2 has a migration under way"));
        })?;
        // Before anything changes: a session is not to fail for want of memory that could have been missed here.
        if state.staging.is_none() {
            state.staging = self.take_staging()?;
        }
        // The session goes on from pre-copy to stop-and-copy: the piece that the user has is not to come again.
        state.acknowledge();
        let result = state.walk(to.v2(), &mut ());
        if result.is_err() && state.walk(before, &mut ()).is_err() {
            state.give_up();
        }
        // What is left of a piece goes on with the session.
        let window = &mut state.migration.window;
        (window.offered, window.announced) = (0, false);
        if let Some(staging) = &mut state.staging {
            staging.clear();
        }
        state.migration.settle_owner(Protocol::V1);
        state.notify_state();
        self.progress.notify_all();
        self.settle(state);
        result
    }

    /// `data_size` was written: the piece in the data section is handed in. `EINVAL` when it is longer than the section or
    /// the device is not resuming by this protocol; otherwise as for a write to a data file.
    fn take_piece(&self, size: u64) -> Result {
        let size = usize::try_from(size).map_err(|_| EINVAL)?;
        if size > staging::LEN {
            return Err(EINVAL);
        }
        let mut buffer = KVec::from_elem(0u8, size.min(CHUNK), GFP_KERNEL_ACCOUNT)?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.resuming_by_region()?;
        let staging = state.staging.as_ref().ok_or(ENODEV)?;
        let mut done = 0;
        loop {
            // The user can change what is there at any time: it is looked at in the copy.
            let count = (size - done).min(CHUNK);
            let chunk = buffer.get_mut(..count).ok_or(EINVAL)?;
            staging.get(done, chunk)?;
            if let Some(Session::Resuming(resuming)) = state.migration.session_mut() {
                let device = &Of(&mut *state.device);
                resuming
                    .push(&state.values, device, chunk, &mut state.reason)
                    .map_err(refusal)?;
            }
            done += count;
            if done == size {
                break;
            }
        }
        self.stream_moved(state);
        Ok(())
    }
}

impl<T: Device> DeviceState<T> {
    /// The saving session, if it is this protocol's, and where the region stands in it. `EINVAL` otherwise.
    fn saving_by_region(&mut self) -> Result<(&mut Saving, &mut Window, &mut T)> {
        let owned = self.migration.is_owned_by(Protocol::V1);
        match (owned, self.migration.any_saving()) {
            (true, Some((saving, window))) => Ok((saving, window, &mut *self.device)),
            _ => Err(EINVAL),
        }
    }

    /// Whether the device is resuming by this protocol. `EINVAL` otherwise.
    fn resuming_by_region(&self) -> Result {
        match (
            self.migration.session(),
            self.migration.is_owned_by(Protocol::V1),
        ) {
            (Some(Session::Resuming(_)), true) => Ok(()),
            _ => Err(EINVAL),
        }
    }

    /// `pending_bytes`: what is left once the piece that the user knows the length of is done with, which it is when the user
    /// knows this; 0 where nothing is saved.
    fn pending(&mut self) -> (u64, Consequence) {
        let Ok((saving, window, device)) = self.saving_by_region() else {
            return (0, Consequence::None);
        };
        let left = saving.left(&Of(device)).total();
        match window.announced {
            true => (
                left.saturating_sub(window.offered) as u64,
                Consequence::Taken(Piece(window.pieces)),
            ),
            false => (left as u64, Consequence::None),
        }
    }

    /// The piece on offer is done with, if the user knows its length.
    fn acknowledge(&mut self) {
        if let Ok((saving, window, _)) = self.saving_by_region() {
            if window.announced {
                saving.hand_out(window.offered);
                window.chunk.consume(window.offered);
                (window.offered, window.announced) = (0, false);
            }
        }
    }

    /// Makes a piece available, unless there is one. Returns its length. `EINVAL` when nothing is left, `ENOMEM`.
    fn offer(&mut self) -> Result<usize> {
        let (saving, window, device) = self.saving_by_region()?;
        if window.offered > 0 {
            return Ok(window.offered);
        }
        saving.fill(&mut window.chunk, &mut Of(device))?;
        let len = window.chunk.len().min(staging::LEN);
        let window = &mut self.migration.window;
        let bytes = window.chunk.bytes().get(..len).unwrap_or_default();
        if bytes.is_empty() {
            return Err(EINVAL);
        }
        self.staging.as_mut().ok_or(ENODEV)?.put(0, bytes)?;
        window.offered = len;
        window.pieces += 1;
        Ok(len)
    }

    /// Whether the piece is still on offer.
    fn is_on_offer(&self, piece: Piece) -> bool {
        let window = &self.migration.window;
        window.offered > 0 && piece == Piece(window.pieces)
    }

    /// The piece on offer. `EINVAL` if these bytes are not in it.
    fn piece(&mut self, start: usize, len: usize) -> Result<Piece> {
        let (_, window, _) = self.saving_by_region()?;
        match start.checked_add(len) {
            Some(end) if end <= window.offered => Ok(Piece(window.pieces)),
            _ => Err(EINVAL),
        }
    }

    /// Copies bytes of a piece. `EINVAL` if it is not on offer any longer.
    fn copy_piece(&mut self, piece: Piece, start: usize, into: &mut [u8]) -> Result {
        if !self.is_on_offer(piece) {
            return Err(EINVAL);
        }
        let bytes = self.migration.window.chunk.bytes();
        let bytes = bytes.get(start..).and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(EINVAL)?);
        Ok(())
    }
}

/// Names a piece of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece(u64);

/// What follows once the user knows the value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consequence {
    None,
    /// The user may read the piece.
    Announced(Piece),
    /// The user has read the piece.
    Taken(Piece),
}
