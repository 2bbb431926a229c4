// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The accesses of QEMU 7.2, in its order.

use super::bench::*;
use super::client::{stream, Carrier, Client};
use super::mapping::Mapping;
use super::region::*;
use crate::ktap::Suite;
use crate::stream_forge::{self, Record, Stream};
use crate::v2_api::card::{config, Card, PORTS};
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::v2_api::uart::{IER, IER_EMPTY};
use crate::vfio::interrupt::{INTX, MASK as IRQ_MASK, UNMASK};
use crate::vfio::IrqSet;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_live_migration_by_words,
        a_live_migration_through_mappings,
        a_live_migration_of_a_paused_machine,
        a_machine_that_is_paused_during_pre_copy,
        a_cancelled_migration_goes_back_to_running_in_every_phase,
        a_cancelled_migration_is_repeated,
        a_reset_in_pre_copy_and_then_a_whole_session_from_the_same_open,
        a_state_saved_to_disk_and_loaded_again,
        there_and_back_ten_times,
        configuration_and_interrupts_are_written_while_resuming,
        an_intx_that_was_asserted_is_signalled_on_the_destination,
        pre_copy_sends_the_setup_record_and_stop_and_copy_another,
        stop_and_copy_alone_sends_its_setup_record_first,
        a_vm_start_of_a_device_that_runs_changes_nothing,
        pending_bytes_converges,
    );
}

/// A migration as QEMU makes it, from a machine that runs; the source is in STOP, the destination runs.
fn migrate(
    source: &Card,
    destination: &Card,
    out: Carrier<'_>,
    into: Carrier<'_>,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let records = Client::new(Region::find(source)?, out).save_live()?;
    Client::new(Region::find(destination)?, into).load(&records)?;
    equal(
        "state of the source",
        Region::find(source)?.state(),
        Ok(STOP),
    )?;
    Ok(records)
}

fn a_live_migration_by_words() -> anyhow::Result<()> {
    for ports in PORTS {
        let (source, destination) = (filled(ports)?, card(ports)?);
        migrate(&source, &destination, Carrier::Words, Carrier::Words)?;
        has_content(&destination, 0x41)?;
        works(&destination)?;
    }
    Ok(())
}

fn a_live_migration_through_mappings() -> anyhow::Result<()> {
    for ports in PORTS {
        let (source, destination) = (filled(ports)?, card(ports)?);
        let out = Mapping::of_data(&Region::find(&source)?).named("mmap on the source")?;
        let into =
            Mapping::of_data(&Region::find(&destination)?).named("mmap on the destination")?;
        migrate(
            &source,
            &destination,
            Carrier::Map(&out),
            Carrier::Map(&into),
        )?;
        // QEMU unmaps when migration ends, on the destination before the machine starts; it would work later, too.
        has_content(&destination, 0x41)?;
        works(&destination)?;
    }
    Ok(())
}

fn a_live_migration_of_a_paused_machine() -> anyhow::Result<()> {
    let (source, destination) = (filled(2)?, card(2)?);
    let mut out = Client::new(Region::find(&source)?, Carrier::Words);
    let into = Client::new(Region::find(&destination)?, Carrier::Words);
    out.vm_stop()?;
    equal("state of the paused device", out.region.state(), Ok(STOP))?;
    let records = {
        out.save_setup()?;
        equal("state after save_setup", out.region.state(), Ok(SAVING))?;
        let mut records = Vec::new();
        while out.save_pending()? > 0 {
            records.extend(out.save_iterate()?);
        }
        records.extend(out.complete_precopy()?);
        records
    };
    into.load_setup()?;
    for record in &records {
        into.load_record(record)?.named("data_size")?;
    }
    // The destination is paused too, until somebody says "cont".
    equal("state before cont", into.region.state(), Ok(RESUMING))?;
    into.vm_start()?;
    has_content(&destination, 0x41)
}

