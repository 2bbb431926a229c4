// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A serial card of our driver, made for one test and gone after it.

use std::ops::Deref;

use anyhow::Context;

use super::check::Named;
use super::uart::{Line, Port};
use crate::kernel;
use crate::mdev::{Mdev, MdevType};
use crate::vfio::{self, abi, Access, Device, Event, State};

/// Region of the UARTs' registers.
pub const BAR0: u32 = abi::VFIO_PCI_BAR0_REGION_INDEX;
/// Region of the PCI configuration space.
pub const CONFIG: u32 = abi::VFIO_PCI_CONFIG_REGION_INDEX;
/// Region of migration protocol version 1, after those of every PCI device.
pub const MIGRATION: u32 = abi::VFIO_PCI_NUM_REGIONS;
/// The file of an instance that says whether an eventfd may unmask its INTx.
pub const UNMASK_EVENTFD: &str = "intx_unmask_eventfd";
/// The numbers of ports that there are types for.
pub const PORTS: [u32; 3] = [1, 2, 4];

/// Offsets in the PCI configuration space (PCI Local Bus Specification 3.0, 6.1).
pub mod config {
    /// Vendor and device ID, 32 bits.
    pub const ID: u64 = 0x00;
    /// Command, 16 bits.
    pub const COMMAND: u64 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u64 = 0x06;
    /// Revision and class code, 32 bits.
    pub const CLASS: u64 = 0x08;
    /// First base address, 32 bits.
    pub const BAR0: u64 = 0x10;
    /// Address of the expansion ROM, 32 bits.
    pub const ROM: u64 = 0x30;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: u64 = 0x34;
    /// Interrupt line, 8 bits.
    pub const LINE: u64 = 0x3c;
    /// Interrupt pin, 8 bits.
    pub const PIN: u64 = 0x3d;

    /// Command: answer I/O accesses.
    pub const COMMAND_IO: u16 = 1 << 0;
    /// Command: the device may write to memory, which a message signalled interrupt is.
    pub const COMMAND_MASTER: u16 = 1 << 2;
    /// Command: do not assert INTx.
    pub const COMMAND_INTX_OFF: u16 = 1 << 10;
    /// Status: INTx is asserted inside the device.
    pub const STATUS_INTX: u16 = 1 << 3;
    /// Status: there is a list of capabilities.
    pub const STATUS_CAPABILITIES: u16 = 1 << 4;
    /// Capability: message signalled interrupts.
    pub const CAPABILITY_MSI: u8 = 0x05;
    /// MSI control: enabled.
    pub const MSI_ENABLE: u16 = 1 << 0;
}

/// The type of a card with `ports` ports.
pub fn card_type(ports: u32) -> anyhow::Result<MdevType> {
    MdevType::find(&format!("mdev_serial-{ports}"))
}

/// An open card. Dropping it closes the device and then removes the instance.
#[derive(Debug)]
pub struct Card {
    device: Device,
    /// The instance behind the device.
    pub instance: Mdev,
    /// How many ports it has.
    pub ports: u32,
}

impl Card {
    /// A new card with `ports` ports, opened by its own file where the kernel has such files, with I/O accesses enabled as firmware does.
    pub fn new(ports: u32) -> anyhow::Result<Self> {
        Self::opened(ports, kernel::usual_access())
    }

    /// A new card with `ports` ports, opened as told, with I/O accesses enabled as firmware does.
    pub fn opened(ports: u32, access: Access) -> anyhow::Result<Self> {
        kernel::needs_access(access)?;
        Self::of(card_type(ports)?.create()?, ports, access)
    }

    /// As [`Card::new`]; an eventfd may unmask its INTx.
    pub fn with_unmask_eventfd(ports: u32) -> anyhow::Result<Self> {
        let instance = card_type(ports)?.create()?;
        instance.set_attribute(UNMASK_EVENTFD, "on")?;
        Self::of(instance, ports, kernel::usual_access())
    }

    /// An instance with `ports` ports, opened as told, with I/O accesses enabled as firmware does.
    pub fn of(instance: Mdev, ports: u32, access: Access) -> anyhow::Result<Self> {
        let device = access.open(&instance)?;
        let card = Self {
            device,
            instance,
            ports,
        };
        card.set_command(config::COMMAND_IO)?;
        Ok(card)
    }

    /// Closes the device and keeps the instance.
    pub fn close(self) -> Mdev {
        let Self {
            device, instance, ..
        } = self;
        drop(device);
        instance
    }

    /// The open device, by itself.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Signals interrupt 0 of `index` to a new eventfd.
    pub fn enable(&self, index: u32) -> vfio::Result<Event> {
        Event::of(&self.device, index)
    }

    /// Closes the device and opens it again.
    pub fn reopen(self, access: Access) -> anyhow::Result<Self> {
        kernel::needs_access(access)?;
        let ports = self.ports;
        let instance = self.close();
        let device = access.open(&instance)?;
        Ok(Self {
            device,
            instance,
            ports,
        })
    }

