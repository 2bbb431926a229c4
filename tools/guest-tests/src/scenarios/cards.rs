// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The cards that are migrated.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::command_line::{Backend, Card, Spec, FILES};
use super::guest::View;
use super::version::Version;
use crate::kernel;
use crate::l2::line::Interrupt;
use crate::l2::{by_hand, MSI_CARD, MSI_CARD_SUBSYSTEM};
use crate::mdev::{Mdev, MdevType};
use crate::module::Loaded;

/// What QEMU says of a card that does not let an eventfd unmask INTx, before it takes the interrupt itself.
pub const UNMASK_REFUSED: &str = "Failed to set up UNMASK eventfd signaling";

/// What QEMU says where neither the device nor an IOMMU keeps a log of what was written, before it uses the container's.
const NO_LOG: &str = "VFIO device doesn't support device and IOMMU dirty tracking";

/// Whose cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// This project's serial card.
    MdevSerial,
    /// The kernel's C sample.
    Mtty,
}

impl Driver {
    /// The mdev type of a card with so many ports.
    pub fn kind(self, ports: usize) -> Result<MdevType> {
        match self {
            Driver::MdevSerial => MdevType::find(&format!("mdev_serial-{ports}")),
            Driver::Mtty => MdevType::find(&format!("mtty-{ports}")),
        }
    }

    /// What QEMU has reason to say about the card.
    fn complaints(self) -> &'static [&'static str] {
        match self {
            Driver::MdevSerial if kernel::has(kernel::LOGGING) => &[UNMASK_REFUSED],
            Driver::MdevSerial => &[UNMASK_REFUSED, NO_LOG],
            Driver::Mtty => &["no available reset mechanism", UNMASK_REFUSED],
        }
    }

    /// Bytes that may be under way on a port, if the card sets a limit. mtty takes a full FIFO for an empty one.
    fn window(self) -> Option<u32> {
        match self {
            Driver::MdevSerial => None,
            Driver::Mtty => Some(12),
        }
    }
}

/// The cards of one machine: instances of the driver under test, and how they are plugged in.
pub struct Cards {
    instances: Vec<Mdev>,
    /// Behind them.
    disks: Vec<Mdev>,
    /// Their driver, which is not unloaded before they are gone.
    _disk_driver: Option<Arc<Loaded>>,
    ports: usize,
    version: Version,
    backend: Backend,
    properties: String,
    /// The cards' states go through multifd channels.
    multifd_transfer: bool,
    interrupt: Interrupt,
    append: String,
    window: Option<u32>,
    complaints: &'static [&'static str],
}

impl Cards {
    /// Creates one card for each number of ports.
    pub fn create(driver: Driver, ports: &[usize]) -> Result<Self> {
        let mut instances = Vec::new();
        for ports in ports {
            instances.push(driver.kind(*ports)?.create()?);
        }
        Ok(Self::from_instances(driver, instances, ports.iter().sum()))
    }

    /// Takes instances of this project's driver, of any type and any parent, with the ports that they have now.
    pub fn of(instances: Vec<Mdev>) -> Result<Self> {
        let mut ports = 0;
        for mdev in &instances {
            let text = mdev.attribute("migration/num-ports")?;
            let count: usize = text
                .parse()
                .with_context(|| format!("num-ports {text:?}"))?;
            ports += count;
        }
        Ok(Self::from_instances(Driver::MdevSerial, instances, ports))
    }

    fn from_instances(driver: Driver, instances: Vec<Mdev>, ports: usize) -> Self {
        Self {
            instances,
            disks: Vec::new(),
            _disk_driver: None,
            ports,
            version: Version::V10_0,
            backend: Backend::Type1,
            properties: String::new(),
            multifd_transfer: false,
            interrupt: Interrupt::Intx,
            append: String::new(),
            window: driver.window(),
            complaints: driver.complaints(),
        }
    }

    /// The same cards twice: for the machine that a guest starts on, and for the one it is migrated to.
    pub fn pair(driver: Driver, ports: &[usize]) -> Result<(Self, Self)> {
        Ok((Self::create(driver, ports)?, Self::create(driver, ports)?))
    }