fn a_machine_that_is_paused_during_pre_copy() -> anyhow::Result<()> {
    // Whatever was read last before the pause, nothing of the stream is lost or comes twice.
    for accesses in 0..=5 {
        let (source, destination) = (filled(1)?, card(1)?);
        let region = Region::find(&source)?;
        let mut out = Client::new(region, Carrier::Words);
        let mut records = Vec::new();
        out.save_setup()?;
        let pending = region.pending().named("pending_bytes")?;
        if accesses >= 1 {
            region.data_offset().named("data_offset")?;
        }
        if accesses >= 2 {
            let size = region.data_size().named("data_size")?;
            equal("data_size of the setup record", size, pending)?;
            let record = region
                .get(region.data.offset, size as usize)
                .named("the piece")?;
            records.push(record);
        }
        if accesses >= 3 {
            equal("pending_bytes afterwards", region.pending(), Ok(0))?;
        }
        if accesses >= 4 {
            equal("pending_bytes again", region.pending(), Ok(0))?;
        }
        out.vm_stop()?;
        if accesses >= 5 {
            region
                .pending()
                .named("pending_bytes of the stopped device")?;
        }
        records.extend(out.complete_precopy()?);
        let what = format!("paused after {accesses} accesses");
        let phases: Vec<u8> = Stream::parse(&stream(&records))?
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Setup(setup) => Some(setup.phase),
                _ => None,
            })
            .collect();
        equal(
            format!("{what}: phases of the setup records"),
            phases,
            vec![stream_forge::PRE_COPY, stream_forge::STOP_COPY],
        )?;
        Client::new(Region::find(&destination)?, Carrier::Words).load(&records)?;
        has_content(&destination, 0x41)?;
    }
    Ok(())
}

fn a_cancelled_migration_goes_back_to_running_in_every_phase() -> anyhow::Result<()> {
    for phase in 0..6 {
        let card = filled(1)?;
        let region = Region::find(&card)?;
        let mut out = Client::new(region, Carrier::Words);
        let wanted = [RUNNING, PRE_COPY, PRE_COPY, SAVING, SAVING, STOP][phase];
        if phase >= 1 {
            out.save_setup()?;
        }
        if phase >= 2 {
            out.save_pending()?;
            out.save_iterate()?;
        }
        if phase >= 3 {
            out.vm_stop()?;
        }
        if phase >= 4 {
            out.save_pending()?;
            out.save_iterate()?;
        }
        if phase >= 5 {
            out.complete_precopy()?;
        }
        equal(
            format!("state in phase {phase}"),
            region.state(),
            Ok(wanted),
        )?;
        // The notifier may come more than once, and the machine starts after it.
        out.cancelled()?;
        out.cancelled()?;
        out.vm_start()?;
        offers_nothing("cancelled", &region)?;
        has_content(&card, 0x41)?;
        works(&card)?;
    }
    Ok(())
}

fn a_cancelled_migration_is_repeated() -> anyhow::Result<()> {
    let (source, destination) = (filled(2)?, card(2)?);
    let mut out = Client::new(Region::find(&source)?, Carrier::Words);
    out.save_setup()?;
    out.save_pending()?;
    out.save_iterate()?;
    out.cancelled()?;
    // The destination had got as far, and starts anew as another process does.
    let into = Client::new(Region::find(&destination)?, Carrier::Words);
    into.load_setup()?;
    let destination = destination.reopen(crate::vfio::Access::Group)?;
    destination.set_command(config::COMMAND_IO)?;
    migrate(&source, &destination, Carrier::Words, Carrier::Words)?;
    has_content(&destination, 0x41)
}

