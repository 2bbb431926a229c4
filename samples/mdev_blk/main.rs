// SPDX-License-Identifier: GPL-2.0

//! A virtio disk whose contents are part of its state, as a mediated device that can be migrated.
//!
//! The guest sees a modern virtio block device (1af4:1042), which Linux drives with `virtio_blk`. Its medium is memory of the driver:
//! there is no storage that source and destination share, so a migration carries the contents, while the guest goes on writing.
//! What drivers of devices with memory have to do is all in it: access to guest memory and its log, MSI-X, state that is sent in
//! pre-copy and again where it has changed.
//!
//! The disk is empty when it is opened: that is its power-on state, and nothing is left of a user who has closed it. A reset
//! (`VFIO_DEVICE_RESET`, as when a guest reboots) leaves the medium as it is.
//!
//! The device model is [`devices::blk`], which knows no kernel; here is the glue, the medium's memory and the table of types. Try it:
//!
//! ```text
//! # insmod rust_vfio.ko && insmod mdev_blk.ko
//! # cd /sys/class/mdev_bus/mdev_blk/mdev_supported_types/mdev_blk-64M
//! # uuidgen > create
//! ```

use core::fmt::Write;
use devices::blk::{Device as Model, Incoming, LoadError, SaveError, SectionId, MAX_SECTION_BYTES};
use devices::pci::CONFIG_SPACE_BYTES;
use kernel::prelude::*;
use migration::model::Values;
use vfio::class::{Class, ClassDevice};
use vfio::device::{Access, Device, Phase, Remaining, SavedSize};
use vfio::irq::Counts;
use vfio::mdev::{Driver, Parent};
use vfio::module;
use vfio::region::Region;

module! {
    type: MdevBlk,
    name: "mdev_blk",
    authors: ["The rust-vfio-mdev authors"],
    description: "Migratable virtio disk, as a mediated device",
    license: "GPL",
    params: {
        max_mib: u32 {
            default: 1024,
            description: "MiB that all instances together may have, 1 to 1048576 (default 1024)",
        },
    },
}

mod engine;
mod medium;
mod model;
mod store;
mod types;

use engine::Server;
use medium::Blocks;
use model::config;
use store::Store;

/// The disk as VFIO sees it.
struct Disk {
    device: Model,
    store: Store,
}

/// What works on a whole device is a function of its own, so that what else its caller does has the stack to itself.
impl Device for Disk {
    type OwnerModule = MdevBlk;
    type Incoming = Incoming<Blocks>;
    type Engine = Server;

    const NAME: &'static CStr = c"mdev_blk";

    #[inline(never)]
    fn power_on(values: &Values<'_>) -> Result<KBox<Self>> {
        let config = config(values);
        let disk = Self {
            // The table has no values that make no disk.
            device: Model::new(&config).map_err(|_| EINVAL)?,
            store: Store::new(Blocks::of(&config))?,
        };
        Ok(KBox::new(disk, GFP_KERNEL)?)
    }

    #[inline(never)]
    fn configure(&mut self, values: &Values<'_>) {
        let config = config(values);
        if config == *self.device.config() {
            return;
        }
        if let Ok(device) = Model::new(&config) {
            self.device = device;
            self.store.replace(Blocks::of(&config));
        }
    }

    fn units(values: &Values<'_>) -> u32 {
        config(values).capacity.mib().into()
    }

    fn reset(&mut self) {
        self.device.function_mut().reset();
    }

    fn clear(&mut self) {
        self.reset();
        self.store.replace(Blocks::of(self.device.config()));
    }

    fn region_size(&self, region: Region) -> u64 {
        match region {
            Region::Bar(bar) => self.device.function().bar_bytes(bar.into()),
            Region::Config => CONFIG_SPACE_BYTES.into(),
            _ => 0,
        }
    }

