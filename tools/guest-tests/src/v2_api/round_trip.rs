// SPDX-License-Identifier: GPL-2.0 OR MIT

//! State saved by one card and loaded by another: nothing is lost, doubled or changed.

use super::card::{config, Card, PORTS};
use super::check::{equal, equal_hex, refused, same_bytes, Named};
use super::uart::*;
use crate::kernel;
use crate::ktap::Suite;
use crate::stream_forge::{Record, Stream, PRE_COPY, STOP_COPY};
use crate::vfio::interrupt::{INTX, MSI, UNMASK};
use crate::vfio::{Access, Errno, Event, IrqSet, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(suite, a_state_goes_from_one_card_to_another);
    tests!(
        suite,
        characters_in_every_place_arrive_in_order,
        registers_arrive_as_they_were,
        the_configuration_space_arrives_as_it_was,
        changes_of_modem_lines_not_seen_yet_arrive,
        a_character_time_out_not_seen_yet_arrives,
        an_asserted_intx_is_signalled_on_the_destination,
        a_loaded_card_signals_intx_once_without_a_cause,
        an_intx_not_enabled_before_running_is_signalled_when_it_is,
        a_message_not_acknowledged_is_signalled_on_the_destination,
        what_happens_in_pre_copy_is_part_of_the_state,
        a_state_goes_there_and_back_many_times,
        a_state_loaded_over_another_replaces_all_of_it,
        a_loaded_card_can_be_saved_for_a_third,
        a_state_is_the_same_in_either_form,
        the_stream_is_framed_as_documented,
        the_first_setup_record_is_verified_in_both_phases,
        a_card_with_other_ports_refuses_the_setup_record,
    );
}

/// Two cards of `ports` ports, the second opened as told.
fn pair(ports: u32, access: Access) -> anyhow::Result<(Card, Card)> {
    Ok((Card::new(ports)?, Card::opened(ports, access)?))
}

/// Characters of port `port`.
fn content(port: u32, count: usize) -> Vec<u8> {
    (0..count)
        .map(|index| {
            (index as u8)
                .wrapping_mul(11)
                .wrapping_add(port as u8 * 53 + 1)
        })
        .collect()
}

/// Gives each port registers of its own and characters: `count` per port and one more for each port before it.
fn fill(card: &Card, event: &Event, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for number in 0..card.ports {
        let line = card.line(number, event);
        line.port
            .set_up([0, FCR_TRIGGER_4, FCR_TRIGGER_8, FCR_TRIGGER_14][number as usize])?;
        line.port.set_divisor(0x0101 + number as u16)?;
        line.port.set(SCR, 0xc0 + number as u8)?;
        let bytes = content(number, count + number as usize);
        line.send(&bytes)?;
        all.push(bytes);
    }
    Ok(all)
}

/// Moves the state of `source` to `destination` with pre-copy, as a virtual machine monitor does; leaves the source in
/// STOP and the destination in RUNNING.
fn migrate(source: &Card, destination: &Card) -> anyhow::Result<Vec<u8>> {
    let stream = transfer(source, destination)?;
    destination
        .switch(State::Running)
        .named("destination to RUNNING")?;
    Ok(stream)
}

/// The same, but leaves both in STOP.
fn transfer(source: &Card, destination: &Card) -> anyhow::Result<Vec<u8>> {
    let out = source.start(State::PreCopy).named("source to PRE_COPY")?;
    let into = destination
        .start(State::Resuming)
        .named("destination to RESUMING")?;
    let first = out.read_all(100).named("read in PRE_COPY")?;
    into.write_all(&first, 33)
        .named("write of what pre-copy gave")?;
    source
        .switch(State::StopCopy)
        .named("source to STOP_COPY")?;
    let second = out.read_all(1000).named("read in STOP_COPY")?;
    into.write_all(&second, 333)
        .named("write of what stop-and-copy gave")?;
    source.switch(State::Stop).named("source to STOP")?;
    drop(into);
    destination
        .switch(State::Stop)
        .named("destination to STOP")?;
    Ok([first, second].concat())
}

