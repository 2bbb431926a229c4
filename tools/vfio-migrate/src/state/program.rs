// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device that a program emulates, which is reached by vfio-user.

use std::cell::RefCell;
use std::path::Path;

use vfio_uapi::{abi, Errno, State};
use vfio_user_protocol::feature::{number, Operation};
use vfio_user_protocol::version::{MAJOR, MINOR};
use vfio_user_protocol::{answer, Access, Proposal, Request};

use super::{errno, Card, Loading, Progress, Protocol, Saved, Way, CHUNK};
use crate::error::{Error, Result};
use crate::inspect::SERIAL_MODEL;
use crate::vfio_user::{Answered, Client, Trouble};

/// Vendor and device identifiers of the serial cards.
const SERIAL_IDS: [[u8; 4]; 3] = [[0x36, 0x1b, 2, 0], [0x36, 0x1b, 3, 0], [0x36, 0x1b, 4, 0]];

/// A program that this one is the client of.
pub struct Program {
    client: RefCell<Client>,
    name: String,
}

impl Program {
    /// Becomes the client of the program that listens at this path. `name` is what messages call it.
    pub fn connect(path: &Path, name: &str) -> Result<Self> {
        let failed = |what: &str| Error::failed(format!("{name}: {what}"));
        let mut client = Client::connect(path).map_err(|what| failed(&what))?;
        let agreed = client.agree(Proposal::bare(MAJOR, MINOR));
        agreed.map_err(|trouble| match trouble {
            Trouble::Refused(Errno::EBUSY) => failed(
                "the device is in use (EBUSY): end the program that is its client, or choose another one",
            ),
            Trouble::Refused(error) => failed(&errno("the program does not agree", error)),
            Trouble::Lost(what) => failed(&what),
        })?;
        Ok(Self {
            client: RefCell::new(client),
            name: name.to_string(),
        })
    }

    fn lost(&self, what: &str) -> Error {
        Error::failed(format!("{}: {what}", self.name))
    }

    /// Something that was refused, with the reason if the program tells it.
    fn failure(&self, what: &str, trouble: Trouble) -> Error {
        let error = match trouble {
            Trouble::Refused(error) => error,
            Trouble::Lost(lost) => return self.lost(&lost),
        };
        let what = errno(&format!("{}: {what}", self.name), error);
        let mut client = self.client.borrow_mut();
        let reason = client.feature(number::REFUSAL, Operation::Get, &[]);
        let reason = reason.ok().and_then(|text| String::from_utf8(text).ok());
        Error::refused(match reason.as_deref() {
            None | Some("") => what,
            Some(reason) => format!("{what}: {reason}"),
        })
    }

    fn flags(&self) -> Result<u64> {
        let flags = self.client.borrow_mut().number(number::MIGRATION);
        flags.map_err(|trouble| match trouble {
            // A server may answer either.
            Trouble::Refused(Errno::ENOTTY | Errno::EINVAL) => {
                self.lost("the device cannot be migrated by vfio-user")
            }
            Trouble::Refused(error) => self.lost(&errno("its migration features", error)),
            Trouble::Lost(what) => self.lost(&what),
        })
    }

    fn switch(&self, target: State) -> Result<()> {
        let data = [target as u32, 0].map(u32::to_ne_bytes).concat();
        let operation = Operation::Set;
        let mut client = self.client.borrow_mut();
        let reached = client.feature(number::MIG_DEVICE_STATE, operation, &data);
        drop(client);
        let what = format!("the device does not go to {target:?}");
        reached
            .map(drop)
            .map_err(|trouble| self.failure(&what, trouble))
    }

    /// Moves what there is to read.
    fn pump(
        &self,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        count: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut bytes = 0;
        loop {
            let mut client = self.client.borrow_mut();
            let size = client.most.min(CHUNK as u32);
            let body = client.ask(&Request::MigDataRead { size });
            drop(client);
            let body = body.map_err(|error| self.failure("the state cannot be read", error))?;
            let data = answer::saved(&body, size);
            let data = data.map_err(|refusal| self.failure("", refusal.into()))?;
            if data.is_empty() {
                return Ok(());
            }
            sink(data)?;
            bytes += data.len() as u64;
            count(bytes);
        }
    }

