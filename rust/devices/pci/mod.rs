// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a conventional PCI function of header type 0 has beside its own registers: configuration
//! space, base addresses, capabilities, and interrupts as a pin or as messages.
//!
//! Sources: PCI Local Bus 3.0, chapters 6.1 (layout), 6.2 (registers), 6.2.5.1 (base addresses), 6.7
//! (capability list), 6.8.1 (MSI), 6.8.2 (MSI-X); linux/pci_regs.h for the names.
//!
//! # How a function is put together
//!
//! ```
//! use devices::pci::{Access, Bar, Builder, Gate, Identity, Msix};
//!
//! let mut builder = Builder::new(Identity {
//!     vendor: 0x1af4,
//!     device: 0x1042,
//!     revision: 1,
//!     class: 0x01_0000,
//!     subsystem_vendor: 0x1af4,
//!     subsystem: 0x1100,
//! });
//! builder.interrupt_pin()?;
//! builder.bar(1, Bar::memory32(4096))?;
//! let mut msix = Msix::<32>::add_to(&mut builder, 3, (1, 0x000), (1, 0x800), Gate::Registers)?;
//! let mut space = builder.build();
//!
//! // A guest's accesses: one of the widths that a bus has, and aligned to it.
//! let header = Access::new(0x00, 4).expect("a dword");
//! assert_eq!(space.read(header, false), 0x1042_1af4);
//! let command = Access::new(0x04, 2).expect("a word");
//! space.write(command, 0x0006); // memory space, bus master
//!
//! // A vector that is still masked is kept, and goes out when it is unmasked.
//! let control = Access::new(u64::from(msix.control_offset()), 2).expect("a word");
//! space.write(control, 0x8000);
//! msix.fire(2, &space);
//! assert_eq!(msix.take_due(), 0);
//! msix.write_table(Access::new(2 * 16 + 12, 4).expect("a dword"), 0, &space);
//! assert_eq!(msix.take_due(), 1 << 2);
//! # Ok::<(), devices::pci::BuildError>(())
//! ```
//!
//! # Who decides whether a message may go
//!
//! On a bus the registers do: [`Gate::Registers`]. A VFIO user such as QEMU keeps the MSI-X table to
//! itself, so that the device's own copy of it stays as after reset, every vector masked; there the
//! message is an eventfd, and whether there is one decides alone: [`Gate::Routes`]. Both keep what may
//! not go as pending, and let it go once it may. In both a message is a write to memory, which the
//! command register's bus master bit has to allow.
//!
//! # Rooms
//!
//! | file | subject |
//! |---|---|
//! | `access` | widths and alignment |
//! | `registers` | names of registers and bits |
//! | `builder` | laying a configuration space out |
//! | `space` | the configuration space of a function, as guests access it |
//! | `messages` | what is pending and what is to be sent |
//! | `msi`, `msix` | the two capabilities |

mod access;
mod builder;
mod messages;
mod msi;
mod msix;
pub mod registers;
mod space;

#[cfg(test)]
mod tests;

pub use access::{Access, Width};
pub use builder::{Bar, BuildError, Builder, Identity};
pub use messages::{vectors, Gate, MAX_VECTORS};
pub use msi::Msi;
pub use msix::{Msix, MsixEntry, MsixState, MsixStateError, MSIX_ENTRY_BYTES};
pub use space::{ConfigSpace, CONFIG_SPACE_BYTES, MAX_BARS};