fn a_state_goes_from_one_card_to_another(access: Access) -> anyhow::Result<()> {
    for ports in PORTS {
        let (source, destination) = pair(ports, access)?;
        let (from, to) = (source.enable(INTX)?, destination.enable(INTX)?);
        let sent = fill(&source, &from, 60)?;
        transfer(&source, &destination)?;
        same_bytes(
            "the state afterwards",
            &destination.save()?,
            &source.save()?,
        )?;
        destination
            .switch(State::Running)
            .named("destination to RUNNING")?;
        for (number, bytes) in (0..).zip(&sent) {
            let line = destination.line(number, &to);
            same_bytes(
                format!("characters of port {number}"),
                &line.receive(bytes.len())?,
                bytes,
            )?;
            line.echo(&content(number, 100))?;
        }
    }
    Ok(())
}

fn characters_in_every_place_arrive_in_order() -> anyhow::Result<()> {
    // In the receiver only; at the far end too; in the transmitter too.
    for count in [
        1,
        FIFO - 1,
        FIFO,
        FIFO + 1,
        FIFO + 100,
        FIFO + 256,
        FIFO + 256 + 1,
    ] {
        let (source, destination) = pair(2, kernel::usual_access())?;
        let (from, to) = (source.enable(INTX)?, destination.enable(INTX)?);
        let sent = fill(&source, &from, count - 1)?;
        migrate(&source, &destination)?;
        for (number, bytes) in (0..).zip(&sent) {
            let line = destination.line(number, &to);
            same_bytes(
                format!("{count} characters, port {number}"),
                &line.receive(bytes.len())?,
                bytes,
            )?;
            equal("more characters", line.port.get(LSR)? & LSR_DATA, 0)?;
        }
    }
    Ok(())
}

fn registers_arrive_as_they_were() -> anyhow::Result<()> {
    let (source, destination) = pair(4, kernel::usual_access())?;
    let values = [0x03, 0x1b, 0x06, 0x1f];
    for (number, port) in (0_u16..).zip(source.each_port()) {
        port.set_divisor(0x1230 + number)?;
        port.set(LCR, values[usize::from(number)])?;
        port.set(MCR, 0x0b + number as u8)?;
        port.set(SCR, 0x50 + number as u8)?;
        port.set(FCR, FCR_ENABLE | FCR_TRIGGER_8)?;
        port.set(IER, number as u8 * 5)?;
    }
    let before = source.plain_registers()?;
    migrate(&source, &destination)?;
    same_bytes(
        "IER, LCR, MCR, SCR",
        &destination.plain_registers()?,
        &before,
    )?;
    for (number, port) in (0_u16..).zip(destination.each_port()) {
        equal_hex(
            format!("divisor of port {number}"),
            port.divisor()?.into(),
            0x1230 + u64::from(number),
        )?;
        equal_hex(
            "the FIFO bits",
            (port.get(IIR)? & IIR_FIFO).into(),
            IIR_FIFO.into(),
        )?;
    }
    Ok(())
}

fn the_configuration_space_arrives_as_it_was() -> anyhow::Result<()> {
    let (source, destination) = pair(2, kernel::usual_access())?;
    source.enable_msi()?;
    source.set_command(config::COMMAND_IO | config::COMMAND_MASTER | config::COMMAND_INTX_OFF)?;
    source.set_config(config::BAR0, &0x0000_c050_u32.to_le_bytes())?;
    source.set_config(config::LINE, &[11])?;
    let message = source.msi_capability()? + 4;
    source.set_config(message, &0xfee0_1234_u32.to_le_bytes())?;
    let before = source.config_space()?;
    migrate(&source, &destination)?;
    same_bytes(
        "the configuration space",
        &destination.config_space()?,
        &before,
    )
}

