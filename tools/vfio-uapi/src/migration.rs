// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Migration version 2: the states and the features of linux/vfio.h.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::abi;
use crate::{DataFd, Device, Errno, Result};

/// `enum vfio_device_mig_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Failed; only a reset helps.
    Error = 0,
    /// Does not change anything.
    Stop = 1,
    /// Works.
    Running = 2,
    /// Stopped, and its state can be read.
    StopCopy = 3,
    /// Stopped, and its state can be written.
    Resuming = 4,
    /// Works, but does not access other devices.
    RunningP2p = 5,
    /// Works, and its state can be read.
    PreCopy = 6,
    /// Works, but does not access other devices, and its state can be read.
    PreCopyP2p = 7,
}

impl State {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// The state with that number.
    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u32 == number)
    }
}

/// What a SET of the state did, good or bad.
#[derive(Debug)]
pub struct Moved {
    /// The result of the ioctl.
    pub result: Result<()>,
    /// The data file that was returned.
    pub data: Option<DataFd>,
    /// The number in `data_fd` after the call.
    pub number: i32,
}

/// What `data_fd` holds before a call, so that a test sees that the kernel wrote it.
pub const UNTOUCHED: i32 = -77;

impl Device {
    /// VFIO_DEVICE_FEATURE_MIGRATION: VFIO_MIGRATION_*.
    pub fn migration_flags(&self) -> Result<u64> {
        let mut data = [0; 8];
        self.feature(
            abi::VFIO_DEVICE_FEATURE_GET | abi::VFIO_DEVICE_FEATURE_MIGRATION,
            &mut data,
        )?;
        Ok(u64::from_ne_bytes(data))
    }

    /// The current state. EPROTO if the answer is no state, or has a `data_fd` other than -1.
    pub fn state(&self) -> Result<State> {
        let mut data = [0xff; 8];
        let what = abi::VFIO_DEVICE_FEATURE_GET | abi::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        self.feature(what, &mut data)?;
        let number = u32::from_ne_bytes([data[0], data[1], data[2], data[3]]);
        if data[4..] != (-1i32).to_ne_bytes() {
            return Err(Errno::EPROTO);
        }
        State::from_number(number).ok_or(Errno::EPROTO)
    }

    /// Asks for the state with the number `target` and tells everything that came back.
    pub fn move_to_number(&self, target: u32) -> Moved {
        let mut data = [0; 8];
        data[..4].copy_from_slice(&target.to_ne_bytes());
        data[4..].copy_from_slice(&UNTOUCHED.to_ne_bytes());
        let what = abi::VFIO_DEVICE_FEATURE_SET | abi::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        let result = self.feature(what, &mut data);
        let number = i32::from_ne_bytes([data[4], data[5], data[6], data[7]]);
        let data = (result.is_ok() && number >= 0).then(|| {
            // SAFETY: The ioctl succeeded and installed this descriptor for us; nobody else owns it.
            DataFd::new(unsafe { OwnedFd::from_raw_fd(number) })
        });
        Moved {
            result,
            data,
            number,
        }
    }

    /// Asks for `target`; returns the data file if there is a new one.
    pub fn move_to(&self, target: State) -> Result<Option<DataFd>> {
        let moved = self.move_to_number(target as u32);
        moved.result.map(|()| moved.data)
    }

    /// Asks for `target`, which must return a data file.
    pub fn start(&self, target: State) -> Result<DataFd> {
        self.move_to(target)?.ok_or(Errno::EPROTO)
    }

    /// Asks for `target`, which must not return a data file.
    pub fn switch(&self, target: State) -> Result<()> {
        match self.move_to(target)? {
            None => Ok(()),
            Some(_) => Err(Errno::EPROTO),
        }
    }

    /// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: bytes to expect in stop-and-copy.
    pub fn data_size(&self) -> Result<u64> {
        let mut data = [0; 8];
        self.feature(
            abi::VFIO_DEVICE_FEATURE_GET | abi::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
            &mut data,
        )?;
        Ok(u64::from_ne_bytes(data))
    }

    /// VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: makes the flags of the pre-copy information valid.
    pub fn enable_precopy_info_v2(&self) -> Result<()> {
        self.feature(
            abi::VFIO_DEVICE_FEATURE_SET | abi::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFO_V2,
            &mut [],
        )
    }
}