    fn save_phases(
        &self,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        let expected = self.client.borrow_mut().number(number::MIG_DATA_SIZE).ok();
        let mut saved = Saved::default();
        if pre_copy {
            self.switch(State::PreCopy)?;
            self.pump(sink, &mut |bytes| {
                saved.pre_copy = bytes;
                progress(bytes, None);
            })?;
        }
        self.switch(State::StopCopy)?;
        let before = saved.pre_copy;
        self.pump(sink, &mut |bytes| {
            saved.stop_copy = bytes;
            let expected = expected.map(|expected| expected.saturating_add(before));
            progress(before + bytes, expected);
        })?;
        self.switch(State::Stop)?;
        Ok(saved)
    }

    /// Fails for a protocol that there is not.
    fn check(&self, protocol: Protocol) -> Result<()> {
        match protocol {
            Protocol::V2 => Ok(()),
            Protocol::V1 | Protocol::V1Mmap => Err(self
                .lost("vfio-user has no migration region, and so no protocol v1: leave that out")),
        }
    }

    /// Gives the device the next bytes of a state.
    pub(super) fn push(&self, bytes: &[u8]) -> Result<()> {
        let most = self.client.borrow().most as usize;
        for piece in bytes.chunks(most.clamp(1, CHUNK)) {
            let taken = self.client.borrow_mut().ask(&Request::MigDataWrite(piece));
            taken.map_err(|trouble| self.failure("the state is refused", trouble))?;
        }
        Ok(())
    }

    /// The loaded state takes effect.
    pub(super) fn finish(&self) -> Result<()> {
        self.switch(State::Stop)?;
        self.switch(State::Running)
    }

    fn access<T>(&self, answered: Answered<T>) -> Result<T> {
        answered.map_err(|trouble| {
            let what = "a register cannot be accessed";
            match trouble {
                Trouble::Refused(error) => self.lost(&errno(what, error)),
                Trouble::Lost(lost) => self.lost(&lost),
            }
        })
    }
}

/// An access to registers, if it is one that a message has room for.
fn place(region: u32, offset: u64, len: usize) -> Access {
    Access {
        offset,
        region,
        count: u32::try_from(len).unwrap_or(u32::MAX),
    }
}

impl Card for Program {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn model(&self) -> Result<String> {
        let mut id = [0; 4];
        self.read(abi::VFIO_PCI_CONFIG_REGION_INDEX, 0, &mut id)?;
        Ok(match SERIAL_IDS.contains(&id) {
            true => SERIAL_MODEL.to_string(),
            false => format!(
                "device {:02x}{:02x}:{:02x}{:02x}",
                id[1], id[0], id[3], id[2]
            ),
        })
    }

    fn read(&self, region: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let asked = place(region, offset, data.len());
        let body = self.client.borrow_mut().ask(&Request::Read(asked));
        let body = self.access(body)?;
        let found = self.access(answer::registers(&body, &asked).map_err(Trouble::from))?;
        // As many as were asked for.
        data.copy_from_slice(found);
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<()> {
        let asked = place(region, offset, data.len());
        let body = self.client.borrow_mut().ask(&Request::Write(asked, data));
        let body = self.access(body)?;
        self.access(answer::written(&body, &asked).map_err(Trouble::from))
    }

    fn region_size(&self, index: u32) -> Result<u64> {
        let asked = Request::RegionInfo { argsz: 32, index };
        let body = self.client.borrow_mut().ask(&asked);
        let body = self.access(body)?;
        self.access(answer::region_size(&body).map_err(Trouble::from))
    }

    fn has_pre_copy(&self, protocol: Protocol) -> Result<bool> {
        self.check(protocol)?;
        Ok(self.flags()? & u64::from(abi::VFIO_MIGRATION_PRE_COPY) != 0)
    }

    fn save(
        &self,
        protocol: Protocol,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        if pre_copy && !self.has_pre_copy(protocol)? {
            return Err(self.lost("the device does not save while it runs: leave out --pre-copy"));
        }
        self.check(protocol)?;
        self.flags()?;
        let saved = self.save_phases(pre_copy, sink, progress);
        if saved.is_err() {
            // The first error is the one to report.
            let _ = self.switch(State::Running);
        }
        saved
    }

    fn load(&self, protocol: Protocol) -> Result<Loading<'_>> {
        self.check(protocol)?;
        self.flags()?;
        self.switch(State::Resuming)?;
        Ok(Loading::new(Way::Socket(self)))
    }
}