    fn read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        let function = self.device.function_mut();
        match region {
            Region::Bar(bar) => function.read_bar(bar.into(), offset, data),
            Region::Config => function.read_config(offset, data),
            _ => {}
        }
    }

    fn write(&mut self, region: Region, offset: u64, data: &[u8]) {
        let function = self.device.function_mut();
        match region {
            Region::Bar(bar) => function.write_bar(bar.into(), offset, data),
            Region::Config => function.write_config(offset, data),
            _ => {}
        }
    }

    fn irqs(&self) -> Counts {
        Counts {
            intx: true,
            // One more than there are queues, of which there are at most 16.
            msix: self.device.function().vector_count() as u8,
            ..Counts::default()
        }
    }

    fn intx(&self) -> bool {
        self.device.function().intx_asserted()
    }

    fn take_msix(&mut self) -> u64 {
        self.device.function_mut().take_messages()
    }

    fn set_route(&mut self, vector: u16, leads_somewhere: bool) {
        let function = self.device.function_mut();
        function.set_route(vector, leads_somewhere);
    }

    fn set_active(&mut self, active: bool) {
        self.device.function_mut().set_running(active);
    }

    fn needs_time(&self, _region: Region, _offset: u64, _access: Access<'_>) -> bool {
        false
    }

    fn saved_size(&self) -> SavedSize {
        let config = self.device.config();
        SavedSize {
            bytes: Model::saved_bytes(config),
            sections: Model::saved_sections(config),
        }
    }

    #[inline(never)]
    fn save(&self, emit: &mut dyn FnMut(u16, &[u8]) -> Result) -> Result {
        let saved = self.device.save(&mut |id, payload| emit(id.get(), payload));
        saved.map_err(|error| match error {
            SaveError::Busy => EBUSY,
            SaveError::Sink(error) => error,
        })
    }

    fn max_sent_section(&self) -> usize {
        MAX_SECTION_BYTES
    }

    fn start_sending(&mut self) {
        self.store.with(|disk| disk.start_sending());
    }

    fn stop_sending(&mut self) {
        self.store.with(|disk| disk.stop_sending());
    }

    fn remaining(&self) -> Remaining {
        let (initial, dirty) = self.store.with(|disk| disk.left());
        Remaining {
            initial: SavedSize::of(initial, MAX_SECTION_BYTES),
            dirty: SavedSize::of(dirty, MAX_SECTION_BYTES),
        }
    }

    fn next_section(&mut self, payload: &mut [u8]) -> Option<(u16, usize)> {
        let payload = payload.first_chunk_mut()?;
        let (id, len) = self.store.with(|disk| disk.next_section(payload))?;
        Some((id.get(), len))
    }

    #[inline(never)]
    fn incoming(&self) -> Result<KBox<Self::Incoming>> {
        let config = self.device.config();
        let incoming = Incoming::new(config, Blocks::of(config));
        Ok(KBox::new(incoming, GFP_KERNEL_ACCOUNT)?)
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        SectionId::of(id).map(|id| id.len(self.device.config()))
    }

    #[inline(never)]
    fn load(
        incoming: &mut Self::Incoming,
        phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn Write,
    ) -> Result {
        let taken = match phase {
            Phase::PreCopy => incoming.section_in_pre_copy(id, payload),
            Phase::StopCopy => incoming.section(id, payload),
        };
        taken.map_err(|error| {
            // A reason that does not fit is cut.
            let _ = write!(reason, "{error}");
            match error {
                LoadError::NoSpace(_) => ENOMEM,
                _ => EINVAL,
            }
        })
    }

    fn is_complete(incoming: &Self::Incoming) -> bool {
        incoming.check().is_ok()
    }

    #[inline(never)]
    fn commit(&mut self, incoming: &mut Self::Incoming, reason: &mut dyn Write) -> Result {
        let medium = incoming.apply_to(&mut self.device).map_err(|error| {
            // A reason that does not fit is cut.
            let _ = write!(reason, "{error}");
            EINVAL
        })?;
        // A device of another capacity has not taken the registers.
        self.store.replace(medium);
        Ok(())
    }
}

/// The module: its parent, which refers to the driver. Unloading removes the instances, then all of it.
struct MdevBlk {
    _parent: Parent<Disk>,
}

vfio::owner_module!(MdevBlk);

impl kernel::Module for MdevBlk {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let max_mib: u32 = module::value(module_parameters::max_mib.value());
        if !(1..=1_048_576).contains(&max_mib) {
            pr_err!("max_mib={max_mib} is out of range: give a number from 1 to 1048576\n");
            return Err(EINVAL);
        }
        let device = ClassDevice::new(Class::new(Disk::NAME)?, Disk::NAME)?;
        let driver = Driver::new(&[&types::TYPES])?;
        Ok(Self {
            _parent: Parent::new(driver, device, &types::TYPES, &types::FAMILIES, max_mib)?,
        })
    }
}
