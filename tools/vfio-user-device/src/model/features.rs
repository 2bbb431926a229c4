// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Features, saved state, and asking for the log of what the device writes.
//!
//! The state machine, the session and the stream are the driver's. What is refused there with a number is refused here with the
//! same one, and what the driver would keep as the reason in sysfs is told to whoever started the program, and to a client that
//! asks for it.

use migration::fsm::{State, Support};
use migration::log::{Log, LogError, Range};
use migration::model::Values;
use migration::reason::Reason;
use migration::session::machine::{Machine, Refused, Session};
use migration::session::{Chunk, Phase};
use migration::stream::ErrorClass;
use vfio_user_protocol::feature::{number, Feature, Logged, LoggingReport, LoggingStart};
use vfio_user_protocol::progress::{self, Progress};
use vfio_user_protocol::refusal::errno::{EINVAL, EIO, ENODEV, ENOMEM, ENOTTY};
use vfio_user_protocol::Limits;

use super::log::WriteLog;
use crate::device::Device;
use crate::feature::state_data;

/// Every device has pre-copy and the states for several devices, as those of the driver.
pub(super) const SUPPORT: Support = Support {
    precopy: true,
    p2p: true,
};

/// The migration side of a device.
#[derive(Debug)]
pub(super) struct Migration<I> {
    pub(super) machine: Machine<Vec<u8>, I>,
    /// How many sessions there were before the device was given other parameters.
    pub(super) earlier_sessions: u64,
    /// Bytes of the saving session that were not read yet.
    chunk: Chunk<Vec<u8>>,
    /// What the device writes, if the client wants to know.
    pub(super) log: Option<WriteLog>,
    /// Why migrating was refused last.
    pub(super) reason: Reason,
    /// Whether nobody has been told of that yet.
    is_news: bool,
}

impl<I> Default for Migration<I> {
    fn default() -> Self {
        Self {
            machine: Machine::default(),
            earlier_sessions: 0,
            chunk: Chunk::new(),
            log: None,
            reason: Reason::none(),
            is_news: false,
        }
    }
}

impl<I> Migration<I> {
    /// Whether the device has effects.
    pub(super) fn is_running(&self) -> bool {
        self.machine.state().is_running()
    }

    /// How many sessions have begun since there is the device.
    pub(super) fn sessions(&self) -> u64 {
        self.earlier_sessions
            .saturating_add(self.machine.sessions())
    }

    /// How far the session has come, in the words of the driver.
    pub(super) fn progress(&self) -> Progress {
        let phase = |phase| match phase {
            Phase::PreCopy => progress::Phase::PreCopy,
            Phase::StopCopy => progress::Phase::StopCopy,
        };
        let (phase, bytes) = match self.machine.session() {
            None => (progress::Phase::None, 0),
            Some(session) => (
                session.phase().map_or(progress::Phase::Setup, phase),
                session.bytes(),
            ),
        };
        Progress {
            state: self.machine.state().as_u32(),
            phase,
            bytes,
            sessions: self.sessions(),
        }
    }

    /// The reason of a refusal that was not told yet.
    pub(super) fn take_news(&mut self) -> Option<&str> {
        std::mem::take(&mut self.is_news).then(|| self.reason.as_str())
    }

    /// Keeps the reason of a refusal and hands its number on.
    pub(super) fn refuse(&mut self, reason: std::fmt::Arguments<'_>, errno: u32) -> u32 {
        self.reason.set(reason);
        self.is_news = true;
        errno
    }

    /// The device was reset: running, without a session. The log is the client's and stays.
    pub(super) fn reset<D: Device<Incoming = I>>(&mut self, device: &mut D) {
        self.machine.reset(device);
        self.chunk = Chunk::new();
    }

    /// Whoever migrated the device is gone. One that had stopped for that works again.
    pub(super) fn close<D: Device<Incoming = I>>(&mut self, device: &mut D) {
        let was_running = self.is_running();
        self.reset(device);
        if !was_running {
            device.resume();
        }
    }

    /// The data of a feature that is read.
    pub(super) fn get<D: Device<Incoming = I>>(
        &mut self,
        feature: &Feature<'_>,
        values: &Values<'_>,
        device: &D,
        limits: &Limits,
    ) -> Result<Vec<u8>, u32> {
        let data = match feature.number {
            number::MIGRATION => SUPPORT.flags().to_ne_bytes().to_vec(),
            number::MIG_DEVICE_STATE => state_data(self.machine.state().as_u32()),
            number::MIG_DATA_SIZE => {
                let size = self.machine.data_size(values, device) as u64;
                size.to_ne_bytes().to_vec()
            }
            number::DMA_LOGGING_REPORT => self.report(feature, limits)?,
            number::REFUSAL => self.reason.as_str().as_bytes().to_vec(),
            _ => return Err(ENOTTY),
        };
        feature.has_room(data.len()).map_err(|e| e.errno())?;
        Ok(data)
    }

    /// What the device wrote of a range since that was asked for last.
    fn report(&mut self, feature: &Feature<'_>, limits: &Limits) -> Result<Vec<u8>, u32> {
        let most = limits.max_data_xfer_size as usize;
        let report = LoggingReport::decode(feature.data, most).map_err(|e| e.errno())?;
        migration::log::check_page_size(report.page_size).map_err(|_| EINVAL)?;
        let log = self.log.as_mut().ok_or(EINVAL)?;
        let range = Range::new(report.iova, report.length).map_err(|_| EINVAL)?;
        log.covers(range).map_err(|_| EINVAL)?;
        // Before anything of that length is made, and before anything is forgotten.
        let len = LoggingReport::LEN + report.bitmap_len();
        feature.has_room(len).map_err(|e| e.errno())?;
        let mut data = feature.data.to_vec();
        data.truncate(LoggingReport::LEN);
        data.extend(log.take(range, report.page_size, report.bitmap_len()));
        Ok(data)
    }

