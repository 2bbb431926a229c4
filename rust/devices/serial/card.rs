// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The card: its ports behind one PCI function, and how their interrupts leave it.

use super::config::{Chip, Config, MAX_PORTS};
use super::pci::Pci;
use super::uart::Uart;

#[cfg(test)]
mod tests;

/// A serial card: registers in, effects out.
///
/// See the [module documentation](super) for how to embed one.
#[derive(Clone, Debug)]
pub struct Card {
    config: Config,
    /// The embedder's clock, as last told. Nanoseconds.
    now: u64,
    /// When something happens by itself next, and how often that changed.
    next_timeout: Option<u64>,
    timeout_generation: u32,
    pub(super) pci: Pci,
    /// The first [`Config::ports`] of these exist; the others stay as at power-on.
    pub(super) ports: [Port; MAX_PORTS],
}

/// A UART and the state of its line to the card's interrupt logic.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) uart: Uart,
    /// The port asks for an interrupt.
    line: bool,
    /// The line rose, and no message was sent since. Only while MSI is active.
    pub(super) message_due: bool,
}

impl Port {
    pub(super) const fn new(chip: Chip) -> Port {
        Port {
            uart: Uart::new(chip),
            line: false,
            message_due: false,
        }
    }
}

impl Card {
    /// A card as it is after power-on. The far ends are empty.
    ///
    /// The value is some 2 KiB: build it where it is to live.
    pub const fn new(config: Config) -> Card {
        let chip = config.chip();
        Card {
            config,
            now: 0,
            next_timeout: None,
            timeout_generation: 0,
            pci: Pci::new(),
            ports: [
                Port::new(chip),
                Port::new(chip),
                Port::new(chip),
                Port::new(chip),
            ],
        }
    }

    /// What kind of card it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Back to power-on state, in place: registers, FIFOs and far ends. Nothing is pending afterwards.
    pub fn reset(&mut self) {
        self.reconfigure(self.config);
    }

    /// Chooses how ports are saved from now on. The card is as it was.
    pub fn set_compact_state(&mut self, compact: bool) {
        self.config.compact_state = compact;
    }

