// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One port: a 16550A, or a 16750 (with or without automatic flow control) when its FIFOs are 64 bytes deep.
//!
//! Sources: National PC16550D and TI TL16C750 (SLLS191) data sheets, called NS and TI here. Where they
//! leave a choice, QEMU hw/char/serial.c and what linux drivers/tty/serial/8250 relies on decide.

use super::config::Chip;
use super::far_end::FarEnd;
use super::fifo::{Fifo, Symbol};
use super::registers::{fcr, ier, iir, lcr, lsr, mcr, msr, offset};
use super::timeout;

#[cfg(test)]
mod linux;
#[cfg(test)]
mod tests;

/// Room for the deeper of the two kinds of FIFO.
pub(super) const FIFO_BYTES: usize = 64;

/// A receiver or transmitter FIFO.
pub(super) type PortFifo = Fifo<FIFO_BYTES, { FIFO_BYTES / 8 }>;

/// The divisor latch at power-on: 9600 baud, as QEMU has it (the data sheets leave it undefined).
const POWER_ON_DIVISOR: u16 = 12;

/// A UART and its far end.
///
/// The registers hold only what the chip stores; everything that follows from the rest (most of LSR,
/// the upper half of MSR, IIR) is computed when read.
///
/// Between two accesses the port is *settled*: no byte could move on. See [`Uart::broken_rule`].
#[derive(Clone, Debug)]
pub(super) struct Uart {
    pub(super) chip: Chip,
    pub(super) ier: u8,
    /// Enable, DMA mode, 64 bytes, trigger; never the self-clearing bits.
    pub(super) fcr: u8,
    pub(super) lcr: u8,
    pub(super) mcr: u8,
    /// [`lsr::ERRORS`]: set until LSR is read.
    pub(super) errors: u8,
    /// [`msr::DELTAS`]: set until MSR is read.
    pub(super) deltas: u8,
    pub(super) scr: u8,
    pub(super) divisor: u16,
    /// The transmitter became empty (or its interrupt was enabled while it was), and neither IIR
    /// reported it nor was anything written since.
    pub(super) thre_pending: bool,
    /// The character time-out is indicated; until RBR is read.
    pub(super) timeout_pending: bool,
    /// Automatic flow control holds RTS inactive.
    pub(super) rts_held: bool,
    /// When the character time-out is due, in the card's time. Set exactly while one is wanted.
    pub(super) deadline: Option<u64>,
    /// When the spacing line will have been a break, in the card's time.
    pub(super) break_due: Option<u64>,
    /// Modem inputs as they were last looked at: the upper half of MSR.
    lines: u8,
    pub(super) rx: PortFifo,
    pub(super) tx: PortFifo,
    pub(super) far: FarEnd,
}

impl Uart {
    /// Power-on state. NS "UART reset configuration".
    pub(super) const fn new(chip: Chip) -> Uart {
        Uart {
            chip,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            errors: 0,
            deltas: 0,
            scr: 0,
            divisor: POWER_ON_DIVISOR,
            thre_pending: false,
            timeout_pending: false,
            rts_held: false,
            deadline: None,
            break_due: None,
            lines: 0,
            rx: Fifo::new(),
            tx: Fifo::new(),
            far: FarEnd::new(),
        }
    }

    /// Back to power-on state; the far end forgets what it holds.
    pub(super) fn reset(&mut self, chip: Chip) {
        self.chip = chip;
        self.ier = 0;
        self.fcr = 0;
        self.lcr = 0;
        self.mcr = 0;
        self.errors = 0;
        self.deltas = 0;
        self.scr = 0;
        self.divisor = POWER_ON_DIVISOR;
        self.thre_pending = false;
        self.timeout_pending = false;
        self.rts_held = false;
        self.deadline = None;
        self.break_due = None;
        self.lines = 0;
        self.rx.clear();
        self.tx.clear();
        self.far.clear();
    }

    /// Becomes what another one is. Queues are mostly empty, and nothing of those is copied.
    pub(super) fn copy_from(&mut self, other: &Self) {
        let Self {
            chip,
            ier,
            fcr,
            lcr,
            mcr,
            errors,
            deltas,
            scr,
            divisor,
            thre_pending,
            timeout_pending,
            rts_held,
            deadline,
            break_due,
            lines,
            rx,
            tx,
            far,
        } = other;
        self.chip = *chip;
        self.ier = *ier;
        self.fcr = *fcr;
        self.lcr = *lcr;
        self.mcr = *mcr;
        self.errors = *errors;
        self.deltas = *deltas;
        self.scr = *scr;
        self.divisor = *divisor;
        self.thre_pending = *thre_pending;
        self.timeout_pending = *timeout_pending;
        self.rts_held = *rts_held;
        self.deadline = *deadline;
        self.break_due = *break_due;
        self.lines = *lines;
        self.rx.copy_from(rx);
        self.tx.copy_from(tx);
        self.far.copy_from(far);
    }

