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
    /// Which ports ask for an interrupt: bit i is port i's.
    lines: u8,
    pub(super) pci: Pci,
    /// The first [`Config::ports`] of these exist; the others stay as at power-on.
    pub(super) ports: [Port; MAX_PORTS],
}

/// A UART and the state of its line to the card's interrupt logic.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) uart: Uart,
    /// The port's line rose, and no message was sent since. Only while MSI is active.
    pub(super) message_due: bool,
}

impl Port {
    pub(super) const fn new(chip: Chip) -> Port {
        Port {
            uart: Uart::new(chip),
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
            lines: 0,
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
            port.message_due = false;
        }
        self.lines = 0;
        self.note_timeouts();
    }

    /// Reads configuration space, in any size and at any alignment. Beyond its 256 bytes: zeroes.
    #[inline]
    pub fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        match (<&mut [u8; 4]>::try_from(&mut *data), offset % 4) {
            (Ok(word), 0) => *word = self.config_at(offset),
            _ => self.read_config_in_parts(offset, data),
        }
    }

    fn read_config_in_parts(&self, offset: u16, data: &mut [u8]) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let lane = usize::from(at % 4);
            let (piece, later) = rest.split_at_mut((4 - lane).min(rest.len()));
            for (to, from) in piece.iter_mut().zip(self.config_at(at).iter().skip(lane)) {
                *to = *from;
            }
            at = at.saturating_add(piece.len() as u16);
            rest = later;
        }
    }

    /// The four bytes of configuration space in which the one at this offset is.
    fn config_at(&self, offset: u16) -> [u8; 4] {
        match config_dword(offset) {
            Some(at) => self.pci.dword(&self.config, at, self.interrupting()),
            None => 0,
        }
        .to_le_bytes()
    }

    /// Writes configuration space, in any size and at any alignment. Bits that cannot be written keep
    /// their value; what lies beyond the 256 bytes is ignored.
    #[inline]
    pub fn write_config(&mut self, offset: u16, data: &[u8]) {
        let was_active = self.pci.msi_active();
        match data.len() <= usize::from(4 - offset % 4) {
            true => self.write_config_part(offset, data),
            false => self.write_config_in_parts(offset, data),
        }
        if self.pci.msi_active() != was_active {
            self.follow_msi();
        }
    }

    /// Writes bytes of one dword.
    #[inline]
    fn write_config_part(&mut self, offset: u16, data: &[u8]) {
        let (mut value, mut lanes) = (0, 0);
        for &byte in data.iter().rev() {
            value = (value << 8) | u32::from(byte);
            lanes = (lanes << 8) | 0xff;
        }
        if let Some(at) = config_dword(offset) {
            let shift = 8 * (offset % 4);
            self.pci
                .write(&self.config, at, value << shift, lanes << shift);
        }
    }

    fn write_config_in_parts(&mut self, offset: u16, data: &[u8]) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(usize::from(4 - at % 4).min(rest.len()));
            self.write_config_part(at, piece);
            at = at.saturating_add(piece.len() as u16);
            rest = later;
        }
    }

    /// MSI has become active, or is not any more. What was raised before goes out as the first message, or as INTx from now on.
    #[inline(never)]
    fn follow_msi(&mut self) {
        let active = self.pci.msi_active();
        for (port, line) in self.ports.iter_mut().zip(lines(self.lines)) {
            port.message_due = active && line;
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
    #[inline]
    pub fn read_bar0(&mut self, offset: u16, data: &mut [u8]) {
        match data {
            [byte] => *byte = self.read_register(offset),
            data => self.read_registers(offset, data),
        }
    }

    /// Writes registers, as [`Card::read_bar0`] reads them. What lies beyond the BAR is ignored.
    #[inline]
    pub fn write_bar0(&mut self, offset: u16, data: &[u8]) {
        match data {
            [byte] => self.write_register(offset, *byte),
            data => self.write_registers(offset, data),
        }
    }

    /// Whether the time makes a difference to reading so many registers of BAR 0 from here on. Only then need it be told before.
    #[inline]
    pub fn reading_needs_time(&self, offset: u16, len: usize) -> bool {
        // A character is taken, or room made for one, by the first of a port's registers only: whether one of them is read.
        let first = usize::from(offset).next_multiple_of(8);
        self.next_timeout.is_some() || first < usize::from(offset).saturating_add(len)
    }

    /// Whether the time makes a difference to writing this to BAR 0, as [`Card::reading_needs_time`] says it of reading.
    #[inline]
    pub fn writing_needs_time(&self, offset: u16, data: &[u8]) -> bool {
        self.next_timeout.is_some() || self.writing_starts_a_delay(offset, data)
    }

    fn writing_starts_a_delay(&self, offset: u16, data: &[u8]) -> bool {
        let starts = |(i, &byte)| match self.register(offset, i) {
            Some((port, register)) => self.ports[port].uart.writing_needs_time(register, byte),
            None => false,
        };
        match data {
            [byte] => starts((0, byte)),
            data => (0..).zip(data).any(starts),
        }
    }

    /// Whether the time makes a difference to configuration space: something is to happen by itself, which its status shows.
    #[inline]
    pub fn config_needs_time(&self) -> bool {
        self.next_timeout.is_some()
    }

    /// Reads a register.
    fn read_register(&mut self, offset: u16) -> u8 {
        let Some((port, register)) = self.register(offset, 0) else {
            return 0xff;
        };
        // Most reads change nothing, and then nothing follows from them.
        match self.ports[port].uart.peek(register) {
            Some(value) => value,
            None => self.read_and_follow(port, register),
        }
    }

    fn read_registers(&mut self, offset: u16, data: &mut [u8]) {
        let (Some((port, first)), true) = (self.register(offset, 0), is_one_port(offset, data))
        else {
            for (byte, i) in data.iter_mut().zip(0..) {
                *byte = match offset.checked_add(i) {
                    Some(offset) => self.read_register(offset),
                    None => 0xff,
                };
            }
            return;
        };
        for (byte, register) in data.iter_mut().zip(first..) {
            *byte = match self.ports[port].uart.peek(register) {
                Some(value) => value,
                None => self.read_and_follow(port, register),
            };
        }
    }

    #[inline(never)]
    fn read_and_follow(&mut self, port: usize, register: u8) -> u8 {
        let value = self.ports[port].uart.read(register, self.now);
        self.follow(port);
        value
    }

    /// Writes a register.
    fn write_register(&mut self, offset: u16, value: u8) {
        if let Some((port, register)) = self.register(offset, 0) {
            if self.ports[port].uart.write(register, value, self.now) {
                self.follow(port);
            }
        }
    }

    fn write_registers(&mut self, offset: u16, data: &[u8]) {
        let (Some((port, first)), true) = (self.register(offset, 0), is_one_port(offset, data))
        else {
            for (&byte, i) in data.iter().zip(0..) {
                if let Some(offset) = offset.checked_add(i) {
                    self.write_register(offset, byte);
                }
            }
            return;
        };
        for (&byte, register) in data.iter().zip(first..) {
            if self.ports[port].uart.write(register, byte, self.now) {
                self.follow(port);
            }
        }
    }

    /// The port and register that a byte of an access to BAR 0 is for.
    fn register(&self, offset: u16, i: usize) -> Option<(usize, u8)> {
        let at = usize::from(offset).checked_add(i)?;
        let port = at / 8;
        (port < usize::from(self.config.ports.get())).then_some((port % MAX_PORTS, (at % 8) as u8))
    }

    /// The level of INTA#: a port interrupts, and neither does the command register forbid it nor has
    /// MSI taken its place.
    #[inline]
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
            for (port, line) in self.ports.iter_mut().zip(lines(self.lines)) {
                port.message_due |= line;
            }
        }
    }

    /// Tells the time: nanoseconds of any clock that does not run backwards (a step back is ignored).
    /// Lets happen what is due.
    ///
    /// To be called before an access that needs it ([`Card::reading_needs_time`] and its siblings) and when the
    /// timer expires that was armed by [`Card::timeout_ns`]. A card that is never told the time stands still; see
    /// [`Card::timeout_elapsed`].
    pub fn set_time(&mut self, now_ns: u64) {
        self.now = self.now.max(now_ns);
        let now = self.now;
        if self.next_timeout.is_none_or(|due| due > now) {
            return;
        }
        for port in 0..usize::from(self.config.ports.get()) {
            self.ports[port].uart.expire(now);
            self.follow(port);
        }
    }

    /// In how many nanoseconds something happens by itself, from the time last told. `None`: no timer
    /// is wanted. Never zero, and less than half a minute.
    ///
    /// Two things do: a character time-out, when a port with FIFOs holds received characters and for
    /// four character times none was added or read; and a break, when a port's line was held in the
    /// spacing state for a character time.
    #[inline]
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
        self.lines = 0;
        for (i, port) in self.ports.iter().enumerate() {
            self.lines |= u8::from(port.uart.interrupting()) << i;
        }
        self.note_timeouts();
    }

    #[inline]
    fn interrupting(&self) -> bool {
        self.lines != 0
    }

    /// Takes note of what an access to a port, or time, may have changed: its interrupt output and what it waits for.
    #[inline(never)]
    fn follow(&mut self, index: usize) {
        let msi_active = self.pci.msi_active();
        let port = &mut self.ports[index];
        let mask = 1 << index;
        if !port.uart.interrupting() {
            self.lines &= !mask;
        } else if self.lines & mask == 0 {
            self.lines |= mask;
            port.message_due |= msi_active;
        }
        if self.next_timeout.is_some() || port.uart.next_due().is_some() {
            self.note_timeouts();
        }
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

/// Whether an access to registers stays within those of one port, as each does that a bus makes.
fn is_one_port(offset: u16, data: &[u8]) -> bool {
    usize::from(offset % 8) + data.len() <= 8
}

/// The bits of a mask, a port each.
fn lines(mask: u8) -> impl Iterator<Item = bool> {
    (0..MAX_PORTS).map(move |port| mask & (1 << port) != 0)
}

/// The offset of the four bytes in which a byte of configuration space is; `None` if it lies beyond.
fn config_dword(at: u16) -> Option<u8> {
    u8::try_from(at).ok().map(|at| at & !3)
}
