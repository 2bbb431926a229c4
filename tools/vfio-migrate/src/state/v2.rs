// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Protocol v2: state requests, and a data file.

use vfio_uapi::{abi, DataFd, Errno, State};

use super::{errno, Opened, Progress, Saved, CHUNK};
use crate::error::{Error, Result};

/// VFIO_MIGRATION_* of the device. Fails unless it can be migrated by this protocol.
pub(super) fn probe(opened: &Opened) -> Result<u64> {
    let uuid = opened.instance.uuid;
    opened
        .device
        .migration_flags()
        .map_err(|error| match error {
            Errno::ENOTTY => Error::failed(format!(
                "{uuid}: the device cannot be migrated by protocol v2"
            )),
            error => Error::failed(errno(
                &format!("{uuid}: VFIO_DEVICE_FEATURE_MIGRATION"),
                error,
            )),
        })
}

/// Whether it can save while it runs.
pub(super) fn has_pre_copy(opened: &Opened) -> Result<bool> {
    Ok(probe(opened)? & u64::from(abi::VFIO_MIGRATION_PRE_COPY) != 0)
}

fn refused(opened: &Opened, target: State, error: Errno) -> Error {
    opened.failure(&format!("the device does not go to {target:?}"), error)
}

fn switch(opened: &Opened, target: State) -> Result<()> {
    let result = opened.device.switch(target);
    result.map_err(|error| refused(opened, target, error))
}

fn start(opened: &Opened, target: State) -> Result<DataFd> {
    let result = opened.device.start(target);
    result.map_err(|error| refused(opened, target, error))
}

/// What [`super::Card::save`] does.
pub(super) fn save(
    opened: &Opened,
    pre_copy: bool,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    progress: &mut Progress<'_>,
) -> Result<Saved> {
    let saved = save_phases(opened, pre_copy, sink, progress);
    if saved.is_err() {
        // The first error is the one to report.
        let _ = opened.device.switch(State::Running);
    }
    saved
}

fn save_phases(
    opened: &Opened,
    pre_copy: bool,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    progress: &mut Progress<'_>,
) -> Result<Saved> {
    let expected = opened.device.data_size().ok();
    let mut saved = Saved::default();
    let data = if pre_copy {
        let data = start(opened, State::PreCopy)?;
        pump(opened, &data, sink, &mut |bytes| {
            saved.pre_copy = bytes;
            progress(bytes, None);
        })?;
        switch(opened, State::StopCopy)?;
        data
    } else {
        start(opened, State::StopCopy)?
    };
    let before = saved.pre_copy;
    pump(opened, &data, sink, &mut |bytes| {
        saved.stop_copy = bytes;
        progress(
            before + bytes,
            expected.map(|expected| expected.saturating_add(before)),
        );
    })?;
    switch(opened, State::Stop)?;
    Ok(saved)
}

/// Moves what there is to read.
fn pump(
    opened: &Opened,
    data: &DataFd,
    sink: &mut dyn FnMut(&[u8]) -> Result<()>,
    count: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        match data.read(&mut buffer) {
            Ok(0) | Err(Errno::ENOMSG) => return Ok(()),
            Ok(len) => {
                sink(&buffer[..len])?;
                bytes += len as u64;
                count(bytes);
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(opened.failure("the state cannot be read", error)),
        }
    }
}

/// A device that takes a state.
pub(super) struct Resuming(DataFd);

impl Resuming {
    pub(super) fn start(opened: &Opened) -> Result<Self> {
        start(opened, State::Resuming).map(Self)
    }

    pub(super) fn push(&mut self, opened: &Opened, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.0.write(bytes) {
                Ok(0) => return Err(opened.failure("the state is not taken", Errno::EIO)),
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(opened.failure("the state is refused", error)),
            }
        }
        Ok(())
    }

    pub(super) fn finish(self, opened: &Opened) -> Result<()> {
        drop(self.0);
        switch(opened, State::Stop)?;
        switch(opened, State::Running)
    }
}