fn changes_of_modem_lines_not_seen_yet_arrive() -> anyhow::Result<()> {
    let (source, destination) = pair(1, kernel::usual_access())?;
    let event = destination.enable(INTX)?;
    source.port(0).get(MSR)?;
    source.port(0).set(MCR, MCR_RTS)?;
    source.port(0).set(IER, IER_MODEM)?;
    migrate(&source, &destination)?;
    equal("signals", event.wait()?, 1)?;
    equal_hex(
        "identification",
        destination.port(0).interrupt()?.into(),
        IIR_MODEM.into(),
    )?;
    equal_hex("MSR", destination.port(0).get(MSR)?.into(), 0x11)?;
    equal_hex("MSR read again", destination.port(0).get(MSR)?.into(), 0x10)
}

fn a_character_time_out_not_seen_yet_arrives() -> anyhow::Result<()> {
    // Raised before the migration, and due after it: four characters at 9600 baud take 4 ms.
    for raised in [true, false] {
        let (source, destination) = pair(1, kernel::usual_access())?;
        let (from, to) = (source.enable(INTX)?, destination.enable(INTX)?);
        let port = source.port(0);
        port.set_up(FCR_TRIGGER_8)?;
        port.set_divisor(if raised { 12 } else { 1200 })?;
        port.set(IER, IER_DATA)?;
        port.set(DATA, 0x42)?;
        if raised {
            from.wait()?;
        }
        migrate(&source, &destination)?;
        if !raised {
            equal("signals without a cause", to.wait()?, 1)?;
            destination
                .set_irqs(&IrqSet::none(INTX, UNMASK))
                .named("unmask")?;
        }
        equal("signals on the destination", to.wait()?, 1)?;
        equal_hex(
            "identification",
            destination.port(0).interrupt()?.into(),
            IIR_TIMEOUT.into(),
        )?;
        equal_hex("the character", destination.port(0).get(DATA)?.into(), 0x42)?;
        equal_hex(
            "identification afterwards",
            destination.port(0).interrupt()?.into(),
            IIR_NONE.into(),
        )?;
    }
    Ok(())
}

fn an_asserted_intx_is_signalled_on_the_destination() -> anyhow::Result<()> {
    let (source, destination) = pair(1, kernel::usual_access())?;
    let (from, to) = (source.enable(INTX)?, destination.enable(INTX)?);
    source.port(0).set(IER, IER_EMPTY)?;
    from.wait()?;
    let stream = source.stop_and_save()?;
    equal("signals on the destination before", to.count()?, 0)?;
    destination.load(&stream)?;
    equal("signals on the destination in STOP", to.count()?, 0)?;
    destination.switch(State::Running).named("to RUNNING")?;
    equal("signals on the destination in RUNNING", to.wait()?, 1)?;
    equal_hex(
        "identification",
        destination.port(0).interrupt()?.into(),
        IIR_EMPTY.into(),
    )?;
    destination
        .set_irqs(&IrqSet::none(INTX, UNMASK))
        .named("unmask")?;
    equal("signals after it was served", to.count()?, 0)
}

/// A user that took over from the source's that the pin is asserted, after the source had taken its interrupt back, has to look.
fn a_loaded_card_signals_intx_once_without_a_cause() -> anyhow::Result<()> {
    let (source, destination) = pair(1, kernel::usual_access())?;
    let event = destination.enable(INTX)?;
    destination.load(&source.stop_and_save()?)?;
    equal("signals in STOP", event.count()?, 0)?;
    destination.switch(State::Running).named("to RUNNING")?;
    equal("signals in RUNNING", event.wait()?, 1)?;
    equal_hex(
        "identification",
        destination.port(0).interrupt()?.into(),
        IIR_NONE.into(),
    )?;
    destination
        .set_irqs(&IrqSet::none(INTX, UNMASK))
        .named("unmask")?;
    equal("signals after it was unmasked", event.count()?, 0)?;
    // Nothing is loaded in between.
    destination.switch(State::Stop).named("to STOP")?;
    destination
        .switch(State::Running)
        .named("to RUNNING once more")?;
    equal("signals when it runs again", event.count()?, 0)
}

