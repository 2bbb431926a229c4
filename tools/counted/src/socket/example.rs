// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The server of crate `vfio_user`, and our program beside it: both with that crate's own client. It is here to compare with, and in
//! nothing else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};
use vfio_uapi::abi::{vfio_region_info, VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE};
use vfio_user::{Client, DmaMapFlags, DmaUnmapFlags, Server, ServerBackend, ServerRegion};

use super::{clock_of, with, CONNECTION, SCRATCH, SUBJECT};
use crate::measure::TURNS;
use crate::report::Report;

/// The option with which this program is the example.
pub const OPTION: &str = "--example-server";

/// A region of eight registers that only remember.
struct Registers([u8; 8]);

impl Registers {
    fn at(&mut self, offset: u64, length: usize) -> io::Result<&mut [u8]> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = start..start.saturating_add(length);
        let found = self.0.get_mut(range);
        found.ok_or(io::ErrorKind::InvalidInput.into())
    }
}

impl ServerBackend for Registers {
    fn region_read(&mut self, _: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.copy_from_slice(self.at(offset, data.len())?);
        Ok(())
    }

    fn region_write(&mut self, _: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.at(offset, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        _: u64,
        _: u64,
        _: u64,
        _: Option<File>,
    ) -> io::Result<()> {
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}

/// Is the example: serves the one client that comes to the socket which is standard input.
pub fn serve() -> Result<()> {
    let listener: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let region = ServerRegion {
        region_info: vfio_region_info {
            argsz: 32,
            flags: VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
            index: 0,
            cap_offset: 0,
            size: 8,
            offset: 0,
        },
        sparse_areas: Vec::new(),
        mmap_fd: None,
    };
    let server = Server::from_owned_fd(listener, true, Vec::new(), vec![region]);
    let served = server.run(&mut Registers([0; 8]));
    served.context("the example server")
}

/// A row of either server.
pub(super) fn add(report: &Report) -> Result<()> {
    let own = std::env::current_exe()?;
    let mut example = Command::new(&own);
    example.arg(OPTION);
    let mut ours = Command::new(own.with_file_name("vfio-user-device"));
    ours.args(["--fd", &CONNECTION.to_string()]);
    for (mut command, whose) in [(ours, "ours"), (example, "the crate's")] {
        let operation = format!("byte read, crate's client, {whose}");
        if !report.is_wanted(&operation) {
            continue;
        }
        let path = std::env::temp_dir().join(format!("counted-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).context("a socket")?;
        command
            .stdin(Stdio::from(OwnedFd::from(listener.try_clone()?)))
            .stdout(Stdio::null())
            .fd_mappings(vec![FdMapping {
                parent_fd: listener.into(),
                child_fd: CONNECTION,
            }])?;
        let child = command.spawn().context("a server");
        drop(command);
        let client = child.map(|child| {
            let client = Client::new(&path).context("the crate's client");
            (child, client)
        });
        std::fs::remove_file(&path)?;
        let (mut child, client) = client?;
        let counted = client.and_then(|mut client| {
            let clock = clock_of(&child)?;
            let time = || with(clock);
            report.turns_row(&operation, SUBJECT, (time, TURNS), || {
                let mut byte = [0];
                let read = client.region_read(SCRATCH.region, SCRATCH.offset, &mut byte);
                read.context("a register")
            })
        });
        // The example ends with its client, and ours waits for the next one.
        let _ = child.kill();
        child.wait()?;
        counted?;
    }
    Ok(())
}