    /// What the register at an offset (0–7; higher bits are not decoded) holds, if reading it now changes nothing.
    #[inline]
    pub(super) fn peek(&self, register: u8) -> Option<u8> {
        let dlab = self.lcr & lcr::DLAB != 0;
        let [low, high] = self.divisor.to_le_bytes();
        Some(match register & 7 {
            offset::DATA if dlab => low,
            offset::DATA => return None,
            offset::IER if dlab => high,
            offset::IER => self.ier,
            offset::IIR_FCR => return self.peek_identification(),
            offset::LCR => self.lcr,
            offset::MCR => self.mcr,
            offset::LSR if self.errors == 0 => self.line_status(),
            offset::MSR if self.deltas == 0 => self.modem_inputs(),
            offset::LSR | offset::MSR => return None,
            offset::SCR.. => self.scr,
        })
    }

    #[inline(never)]
    fn peek_identification(&self) -> Option<u8> {
        let source = self.interrupt();
        (source != Some(iir::THRE)).then(|| self.identification(source))
    }

    /// Reads a register, at a time.
    pub(super) fn read(&mut self, register: u8, now: u64) -> u8 {
        if let Some(value) = self.peek(register) {
            return value;
        }
        match register & 7 {
            offset::IIR_FCR => {
                self.thre_pending = false;
                self.identification(Some(iir::THRE))
            }
            offset::LSR => {
                let value = self.line_status();
                self.errors = 0;
                value
            }
            offset::MSR => {
                let value = self.modem_inputs() | self.deltas;
                self.deltas = 0;
                value
            }
            _ => {
                let value = self.read_rbr(now);
                self.settle(now);
                value
            }
        }
    }

    /// Writes the register at an offset (0–7; higher bits are not decoded), at a time. Returns whether more than the
    /// register's own bits can have changed.
    #[inline]
    pub(super) fn write(&mut self, register: u8, value: u8, now: u64) -> bool {
        match register & 7 {
            offset::SCR.. => self.scr = value,
            // NS says of LSR that it is meant for reading only; QEMU ignores writes to either.
            offset::LSR | offset::MSR => {}
            offset::LCR | offset::MCR if self.is_same_line(register, value) => {}
            register => return self.write_and_settle(register, value, now),
        }
        false
    }

    #[inline(never)]
    fn write_and_settle(&mut self, register: u8, value: u8, now: u64) -> bool {
        let dlab = self.lcr & lcr::DLAB != 0;
        let [low, high] = self.divisor.to_le_bytes();
        match register {
            offset::DATA if dlab => {
                self.divisor = u16::from_le_bytes([value, high]);
                return false;
            }
            offset::IER if dlab => {
                self.divisor = u16::from_le_bytes([low, value]);
                return false;
            }
            // Nothing moves because of an enabled interrupt.
            offset::IER => {
                self.write_ier(value);
                return true;
            }
            offset::DATA => self.write_thr(value),
            offset::IIR_FCR => self.write_fcr(value),
            offset::LCR => self.change_line(value, self.mcr, now),
            _ => self.change_line(self.lcr, value, now),
        }
        self.settle(now);
        true
    }

    /// Whether writing this to LCR or MCR changes nothing.
    fn is_same_line(&self, register: u8, value: u8) -> bool {
        match register & 7 {
            offset::LCR => value == self.lcr,
            _ => value & self.chip.mcr_mask() == self.mcr,
        }
    }

    /// Whether writing this to the register may start a delay.
    pub(super) fn writing_needs_time(&self, register: u8, value: u8) -> bool {
        match register & 7 {
            offset::DATA | offset::IIR_FCR => true,
            offset::LCR | offset::MCR => !self.is_same_line(register, value),
            _ => false,
        }
    }

    /// Whether the port asks for an interrupt. OUT2 has no say: it gates the line on ISA cards only,
    /// neither PCI cards nor QEMU's wire it.
    pub(super) fn interrupting(&self) -> bool {
        self.interrupt().is_some()
    }

