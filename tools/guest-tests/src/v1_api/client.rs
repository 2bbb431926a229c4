// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What QEMU 7.2 does with the migration region, access by access (hw/vfio/migration.c).

use anyhow::{ensure, Context};

use super::mapping::Mapping;
use super::region::{Region, ERROR, MASK, RESUMING, RUNNING, SAVING};
use crate::v2_api::check::{equal, Named};
use crate::vfio::{self, Errno};

/// How the bytes of the data section are moved.
#[derive(Clone, Copy)]
pub enum Carrier<'a> {
    /// By accesses of 8, 4, 2 or 1 bytes, as the place in the file is aligned: QEMU without a mapping.
    Words,
    /// By accesses of so many bytes.
    Steps(usize),
    /// Through a mapping of the data section: QEMU.
    Map(&'a Mapping),
}

/// A virtual machine monitor with one device that it migrates.
pub struct Client<'a> {
    /// The region.
    pub region: Region<'a>,
    carrier: Carrier<'a>,
    /// The answer of the last read of `pending_bytes`, until a piece was saved.
    pending: u64,
}

impl<'a> Client<'a> {
    /// A monitor that has just found the region.
    pub fn new(region: Region<'a>, carrier: Carrier<'a>) -> Self {
        Self {
            region,
            carrier,
            pending: 0,
        }
    }

    /// Every state change: reads the state, combines it with `mask` and `value`, writes it; where that fails it looks what the
    /// state is now. ENOTRECOVERABLE where QEMU would end itself with `abort()`.
    fn change(&self, mask: u32, value: u32) -> vfio::Result<()> {
        let state = (self.region.state()? & mask) | value;
        if state & RESUMING != 0 && state & (SAVING | RUNNING) != 0 {
            return Err(Errno::EINVAL);
        }
        self.region
            .set_state(state)
            .map_err(|error| match self.region.state() {
                Ok(now) if now & MASK != ERROR => error,
                _ => Errno::ENOTRECOVERABLE,
            })
    }

    /// The virtual machine starts or goes on.
    pub fn vm_start(&self) -> anyhow::Result<()> {
        self.change(!MASK, RUNNING).named("RUNNING at VM start")
    }

    /// The virtual machine stops.
    pub fn vm_stop(&self) -> anyhow::Result<()> {
        self.change(!RUNNING, 0).named("not RUNNING at VM stop")
    }

    /// The virtual machine stops to be saved to disk.
    pub fn vm_stop_for_savevm(&self) -> anyhow::Result<()> {
        self.change(!RUNNING, SAVING)
            .named("SAVING and not RUNNING at VM stop")
    }

    /// `.save_setup`
    pub fn save_setup(&self) -> anyhow::Result<()> {
        self.change(MASK, SAVING).named("SAVING in save_setup")
    }

    /// `.save_pending`
    pub fn save_pending(&mut self) -> anyhow::Result<u64> {
        self.pending = self.region.pending().named("pending_bytes")?;
        Ok(self.pending)
    }

    /// `.save_iterate`: a record, or nothing if nothing is pending.
    pub fn save_iterate(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        if self.pending == 0 && self.save_pending()? == 0 {
            return Ok(None);
        }
        let record = self.save_buffer()?;
        self.pending = 0;
        Ok(Some(record))
    }

    /// One piece of the stream. Fails where QEMU would fail, lose something or not come to an end.
    fn save_buffer(&self) -> anyhow::Result<Vec<u8>> {
        let offset = self.region.data_offset().named("data_offset")?;
        let size = self.region.data_size().named("data_size")?;
        ensure!(
            size > 0,
            "data_size is 0 while bytes are pending: the state would be cut off"
        );
        ensure!(
            offset
                .checked_add(size)
                .is_some_and(|end| end <= self.region.size),
            "data_offset {offset:#x} + data_size {size:#x} is beyond the region's {:#x}",
            self.region.size
        );
        self.read_data(offset, size as usize)
    }

