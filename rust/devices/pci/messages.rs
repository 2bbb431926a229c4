// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which messages are pending, and which are to be sent.

/// The most vectors that a function here has: a bit each in a `u64`.
pub const MAX_VECTORS: u16 = 64;

/// Who decides whether a message may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The capability's registers: enable bit, function mask, vector masks.
    Registers,
    /// Where a message leads: whether a route was set for its vector. The capability's registers are
    /// stored and shown, and decide nothing.
    Routes,
}

/// The vectors in a set, lowest first.
pub fn vectors(mut set: u64) -> impl Iterator<Item = u16> {
    core::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        // At most 63.
        let vector = set.trailing_zeros() as u16;
        set &= set - 1;
        Some(vector)
    })
}

/// The set of one vector; the empty set if there is none of that number.
pub(super) const fn one(vector: u16) -> u64 {
    match vector {
        0..MAX_VECTORS => 1 << vector,
        _ => 0,
    }
}

/// The set of the first `count` vectors.
pub(super) const fn first(count: u16) -> u64 {
    match count {
        0..MAX_VECTORS => (1 << count) - 1,
        _ => u64::MAX,
    }
}

/// A message is on its way in two steps: it is pending until its vector is open, and then it is due
/// until the embedder takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Messages {
    pending: u64,
    due: u64,
    routes: u64,
}

impl Messages {
    /// An interrupt of these vectors. Two before the first was sent are one.
    pub(super) fn fire(&mut self, set: u64, open: u64) {
        self.pending |= set;
        self.open(open);
    }

    /// These vectors are open: what is pending of them goes.
    pub(super) fn open(&mut self, open: u64) {
        self.due |= self.pending & open;
        self.pending &= !open;
    }

    /// The messages to be sent, once.
    pub(super) fn take_due(&mut self) -> u64 {
        core::mem::take(&mut self.due)
    }

    /// What waits, due or not: what a saved state has.
    pub(super) fn waiting(&self) -> u64 {
        self.pending | self.due
    }

    /// What waits for its vector to be opened.
    pub(super) fn pending(&self) -> u64 {
        self.pending
    }

    /// Nothing waits any longer.
    pub(super) fn clear(&mut self) {
        self.pending = 0;
        self.due = 0;
    }

    /// What waits from now on.
    pub(super) fn set_waiting(&mut self, waiting: u64) {
        self.pending = waiting;
        self.due = 0;
    }

    pub(super) fn set_route(&mut self, vector: u16, leads_somewhere: bool) {
        match leads_somewhere {
            true => self.routes |= one(vector),
            false => self.routes &= !one(vector),
        }
    }

    pub(super) fn routes(&self) -> u64 {
        self.routes
    }
}
