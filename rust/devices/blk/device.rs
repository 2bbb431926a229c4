// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The function and its kind.

use super::config::{Config, MAX_QUEUES, MAX_VECTORS};
use super::request::Geometry;
use crate::pci::{BuildError, Gate};
use crate::virtio::{self, Spec};

/// The device type of a block device (5.2.1).
const DEVICE_TYPE: u16 = 2;
/// SCSI storage: what QEMU's has.
const CLASS: u32 = 0x01_0000;

/// The registers of a block device.
pub type Function = virtio::Function<MAX_QUEUES, MAX_VECTORS>;

/// A block device: its registers and its kind. The medium is elsewhere, since it is accessed without them.
///
/// Some 3 KiB. See the [module documentation](super) for how to embed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    config: Config,
    geometry: Geometry,
    function: Function,
}

impl Device {
    /// A device after power-on, not running. Messages go where there is a route ([`Gate::Routes`]).
    pub fn new(config: &Config) -> Result<Device, BuildError> {
        Device::with_gate(config, Gate::Routes)
    }

    /// The same, with this rule for messages.
    pub fn with_gate(config: &Config, gate: Gate) -> Result<Device, BuildError> {
        Ok(Device {
            config: *config,
            geometry: Geometry::of(config),
            function: Function::new(&Spec {
                device_type: DEVICE_TYPE,
                class: CLASS,
                features: config.features(),
                queues: config.queues.get(),
                queue_size: config.queue_size.get(),
                vectors: config.queues.get() + 1,
                config: &config.structure(),
                gate,
            })?,
        })
    }

    /// What kind of device it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What serving a queue has to know.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The registers.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// The registers.
    pub fn function_mut(&mut self) -> &mut Function {
        &mut self.function
    }
}
