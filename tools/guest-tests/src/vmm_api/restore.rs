// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Restoring from a snapshot, and taking one: the orders of calls that are not QEMU's.

use anyhow::{ensure, Context};

use super::client::{Kind, Vmm};
use crate::ktap::Suite;
use crate::v2_api::card::config;
use crate::v2_api::check::equal;
use crate::v2_api::uart::{DATA, IER, IER_DATA, IER_EMPTY, IIR_DATA, IIR_EMPTY, IIR_TIMEOUT, SCR};
use crate::vfio::interrupt::INTX;
use crate::vfio::State;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_vmm_that_sets_up_intx_before_it_restores,
        a_vmm_that_sets_up_msi_while_it_restores,
        a_vmm_that_asks_for_the_size_in_stop_copy_and_stops_with_the_file_open,
        a_vmm_that_asks_for_running_twice,
        a_vmm_that_resets_after_a_refused_write,
        a_vmm_that_leaves_its_bars_at_all_ones,
    );
}

/// A card whose guest was interrupted and has not looked yet: a byte waits in port 0.
fn interrupted(kind: Kind) -> anyhow::Result<Vmm> {
    let vmm = Vmm::new(2)?;
    if kind == Kind::Msi {
        vmm.enable_msi_in_config()?;
    }
    let interrupt = vmm.enable(kind)?;
    for port in 0..vmm.ports {
        vmm.set_up(port)?;
        vmm.set(port, SCR, 0x30 + port as u8)?;
    }
    vmm.set(0, IER, IER_DATA)?;
    vmm.set(0, DATA, 0x42)?;
    // The FIFO's trigger is one byte.
    interrupt.wait().context("the source's interrupt")?;
    Ok(vmm)
}

/// Checks that the card is what [`interrupted`] left.
fn is_interrupted(vmm: &Vmm) -> anyhow::Result<()> {
    for port in 0..vmm.ports {
        equal("scratch", vmm.get(port, SCR)?, 0x30 + port as u8)?;
    }
    // One or the other, by how long the byte has waited.
    let interrupt = vmm.identification(0)?;
    ensure!(
        [IIR_DATA, IIR_TIMEOUT].contains(&interrupt),
        "the port identifies {interrupt:#x}"
    );
    equal("received", vmm.received(0)?, vec![0x42])
}

/// Restores a card as a monitor does that resets it first, has interrupts set up by then, and loads the stream with one write.
/// It puts its own copy of the command register back, and the interrupts that its guest had enabled, before the card runs.
fn restore(stream: &[u8], kind: Kind) -> anyhow::Result<()> {
    let vmm = Vmm::new(2)?;
    let command = match kind {
        Kind::Intx => config::COMMAND_IO,
        Kind::Msi => config::COMMAND_IO | config::COMMAND_MASTER,
    };
    vmm.device.reset();
    let pin = vmm.enable(Kind::Intx)?;
    vmm.is_in(State::Running)?;
    vmm.go(State::Resuming)?;
    vmm.device
        .write_migration_data(stream)
        .with_context(|| format!("the write; the driver says: {}", vmm.reason()))?;
    vmm.set_config(config::COMMAND, &command.to_le_bytes())?;
    let interrupt = match kind {
        Kind::Intx => pin,
        Kind::Msi => {
            vmm.device.disable_irq(INTX).context("disabling INTx")?;
            let message = vmm.enable(Kind::Msi)?;
            equal("signals of INTx", pin.count()?, 0)?;
            message
        }
    };
    equal("signals in RESUMING", interrupt.count()?, 0)?;
    // The data file is open: the library closes it when it gets there.
    vmm.go(State::Running)?;
    vmm.is_in(State::Running)?;
    equal("signals of the byte", interrupt.wait()?, 1)?;
    equal(
        "command",
        vmm.config(config::COMMAND)?,
        command.to_le_bytes(),
    )?;
    is_interrupted(&vmm)?;
    // And the next one.
    if kind == Kind::Intx {
        vmm.device.unmask_irq(INTX).context("unmask")?;
    }
    equal("signals before the next byte", interrupt.count()?, 0)?;
    vmm.set(0, DATA, 0x43)?;
    equal("signals of the next byte", interrupt.wait()?, 1)?;
    equal("received", vmm.received(0)?, vec![0x43])?;
    vmm.echo(1, b"in order")
}

fn a_vmm_that_sets_up_intx_before_it_restores() -> anyhow::Result<()> {
    let source = interrupted(Kind::Intx)?;
    restore(&source.save()?, Kind::Intx)
}