    /// In a QEMU of this version.
    pub fn in_qemu(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Opened through iommufd.
    pub fn through_iommufd(mut self) -> Self {
        self.backend = Backend::Iommufd;
        self
    }

    /// With QEMU told not to have KVM deliver INTx. It does not ask this project's card for what that needs, then, and has
    /// nothing to say.
    pub fn without_kvm_intx(mut self) -> Self {
        self.properties.push_str(",x-no-kvm-intx=on");
        self.complaints = &[];
        self
    }

    /// With INTx delivered by KVM, for which the instances have to allow that an eventfd unmasks it.
    pub fn with_kvm_intx(mut self) -> Result<Self> {
        for mdev in &self.instances {
            mdev.set_attribute("intx_unmask_eventfd", "on")?;
        }
        self.complaints = &[];
        Ok(self)
    }

    /// With multifd device state transfer for every card.
    pub fn with_multifd_transfer(mut self) -> Self {
        self.multifd_transfer = true;
        self
    }

    /// Posing as a one-port card for which the guest's driver asks for a message-signalled interrupt: QEMU shows the guest
    /// other identification numbers than the card has.
    pub fn with_msi(mut self) -> Self {
        let ((vendor, device), (sub_vendor, sub_device)) = (MSI_CARD, MSI_CARD_SUBSYSTEM);
        self.properties.push_str(&format!(
            ",x-pci-vendor-id={vendor:#x},x-pci-device-id={device:#x}"
        ));
        self.properties.push_str(&format!(
            ",x-pci-sub-vendor-id={sub_vendor:#x},x-pci-sub-device-id={sub_device:#x}"
        ));
        self.interrupt = Interrupt::Msi;
        self
    }

    /// Driven by hand, as 16550A whatever they are (see [`by_hand`]).
    pub fn driven_by_hand(mut self) -> Self {
        self.append.push_str(by_hand::OPTIONS);
        self
    }

    /// With ports that use RTS and CTS for flow control.
    pub fn with_flow_control(mut self) -> Self {
        self.append.push_str(" lab.flow-control=1");
        self
    }

    /// With a guest that gives up on bytes that did not come back when none came for so many seconds, instead of its usual time.
    pub fn giving_up_after(mut self, seconds: u32) -> Self {
        self.append.push_str(&format!(" lab.silence={seconds}"));
        self
    }

    /// And with these disks, behind the cards. The guest has two processors, which use a disk at the same time.
    pub fn with_disks(mut self, driver: &Arc<Loaded>, disks: Vec<Mdev>) -> Self {
        self.disks = disks;
        self._disk_driver = Some(driver.clone());
        self
    }

    /// The last disk gets a file system.
    pub fn with_files(mut self) -> Self {
        self.append.push_str(FILES);
        self
    }

    /// The disks have so many MiB, and the guest uses all of them.
    pub fn with_whole_disks(mut self, mib: u32) -> Result<Self> {
        for disk in &self.disks {
            disk.set_attribute("migration/capacity-mib", &mib.to_string())?;
        }
        self.append.push_str(&format!(" lab.disk-mib={mib}"));
        Ok(self)
    }

    /// The disks.
    pub fn disks(&self) -> &[Mdev] {
        &self.disks
    }

    /// The instances.
    pub fn instances(&self) -> &[Mdev] {
        &self.instances
    }

    /// A machine with these cards that boots.
    pub fn boots(&self) -> Spec {
        let mut cards: Vec<Card> = self
            .instances
            .iter()
            .chain(&self.disks)
            .map(|mdev| Card {
                path: mdev.path(),
                properties: self.properties.clone(),
            })
            .collect();
        if self.multifd_transfer {
            for card in &mut cards {
                card.properties.push_str(",x-migration-multifd-transfer=on");
            }
        }
        Spec {
            version: self.version,
            cards,
            backend: self.backend,
            incoming: false,
            paused: false,
            pluggable: false,
            processors: if self.disks.is_empty() { 1 } else { 2 },
            append: self.append.clone(),
            window: self.window,
            allowed: self.complaints,
        }
    }

    /// A machine with these cards that waits for a migration.
    pub fn waits(&self) -> Spec {
        Spec {
            incoming: true,
            ..self.boots()
        }
    }

    /// Gives the instances away.
    pub fn into_instances(self) -> Vec<Mdev> {
        self.instances
    }

    /// How a guest should see these cards.
    pub fn view(&self) -> View {
        View {
            ports: self.ports,
            cards: self.instances.len(),
            interrupt: self.interrupt,
            disks: self.disks.len(),
        }
    }
}
