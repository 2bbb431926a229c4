// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The virtio disk as a device to be served.
//!
//! Its medium is memory of the program, empty when the device is made. It stays when a client goes, as the registers do, and when the
//! device is reset; a migration carries it.

use std::fmt::Write;
use std::time::{Duration, Instant};

use devices::blk::{
    serve_while, words_for, Blocks, Device as Registers, Disk, Heap, Incoming, LoadError,
    SaveError, Scratch, SectionId, MAX_BLOCKS, MAX_SECTION_BYTES,
};
use devices::pci::CONFIG_SPACE_BYTES;
use migration::model::Values;
use migration::session::machine::Migratable;
use migration::session::{self, Emit, Failure, Phase, Remaining, SavedSize};
use migration::stream::{ErrorClass, Refusal};
use vfio_user_protocol::refusal::errno::{EBUSY, EINVAL};

use crate::device::{errno, Counts, Device, GuestMemory, Region, RingError, CONFIG_REGION};

/// The table that the kernel driver has: the same source, so that both are one model.
// The driver uses more of it.
#[allow(dead_code)]
#[path = "../../../samples/mdev_blk/model.rs"]
pub(crate) mod model;

/// For how long requests are served before somebody else is looked at: no more of them are begun then. One moves or zeroes 8 MiB at most.
const SLICE: Duration = Duration::from_millis(2);

/// The disk.
pub struct VirtioDisk {
    registers: Registers,
    /// The medium, and a bit a block, for which of them are still to be sent.
    medium: Disk<Blocks<Heap>, Vec<u64>>,
    scratch: Box<Scratch>,
}

impl VirtioDisk {
    /// The disk with these parameters, in power-on state, its medium empty.
    pub fn power_on(values: &Values<'_>) -> Self {
        let config = model::config(values);
        // The table has no values that make no disk, and the smallest set has a bit for each block of the largest.
        let registers = Registers::new(&config).expect("a disk of the model");
        let bits = || vec![0; words_for(MAX_BLOCKS)];
        let medium = Disk::new(Blocks::of(&config), bits(), bits());
        Self {
            registers,
            medium: medium.expect("a bit a block"),
            scratch: Box::default(),
        }
    }
}

impl Device for VirtioDisk {
    fn reset(&mut self) {
        self.registers.function_mut().reset();
    }

    fn region(&self, index: u32) -> Region<'_> {
        let size = match index {
            CONFIG_REGION => CONFIG_SPACE_BYTES.into(),
            bar => self.registers.function().bar_bytes(bar as usize),
        };
        Region {
            size,
            ..Region::default()
        }
    }

    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        let function = self.registers.function_mut();
        match region {
            CONFIG_REGION => function.read_config(offset, data),
            bar => function.read_bar(bar as usize, offset, data),
        }
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let function = self.registers.function_mut();
        match region {
            CONFIG_REGION => function.write_config(offset, data),
            bar => function.write_bar(bar as usize, offset, data),
        }
    }

    fn irqs(&self) -> Counts {
        Counts {
            intx: true,
            msi: 0,
            msix: self.registers.function().vector_count().into(),
        }
    }

    fn intx(&self) -> bool {
        self.registers.function().intx_asserted()
    }

    fn take_messages(&mut self) -> u64 {
        self.registers.function_mut().take_messages()
    }

    fn set_route(&mut self, vector: u16, leads_somewhere: bool) {
        let function = self.registers.function_mut();
        function.set_route(vector, leads_somewhere);
    }

    fn set_active(&mut self, active: bool) {
        self.registers.function_mut().set_running(active);
    }

    fn has_work(&self) -> bool {
        self.registers.function().has_work()
    }

    fn work(&mut self, memory: &mut dyn GuestMemory) -> Option<RingError> {
        let end = Instant::now() + SLICE;
        let geometry = *self.registers.geometry();
        let function = self.registers.function_mut();
        let mut work = function.begin()?;
        let (medium, scratch) = (&mut self.medium, &mut *self.scratch);
        let outcome = serve_while(&mut work, &geometry, memory, medium, scratch, || {
            Instant::now() < end
        });
        function.finish(work, &outcome);
        outcome.error
    }
}

impl session::Device for VirtioDisk {
    type Error = u32;
    type Incoming = Incoming<Blocks<Heap>>;

    fn error(failure: Failure) -> u32 {
        errno(failure)
    }

    fn saved_size(&self) -> SavedSize {
        let config = self.registers.config();
        SavedSize {
            bytes: Registers::saved_bytes(config),
            sections: Registers::saved_sections(config),
        }
    }

    fn save(&self, emit: &mut Emit<'_, u32>) -> Result<(), u32> {
        let saved = self.registers.save(&mut |id, part| emit(id.get(), part));
        saved.map_err(|error| match error {
            SaveError::Busy => EBUSY,
            SaveError::Sink(error) => error,
        })
    }

    fn max_sent_section(&self) -> usize {
        MAX_SECTION_BYTES
    }

    fn remaining(&self) -> Remaining {
        let (initial, dirty) = self.medium.left();
        Remaining {
            initial: SavedSize::of(initial, MAX_SECTION_BYTES),
            dirty: SavedSize::of(dirty, MAX_SECTION_BYTES),
        }
    }

    fn next_section(&mut self, payload: &mut [u8]) -> Option<(u16, usize)> {
        let (id, len) = self.medium.next_section(payload.first_chunk_mut()?)?;
        Some((id.get(), len))
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        SectionId::of(id).map(|id| id.len(self.registers.config()))
    }

    fn load(
        incoming: &mut Self::Incoming,
        phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn Write,
    ) -> Result<(), Refusal> {
        let taken = match phase {
            Phase::PreCopy => incoming.section_in_pre_copy(id, payload),
            Phase::StopCopy => incoming.section(id, payload),
        };
        taken.map_err(|error| {
            // A reason that does not fit is cut.
            let _ = write!(reason, "{error}");
            match error {
                LoadError::NoSpace(_) => Refusal {
                    class: ErrorClass::TooBig,
                    reason: "there is no memory for it",
                },
                _ => Refusal::invalid("a section holds a state that the device cannot be in"),
            }
        })
    }

    fn is_complete(incoming: &Self::Incoming) -> bool {
        incoming.check().is_ok()
    }

    fn commit(&mut self, incoming: &mut Self::Incoming, reason: &mut dyn Write) -> Result<(), u32> {
        let medium = incoming.apply_to(&mut self.registers).map_err(|error| {
            // A reason that does not fit is cut.
            let _ = write!(reason, "{error}");
            EINVAL
        })?;
        // A device of another capacity has not taken the registers, so there is a bit for each block.
        drop(self.medium.replace(medium));
        Ok(())
    }
}

impl Migratable for VirtioDisk {
    fn incoming(&self) -> Result<Self::Incoming, u32> {
        let config = self.registers.config();
        Ok(Incoming::new(config, Blocks::of(config)))
    }

    fn start_sending(&mut self) {
        self.medium.start_sending();
    }

    fn stop_sending(&mut self) {
        self.medium.stop_sending();
    }
}
