// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How the migration region is found, and what it says about itself.

use super::bench::card;
use super::region::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::v2_api::card::{Card, PORTS};
use crate::v2_api::check::{equal, refused, Named};
use crate::vfio::abi::{self, Bytes};
use crate::vfio::Errno;

/// Bytes in a page of x86.
const PAGE: u64 = 4096;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        the_migration_region_is_found_by_its_type_in_both_ways_to_open_a_card,
        the_regions_of_pci_have_no_type,
        the_description_comes_with_any_room_for_capabilities,
        the_data_section_can_be_mapped_and_the_header_cannot,
        the_header_reads_as_a_running_device_without_data,
    );
}

fn the_migration_region_is_found_by_its_type_in_both_ways_to_open_a_card() -> anyhow::Result<()> {
    for access in kernel::accesses() {
        for ports in PORTS {
            let card = Card::opened(ports, access)?;
            let region = Region::find(&card)?;
            anyhow::ensure!(
                region.index >= abi::VFIO_PCI_NUM_REGIONS,
                "index {} is one of PCI's",
                region.index
            );
            // Where BARs and the configuration space are is unchanged.
            card.config32(0)?;
        }
    }
    Ok(())
}

fn the_regions_of_pci_have_no_type() -> anyhow::Result<()> {
    let card = card(1)?;
    let count = card.info().named("VFIO_DEVICE_GET_INFO")?.regions;
    let mut found = 0;
    for index in 0..count {
        let Ok(region) = Description::read(&card, index) else {
            continue;
        };
        match region.kind() {
            None => {}
            Some(kind) => {
                equal("type and subtype", kind, KIND)?;
                found += 1;
            }
        }
    }
    equal("migration regions", found, 1)?;
    for index in [count, count + 1, 1 << 23, 1 << 24, u32::MAX] {
        refused(format!("region {index}"), card.region(index), Errno::EINVAL)?;
    }
    Ok(())
}

fn the_description_comes_with_any_room_for_capabilities() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    let whole = Description::read(&card, region.index).named("VFIO_DEVICE_GET_REGION_INFO")?;
    equal("capabilities", whole.capabilities.len(), 2)?;
    for capability in &whole.capabilities {
        equal(
            format!("version of capability {}", capability.id),
            capability.version,
            1,
        )?;
    }
    let ask = |argsz: u32, room: usize| {
        let mut info = Bytes::new()
            .word(argsz)
            .word(0)
            .word(region.index)
            .bytes(&vec![0xee; room - 12]);
        let result = card.ioctl(abi::VFIO_DEVICE_GET_REGION_INFO, info.bytes_mut());
        (result, info)
    };
    let (result, mut short) = ask(32, 200);
    result.named("the call without room for capabilities")?;
    let needed = short.word_at(0);
    anyhow::ensure!(needed > 32, "argsz {needed} with two capabilities");
    anyhow::ensure!(
        short.word_at(4) & abi::VFIO_REGION_INFO_FLAG_CAPS != 0,
        "no flag for capabilities"
    );
    equal("cap_offset without room", short.word_at(12), 0)?;
    anyhow::ensure!(
        short.bytes_mut()[32..].iter().all(|byte| *byte == 0xee),
        "written behind argsz"
    );
    let (result, mut almost) = ask(needed - 1, 200);
    result.named("the call with one byte too little room")?;
    equal("argsz", almost.word_at(0), needed)?;
    equal("cap_offset with too little room", almost.word_at(12), 0)?;
    anyhow::ensure!(
        almost.bytes_mut()[32..].iter().all(|byte| *byte == 0xee),
        "written without room for it"
    );
    let (result, mut more) = ask(needed + 50, 200);
    result.named("the call with more room than needed")?;
    anyhow::ensure!(more.word_at(12) >= 32, "cap_offset {}", more.word_at(12));
    anyhow::ensure!(
        more.bytes_mut()[needed as usize..]
            .iter()
            .all(|byte| *byte == 0xee),
        "written behind the last capability"
    );
    for argsz in [0, 16, 31] {
        refused(format!("argsz {argsz}"), ask(argsz, 200).0, Errno::EINVAL)?;
    }
    Ok(())
}

fn the_data_section_can_be_mapped_and_the_header_cannot() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    let all = Description::read(&card, region.index).named("VFIO_DEVICE_GET_REGION_INFO")?;
    let access = abi::VFIO_REGION_INFO_FLAG_READ
        | abi::VFIO_REGION_INFO_FLAG_WRITE
        | abi::VFIO_REGION_INFO_FLAG_MMAP;
    equal(
        "flags beside those of the capabilities",
        all.flags & !abi::VFIO_REGION_INFO_FLAG_CAPS,
        access,
    )?;
    let Area { offset, size } = region.data;
    anyhow::ensure!(
        offset % PAGE == 0 && size % PAGE == 0 && size > 0,
        "the area is {:x?}, not whole pages",
        region.data
    );
    anyhow::ensure!(offset >= HEADER, "the header can be mapped");
    equal("end of the area", offset + size, region.size)?;
    anyhow::ensure!(
        region.start % PAGE == 0,
        "the region starts at {:#x} of the file",
        region.start
    );
    // The place of the data is in the area.
    reach_and_check(&region)
}

fn reach_and_check(region: &Region<'_>) -> anyhow::Result<()> {
    region.set_state(SAVING).named("001 -> 010")?;
    region.pending().named("pending_bytes")?;
    let offset = region.data_offset().named("data_offset")?;
    let size = region.data_size().named("data_size")?;
    anyhow::ensure!(
        offset >= region.data.offset && offset + size <= region.data.offset + region.data.size,
        "the data is at {offset:#x}, {size:#x} bytes: not within {:x?}",
        region.data
    );
    equal("page that the data starts in", offset % PAGE, 0)
}

fn the_header_reads_as_a_running_device_without_data() -> anyhow::Result<()> {
    let card = card(1)?;
    let region = Region::find(&card)?;
    equal("device_state", region.state(), Ok(RUNNING))?;
    equal("pending_bytes", region.pending(), Ok(0))?;
    equal("reserved", region.get(RESERVED, 4), Ok(vec![0; 4]))
}
