// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Migration states, the state itself, and the log of what the device writes: all of them the driver's.

use ::migration::fsm;
use vfio_uapi::logging::{Logging, Report};
use vfio_uapi::{abi, DataFd, Errno, State};
use vfio_user_protocol::feature::{
    number as feature_number, Feature, Logged, LoggingReport, LoggingStart, Operation,
};
use vfio_user_protocol::progress::{Phase, Progress};
use vfio_user_protocol::refusal::errno::{EINVAL, EIO, ENODEV, ENOTTY};
use vfio_user_protocol::Limits;

use super::{number, Kernel, Open};
use crate::feature::{action, state_data, wanted_state, Action};
use crate::model::Owner;

/// `DEVICE_FEATURE` 1: the flags that the protocol has.
const FLAGS: u64 =
    (abi::VFIO_MIGRATION_STOP_COPY | abi::VFIO_MIGRATION_P2P | abi::VFIO_MIGRATION_PRE_COPY) as u64;

/// The file through which the state goes.
#[derive(Debug)]
pub(super) enum Data {
    /// It is read from here.
    Saved(DataFd),
    /// It is written here.
    Loaded(DataFd),
}

impl Data {
    /// What a new file is for, in the state that it came with; whether one is kept.
    fn of(state: u32, file: DataFd) -> Option<Self> {
        match state {
            _ if is(state, State::Resuming) => Some(Self::Loaded(file)),
            _ if saves(state) => Some(Self::Saved(file)),
            _ => None,
        }
    }
}

fn is(number: u32, state: State) -> bool {
    number == state as u32
}

fn saves(state: u32) -> bool {
    [State::StopCopy, State::PreCopy, State::PreCopyP2p]
        .into_iter()
        .any(|saving| is(state, saving))
}

impl Kernel {
    /// The driver's reason for what it has just refused, or what was refused and with which number if it says nothing.
    fn refused(&mut self, what: &str, error: Errno) -> u32 {
        let reason = match self.target.reason() {
            Some(reason) => reason,
            None => format!("{what}: {} ({error:?})", error.desc()),
        };
        self.refuse(reason, number(error))
    }

    pub(super) fn migration_feature(
        &mut self,
        feature: &Feature<'_>,
        limits: &Limits,
    ) -> Result<Option<Vec<u8>>, u32> {
        match (action(feature)?, feature.number) {
            (Action::Nothing, _) => self.probe(feature).map(|()| None),
            (Action::Get, _) => {
                let data = self.get(feature, limits)?;
                feature.has_room(data.len()).map_err(|e| e.errno())?;
                Ok(Some(data))
            }
            (Action::Set, feature_number::MIG_DEVICE_STATE) => {
                let state = wanted_state(feature)?;
                self.may_migrate(Owner::Client)?;
                let reached = self.set_state(state);
                self.settle_owner(Owner::Client);
                reached?;
                Ok(Some(state_data(state)))
            }
            (Action::Set, feature_number::DMA_LOGGING_START) => {
                self.start_log(feature.data).map(Some)
            }
            (Action::Set, _) => {
                let stopped = self.open()?.device.stop_logging();
                stopped.map_err(number).map(|()| None)
            }
        }
    }

    /// Whether the driver has the feature, too.
    fn probe(&mut self, feature: &Feature<'_>) -> Result<(), u32> {
        if feature.number == feature_number::REFUSAL {
            return Ok(());
        }
        let mut what = abi::VFIO_DEVICE_FEATURE_PROBE | u32::from(feature.number);
        if let Operation::Probe { get, set } = feature.operation {
            what |= if get { abi::VFIO_DEVICE_FEATURE_GET } else { 0 };
            what |= if set { abi::VFIO_DEVICE_FEATURE_SET } else { 0 };
        }
        let device = &self.open()?.device;
        device.feature(what, &mut []).map_err(number)
    }

    fn get(&mut self, feature: &Feature<'_>, limits: &Limits) -> Result<Vec<u8>, u32> {
        if feature.number == feature_number::REFUSAL {
            return Ok(self.reason.as_bytes().to_vec());
        }
        let device = &self.open()?.device;
        match feature.number {
            feature_number::MIGRATION => {
                let flags = device.migration_flags().map_err(number)?;
                Ok((flags & FLAGS).to_ne_bytes().to_vec())
            }
            feature_number::MIG_DEVICE_STATE => {
                let state = device.state().map_err(number)?;
                Ok(state_data(state as u32))
            }
            feature_number::MIG_DATA_SIZE => {
                let size = device.data_size().map_err(number)?;
                Ok(size.to_ne_bytes().to_vec())
            }
            feature_number::DMA_LOGGING_REPORT => self.report(feature, limits),
            _ => Err(ENOTTY),
        }
    }

    /// Goes to a state. An error leaves the device in the one that the driver stopped at.
    pub(super) fn set_state(&mut self, target: u32) -> Result<(), u32> {
        let Ok(wanted) = fsm::State::try_from(target) else {
            return Err(self.refuse(format!("there is no state {target}"), EINVAL));
        };
        let open = self.open.as_mut().ok_or(ENODEV)?;
        let moved = open.device.move_to_number(target);
        let Err(error) = moved.result else {
            open.state = wanted;
            match moved.data {
                Some(file) => {
                    open.data = Data::of(target, file);
                    (open.loaded, open.moved) = (Phase::Setup, 0);
                    self.begun += u64::from(open.data.is_some());
                }
                // From one phase of saving to the next, the file stays the same.
                None if saves(target) || is(target, State::Resuming) => {}
                None => open.data = None,
            }
            return Ok(());
        };
        // One that does not even say where it is has failed.
        let state = open.device.state().unwrap_or(State::Error) as u32;
        open.state = fsm::State::try_from(state).unwrap_or(fsm::State::Error);
        if !saves(state) && !is(state, State::Resuming) {
            open.data = None;
        }
        Err(self.refused(&format!("the device does not go to state {target}"), error))
    }

