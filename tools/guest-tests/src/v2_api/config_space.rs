// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The PCI configuration space. Sources: PCI Local Bus Specification 3.0, chapters 6.1, 6.2, 6.8; QEMU
//! docs/specs/pci-serial.rst for the identity of the card.

use super::card::{config, Card, CONFIG, PORTS};
use super::check::{equal, equal_hex, refused, same_bytes, Named};
use super::uart::{IER, IER_EMPTY, IIR};
use crate::ktap::Suite;
use crate::vfio::Errno;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        the_card_is_one_of_qemus_pci_serial_family,
        the_identity_cannot_be_written,
        sizing_of_bar_0_tells_eight_bytes_a_port,
        bar_0_takes_an_aligned_address,
        other_base_addresses_and_the_rom_do_not_exist,
        the_capability_list_holds_msi_with_one_vector,
        configuration_reads_of_every_size_agree,
        configuration_writes_of_every_size_agree,
        configuration_accesses_at_the_end_are_cut_and_beyond_it_refused,
        status_shows_a_pending_intx_even_while_it_is_disabled,
        reset_restores_the_configuration_space,
    );
}

fn the_card_is_one_of_qemus_pci_serial_family() -> anyhow::Result<()> {
    for ports in PORTS {
        let card = Card::new(ports)?;
        let device = match ports {
            1 => 0x0002,
            2 => 0x0003,
            _ => 0x0004,
        };
        equal_hex("vendor", card.config16(config::ID)?.into(), 0x1b36)?;
        equal_hex("device", card.config16(config::ID + 2)?.into(), device)?;
        equal_hex(
            "class",
            (card.config32(config::CLASS)? >> 8).into(),
            0x07_00_02,
        )?;
        equal_hex("header type", card.config8(0x0e)?.into(), 0)?;
        equal("interrupt pin", card.config8(config::PIN)?, 1)?;
    }
    Ok(())
}

fn the_identity_cannot_be_written() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let before = card.config_space()?;
    // Vendor, device, status, revision, class, header type, subsystem, capability pointer, pin.
    for (offset, length) in [
        (0x00, 4),
        (0x08, 4),
        (0x0e, 1),
        (0x2c, 4),
        (0x34, 1),
        (0x3d, 1),
    ] {
        for value in [0x00, 0xff, 0x5a] {
            card.set_config(offset, &vec![value; length])?;
        }
    }
    same_bytes("the configuration space", &card.config_space()?, &before)
}

fn sizing_of_bar_0_tells_eight_bytes_a_port() -> anyhow::Result<()> {
    for ports in PORTS {
        let card = Card::new(ports)?;
        card.set_config(config::BAR0, &u32::MAX.to_le_bytes())?;
        // All address bits above the size, and bit 0 for I/O.
        let wanted = !(ports * 8 - 1) | 1;
        equal_hex(
            format!("BAR 0, {ports} ports"),
            card.config32(config::BAR0)?.into(),
            wanted.into(),
        )?;
    }
    Ok(())
}

fn bar_0_takes_an_aligned_address() -> anyhow::Result<()> {
    let card = Card::new(4)?;
    card.set_config(config::BAR0, &0x0000_c0e0_u32.to_le_bytes())?;
    equal_hex(
        "an aligned address",
        card.config32(config::BAR0)?.into(),
        0xc0e1,
    )?;
    card.set_config(config::BAR0, &0x0000_c0ff_u32.to_le_bytes())?;
    equal_hex(
        "another address",
        card.config32(config::BAR0)?.into(),
        0xc0e1,
    )?;
    // As firmware may do it, in pieces.
    card.set_config(config::BAR0 + 1, &[0xd1])?;
    equal_hex(
        "after a write of byte 1",
        card.config32(config::BAR0)?.into(),
        0xd1e1,
    )?;
    card.set_config(config::BAR0, &[0x48, 0xc2])?;
    equal_hex(
        "after a write of the low half",
        card.config32(config::BAR0)?.into(),
        0xc241,
    )
}

fn other_base_addresses_and_the_rom_do_not_exist() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let others = (1..6).map(|bar| config::BAR0 + 4 * bar);
    for offset in others.chain([config::ROM]) {
        card.set_config(offset, &u32::MAX.to_le_bytes())?;
        equal_hex(
            format!("register {offset:#x} after all ones"),
            card.config32(offset)?.into(),
            0,
        )?;
    }
    Ok(())
}

