// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Putting content into a serial card before it is saved, and finding it again.
//!
//! A card in power-on state saves and loads whatever happens to its registers on the way. Source for the registers: National
//! Semiconductor PC16550D data sheet, section 8.

use vfio_uapi::abi;

use crate::error::{Error, Result};
use crate::inspect::SERIAL_MODEL;
use crate::state::Card;

/// Bytes of registers that a port has.
const PORT_BYTES: u64 = 8;
/// Offset of the command register in the configuration space, and its bit that lets the card answer I/O accesses.
const COMMAND: (u64, u16) = (0x04, 1 << 0);

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const INTERRUPT_ID: u64 = 2;
const FIFO_CONTROL: u64 = 2;
const LINE_CONTROL: u64 = 3;
const MODEM_CONTROL: u64 = 4;
const LINE_STATUS: u64 = 5;
const SCRATCH: u64 = 7;

/// LCR: 8 data bits, no parity, 1 stop bit.
const EIGHT_BITS: u8 = 0x03;
/// LCR: the first two registers are the divisor.
const DIVISOR: u8 = 0x80;
/// MCR: DTR and RTS.
const READY: u8 = 0x03;
/// FCR: FIFOs on and empty.
const FIFOS: u8 = 0x07;
/// IER: characters that were received.
const RECEIVED: u8 = 0x01;
/// IIR: the bits that name the cause, and the cause that characters wait in the receiver and none came for four times as long
/// as one takes.
const CAUSE: u8 = 0x0f;
const TIME_OUT: u8 = 0x0c;
/// Divisor of the highest rate, 115200 baud: a character takes 87 microseconds.
const FASTEST: u16 = 1;
/// Reads of a register that surely take longer than four characters.
const TIME_OUT_READS: u32 = 100_000;
/// LSR: a character can be read.
const HAS_DATA: u8 = 0x01;
/// LSR: a character can be sent.
const CAN_SEND: u8 = 0x20;
/// Characters that fit a FIFO of any depth: more is not sent without looking whether there is room.
const FIFO: usize = 16;

/// What was put into one port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    divisor: u16,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    characters: Vec<u8>,
}

/// What was put into a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents(Vec<Content>);

impl Contents {
    /// How many ports, and how many characters in all of them.
    pub fn count(&self) -> (usize, usize) {
        (
            self.0.len(),
            self.0.iter().map(|content| content.characters.len()).sum(),
        )
    }
}

/// Puts content into every port of the card.
pub fn fill(card: &dyn Card) -> Result<Contents> {
    let model = card.model()?;
    if model != SERIAL_MODEL {
        return Err(Error::failed(format!(
            "--exercise knows how to use a {SERIAL_MODEL}, and this is a {model}: leave it out"
        )));
    }
    let ports = Ports::of(card)?;
    let content = |number| {
        let port = Port { card, number };
        port.fill()
    };
    (0..ports.0)
        .map(content)
        .collect::<Result<_>>()
        .map(Contents)
}

/// Fails unless the card has this content. Takes the characters out of it.
pub fn verify(card: &dyn Card, contents: &Contents) -> Result<()> {
    let Ports(ports) = Ports::of(card)?;
    for (number, expected) in (0..ports).zip(&contents.0) {
        let port = Port { card, number };
        let found = port.take(expected.characters.len())?;
        if found != *expected {
            return Err(Error::refused(format!(
                "{}: port {number} has not what was put into it: {found:x?} instead of {expected:x?}",
                card.name()
            )));
        }
    }
    Ok(())
}

/// How many ports a card has. Its registers answer from here on.
struct Ports(u64);

impl Ports {
    fn of(card: &dyn Card) -> Result<Self> {
        let (offset, io) = COMMAND;
        let config = abi::VFIO_PCI_CONFIG_REGION_INDEX;
        let mut command = [0; 2];
        card.read(config, offset, &mut command)?;
        let command = u16::from_le_bytes(command) | io;
        card.write(config, offset, &command.to_le_bytes())?;
        let bytes = card.region_size(abi::VFIO_PCI_BAR0_REGION_INDEX)?;
        Ok(Self(bytes / PORT_BYTES))
    }
}

struct Port<'d> {
    card: &'d dyn Card,
    number: u64,
}

impl Port<'_> {
    fn get(&self, register: u64) -> Result<u8> {
        let mut value = [0];
        let place = self.number * PORT_BYTES + register;
        let region = abi::VFIO_PCI_BAR0_REGION_INDEX;
        self.card.read(region, place, &mut value)?;
        Ok(value[0])
    }

    fn set(&self, register: u64, value: u8) -> Result<()> {
        let place = self.number * PORT_BYTES + register;
        let region = abi::VFIO_PCI_BAR0_REGION_INDEX;
        self.card.write(region, place, &[value])
    }

    fn set_divisor(&self, divisor: u16) -> Result<()> {
        let [low, high] = divisor.to_le_bytes();
        self.set(LINE_CONTROL, EIGHT_BITS | DIVISOR)?;
        self.set(DATA, low)?;
        self.set(INTERRUPT_ENABLE, high)?;
        self.set(LINE_CONTROL, EIGHT_BITS)
    }

    /// Waits until the receiver says that its characters have waited for long: a third of a millisecond. From then on the
    /// port does not change by itself, and what is saved does not depend on when.
    fn await_time_out(&self) -> Result<()> {
        self.set(INTERRUPT_ENABLE, RECEIVED)?;
        for _ in 0..TIME_OUT_READS {
            if self.get(INTERRUPT_ID)? & CAUSE == TIME_OUT {
                return self.set(INTERRUPT_ENABLE, 0);
            }
        }
        let (name, number) = (self.card.name(), self.number);
        Err(Error::failed(format!(
            "{name}: port {number} does not say that its characters wait"
        )))
    }

    /// Values that differ from port to port and from those of a card that was switched on.
    fn fill(&self) -> Result<Content> {
        let number = self.number as u8;
        self.set_divisor(FASTEST)?;
        self.set(INTERRUPT_ENABLE, 0)?;
        self.set(FIFO_CONTROL, FIFOS)?;
        self.set(MODEM_CONTROL, READY)?;
        let scratch = 0xa5 ^ number;
        self.set(SCRATCH, scratch)?;
        let mut characters = Vec::new();
        // More than a FIFO holds, so that some wait at the far end.
        for character in (0..2 * FIFO as u8).map(|i| b'0' + i + number) {
            if self.get(LINE_STATUS)? & CAN_SEND == 0 {
                break;
            }
            self.set(DATA, character)?;
            characters.push(character);
        }
        self.await_time_out()?;
        let divisor = 0x0102 + u16::from(number);
        self.set_divisor(divisor)?;
        Ok(Content {
            divisor,
            line_control: EIGHT_BITS,
            modem_control: READY,
            scratch,
            characters,
        })
    }

    /// What there is now; of characters at most one more than `count`.
    fn take(&self, count: usize) -> Result<Content> {
        let line_control = self.get(LINE_CONTROL)?;
        self.set(LINE_CONTROL, line_control | DIVISOR)?;
        let divisor = u16::from_le_bytes([self.get(DATA)?, self.get(INTERRUPT_ENABLE)?]);
        self.set(LINE_CONTROL, line_control)?;
        let mut characters = Vec::new();
        while characters.len() <= count && self.get(LINE_STATUS)? & HAS_DATA != 0 {
            characters.push(self.get(DATA)?);
        }
        Ok(Content {
            divisor,
            line_control,
            modem_control: self.get(MODEM_CONTROL)?,
            scratch: self.get(SCRATCH)?,
            characters,
        })
    }
}