    pub(super) fn read_state(&mut self, most: usize) -> Result<Vec<u8>, u32> {
        let open = self.open.as_mut().ok_or(ENODEV)?;
        let Some(Data::Saved(file)) = &open.data else {
            return Err(self.refuse("no state is being saved".to_string(), EINVAL));
        };
        let mut data = vec![0; most];
        let mut done = 0;
        while let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                // The end, and nothing more for now of a device that still runs.
                Ok(0) | Err(Errno::ENOMSG) => break,
                Ok(length) => done += length,
                Err(Errno::EINTR) => {}
                // What came before is not to be lost. The next read finds the error again.
                Err(_) if done > 0 => break,
                Err(error) => return Err(self.refused("the state cannot be read", error)),
            }
        }
        data.truncate(done);
        open.moved = open.moved.saturating_add(done as u64);
        Ok(data)
    }

    pub(super) fn write_state(&mut self, bytes: &[u8]) -> Result<(), u32> {
        let written = self.try_write_state(bytes);
        let (open, target) = (self.open.as_mut(), &self.target);
        // The last phase is followed by none.
        if let Some(open) =
            open.filter(|open| open.loaded == Phase::Setup || open.loaded == Phase::PreCopy)
        {
            // Of a driver that does not tell, it stays what it was.
            open.loaded = target.phase().unwrap_or(open.loaded);
        }
        written
    }

    fn try_write_state(&mut self, bytes: &[u8]) -> Result<(), u32> {
        let open = self.open.as_mut().ok_or(ENODEV)?;
        let Some(Data::Loaded(file)) = &open.data else {
            return Err(self.refuse("no state is being loaded".to_string(), EINVAL));
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(EIO),
                Ok(length) => {
                    rest = rest.get(length..).unwrap_or_default();
                    open.moved = open.moved.saturating_add(length as u64);
                }
                Err(Errno::EINTR) => {}
                // An earlier error was told already.
                Err(Errno::ENODEV) => return Err(ENODEV),
                Err(error) => return Err(self.refused("the state is refused", error)),
            }
        }
        Ok(())
    }

    /// How far the session has come. The driver is asked nothing: an observer costs its user no system call.
    pub(super) fn migration_progress(&self) -> Progress {
        let open = self.open.as_ref();
        let state = open.map_or(fsm::State::Running, |open| open.state);
        let of_session = open.and_then(|open| match open.data.as_ref()? {
            Data::Loaded(_) => Some((open.loaded, open.moved)),
            Data::Saved(_) if state == fsm::State::StopCopy => Some((Phase::StopCopy, open.moved)),
            Data::Saved(_) => Some((Phase::PreCopy, open.moved)),
        });
        let (phase, bytes) = of_session.unwrap_or_default();
        Progress {
            state: state.as_u32(),
            phase,
            bytes,
            sessions: self.begun,
        }
    }

    /// Starts a log, and gives the data back with the page size that the driver chose.
    fn start_log(&mut self, data: &[u8]) -> Result<Vec<u8>, u32> {
        let start = LoggingStart::decode(data).map_err(|e| e.errno())?;
        let ranges: Vec<(u64, u64)> = match start.logged {
            // The kernel has no word for it. The last page has none that the sum of address and length could be.
            Logged::Everything => vec![(0, 0u64.wrapping_sub(start.page_size))],
            logged => logged.ranges().collect(),
        };
        let logging = Logging {
            page_size: start.page_size,
            ..Logging::of(&ranges)
        };
        let started = self.open()?.device.start_logging(&logging);
        let page_size = started.map_err(|error| {
            let reason = format!("a log: {} ({error:?})", error.desc());
            self.refuse(reason, number(error))
        })?;
        let mut answer = data.to_vec();
        if let Some(chosen) = answer.first_chunk_mut() {
            *chosen = page_size.to_ne_bytes();
        }
        Ok(answer)
    }

    /// What the device wrote of a range.
    fn report(&mut self, feature: &Feature<'_>, limits: &Limits) -> Result<Vec<u8>, u32> {
        let most = limits.max_data_xfer_size as usize;
        let report = LoggingReport::decode(feature.data, most).map_err(|e| e.errno())?;
        let len = LoggingReport::LEN + report.bitmap_len();
        // Before anything of that length is made.
        feature.has_room(len).map_err(|e| e.errno())?;
        let Open { device, .. } = self.open()?;
        // The kernel may touch a page more, where a range begins within one.
        let mut bitmap = vec![0; report.bitmap_len() / 8 + 1];
        let reported = device.report_logging(Report {
            iova: report.iova,
            length: report.length,
            page_size: report.page_size,
            bitmap: Some(&mut bitmap),
        });
        reported.map_err(number)?;
        let mut data = feature.data.to_vec();
        data.truncate(LoggingReport::LEN);
        data.extend(bitmap.iter().flat_map(|word| word.to_ne_bytes()));
        data.truncate(len);
        Ok(data)
    }
}
