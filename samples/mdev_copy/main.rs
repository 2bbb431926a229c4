// SPDX-License-Identifier: GPL-2.0

//! A copy engine: the smallest device that accesses guest memory, that sends MSI-X messages, and that has memory of its own which can
//! be mapped.
//!
//! The guest says from where, to where and how much; the engine copies, and signals vector 0. In BAR 0, little-endian:
//!
//! | offset | size | register |
//! |---|---|---|
//! | 0 | 8 | address to copy from |
//! | 8 | 8 | address to copy to |
//! | 16 | 4 | how many bytes, 65536 at most; with bit 30, the second address is one in the scratch memory, with bit 31, the first |
//! | 20 | 4 | command: 1 copies, 2 makes the device fail; reads 0 |
//! | 24 | 4 | status, read-only: 0 nothing was asked for, 1 to be done, 2 done, 3 not possible |
//! | 28 | 4 | how many copies have ended, read-only |
//! | 4096 | 61440 | scratch memory, which can be mapped; its addresses start at 0 |
//!
//! A copy that is asked for while the device may not access memory is made when it may again: at the other end of a migration, if that
//! is what came between. Registers that are written while a copy is under way are for the next one.
//!
//! A device that has failed is in the migration state ERROR until it is reset, for those who want to see what becomes of that.
//!
//! As `mdev_scratch`, it has no PCI configuration space, and no driver in a guest.

use core::fmt::Write;
use kernel::prelude::*;
use migration::info::Family;
use migration::model::{Model, Type as Offer, Values};
use vfio::class::{Class, ClassDevice};
use vfio::device::{Device, Phase};
use vfio::engine::{Engine, GuestMemory};
use vfio::irq::Counts;
use vfio::mapped::{Area, Memory};
use vfio::mdev::{Driver, Parent, Type};
use vfio::region::Region;

module! {
    type: MdevCopy,
    name: "mdev_copy",
    authors: ["The rust-vfio-mdev authors"],
    description: "The smallest mediated device that accesses guest memory: a copy engine",
    license: "GPL",
}

/// The most that is copied at once, in bytes.
const MOST: u32 = 65536;

/// Of the length register: what is copied comes from the scratch memory, or goes there.
const FROM_SCRATCH: u32 = 1 << 31;
const TO_SCRATCH: u32 = 1 << 30;

/// Length of BAR 0, which ends with the scratch memory.
const BAR: u64 = 65536;
const SCRATCH: Area = Area {
    region: Region::Bar(0),
    offset: 4096,
    len: 61440,
};

/// Length of the registers, and of the part that the guest writes.
const REGISTERS: usize = 32;
const WRITABLE: usize = 20;

/// Where registers are.
mod offset {
    pub(super) const FROM: usize = 0;
    pub(super) const TO: usize = 8;
    pub(super) const LENGTH: usize = 16;
    pub(super) const COMMAND: u64 = 20;
    pub(super) const STATUS: usize = 24;
    pub(super) const COUNT: usize = 28;
}

/// Values of the status register.
mod status {
    pub(super) const DUE: u32 = 1;
    pub(super) const DONE: u32 = 2;
    pub(super) const FAILED: u32 = 3;
}

/// Commands.
mod command {
    pub(super) const COPY: u32 = 1;
    pub(super) const FAIL: u32 = 2;
}

/// The device model.
struct Copier {
    registers: [u8; REGISTERS],
    /// A copy was asked for, and has not been begun.
    due: bool,
    failed: bool,
    /// The message of vector 0 is to be sent.
    pending: bool,
    /// It leads somewhere.
    routed: bool,
    scratch: Memory,
}

impl Copier {
    /// The number of the one section that its state has, and its length: the registers, and whether the message is pending.
    const STATE: u16 = 0;
    const STATE_LEN: usize = REGISTERS + 1;

