// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the device says about itself: VFIO_DEVICE_GET_INFO, GET_REGION_INFO, GET_IRQ_INFO.

use anyhow::Context;

use super::card::{Card, BAR0, CONFIG, MIGRATION, PORTS};
use super::check::{equal, equal_hex, refused, Named};
use crate::ktap::Suite;
use crate::vfio::abi::{self, Argument, Bytes};
use crate::vfio::device::Info;
use crate::vfio::interrupt::{ERR, INTX, MSI, MSIX, REQ};
use crate::vfio::migration_v1::Description;
use crate::vfio::{Access, Errno};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        device_info_names_a_pci_device_that_can_be_reset,
        every_region_index_is_described,
        the_migration_region_is_described,
        every_interrupt_index_is_described,
    );
    tests!(
        suite,
        device_info_fills_as_much_as_the_caller_has_room_for,
        too_short_descriptions_are_refused,
        descriptions_at_bad_addresses_are_refused,
        regions_do_not_overlap_in_the_device_file,
        requests_that_the_device_does_not_have_are_refused,
    );
}

fn device_info_names_a_pci_device_that_can_be_reset(access: Access) -> anyhow::Result<()> {
    for ports in PORTS {
        let card = Card::opened(ports, access)?;
        let wanted = Info {
            flags: abi::VFIO_DEVICE_FLAGS_PCI | abi::VFIO_DEVICE_FLAGS_RESET,
            regions: MIGRATION + 1,
            interrupts: abi::VFIO_PCI_NUM_IRQS,
        };
        equal(format!("{ports} ports"), card.info()?, wanted)?;
    }
    Ok(())
}

fn device_info_fills_as_much_as_the_caller_has_room_for() -> anyhow::Result<()> {
    const UNTOUCHED: u32 = 0x5a5a_5a5a;
    let card = Card::new(1)?;
    // argsz, flags, num_regions, num_irqs, cap_offset, pad
    for (argsz, capabilities) in [(16, UNTOUCHED), (24, 0), (4096, 0)] {
        let mut info = Bytes::new()
            .word(argsz)
            .word(0)
            .word(0)
            .word(0)
            .word(UNTOUCHED)
            .word(UNTOUCHED);
        card.ioctl(abi::VFIO_DEVICE_GET_INFO, info.bytes_mut())
            .named(format!("argsz {argsz}"))?;
        equal(
            format!("num_irqs with argsz {argsz}"),
            info.word_at(12),
            abi::VFIO_PCI_NUM_IRQS,
        )?;
        equal(
            format!("cap_offset with argsz {argsz}"),
            info.word_at(16),
            capabilities,
        )?;
    }
    Ok(())
}

fn every_region_index_is_described(access: Access) -> anyhow::Result<()> {
    let both = abi::VFIO_REGION_INFO_FLAG_READ | abi::VFIO_REGION_INFO_FLAG_WRITE;
    for ports in PORTS {
        let card = Card::opened(ports, access)?;
        for index in 0..abi::VFIO_PCI_NUM_REGIONS {
            let (size, flags) = match index {
                BAR0 => (u64::from(ports) * 8, both),
                CONFIG => (256, both),
                _ => (0, 0),
            };
            let region = card.region(index).named(format!("region {index}"))?;
            equal(
                format!("size of region {index}, {ports} ports"),
                region.size,
                size,
            )?;
            equal(
                format!("flags of region {index}, {ports} ports"),
                region.flags,
                flags,
            )?;
            equal(
                format!("capabilities of region {index}"),
                region.capabilities,
                0,
            )?;
        }
        for index in [MIGRATION + 1, 64, u32::MAX] {
            refused(format!("region {index}"), card.region(index), Errno::EINVAL)?;
        }
    }
    Ok(())
}

fn the_migration_region_is_described(access: Access) -> anyhow::Result<()> {
    let card = Card::opened(1, access)?;
    let region = card.region(MIGRATION).named("the region")?;
    let wanted = abi::VFIO_REGION_INFO_FLAG_READ
        | abi::VFIO_REGION_INFO_FLAG_WRITE
        | abi::VFIO_REGION_INFO_FLAG_MMAP
        | abi::VFIO_REGION_INFO_FLAG_CAPS;
    equal_hex("flags", region.flags.into(), wanted.into())?;
    equal(
        "capabilities in an argument too short for them",
        region.capabilities,
        0,
    )?;
    anyhow::ensure!(
        region.argsz > 32,
        "argsz {} has no room for capabilities",
        region.argsz
    );

    let described = Description::read(&card, MIGRATION).named("the capabilities")?;
    let content = |id: u32| {
        let mut found = described.capabilities.iter();
        let found = found.find(|capability| capability.id == id);
        found.map(|capability| Bytes::new().bytes(&capability.body))
    };
    let kind = content(abi::VFIO_REGION_INFO_CAP_TYPE).context("no type")?;
    equal(
        "type",
        kind.word_at(0),
        abi::VFIO_REGION_TYPE_MIGRATION_DEPRECATED,
    )?;
    equal(
        "subtype",
        kind.word_at(4),
        abi::VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED,
    )?;
    let areas =
        content(abi::VFIO_REGION_INFO_CAP_SPARSE_MMAP).context("no list of areas to map")?;
    equal("areas to map", areas.word_at(0), 1)?;
    let (offset, size) = (areas.long_at(8), areas.long_at(16));
    anyhow::ensure!(
        offset >= 4096 && offset % 4096 == 0 && size > 0 && size % 4096 == 0,
        "an area of {size:#x} bytes at {offset:#x} has the header in it, or half pages"
    );
    anyhow::ensure!(
        offset + size <= region.size,
        "the area goes on behind the region"
    );
    Ok(())
}

