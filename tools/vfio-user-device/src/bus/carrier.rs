// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One device whose state a monitor carries along.
//!
//! Both objects of a device share it: that for management tools, and that for QEMU. QEMU saves a device by one call and loads it by
//! one, while its processors stand still; what it does not do is to keep the device from telling interrupts meanwhile, and to give
//! them up that it has raised. So a device can be frozen before, and is frozen after it was loaded.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::Error;
use crate::registry::{DeviceName, Loading, Registry, Saving, MAX_PIECE};
use crate::replay::{end_of_interrupt, Address, ConfigSpace};

/// Why a device stands still.
#[derive(Debug, Default)]
enum Held {
    /// It does not.
    #[default]
    No,
    /// It is going to be saved.
    Frozen(Saving),
    /// It was loaded.
    Loaded(Loading),
}

/// One device whose state a monitor carries along.
#[derive(Debug)]
pub struct Carrier {
    registry: Registry,
    name: DeviceName,
    held: Mutex<Held>,
}

impl Carrier {
    /// A device of this name.
    pub fn new(registry: Registry, name: DeviceName) -> Self {
        Self {
            registry,
            name,
            held: Mutex::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &DeviceName {
        &self.name
    }

    /// The devices that it is one of.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // What is in it is replaced as a whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it stands still.
    pub fn is_frozen(&self) -> bool {
        !matches!(*self.held(), Held::No)
    }

    /// Saves it, as no more than so many bytes. It runs again afterwards, whatever becomes of that.
    pub fn save(&self, most: usize) -> Result<Vec<u8>, Error> {
        let mut held = self.held();
        let mut saving = match std::mem::take(&mut *held) {
            Held::No => self.registry.save(self.name.as_str())?,
            Held::Frozen(saving) => saving,
            loaded @ Held::Loaded(_) => {
                *held = loaded;
                return Err(self.waits());
            }
        };
        let mut stream = Vec::new();
        loop {
            let piece = saving.next(MAX_PIECE)?;
            if piece.is_empty() {
                saving.finish()?;
                return Ok(stream);
            }
            if piece.len() > most - stream.len() {
                return Err(Error::TooLong(format!(
                    "{}: the state has more than {most} bytes; save it by vfio-migrate, or as the vfio-user client",
                    self.name
                )));
            }
            stream.extend(piece);
        }
    }

    /// Loads it and lets it run.
    pub fn load(&self, stream: &[u8]) -> Result<(), Error> {
        let held = self.held();
        let mut loading = self.begin(&held)?;
        loading.push(stream)?;
        Ok(loading.finish()?)
    }

    /// Loads it. It stands still until it is thawed.
    pub fn load_frozen(&self, stream: &[u8]) -> Result<(), Error> {
        let mut held = self.held();
        let mut loading = self.begin(&held)?;
        loading.push(stream)?;
        loading.settle()?;
        *held = Held::Loaded(loading);
        Ok(())
    }

    fn begin(&self, held: &Held) -> Result<Loading, Error> {
        match held {
            Held::No => Ok(self.registry.load(self.name.as_str())?),
            Held::Frozen(_) | Held::Loaded(_) => Err(self.waits()),
        }
    }

    fn waits(&self) -> Error {
        Error::Busy(format!(
            "{}: the device is frozen; thaw it first",
            self.name
        ))
    }

    fn cannot_give_up(&self) -> Error {
        Error::Refused(format!(
            "{}: no register of the device can be read without an effect, which QEMU needs to take its interrupt back; let the guest use MSI, if the device has that",
            self.name
        ))
    }

    /// Makes it stand still, until it is saved or thawed. What QEMU's monitor is to be told then.
    pub fn freeze(&self) -> Result<Vec<String>, Error> {
        let mut held = self.held();
        if !matches!(*held, Held::No) {
            return Err(self.waits());
        }
        // An error lets it run again.
        let saving = self.registry.save(self.name.as_str())?;
        let (space, idle) = self.view()?;
        // Better now than at the destination.
        space.check()?;
        let commands = match space.uses_intx()? {
            true => {
                let (region, offset) = idle.ok_or_else(|| self.cannot_give_up())?;
                // What the guest cannot reach has raised nothing.
                let port = space.port(region, offset);
                port.map(end_of_interrupt).unwrap_or_default()
            }
            false => Vec::new(),
        };
        *held = Held::Frozen(saving);
        Ok(commands)
    }

    /// Lets it run again, if it stands still.
    pub fn thaw(&self) -> Result<(), Error> {
        match std::mem::take(&mut *self.held()) {
            Held::No => Ok(()),
            Held::Frozen(saving) => Ok(saving.finish()?),
            Held::Loaded(loading) => Ok(loading.finish()?),
        }
    }

    /// What gives QEMU's copy of the configuration space what the device has.
    pub fn replay(&self, address: Address, selector: u32) -> Result<Vec<String>, Error> {
        let (space, _) = self.view()?;
        Ok(space.commands(address, selector)?)
    }

    /// Configuration space, and a register that can be read without an effect.
    fn view(&self) -> Result<(ConfigSpace, Option<(u32, u64)>), Error> {
        let view = self.registry.view(self.name.as_str())?;
        Ok((ConfigSpace::new(&view.config)?, view.idle))
    }
}
