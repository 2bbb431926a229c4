// SPDX-License-Identifier: GPL-2.0

//! A PCI serial card with 1, 2 or 4 ports, as a mediated device that can be migrated.
//!
//! The guest sees QEMU's `pci-serial` card (1b36:0002, 0003 or 0004), which Linux drives with `8250_pci`. Every port is
//! connected to a loop-back: what the guest sends comes back, and nothing is ever lost on the way, so a guest can prove that
//! a migration kept its bytes.
//!
//! Three things make a driver: the device model ([`devices::serial::Card`], which knows no kernel), the glue that presents
//! it as a [`Device`], and the table of types. Try it:
//!
//! ```text
//! # insmod rust_vfio.ko && insmod mdev_serial.ko
//! # cd /sys/class/mdev_bus/mdev_serial/mdev_supported_types/mdev_serial-2
//! # uuidgen > create
//! ```

use core::fmt::Write;
use devices::serial::{saved_bytes, Card, Incoming, SectionId, CONFIG_SPACE_BYTES};
use kernel::prelude::*;
use migration::model::Values;
use vfio::class::{Class, ClassDevice};
use vfio::device::{Access, Device, Phase, SavedSize};
use vfio::engine::NoEngine;
use vfio::irq::Counts;
use vfio::mdev::{Driver, Parent};
use vfio::module;
use vfio::region::Region;

module! {
    type: MdevSerial,
    name: "mdev_serial",
    authors: ["The rust-vfio-mdev authors"],
    description: "Migratable PCI serial card, as a mediated device",
    license: "GPL",
    params: {
        max_ports: u32 {
            default: 32,
            description: "Ports that all instances of a parent together may have, 1 to 1024 (default 32)",
        },
        old_parent: u8 {
            default: 0,
            description: "1 adds a parent mdev_serial_old, an older implementation to test mismatches with (default 0)",
        },
        intx_unmask_eventfd: u8 {
            default: 0,
            description: "1 lets KVM deliver INTx of new instances, which QEMU does not connect again after a migration (default 0)",
        },
    },
}

mod model;
mod types;

use model::config;

/// The card as VFIO sees it.
struct SerialCard(Card);

impl Device for SerialCard {
    type OwnerModule = MdevSerial;
    type Incoming = Incoming;
    type Engine = NoEngine;

    const NAME: &'static CStr = c"mdev_serial";

    fn power_on(values: &Values<'_>) -> Result<KBox<Self>> {
        Ok(KBox::new(Self(Card::new(config(values))), GFP_KERNEL)?)
    }

    fn configure(&mut self, values: &Values<'_>) {
        let new = config(values);
        self.0.set_compact_state(new.compact_state);
        if new != *self.0.config() {
            self.0.reconfigure(new);
        }
    }

    fn units(values: &Values<'_>) -> u32 {
        config(values).ports.get().into()
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    #[inline(always)]
    fn region_size(&self, region: Region) -> u64 {
        match region {
            Region::Bar(0) => self.0.config().ports.bar_size().into(),
            Region::Config => CONFIG_SPACE_BYTES.into(),
            _ => 0,
        }
    }

    #[inline(always)]
    fn read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        // Regions are smaller than 64 KiB, so every offset in them fits.
        let Ok(offset) = u16::try_from(offset) else {
            return;
        };
        match region {
            Region::Bar(0) => self.0.read_bar0(offset, data),
            Region::Config => self.0.read_config(offset, data),
            _ => {}
        }
    }

    #[inline(always)]
    fn write(&mut self, region: Region, offset: u64, data: &[u8]) {
        let Ok(offset) = u16::try_from(offset) else {
            return;
        };
        match region {
            Region::Bar(0) => self.0.write_bar0(offset, data),
            Region::Config => self.0.write_config(offset, data),
            _ => {}
        }
    }

    fn irqs(&self) -> Counts {
        Counts {
            intx: true,
            msi: self.0.config().msi.into(),
            ..Counts::default()
        }
    }

    fn intx_unmask_eventfd() -> bool {
        module::value::<u8>(module_parameters::intx_unmask_eventfd.value()) == 1
    }

