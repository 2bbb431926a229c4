// SPDX-License-Identifier: GPL-2.0 OR MIT

//! One 16550A as a driver sees it. Source: National Semiconductor PC16550D data sheet, section 8.

use anyhow::{ensure, Context};

use super::card::BAR0;
use super::check::{equal, Named};
use crate::vfio::interrupt::{INTX, UNMASK};
use crate::vfio::{Device, Event, IrqSet};

/// Receiver buffer (read), transmitter holding register (write), low half of the divisor.
pub const DATA: u64 = 0;
/// Interrupt enable, high half of the divisor.
pub const IER: u64 = 1;
/// Interrupt identification (read).
pub const IIR: u64 = 2;
/// FIFO control (write).
pub const FCR: u64 = 2;
/// Line control.
pub const LCR: u64 = 3;
/// Modem control.
pub const MCR: u64 = 4;
/// Line status.
pub const LSR: u64 = 5;
/// Modem status.
pub const MSR: u64 = 6;
/// Scratch.
pub const SCR: u64 = 7;

/// IER: received data.
pub const IER_DATA: u8 = 1 << 0;
/// IER: transmitter holding register empty.
pub const IER_EMPTY: u8 = 1 << 1;
/// IER: line status.
pub const IER_LINE: u8 = 1 << 2;
/// IER: modem status.
pub const IER_MODEM: u8 = 1 << 3;

/// IIR: no interrupt pending.
pub const IIR_NONE: u8 = 0x01;
/// IIR: modem status.
pub const IIR_MODEM: u8 = 0x00;
/// IIR: transmitter holding register empty.
pub const IIR_EMPTY: u8 = 0x02;
/// IIR: received data available.
pub const IIR_DATA: u8 = 0x04;
/// IIR: line status.
pub const IIR_LINE: u8 = 0x06;
/// IIR: characters wait in the FIFO and nothing happened for four character times.
pub const IIR_TIMEOUT: u8 = 0x0c;
/// IIR: the bits that identify the interrupt.
pub const IIR_ID: u8 = 0x0f;
/// IIR: the FIFOs are enabled.
pub const IIR_FIFO: u8 = 0xc0;

/// FCR: enable both FIFOs.
pub const FCR_ENABLE: u8 = 1 << 0;
/// FCR: empty the receive FIFO.
pub const FCR_CLEAR_RECEIVE: u8 = 1 << 1;
/// FCR: empty the transmit FIFO.
pub const FCR_CLEAR_TRANSMIT: u8 = 1 << 2;
/// FCR: interrupt from 4 characters on.
pub const FCR_TRIGGER_4: u8 = 1 << 6;
/// FCR: interrupt from 8 characters on.
pub const FCR_TRIGGER_8: u8 = 2 << 6;
/// FCR: interrupt from 14 characters on.
pub const FCR_TRIGGER_14: u8 = 3 << 6;

/// LCR: 8 data bits, no parity, 1 stop bit.
pub const LCR_8N1: u8 = 0x03;
/// LCR: send a break.
pub const LCR_BREAK: u8 = 1 << 6;
/// LCR: the first two registers are the divisor.
pub const LCR_DIVISOR: u8 = 1 << 7;

/// MCR: data terminal ready.
pub const MCR_DTR: u8 = 1 << 0;
/// MCR: request to send.
pub const MCR_RTS: u8 = 1 << 1;
/// MCR: first auxiliary output.
pub const MCR_OUT1: u8 = 1 << 2;
/// MCR: second auxiliary output, which enables the interrupt line of an adapter.
pub const MCR_OUT2: u8 = 1 << 3;
/// MCR: local loop-back.
pub const MCR_LOOP: u8 = 1 << 4;

/// LSR: a character can be read.
pub const LSR_DATA: u8 = 1 << 0;
/// LSR: a character was lost.
pub const LSR_OVERRUN: u8 = 1 << 1;
/// LSR: the character is a break.
pub const LSR_BREAK: u8 = 1 << 4;
/// LSR: transmitter holding register (or FIFO) empty.
pub const LSR_EMPTY: u8 = 1 << 5;
/// LSR: transmitter idle.
pub const LSR_IDLE: u8 = 1 << 6;

/// MSR: clear to send, data set ready, ring, carrier: the lines; the low half tells which changed.
pub const MSR_LINES: u8 = 0xf0;
/// MSR: clear to send.
pub const MSR_CTS: u8 = 1 << 4;
/// MSR: data set ready.
pub const MSR_DSR: u8 = 1 << 5;
/// MSR: ring indicator.
pub const MSR_RI: u8 = 1 << 6;
/// MSR: data carrier detect.
pub const MSR_DCD: u8 = 1 << 7;

/// Characters that a FIFO of a 16550A holds.
pub const FIFO: usize = 16;

/// One port of an open card.
#[derive(Clone, Copy)]
pub struct Port<'a> {
    device: &'a Device,
    number: u32,
}