    /// Becomes another kind of card, in power-on state.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
        self.pci = Pci::new();
        for port in &mut self.ports {
            port.uart.reset(config.chip());
            port.line = false;
            port.message_due = false;
        }
        self.note_timeouts();
    }

    /// Reads configuration space, in any size and at any alignment. Beyond its 256 bytes: zeroes.
    pub fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        let interrupting = self.interrupting();
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = match config_offset(offset, i) {
                Some(at) => self.pci.read(&self.config, at, interrupting),
                None => 0,
            };
        }
    }

    /// Writes configuration space, in any size and at any alignment. Bits that cannot be written keep
    /// their value; what lies beyond the 256 bytes is ignored.
    pub fn write_config(&mut self, offset: u16, data: &[u8]) {
        let was_active = self.pci.msi_active();
        for (i, &byte) in data.iter().enumerate() {
            if let Some(at) = config_offset(offset, i) {
                self.pci.write(&self.config, at, byte);
            }
        }
        let active = self.pci.msi_active();
        if active != was_active {
            for port in &mut self.ports {
                // What was raised before goes out as the first message, or as INTx from now on.
                port.message_due = active && port.line;
            }
        }
    }

    /// Reads registers: `data.len()` of them, one a byte, at ascending offsets.
    ///
    /// The registers are a byte wide, so a wider access is made of byte accesses in ascending order,
    /// each with its side effects: QEMU's memory core splits it so for `serial_io_ops`, whose
    /// `impl.max_access_size` is 1, and so does a PCI bridge to an 8-bit bus.
    /// Beyond the BAR nobody answers: ones.
    ///
    /// Accesses are answered whatever the command register and BAR 0 hold: decoding them is the
    /// business of whoever maps the region (of VFIO's user), as it is with a VFIO device's regions.
    pub fn read_bar0(&mut self, offset: u16, data: &mut [u8]) {
        let (now, msi_active) = (self.now, self.pci.msi_active());
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = match self.register(offset, i) {
                Some((port, register)) => {
                    let value = port.uart.read(register, now);
                    port.note_line(msi_active);
                    value
                }
                None => 0xff,
            };
        }
        self.note_timeouts();
    }

    /// Writes registers, as [`Card::read_bar0`] reads them. What lies beyond the BAR is ignored.
    pub fn write_bar0(&mut self, offset: u16, data: &[u8]) {
        let (now, msi_active) = (self.now, self.pci.msi_active());
        for (i, &byte) in data.iter().enumerate() {
            if let Some((port, register)) = self.register(offset, i) {
                port.uart.write(register, byte, now);
                port.note_line(msi_active);
            }
        }
        self.note_timeouts();
    }

    /// The port and register that a byte of an access to BAR 0 is for.
    fn register(&mut self, offset: u16, i: usize) -> Option<(&mut Port, u8)> {
        let at = usize::from(offset).checked_add(i)?;
        let port = self.ports_mut().get_mut(at / 8)?;
        Some((port, (at % 8) as u8))
    }

    /// The level of INTA#: a port interrupts, and neither does the command register forbid it nor has
    /// MSI taken its place.
    pub fn intx_asserted(&self) -> bool {
        self.pci.intx_enabled() && self.interrupting()
    }

    /// Whether a message is to be sent now: since the last call some port began to interrupt while
    /// MSI was active. One message stands for all ports.
    ///
    /// MSI is active while both its enable bit and the command register's bus master bit are set:
    /// a message is a memory write. Becoming active counts as an edge for a port that interrupts.
    pub fn take_msi(&mut self) -> bool {
        let mut due = false;
        for port in &mut self.ports {
            due |= core::mem::take(&mut port.message_due);
        }
        due
    }

    /// After a migration: a message may have been lost on the way, so every port that interrupts
    /// raises it again (if MSI is active). Nothing is to be done for INTx, which is a level.
    pub fn rekick(&mut self) {
        if self.pci.msi_active() {
            for port in &mut self.ports {
                port.message_due |= port.line;
            }
        }
    }

    /// Tells the time: nanoseconds of any clock that does not run backwards (a step back is ignored).
    /// Lets happen what is due.
    ///
    /// To be called before an access and when the timer expires that was armed by
    /// [`Card::timeout_ns`]. A card that is never told the time stands still; see
    /// [`Card::timeout_elapsed`].
    pub fn set_time(&mut self, now_ns: u64) {
        self.now = self.now.max(now_ns);
        let (now, msi_active) = (self.now, self.pci.msi_active());
        for port in self.ports_mut() {
            port.uart.expire(now);
            port.note_line(msi_active);
        }
        self.note_timeouts();
    }

    /// In how many nanoseconds something happens by itself, from the time last told. `None`: no timer
    /// is wanted. Never zero, and less than half a minute.
    ///
    /// Two things do: a character time-out, when a port with FIFOs holds received characters and for
    /// four character times none was added or read; and a break, when a port's line was held in the
    /// spacing state for a character time.
    pub fn timeout_ns(&self) -> Option<u64> {
        self.next_timeout
            .map(|due| due.saturating_sub(self.now).max(1))
    }

    /// Counts how often the time changed that [`Card::timeout_ns`] is the distance to. Equal numbers: a timer armed then
    /// is still right.
    pub fn timeout_generation(&self) -> u32 {
        self.timeout_generation
    }

    /// The delay that [`Card::timeout_ns`] names is over: for embedders without a clock, instead of
    /// [`Card::set_time`] (after it, whatever is *next* would come early).
    ///
    /// Without a clock the card's time stands still between two such calls, so a port can wait longer
    /// than it should while others are busy.
    pub fn timeout_elapsed(&mut self) {
        if let Some(due) = self.next_timeout {
            self.set_time(due);
        }
    }

    /// The embedder's clock, as last told.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// The ports that exist.
    pub(super) fn ports(&self) -> &[Port] {
        let (ports, _) = self.ports.split_at(usize::from(self.config.ports.get()));
        ports
    }

    /// The ports that exist.
    pub(super) fn ports_mut(&mut self) -> &mut [Port] {
        let (ports, _) = self
            .ports
            .split_at_mut(usize::from(self.config.ports.get()));
        ports
    }

    /// After ports were replaced: works out what follows from their state.
    pub(super) fn adopt_ports(&mut self) {
        for port in &mut self.ports {
            port.line = port.uart.interrupting();
        }
        self.note_timeouts();
    }

    fn interrupting(&self) -> bool {
        self.ports.iter().any(|port| port.line)
    }

    fn note_timeouts(&mut self) {
        let next = self
            .ports
            .iter()
            .filter_map(|port| port.uart.next_due())
            .min();
        if next != self.next_timeout {
            self.next_timeout = next;
            self.timeout_generation = self.timeout_generation.wrapping_add(1);
        }
    }
}

impl Port {
    /// Follows the UART's interrupt output.
    fn note_line(&mut self, msi_active: bool) {
        let line = self.uart.interrupting();
        if line && !self.line && msi_active {
            self.message_due = true;
        }
        self.line = line;
    }
}

/// The offset of a byte of an access to configuration space, if it lies in there.
fn config_offset(offset: u16, i: usize) -> Option<u8> {
    let at = usize::from(offset).checked_add(i)?;
    u8::try_from(at).ok()
}
