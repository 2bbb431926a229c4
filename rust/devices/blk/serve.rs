// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Serving a queue: what is done without the registers.

use super::request::{execute, Backend, Geometry};
use crate::virtio::{Chain, GuestMemory, Outcome, RingError, Work};

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

/// Does up to `most` requests of a queue, in order, and answers each. Meanwhile the driver is asked not to
/// notify; at the end it is interrupted once, if it wants to be.
///
/// Takes as long as guest memory and medium let it, for `most` requests of at most
/// [`MAX_REQUEST_BYTES`](super::MAX_REQUEST_BYTES) each. No lock is held here.
pub fn serve<M, B>(
    work: &mut Work,
    geometry: &Geometry,
    memory: &mut M,
    backend: &mut B,
    scratch: &mut Scratch,
    most: u32,
) -> Outcome
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
{
    let mut served = Served {
        requests: 0,
        more: true,
    };
    let result = run(work, geometry, memory, backend, scratch, most, &mut served);
    let wanted = match (result, served.requests) {
        (Err(error), _) => Err(error),
        (Ok(()), 0) => Ok(false),
        (Ok(()), _) => work.ring.wants_interrupt(memory),
    };
    Outcome {
        // Better one too many than a request that is done and not told of.
        interrupt: wanted.unwrap_or(served.requests > 0),
        more: served.more,
        error: wanted.err(),
    }
}

/// How far it came.
struct Served {
    requests: u32,
    more: bool,
}

fn run<M, B>(
    work: &mut Work,
    geometry: &Geometry,
    memory: &mut M,
    backend: &mut B,
    scratch: &mut Scratch,
    most: u32,
    served: &mut Served,
) -> Result<(), RingError>
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
{
    let features = work.features();
    let mut quiet = false;
    while served.requests < most {
        if !work.ring.pop(memory, &mut scratch.chain)? {
            if !quiet {
                served.more = false;
                return Ok(());
            }
            work.ring.ask_for_notifications(memory, true)?;
            quiet = false;
            continue;
        }
        if !quiet {
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
        served.requests += 1;
    }
    if quiet {
        work.ring.ask_for_notifications(memory, true)?;
    }
    Ok(())
}
