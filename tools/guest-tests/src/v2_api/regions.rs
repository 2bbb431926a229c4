// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reads and writes of the regions, as far as they do not depend on what a UART does.

use super::card::{Card, BAR0, CONFIG, MIGRATION, PORTS};
use super::check::{equal, refused, same_bytes, Named};
use super::uart::{DATA, IER, IIR, LCR, LSR, MCR, MSR, SCR};
use crate::ktap::Suite;
use crate::vfio::{abi, Access, Errno};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(
        suite,
        every_port_has_its_own_eight_registers,
        region_accesses_beyond_the_end_are_refused
    );
    tests!(
        suite,
        wide_reads_are_split_into_registers,
        wide_writes_are_split_into_registers,
        region_accesses_across_the_end_are_cut,
        empty_accesses_do_nothing,
        regions_without_size_cannot_be_accessed,
        offsets_outside_every_region_are_refused,
        buffers_that_cannot_be_accessed_are_refused,
    );
}

fn every_port_has_its_own_eight_registers(access: Access) -> anyhow::Result<()> {
    for ports in PORTS {
        let card = Card::opened(ports, access)?;
        for (number, port) in card.each_port().enumerate() {
            port.set(SCR, 0xa0 + number as u8)?;
            port.set(LCR, number as u8)?;
        }
        for (number, port) in card.each_port().enumerate() {
            equal(
                format!("scratch of port {number}"),
                port.get(SCR)?,
                0xa0 + number as u8,
            )?;
            equal(
                format!("line control of port {number}"),
                port.get(LCR)?,
                number as u8,
            )?;
        }
    }
    Ok(())
}

/// Registers 4 to 7 of the last port, which reading does not change once the modem status was read.
fn upper_half(card: &Card) -> anyhow::Result<(u64, [u8; 4])> {
    let port = card.port(card.ports - 1);
    port.set(MCR, 0x0b)?;
    port.set(SCR, 0x5a)?;
    port.get(MSR)?;
    let single = [
        port.get(MCR)?,
        port.get(LSR)?,
        port.get(MSR)?,
        port.get(SCR)?,
    ];
    Ok((port.base() + MCR, single))
}

fn wide_reads_are_split_into_registers() -> anyhow::Result<()> {
    for ports in PORTS {
        let card = Card::new(ports)?;
        let (place, single) = upper_half(&card)?;
        for (skip, size) in [(0, 4), (0, 2), (2, 2), (1, 2), (1, 3), (0, 3)] {
            let mut wide = vec![0; size];
            let length = card
                .read(BAR0, place + skip as u64, &mut wide)
                .named("wide read")?;
            equal("length of a wide read", length, size)?;
            same_bytes(
                format!("{size} bytes from register {}", 4 + skip),
                &wide,
                &single[skip..skip + size],
            )?;
        }
        let mut all = vec![0; ports as usize * 8];
        equal(
            "length of a read of everything",
            card.read(BAR0, 0, &mut all),
            Ok(all.len()),
        )?;
        same_bytes(
            "the end of a read of everything",
            &all[all.len() - 4..],
            &single,
        )?;
    }
    Ok(())
}

fn wide_writes_are_split_into_registers() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let port = card.port(1);
    let place = port.base() + LCR;
    equal(
        "length of a write of LCR and MCR",
        card.write(BAR0, place, &[0x1b, 0x03]),
        Ok(2),
    )?;
    equal("LCR", port.get(LCR)?, 0x1b)?;
    equal("MCR", port.get(MCR)?, 0x03)?;
    // The first read of MSR clears what changed. Writing LSR and MSR is for the factory's tests; here it changes nothing.
    port.get(MSR)?;
    let before = (port.get(LSR)?, port.get(MSR)?);
    equal(
        "length of a write of four registers",
        card.write(BAR0, port.base() + MCR, &[0x03, 0, 0, 0x77]),
        Ok(4),
    )?;
    equal("LSR and MSR", (port.get(LSR)?, port.get(MSR)?), before)?;
    equal("SCR", port.get(SCR)?, 0x77)
}