impl<'a> Port<'a> {
    /// Port `number` of `device`.
    pub fn new(device: &'a Device, number: u32) -> Self {
        Self { device, number }
    }

    /// Where register 0 is in the region, in bytes.
    pub fn base(&self) -> u64 {
        u64::from(self.number) * 8
    }

    /// Reads a register.
    pub fn get(&self, register: u64) -> anyhow::Result<u8> {
        let mut value = [0];
        let place = self.base() + register;
        let length = self
            .device
            .read(BAR0, place, &mut value)
            .named(format!("read of register {place:#x}"))?;
        equal(format!("bytes read of register {place:#x}"), length, 1)?;
        Ok(value[0])
    }

    /// Writes a register.
    pub fn set(&self, register: u64, value: u8) -> anyhow::Result<()> {
        let place = self.base() + register;
        let length = self
            .device
            .write(BAR0, place, &[value])
            .named(format!("write of register {place:#x}"))?;
        equal(format!("bytes written to register {place:#x}"), length, 1)
    }

    /// The interrupt that the port identifies.
    pub fn interrupt(&self) -> anyhow::Result<u8> {
        Ok(self.get(IIR)? & IIR_ID)
    }

    /// The divisor of the baud rate.
    pub fn divisor(&self) -> anyhow::Result<u16> {
        let lcr = self.get(LCR)?;
        self.set(LCR, lcr | LCR_DIVISOR)?;
        let divisor = u16::from_le_bytes([self.get(DATA)?, self.get(IER)?]);
        self.set(LCR, lcr)?;
        Ok(divisor)
    }

    /// Sets the divisor of the baud rate.
    pub fn set_divisor(&self, divisor: u16) -> anyhow::Result<()> {
        let lcr = self.get(LCR)?;
        let [low, high] = divisor.to_le_bytes();
        self.set(LCR, lcr | LCR_DIVISOR)?;
        self.set(DATA, low)?;
        self.set(IER, high)?;
        self.set(LCR, lcr)
    }

    /// Set up as a driver does: 115200 baud 8N1, the FIFOs empty and enabled with `trigger`, no interrupt enabled, the
    /// modem lines raised.
    pub fn set_up(&self, trigger: u8) -> anyhow::Result<()> {
        self.set(LCR, LCR_8N1)?;
        self.set_divisor(1)?;
        self.set(IER, 0)?;
        self.set(
            FCR,
            FCR_ENABLE | FCR_CLEAR_RECEIVE | FCR_CLEAR_TRANSMIT | trigger,
        )?;
        self.set(MCR, MCR_DTR | MCR_RTS | MCR_OUT2)?;
        self.get(MSR)?;
        Ok(())
    }

    /// The registers that reading does not change: IER, LCR, MCR, SCR.
    pub fn plain_registers(&self) -> anyhow::Result<[u8; 4]> {
        Ok([
            self.get(IER)?,
            self.get(LCR)?,
            self.get(MCR)?,
            self.get(SCR)?,
        ])
    }
}

/// A port whose interrupts arrive at an eventfd.
pub struct Line<'a> {
    /// The port.
    pub port: Port<'a>,
    /// INTx of its card.
    pub event: &'a Event,
}

impl Line<'_> {
    /// Waits for the interrupt, then unmasks it.
    fn wait(&self) -> anyhow::Result<()> {
        self.event.wait()?;
        self.port
            .device
            .set_irqs(&IrqSet::none(INTX, UNMASK))
            .named("unmask")
    }

    /// Waits until LSR has one of `bits`, with the interrupts `enable`.
    fn wait_for(&self, bits: u8, enable: u8) -> anyhow::Result<()> {
        self.port.set(IER, enable)?;
        while self.port.get(LSR)? & bits == 0 {
            self.wait().with_context(|| {
                format!("port {}: waiting for LSR {bits:#04x}", self.port.number)
            })?;
        }
        Ok(())
    }

    /// Sends `bytes` as fast as the port takes them.
    pub fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        for byte in bytes {
            self.wait_for(LSR_EMPTY, IER_EMPTY)?;
            self.port.set(DATA, *byte)?;
        }
        self.port.set(IER, 0)
    }

    /// Receives `count` bytes.
    pub fn receive(&self, count: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            self.wait_for(LSR_DATA, IER_DATA)
                .with_context(|| format!("{} of {count} bytes received", bytes.len()))?;
            bytes.push(self.port.get(DATA)?);
        }
        self.port.set(IER, 0)?;
        Ok(bytes)
    }

    /// Sends `bytes`, a FIFO at a time, and checks that the far end sends them back.
    pub fn echo(&self, bytes: &[u8]) -> anyhow::Result<()> {
        for piece in bytes.chunks(FIFO) {
            self.send(piece)?;
            let back = self.receive(piece.len())?;
            ensure!(back == piece, "sent {piece:02x?}, received {back:02x?}");
        }
        Ok(())
    }
}
