// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The steps that an input is made of.

use vfio_user_protocol::Access;

/// Bytes of a step: what is done and by whom, a number, and four bytes of data.
const LEN: usize = 7;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Time passes: the number, shifted left by the first byte, in nanoseconds.
    Wait,
    /// A client comes and agrees on one of three sets of limits.
    Connect,
    /// It is gone.
    Disconnect,
    /// The number is the state to go to.
    Go,
    /// A feature is read, written or probed. The number is the room for its data.
    Feature,
    /// Registers are read: the number is the offset.
    Read,
    /// Registers are written.
    Write,
    /// The card is reset.
    Reset,
    /// So many bytes of the stream are read.
    Save,
    /// So many bytes of what the other side has saved are sent.
    Load,
    /// These bytes are sent as a stream's.
    LoadBytes,
    /// The byte at this place of what the other side has saved is changed.
    Damage,
    /// How much is left of pre-copy is asked.
    PrecopyInfo,
    /// A message of any kind.
    Raw,
    /// A remote call, by the first byte.
    Remote,
}

impl Operation {
    /// All of them, in the order of their numbers.
    const ALL: [Self; 15] = [
        Self::Wait,
        Self::Connect,
        Self::Disconnect,
        Self::Go,
        Self::Feature,
        Self::Read,
        Self::Write,
        Self::Reset,
        Self::Save,
        Self::Load,
        Self::LoadBytes,
        Self::Damage,
        Self::PrecopyInfo,
        Self::Raw,
        Self::Remote,
    ];
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub operation: Operation,
    /// By the second side.
    pub second: bool,
    /// A number.
    pub number: u16,
    /// Data.
    pub bytes: [u8; 4],
}

impl Step {
    /// The whole steps of an input.
    pub fn all(input: &[u8]) -> impl Iterator<Item = Step> + '_ {
        input.chunks_exact(LEN).filter_map(|bytes| {
            let [what, low, high, bytes @ ..] = bytes else {
                return None;
            };
            let operation = usize::from(what & 0x7f) % Operation::ALL.len();
            Some(Step {
                operation: *Operation::ALL.get(operation)?,
                second: what & 0x80 != 0,
                number: u16::from_le_bytes([*low, *high]),
                bytes: bytes.try_into().ok()?,
            })
        })
    }

    /// The registers that it is about: an offset, in the first region or, by the highest bits, another one, and as many bytes as
    /// the next three bits say.
    pub fn access(&self) -> Access {
        Access {
            offset: (self.number & 0x3ff).into(),
            region: match self.number >> 13 {
                0..=4 => 0,
                5 | 6 => 7,
                _ => 2,
            },
            count: 1 + u32::from((self.number >> 10) & 7),
        }
    }
}
