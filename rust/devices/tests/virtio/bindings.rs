// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Numbers and layouts as rust-vmm's bindings have them, which were made from Linux's headers.

use crate::machine::{find, read_config, Machine};
use crate::requests::{DISCARD, FLUSH, GET_ID, IN, OUT, WRITE_ZEROES};
use devices::blk::{feature, Config};
use devices::virtio::{features, status};
use std::mem::{offset_of, size_of};
use virtio_bindings::{virtio_blk, virtio_config, virtio_ids, virtio_ring};

#[test]
fn feature_bits_are_those_of_linux() {
    for (own, theirs) in [
        (
            features::INDIRECT_DESC,
            virtio_ring::VIRTIO_RING_F_INDIRECT_DESC,
        ),
        (features::EVENT_IDX, virtio_ring::VIRTIO_RING_F_EVENT_IDX),
        (features::VERSION_1, virtio_config::VIRTIO_F_VERSION_1),
        (
            features::ACCESS_PLATFORM,
            virtio_config::VIRTIO_F_ACCESS_PLATFORM,
        ),
        (features::RING_PACKED, virtio_config::VIRTIO_F_RING_PACKED),
        (features::RING_RESET, virtio_config::VIRTIO_F_RING_RESET),
        (feature::SIZE_MAX, virtio_blk::VIRTIO_BLK_F_SIZE_MAX),
        (feature::SEG_MAX, virtio_blk::VIRTIO_BLK_F_SEG_MAX),
        (feature::RO, virtio_blk::VIRTIO_BLK_F_RO),
        (feature::BLK_SIZE, virtio_blk::VIRTIO_BLK_F_BLK_SIZE),
        (feature::FLUSH, virtio_blk::VIRTIO_BLK_F_FLUSH),
        (feature::MQ, virtio_blk::VIRTIO_BLK_F_MQ),
        (feature::DISCARD, virtio_blk::VIRTIO_BLK_F_DISCARD),
        (feature::WRITE_ZEROES, virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES),
    ] {
        assert_eq!(own, 1 << theirs, "bit {theirs}");
    }
    for (own, theirs) in [
        (
            status::ACKNOWLEDGE,
            virtio_config::VIRTIO_CONFIG_S_ACKNOWLEDGE,
        ),
        (status::DRIVER, virtio_config::VIRTIO_CONFIG_S_DRIVER),
        (status::DRIVER_OK, virtio_config::VIRTIO_CONFIG_S_DRIVER_OK),
        (
            status::FEATURES_OK,
            virtio_config::VIRTIO_CONFIG_S_FEATURES_OK,
        ),
        (
            status::NEEDS_RESET,
            virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET,
        ),
        (status::FAILED, virtio_config::VIRTIO_CONFIG_S_FAILED),
    ] {
        assert_eq!(u32::from(own), theirs);
    }
}

#[test]
fn the_configuration_structure_has_linuxs_layout() {
    use virtio_blk::virtio_blk_config as Layout;
    let mut config = Config::new(3);
    config.queues = 4.try_into().unwrap();
    config.write_zeroes = true;
    let bytes = config.structure();
    let field = |at: usize, len: usize| {
        let mut value = [0; 8];
        value[..len].copy_from_slice(&bytes[at..at + len]);
        u64::from_le_bytes(value)
    };
    let sectors = 3 << 11;
    for (at, len, value) in [
        (offset_of!(Layout, capacity), 8, sectors),
        (offset_of!(Layout, size_max), 4, 65536),
        (offset_of!(Layout, seg_max), 4, 126),
        (offset_of!(Layout, blk_size), 4, 512),
        (offset_of!(Layout, num_queues), 2, 4),
        (offset_of!(Layout, max_discard_sectors), 4, 1024),
        (offset_of!(Layout, max_discard_seg), 4, 16),
        (offset_of!(Layout, discard_sector_alignment), 4, 64),
        (offset_of!(Layout, max_write_zeroes_sectors), 4, 1024),
        (offset_of!(Layout, max_write_zeroes_seg), 4, 16),
        (offset_of!(Layout, write_zeroes_may_unmap), 1, 1),
    ] {
        assert_eq!(field(at, len), value, "offset {at}");
    }
    assert!(bytes.len() <= size_of::<Layout>());
}

#[test]
fn requests_have_linuxs_layout() {
    assert_eq!(size_of::<virtio_blk::virtio_blk_outhdr>(), 16);
    assert_eq!(offset_of!(virtio_blk::virtio_blk_outhdr, sector), 8);
    type Range = virtio_blk::virtio_blk_discard_write_zeroes;
    assert_eq!(size_of::<Range>(), 16);
    assert_eq!(offset_of!(Range, num_sectors), 8);
    assert_eq!(offset_of!(Range, flags), 12);
    // What the driver of these tests writes.
    type Descriptor = virtio_ring::vring_packed_desc;
    assert_eq!(size_of::<Descriptor>(), 16);
    assert_eq!(offset_of!(Descriptor, len), 8);
    assert_eq!(offset_of!(Descriptor, id), 12);
    assert_eq!(offset_of!(Descriptor, flags), 14);
    assert_eq!(
        u32::from(crate::driver::NEXT),
        virtio_ring::VRING_DESC_F_NEXT
    );
    assert_eq!(
        u32::from(crate::driver::WRITE),
        virtio_ring::VRING_DESC_F_WRITE
    );
    assert_eq!(
        u32::from(crate::driver::INDIRECT),
        virtio_ring::VRING_DESC_F_INDIRECT
    );
    for (own, theirs) in [
        (IN, virtio_blk::VIRTIO_BLK_T_IN),
        (OUT, virtio_blk::VIRTIO_BLK_T_OUT),
        (FLUSH, virtio_blk::VIRTIO_BLK_T_FLUSH),
        (GET_ID, virtio_blk::VIRTIO_BLK_T_GET_ID),
        (DISCARD, virtio_blk::VIRTIO_BLK_T_DISCARD),
        (WRITE_ZEROES, virtio_blk::VIRTIO_BLK_T_WRITE_ZEROES),
    ] {
        assert_eq!(own, theirs);
    }
}

#[test]
fn the_capabilities_are_where_qemu_has_them() {
    let mut machine = Machine::off(&Config::new(1));
    let device = &mut machine.device;
    let id = read_config(device, 0, 4);
    assert_eq!(id & 0xffff, 0x1af4);
    assert_eq!(id >> 16, 0x1040 + virtio_ids::VIRTIO_ID_BLOCK);
    assert_eq!(read_config(device, 8, 4), 0x0100_0001);
    assert_eq!(read_config(device, 0x2c, 4), 0x1100_1af4);
    let places = find(device);
    assert_eq!(places.common, (4, 0));
    assert_eq!(places.isr, (4, 0x1000));
    assert_eq!(places.device, (4, 0x2000));
    assert_eq!(places.notify, (4, 0x3000));
    assert_eq!(places.multiplier, 4);
    // Two of the five have a field more than a struct virtio_pci_cap.
    let lens: Vec<u32> = [0x4c, 0x5c, 0x6c, 0x7c, 0x90]
        .into_iter()
        .map(|at| read_config(device, at + 2, 1))
        .collect();
    assert_eq!(lens, [16, 16, 16, 20, 20]);
    assert_eq!(places.window, 0x90);
    assert_eq!(
        (
            device.function().bar_bytes(1),
            device.function().bar_bytes(4)
        ),
        (4096, 16384)
    );
    assert_eq!(read_config(device, 0x20, 4), 0xc, "64 bits, prefetchable");
}
