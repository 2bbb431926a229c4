// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The registers of a queue (virtio 1.2, 4.1.4.3).

use super::ring::{Cursor, RingPlace};
use super::work::Turn;

/// No vector: what a vector register holds that has none, or was given one that there is not.
pub const NO_VECTOR: u16 = 0xffff;

/// What of a queue a saved state has. Whoever reads one from outside believes nothing of it:
/// [`Function::restore`](super::Function::restore) checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Descriptors.
    pub size: u16,
    /// The driver has enabled it.
    pub enabled: bool,
    /// Its vector, or [`NO_VECTOR`].
    pub vector: u16,
    /// Address of the descriptors.
    pub descriptors: u64,
    /// Address of the driver's event suppression structure.
    pub driver: u64,
    /// Address of the device's event suppression structure.
    pub device: u64,
    /// Index of the place where the next chain is taken, and completed.
    pub next_index: u16,
    /// Wrap counter of that place.
    pub next_wrap: bool,
}

impl QueueState {
    /// As after reset, with this many descriptors at most.
    pub const fn reset(max_size: u16) -> QueueState {
        QueueState {
            size: max_size,
            enabled: false,
            vector: NO_VECTOR,
            descriptors: 0,
            driver: 0,
            device: 0,
            next_index: 0,
            next_wrap: true,
        }
    }
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    /// The driver has enabled it, and where it is makes sense.
    pub(super) enabled: bool,
    pub(super) next: Cursor,
    /// What it is to be handed out for: there may be something in the ring.
    pub(super) due: Option<Turn>,
    /// What it was handed out for.
    pub(super) out: Option<Turn>,
    /// The driver asked for a reset of the queue, which waits for it to come back.
    pub(super) reset_wanted: bool,
}

impl Queue {
    pub(super) const fn new(max_size: u16) -> Queue {
        Queue {
            size: max_size,
            vector: NO_VECTOR,
            descriptors: 0,
            driver: 0,
            device: 0,
            enabled: false,
            next: Cursor::START,
            due: None,
            out: None,
            reset_wanted: false,
        }
    }

    /// Enables it, if where it is makes sense.
    pub(super) fn enable(&mut self) -> Result<(), &'static str> {
        self.place()?;
        self.enabled = true;
        self.next = Cursor::START;
        Ok(())
    }

    fn place(&self) -> Result<RingPlace, &'static str> {
        RingPlace::new(self.size, self.descriptors, self.driver, self.device)
    }

    /// The ring, if it is enabled.
    pub(super) fn ring(&self) -> Option<RingPlace> {
        match self.enabled {
            true => self.place().ok(),
            false => None,
        }
    }

    pub(super) fn state(&self) -> QueueState {
        QueueState {
            size: self.size,
            enabled: self.enabled,
            vector: self.vector,
            descriptors: self.descriptors,
            driver: self.driver,
            device: self.device,
            next_index: self.next.index(),
            next_wrap: self.next.wrap(),
        }
    }

    /// The queue of a saved state, checked.
    pub(super) fn of(
        state: &QueueState,
        max_size: u16,
        vectors: u16,
    ) -> Result<Queue, &'static str> {
        if state.size == 0 || state.size > max_size {
            return Err("a queue has a size that it cannot have");
        }
        if state.vector >= vectors && state.vector != NO_VECTOR {
            return Err("a queue has a vector that there is not");
        }
        let next = Cursor::new(state.next_index, state.next_wrap, state.size)
            .ok_or("a queue's next index is not in the queue")?;
        let mut queue = Queue {
            size: state.size,
            vector: state.vector,
            descriptors: state.descriptors,
            driver: state.driver,
            device: state.device,
            ..Queue::new(max_size)
        };
        if state.enabled {
            queue.enable()?;
        } else if next != Cursor::START {
            return Err("a queue that is not enabled was used");
        }
        queue.next = next;
        Ok(queue)
    }
}
