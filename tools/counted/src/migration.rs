// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The state machine, and a state saved and loaded by both protocols.

use anyhow::{ensure, Context, Result};
use vfio_uapi::migration_v1::{Region, RESUMING, RUNNING, SAVING};
use vfio_uapi::{Device, Mapping, State};

use crate::report::Report;
use crate::{Subject, OURS};

/// Bytes asked for at a time.
const STEP: usize = 4096;

/// Ways from RUNNING through these states and back, which together take every arc of the state machine but those of a state that is
/// loaded: these are in the saving and loading.
const WAYS: &[(&str, &[State])] = &[
    ("RUNNING, STOP, RUNNING", &[State::Stop]),
    ("RUNNING, RUNNING_P2P, RUNNING", &[State::RunningP2p]),
    ("RUNNING, PRE_COPY, RUNNING", &[State::PreCopy]),
    (
        "RUNNING, RUNNING_P2P, PRE_COPY_P2P, RUNNING",
        &[State::RunningP2p, State::PreCopyP2p],
    ),
    (
        "RUNNING, PRE_COPY, PRE_COPY_P2P, PRE_COPY, RUNNING",
        &[State::PreCopy, State::PreCopyP2p, State::PreCopy],
    ),
    ("RUNNING, STOP_COPY, RUNNING", &[State::StopCopy]),
    (
        "RUNNING, PRE_COPY, STOP_COPY, RUNNING",
        &[State::PreCopy, State::StopCopy],
    ),
    (
        "RUNNING, PRE_COPY, PRE_COPY_P2P, STOP_COPY, RUNNING",
        &[State::PreCopy, State::PreCopyP2p, State::StopCopy],
    ),
];

/// Everything about migrating a card.
pub fn add(report: &Report, subject: &Subject) -> Result<()> {
    let device = subject.open()?;
    let name = subject.name;
    for (operation, states) in WAYS {
        report.settled_row(operation, name, || {
            // A data file is closed once its session is over, as users do.
            let mut data = None;
            for state in *states {
                data = device.move_to(*state)?.or(data);
            }
            Ok(device.switch(State::Running)?)
        })?;
    }
    report.settled_row("RUNNING, RESUMING, reset", name, || {
        let _data = device.start(State::Resuming)?;
        Ok(device.reset()?)
    })?;
    pre_copy_info(report, name, &device)?;
    report.settled_row("save and load by v2", name, || {
        let out = device.start(State::StopCopy)?;
        let state = out.read_all(STEP)?;
        ensure!(!state.is_empty(), "the device has no state");
        drop(out);
        let into = device.start(State::Resuming)?;
        into.write_all(&state, state.len())?;
        drop(into);
        Ok(device.switch(State::Running)?)
    })?;
    if name == OURS {
        by_region(report, name, &device)?;
    }
    Ok(())
}

fn pre_copy_info(report: &Report, name: &str, device: &Device) -> Result<()> {
    let data = device.start(State::PreCopy)?;
    report.row("GET_PRECOPY_INFO", name, || {
        data.precopy_info()?;
        Ok(())
    })?;
    drop(data);
    Ok(device.switch(State::Running)?)
}

/// The data section of the migration region, and how its bytes are moved.
struct Window<'a> {
    region: Region<'a>,
    mapping: Option<Mapping>,
}

impl Window<'_> {
    /// Takes what the device offers, piece by piece.
    fn save(&self) -> Result<Vec<Vec<u8>>> {
        self.region.set_state(SAVING)?;
        let mut pieces = Vec::new();
        while self.region.pending()? > 0 {
            let offset = self.region.data_offset()?;
            let length = usize::try_from(self.region.data_size()?)?;
            pieces.push(match &self.mapping {
                Some(mapping) => mapping.get(self.mapped(offset)?, length),
                None => self.region.get(offset, length)?,
            });
        }
        Ok(pieces)
    }

    /// Hands pieces in.
    fn load(&self, pieces: &[Vec<u8>]) -> Result<()> {
        self.region.set_state(RESUMING)?;
        for piece in pieces {
            let offset = self.region.data_offset()?;
            match &self.mapping {
                Some(mapping) => mapping.put(self.mapped(offset)?, piece),
                None => self.region.put(offset, piece)?,
            }
            self.region.set_data_size(piece.len() as u64)?;
        }
        Ok(())
    }

    /// Where a place of the region is in the mapping.
    fn mapped(&self, offset: u64) -> Result<usize> {
        let within = offset.checked_sub(self.region.data.offset);
        Ok(usize::try_from(within.context("not in the data section")?)?)
    }
}

fn by_region(report: &Report, name: &str, device: &Device) -> Result<()> {
    let region = Region::find(device)?;
    for (operation, mapping) in [
        ("save and load by v1, read and write", None),
        (
            "save and load by v1, mapped",
            Some(Mapping::of_data(&region)?),
        ),
    ] {
        let window = Window { region, mapping };
        report.settled_row(operation, name, || {
            let pieces = window.save()?;
            ensure!(!pieces.is_empty(), "the device has no state");
            region.set_state(0)?;
            window.load(&pieces)?;
            Ok(region.set_state(RUNNING)?)
        })?;
    }
    Ok(())
}
