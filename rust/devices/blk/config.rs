// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What can be chosen about a device. Everything here shapes the hardware interface.

use core::fmt;

use super::request::{
    feature, MAX_DISCARD_SECTORS, MAX_DISCARD_SEGMENTS, MAX_REQUEST_BYTES, MAX_SEGMENTS,
    MAX_SEGMENT_BYTES,
};
use super::BLOCK_BYTES;

/// Size of a sector in bytes: what block numbers of requests count.
pub const SECTOR_BYTES: u32 = 512;

/// The largest medium in MiB.
pub const MAX_CAPACITY_MIB: u16 = 4096;

/// The most queues.
pub const MAX_QUEUES: usize = 16;

/// The most vectors: one a queue, and one for changes of the configuration.
pub const MAX_VECTORS: usize = MAX_QUEUES + 1;

/// The most blocks.
pub const MAX_BLOCKS: u32 = Capacity(MAX_CAPACITY_MIB).blocks();

const MIB: u64 = 1 << 20;

/// Size of a medium: 1 to [`MAX_CAPACITY_MIB`] MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity(u16);

impl Capacity {
    /// In MiB.
    pub const fn mib(self) -> u16 {
        self.0
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64 * MIB
    }

    /// In sectors.
    pub const fn sectors(self) -> u64 {
        self.bytes() / SECTOR_BYTES as u64
    }

    /// In blocks of [`BLOCK_BYTES`].
    pub const fn blocks(self) -> u32 {
        (self.bytes() / BLOCK_BYTES as u64) as u32
    }
}

impl TryFrom<u64> for Capacity {
    type Error = ConfigError;

    fn try_from(mib: u64) -> Result<Self, ConfigError> {
        match u16::try_from(mib) {
            Ok(n @ 1..=MAX_CAPACITY_MIB) => Ok(Capacity(n)),
            _ => Err(ConfigError::Capacity(mib)),
        }
    }
}

/// How many queues a device has: 1 to [`MAX_QUEUES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCount(u16);

impl QueueCount {
    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for QueueCount {
    type Error = ConfigError;

    fn try_from(queues: u64) -> Result<Self, ConfigError> {
        match u16::try_from(queues) {
            Ok(n) if n > 0 && usize::from(n) <= MAX_QUEUES => Ok(QueueCount(n)),
            _ => Err(ConfigError::Queues(queues)),
        }
    }
}

/// How many descriptors a queue has: 16, 32, 64, 128 or 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSize(u16);

impl QueueSize {
    /// Every value, smallest first.
    pub const ALL: [QueueSize; 5] = [
        QueueSize(16),
        QueueSize(32),
        QueueSize(64),
        QueueSize(128),
        QueueSize(256),
    ];

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for QueueSize {
    type Error = ConfigError;

    fn try_from(size: u64) -> Result<Self, ConfigError> {
        let found = QueueSize::ALL
            .iter()
            .find(|known| u64::from(known.0) == size);
        found.copied().ok_or(ConfigError::QueueSize(size))
    }
}

/// What get ID answers: up to 20 characters, padded by zeroes (5.2.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serial([u8; Serial::BYTES]);

impl Serial {
    /// The most characters.
    pub const BYTES: usize = 20;

    /// The characters and their padding.
    pub const fn bytes(&self) -> &[u8; Serial::BYTES] {
        &self.0
    }
}

impl TryFrom<&str> for Serial {
    type Error = ConfigError;

    fn try_from(text: &str) -> Result<Self, ConfigError> {
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(ConfigError::SerialCharacters);
        }
        let mut serial = Serial::default();
        match serial.0.get_mut(..text.len()) {
            Some(place) => place.copy_from_slice(text.as_bytes()),
            None => return Err(ConfigError::SerialLength(text.len())),
        }
        Ok(serial)
    }
}

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Size of the medium.
    pub capacity: Capacity,
    /// How many queues it has.
    pub queues: QueueCount,
    /// How many descriptors each has.
    pub queue_size: QueueSize,
    /// No request changes the medium.
    pub read_only: bool,
    /// Whether it can discard and write zeroes. A device that is read-only cannot, either way.
    pub write_zeroes: bool,
    /// What get ID answers.
    pub serial: Serial,
}