    /// `.save_live_complete_precopy`: the rest, as records; then the device is stopped.
    pub fn complete_precopy(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        self.change(!RUNNING, SAVING)
            .named("SAVING and not RUNNING in complete_precopy")?;
        let mut records = Vec::new();
        self.save_pending()?;
        while self.pending > 0 {
            records.push(self.save_buffer()?);
            self.save_pending()?;
        }
        self.change(!SAVING, 0)
            .named("not SAVING in complete_precopy")?;
        Ok(records)
    }

    /// A whole live migration, source's side: records in order.
    pub fn save_live(&mut self) -> anyhow::Result<Vec<Vec<u8>>> {
        self.save_setup()?;
        let mut records = Vec::new();
        while self.save_pending()? > 0 {
            records.extend(self.save_iterate()?);
        }
        self.vm_stop()?;
        records.extend(self.complete_precopy()?);
        Ok(records)
    }

    /// Migration was cancelled or failed.
    pub fn cancelled(&self) -> anyhow::Result<()> {
        self.change(!(SAVING | RESUMING), RUNNING)
            .named("RUNNING after a cancelled migration")
    }

    /// `.load_setup`
    pub fn load_setup(&self) -> anyhow::Result<()> {
        self.change(!MASK, RESUMING).named("RESUMING in load_setup")
    }

    /// `.load_state` of one record: in as many pieces as the region asks for. The error is that of the write of `data_size`.
    pub fn load_record(&self, mut record: &[u8]) -> anyhow::Result<vfio::Result<()>> {
        while !record.is_empty() {
            let offset = self.region.data_offset().named("data_offset")?;
            let room = self
                .region
                .size
                .checked_sub(offset)
                .context("data_offset is beyond the region")?;
            ensure!(room > 0, "no room behind data_offset: QEMU would not end");
            let (piece, rest) = record.split_at(record.len().min(room as usize));
            self.write_data(offset, piece)?;
            if let Err(error) = self.region.set_data_size(piece.len() as u64) {
                return Ok(Err(error));
            }
            record = rest;
        }
        Ok(Ok(()))
    }

    /// A whole migration, destination's side, up to the start of the virtual machine.
    pub fn load(&self, records: &[Vec<u8>]) -> anyhow::Result<()> {
        self.load_setup()?;
        for (number, record) in records.iter().enumerate() {
            self.load_record(record)?
                .named(format!("data_size of record {number}"))?;
        }
        self.vm_start()
    }

    fn read_data(&self, offset: u64, length: usize) -> anyhow::Result<Vec<u8>> {
        let mut all = vec![0; length];
        let mut done = 0;
        while done < length {
            let place = offset + done as u64;
            let step = match self.carrier {
                Carrier::Words => word_at(self.region.place(place), length - done),
                Carrier::Steps(step) => step.min(length - done),
                Carrier::Map(mapping) => return Ok(mapping.get(self.mapped(offset)?, length)),
            };
            let read = self
                .region
                .read(place, &mut all[done..done + step])
                .named(format!("read of {step} bytes at {place:#x}"))?;
            equal("bytes read", read, step)?;
            done += step;
        }
        Ok(all)
    }

    fn write_data(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let place = offset + done as u64;
            let step = match self.carrier {
                Carrier::Words => word_at(self.region.place(place), bytes.len() - done),
                Carrier::Steps(step) => step.min(bytes.len() - done),
                Carrier::Map(mapping) => {
                    mapping.put(self.mapped(offset)?, bytes);
                    return Ok(());
                }
            };
            self.region
                .put(place, &bytes[done..done + step])
                .named(format!("write of {step} bytes at {place:#x}"))?;
            done += step;
        }
        Ok(())
    }

    /// Where a place of the region is in a mapping of the data section.
    fn mapped(&self, offset: u64) -> anyhow::Result<usize> {
        let place = offset.checked_sub(self.region.data.offset);
        Ok(place.context("data_offset is before what can be mapped")? as usize)
    }
}

/// How many bytes QEMU accesses at once (`vfio_mig_rw`).
fn word_at(place: i64, left: usize) -> usize {
    let fits = |size: &usize| left >= *size && place % *size as i64 == 0;
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// The stream that records make.
pub fn stream(records: &[Vec<u8>]) -> Vec<u8> {
    records.concat()
}
