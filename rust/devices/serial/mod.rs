// SPDX-License-Identifier: GPL-2.0 OR MIT

//! QEMU's pci-serial card: 1, 2 or 4 ports, a 16550A (or 16750) each, a loop-back plug in every port.
//!
//! # What is not modelled
//!
//! * Time on the line: a character is transmitted and received the moment it can be. The programmed
//!   rate and frame shape only the delay of the character time-out and the shortest break.
//! * Parity and framing errors: the plug is always set as the port is. (A break counts as one.)
//! * Pins that lead nowhere on this card: OUT1 and OUT2, RXRDY and TXRDY (the DMA mode bit is stored).
//!   OUT2 does *not* gate the interrupt: that is how ISA cards are wired, QEMU's card is not.
//! * The 16750's sleep and low-power modes: their bits are stored.
//!
//! # What a port does
//!
//! All registers of the chip, as in the National PC16550D and TI TL16C750 data sheets: divisor latch,
//! FIFOs with trigger levels, resets and the character time-out, interrupt priorities, line and modem
//! status with what reading them clears, loop-back mode, break, word lengths, scratch; for 64-byte
//! FIFOs the 16750's second set of trigger levels, its locked FIFO bit and automatic flow control.
//!
//! The far end returns what the port sends, in order. It knows when the receiver has no room and waits;
//! it can hold [`FAR_END_BYTES`], and when it is full the transmitter waits: its bytes stay where they
//! are, and LSR does not report the transmitter empty. So nothing is ever lost on the line. What can
//! still lose bytes is what loses them on real hardware: a FIFO reset, a write to a transmitter that
//! is not empty, and loop-back mode, where nobody can wait.
//!
//! A break travels to the far end and back in its place among the bytes. Bytes written while the break
//! bit is set are sent all the same; on a real line they would be swallowed.
//!
//! # How to embed a card
//!
//! ```
//! use devices::serial::{Card, Config, Incoming, PortCount};
//!
//! let config = Config::new(PortCount::Two);
//! let mut card = Card::new(config);
//!
//! // A guest's access: tell the time, hand it on, look at what follows from it.
//! card.set_time(1_000);
//! card.write_bar0(8 + 3, &[0x03]); // second port: 8 data bits
//! card.write_bar0(8 + 2, &[0x01]); // FIFOs on
//! card.write_bar0(8 + 1, &[0x01]); // and the receiver's interrupt
//! card.write_bar0(8, b"U");
//! assert!(card.intx_asserted()); // the byte came back: drive the interrupt line
//! assert!(!card.take_msi()); // this card has no MSI to send
//! let delay = card.timeout_ns().expect("a character waits"); // arm a timer
//!
//! // The timer: as an access, without the access.
//! card.set_time(1_000 + delay);
//! let mut iir = [0];
//! card.read_bar0(8 + 2, &mut iir);
//! assert_eq!(iir, [0xcc]); // character time-out
//!
//! // A migration.
//! let mut incoming = Incoming::new(&config);
//! card.save(&mut |id, payload| incoming.section(id.get(), payload).map(|_| ()))?;
//! let mut other = Card::new(config);
//! incoming.apply_to(&mut other)?;
//! other.rekick();
//! let mut byte = [0];
//! other.read_bar0(8, &mut byte);
//! assert_eq!(&byte, b"U");
//! # Ok::<(), devices::serial::LoadError>(())
//! ```
//!
//! After every access, and after [`Card::set_time`], three effects may be wanted: the level of
//! [`Card::intx_asserted`], one message when [`Card::take_msi`] says so, and a timer for
//! [`Card::timeout_ns`]. Everything else happens inside.
//!
//! # Accesses
//!
//! Registers answer whatever the command register and BAR 0 hold: a VFIO device's regions are
//! addressed by region and offset, and decoding belongs to whoever maps them into a guest. Any size and
//! alignment is taken; see [`Card::read_bar0`] for what it means.
//!
//! # Rooms
//!
//! | file | subject |
//! |---|---|
//! | `config` | kinds of card |
//! | `card` | ports behind one function, interrupts, time |
//! | `pci` | configuration space |
//! | `uart` | the chip |
//! | `registers` | names of its registers and bits |
//! | `timeout` | character times |
//! | `fifo` | bounded queues |
//! | `far_end` | the loop-back plug |
//! | `state` | saved cards: layout, saving, loading |

mod card;
mod config;
mod far_end;
mod fifo;
mod pci;
mod registers;
mod state;
mod timeout;
mod uart;

#[cfg(test)]
mod properties;

pub use card::Card;
pub use config::{Config, ConfigError, FifoDepth, PortCount, MAX_PORTS};
pub use far_end::FAR_END_BYTES;
pub use pci::CONFIG_SPACE_BYTES;
pub use state::{
    saved_bytes, Emit, Incoming, LoadError, Section, SectionId, CARD_SECTION_BYTES,
    MAX_SAVED_BYTES, MAX_SECTIONS, MAX_SECTION_BYTES, PORT_SECTION_BYTES,
};