    /// One that is in this state, and not routed.
    fn of(state: &[u8; Self::STATE_LEN], scratch: Memory) -> Self {
        let (registers, pending) = state.split_at(REGISTERS);
        let mut device = Self {
            registers: registers.first_chunk().copied().unwrap_or_default(),
            due: false,
            failed: false,
            pending: pending == [1],
            routed: false,
            scratch,
        };
        // No copy is under way in a state: what is to be done has not been begun.
        device.due = device.word(offset::STATUS) == status::DUE;
        device
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.registers.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().unwrap_or([0; N])
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }

    fn set_word(&mut self, at: usize, value: u32) {
        if let Some(bytes) = self.registers.get_mut(at..at + 4) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// A copy that is to be made.
struct Copy {
    from: u64,
    to: u64,
    length: u32,
    scratch: Memory,
    result: Result,
}

/// Makes copies, by way of a buffer.
struct Copies(KVec<u8>);

impl Engine<Copier> for Copies {
    type Job = Copy;

    fn new() -> Result<Self> {
        Ok(Self(KVec::from_elem(0, 4096, GFP_KERNEL)?))
    }

    fn has_work(device: &Copier) -> bool {
        device.due
    }

    fn begin(device: &mut Copier) -> Option<Copy> {
        core::mem::take(&mut device.due).then(|| Copy {
            from: u64::from_le_bytes(device.field(offset::FROM)),
            to: u64::from_le_bytes(device.field(offset::TO)),
            length: device.word(offset::LENGTH),
            scratch: device.scratch.clone(),
            result: Err(EINVAL),
        })
    }

    fn serve(&mut self, job: &mut Copy, memory: &mut GuestMemory<'_>) {
        job.result = self.copy(job, memory);
    }

    fn finish(device: &mut Copier, job: Copy) {
        let status = match job.result {
            Ok(()) => status::DONE,
            Err(_) => status::FAILED,
        };
        // It is to be done again, if that was asked for meanwhile.
        if !device.due {
            device.set_word(offset::STATUS, status);
        }
        let count = device.word(offset::COUNT);
        device.set_word(offset::COUNT, count.wrapping_add(1));
        device.pending = true;
    }
}

impl Copies {
    fn copy(&mut self, job: &Copy, memory: &mut GuestMemory<'_>) -> Result {
        let length = job.length & !(FROM_SCRATCH | TO_SCRATCH);
        if length > MOST {
            return Err(EINVAL);
        }
        let mut done = 0;
        while done < length {
            let len = (length - done).min(self.0.len() as u32);
            let piece = self.0.get_mut(..len as usize).ok_or(EINVAL)?;
            let at = |start: u64| start.checked_add(done.into()).ok_or(EINVAL);
            match job.length & FROM_SCRATCH {
                0 => memory.read(at(job.from)?, piece)?,
                _ => job.scratch.read(at(job.from)?, piece)?,
            }
            match job.length & TO_SCRATCH {
                0 => memory.write(at(job.to)?, piece)?,
                _ => job.scratch.write(at(job.to)?, piece)?,
            }
            done += len;
        }
        Ok(())
    }
}

impl Device for Copier {
    type OwnerModule = MdevCopy;
    /// What was loaded of the state so far.
    type Incoming = Option<[u8; Copier::STATE_LEN]>;
    type Engine = Copies;

    const NAME: &'static CStr = c"mdev_copy";

    fn power_on(_values: &Values<'_>) -> Result<KBox<Self>> {
        let scratch = Memory::new(SCRATCH)?;
        Ok(KBox::new(
            Self::of(&[0; Self::STATE_LEN], scratch),
            GFP_KERNEL,
        )?)
    }

    fn reset(&mut self) {
        self.registers = [0; REGISTERS];
        (self.due, self.failed, self.pending) = (false, false, false);
    }

    fn region_size(&self, region: Region) -> u64 {
        match region {
            Region::Bar(0) => BAR,
            _ => 0,
        }
    }

    fn read(&mut self, _region: Region, offset: u64, data: &mut [u8]) {
        let registers = usize::try_from(offset).ok();
        let registers =
            registers.and_then(|offset| self.registers.get(offset..)?.get(..data.len()));
        if let Some(bytes) = registers {
            data.copy_from_slice(bytes);
        }
    }

    fn write(&mut self, _region: Region, offset: u64, data: &[u8]) {
        if offset == offset::COMMAND {
            match data.first_chunk().copied().map(u32::from_le_bytes) {
                Some(command::COPY) => {
                    self.due = true;
                    self.set_word(offset::STATUS, status::DUE);
                }
                Some(command::FAIL) => self.failed = true,
                _ => {}
            }
            return;
        }
        let writable = self.registers.get_mut(..WRITABLE);
        let registers = usize::try_from(offset).ok().zip(writable);
        let registers = registers
            .and_then(|(offset, writable)| writable.get_mut(offset..)?.get_mut(..data.len()));
        if let Some(bytes) = registers {
            bytes.copy_from_slice(data);
        }
    }

    fn memory(&self) -> Option<&Memory> {
        Some(&self.scratch)
    }

    fn irqs(&self) -> Counts {
        Counts {
            msix: 1,
            ..Counts::default()
        }
    }

    fn take_msix(&mut self) -> u64 {
        u64::from(self.routed && core::mem::take(&mut self.pending))
    }

    fn set_route(&mut self, _vector: u16, leads_somewhere: bool) {
        self.routed = leads_somewhere;
    }

    fn failure(&self) -> Option<&'static str> {
        self.failed.then_some("the guest asked for it")
    }

    fn save(&self, emit: &mut dyn FnMut(u16, &[u8]) -> Result) -> Result {
        let mut state = [0; Self::STATE_LEN];
        let (registers, pending) = state.split_at_mut(REGISTERS);
        registers.copy_from_slice(&self.registers);
        pending.fill(self.pending.into());
        emit(Self::STATE, &state)
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
        // A reason that does not fit is cut.
        let Some(state) = payload
            .first_chunk()
            .filter(|_| payload.len() == Self::STATE_LEN)
        else {
            let _ = write!(
                reason,
                "the state has {} bytes, the source sent {}",
                Self::STATE_LEN,
                payload.len()
            );
            return Err(EINVAL);
        };
        let word = |at: usize| state.get(at..).and_then(<[u8]>::first_chunk).copied();
        let word = |at: usize| word(at).map(u32::from_le_bytes);
        let is_possible = word(offset::COMMAND as usize) == Some(0)
            && word(offset::STATUS).is_some_and(|status| status <= status::FAILED)
            && payload.last().is_some_and(|pending| *pending <= 1);
        if !is_possible {
            let _ = write!(reason, "command, status or pending message cannot be so");
            return Err(EINVAL);
        }
        *incoming = Some(*state);
        Ok(())
    }

    fn is_complete(incoming: &Self::Incoming) -> bool {
        incoming.is_some()
    }

    fn commit(&mut self, incoming: &mut Self::Incoming, _reason: &mut dyn Write) -> Result {
        *self = Self {
            routed: self.routed,
            ..Self::of(&incoming.ok_or(EINVAL)?, self.scratch.clone())
        };
        Ok(())
    }
}

/// What instances can differ in: nothing.
static MODEL: Model<'static> = Model {
    name: "rust-vfio-mdev.example/copy",
    params: &[],
    versions: &[],
    init_version: None,
}
.validated();

static OFFERS: [Offer<'static>; 1] = [Offer::of(&MODEL).validated()];

/// The types that user space can create instances of.
static TYPES: [Type; 1] = [Type {
    name: c"1",
    pretty_name: c"Copy engine",
    description: "Copies guest memory, and signals that by MSI-X",
    migration: &OFFERS[0],
}];

/// How the types belong together.
static FAMILIES: [Family<'static>; 1] = [Family {
    pattern: "mdev_copy-1",
    types: &OFFERS,
}
.validated()];

/// The module: a parent of up to 16 instances.
struct MdevCopy {
    _parent: Parent<Copier>,
}

vfio::owner_module!(MdevCopy);

impl kernel::Module for MdevCopy {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let device = ClassDevice::new(Class::new(Copier::NAME)?, Copier::NAME)?;
        let driver = Driver::new(&[&TYPES])?;
        Ok(Self {
            _parent: Parent::new(driver, device, &TYPES, &FAMILIES, 16)?,
        })
    }
}
