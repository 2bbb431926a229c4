// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How much of the program's memory its disks may have together.
//!
//! What counts is how large they are, not what was written to them: a guest that fills its disk must find room.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use super::{lock, Error};

/// What the disks of a program may have, and have.
#[derive(Debug)]
pub(super) struct Budget {
    most_mib: u64,
    taken_mib: Mutex<u64>,
}

impl Budget {
    /// So much for all of them.
    pub(super) fn new(most_mib: u64) -> Arc<Self> {
        Arc::new(Self {
            most_mib,
            taken_mib: Mutex::new(0),
        })
    }
}

/// What one device has of it, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    mib: Cell<u64>,
}

impl Share {
    /// Nothing.
    pub(super) fn none(budget: &Arc<Budget>) -> Self {
        Self {
            budget: budget.clone(),
            mib: Cell::new(0),
        }
    }

    /// How much it is.
    pub(super) fn mib(&self) -> u64 {
        self.mib.get()
    }

    /// Makes it another one. An error leaves it as it is; there is none if it is not to be larger.
    pub(super) fn resize(&self, mib: u64) -> Result<(), Error> {
        let Budget {
            most_mib,
            taken_mib,
        } = &*self.budget;
        let mut taken = lock(taken_mib);
        let others = taken.saturating_sub(self.mib.get());
        let left = most_mib.saturating_sub(others);
        if mib > self.mib.get() && mib > left {
            return Err(Error::NoRoom {
                mib,
                left,
                most: *most_mib,
            });
        }
        *taken = others.saturating_add(mib);
        self.mib.set(mib);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Less is always to be had.
        let _ = self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_have_is_no_more_than_there_is() {
        let budget = Budget::new(100);
        let (one, other) = (Share::none(&budget), Share::none(&budget));
        assert_eq!(one.resize(60), Ok(()));
        let refused = |mib, left| {
            Err(Error::NoRoom {
                mib,
                left,
                most: 100,
            })
        };
        assert_eq!(other.resize(41), refused(41, 40));
        assert_eq!(other.resize(40), Ok(()));
        assert_eq!(one.resize(61), refused(61, 60));
        assert_eq!((one.mib(), other.mib()), (60, 40));
        assert_eq!(one.resize(10), Ok(()));
        assert_eq!(other.resize(90), Ok(()));
        drop(other);
        assert_eq!(one.resize(u64::MAX), refused(u64::MAX, 100));
        assert_eq!(one.resize(100), Ok(()));
    }
}
