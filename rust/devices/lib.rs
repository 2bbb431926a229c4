// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Device models without I/O: register accesses in, effects out.
//!
//! | module | what it has |
//! |---|---|
//! | [`serial`] | QEMU's pci-serial card: 1, 2 or 4 ports, a 16550A each |
//! | [`pci`] | what any PCI function has: configuration space, capabilities, MSI, MSI-X |
//! | [`virtio`] | what any virtio device on a PCI bus has: modern transport, packed rings |
//! | [`blk`] | a virtio block device whose medium is part of its state |
//!
//! The same source is compiled into the kernel module and into user-space programs. So there is no
//! allocation, no `unsafe`, no dependency, no clock and no thread here: whoever embeds a model hands
//! it the accesses, the time and the memory, and carries out what it asks for (an interrupt, a timer).
//!
//! What comes from outside (a guest's register writes, a saved state) is untrusted: nothing here
//! panics on it, and every access is bounded in time.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod fields;

pub mod blk;
pub mod pci;
pub mod serial;
pub mod virtio;
