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
    /// The ring, to be served.
    pub ring: Ring,
}

impl Work {
    pub(super) fn new(queue: u16, features: u64, ring: Ring) -> Work {
        Work {
            queue,
            features,
            ring,
        }
    }

    /// Which queue it is.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// The features that were negotiated.
    pub fn features(&self) -> u64 {
        self.features
    }
}

/// How the serving of a queue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Something was completed, and the driver wants to know.
    pub interrupt: bool,
    /// There may be more in the ring: it is to be handed out again.
    pub more: bool,
    /// The ring cannot be served any longer.
    pub error: Option<RingError>,
}
