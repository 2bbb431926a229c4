// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The serial card as a device to be served.

use devices::serial::{Card, CONFIG_SPACE_BYTES};
use migration::model::Values;

use crate::device::{Counts, Device, Region, CONFIG_REGION};

/// The table that the kernel driver has: the same source, so that both are one model.
// The driver uses more of it.
#[allow(dead_code)]
#[path = "../../../samples/mdev_serial/model.rs"]
pub(crate) mod model;

/// The serial card.
pub struct SerialCard(Card);

impl SerialCard {
    /// The card with these parameters, in power-on state.
    pub fn power_on(values: &Values<'_>) -> Self {
        Self(Card::new(model::config(values)))
    }
}

impl Device for SerialCard {
    fn reset(&mut self) {
        self.0.reset();
    }

    fn region(&self, index: u32) -> Region<'_> {
        let size = match index {
            0 => self.0.config().ports.bar_size(),
            CONFIG_REGION => CONFIG_SPACE_BYTES,
            _ => 0,
        };
        Region {
            size: size.into(),
            ..Region::default()
        }
    }

    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        // Its regions are small, so every offset in them fits.
        let Ok(offset) = u16::try_from(offset) else {
            return;
        };
        match region {
            0 => self.0.read_bar0(offset, data),
            CONFIG_REGION => self.0.read_config(offset, data),
            _ => {}
        }
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let Ok(offset) = u16::try_from(offset) else {
            return;
        };
        match region {
            0 => self.0.write_bar0(offset, data),
            CONFIG_REGION => self.0.write_config(offset, data),
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
}
