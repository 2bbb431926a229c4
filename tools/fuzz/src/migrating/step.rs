// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The steps that an input is made of.

use vfio_user_protocol::Access;

use super::card::Card;

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
    /// The card may reach pages of memory: the first one, and how many, are in the number.
    Map,
    /// It may not any longer: these pages, or any.
    Unmap,
    /// How interrupts are told.
    Irqs,
    /// The log of what the card writes begins, is read for the pages of the number, or ends.
    Log,
    /// The card does what it has to do with memory.
    Work,
    /// The guest writes these bytes at the address of the number.
    Poke,
    /// The file that memory is in becomes as long as the number says, or as it was.
    Resize,
    /// A driver sets the card up.
    SetUp,
    /// It asks for something: the number is the sector.
    Request,
    /// The guest of the other side is this side's now, too: its memory, and what its driver waits for.
    Move,
}

impl Operation {
    /// All of them, in the order of their numbers.
    const ALL: [Self; 25] = [
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
        Self::Map,
        Self::Unmap,
        Self::Irqs,
        Self::Log,
        Self::Work,
        Self::Poke,
        Self::Resize,
        Self::SetUp,
        Self::Request,
        Self::Move,
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

    /// The registers that it is about: an offset, in the card's first region or, by the highest bits, another one, and as many bytes
    /// as the next three bits say.
    pub fn access<C: Card>(&self) -> Access {
        let (number, [first, other]) = (self.number & 0x3ff, C::REGIONS);
        let (region, offset) = match self.number >> 13 {
            0..=4 => (first, C::offset(number)),
            5 | 6 => (7, number.into()),
            _ => (other, number.into()),
        };
        Access {
            offset,
            region,
            count: 1 + u32::from((self.number >> 10) & 7),
        }
    }
}
