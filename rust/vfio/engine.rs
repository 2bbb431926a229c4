// SPDX-License-Identifier: GPL-2.0

//! The half of a device that accesses guest memory.
//!
//! A device model is called under its mutex, where guest memory must not be accessed: a copy can take as long as the
//! user likes. So what a device does with guest memory is a *job*: it is begun under the mutex, served without it, and finished under
//! it again. Meanwhile registers are read and written, and files of sysfs are read.
//!
//! Jobs of a device are served one after the other, in calls of its user: after a write to a region, and after what let the device
//! run again. No thread of the kernel's serves one, so that a user who never serves a fault of its own memory keeps nobody but itself.
//! A change of the migration state and a reset wait until no job is being served, and can be killed while they wait; at the last
//! close nobody is in such a call any longer. While the device may not access memory, no job begins.
//!
//! ```
//! # use kernel::prelude::*;
//! # use vfio::engine::{Engine, GuestMemory};
//! /// Fills memory with a byte, when the guest writes where to.
//! # struct Filler { at: Option<u64> }
//! struct Fill;
//!
//! impl Engine<Filler> for Fill {
//!     type Job = u64;
//!
//!     fn new() -> Result<Self> {
//!         Ok(Self)
//!     }
//!
//!     fn has_work(device: &Filler) -> bool {
//!         device.at.is_some()
//!     }
//!
//!     fn begin(device: &mut Filler) -> Option<u64> {
//!         device.at.take()
//!     }
//!
//!     fn serve(&mut self, at: &mut u64, memory: &mut GuestMemory<'_>) {
//!         // A guest that names memory that is not there gets none.
//!         let _ = memory.write(*at, &[0xff; 64]);
//!     }
//!
//!     fn finish(_device: &mut Filler, _at: u64) {}
//! }
//! ```

pub use crate::guest_memory::{Barrier, GuestMemory};
use core::convert::Infallible;
use kernel::prelude::*;

/// Serves the jobs of a device model `T`.
pub trait Engine<T>: Sized + Send + 'static {
    /// Something that is to be done with guest memory, and what came of it.
    type Job;

    /// Whether there are jobs at all.
    const SERVES: bool = true;

    /// An engine, with what serving needs room for.
    fn new() -> Result<Self>;
    /// Whether [`Engine::begin`] would give a job. Asked under the device's mutex, often.
    fn has_work(device: &T) -> bool;
    /// Takes the next job from the device. Called under its mutex, while the device may access memory.
    fn begin(device: &mut T) -> Option<Self::Job>;
    /// Serves a job, without the mutex. Bounded: by what the device says of itself, and not by what the guest says.
    ///
    /// A call of the user serves 64 jobs at most. What is left then must have a call of its own still to come: whoever asked for
    /// it after this call had begun is waiting for its turn.
    fn serve(&mut self, job: &mut Self::Job, memory: &mut GuestMemory<'_>);
    /// Gives a job back, under the mutex. The device may have been written to since, but has not been reset by its user.
    fn finish(device: &mut T, job: Self::Job);
}

/// The engine of a device that does not access guest memory.
pub struct NoEngine;

impl<T> Engine<T> for NoEngine {
    type Job = Infallible;

    const SERVES: bool = false;

    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn has_work(_device: &T) -> bool {
        false
    }

    fn begin(_device: &mut T) -> Option<Infallible> {
        None
    }

    fn serve(&mut self, job: &mut Infallible, _memory: &mut GuestMemory<'_>) {
        match *job {}
    }

    fn finish(_device: &mut T, job: Infallible) {
        match job {}
    }
}