    /// Starts a log.
    pub(super) fn start_log(&mut self, data: &[u8]) -> Result<(), u32> {
        let start = LoggingStart::decode(data).map_err(|e| e.errno())?;
        let log = match start.logged {
            Logged::Everything => Log::of_everything(start.page_size),
            logged => ranges(&logged, start.page_size)
                .and_then(|ranges| Log::new(start.page_size, ranges)),
        };
        let log = log.map_err(|error| self.refuse(format_args!("{error}"), EINVAL))?;
        if self.log.is_some() {
            return Err(self.refuse(format_args!("a log is on already"), EINVAL));
        }
        self.log = Some(WriteLog::new(log));
        Ok(())
    }

    /// Ends the log, if there is one.
    pub(super) fn stop_log(&mut self) {
        self.log = None;
    }

    /// The next arc on the way to a state; `None` when it is reached.
    pub(super) fn next(&mut self, target: State) -> Result<Option<migration::fsm::Arc>, u32> {
        let next = self.machine.next(target, SUPPORT, &mut self.reason);
        next.map_err(|refused| self.not_reached(refused))
    }

    /// The state with this number.
    pub(super) fn target(&mut self, number: u32) -> Result<State, u32> {
        let target = self.machine.target(number, &mut self.reason);
        target.map_err(|refused| self.not_reached(refused))
    }

    /// Takes an arc.
    pub(super) fn take<D: Device<Incoming = I>>(
        &mut self,
        arc: migration::fsm::Arc,
        values: &Values<'_>,
        device: &mut D,
    ) -> Result<(), u32> {
        let (reason, mut begins) = (&mut self.reason, false);
        let open = |_, _| {
            begins = true;
            Ok(())
        };
        let taken = self.machine.take(arc, values, device, reason, open);
        if begins {
            self.chunk = Chunk::new();
        }
        taken.map_err(|refused| self.not_reached(refused))
    }

    fn not_reached(&mut self, refused: Refused<u32>) -> u32 {
        self.is_news = true;
        match refused {
            Refused::Failed => EIO,
            Refused::NoPath | Refused::Incomplete => EINVAL,
            Refused::Device(errno) => errno,
        }
    }

    /// The next bytes of the stream: as many as there are, up to `most`. None at the end, and while nothing more has come of a
    /// device that still runs: an error would end the client's migration.
    pub(super) fn read<D: Device<Incoming = I>>(
        &mut self,
        device: &mut D,
        most: usize,
    ) -> Result<Vec<u8>, u32> {
        let Some(Session::Saving(saving)) = self.machine.session_mut() else {
            return Err(self.refuse(format_args!("no state is being saved"), EINVAL));
        };
        let mut data = Vec::new();
        while data.len() < most {
            match saving.fill(&mut self.chunk, device) {
                // What came before is not to be lost.
                Err(_) if !data.is_empty() => break,
                result => result?,
            }
            let part = self.chunk.bytes();
            let part = part.get(..part.len().min(most - data.len()));
            let part = part.unwrap_or_default();
            if part.is_empty() {
                break;
            }
            data.extend_from_slice(part);
            let count = part.len();
            saving.hand_out(count);
            self.chunk.consume(count);
        }
        Ok(data)
    }

    /// Takes the next bytes of a stream.
    ///
    /// `EINVAL` for bytes that are no stream that this device takes, `ENOMEM` for records longer than it reads and for what there is no
    /// memory for, `ENODEV` after an earlier error.
    pub(super) fn write<D: Device<Incoming = I>>(
        &mut self,
        values: &Values<'_>,
        device: &D,
        bytes: &[u8],
    ) -> Result<(), u32> {
        let reason = &mut self.reason;
        match self.machine.session_mut() {
            Some(Session::Resuming(resuming)) => {
                let pushed = resuming.push(values, device, bytes, reason);
                pushed.map_err(|class| {
                    self.is_news |= class != ErrorClass::Poisoned;
                    match class {
                        ErrorClass::Invalid | ErrorClass::Unsupported => EINVAL,
                        ErrorClass::TooBig => ENOMEM,
                        ErrorClass::Poisoned => ENODEV,
                    }
                })
            }
            _ => Err(self.refuse(format_args!("no state is being loaded"), EINVAL)),
        }
    }

    /// Bytes that are left of pre-copy: from its beginning, and changed since.
    pub(super) fn precopy_left<D: Device<Incoming = I>>(
        &self,
        device: &D,
    ) -> Result<(u64, u64), u32> {
        let left = self.machine.precopy_left(device).ok_or(EINVAL)?;
        Ok((left.initial as u64, left.dirty as u64))
    }
}

/// Ranges in ascending order, of whole pages.
fn ranges(logged: &Logged<'_>, page_size: u64) -> Result<Vec<Range>, LogError> {
    let range = |(first, length): (u64, u64)| match (first | length) & (page_size - 1) {
        0 => Range::new(first, length),
        _ => Err(LogError::Range),
    };
    let mut ranges = logged.ranges().map(range).collect::<Result<Vec<_>, _>>()?;
    ranges.sort_unstable();
    Ok(ranges)
}