fn an_intx_not_enabled_before_running_is_signalled_when_it_is() -> anyhow::Result<()> {
    let (source, destination) = pair(1, kernel::usual_access())?;
    source.port(0).set(IER, IER_EMPTY)?;
    migrate(&source, &destination)?;
    let event = destination.enable(INTX)?;
    equal("signals", event.wait()?, 1)
}

fn a_message_not_acknowledged_is_signalled_on_the_destination() -> anyhow::Result<()> {
    let (source, destination) = pair(1, kernel::usual_access())?;
    source.enable_msi()?;
    let from = source.enable(MSI)?;
    source.port(0).set(IER, IER_EMPTY)?;
    from.wait()?;
    let to = destination.enable(MSI)?;
    migrate(&source, &destination)?;
    // The source's signal may have been lost on its way to the guest, so the destination repeats it.
    equal("signals on the destination", to.wait()?, 1)?;
    equal_hex(
        "identification",
        destination.port(0).interrupt()?.into(),
        IIR_EMPTY.into(),
    )
}

fn what_happens_in_pre_copy_is_part_of_the_state() -> anyhow::Result<()> {
    let (source, destination) = pair(1, kernel::usual_access())?;
    let (from, to) = (source.enable(INTX)?, destination.enable(INTX)?);
    let line = source.line(0, &from);
    line.port.set_up(0)?;
    line.send(b"before, ")?;
    let out = source.start(State::PreCopy).named("to PRE_COPY")?;
    let mut stream = out.read_all(64).named("read in PRE_COPY")?;
    line.send(b"during, ")?;
    source.switch(State::PreCopyP2p).named("to PRE_COPY_P2P")?;
    line.send(b"and after")?;
    source.switch(State::StopCopy).named("to STOP_COPY")?;
    stream.extend(out.read_all(64).named("read in STOP_COPY")?);
    destination.load(&stream)?;
    destination.switch(State::Running).named("to RUNNING")?;
    same_bytes(
        "characters",
        &destination.line(0, &to).receive(25)?,
        b"before, during, and after",
    )
}

fn a_state_goes_there_and_back_many_times() -> anyhow::Result<()> {
    let (here, there) = pair(2, Access::Group)?;
    let (first, second) = (here.enable(INTX)?, there.enable(INTX)?);
    let sent = fill(&here, &first, 150)?;
    for _ in 0..10 {
        migrate(&here, &there)?;
        migrate(&there, &here)?;
    }
    // From STOP, where it was left, the source of the last migration is of no use until it is reset.
    drop(second);
    for (number, bytes) in (0..).zip(&sent) {
        same_bytes(
            format!("characters of port {number}"),
            &here.line(number, &first).receive(bytes.len())?,
            bytes,
        )?;
    }
    Ok(())
}

fn a_state_loaded_over_another_replaces_all_of_it() -> anyhow::Result<()> {
    let (source, destination) = pair(2, kernel::usual_access())?;
    let plain = source.stop_and_save()?;
    let event = destination.enable(INTX)?;
    fill(&destination, &event, 200)?;
    destination.enable_msi()?;
    destination.load(&plain)?;
    same_bytes("the state", &destination.save()?, &plain)
}

fn a_loaded_card_can_be_saved_for_a_third() -> anyhow::Result<()> {
    let cards = [Card::new(1)?, Card::new(1)?, Card::new(1)?];
    let event = cards[0].enable(INTX)?;
    let sent = fill(&cards[0], &event, 100)?;
    let first = cards[0].stop_and_save()?;
    // Without running in between.
    cards[1].load(&first)?;
    let second = cards[1].save()?;
    cards[2].load(&second)?;
    same_bytes("the state of the third", &cards[2].save()?, &first)?;
    cards[2].switch(State::Running).named("to RUNNING")?;
    let event = cards[2].enable(INTX)?;
    same_bytes(
        "characters",
        &cards[2].line(0, &event).receive(100)?,
        &sent[0],
    )
}

