// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The serial card as a device to be served.

use std::fmt::Write;

use devices::serial::{saved_bytes, Card, Incoming, SectionId, CONFIG_SPACE_BYTES};
use migration::model::Values;
use migration::session::machine::Migratable;
use migration::session::{self, Emit, Failure, Phase, SavedSize};
use migration::stream::Refusal;
use vfio_user_protocol::refusal::errno::EINVAL;

use crate::device::{errno, Counts, Device, Region, CONFIG_REGION};

/// The table that the kernel driver has: the same source, so that both are one model.
// The driver uses more of it.
#[allow(dead_code)]
#[path = "../../../samples/mdev_serial/model.rs"]
pub(crate) mod model;

/// The scratch register of the first port, which can be read without an effect.
pub(crate) const IDLE_REGISTER: (u32, u64) = (0, 7);

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
            msix: 0,
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

    fn idle_register(&self) -> Option<(u32, u64)> {
        Some(IDLE_REGISTER)
    }
}

impl session::Device for SerialCard {
    type Error = u32;
    type Incoming = Incoming;

    fn error(failure: Failure) -> u32 {
        errno(failure)
    }

    fn saved_size(&self) -> SavedSize {
        let config = self.0.config();
        SavedSize {
            bytes: saved_bytes(config),
            sections: 1 + usize::from(config.ports.get()),
        }
    }

    fn save(&self, emit: &mut Emit<'_, u32>) -> Result<(), u32> {
        self.0.save(&mut |id, payload| emit(id.get(), payload))
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
    ) -> Result<(), Refusal> {
        // A reason that does not fit is cut.
        let _ = match incoming.section(id, payload) {
            Ok(true) => return Ok(()),
            Ok(false) => write!(
                reason,
                "a port is not saved in the form that compact-state says"
            ),
            Err(error) => write!(reason, "{error}"),
        };
        Err(Refusal::invalid(
            "a section holds a state that the device cannot be in",
        ))
    }

    fn is_complete(incoming: &Incoming) -> bool {
        incoming.is_complete()
    }

    fn commit(&mut self, incoming: &mut Incoming, reason: &mut dyn Write) -> Result<(), u32> {
        incoming.apply_to(&mut self.0).map_err(|error| {
            // A reason that does not fit is cut.
            let _ = write!(reason, "{error}");
            EINVAL
        })
    }
}

impl Migratable for SerialCard {
    fn incoming(&self) -> Result<Incoming, u32> {
        Ok(Incoming::new(self.0.config()))
    }

    fn resume(&mut self) {
        self.0.rekick();
    }
}
