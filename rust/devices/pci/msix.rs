// SPDX-License-Identifier: GPL-2.0 OR MIT

//! MSI-X: messages by a table in a BAR (PCI 6.8.2).

use core::fmt;

use super::access::{Access, Width};
use super::builder::{BuildError, Builder};
use super::messages::{first, one, Gate, Messages, MAX_VECTORS};
use super::registers::{capability, msix};
use super::space::ConfigSpace;

/// Size of one entry of the table in bytes.
pub const MSIX_ENTRY_BYTES: u32 = 16;

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixEntry {
    /// Where the message is written to; dword aligned.
    pub address: u64,
    /// What is written there.
    pub data: u32,
    /// Nothing is written there for the time being.
    pub masked: bool,
}

impl MsixEntry {
    /// As after reset.
    pub const RESET: MsixEntry = MsixEntry {
        address: 0,
        data: 0,
        masked: true,
    };

    fn dword(&self, offset: u32) -> u32 {
        match offset {
            0 => self.address as u32,
            4 => (self.address >> 32) as u32,
            8 => self.data,
            _ if self.masked => msix::VECTOR_MASK,
            _ => 0,
        }
    }

    fn set_dword(&mut self, offset: u32, value: u32) {
        let value64 = u64::from(value);
        match offset {
            0 => self.address = (self.address & !0xffff_ffff) | (value64 & !3),
            4 => self.address = (self.address & 0xffff_ffff) | (value64 << 32),
            8 => self.data = value,
            _ => self.masked = value & msix::VECTOR_MASK != 0,
        }
    }
}

/// What of a function's MSI-X a saved state has beside the control word. Whoever reads one from
/// outside believes nothing of it: [`Msix::restore`] checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixState<const N: usize> {
    /// The table. Entries that the function does not have are as after reset.
    pub entries: [MsixEntry; N],
    /// The vectors whose messages were not sent yet, a bit each.
    pub pending: u64,
}

/// Why a saved table is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsixStateError {
    /// A vector is pending that the function does not have.
    Pending,
    /// The address of an entry is not dword aligned.
    Address(u16),
    /// An entry that the function does not have is not as after reset.
    Unused(u16),
}

impl fmt::Display for MsixStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("a message of a vector that there is not is pending"),
            Self::Address(vector) => write!(f, "the address of vector {vector} is not aligned"),
            Self::Unused(vector) => write!(f, "there is no vector {vector}, and it has contents"),
        }
    }
}

impl core::error::Error for MsixStateError {}

/// The MSI-X capability of a function: the table, and what it has to send. `N` is the most vectors it
/// can have.
///
/// The control word is in the function's [`ConfigSpace`]; after a write to that, [`Msix::update`] is to
/// be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msix<const N: usize> {
    offset: u8,
    count: u16,
    gate: Gate,
    entries: [MsixEntry; N],
    messages: Messages,
}

impl<const N: usize> Msix<N> {
    /// Adds the capability to a function: `count` vectors, 1 to `N` and [`MAX_VECTORS`]. Table and
    /// pending bits lie at these offsets in these BARs, which the function has already: aligned to
    /// 8 bytes, and not over each other.
    pub fn add_to(
        builder: &mut Builder,
        count: u16,
        table: (usize, u32),
        pending: (usize, u32),
        gate: Gate,
    ) -> Result<Msix<N>, BuildError> {
        if count == 0 || count > MAX_VECTORS || usize::from(count) > N {
            return Err(BuildError::Vectors(count));
        }
        let table_len = u32::from(count) * MSIX_ENTRY_BYTES;
        // A qword holds the bits of 64 vectors.
        let pending_len = 8;
        builder.check_inside(table.0, table.1, table_len)?;
        builder.check_inside(pending.0, pending.1, pending_len)?;
        let apart = table.0 != pending.0
            || table.1 + table_len <= pending.1
            || pending.1 + pending_len <= table.1;
        if !apart || table.1 % 8 != 0 || pending.1 % 8 != 0 {
            return Err(BuildError::Overlap);
        }
        let control = (count - 1) & msix::SIZE;
        // Both BARs exist, so their numbers are below 6.
        let words = [table.1 | table.0 as u32, pending.1 | pending.0 as u32];
        let mut body = [0; 10];
        let bytes = words.into_iter().flat_map(u32::to_le_bytes);
        for (to, from) in body
            .iter_mut()
            .zip(control.to_le_bytes().into_iter().chain(bytes))
        {
            *to = from;
        }
        let writable = (msix::ENABLE | msix::FUNCTION_MASK).to_le_bytes();
        Ok(Msix {
            offset: builder.capability(capability::MSIX, &body, &writable)?,
            count,
            gate,
            entries: [MsixEntry::RESET; N],
            messages: Messages::default(),
        })
    }

