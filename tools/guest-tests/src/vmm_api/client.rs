// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A virtual machine monitor with one card, on top of `vfio-ioctls`.

use std::fmt::Display;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{ensure, Context};
use vfio_ioctls::{VfioContainer, VfioDevice};
use vmm_sys_util::eventfd::EventFd;

use crate::mdev::Mdev;
use crate::v2_api::card::{card_type, config, BAR0, CONFIG};
use crate::v2_api::check::equal;
use crate::v2_api::uart::{
    DATA, FCR, FCR_CLEAR_RECEIVE, FCR_CLEAR_TRANSMIT, FCR_ENABLE, IER, IIR, IIR_ID, LCR, LCR_8N1,
    LCR_DIVISOR, LSR, LSR_DATA, MCR, MCR_DTR, MCR_OUT2, MCR_RTS, MSR,
};
use crate::vfio::interrupt::{ERR, INTX, MSI};
use crate::vfio::{Event, State};

/// What the library complained of. It returns nothing from an access that failed, and only logs it.
static COMPLAINTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps warnings and errors for [`heard_nothing`].
struct Listener;

impl log::Log for Listener {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("vfio_ioctls")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut all = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Listens to the library from now on.
fn listen() {
    // A second call changes nothing.
    if log::set_logger(&Listener).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
}

/// Fails if the library complained since the last call.
fn heard_nothing(what: impl Display) -> anyhow::Result<()> {
    let all = std::mem::take(&mut *COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner));
    ensure!(all.is_empty(), "{what}: {}", all.join("; "));
    Ok(())
}

/// As [`heard_nothing`], for an open. A card that is not PCI Express has no error interrupt, and the library asks for it.
fn heard_only_of_the_error_interrupt() -> anyhow::Result<()> {
    let expected = format!("Could not get VFIO IRQ info for index {ERR}");
    let mut all = COMPLAINTS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|complaint| *complaint != expected);
    drop(all);
    heard_nothing("the open")
}

/// A kind of interrupt that a card signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By its pin.
    Intx,
    /// By messages.
    Msi,
}

impl Kind {
    /// Its index.
    pub fn index(self) -> u32 {
        match self {
            Self::Intx => INTX,
            Self::Msi => MSI,
        }
    }
}

/// An interrupt as the library wants it, and as a test waits for it.
pub struct Interrupt {
    for_library: EventFd,
    event: Event,
}

impl Interrupt {
    /// Nothing has been signalled.
    pub fn new() -> anyhow::Result<Self> {
        let event = Event::new()?;
        let same = event.as_fd().try_clone_to_owned()?.into_raw_fd();
        Ok(Self {
            // SAFETY: The descriptor was just made and given up, so it is nobody else's.
            for_library: unsafe { EventFd::from_raw_fd(same) },
            event,
        })
    }

    /// For calls of the library.
    pub fn eventfd(&self) -> &EventFd {
        &self.for_library
    }

    /// Waits until it is signalled; returns how often.
    pub fn wait(&self) -> anyhow::Result<u64> {
        self.event.wait()
    }

    /// How often it was signalled since the last call.
    pub fn count(&self) -> anyhow::Result<u64> {
        self.event.count()
    }
}

/// A monitor's device.
pub struct Vmm {
    /// What the library has.
    pub device: VfioDevice,
    /// The instance behind it, which goes after the device was closed.
    pub instance: Mdev,
    /// How many ports its card has.
    pub ports: u32,
}

impl Vmm {
    /// Opens a new card with `ports` ports, by its group in a container, and enables accesses as firmware does.
    pub fn new(ports: u32) -> anyhow::Result<Self> {
        Self::of(card_type(ports)?.create()?, ports)
    }

    /// Opens the card of `instance`.
    pub fn of(instance: Mdev, ports: u32) -> anyhow::Result<Self> {
        let device = open(&instance.path())?;
        let this = Self {
            device,
            instance,
            ports,
        };
        this.set_config(config::COMMAND, &config::COMMAND_IO.to_le_bytes())?;
        Ok(this)
    }

    /// Writes to the configuration space.
    pub fn set_config(&self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.device.region_write(CONFIG, bytes, offset);
        heard_nothing(format!("configuration write at {offset:#x}"))
    }

