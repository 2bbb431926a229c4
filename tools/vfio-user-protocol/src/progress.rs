// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How a migration goes on, as an observer is told: an extension of this project.
//!
//! An observer is connected beside the client. It says in its version that it is one, and reads
//! [`number::PROGRESS`](crate::feature::number::PROGRESS). The first answer comes at once, and each one after it when something is
//! different from what the one before has said. So nothing comes unasked, and nothing is asked in vain.

use crate::refusal::Refusal;
use crate::wire::{Reader, Writer};
use alloc::vec::Vec;

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Nothing is saved or loaded.
    #[default]
    None = 0,
    /// A state is loaded, and nothing of it has been accepted yet.
    Setup = 1,
    /// The device of the source runs.
    PreCopy = 2,
    /// The device of the source has stopped.
    StopCopy = 3,
}

impl Phase {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::None, Self::Setup, Self::PreCopy, Self::StopCopy];

    /// For people, in the words that the driver has in sysfs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Setup => "setup",
            Self::PreCopy => "pre-copy",
            Self::StopCopy => "stop-and-copy",
        }
    }

    /// The phase that has this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

impl TryFrom<u32> for Phase {
    type Error = Refusal;

    fn try_from(number: u32) -> Result<Self, Refusal> {
        let found = Self::ALL.into_iter().find(|phase| *phase as u32 == number);
        found.ok_or(Refusal::NoPhase(number))
    }
}

/// How a migration goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The migration state, by its number in the kernel's interface.
    pub state: u32,
    /// How far the stream has come.
    pub phase: Phase,
    /// Bytes of it so far; 0 while nothing is saved or loaded.
    pub bytes: u64,
    /// How often saving or loading has begun since there is the device.
    pub sessions: u64,
}

impl Progress {
    /// Bytes before the text.
    pub const LEN: usize = 24;

    /// The data of the feature: this, and why migrating was refused last.
    pub fn encode(&self, refusal: &str) -> Vec<u8> {
        let mut data = Vec::new();
        data.put32(self.state)
            .put32(self.phase as u32)
            .put64(self.bytes)
            .put64(self.sessions)
            .put(refusal.as_bytes());
        data
    }

    /// What the feature's data says, and why migrating was refused last: no text if it was not.
    pub fn decode(data: &[u8]) -> Result<(Self, &str), Refusal> {
        let mut reader = Reader::new(data);
        let progress = Self {
            state: reader.u32()?,
            phase: Phase::try_from(reader.u32()?)?,
            bytes: reader.u64()?,
            sessions: reader.u64()?,
        };
        let refusal = core::str::from_utf8(reader.rest()).map_err(|_| Refusal::Text)?;
        Ok((progress, refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_are_where_the_page_has_them() {
        let progress = Progress {
            state: 6,
            phase: Phase::PreCopy,
            bytes: 0x1_0000_0002,
            sessions: 3,
        };
        let data = progress.encode("msi: no");
        let numbers = [6, 2, 2, 1, 3, 0].map(u32::to_ne_bytes).concat();
        assert!(
            cfg!(target_endian = "little"),
            "the halves are those of such a host"
        );
        assert_eq!(data, [&numbers[..], b"msi: no"].concat());
        assert_eq!(Progress::decode(&data), Ok((progress, "msi: no")));
        assert_eq!(Progress::decode(&data[..24]), Ok((progress, "")));
        for len in 0..Progress::LEN {
            assert_eq!(Progress::decode(&data[..len]), Err(Refusal::Short));
        }
        let mut wrong = data.clone();
        wrong[4] = 4;
        assert_eq!(Progress::decode(&wrong), Err(Refusal::NoPhase(4)));
        assert_eq!(
            Progress::decode(&[&data[..24], b"\xff"].concat()),
            Err(Refusal::Text)
        );
    }

    #[test]
    fn every_phase_has_its_number_and_its_name_back() {
        for (number, phase) in (0..).zip(Phase::ALL) {
            assert_eq!(Phase::try_from(number), Ok(phase));
            assert_eq!(Phase::named(phase.name()), Some(phase));
        }
        assert_eq!(Phase::named("copy"), None);
    }
}