    /// The offset of the message control word.
    pub fn control_offset(&self) -> u8 {
        self.offset.saturating_add(2)
    }

    /// The number of vectors.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether messages take the place of the pin.
    pub fn enabled(&self, space: &ConfigSpace) -> bool {
        space.word(self.control_offset()) & msix::ENABLE != 0
    }

    /// An entry of the table.
    pub fn entry(&self, vector: u16) -> Option<&MsixEntry> {
        let (entries, _) = self.entries.split_at_checked(usize::from(self.count))?;
        entries.get(usize::from(vector))
    }

    /// Reads the table; beyond its end: zeroes.
    pub fn read_table(&self, access: Access) -> u32 {
        let vector = access.dword() / MSIX_ENTRY_BYTES;
        let entry = u16::try_from(vector).ok().and_then(|v| self.entry(v));
        entry.map_or(0, |entry| {
            access.of_dword(entry.dword(access.dword() % MSIX_ENTRY_BYTES))
        })
    }

    /// Writes the table, by whole dwords: PCI 6.8.2 allows no other writes, and they are ignored.
    /// Unmasking a vector lets go what is pending of it.
    pub fn write_table(&mut self, access: Access, value: u32, space: &ConfigSpace) {
        let vector = access.dword() / MSIX_ENTRY_BYTES;
        if access.width() != Width::Dword || vector >= u32::from(self.count) {
            return;
        }
        if let Some(entry) = self.entries.get_mut(vector as usize) {
            entry.set_dword(access.dword() % MSIX_ENTRY_BYTES, value);
        }
        self.update(space);
    }

    /// Reads the pending bits; beyond their end: zeroes.
    pub fn read_pending(&self, access: Access) -> u32 {
        access.of_bytes(&self.messages.pending().to_le_bytes())
    }

    fn open(&self, space: &ConfigSpace) -> u64 {
        let control = space.word(self.control_offset());
        let shut = control & msix::FUNCTION_MASK != 0 || control & msix::ENABLE == 0;
        match self.gate {
            _ if !space.bus_master() => 0,
            Gate::Routes => self.messages.routes() & first(self.count),
            Gate::Registers if shut => 0,
            Gate::Registers => {
                (0u16..)
                    .zip(&self.entries)
                    .filter(|(_, entry)| !entry.masked)
                    .fold(0, |set, (vector, _)| set | one(vector))
                    & first(self.count)
            }
        }
    }

    /// An interrupt of a vector. One that the function does not have is dropped, and so is any while
    /// the registers decide and messages are not enabled: the pin is what interrupts then.
    pub fn fire(&mut self, vector: u16, space: &ConfigSpace) {
        if self.gate == Gate::Registers && !self.enabled(space) {
            return;
        }
        self.messages
            .fire(one(vector) & first(self.count), self.open(space));
    }

    /// To be called after each write to configuration space: what was pending may go now.
    pub fn update(&mut self, space: &ConfigSpace) {
        if self.gate == Gate::Registers && !self.enabled(space) {
            self.messages.clear();
        }
        self.messages.open(self.open(space));
    }

    /// Messages of this vector lead somewhere (an eventfd was installed), or no longer.
    pub fn set_route(&mut self, vector: u16, leads_somewhere: bool, space: &ConfigSpace) {
        self.messages.set_route(vector, leads_somewhere);
        self.messages.open(self.open(space));
    }

    /// The vectors whose messages are to be sent now, a bit each; each is told once.
    pub fn take_due(&mut self) -> u64 {
        self.messages.take_due()
    }

    /// Back to what it was after power-on. Routes stay: they are not the function's.
    pub fn reset(&mut self) {
        self.entries = [MsixEntry::RESET; N];
        self.messages.clear();
    }

    /// What a saved state has of it. What is due is pending in there: nobody has sent it.
    pub fn state(&self) -> MsixState<N> {
        MsixState {
            entries: self.entries,
            pending: self.messages.waiting(),
        }
    }

    /// Takes a saved state over, after checking it; one that is refused changes nothing. Nothing is due
    /// from it before [`Msix::update`] or [`Msix::set_route`].
    pub fn restore(&mut self, state: &MsixState<N>) -> Result<(), MsixStateError> {
        if state.pending & !first(self.count) != 0 {
            return Err(MsixStateError::Pending);
        }
        for (vector, entry) in (0u16..).zip(&state.entries) {
            if vector >= self.count && *entry != MsixEntry::RESET {
                return Err(MsixStateError::Unused(vector));
            }
            if entry.address % 4 != 0 {
                return Err(MsixStateError::Address(vector));
            }
        }
        self.entries = state.entries;
        self.messages.set_waiting(state.pending);
        Ok(())
    }
}