fn a_reset_in_pre_copy_and_then_a_whole_session_from_the_same_open() -> anyhow::Result<()> {
    let (source, destination) = (card(2)?, card(2)?);
    let region = Region::find(&source)?;
    // Whatever was read last before the reset, nothing of that session comes again in the next.
    for accesses in 0..=4 {
        fill(&source, 0x41)?;
        let out = Client::new(region, Carrier::Words);
        out.save_setup()?;
        if accesses >= 1 {
            region.pending().named("pending_bytes")?;
        }
        if accesses >= 2 {
            region.data_offset().named("data_offset")?;
        }
        if accesses >= 3 {
            let size = region.data_size().named("data_size")?;
            region
                .get(region.data.offset, size as usize)
                .named("the piece")?;
        }
        if accesses >= 4 {
            equal("pending_bytes afterwards", region.pending(), Ok(0))?;
        }
        source.reset().named("reset")?;
        let what = format!("reset after {accesses} accesses");
        equal(format!("{what}: the state"), region.state(), Ok(RUNNING))?;
        offers_nothing(&what, &region)?;

        source.set_command(config::COMMAND_IO)?;
        fill(&source, 0x61)?;
        migrate(&source, &destination, Carrier::Words, Carrier::Words)?;
        has_content(&destination, 0x61)?;
        works(&destination)?;
        source.reset().named("reset after the migration")?;
        destination.reset().named("reset of the destination")?;
    }
    Ok(())
}

fn a_state_saved_to_disk_and_loaded_again() -> anyhow::Result<()> {
    let card = filled(2)?;
    let region = Region::find(&card)?;
    let mut client = Client::new(region, Carrier::Words);
    // savevm: the machine stops, is saved, and goes on.
    client.vm_stop_for_savevm()?;
    equal("state of the stopped device", region.state(), Ok(SAVING))?;
    client.save_setup()?;
    equal("state after save_setup", region.state(), Ok(SAVING))?;
    let mut records = Vec::new();
    while client.save_pending()? > 0 {
        records.extend(client.save_iterate()?);
    }
    records.extend(client.complete_precopy()?);
    client.vm_start()?;
    has_content(&card, 0x41)?;
    fill(&card, 0x61)?;
    // loadvm, twice, into the machine that saved it: it is stopped, its device is reset, and its state loaded.
    for _ in 0..2 {
        client.vm_stop()?;
        card.reset().named("reset")?;
        equal("state after reset", region.state(), Ok(RUNNING))?;
        client.load_setup()?;
        for record in &records {
            client.load_record(record)?.named("data_size")?;
        }
        client.vm_start()?;
        has_content(&card, 0x41)?;
    }
    // And without a reset: from STOP.
    client.vm_stop()?;
    equal("state of the stopped device", region.state(), Ok(STOP))?;
    client.load(&records)?;
    has_content(&card, 0x41)
}

fn there_and_back_ten_times() -> anyhow::Result<()> {
    let (here, there) = (filled(2)?, card(2)?);
    for turn in 0..10 {
        for (source, destination) in [(&here, &there), (&there, &here)] {
            migrate(source, destination, Carrier::Words, Carrier::Words)?;
            // The source's machine has ended; another one starts in its place.
            source.reset().named("reset of the source")?;
            source.set_command(config::COMMAND_IO)?;
            equal(
                format!("state of the destination in turn {turn}"),
                Region::find(destination)?.state(),
                Ok(RUNNING),
            )?;
        }
    }
    has_content(&here, 0x41)
}

fn configuration_and_interrupts_are_written_while_resuming() -> anyhow::Result<()> {
    let (source, destination) = (filled(1)?, card(1)?);
    source.set_config(config::LINE, &[11])?;
    let records = save_live(&Region::find(&source)?)?;
    let into = Client::new(Region::find(&destination)?, Carrier::Words);
    into.load_setup()?;
    for record in &records {
        into.load_record(record)?.named("data_size")?;
    }
    // The machine's own copy of the configuration space comes after the device's state.
    destination.set_command(config::COMMAND_IO)?;
    let event = destination.enable(INTX).named("INTx")?;
    destination
        .set_irqs(&IrqSet::none(INTX, IRQ_MASK))
        .named("mask")?;
    destination
        .set_irqs(&IrqSet::none(INTX, UNMASK))
        .named("unmask")?;
    equal("signals while resuming", event.count()?, 0)?;
    equal("state", into.region.state(), Ok(RESUMING))?;
    into.vm_start()?;
    equal("interrupt line", destination.config8(config::LINE)?, 11)?;
    destination
        .set_irqs(&IrqSet::disable(INTX))
        .named("disable INTx")?;
    has_content(&destination, 0x41)
}