fn region_accesses_across_the_end_are_cut() -> anyhow::Result<()> {
    for ports in PORTS {
        let card = Card::new(ports)?;
        let end = u64::from(ports) * 8;
        let mut bytes = [0; 16];
        let port = card.port(ports - 1);
        port.set(SCR, 0x42)?;
        equal(
            "read from the last register on",
            card.read(BAR0, end - 1, &mut bytes),
            Ok(1),
        )?;
        equal("the last register", bytes[0], 0x42)?;
        equal(
            "write from the last register on",
            card.write(BAR0, end - 1, &[0x43; 16]),
            Ok(1),
        )?;
        equal("the last register", port.get(SCR)?, 0x43)?;
        let mut huge = vec![0; 1 << 20];
        equal(
            "read of a mebibyte",
            card.read(BAR0, end - 4, &mut huge),
            Ok(4),
        )?;
    }
    Ok(())
}

fn region_accesses_beyond_the_end_are_refused(access: Access) -> anyhow::Result<()> {
    for ports in PORTS {
        let card = Card::opened(ports, access)?;
        let end = u64::from(ports) * 8;
        for offset in [end, end + 1, end + 8, 4096, 1 << 39] {
            let mut byte = [0];
            refused(
                format!("read at {offset:#x}"),
                card.read(BAR0, offset, &mut byte),
                Errno::EINVAL,
            )?;
            refused(
                format!("write at {offset:#x}"),
                card.write(BAR0, offset, &byte),
                Errno::EINVAL,
            )?;
        }
    }
    Ok(())
}

fn empty_accesses_do_nothing() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for (region, offset) in [
        (BAR0, DATA),
        (BAR0, IIR),
        (BAR0, SCR),
        (CONFIG, 0),
        (CONFIG, 255),
    ] {
        equal("empty read", card.read(region, offset, &mut []), Ok(0))?;
        equal("empty write", card.write(region, offset, &[]), Ok(0))?;
    }
    Ok(())
}

fn regions_without_size_cannot_be_accessed() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for index in (0..abi::VFIO_PCI_NUM_REGIONS).filter(|index| ![BAR0, CONFIG].contains(index)) {
        let mut byte = [0];
        refused(
            format!("read of region {index}"),
            card.read(index, 0, &mut byte),
            Errno::EINVAL,
        )?;
        refused(
            format!("write of region {index}"),
            card.write(index, 0, &byte),
            Errno::EINVAL,
        )?;
    }
    Ok(())
}

fn offsets_outside_every_region_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let last = card.region(MIGRATION)?.offset;
    let step = last / u64::from(MIGRATION);
    let beyond = i64::try_from(last + step)?;
    for place in [-1, i64::MIN, beyond, beyond + 7, i64::MAX - 8, i64::MAX] {
        let mut byte = [0];
        refused(
            format!("read at {place:#x} of the file"),
            nix::sys::uio::pread(card.device(), &mut byte, place),
            Errno::EINVAL,
        )?;
        refused(
            format!("write at {place:#x} of the file"),
            nix::sys::uio::pwrite(card.device(), &byte, place),
            Errno::EINVAL,
        )?;
    }
    Ok(())
}

fn buffers_that_cannot_be_accessed_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.port(0).set(SCR, 0x11)?;
    for (region, offset) in [(BAR0, SCR), (BAR0, IER), (CONFIG, 0)] {
        refused(
            "read to an unmapped address",
            card.read_to_nowhere(region, offset, 1),
            Errno::EFAULT,
        )?;
        refused(
            "write from an unmapped address",
            card.write_from_nowhere(region, offset, 1),
            Errno::EFAULT,
        )?;
    }
    equal("scratch afterwards", card.port(0).get(SCR)?, 0x11)
}