impl Config {
    /// A device of so many MiB (those beyond what there is are cut to that), with one queue of 128 descriptors.
    pub const fn new(mib: u16) -> Config {
        Config {
            capacity: Capacity(match mib {
                0 => 1,
                1..=MAX_CAPACITY_MIB => mib,
                _ => MAX_CAPACITY_MIB,
            }),
            queues: QueueCount(1),
            queue_size: QueueSize(128),
            read_only: false,
            write_zeroes: false,
            serial: Serial([0; Serial::BYTES]),
        }
    }

    /// Whether it discards and writes zeroes.
    pub const fn zeroes(&self) -> bool {
        self.write_zeroes && !self.read_only
    }

    /// The features of a block device that it offers (5.2.3).
    pub const fn features(&self) -> u64 {
        let mut features =
            feature::SIZE_MAX | feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH;
        if self.read_only {
            features |= feature::RO;
        }
        if self.queues.0 > 1 {
            features |= feature::MQ;
        }
        if self.zeroes() {
            features |= feature::DISCARD | feature::WRITE_ZEROES;
        }
        features
    }

    /// The most buffers of data in a request: a chain has two descriptors more, and fits into the ring.
    pub const fn segments(&self) -> u32 {
        let fit = self.queue_size.0 as u32 - 2;
        match fit < MAX_SEGMENTS {
            true => fit,
            false => MAX_SEGMENTS,
        }
    }

    /// The device's configuration structure (5.2.4), 60 bytes. What belongs to a feature that it does not
    /// offer is zero.
    pub fn structure(&self) -> [u8; 60] {
        let mut bytes = [0; 60];
        let mut put = |at: usize, value: u64, len: usize| {
            let place = bytes.iter_mut().skip(at).take(len);
            for (to, from) in place.zip(value.to_le_bytes()) {
                *to = from;
            }
        };
        put(0, self.capacity.sectors(), 8);
        put(8, MAX_SEGMENT_BYTES.into(), 4);
        put(12, self.segments().into(), 4);
        put(20, SECTOR_BYTES.into(), 4);
        if self.queues.0 > 1 {
            put(34, self.queues.0.into(), 2);
        }
        if self.zeroes() {
            let sectors = MAX_DISCARD_SECTORS.into();
            put(36, sectors, 4);
            put(40, MAX_DISCARD_SEGMENTS as u64, 4);
            // Less than a block frees nothing.
            put(44, BLOCK_BYTES as u64 / u64::from(SECTOR_BYTES), 4);
            put(48, sectors, 4);
            put(52, MAX_DISCARD_SEGMENTS as u64, 4);
            put(56, 1, 1);
        }
        bytes
    }
}

const _: () = assert!(
    MAX_SEGMENTS as u64 * MAX_SEGMENT_BYTES as u64 <= MAX_REQUEST_BYTES,
    "a driver that keeps to the limits is served"
);

/// A value that no device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Not a capacity in MiB.
    Capacity(u64),
    /// Not a number of queues.
    Queues(u64),
    /// Not a number of descriptors.
    QueueSize(u64),
    /// Too long a serial number: so many characters.
    SerialLength(usize),
    /// Characters that a serial number cannot have.
    SerialCharacters,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity(n) => write!(f, "a medium has 1 to {MAX_CAPACITY_MIB} MiB, not {n}"),
            Self::Queues(n) => write!(f, "a device has 1 to {MAX_QUEUES} queues, not {n}"),
            Self::QueueSize(n) => {
                write!(f, "a queue has 16, 32, 64, 128 or 256 descriptors, not {n}")
            }
            Self::SerialLength(n) => {
                let most = Serial::BYTES;
                write!(f, "a serial number has up to {most} characters, not {n}")
            }
            Self::SerialCharacters => {
                f.write_str("a serial number has printable ASCII characters only")
            }
        }
    }
}

impl core::error::Error for ConfigError {}
