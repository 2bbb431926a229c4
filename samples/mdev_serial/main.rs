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
use devices::serial::{
    saved_bytes, Card, Config, FifoDepth, Incoming, PortCount, SectionId, CARD_SECTION_BYTES,
    CONFIG_SPACE_BYTES, MAX_PORTS, PORT_SECTION_BYTES,
};
use kernel::prelude::*;
use migration::value::{Param, Value};
use vfio::class::{Class, ClassDevice};
use vfio::device::{Device, SavedSize};
use vfio::irq::Counts;
use vfio::mdev::{Driver, Parent, Type};
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
            description: "Ports that all instances together may have, 1 to 1024 (default 32)",
        },
    },
}

/// The card as VFIO sees it.
struct SerialCard(Card);

/// The types, by number of ports. One port is one unit of the parent's capacity.
static TYPES: [Type<SerialCard>; 3] = [
    card_type(
        c"1",
        c"Serial card, 1 port",
        "PCI serial card with one 16550A port, looped back",
        PortCount::One,
    ),
    card_type(
        c"2",
        c"Serial card, 2 ports",
        "PCI serial card with two 16550A ports, each looped back",
        PortCount::Two,
    ),
    card_type(
        c"4",
        c"Serial card, 4 ports",
        "PCI serial card with four 16550A ports, each looped back",
        PortCount::Four,
    ),
];

const fn card_type(
    name: &'static CStr,
    pretty_name: &'static CStr,
    description: &'static str,
    ports: PortCount,
) -> Type<SerialCard> {
    Type {
        name,
        pretty_name,
        description,
        config: Config {
            ports,
            fifo_depth: FifoDepth::Sixteen,
            msi: true,
        },
        units: ports.get() as u32,
    }
}

impl Device for SerialCard {
    type OwnerModule = MdevSerial;
    type Config = Config;
    type Incoming = Incoming;

    const NAME: &'static CStr = c"mdev_serial";
    const MODEL: &'static str = "rust-vfio-mdev.example/pci/serial";

    fn power_on(config: &Config) -> Result<KBox<Self>> {
        Ok(KBox::new(Self(Card::new(*config)), GFP_KERNEL)?)
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn region_size(&self, region: Region) -> u64 {
        match region {
            Region::Bar(0) => self.0.config().ports.bar_size().into(),
            Region::Config => CONFIG_SPACE_BYTES as u64,
            _ => 0,
        }
    }

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
        }
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

    fn wake_after_ns(&self) -> Option<u64> {
        self.0.timeout_ns()
    }

    fn parameters(&self) -> impl Iterator<Item = Param<'_>> + Clone {
        let config = self.0.config();
        let depth = config.fifo_depth;
        [
            Some(Param {
                name: "num-ports",
                value: Value::Int(config.ports.get().into()),
            }),
            // What every card was before the parameter existed is not in effect.
            (depth != FifoDepth::Sixteen).then_some(Param {
                name: "fifo-depth",
                value: Value::Int(depth.get().into()),
            }),
            config.msi.then_some(Param {
                name: "msi",
                value: Value::Bool(true),
            }),
        ]
        .into_iter()
        .flatten()
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
        Ok(KBox::new(Incoming::new(self.0.config()), GFP_KERNEL)?)
    }

    fn section_len(&self, id: u16) -> Option<usize> {
        if id == SectionId::CARD.get() {
            return Some(CARD_SECTION_BYTES);
        }
        (0..MAX_PORTS)
            .filter_map(SectionId::port)
            .any(|port| port.get() == id)
            .then_some(PORT_SECTION_BYTES)
    }

    fn load(incoming: &mut Incoming, id: u16, payload: &[u8], reason: &mut dyn Write) -> Result {
        incoming.section(id, payload).map(drop).map_err(|error| {
            // A reason that does not fit is cut.
            let _ = write!(reason, "{error}");
            EINVAL
        })
    }

    fn is_complete(incoming: &Incoming) -> bool {
        incoming.is_complete()
    }

    fn commit(&mut self, incoming: &Incoming) -> Result {
        incoming.apply_to(&mut self.0).map_err(|_| EINVAL)
    }

    fn resume(&mut self) {
        self.0.rekick();
    }
}

/// The module: a parent, which refers to its driver. Unloading removes the instances, then both.
struct MdevSerial {
    _parent: Parent<SerialCard>,
}

impl kernel::Module for MdevSerial {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let max_ports = module_parameters::max_ports.value();
        if !(1..=1024).contains(&max_ports) {
            pr_err!("max_ports={max_ports} is out of range: give a number from 1 to 1024\n");
            return Err(EINVAL);
        }
        let device = ClassDevice::new(Class::new(SerialCard::NAME)?, SerialCard::NAME)?;
        Ok(Self {
            _parent: Parent::new(Driver::new()?, device, &TYPES, max_ports)?,
        })
    }
}