fn the_capability_list_holds_msi_with_one_vector() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let status = card.config16(config::STATUS)?;
    equal_hex(
        "capability bit of status",
        (status & config::STATUS_CAPABILITIES).into(),
        0x10,
    )?;
    let place = card.msi_capability()?;
    let control = card.config16(place + 2)?;
    equal(
        "vectors that can be asked for (log 2)",
        (control >> 1) & 7,
        0,
    )?;
    equal("enabled after power-on", control & config::MSI_ENABLE, 0)?;
    card.enable_msi()?;
    equal(
        "enabled after a write",
        card.config16(place + 2)? & config::MSI_ENABLE,
        1,
    )?;

    card.set_config(place + 4, &0xfee0_1004_u32.to_le_bytes())?;
    equal_hex(
        "message address",
        card.config32(place + 4)?.into(),
        0xfee0_1004,
    )?;
    card.set_config(place + 4, &0xfee0_1007_u32.to_le_bytes())?;
    equal_hex(
        "message address, which is a multiple of 4",
        card.config32(place + 4)?.into(),
        0xfee0_1004,
    )?;
    let data = if control & (1 << 7) == 0 {
        place + 8
    } else {
        place + 12
    };
    card.set_config(data, &0x4021_u16.to_le_bytes())?;
    equal_hex("message data", card.config16(data)?.into(), 0x4021)
}

fn configuration_reads_of_every_size_agree() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let whole = card.config_space()?;
    for size in [1, 2, 3, 4, 8, 64] {
        for offset in 0..=256 - size {
            let mut piece = vec![0; size];
            let length = card
                .read(CONFIG, offset as u64, &mut piece)
                .named(format!("{size} bytes at {offset:#x}"))?;
            equal(
                format!("length of a read of {size} at {offset:#x}"),
                length,
                size,
            )?;
            same_bytes(
                format!("{size} bytes at {offset:#x}"),
                &piece,
                &whole[offset..offset + size],
            )?;
        }
    }
    Ok(())
}

fn configuration_writes_of_every_size_agree() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let message = card.msi_capability()? + 4;
    let value = 0xfee1_2344_u32.to_le_bytes();
    for size in [1, 2, 4] {
        card.set_config(message, &[0; 4])?;
        for (place, piece) in (message..).step_by(size).zip(value.chunks(size)) {
            card.set_config(place, piece)?;
        }
        equal_hex(
            format!("written by {size}"),
            card.config32(message)?.into(),
            0xfee1_2344,
        )?;
    }
    Ok(())
}

fn configuration_accesses_at_the_end_are_cut_and_beyond_it_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let mut bytes = [0; 64];
    equal(
        "read across the end",
        card.read(CONFIG, 252, &mut bytes),
        Ok(4),
    )?;
    equal(
        "write across the end",
        card.write(CONFIG, 252, &bytes),
        Ok(4),
    )?;
    let mut huge = vec![0; 1 << 20];
    equal(
        "read of a mebibyte",
        card.read(CONFIG, 0, &mut huge),
        Ok(256),
    )?;
    for offset in [256, 257, 4096, 1 << 39] {
        refused(
            format!("read at {offset:#x}"),
            card.read(CONFIG, offset, &mut bytes),
            Errno::EINVAL,
        )?;
        refused(
            format!("write at {offset:#x}"),
            card.write(CONFIG, offset, &bytes),
            Errno::EINVAL,
        )?;
    }
    Ok(())
}

fn status_shows_a_pending_intx_even_while_it_is_disabled() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let pending = || -> anyhow::Result<bool> {
        Ok(card.config16(config::STATUS)? & config::STATUS_INTX != 0)
    };
    equal("pending after power-on", pending()?, false)?;
    card.set_command(config::COMMAND_IO | config::COMMAND_INTX_OFF)?;
    card.port(0).set(IER, IER_EMPTY)?;
    equal("pending while the transmitter is empty", pending()?, true)?;
    card.port(0).get(IIR)?;
    equal(
        "pending after the interrupt was identified",
        pending()?,
        false,
    )
}

fn reset_restores_the_configuration_space() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    card.reset().named("reset")?;
    let power_on = card.config_space()?;
    card.set_command(config::COMMAND_IO | config::COMMAND_INTX_OFF)?;
    card.set_config(config::BAR0, &0xc000_u32.to_le_bytes())?;
    card.set_config(config::LINE, &[11])?;
    card.enable_msi()?;
    let changed = card.config_space()?;
    anyhow::ensure!(changed != power_on, "nothing could be written");
    card.reset().named("reset")?;
    same_bytes(
        "the configuration space after reset",
        &card.config_space()?,
        &power_on,
    )
}