    /// UART number `port`.
    pub fn port(&self, port: u32) -> Port<'_> {
        Port::new(&self.device, port)
    }

    /// UART number `port` with INTx, which arrives at `event`.
    pub fn line<'a>(&'a self, port: u32, event: &'a Event) -> Line<'a> {
        Line {
            port: self.port(port),
            event,
        }
    }

    /// All UARTs.
    pub fn each_port(&self) -> impl Iterator<Item = Port<'_>> {
        (0..self.ports).map(|port| self.port(port))
    }

    /// Reads a little-endian value of `N` bytes from the configuration space.
    fn config<const N: usize>(&self, offset: u64) -> anyhow::Result<[u8; N]> {
        let mut bytes = [0; N];
        let length = self
            .device
            .read(CONFIG, offset, &mut bytes)
            .named(format!("configuration read at {offset:#x}"))?;
        super::check::equal(
            format!("bytes read at {offset:#x} of the configuration space"),
            length,
            N,
        )?;
        Ok(bytes)
    }

    /// Reads 8 bits of the configuration space.
    pub fn config8(&self, offset: u64) -> anyhow::Result<u8> {
        Ok(u8::from_le_bytes(self.config(offset)?))
    }

    /// Reads 16 bits of the configuration space.
    pub fn config16(&self, offset: u64) -> anyhow::Result<u16> {
        Ok(u16::from_le_bytes(self.config(offset)?))
    }

    /// Reads 32 bits of the configuration space.
    pub fn config32(&self, offset: u64) -> anyhow::Result<u32> {
        Ok(u32::from_le_bytes(self.config(offset)?))
    }

    /// Writes to the configuration space.
    pub fn set_config(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let length = self
            .device
            .write(CONFIG, offset, bytes)
            .named(format!("configuration write at {offset:#x}"))?;
        super::check::equal(
            format!("bytes written at {offset:#x} of the configuration space"),
            length,
            bytes.len(),
        )
    }

    /// Writes the command register.
    pub fn set_command(&self, command: u16) -> anyhow::Result<()> {
        self.set_config(config::COMMAND, &command.to_le_bytes())
    }

    /// The whole configuration space.
    pub fn config_space(&self) -> anyhow::Result<[u8; 256]> {
        self.config(0)
    }

    /// The offset of the MSI capability, found by walking the list.
    pub fn msi_capability(&self) -> anyhow::Result<u64> {
        let mut seen = Vec::new();
        let mut place = self.config8(config::CAPABILITIES)? & !3;
        while place != 0 {
            anyhow::ensure!(
                place >= 0x40 && !seen.contains(&place),
                "capability list: {seen:02x?}, then {place:#x}"
            );
            seen.push(place);
            if self.config8(u64::from(place))? == config::CAPABILITY_MSI {
                return Ok(u64::from(place));
            }
            place = self.config8(u64::from(place) + 1)? & !3;
        }
        anyhow::bail!("no MSI capability in the list {seen:02x?}")
    }

    /// Enables MSI in the configuration space, as a guest's driver does.
    pub fn enable_msi(&self) -> anyhow::Result<()> {
        self.set_command(config::COMMAND_IO | config::COMMAND_MASTER)?;
        let control = self.msi_capability()? + 2;
        let value = self.config16(control)? | config::MSI_ENABLE;
        self.set_config(control, &value.to_le_bytes())
    }

    /// Saves the whole state from STOP, and goes back to STOP.
    pub fn save(&self) -> anyhow::Result<Vec<u8>> {
        let before = self.device.state().named("the state")?;
        super::check::equal("state before a save", before, State::Stop)?;
        let data = self
            .device
            .start(State::StopCopy)
            .named("STOP -> STOP_COPY")?;
        let stream = data.read_all(1 << 16).named("the read of the state")?;
        self.device.switch(State::Stop).named("STOP_COPY -> STOP")?;
        Ok(stream)
    }

    /// Stops the card and saves its whole state.
    pub fn stop_and_save(&self) -> anyhow::Result<Vec<u8>> {
        self.device.switch(State::Stop).named("to STOP")?;
        self.save()
    }

    /// Loads a state and stays in STOP.
    pub fn load(&self, stream: &[u8]) -> anyhow::Result<()> {
        let data = self.device.start(State::Resuming).named("to RESUMING")?;
        data.write_all(stream, stream.len().max(1))
            .with_context(|| {
                format!("the write of the state; the driver says: {}", self.reason())
            })?;
        drop(data);
        self.device
            .switch(State::Stop)
            .with_context(|| format!("RESUMING -> STOP; the driver says: {}", self.reason()))
    }

    /// What the driver says about its last refusal, or why that cannot be read.
    pub fn reason(&self) -> String {
        self.instance
            .migration_error()
            .unwrap_or_else(|error| format!("({error:#})"))
    }

    /// What can be read of the card without changing it: the configuration space and each port's plain registers.
    pub fn plain_registers(&self) -> anyhow::Result<Vec<u8>> {
        let mut all = self.config_space()?.to_vec();
        for port in self.each_port() {
            all.extend(port.plain_registers()?);
        }
        Ok(all)
    }
}

impl Deref for Card {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}
