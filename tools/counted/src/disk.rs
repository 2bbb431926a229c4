// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The disk: a request from its notification to its interrupt, and its contents on their way. Beside them stands what a plain copy
//! between kernel and user costs.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use guest_tests::blk_api::disk::{instance, Disk, IN, OK, OUT};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::ftruncate;
use vfio_uapi::migration_v1::{Region, RESUMING, RUNNING, SAVING};
use vfio_uapi::{Access, DataFd, Device, Mapping, State};

use crate::measure::Stretch;
use crate::report::Report;
use crate::{DISK, FLOOR};

/// Bytes of a request.
const REQUEST: usize = 4096;
/// Bytes of a mebibyte.
const MIB: usize = 1 << 20;
/// Mebibytes of the state. All of them are written, so all are saved.
const CAPACITY: usize = 1;
/// Bytes of a sector, by which requests count.
const SECTOR: usize = 512;
/// Bytes asked for at a time where a state is moved: what the data section of the migration region holds.
const STEP: usize = 64 * 1024;

/// Everything about the disk.
pub fn add(report: &Report) -> Result<()> {
    let instance = instance(&[("capacity-mib", &CAPACITY.to_string())])?;
    let mut disk = Disk::new(Access::Group, &instance)?;
    requests(report, &mut disk)?;
    fill(&mut disk)?;
    state(report, &disk.device)?;
    drop(disk);
    instance.remove()?;
    copies(report)
}

/// Writes every sector.
fn fill(disk: &mut Disk) -> Result<()> {
    let bytes: Vec<u8> = (0..STEP).map(|at| at as u8 | 1).collect();
    for at in (0..CAPACITY * MIB).step_by(STEP) {
        disk.queue().write((at / SECTOR) as u64, &bytes)?;
    }
    Ok(())
}

/// A request of one kind. What the driver does with its ring before and after it is its own business.
struct Request<'a> {
    disk: &'a mut Disk,
    kind: u32,
}

impl Stretch for Request<'_> {
    type Ready = u16;

    fn before(&mut self) -> Result<u16> {
        let writes = self.kind == IN;
        let queue = self.disk.queue();
        let data = (queue.data(), REQUEST as u32, writes);
        Ok(queue.add(0, self.kind, 0, &[data], false))
    }

    fn call(&mut self, _: &mut u16) -> Result<()> {
        self.disk.queue().notify()?;
        // Vector 0 is for changes of the configuration.
        let interrupts = self.disk.events[1].count()?;
        ensure!(interrupts == 1, "{interrupts} interrupts");
        Ok(())
    }

    fn after(&mut self, id: u16) -> Result<()> {
        let queue = self.disk.queue();
        let (done, _) = queue.ring.take()?.context("nothing is done")?;
        let answer = queue.answer(0);
        ensure!((done, answer) == (id, OK), "{done}: {answer}");
        Ok(())
    }
}

fn requests(report: &Report, disk: &mut Disk) -> Result<()> {
    for (operation, kind) in [
        ("4 KiB written by a request", OUT),
        ("4 KiB read by a request", IN),
    ] {
        report.stretch_row(operation, DISK, 1.0, Request { disk, kind })?;
    }
    Ok(())
}

/// Moves bytes through a data file.
struct ByFile<'a> {
    device: &'a Device,
    state: &'a mut Vec<u8>,
    loads: bool,
}

impl Stretch for ByFile<'_> {
    type Ready = DataFd;

    fn before(&mut self) -> Result<DataFd> {
        Ok(self.device.start(match self.loads {
            true => State::Resuming,
            false => State::StopCopy,
        })?)
    }

    fn call(&mut self, file: &mut DataFd) -> Result<()> {
        if self.loads {
            return Ok(file.write_all(self.state, STEP)?);
        }
        let mut done = 0;
        loop {
            let rest = self.state.get_mut(done..).context("a longer state")?;
            let step = STEP.min(rest.len());
            match file.read(&mut rest[..step])? {
                0 => break,
                count => done += count,
            }
        }
        ensure!(done > CAPACITY * MIB, "{done} bytes");
        Ok(())
    }

    fn after(&mut self, file: DataFd) -> Result<()> {
        drop(file);
        Ok(self.device.switch(State::Running)?)
    }
}

/// Moves bytes through the migration region.
struct ByRegion<'a> {
    region: Region<'a>,
    /// Who has it mapped finds each piece there, and need not copy it.
    copies: bool,
    /// The pieces of a state, one after the other, and how long they are.
    state: &'a mut Vec<u8>,
    pieces: &'a mut Vec<usize>,
    loads: bool,
}