    fn intx(&self) -> bool {
        self.0.intx_asserted()
    }

    fn take_msi(&mut self) -> u32 {
        self.0.take_msi().into()
    }

    fn set_time(&mut self, now_ns: u64) {
        self.0.set_time(now_ns);
    }

    #[inline(always)]
    fn needs_time(&self, region: Region, offset: u64, access: Access<'_>) -> bool {
        let Ok(offset) = u16::try_from(offset) else {
            return false;
        };
        match (region, access) {
            (Region::Bar(0), Access::Read(len)) => self.0.reading_needs_time(offset, len),
            (Region::Bar(0), Access::Write(data)) => self.0.writing_needs_time(offset, data),
            _ => self.0.config_needs_time(),
        }
    }

    fn wake_after_ns(&self) -> Option<u64> {
        self.0.timeout_ns()
    }

    fn saved_size(&self) -> SavedSize {
        let config = self.0.config();
        SavedSize {
            bytes: saved_bytes(config),
            sections: 1 + usize::from(config.ports.get()),
        }
    }

    fn save(&self, emit: &mut dyn FnMut(u16, &[u8]) -> Result) -> Result {
        self.0.save(&mut |id, payload| emit(id.get(), payload))
    }

    fn incoming(&self) -> Result<KBox<Incoming>> {
        Ok(KBox::new(
            Incoming::new(self.0.config()),
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        SectionId::max_len(id)
    }

    fn load(
        incoming: &mut Incoming,
        _phase: Phase,
        id: u16,
        payload: &[u8],
        reason: &mut dyn Write,
    ) -> Result {
        // A reason that does not fit is cut.
        let _ = match incoming.section(id, payload) {
            Ok(true) => return Ok(()),
            Ok(false) => write!(
                reason,
                "a port is not saved in the form that compact-state says"
            ),
            Err(error) => write!(reason, "{error}"),
        };
        Err(EINVAL)
    }

    fn is_complete(incoming: &Incoming) -> bool {
        incoming.is_complete()
    }

    fn commit(&mut self, incoming: &mut Incoming, reason: &mut dyn Write) -> Result {
        incoming.apply_to(&mut self.0).map_err(|error| {
            // A reason that does not fit is cut.
            let _ = write!(reason, "{error}");
            EINVAL
        })
    }

    fn resume(&mut self) {
        self.0.rekick();
    }
}

/// A module parameter that is 0 or 1.
fn switch(name: &str, value: u8) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => {
            pr_err!("{name}={other} is out of range: give 0 or 1\n");
            Err(EINVAL)
        }
    }
}

/// The module: its parents, which refer to the driver. Unloading removes the instances, then all of it.
struct MdevSerial {
    _old: Option<Parent<SerialCard>>,
    _parent: Parent<SerialCard>,
}

vfio::owner_module!(MdevSerial);

impl kernel::Module for MdevSerial {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let max_ports: u32 = module::value(module_parameters::max_ports.value());
        if !(1..=1024).contains(&max_ports) {
            pr_err!("max_ports={max_ports} is out of range: give a number from 1 to 1024\n");
            return Err(EINVAL);
        }
        let with_old = switch(
            "old_parent",
            module::value(module_parameters::old_parent.value()),
        )?;
        switch(
            "intx_unmask_eventfd",
            module::value(module_parameters::intx_unmask_eventfd.value()),
        )?;
        let class = Class::new(SerialCard::NAME)?;
        let driver = Driver::new(&[&types::TYPES, &types::OLD_TYPES])?;
        let parent = Parent::new(
            driver.clone(),
            ClassDevice::new(class.clone(), c"mdev_serial")?,
            &types::TYPES,
            &types::FAMILIES,
            max_ports,
        )?;
        let old = if with_old {
            let device = ClassDevice::new(class, c"mdev_serial_old")?;
            let (types, families) = (&types::OLD_TYPES, &types::OLD_FAMILIES);
            Some(Parent::new(driver, device, types, families, max_ports)?)
        } else {
            None
        };
        Ok(Self {
            _old: old,
            _parent: parent,
        })
    }
}
