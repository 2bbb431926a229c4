// SPDX-License-Identifier: GPL-2.0

//! A scratch register: the smallest device that can be migrated, and the least that a driver consists of.
//!
//! A guest would need a PCI configuration space before anything else. What a whole card takes, with interrupts, time and
//! parameters, is in `samples/mdev_serial`.

use core::fmt::Write;
use kernel::prelude::*;
use migration::info::Family;
use migration::model::{Model, Type as Offer, Values};
use vfio::class::{Class, ClassDevice};
use vfio::device::{Device, Phase};
use vfio::engine::NoEngine;
use vfio::mdev::{Driver, Parent, Type};
use vfio::region::Region;

module! {
    type: MdevScratch,
    name: "mdev_scratch",
    authors: ["The rust-vfio-mdev authors"],
    description: "The smallest mediated device that can be migrated: a scratch register",
    license: "GPL",
}

/// The device model: four bytes of memory.
struct Scratch([u8; 4]);

impl Scratch {
    /// The number of the one section that its state has.
    const REGISTER: u16 = 0;

    /// The bytes that an access is to; none outside of the register.
    fn bytes(&mut self, region: Region, offset: u64, len: usize) -> Option<&mut [u8]> {
        let start = usize::try_from(offset).ok()?;
        match region {
            Region::Bar(0) => self.0.get_mut(start..)?.get_mut(..len),
            _ => None,
        }
    }
}

impl Device for Scratch {
    type OwnerModule = MdevScratch;
    /// What was loaded of the state so far.
    type Incoming = Option<[u8; 4]>;
    type Engine = NoEngine;

    const NAME: &'static CStr = c"mdev_scratch";

    fn power_on(_values: &Values<'_>) -> Result<KBox<Self>> {
        Ok(KBox::new(Self([0; 4]), GFP_KERNEL)?)
    }

    fn reset(&mut self) {
        self.0 = [0; 4];
    }

    fn region_size(&self, region: Region) -> u64 {
        match region {
            Region::Bar(0) => 4,
            _ => 0,
        }
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        if let Some(bytes) = self.bytes(region, offset, data.len()) {
            data.copy_from_slice(bytes);
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8]) {
        if let Some(bytes) = self.bytes(region, offset, data.len()) {
            bytes.copy_from_slice(data);
        }
    }

    fn save(&self, emit: &mut dyn FnMut(u16, &[u8]) -> Result) -> Result {
        emit(Self::REGISTER, &self.0)
    }

    fn incoming(&self) -> Result<KBox<Self::Incoming>> {
        Ok(KBox::new(None, GFP_KERNEL_ACCOUNT)?)
    }

    fn load(
        incoming: &mut Self::Incoming,
        _phase: Phase,
        _id: u16,
        payload: &[u8],
        reason: &mut dyn Write,
    ) -> Result {
        *incoming = payload.try_into().ok();
        if incoming.is_none() {
            // A reason that does not fit is cut.
            let _ = write!(
                reason,
                "the register has 4 bytes, the source sent {}",
                payload.len()
            );
            return Err(EINVAL);
        }
        Ok(())
    }

    fn is_complete(incoming: &Self::Incoming) -> bool {
        incoming.is_some()
    }

    fn commit(&mut self, incoming: &mut Self::Incoming, _reason: &mut dyn Write) -> Result {
        self.0 = incoming.ok_or(EINVAL)?;
        Ok(())
    }
}

/// What instances can differ in: nothing.
static MODEL: Model<'static> = Model {
    name: "rust-vfio-mdev.example/scratch",
    params: &[],
    versions: &[],
    init_version: None,
}
.validated();

static OFFERS: [Offer<'static>; 1] = [Offer::of(&MODEL).validated()];

/// The types that user space can create instances of.
static TYPES: [Type; 1] = [Type {
    name: c"1",
    pretty_name: c"Scratch register",
    description: "A register of 32 bits that keeps what is written to it",
    migration: &OFFERS[0],
}];

/// How the types belong together.
static FAMILIES: [Family<'static>; 1] = [Family {
    pattern: "mdev_scratch-1",
    types: &OFFERS,
}
.validated()];

/// The module: a parent of up to 16 instances.
struct MdevScratch {
    _parent: Parent<Scratch>,
}

vfio::owner_module!(MdevScratch);

impl kernel::Module for MdevScratch {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let device = ClassDevice::new(Class::new(Scratch::NAME)?, Scratch::NAME)?;
        let driver = Driver::new(&[&TYPES])?;
        Ok(Self {
            _parent: Parent::new(driver, device, &TYPES, &FAMILIES, 16)?,
        })
    }
}
