// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Feature bits that any virtio device may offer (virtio 1.2, section 6).

/// Descriptors can refer to tables of descriptors (bit 28).
pub const INDIRECT_DESC: u64 = 1 << 28;
/// Indices tell when to notify (bit 29). Never offered: see [the module](super).
pub const EVENT_IDX: u64 = 1 << 29;
/// The device complies with virtio 1 (bit 32).
pub const VERSION_1: u64 = 1 << 32;
/// DMA goes through whatever the platform has, such as an IOMMU (bit 33).
pub const ACCESS_PLATFORM: u64 = 1 << 33;
/// Rings are packed (bit 34).
pub const RING_PACKED: u64 = 1 << 34;
/// A queue can be reset by itself (bit 40).
pub const RING_RESET: u64 = 1 << 40;

/// What a device here offers beside what its type does.
pub const TRANSPORT: u64 = INDIRECT_DESC | VERSION_1 | ACCESS_PLATFORM | RING_PACKED | RING_RESET;

/// What a driver has to accept: virtio 1, and rings that can be served by copying bytes.
pub const REQUIRED: u64 = VERSION_1 | RING_PACKED;

/// Whether a driver may accept these of the features offered.
pub const fn acceptable(offered: u64, accepted: u64) -> bool {
    accepted & !offered == 0 && accepted & REQUIRED == REQUIRED
}
