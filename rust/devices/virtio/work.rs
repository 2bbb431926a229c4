// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A queue on its way: handed out to be served, and given back.

use super::ring::{Ring, RingError};

/// A queue to be served by whoever may access guest memory. It is out until it is given back to
/// [`Function::finish`](super::Function::finish); a device whose work is dropped never becomes quiet.
#[derive(Debug)]
#[must_use = "a queue that is not given back is never served again"]
pub struct Work {
    queue: u16,
    features: u64,
    turn: Turn,
    /// The ring, to be served.
    pub ring: Ring,
}

impl Work {
    pub(super) fn new(queue: u16, features: u64, turn: Turn, ring: Ring) -> Work {
        Work {
            queue,
            features,
            turn,
            ring,
        }
    }

    /// Which queue it is.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// What the queue was handed out for.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// The features that were negotiated.
    pub fn features(&self) -> u64 {
        self.features
    }
}

/// What a queue is handed out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It was notified, or may have been. Meanwhile the driver is asked not to notify.
    First,
    /// The first turn asked for notifications again, and there may be requests that nothing told of. A ring holds no more of them than
    /// it has places; what is made available in this turn has a notification of its own.
    Last,
}

/// How the serving of a queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Something was completed, and the driver wants to know.
    pub interrupt: bool,
    /// The driver may have been silent about more, for which a [last turn](Turn::Last) comes: after the first one, or after one that
    /// was cut short.
    pub more: bool,
    /// The ring cannot be served any longer.
    pub error: Option<RingError>,
}
