// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Names of a UART's registers and their bits.
//!
//! Sources: National PC16550D data sheet, section 8; TI TL16C750 data sheet (SLLS191), "accessible
//! registers". They agree with the names in linux/serial_reg.h.

/// Offsets in a port's eight bytes of I/O space.
pub(super) mod offset {
    /// Receiver buffer (read), transmitter holding register (write); divisor low byte with DLAB.
    pub(crate) const DATA: u8 = 0;
    /// Interrupt enable; divisor high byte with DLAB.
    pub(crate) const IER: u8 = 1;
    /// Interrupt identification (read), FIFO control (write).
    pub(crate) const IIR_FCR: u8 = 2;
    /// Line control.
    pub(crate) const LCR: u8 = 3;
    /// Modem control.
    pub(crate) const MCR: u8 = 4;
    /// Line status.
    pub(crate) const LSR: u8 = 5;
    /// Modem status.
    pub(crate) const MSR: u8 = 6;
    /// Scratch.
    pub(crate) const SCR: u8 = 7;
}

/// Interrupt enable register.
pub(super) mod ier {
    /// Received data available, and character time-out.
    pub(crate) const RDA: u8 = 0x01;
    /// Transmitter holding register empty.
    pub(crate) const THRE: u8 = 0x02;
    /// Receiver line status.
    pub(crate) const RLS: u8 = 0x04;
    /// Modem status.
    pub(crate) const MS: u8 = 0x08;
    /// What a 16550A stores.
    pub(crate) const MASK_16550A: u8 = RDA | THRE | RLS | MS;
    /// A 16750 stores sleep mode (bit 4) and low power (bit 5) too.
    pub(crate) const MASK_16750: u8 = MASK_16550A | 0x30;
}

/// Interrupt identification register.
pub(super) mod iir {
    /// No interrupt is pending.
    pub(crate) const NONE: u8 = 0x01;
    /// Receiver line status.
    pub(crate) const RLS: u8 = 0x06;
    /// Received data available.
    pub(crate) const RDA: u8 = 0x04;
    /// Character time-out.
    pub(crate) const CTI: u8 = 0x0c;
    /// Transmitter holding register empty.
    pub(crate) const THRE: u8 = 0x02;
    /// Modem status.
    pub(crate) const MS: u8 = 0x00;
    /// Both bits are set while the FIFOs are enabled.
    pub(crate) const FIFOS: u8 = 0xc0;
    /// 64-byte FIFOs are enabled (16750).
    pub(crate) const FIFO64: u8 = 0x20;
}

/// FIFO control register.
pub(super) mod fcr {
    /// FIFO enable.
    pub(crate) const ENABLE: u8 = 0x01;
    /// Receiver FIFO reset; clears itself.
    pub(crate) const RESET_RX: u8 = 0x02;
    /// Transmitter FIFO reset; clears itself.
    pub(crate) const RESET_TX: u8 = 0x04;
    /// DMA mode select; drives pins that this card does not have.
    pub(crate) const DMA: u8 = 0x08;
    /// 64-byte FIFOs (16750).
    pub(crate) const FIFO64: u8 = 0x20;
    /// Receiver trigger level.
    pub(crate) const TRIGGER: u8 = 0xc0;
}

/// Line control register.
pub(super) mod lcr {
    /// Word length select.
    pub(crate) const WORD: u8 = 0x03;
    /// More than one stop bit.
    pub(crate) const STOP: u8 = 0x04;
    /// Parity enable.
    pub(crate) const PARITY: u8 = 0x08;
    /// Set break.
    pub(crate) const BREAK: u8 = 0x40;
    /// Divisor latch access.
    pub(crate) const DLAB: u8 = 0x80;
}

/// Modem control register.
pub(super) mod mcr {
    /// Data terminal ready.
    pub(crate) const DTR: u8 = 0x01;
    /// Request to send.
    pub(crate) const RTS: u8 = 0x02;
    /// Output 1; not connected.
    pub(crate) const OUT1: u8 = 0x04;
    /// Output 2; not connected (it does not gate the interrupt as on an ISA card).
    pub(crate) const OUT2: u8 = 0x08;
    /// Local loop-back.
    pub(crate) const LOOP: u8 = 0x10;
    /// Automatic flow control (16750).
    pub(crate) const AFE: u8 = 0x20;
    /// What a 16550A stores.
    pub(crate) const MASK_16550A: u8 = DTR | RTS | OUT1 | OUT2 | LOOP;
}

/// Line status register.
pub(super) mod lsr {
    /// Data ready.
    pub(crate) const DR: u8 = 0x01;
    /// Overrun error.
    pub(crate) const OE: u8 = 0x02;
    /// Parity error.
    pub(crate) const PE: u8 = 0x04;
    /// Framing error.
    pub(crate) const FE: u8 = 0x08;
    /// Break interrupt.
    pub(crate) const BI: u8 = 0x10;
    /// Transmitter holding register (or FIFO) empty.
    pub(crate) const THRE: u8 = 0x20;
    /// Transmitter empty.
    pub(crate) const TEMT: u8 = 0x40;
    /// An error is in the receiver FIFO.
    pub(crate) const FIFO_ERROR: u8 = 0x80;
    /// The errors that come with a character.
    pub(crate) const CHARACTER_ERRORS: u8 = PE | FE | BI;
    /// The bits that stay set until the register is read.
    pub(crate) const ERRORS: u8 = OE | CHARACTER_ERRORS;
}

/// Modem status register.
pub(super) mod msr {
    /// CTS changed.
    pub(crate) const DELTA_CTS: u8 = 0x01;
    /// RI went from active to inactive.
    pub(crate) const TERI: u8 = 0x04;
    /// Clear to send.
    pub(crate) const CTS: u8 = 0x10;
    /// Data set ready.
    pub(crate) const DSR: u8 = 0x20;
    /// Ring indicator.
    pub(crate) const RI: u8 = 0x40;
    /// Data carrier detect.
    pub(crate) const DCD: u8 = 0x80;
    /// The bits that stay set until the register is read.
    pub(crate) const DELTAS: u8 = 0x0f;
}
