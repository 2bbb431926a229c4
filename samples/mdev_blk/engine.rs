// SPDX-License-Identifier: GPL-2.0

//! Serving the disk's queues, with the guest's memory and the medium, and without the instance's mutex.

use crate::store::Store;
use crate::Disk;
use devices::blk::{serve, Geometry, Scratch, SCRATCH_BYTES};
use devices::virtio::{self, Fault, Outcome, Work};
use kernel::prelude::*;
use vfio::engine::{Barrier, Engine, GuestMemory};

/// Data on its way between guest and medium.
struct Data(KVec<u8>);

impl AsMut<[u8]> for Data {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// What serving needs room for.
pub(crate) struct Server(KBox<Scratch<Data>>);

/// A queue that is being served.
pub(crate) struct Job {
    work: Work,
    geometry: Geometry,
    store: Store,
    /// How that ended. Unless it was served, nothing happened, and the queue is looked at again.
    outcome: Outcome,
}

impl Engine<Disk> for Server {
    type Job = Job;

    fn new() -> Result<Self> {
        let data = Data(KVec::from_elem(0, SCRATCH_BYTES, GFP_KERNEL)?);
        Ok(Self(KBox::new(Scratch::with(data), GFP_KERNEL)?))
    }

    fn has_work(disk: &Disk) -> bool {
        disk.device.function().has_work()
    }

    fn begin(disk: &mut Disk) -> Option<Job> {
        let work = disk.device.function_mut().begin()?;
        Some(Job {
            work,
            geometry: *disk.device.geometry(),
            store: disk.store.clone(),
            outcome: Outcome {
                interrupt: false,
                more: true,
                error: None,
            },
        })
    }

    fn serve(&mut self, job: &mut Job, memory: &mut GuestMemory<'_>) {
        job.outcome = serve(
            &mut job.work,
            &job.geometry,
            &mut Memory(memory),
            &mut job.store,
            &mut self.0,
        );
    }

    fn finish(disk: &mut Disk, job: Job) {
        disk.device.function_mut().finish(job.work, &job.outcome);
    }
}

/// The guest's memory, as a virtio device asks for it.
struct Memory<'m, 'g>(&'m mut GuestMemory<'g>);

impl virtio::GuestMemory for Memory<'_, '_> {
    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Fault> {
        self.0.read(address, into).map_err(|_| Fault)
    }

    fn write(&mut self, address: u64, from: &[u8]) -> Result<(), Fault> {
        self.0.write(address, from).map_err(|_| Fault)
    }

    fn barrier(&mut self, barrier: virtio::Barrier) {
        self.0.barrier(match barrier {
            virtio::Barrier::Read => Barrier::Read,
            virtio::Barrier::Write => Barrier::Write,
            virtio::Barrier::Full => Barrier::Full,
        });
    }
}