fn an_intx_that_was_asserted_is_signalled_on_the_destination() -> anyhow::Result<()> {
    let (source, destination) = (card(1)?, card(1)?);
    let (from, to) = (source.enable(INTX)?, destination.enable(INTX)?);
    source.port(0).set(IER, IER_EMPTY)?;
    from.wait()?;
    let records = save_live(&Region::find(&source)?)?;
    let into = Client::new(Region::find(&destination)?, Carrier::Words);
    into.load_setup()?;
    for record in &records {
        into.load_record(record)?.named("data_size")?;
    }
    equal("signals while resuming", to.count()?, 0)?;
    into.vm_start()?;
    equal("signals when it runs", to.wait()?, 1)
}

/// The records of a stream: the phase of a setup record, the id of a section.
fn shape(stream: &[u8]) -> anyhow::Result<Vec<Result<u8, u16>>> {
    let records = Stream::parse(stream)?.records;
    Ok(records
        .iter()
        .map(|record| match record {
            Record::Setup(setup) => Ok(setup.phase),
            Record::Section(section) => Err(section.id),
            Record::Raw(_) => Err(u16::MAX),
        })
        .collect())
}

fn pre_copy_sends_the_setup_record_and_stop_and_copy_another() -> anyhow::Result<()> {
    let card = filled(1)?;
    let mut out = Client::new(Region::find(&card)?, Carrier::Words);
    out.save_setup()?;
    let mut ahead = Vec::new();
    while out.save_pending()? > 0 {
        ahead.extend(out.save_iterate()?.unwrap_or_default());
    }
    equal("pre-copy", shape(&ahead)?, vec![Ok(stream_forge::PRE_COPY)])?;
    out.vm_stop()?;
    let rest = stream(&out.complete_precopy()?);
    let rest = shape(&rest)?;
    equal(
        "first record of stop-and-copy",
        rest.first().copied(),
        Some(Ok(stream_forge::STOP_COPY)),
    )?;
    equal(
        "last record",
        rest.last().copied(),
        Some(Err(stream_forge::END)),
    )?;
    equal(
        "setup records in stop-and-copy",
        rest.iter().filter(|one| one.is_ok()).count(),
        1,
    )
}

fn stop_and_copy_alone_sends_its_setup_record_first() -> anyhow::Result<()> {
    let card = filled(1)?;
    let state = save_stopped(&Region::find(&card)?)?;
    let shape = shape(&state)?;
    equal(
        "first record",
        shape.first().copied(),
        Some(Ok(stream_forge::STOP_COPY)),
    )?;
    equal(
        "last record",
        shape.last().copied(),
        Some(Err(stream_forge::END)),
    )
}

fn a_vm_start_of_a_device_that_runs_changes_nothing() -> anyhow::Result<()> {
    let card = filled(1)?;
    let region = Region::find(&card)?;
    let client = Client::new(region, Carrier::Words);
    let before = card.plain_registers()?;
    client.vm_start()?;
    client.vm_start()?;
    equal("state", region.state(), Ok(RUNNING))?;
    same_bytes("registers", &card.plain_registers()?, &before)?;
    has_content(&card, 0x41)
}

fn pending_bytes_converges() -> anyhow::Result<()> {
    let card = filled(4)?;
    let region = Region::find(&card)?;
    for state in [PRE_COPY, SAVING] {
        reach(&region, state)?;
        let mut last = u64::MAX;
        let mut total = 0;
        loop {
            let pending = region.pending().named("pending_bytes")?;
            anyhow::ensure!(
                pending < last,
                "pending_bytes {pending} after {last} in {}",
                name(state)
            );
            if pending == 0 {
                break;
            }
            last = pending;
            region.data_offset().named("data_offset")?;
            let size = region.data_size().named("data_size")?;
            anyhow::ensure!(
                0 < size && size <= pending,
                "data_size {size} of {pending} pending bytes"
            );
            total += size;
        }
        anyhow::ensure!(total > 0, "nothing was sent in {}", name(state));
        offers_nothing("drained", &region)?;
        region.set_state(RUNNING).named("to RUNNING")?;
    }
    Ok(())
}