fn a_vmm_that_sets_up_msi_while_it_restores() -> anyhow::Result<()> {
    let source = interrupted(Kind::Msi)?;
    restore(&source.save()?, Kind::Msi)
}

fn a_vmm_that_asks_for_the_size_in_stop_copy_and_stops_with_the_file_open() -> anyhow::Result<()> {
    for kind in [Kind::Intx, Kind::Msi] {
        let vmm = interrupted(kind)?;
        let stream = vmm.save()?;
        vmm.is_in(State::Stop)?;
        ensure!(
            vmm.device.read_migration_data_to_end().is_err(),
            "the library has a data file in STOP"
        );
        // Twice the same, and then the guest goes on as if nothing had been.
        ensure!(vmm.save()? == stream, "a second snapshot is another one");
        vmm.go(State::Running)?;
        is_interrupted(&vmm)?;
        restore(&stream, kind)?;
    }
    Ok(())
}

fn a_vmm_that_asks_for_running_twice() -> anyhow::Result<()> {
    let source = interrupted(Kind::Intx)?;
    let stream = source.save()?;
    source.go(State::Running)?;
    source.go(State::Running)?;
    is_interrupted(&source)?;

    let vmm = Vmm::new(2)?;
    vmm.go(State::Running)?;
    vmm.go(State::Resuming)?;
    vmm.device.write_migration_data(&stream).context("write")?;
    let interrupt = vmm.enable(Kind::Intx)?;
    vmm.go(State::Running)?;
    equal("signals", interrupt.wait()?, 1)?;
    vmm.go(State::Running)?;
    vmm.is_in(State::Running)?;
    equal("signals of the second time", interrupt.count()?, 0)?;
    is_interrupted(&vmm)
}

fn a_vmm_that_resets_after_a_refused_write() -> anyhow::Result<()> {
    let good = interrupted(Kind::Intx)?.save()?;
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x10;

    let vmm = Vmm::new(2)?;
    let interrupt = vmm.enable(Kind::Intx)?;
    vmm.go(State::Resuming)?;
    let refused = vmm.device.write_migration_data(&bad);
    ensure!(refused.is_err(), "a damaged stream was taken");
    let reason = vmm.reason();
    ensure!(!reason.is_empty(), "nothing says why it was refused");
    vmm.device.reset();
    vmm.is_in(State::Running)?;
    equal("the reason after the reset", vmm.reason(), reason)?;

    // A fresh machine is started with it instead.
    vmm.set_config(config::COMMAND, &config::COMMAND_IO.to_le_bytes())?;
    equal("signals after the reset", interrupt.count()?, 0)?;
    vmm.set_up(1)?;
    vmm.set(1, IER, IER_EMPTY)?;
    equal("signals of an interrupt", interrupt.wait()?, 1)?;
    equal("the interrupt", vmm.identification(1)?, IIR_EMPTY)?;
    vmm.set(1, IER, 0)?;
    vmm.echo(1, b"in order")?;
    // Or the right snapshot is found after all.
    vmm.go(State::Resuming)?;
    vmm.device.write_migration_data(&good).context("write")?;
    vmm.go(State::Running)?;
    is_interrupted(&vmm)
}

fn a_vmm_that_leaves_its_bars_at_all_ones() -> anyhow::Result<()> {
    let source = interrupted(Kind::Intx)?;
    // It sizes all that are there, and its guest has not placed them yet.
    for bar in 0..6 {
        source.set_config(config::BAR0 + 4 * bar, &[0xff; 4])?;
    }
    let sized: [u8; 24] = source.config(config::BAR0)?;
    let size = source.device.get_region_size(0) as u32;
    let wanted = !(size - 1) | 1;
    equal("BAR 0", sized[..4].to_vec(), wanted.to_le_bytes().to_vec())?;
    let stream = source.save()?;

    let vmm = Vmm::new(2)?;
    vmm.go(State::Resuming)?;
    vmm.device.write_migration_data(&stream).context("write")?;
    vmm.go(State::Running)?;
    equal("BARs", vmm.config(config::BAR0)?, sized)?;
    vmm.set_config(config::BAR0, &0xc000_u32.to_le_bytes())?;
    let placed = vmm.config(config::BAR0)?;
    equal("BAR 0", u32::from_le_bytes(placed), 0xc001)?;
    is_interrupted(&vmm)
}
