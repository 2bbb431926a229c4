// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Protocol v1: the migration region, accessed in the order that the text of linux/vfio.h asked for until Linux 5.17.

use vfio_uapi::migration_v1::{Region, HEADER, PRE_COPY, RESUMING, RUNNING, SAVING, STOP};
use vfio_uapi::{Errno, Mapping};

use super::{Opened, Progress, Saved, CHUNK};
use crate::error::{Error, Result};

/// The region, and how its data section is accessed.
pub(super) struct Carrier<'o> {
    opened: &'o Opened,
    region: Region<'o>,
    mapping: Option<Mapping>,
}

impl<'o> Carrier<'o> {
    /// Finds the region and, if asked for, maps its data section. Fails unless the device can be migrated by this protocol.
    pub(super) fn find(opened: &'o Opened, mmap: bool) -> Result<Self> {
        let uuid = opened.instance.uuid;
        let region = Region::find(&opened.device).map_err(|error| {
            Error::failed(format!(
                "{uuid}: the device cannot be migrated by protocol v1: {error:#}"
            ))
        })?;
        let mapping = mmap.then(|| Mapping::of_data(&region)).transpose();
        Ok(Self {
            opened,
            region,
            mapping: mapping
                .map_err(|error| opened.failure("the data section cannot be mapped", error))?,
        })
    }

    fn to(&self, state: u32) -> Result<()> {
        let name = match state {
            STOP => "stop",
            RUNNING => "running",
            SAVING => "stop-and-copy",
            PRE_COPY => "pre-copy",
            _ => "resuming",
        };
        self.region.set_state(state).map_err(|error| {
            self.opened.failure(
                &format!("the device does not go to {name} ({state:03b})"),
                error,
            )
        })
    }

    /// Something of the header that cannot be read, or makes no sense.
    fn header(&self, what: &str, error: Errno) -> Error {
        self.opened
            .failure(&format!("{what} cannot be used"), error)
    }

    /// Where `length` bytes at `offset` of the region are in the mapping.
    fn mapped(&self, offset: u64, length: u64) -> Result<usize> {
        let data = self.region.data;
        let place = offset.checked_sub(data.offset);
        let place = place.filter(|place| {
            place
                .checked_add(length)
                .is_some_and(|end| end <= data.size)
        });
        place
            .and_then(|place| usize::try_from(place).ok())
            .ok_or_else(|| self.header("data_offset", Errno::ERANGE))
    }

    /// The next piece of the state. Reading `pending_bytes` after it tells the device that it was taken.
    fn piece(&self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let offset = self.region.data_offset();
        let offset = offset.map_err(|error| self.header("data_offset", error))?;
        let size = self.region.data_size();
        let size = size.map_err(|error| self.header("data_size", error))?;
        let end = offset.checked_add(size);
        if size == 0 || offset < HEADER || end.is_none_or(|end| end > self.region.size) {
            return Err(self.header("the place of the state", Errno::ERANGE));
        }
        if let Some(mapping) = &self.mapping {
            let place = self.mapped(offset, size)?;
            sink(&mapping.get(place, size as usize))?;
            return Ok(size);
        }
        let mut done = 0;
        while done < size {
            let step = (size - done).min(CHUNK as u64);
            let bytes = self.region.get(offset + done, step as usize);
            sink(&bytes.map_err(|error| self.opened.failure("the state cannot be read", error))?)?;
            done += step;
        }
        Ok(size)
    }

    /// All pieces that there are now. Tells how many bytes it were and how many are left.
    fn pieces(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        count: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut bytes = 0;
        loop {
            let pending = self.region.pending();
            let pending = pending.map_err(|error| self.header("pending_bytes", error))?;
            count(bytes, pending);
            if pending == 0 {
                return Ok(());
            }
            bytes += self.piece(sink)?;
        }
    }

    /// What [`super::Card::save`] does.
    pub(super) fn save(
        &self,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        let saved = self.save_phases(pre_copy, sink, progress);
        if saved.is_err() {
            // The first error is the one to report.
            let _ = self.region.set_state(RUNNING);
        }
        saved
    }

    fn save_phases(
        &self,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        let mut saved = Saved::default();
        if pre_copy {
            self.to(PRE_COPY)?;
            self.pieces(sink, &mut |bytes, _| {
                saved.pre_copy = bytes;
                progress(bytes, None);
            })?;
        }
        self.to(SAVING)?;
        let before = saved.pre_copy;
        self.pieces(sink, &mut |bytes, pending| {
            saved.stop_copy = bytes;
            progress(
                before + bytes,
                Some((before + bytes).saturating_add(pending)),
            );
        })?;
        self.to(STOP)?;
        Ok(saved)
    }

    pub(super) fn start_loading(&self) -> Result<()> {
        self.to(RESUMING)
    }

    /// Gives the device bytes, in as many pieces as the region has room for.
    pub(super) fn push(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let offset = self.region.data_offset();
            let offset = offset.map_err(|error| self.header("data_offset", error))?;
            let room = match &self.mapping {
                Some(mapping) => mapping.len() as u64,
                None => self.region.size.saturating_sub(offset),
            };
            if room == 0 || offset < HEADER {
                return Err(self.header("data_offset", Errno::ERANGE));
            }
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(CHUNK);
            let (piece, rest) = bytes.split_at(bytes.len().min(room));
            if let Some(mapping) = &self.mapping {
                mapping.put(self.mapped(offset, piece.len() as u64)?, piece);
            } else {
                let put = self.region.put(offset, piece);
                put.map_err(|error| self.opened.failure("the state is not taken", error))?;
            }
            let taken = self.region.set_data_size(piece.len() as u64);
            taken.map_err(|error| self.opened.failure("the state is refused", error))?;
            bytes = rest;
        }
        Ok(())
    }

    pub(super) fn finish_loading(&self) -> Result<()> {
        self.to(RUNNING)
    }
}