    /// Time has come to `now`: lets happen what is due, in the order in which it was.
    pub(super) fn expire(&mut self, now: u64) {
        // At most a time-out, the break, and the time-out of what came with the break.
        while let Some(due) = self.next_due().filter(|&due| due <= now) {
            if self.break_due == Some(due) {
                self.break_due = None;
                // The line itself carries the break, past what the transmitter may hold back. A far
                // end that has no room takes no notice of it.
                let _ = self.far.receive(Symbol::Break);
                self.settle(due);
            } else {
                self.deadline = None;
                self.timeout_pending = true;
            }
        }
    }

    /// When [`Uart::expire`] will next have something to do.
    pub(super) fn next_due(&self) -> Option<u64> {
        match (self.deadline, self.break_due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The pending interrupt of the highest priority. NS and TI "interrupt control functions".
    ///
    /// The time-out shares its level with received data and is named first, as QEMU does it.
    fn interrupt(&self) -> Option<u8> {
        let enabled = |bit| self.ier & bit != 0;
        if enabled(ier::RLS) && self.errors != 0 {
            Some(iir::RLS)
        } else if enabled(ier::RDA) && self.timeout_pending {
            Some(iir::CTI)
        } else if enabled(ier::RDA) && self.rx.len() >= self.trigger() {
            Some(iir::RDA)
        } else if enabled(ier::THRE) && self.thre_pending {
            Some(iir::THRE)
        } else if enabled(ier::MS) && self.deltas != 0 {
            Some(iir::MS)
        } else {
            None
        }
    }

    fn fifos_enabled(&self) -> bool {
        self.fcr & fcr::ENABLE != 0
    }

    fn looped(&self) -> bool {
        self.mcr & mcr::LOOP != 0
    }

    /// How many characters the receiver, and the transmitter, can hold. Without FIFOs each has one
    /// holding register.
    fn capacity(&self) -> usize {
        match (self.fifos_enabled(), self.fcr & fcr::FIFO64 != 0) {
            (false, _) => 1,
            (true, false) => 16,
            (true, true) => 64,
        }
    }

    /// How many received characters raise the interrupt.
    fn trigger(&self) -> usize {
        let levels = match (self.fifos_enabled(), self.fcr & fcr::FIFO64 != 0) {
            (false, _) => return 1,
            (true, false) => [1, 4, 8, 14],
            (true, true) => [1, 16, 32, 56],
        };
        levels[usize::from((self.fcr & fcr::TRIGGER) >> 6)]
    }

    /// The data bits of a character.
    fn word_mask(&self) -> u8 {
        0xff >> (3 - (self.lcr & lcr::WORD))
    }

    fn read_rbr(&mut self, now: u64) -> u8 {
        self.timeout_pending = false;
        match self.rx.pop() {
            Some(symbol) => {
                self.deadline = Some(self.timeout_from(now));
                self.reveal();
                match symbol {
                    Symbol::Byte(byte) => byte,
                    Symbol::Break => 0,
                }
            }
            None => 0,
        }
    }

    /// What the interrupt identification register says when this interrupt is the pending one.
    fn identification(&self, source: Option<u8>) -> u8 {
        let mut value = source.unwrap_or(iir::NONE);
        if self.fifos_enabled() {
            value |= iir::FIFOS;
            if self.fcr & fcr::FIFO64 != 0 {
                value |= iir::FIFO64;
            }
        }
        value
    }

    /// The line status register.
    fn line_status(&self) -> u8 {
        let mut value = self.errors;
        if !self.rx.is_empty() {
            value |= lsr::DR;
        }
        // Transmission takes no time, so the shift register is empty whenever the FIFO is.
        if self.tx.is_empty() {
            value |= lsr::THRE | lsr::TEMT;
        }
        let in_fifo = self.errors & lsr::CHARACTER_ERRORS != 0 || self.rx.has_break();
        if self.fifos_enabled() && in_fifo {
            value |= lsr::FIFO_ERROR;
        }
        value
    }

    fn write_thr(&mut self, value: u8) {
        self.thre_pending = false;
        if !self.fifos_enabled() {
            // The holding register is overwritten if its character could not leave yet.
            self.tx.clear();
        }
        // A character for a full FIFO is lost: its writer did not wait for THRE.
        if self.tx.len() < self.capacity() {
            let _ = self.tx.push(Symbol::Byte(value));
        }
    }

    fn write_ier(&mut self, value: u8) {
        let rising = value & !self.ier;
        self.ier = value & self.chip.ier_mask();
        // Enabling the interrupt of an empty transmitter raises it: serial8250_THRE_test() in
        // linux 8250_port.c calls a chip broken that does not.
        if rising & ier::THRE != 0 && self.tx.is_empty() {
            self.thre_pending = true;
        }
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (value ^ self.fcr) & fcr::ENABLE != 0;
        // NS: bit 0 must be set when other bits are written, or they are not programmed.
        let programmed = if value & fcr::ENABLE != 0 { value } else { 0 };
        // TI: bit 5 is protected by DLAB, and only by that: linux clears it with an all-zero write
        // under DLAB when it looks for an EFR, and expects it kept by writes without DLAB.
        let source = match self.lcr & lcr::DLAB != 0 {
            true => value,
            false => self.fcr,
        };
        let fifo64 = source & self.chip.fifo64_mask();
        self.fcr = (programmed & (fcr::ENABLE | fcr::DMA | fcr::TRIGGER)) | fifo64;

        if toggled || programmed & fcr::RESET_RX != 0 {
            self.rx.clear();
            self.timeout_pending = false;
        }
        if toggled || programmed & fcr::RESET_TX != 0 {
            // NS "FIFO interrupt mode operation": after FCR0 changed, the transmitter's interrupt is
            // immediate. And a FIFO that a reset emptied is as empty as one that was sent.
            self.thre_pending |= toggled || !self.tx.is_empty();
            self.tx.clear();
        }
    }

    /// Whether the output is held in the spacing state. Loop mode disconnects it.
    fn spacing(&self) -> bool {
        self.lcr & lcr::BREAK != 0 && !self.looped()
    }

    /// Writes LCR and MCR, which both have a say about the line's output.
    ///
    /// A spacing line is a break once it lasted for a character (NS, LSR bit 4). That matters: linux
    /// sets the bit for some microseconds when it looks for a National SuperIO chip.
    fn change_line(&mut self, line_control: u8, modem_control: u8, now: u64) {
        let was_spacing = self.spacing();
        self.lcr = line_control;
        self.mcr = modem_control & self.chip.mcr_mask();
        if !self.spacing() {
            self.break_due = None;
        } else if !was_spacing {
            let character = timeout::break_ns(self.divisor, self.lcr);
            self.break_due = Some(now.saturating_add(character));
        }
    }

    /// Lets everything happen that the last access made possible.
    ///
    /// Every turn moves at least one symbol one station further, of at most 64 + 256 that there are.
    fn settle(&mut self, now: u64) {
        loop {
            self.update_rts();
            let delivered = self.deliver(now);
            let transmitted = self.transmit(now);
            if !delivered && !transmitted {
                break;
            }
        }
        self.update_lines();
        if !self.timeout_wanted() {
            self.deadline = None;
        }
    }

    /// The far end sends one symbol, if the receiver has room and is connected to it.
    fn deliver(&mut self, now: u64) -> bool {
        if self.looped() || self.rx.len() >= self.capacity() {
            return false;
        }
        match self.far.send() {
            Some(symbol) => {
                self.receive(symbol, now);
                true
            }
            None => false,
        }
    }

    /// The transmitter sends one symbol, if it has one and is not held back.
    fn transmit(&mut self, now: u64) -> bool {
        if !self.may_transmit() {
            return false;
        }
        let Some(symbol) = self.tx.pop() else {
            return false;
        };
        let symbol = symbol.masked(self.word_mask());
        if self.looped() {
            self.receive(symbol, now);
        } else {
            // It has room, or the transmitter could not have sent.
            let _ = self.far.receive(symbol);
        }
        self.thre_pending |= self.tx.is_empty();
        true
    }

    /// Whether the next character would leave now. In loop mode nobody can hold it.
    fn may_transmit(&self) -> bool {
        let clear_to_send = self.mcr & mcr::AFE == 0 || self.rts();
        clear_to_send && (self.looped() || !self.far.is_full())
    }

    /// A symbol arrives in the receiver's shift register.
    fn receive(&mut self, symbol: Symbol, now: u64) {
        let symbol = symbol.masked(self.word_mask());
        if self.rx.len() >= self.capacity() {
            self.errors |= lsr::OE;
            if !self.fifos_enabled() {
                // NS, LSR bit 1: the character in RBR is destroyed; with FIFOs, the new one is.
                self.rx.clear();
            }
        }
        if self.rx.len() < self.capacity() {
            let _ = self.rx.push(symbol);
            self.reveal();
        }
        self.deadline = Some(self.timeout_from(now));
        self.update_rts();
    }

    /// A break's indication is shown when its zero byte comes to the top of the FIFO.
    fn reveal(&mut self) {
        if self.rx.reveal_break() {
            // The stop bit was missing as well.
            self.errors |= lsr::BI | lsr::FE;
        }
    }

    /// The RTS output. Loop mode leads it to CTS inside the chip, the far end's plug outside.
    fn rts(&self) -> bool {
        self.mcr & mcr::RTS != 0 && !self.rts_held
    }

    /// Automatic RTS: inactive from the trigger level until the FIFO is empty. TI "auto-RTS".
    fn update_rts(&mut self) {
        let automatic =
            self.mcr & (mcr::AFE | mcr::RTS) == mcr::AFE | mcr::RTS && self.fifos_enabled();
        if !automatic || self.rx.is_empty() {
            self.rts_held = false;
        } else if self.rx.len() >= self.trigger() {
            self.rts_held = true;
        }
    }

    /// The upper half of MSR.
    fn modem_inputs(&self) -> u8 {
        let mut outputs = self.mcr & !mcr::RTS;
        if self.rts() {
            outputs |= mcr::RTS;
        }
        if !self.looped() {
            return FarEnd::modem_inputs(outputs);
        }
        // NS, MCR bit 4: the four outputs are connected to the four inputs inside the chip.
        let mut inputs = 0;
        for (output, input) in [
            (mcr::RTS, msr::CTS),
            (mcr::DTR, msr::DSR),
            (mcr::OUT1, msr::RI),
            (mcr::OUT2, msr::DCD),
        ] {
            if outputs & output != 0 {
                inputs |= input;
            }
        }
        inputs
    }

    /// Notes which modem inputs changed. RI counts only when it goes inactive.
    fn update_lines(&mut self) {
        let lines = self.modem_inputs();
        let changed = (lines ^ self.lines) >> 4;
        let rung = self.lines & !lines & msr::RI != 0;
        self.deltas |= changed & !msr::TERI;
        if rung {
            self.deltas |= msr::TERI;
        }
        if self.mcr & mcr::AFE != 0 {
            // TI: with automatic flow control, CTS is the transmitter's business and not the CPU's.
            self.deltas &= !msr::DELTA_CTS;
        }
        self.lines = lines;
    }

    /// Whether characters lie in the FIFO that nobody has been told of.
    fn timeout_wanted(&self) -> bool {
        self.fifos_enabled() && !self.rx.is_empty() && !self.timeout_pending
    }

    fn timeout_from(&self, now: u64) -> u64 {
        now.saturating_add(timeout::delay_ns(self.divisor, self.lcr))
    }

    /// Which rule a state breaks that holds after every access, if any. For loaded states.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let capacity = match self.fifos_enabled() {
            false => 1,
            // A 16750 may have been switched to 16 bytes while it held more.
            true => usize::from(self.chip.depth.get()),
        };
        let automatic =
            self.mcr & (mcr::AFE | mcr::RTS) == mcr::AFE | mcr::RTS && self.fifos_enabled();
        let receiver_waits = !self.looped() && self.rx.len() < self.capacity();
        let rules = [
            (
                self.rx.len() <= capacity,
                "more received bytes than the FIFO holds",
            ),
            (
                self.tx.len() <= capacity,
                "more bytes to transmit than the FIFO holds",
            ),
            (
                !self.thre_pending || self.tx.is_empty(),
                "transmitter reported empty while it holds bytes",
            ),
            (
                !self.timeout_pending || (self.fifos_enabled() && !self.rx.is_empty()),
                "time-out of an empty receiver",
            ),
            (
                self.deadline.is_some() == self.timeout_wanted(),
                "time-out delay does not fit the receiver",
            ),
            (
                self.break_due.is_none() || self.spacing(),
                "break to come on a line that is not spacing",
            ),
            (
                !self.rts_held || (automatic && !self.rx.is_empty()),
                "RTS held without automatic flow control",
            ),
            (
                self.rts_held || !automatic || self.rx.len() < self.trigger(),
                "RTS not held at the trigger level",
            ),
            (
                self.mcr & mcr::AFE == 0 || self.deltas & msr::DELTA_CTS == 0,
                "CTS change noted under automatic flow control",
            ),
            (
                self.rx.front() != Some(Symbol::Break),
                "break at the top of the FIFO not shown",
            ),
            (
                self.tx.is_empty() || !self.may_transmit(),
                "bytes wait in the transmitter though they could leave",
            ),
            (
                self.far.is_empty() || !receiver_waits,
                "bytes wait at the far end though the receiver has room",
            ),
        ];
        rules
            .iter()
            .find(|(holds, _)| !holds)
            .map(|&(_, rule)| rule)
    }

    /// After a load: takes the modem inputs as they are, without noting a change.
    pub(super) fn adopt_lines(&mut self) {
        self.lines = self.modem_inputs();
    }
}
