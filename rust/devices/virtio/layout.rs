// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where the structures of virtio over PCI lie (virtio 1.2, 4.1.4), as QEMU's `virtio-blk-pci` and its
//! siblings with `disable-legacy=on` have them.
//!
//! | BAR | kind | contents |
//! |---|---|---|
//! | 1 | 4 KiB, 32-bit memory | MSI-X: table at 0, pending bits at 0x800 |
//! | 4 | 16 KiB, 64-bit prefetchable memory | 0x0000 common, 0x1000 ISR, 0x2000 device, 0x3000 notifications, 4 KiB each |
//!
//! The layout is part of the hardware interface: what is at another place is another device.

use crate::pci::registers::capability;
use crate::pci::{Bar, BuildError, Builder, MSIX_ENTRY_BYTES};

/// The BAR that holds MSI-X's table and pending bits.
pub const MSIX_BAR: usize = 1;
/// The BAR that holds everything else.
pub const COMMON_BAR: usize = 4;
/// Offset of the common configuration in [`COMMON_BAR`].
pub const COMMON_OFFSET: u32 = 0x0000;
/// Offset of the interrupt status in [`COMMON_BAR`].
pub const ISR_OFFSET: u32 = 0x1000;
/// Offset of the device's own configuration in [`COMMON_BAR`].
pub const DEVICE_OFFSET: u32 = 0x2000;
/// Offset of the notification registers in [`COMMON_BAR`].
pub const NOTIFY_OFFSET: u32 = 0x3000;
/// Bytes from one queue's notification register to the next one's.
pub const NOTIFY_MULTIPLIER: u32 = 4;

/// The most queues that have a notification register.
pub const MAX_QUEUES: u16 = (STRUCTURE_BYTES / NOTIFY_MULTIPLIER) as u16;

pub(super) const MSIX_BAR_BYTES: u32 = 0x1000;
pub(super) const COMMON_BAR_BYTES: u32 = 0x4000;
/// Room of each structure.
pub(super) const STRUCTURE_BYTES: u32 = 0x1000;
pub(super) const PENDING_OFFSET: u32 = 0x800;

/// The most vectors whose entries lie before the pending bits.
pub(super) const MAX_TABLE: u16 = (PENDING_OFFSET / MSIX_ENTRY_BYTES) as u16;

/// Kinds of structure, `cfg_type`.
mod kind {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const ISR: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const PCI: u8 = 5;
}

/// Offsets in the capability by which configuration space reaches into the BARs (4.1.4.9).
pub(super) mod window {
    pub(crate) const BAR: u8 = 4;
    pub(crate) const OFFSET: u8 = 8;
    pub(crate) const LENGTH: u8 = 12;
    pub(crate) const DATA: u8 = 16;
}

/// Bytes of a `struct virtio_pci_cap`.
const CAP_BYTES: usize = 16;

/// What a capability for a structure has after identifier and next pointer.
fn body(kind: u8, offset: u32, len: u32) -> [u8; CAP_BYTES - 2] {
    let [o0, o1, o2, o3] = offset.to_le_bytes();
    let [l0, l1, l2, l3] = len.to_le_bytes();
    let bar = COMMON_BAR as u8;
    [
        CAP_BYTES as u8,
        kind,
        bar,
        0,
        0,
        0,
        o0,
        o1,
        o2,
        o3,
        l0,
        l1,
        l2,
        l3,
    ]
}

/// The same with four bytes more.
fn long_body(kind: u8, offset: u32, len: u32, more: u32) -> [u8; CAP_BYTES + 2] {
    let mut long = [0; CAP_BYTES + 2];
    let all = body(kind, offset, len)
        .into_iter()
        .chain(more.to_le_bytes());
    for (to, from) in long.iter_mut().zip(all) {
        *to = from;
    }
    if let Some(len) = long.first_mut() {
        *len = CAP_BYTES as u8 + 4;
    }
    long
}

/// Adds the BARs.
pub(super) fn add_bars(builder: &mut Builder) -> Result<(), BuildError> {
    builder.bar(MSIX_BAR, Bar::memory32(MSIX_BAR_BYTES))?;
    builder.bar(COMMON_BAR, Bar::prefetchable64(COMMON_BAR_BYTES.into()))
}

/// Adds the vendor capabilities; says where the one is by which configuration space reaches the BARs.
pub(super) fn add_capabilities(builder: &mut Builder) -> Result<u8, BuildError> {
    for (kind, offset) in [
        (kind::COMMON, COMMON_OFFSET),
        (kind::ISR, ISR_OFFSET),
        (kind::DEVICE, DEVICE_OFFSET),
    ] {
        let body = body(kind, offset, STRUCTURE_BYTES);
        builder.capability(capability::VENDOR, &body, &[])?;
    }
    let notify = long_body(
        kind::NOTIFY,
        NOTIFY_OFFSET,
        STRUCTURE_BYTES,
        NOTIFY_MULTIPLIER,
    );
    builder.capability(capability::VENDOR, &notify, &[])?;
    let mut pci = long_body(kind::PCI, 0, 0, 0);
    if let Some(bar) = pci.get_mut(2) {
        *bar = 0;
    }
    // BAR, offset and length are the driver's. The window itself stores nothing.
    let writable = [
        0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    ];
    builder.capability(capability::VENDOR, &pci, &writable)
}
