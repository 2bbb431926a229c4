// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the program in the guest (`l2-init`) and the scenarios that drive it agree on: the records that travel through the
//! serial ports, and the lines on the guest's console; and how the guest looks at its cards.

pub mod by_hand;
pub mod card;
pub mod config_space;
pub mod disk;
pub mod line;
pub mod port;
pub mod record;
pub mod tty;

/// Vendor and device numbers of the cards under test, as sysfs prints them.
///
/// QEMU's pci-serial family with 1, 2 and 4 ports (QEMU docs/specs/pci-serial.rst); the kernel's C sample mtty
/// (samples/vfio-mdev/mtty.c); and the NetMos 9922, which the MSI scenario has a card pose as.
pub const CARDS: [(u16, u16); 5] = [
    (0x1b36, 0x0002),
    (0x1b36, 0x0003),
    (0x1b36, 0x0004),
    (0x4348, 0x3253),
    MSI_CARD,
];

/// The numbers of a one-port card for which Linux's 8250_pci driver asks for a message-signalled interrupt. For QEMU's
/// own family it asks for INTx only.
pub const MSI_CARD: (u16, u16) = (0x9710, 0x9922);

/// Subsystem numbers that go with [`MSI_CARD`] in the driver's tables.
pub const MSI_CARD_SUBSYSTEM: (u16, u16) = (0xa000, 0x1000);
