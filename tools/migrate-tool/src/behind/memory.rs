// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device behind a socket that accesses memory: the client's, by the descriptors that it sends.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{ensure, Context, Result};
use guest_tests::kernel;
use guest_tests::ktap::Suite;
use guest_tests::module::Loaded;
use guest_tests::v2_api::check::{equal, same_bytes, Named};
use guest_tests::v2_api::copier::DRIVER;
use guest_tests::vfio::interrupt::MSIX;
use guest_tests::vfio::Event;
use rustix::fs::{memfd_create, MemfdFlags};
use vfio_uapi::mdev::MdevType;
use vfio_uapi::Errno;
use vfio_user_protocol::feature::{number, Operation};
use vfio_user_protocol::{DmaMap, DmaUnmap, Request};

use super::client::{Answer, Client};
use super::{behind_path, feature, BAR0};
use crate::host::Scratch;

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_device_behind_a_socket_reaches_the_clients_memory,
        memory_that_may_not_be_accessed_is_not,
        memory_that_is_taken_away_costs_a_copy_and_not_the_program,
        what_a_device_behind_a_socket_writes_is_logged,
    );
}

const PAGE: u64 = 4096;
/// Where the memory begins in its file, and for the device.
const OFFSET: u64 = 4 * PAGE;
const ADDRESS: u64 = 0x1_0000_0000;
/// Bytes of it.
const LENGTH: u64 = 16 * PAGE;

/// What the engine says of a copy.
const DONE: u32 = 2;
const FAILED: u32 = 3;

/// The copy engine behind a socket, once for each way to open it, with a client and its memory. Fields are dropped in this order.
struct Engine {
    /// It was opened by its group, so that its memory is a container's.
    by_group: bool,
    client: Client,
    memory: File,
    _program: crate::programs::Program,
    _instance: vfio_uapi::mdev::Mdev,
    _scratch: Scratch,
}

impl Engine {
    fn new(by_group: bool) -> Result<Self> {
        let instance = MdevType::find("mdev_copy-1")?.create()?;
        let scratch = Scratch::new()?;
        let socket = scratch.file("copy.sock");
        let path = match by_group {
            true => instance.group_path()?,
            false => instance.path(),
        };
        let program = behind_path(&socket, &path)?;
        let memory = memfd_create("memory", MemfdFlags::CLOEXEC).context("memory")?;
        let memory = File::from(memory);
        memory.set_len(OFFSET + LENGTH)?;
        Ok(Self {
            by_group,
            client: Client::connect(&socket)?,
            memory,
            _program: program,
            _instance: instance,
            _scratch: scratch,
        })
    }

    /// Runs a test by each way that this kernel has to open a device.
    fn each(test: impl Fn(&mut Self) -> Result<()>) -> Result<()> {
        let _driver = Loaded::new(DRIVER)?;
        for by_group in [false, true] {
            test(&mut Self::new(by_group)?).with_context(|| format!("by group: {by_group}"))?;
        }
        Ok(())
    }

    fn map(&mut self, writable: bool) -> Result<Answer> {
        self.map_part(0, LENGTH, true, writable)
    }

    fn map_part(&mut self, at: u64, size: u64, readable: bool, writable: bool) -> Result<Answer> {
        let map = DmaMap {
            readable,
            writable,
            wants_file: true,
            offset: OFFSET + at,
            address: ADDRESS + at,
            size,
        };
        let memory = self.memory.try_clone()?;
        self.client.ask(&Request::DmaMap(map), &[memory.as_fd()])
    }

    fn unmap(&mut self, address: u64, size: u64) -> Result<Answer> {
        let all = size == 0;
        let unmap = DmaUnmap {
            argsz: 24,
            all,
            address,
            size,
        };
        self.client.ask(&Request::DmaUnmap(unmap), &[])
    }

    /// Copies within the memory, by places in it, and tells what the engine says.
    fn copy(&mut self, from: u64, to: u64, length: u32) -> Result<u32> {
        let [from, to] = [from, to].map(|at| (ADDRESS + at).to_le_bytes());
        for (register, bytes) in [
            (0, &from[..]),
            (8, &to),
            (16, &length.to_le_bytes()),
            (20, &1u32.to_le_bytes()),
        ] {
            self.client.write(BAR0, register, bytes)?.named("a write")?;
        }
        let status = self.client.read(BAR0, 24, 4)?.named("the status")?;
        Ok(u32::from_le_bytes(status.as_slice().try_into()?))
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.memory
            .write_all_at(bytes, OFFSET + at)
            .context("memory")
    }

    fn at(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.memory.read_exact_at(&mut bytes, OFFSET + at)?;
        Ok(bytes)
    }
}

/// Bytes of which no two neighbours are the same.
fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
}

