// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Serving a queue: what is done without the registers.

use super::request::{execute, Backend, Geometry};
use crate::virtio::{Chain, GuestMemory, Outcome, RingError, Turn, Work};

/// How much data is moved at once, in bytes: a whole number of sectors.
pub const SCRATCH_BYTES: usize = 4096;

/// What serving needs room for, one for each queue that is to be served at once: 2 KiB, and memory for data. Unless it is elsewhere
/// ([`Scratch::with`]), that is in it, and it has 6 KiB: build it where it is to live.
#[derive(Clone, Debug)]
pub struct Scratch<D = [u8; SCRATCH_BYTES]> {
    chain: Chain,
    data: D,
}

impl Scratch {
    /// Room.
    pub const fn new() -> Scratch {
        Scratch::with([0; SCRATCH_BYTES])
    }
}

impl<D> Scratch<D> {
    /// Room, with this memory for data: a whole number of sectors, such as [`SCRATCH_BYTES`].
    pub const fn with(data: D) -> Scratch<D> {
        Scratch {
            chain: Chain::new(),
            data,
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
pub fn serve<M, B, D>(
    work: &mut Work,
    geometry: &Geometry,
    memory: &mut M,
    backend: &mut B,
    scratch: &mut Scratch<D>,
) -> Outcome
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
    D: AsMut<[u8]>,
{
    serve_while(work, geometry, memory, backend, scratch, || true)
}

/// The same, and after each request the turn goes on only if `go_on` says so: for whoever has something else to do meanwhile. A turn
/// that is cut short is followed by another one, unless the ring is empty.
///
/// Whoever cuts turns short goes on until [`Function::has_work`](crate::virtio::Function::has_work) says that there is nothing left: it
/// does not count what he has begun, so nobody else who is told of a request takes it over.
pub fn serve_while<M, B, D>(
    work: &mut Work,
    geometry: &Geometry,
    memory: &mut M,
    backend: &mut B,
    scratch: &mut Scratch<D>,
    mut go_on: impl FnMut() -> bool,
) -> Outcome
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
    D: AsMut<[u8]>,
{
    let mut served = 0;
    let result = run(
        work,
        geometry,
        memory,
        backend,
        scratch,
        &mut served,
        &mut go_on,
    );
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
fn run<M, B, D>(
    work: &mut Work,
    geometry: &Geometry,
    memory: &mut M,
    backend: &mut B,
    scratch: &mut Scratch<D>,
    served: &mut u16,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<bool, RingError>
where
    M: GuestMemory + ?Sized,
    B: Backend + ?Sized,
    D: AsMut<[u8]>,
{
    let features = work.features();
    let (mut quiet, mut is_cut) = (false, false);
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
            scratch.data.as_mut(),
        )?;
        work.ring.push(memory, &scratch.chain, written)?;
        *served += 1;
        if !go_on() {
            is_cut = true;
            break;
        }
    }
    if quiet {
        work.ring.ask_for_notifications(memory, true)?;
    }
    // A last turn that was cut short may leave requests that nothing told of.
    match quiet || is_cut {
        true => Ok(!work.ring.is_empty(memory)?),
        false => Ok(false),
    }
}
