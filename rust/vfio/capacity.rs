// SPDX-License-Identifier: GPL-2.0

//! The capacity of a parent: a number of units (ports, queues, megabytes) that its instances share.
//!
//! `available_instances` tells how many instances what is left still allows; creating one takes its units, or fails with
//! `ENOSPC`; a parameter that changes their number takes or gives back the difference; removing the instance gives them back.

use core::fmt;
use kernel::prelude::*;
use kernel::sync::{new_mutex, Arc, Mutex};

/// Units that the instances of a parent share.
#[pin_data]
pub(crate) struct Capacity {
    #[pin]
    free: Mutex<u32>,
}

impl Capacity {
    pub(crate) fn new(units: u32) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { free <- new_mutex!(units, "mdev_capacity") }),
            GFP_KERNEL,
        )
    }

    /// How many instances of so many units there is room for.
    pub(crate) fn instances(&self, units: u32) -> u32 {
        self.free.lock().checked_div(units).unwrap_or(0)
    }

    /// Takes units. `ENOSPC` when there are not enough.
    pub(crate) fn reserve(self: &Arc<Self>, units: u32) -> Result<Reservation> {
        let mut reservation = Reservation {
            capacity: self.clone(),
            units: 0,
        };
        reservation.resize(units).map_err(|_| ENOSPC)?;
        Ok(reservation)
    }
}

/// Units taken, given back when dropped.
pub(crate) struct Reservation {
    capacity: Arc<Capacity>,
    units: u32,
}

/// There are not enough units.
#[derive(Debug)]
pub(crate) struct Short {
    wanted: u32,
    free: u32,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no capacity: {} more units are needed, the parent has {} left",
            self.wanted, self.free
        )
    }
}

impl Reservation {
    /// Takes or gives back units, to have so many. A failure changes nothing.
    pub(crate) fn resize(&mut self, units: u32) -> Result<(), Short> {
        let mut free = self.capacity.free.lock();
        // What this reservation has and what is free never exceeds the capacity, so the sum does not overflow.
        let available = *free + self.units;
        *free = available.checked_sub(units).ok_or(Short {
            wanted: units.saturating_sub(self.units),
            free: *free,
        })?;
        self.units = units;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *self.capacity.free.lock() += self.units;
    }
}
