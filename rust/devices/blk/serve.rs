// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Serving a queue: what is done without the registers.

use super::request::{execute, Backend, Geometry};
use crate::virtio::{Chain, GuestMemory, Outcome, RingError, Turn, Work};

/// How much data is moved at once, in bytes: a whole number of sectors.
pub const SCRATCH_BYTES: usize = 4096;

/// What serving needs room for, some 6 KiB: build it where it is to live, one for each queue that is to be
/// served at once.
#[derive(Clone, Debug)]
pub struct Scratch {
    chain: Chain,
    data: [u8; SCRATCH_BYTES],
}

impl Scratch {
    /// Room.
    pub const fn new() -> Scratch {
        Scratch {
            chain: Chain::new(),
            data: [0; SCRATCH_BYTES],
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Does the requests of a queue in order, and answers each: as many as the ring has places, or until there is none. In the
/// [first turn](Turn::First) the driver is asked not to notify meanwhile. At the end it is interrupted once, if it wants to be.
///
/// Takes as long as guest memory and medium let it, for that many requests of at most
/// [`MAX_REQUEST_BYTES`](super::MAX_REQUEST_BYTES) each. No lock is held here.
pub fn serve<M, B>(
    work: &mut Work,
    geometry: &Geometry,
    memory: &mut M,
    backend: &mut B,
    scratch: &mut Scratch,
) -> Outcome
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
{
    let mut served = 0;
    let result = run(work, geometry, memory, backend, scratch, &mut served);
    let wanted = match (&result, served) {
        (Err(error), _) => Err(*error),
        (Ok(_), 0) => Ok(false),
        (Ok(_), _) => work.ring.wants_interrupt(memory),
    };
    Outcome {
        // Better one too many than a request that is done and not told of.
        interrupt: wanted.unwrap_or(served > 0),
        more: result.unwrap_or(false),
        error: wanted.err(),
    }
}

/// Returns whether the driver may have been silent about what is in the ring now.
fn run<M, B>(
    work: &mut Work,
    geometry: &Geometry,
    memory: &mut M,
    backend: &mut B,
    scratch: &mut Scratch,
    served: &mut u16,
) -> Result<bool, RingError>
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
{
    let features = work.features();
    let mut quiet = false;
    while *served < work.ring.size() && work.ring.pop(memory, &mut scratch.chain)? {
        if work.turn() == Turn::First && !quiet {
            work.ring.ask_for_notifications(memory, false)?;
            quiet = true;
        }
        let written = execute(
            &scratch.chain,
            features,
            geometry,
            memory,
            backend,
            &mut scratch.data,
        )?;
        work.ring.push(memory, &scratch.chain, written)?;
        *served += 1;
    }
    if !quiet {
        return Ok(false);
    }
    work.ring.ask_for_notifications(memory, true)?;
    Ok(!work.ring.is_empty(memory)?)
}