fn every_interrupt_index_is_described(access: Access) -> anyhow::Result<()> {
    let plain = abi::VFIO_IRQ_INFO_EVENTFD | abi::VFIO_IRQ_INFO_NORESIZE;
    let level =
        abi::VFIO_IRQ_INFO_EVENTFD | abi::VFIO_IRQ_INFO_MASKABLE | abi::VFIO_IRQ_INFO_AUTOMASKED;
    let card = Card::opened(1, access)?;
    for (index, name, count, flags) in [
        (INTX, "INTx", 1, level),
        (MSI, "MSI", 1, plain),
        (MSIX, "MSI-X", 0, plain),
        (REQ, "REQ", 1, plain),
    ] {
        let irq = card.irq(index).named(name)?;
        equal(format!("count of {name}"), irq.count, count)?;
        equal_hex(format!("flags of {name}"), irq.flags.into(), flags.into())?;
    }
    // QEMU takes EINVAL for a legacy PCI device, which has no error interrupt, and warns of a count of 0.
    for index in [ERR, abi::VFIO_PCI_NUM_IRQS, u32::MAX] {
        refused(
            format!("interrupt index {index}"),
            card.irq(index),
            Errno::EINVAL,
        )?;
    }
    Ok(())
}

/// The three requests with the size of what they need.
const DESCRIPTIONS: [(&str, u32, u32); 3] = [
    ("GET_INFO", abi::VFIO_DEVICE_GET_INFO, 16),
    ("GET_REGION_INFO", abi::VFIO_DEVICE_GET_REGION_INFO, 32),
    ("GET_IRQ_INFO", abi::VFIO_DEVICE_GET_IRQ_INFO, 16),
];

fn too_short_descriptions_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for (name, request, size) in DESCRIPTIONS {
        for argsz in [0, 4, size - 1] {
            let mut argument = Bytes::new().word(argsz).bytes(&[0; 28]);
            let result = card.ioctl(request, argument.bytes_mut());
            refused(format!("{name} with argsz {argsz}"), result, Errno::EINVAL)?;
        }
    }
    Ok(())
}

fn descriptions_at_bad_addresses_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for (name, request, size) in DESCRIPTIONS {
        let nowhere = card.ioctl_with(request, Argument::Unmapped);
        refused(
            format!("{name} at an unmapped address"),
            nowhere,
            Errno::EFAULT,
        )?;
        let mut argument = Bytes::new().word(size).bytes(&[0; 28]);
        let half = card.ioctl_with(request, Argument::UpToHole(&mut argument.bytes_mut()[..8]));
        refused(format!("{name} at the end of memory"), half, Errno::EFAULT)?;
        let constant = card.ioctl_with(request, Argument::ReadOnly(argument.bytes_mut()));
        refused(
            format!("{name} in read-only memory"),
            constant,
            Errno::EFAULT,
        )?;
    }
    Ok(())
}

fn regions_do_not_overlap_in_the_device_file() -> anyhow::Result<()> {
    let card = Card::new(4)?;
    let mut places = Vec::new();
    for index in 0..=MIGRATION {
        let region = card.region(index)?;
        places.push((region.offset, region.size.max(1), index));
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        let [(start, size, index), (next, _, other)] = pair else {
            continue;
        };
        anyhow::ensure!(
            start + size <= *next,
            "region {index} reaches into region {other}"
        );
    }
    Ok(())
}

fn requests_that_the_device_does_not_have_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let unknown = (u32::from(abi::VFIO_TYPE) << 8) | 0xff;
    for request in [
        abi::VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
        abi::VFIO_MIG_GET_PRECOPY_INFO,
        unknown,
    ] {
        let mut argument = Bytes::new().word(64).bytes(&[0; 60]);
        refused(
            format!("request {request:#x}"),
            card.ioctl(request, argument.bytes_mut()),
            Errno::ENOTTY,
        )?;
    }
    for feature in [
        abi::VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
        abi::VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
        0xffff,
    ] {
        let result = card.feature(abi::VFIO_DEVICE_FEATURE_PROBE | feature, &mut []);
        refused(format!("feature {feature}"), result, Errno::ENOTTY)?;
    }
    Ok(())
}