    /// Reads from the configuration space.
    pub fn config<const N: usize>(&self, offset: u64) -> anyhow::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.device.region_read(CONFIG, &mut bytes, offset);
        heard_nothing(format!("configuration read at {offset:#x}"))?;
        Ok(bytes)
    }

    /// Reads a register of port `port`.
    pub fn get(&self, port: u32, register: u64) -> anyhow::Result<u8> {
        let mut value = [0];
        let place = u64::from(port) * 8 + register;
        self.device.region_read(BAR0, &mut value, place);
        heard_nothing(format!("read of register {place:#x}"))?;
        Ok(value[0])
    }

    /// Writes a register of port `port`.
    pub fn set(&self, port: u32, register: u64, value: u8) -> anyhow::Result<()> {
        let place = u64::from(port) * 8 + register;
        self.device.region_write(BAR0, &[value], place);
        heard_nothing(format!("write of register {place:#x}"))
    }

    /// Sets port `port` up as a driver does, with FIFOs and no interrupt enabled.
    pub fn set_up(&self, port: u32) -> anyhow::Result<()> {
        self.set(port, LCR, LCR_8N1 | LCR_DIVISOR)?;
        self.set(port, DATA, 1)?;
        self.set(port, IER, 0)?;
        self.set(port, LCR, LCR_8N1)?;
        self.set(port, IER, 0)?;
        let fifos = FCR_ENABLE | FCR_CLEAR_RECEIVE | FCR_CLEAR_TRANSMIT;
        self.set(port, FCR, fifos)?;
        self.set(port, MCR, MCR_DTR | MCR_RTS | MCR_OUT2)?;
        self.get(port, MSR)?;
        Ok(())
    }

    /// Has the interrupts of `kind` signalled.
    pub fn enable(&self, kind: Kind) -> anyhow::Result<Interrupt> {
        let interrupt = Interrupt::new()?;
        self.device
            .enable_irq(kind.index(), vec![interrupt.eventfd()])
            .with_context(|| format!("{kind:?}"))?;
        Ok(interrupt)
    }

    /// What a guest's driver does to be interrupted by messages.
    pub fn enable_msi_in_config(&self) -> anyhow::Result<()> {
        let command = config::COMMAND_IO | config::COMMAND_MASTER;
        self.set_config(config::COMMAND, &command.to_le_bytes())?;
        let [place] = self.config(config::CAPABILITIES)?;
        let [id, _, low, high] = self.config(place.into())?;
        equal("the capability", id, config::CAPABILITY_MSI)?;
        let control = u16::from_le_bytes([low, high]) | config::MSI_ENABLE;
        self.set_config(u64::from(place) + 2, &control.to_le_bytes())
    }

    /// Asks for a state.
    pub fn go(&self, state: State) -> anyhow::Result<()> {
        self.device
            .set_migration_state(state as u32)
            .with_context(|| format!("to {state:?}; the driver says: {}", self.reason()))
    }

    /// Checks the state.
    pub fn is_in(&self, state: State) -> anyhow::Result<()> {
        let got = self.device.get_migration_state().context("the state")?;
        equal("the state", got, state as u32)
    }

    /// Stops the card and reads its whole state, as a snapshot does. It stays in STOP.
    pub fn save(&self) -> anyhow::Result<Vec<u8>> {
        self.go(State::Stop)?;
        self.go(State::StopCopy)?;
        let size = self.device.get_mig_data_size().context("the size")?;
        let stream = self.device.read_migration_data_to_end().context("read")?;
        ensure!(
            !stream.is_empty() && stream.len() as u64 <= size,
            "{} bytes were read where at most {size} were announced",
            stream.len()
        );
        // The library closes the data file after that.
        self.go(State::Stop)?;
        Ok(stream)
    }

    /// What the driver says about its last refusal, or why that cannot be read.
    pub fn reason(&self) -> String {
        self.instance
            .migration_error()
            .unwrap_or_else(|error| format!("({error:#})"))
    }

    /// Has port `port`, which has received nothing, send `bytes`, and checks that the far end sends each of them back.
    pub fn echo(&self, port: u32, bytes: &[u8]) -> anyhow::Result<()> {
        for &byte in bytes {
            self.set(port, DATA, byte)?;
            equal("received", self.received(port)?, vec![byte])?;
        }
        Ok(())
    }

    /// Everything that port `port` has received.
    pub fn received(&self, port: u32) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while self.get(port, LSR)? & LSR_DATA != 0 {
            bytes.push(self.get(port, DATA)?);
        }
        Ok(bytes)
    }

    /// The interrupt that port `port` identifies.
    pub fn identification(&self, port: u32) -> anyhow::Result<u8> {
        Ok(self.get(port, IIR)? & IIR_ID)
    }
}

/// Opens a device as a monitor does that has no hypervisor yet.
pub fn open(path: &Path) -> anyhow::Result<VfioDevice> {
    listen();
    let container = VfioContainer::new(None).context("the container")?;
    let device = VfioDevice::new(path, Arc::new(container), false).context("the device")?;
    heard_only_of_the_error_interrupt()?;
    Ok(device)
}