fn a_device_behind_a_socket_reaches_the_clients_memory() -> Result<()> {
    Engine::each(|engine| {
        let bytes = pattern(5000);
        engine.put(100, &bytes)?;
        equal("without memory", engine.copy(100, 3 * PAGE, 5000)?, FAILED)?;
        engine.map(true)?.named("DMA_MAP")?;
        equal("the same again", engine.map(true)?, Err(Errno::EEXIST))?;
        let event = Event::new().named("eventfd")?;
        engine.client.interrupt(MSIX, &event)?.named("SET_IRQS")?;
        equal("a copy", engine.copy(100, 3 * PAGE, 5000)?, DONE)?;
        same_bytes("copied", &engine.at(3 * PAGE, 5000)?, &bytes)?;
        ensure!(event.wait()? > 0, "no message");
        // A part is no range; nothing is unmapped by that.
        let part = engine.unmap(ADDRESS, PAGE)?;
        equal("a part", part, Err(Errno::ENOENT))?;
        equal("a copy", engine.copy(100, 5 * PAGE, 5000)?, DONE)?;
        engine.unmap(ADDRESS, LENGTH)?.named("DMA_UNMAP")?;
        equal("without memory", engine.copy(100, 7 * PAGE, 5000)?, FAILED)?;
        same_bytes("not copied", &engine.at(7 * PAGE, 5000)?, &[0; 5000])?;
        // What may only be read is not written.
        engine.map(false)?.named("DMA_MAP")?;
        equal(
            "to memory to be read",
            engine.copy(0, 9 * PAGE, 64)?,
            FAILED,
        )?;
        engine.unmap(0, 0)?.named("DMA_UNMAP of all")?;
        engine.map(true)?.named("DMA_MAP")?;
        equal("a copy", engine.copy(100, 9 * PAGE, 64)?, DONE)?;
        same_bytes("copied", &engine.at(9 * PAGE, 64)?, &bytes[..64])
    })
}

fn memory_that_may_not_be_accessed_is_not() -> Result<()> {
    const HALF: u64 = LENGTH / 2;
    Engine::each(|engine| {
        engine.map_part(HALF, HALF, true, true)?.named("DMA_MAP")?;
        let refused = engine.map_part(0, HALF, false, false)?;
        equal("memory for nothing", refused, Err(Errno::EINVAL))?;
        for (readable, writable) in [(true, false), (false, true)] {
            engine.put(0, &pattern(64))?;
            engine.put(HALF, &[0; 64])?;
            let mapped = engine.map_part(0, HALF, readable, writable)?;
            mapped.named("DMA_MAP")?;
            // A container lets a device access nothing that it may not read, not even to write (vfio_iommu_type1.c of Linux 7.3).
            let writable = writable && (readable || !engine.by_group);
            for (from, to, may) in [(0, HALF, readable), (HALF, 0, writable)] {
                let what =
                    format!("{from:#x} to {to:#x}, readable {readable}, writable {writable}");
                let result = if may { DONE } else { FAILED };
                equal(what, engine.copy(from, to, 64)?, result)?;
            }
            engine.unmap(ADDRESS, HALF)?.named("DMA_UNMAP")?;
        }
        Ok(())
    })
}

fn memory_that_is_taken_away_costs_a_copy_and_not_the_program() -> Result<()> {
    Engine::each(|engine| {
        engine.put(0, &pattern(64))?;
        engine.map(true)?.named("DMA_MAP")?;
        equal("a copy", engine.copy(0, PAGE, 64)?, DONE)?;
        engine.memory.set_len(OFFSET + PAGE)?;
        equal("to what is gone", engine.copy(0, 8 * PAGE, 64)?, FAILED)?;
        equal("from what is gone", engine.copy(8 * PAGE, 0, 64)?, FAILED)?;
        engine.memory.set_len(OFFSET + LENGTH)?;
        equal("to what is back", engine.copy(0, 8 * PAGE, 64)?, DONE)?;
        same_bytes("copied", &engine.at(8 * PAGE, 64)?, &pattern(64))
    })
}

/// The numbers of the pages that a report tells of.
fn logged(engine: &mut Engine) -> Result<Vec<usize>> {
    let data = [ADDRESS, LENGTH, PAGE].map(u64::to_ne_bytes).concat();
    let request = feature(Operation::Get, number::DMA_LOGGING_REPORT, &data);
    let body = engine.client.ask(&request, &[])?.named("a report")?;
    equal("its length", body.len(), 8 + 24 + 8)?;
    let bits = u64::from_ne_bytes(body[32..40].try_into()?);
    Ok((0..64).filter(|page| (bits >> page) & 1 != 0).collect())
}

fn what_a_device_behind_a_socket_writes_is_logged() -> Result<()> {
    kernel::needs(kernel::LOGGING)?;
    Engine::each(|engine| {
        engine.map(true)?.named("DMA_MAP")?;
        let refused = feature(Operation::Get, number::DMA_LOGGING_REPORT, &[0; 24]);
        let refused = engine.client.ask(&refused, &[])?;
        equal("a report of nothing", refused, Err(Errno::EINVAL))?;
        let none = [PAGE, 0].map(u64::to_ne_bytes).concat();
        let one = [PAGE, 1, ADDRESS, LENGTH].map(u64::to_ne_bytes).concat();
        for start in [none, one] {
            let start = feature(Operation::Set, number::DMA_LOGGING_START, &start);
            engine.client.ask(&start, &[])?.named("START")?;
            let again = engine.client.ask(&start, &[])?;
            equal("START while it is on", again, Err(Errno::EINVAL))?;
            equal("before", logged(engine)?, vec![])?;
            for to in [2, 15] {
                equal("a copy", engine.copy(0, to * PAGE, 16)?, DONE)?;
            }
            equal("two copies", logged(engine)?, vec![2, 15])?;
            equal("nothing since", logged(engine)?, vec![])?;
            let stop = feature(Operation::Set, number::DMA_LOGGING_STOP, &[]);
            engine.client.ask(&stop, &[])?.named("STOP")?;
        }
        let probe = Operation::Probe {
            get: false,
            set: true,
        };
        let probe = feature(probe, number::DMA_LOGGING_START, &[]);
        engine.client.ask(&probe, &[])?.named("PROBE").map(drop)
    })
}