impl ByRegion<'_> {
    fn save(&mut self) -> Result<()> {
        self.pieces.clear();
        let mut done = 0;
        while self.region.pending()? > 0 {
            let offset = self.region.data_offset()?;
            let length = usize::try_from(self.region.data_size()?)?;
            if self.copies {
                let into = self.state.get_mut(done..done + length);
                let count = self.region.read(offset, into.context("a longer state")?)?;
                ensure!(count == length, "{count} of {length} bytes");
            }
            self.pieces.push(length);
            done += length;
        }
        ensure!(done > CAPACITY * MIB, "{done} bytes");
        Ok(())
    }

    fn load(&mut self) -> Result<()> {
        let mut rest = self.state.as_slice();
        for &length in self.pieces.iter() {
            let (piece, later) = rest.split_at_checked(length).context("a cut state")?;
            self.region.put(self.region.data_offset()?, piece)?;
            self.region.set_data_size(length as u64)?;
            rest = later;
        }
        Ok(())
    }
}

impl Stretch for ByRegion<'_> {
    type Ready = ();

    fn before(&mut self) -> Result<()> {
        let state = if self.loads { RESUMING } else { SAVING };
        Ok(self.region.set_state(state)?)
    }

    fn call(&mut self, (): &mut ()) -> Result<()> {
        match self.loads {
            true => self.load(),
            false => self.save(),
        }
    }

    fn after(&mut self, (): ()) -> Result<()> {
        Ok(self.region.set_state(RUNNING)?)
    }
}

fn state(report: &Report, device: &Device) -> Result<()> {
    // Room for what frames the blocks, too.
    let mut state = vec![0; (CAPACITY + 1) * MIB];
    let units = CAPACITY as f64;
    let file = device.start(State::StopCopy)?;
    let all = file.read_all(STEP)?;
    drop(file);
    device.switch(State::Running)?;
    for (operation, loads) in [
        ("MiB of state saved by v2", false),
        ("MiB of state loaded by v2", true),
    ] {
        let mut given = all.clone();
        let moved = ByFile {
            device,
            state: if loads { &mut given } else { &mut state },
            loads,
        };
        report.stretch_row(operation, DISK, units, moved)?;
    }
    by_region(report, Region::find(device)?, &mut state)
}

fn by_region(report: &Report, region: Region<'_>, state: &mut Vec<u8>) -> Result<()> {
    let mut pieces = Vec::new();
    // So that there is something to load, whichever row is asked for.
    let mut saved = ByRegion {
        region,
        copies: true,
        state: &mut *state,
        pieces: &mut pieces,
        loads: false,
    };
    saved.before()?;
    saved.save()?;
    saved.after(())?;
    let mut row = |operation, copies, loads| {
        let moved = ByRegion {
            region,
            copies,
            state: &mut *state,
            pieces: &mut pieces,
            loads,
        };
        report.stretch_row(operation, DISK, CAPACITY as f64, moved)
    };
    row("MiB of state saved by v1, read", true, false)?;
    row("MiB of state loaded by v1, written", true, true)?;
    // What is mapped costs a card only what is put there.
    let _mapping = Mapping::of_data(&region)?;
    row("MiB of state saved by v1, mapped", false, false)
}

/// Copies of pages of memory, which is what a file in memory is made of.
struct Copied<'a> {
    file: &'a OwnedFd,
    bytes: &'a mut [u8],
    writes: bool,
}

impl Stretch for Copied<'_> {
    type Ready = ();

    fn before(&mut self) -> Result<()> {
        Ok(())
    }

    fn call(&mut self, (): &mut ()) -> Result<()> {
        let length = self.bytes.len();
        for at in (0..length).step_by(STEP) {
            let piece = &mut self.bytes[at..length.min(at + STEP)];
            let count = match self.writes {
                true => pwrite(self.file.as_fd(), piece, at as i64)?,
                false => pread(self.file.as_fd(), piece, at as i64)?,
            };
            ensure!(count == piece.len(), "{count} of {} bytes", piece.len());
        }
        Ok(())
    }

    fn after(&mut self, (): ()) -> Result<()> {
        Ok(())
    }
}

fn copies(report: &Report) -> Result<()> {
    let file = memfd_create("copied", MFdFlags::MFD_CLOEXEC)?;
    ftruncate(&file, MIB as i64)?;
    let mut bytes = vec![1; MIB];
    for (what, length) in [("4 KiB", REQUEST), ("MiB", MIB)] {
        for (done, writes) in [("written to", true), ("read from", false)] {
            let copied = Copied {
                file: &file,
                bytes: &mut bytes[..length],
                writes,
            };
            report.stretch_row(
                &format!("{what} {done} a file in memory"),
                FLOOR,
                1.0,
                copied,
            )?;
        }
    }
    Ok(())
}