fn a_state_is_the_same_in_either_form() -> anyhow::Result<()> {
    let (source, destination) = pair(2, kernel::usual_access())?;
    let event = source.enable(INTX)?;
    fill(&source, &event, 30)?;
    let mut lengths = Vec::new();
    for form in ["on", "off", "on"] {
        for card in [&source, &destination] {
            card.instance
                .set_attribute("migration/compact-state", form)?;
        }
        let stream = transfer(&source, &destination)?;
        same_bytes(
            format!("the state, compact {form}"),
            &destination.save()?,
            &source.save()?,
        )?;
        same_bytes(
            "registers",
            &destination.plain_registers()?,
            &source.plain_registers()?,
        )?;
        lengths.push(stream.len());
    }
    anyhow::ensure!(
        lengths[0] < lengths[1] && lengths[0] == lengths[2],
        "lengths of the streams: {lengths:?}"
    );
    Ok(())
}

fn the_stream_is_framed_as_documented() -> anyhow::Result<()> {
    for ports in PORTS {
        let (source, destination) = pair(ports, kernel::usual_access())?;
        let bytes = migrate(&source, &destination)?;
        let stream = Stream::parse(&bytes)?;
        let phases: Vec<u8> = stream
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Setup(setup) => Some(setup.phase),
                _ => None,
            })
            .collect();
        equal(
            "phases of the setup records",
            phases,
            vec![PRE_COPY, STOP_COPY],
        )?;
        for record in &stream.records {
            if let Record::Setup(setup) = record {
                let model = String::from_utf8_lossy(&setup.model);
                equal("model", model.as_ref(), "rust-vfio-mdev.example/pci/serial")?;
                equal("format version", (setup.major, setup.minor), (1, 0))?;
            }
        }
        anyhow::ensure!(stream.sections().count() > 0, "a state without sections");
        let Some(Record::Section(end)) = stream.records.last() else {
            anyhow::bail!("the stream does not end with a section");
        };
        equal(
            "the last section",
            (end.id, end.flags, end.payload.len()),
            (0, 1, 0),
        )?;
    }
    Ok(())
}

fn the_first_setup_record_is_verified_in_both_phases() -> anyhow::Result<()> {
    for state in [State::PreCopy, State::StopCopy] {
        let (source, destination) = pair(1, kernel::usual_access())?;
        let data = source.start(state).named(format!("to {state:?}"))?;
        let bytes = data.read_all(1 << 16).named("read")?;
        let stream = Stream::parse(&bytes)?;
        let foreign = stream.with_setup(|setup| setup.model = b"other.example/pci/serial".to_vec());
        let place = foreign.boundaries()[1];
        let into = destination.start(State::Resuming).named("to RESUMING")?;
        refused(
            format!("a foreign setup record, {state:?}"),
            into.write(&foreign.encode()[..place]),
            Errno::EINVAL,
        )?;
        let reason = destination.reason();
        anyhow::ensure!(
            reason.contains("other.example/pci/serial"),
            "the reason is {reason:?}"
        );
    }
    Ok(())
}

fn a_card_with_other_ports_refuses_the_setup_record() -> anyhow::Result<()> {
    for (from, to) in [(1, 2), (2, 1), (4, 2), (1, 4)] {
        let (source, destination) = (Card::new(from)?, Card::new(to)?);
        let out = source.start(State::PreCopy).named("source to PRE_COPY")?;
        let first = out.read_all(1 << 16).named("read")?;
        let into = destination
            .start(State::Resuming)
            .named("destination to RESUMING")?;
        refused(
            format!("setup record of {from} ports for {to}"),
            into.write(&first),
            Errno::EINVAL,
        )?;
        let reason = destination.reason();
        anyhow::ensure!(reason.contains("num-ports"), "the reason is {reason:?}");
        // The source goes on as if nothing had been.
        source.switch(State::Running).named("source to RUNNING")?;
        let event = source.enable(INTX)?;
        source.port(0).set_up(0)?;
        source.line(0, &event).echo(b"still here")?;
        destination.reset().named("reset of the destination")?;
        equal(
            "state of the destination",
            destination.state(),
            Ok(State::Running),
        )?;
    }
    Ok(())
}
