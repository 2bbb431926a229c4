// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The UARTs and their far ends, through the region. Source: National Semiconductor PC16550D data sheet, section 8, called
//! NS below. The far end of each port is a plug that returns what it is sent and can hold 256 characters.

use super::card::{Card, PORTS};
use super::check::{equal, equal_hex, same_bytes, Named};
use super::uart::*;
use crate::ktap::Suite;
use crate::vfio::interrupt::INTX;
use crate::vfio::Access;

/// Characters that a far end holds.
const FAR_END: usize = 256;
/// A divisor at which four characters take some twenty seconds, so that no time-out gets in a test's way.
const SLOW: u16 = 0xffff;

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(suite, every_port_echoes_in_order);
    tests!(
        suite,
        uart_registers_start_as_the_data_sheet_says,
        reserved_bits_of_uart_registers_read_as_zero,
        the_divisor_latch_hides_two_registers,
        reading_the_identification_clears_only_transmitter_empty,
        received_data_interrupts_at_the_trigger_level,
        characters_below_the_trigger_level_time_out,
        characters_wait_at_the_far_end_while_the_fifo_is_full,
        a_full_far_end_holds_the_transmitter,
        short_words_lose_their_upper_bits,
        local_loop_back_connects_the_port_to_itself,
        the_plug_wires_the_modem_lines,
        interrupts_are_identified_in_order_of_priority,
        a_break_is_shown_with_its_character,
        reset_empties_fifos_and_far_ends,
    );
}

/// `count` characters that differ from those of another port.
fn pattern(port: u32, count: usize) -> Vec<u8> {
    (0..count)
        .map(|index| (index as u8).wrapping_mul(7).wrapping_add(port as u8 * 61))
        .collect()
}

fn every_port_echoes_in_order(access: Access) -> anyhow::Result<()> {
    for ports in PORTS {
        let card = Card::opened(ports, access)?;
        let event = card.enable(INTX)?;
        for port in card.each_port() {
            port.set_up(0)?;
        }
        // A few characters at a time, from port to port.
        let all: Vec<_> = (0..ports).map(|port| pattern(port, 90)).collect();
        for start in (0..90).step_by(15) {
            for (port, bytes) in all.iter().enumerate() {
                card.line(port as u32, &event)
                    .echo(&bytes[start..start + 15])?;
            }
        }
    }
    Ok(())
}

fn uart_registers_start_as_the_data_sheet_says() -> anyhow::Result<()> {
    let card = Card::new(4)?;
    for (number, port) in card.each_port().enumerate() {
        // NS table II.
        for (register, name, value) in [
            (IER, "IER", 0x00),
            (IIR, "IIR", 0x01),
            (LCR, "LCR", 0x00),
            (MCR, "MCR", 0x00),
            (LSR, "LSR", 0x60),
        ] {
            equal_hex(
                format!("{name} of port {number}"),
                port.get(register)?.into(),
                value,
            )?;
        }
        equal_hex(
            format!("changes in MSR of port {number}"),
            (port.get(MSR)? & !MSR_LINES).into(),
            0,
        )?;
    }
    Ok(())
}

fn reserved_bits_of_uart_registers_read_as_zero() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let port = card.port(0);
    port.set(IER, 0xff)?;
    equal_hex("IER", port.get(IER)?.into(), 0x0f)?;
    port.set(MCR, 0xff)?;
    equal_hex("MCR", port.get(MCR)?.into(), 0x1f)?;
    for value in [0x00, 0xff, 0x5a] {
        port.set(SCR, value)?;
        equal_hex("SCR", port.get(SCR)?.into(), value.into())?;
    }
    Ok(())
}

fn the_divisor_latch_hides_two_registers() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let port = card.port(1);
    port.set(IER, IER_MODEM)?;
    port.set_divisor(0x1234)?;
    equal_hex(
        "IER behind the latch",
        port.get(IER)?.into(),
        IER_MODEM.into(),
    )?;
    equal_hex("the divisor", port.divisor()?.into(), 0x1234)?;
    equal("received data", port.get(LSR)? & LSR_DATA, 0)?;
    equal_hex(
        "the divisor of the other port",
        (card.port(0).divisor()? == 0x1234).into(),
        0,
    )
}

fn reading_the_identification_clears_only_transmitter_empty() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let port = card.port(0);
    port.set_up(0)?;
    port.set_divisor(SLOW)?;
    port.set(IER, IER_EMPTY)?;
    equal_hex("first read", port.interrupt()?.into(), IIR_EMPTY.into())?;
    equal_hex("second read", port.interrupt()?.into(), IIR_NONE.into())?;
    port.set(DATA, 0x31)?;
    equal_hex(
        "after a character left",
        port.interrupt()?.into(),
        IIR_EMPTY.into(),
    )?;

    port.set(IER, IER_DATA)?;
    for _ in 0..2 {
        equal_hex("received data", port.interrupt()?.into(), IIR_DATA.into())?;
    }
    equal_hex("the character", port.get(DATA)?.into(), 0x31)?;
    equal_hex(
        "after it was read",
        port.interrupt()?.into(),
        IIR_NONE.into(),
    )?;
    equal_hex(
        "the FIFO bits",
        (port.get(IIR)? & IIR_FIFO).into(),
        IIR_FIFO.into(),
    )
}

fn received_data_interrupts_at_the_trigger_level() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    for (trigger, level) in [
        (0, 1),
        (FCR_TRIGGER_4, 4),
        (FCR_TRIGGER_8, 8),
        (FCR_TRIGGER_14, 14),
    ] {
        let port = card.port(0);
        port.set_up(trigger)?;
        port.set_divisor(SLOW)?;
        port.set(IER, IER_DATA)?;
        for count in 1..level {
            port.set(DATA, count)?;
            equal_hex(
                format!("{count} of {level} characters"),
                port.interrupt()?.into(),
                IIR_NONE.into(),
            )?;
        }
        equal("signals below the level", event.count()?, 0)?;
        port.set(DATA, level)?;
        equal(format!("signals at {level}"), event.wait()?, 1)?;
        equal_hex(
            format!("{level} characters"),
            port.interrupt()?.into(),
            IIR_DATA.into(),
        )?;
        equal("the first character", port.get(DATA)?, 1)?;
        equal_hex(
            "one below the level",
            port.interrupt()?.into(),
            IIR_NONE.into(),
        )?;
        card.set_irqs(&crate::vfio::IrqSet::none(
            INTX,
            crate::vfio::interrupt::UNMASK,
        ))
        .named("unmask")?;
    }
    Ok(())
}

fn characters_below_the_trigger_level_time_out() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let event = card.enable(INTX)?;
    let line = card.line(1, &event);
    for round in 0..3 {
        line.port.set_up(FCR_TRIGGER_8)?;
        line.port.set(IER, IER_DATA)?;
        line.port.set(DATA, 0x55)?;
        equal(format!("signals in round {round}"), event.wait()?, 1)?;
        equal_hex(
            "identification",
            line.port.interrupt()?.into(),
            IIR_TIMEOUT.into(),
        )?;
        equal_hex("the character", line.port.get(DATA)?.into(), 0x55)?;
        equal_hex(
            "after it was read",
            line.port.interrupt()?.into(),
            IIR_NONE.into(),
        )?;
        card.set_irqs(&crate::vfio::IrqSet::none(
            INTX,
            crate::vfio::interrupt::UNMASK,
        ))
        .named("unmask")?;
        equal("signals after the unmask", event.count()?, 0)?;
    }
    Ok(())
}

fn characters_wait_at_the_far_end_while_the_fifo_is_full() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let event = card.enable(INTX)?;
    for number in 0..2 {
        let line = card.line(number, &event);
        line.port.set_up(FCR_TRIGGER_14)?;
        let bytes = pattern(number, FIFO + 100);
        line.send(&bytes)?;
        equal_hex("overrun", (line.port.get(LSR)? & LSR_OVERRUN).into(), 0)?;
        same_bytes(
            format!("what port {number} received"),
            &line.receive(bytes.len())?,
            &bytes,
        )?;
        equal_hex("more data", (line.port.get(LSR)? & LSR_DATA).into(), 0)?;
    }
    Ok(())
}

fn a_full_far_end_holds_the_transmitter() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    let line = card.line(0, &event);
    line.port.set_up(FCR_TRIGGER_14)?;
    let bytes = pattern(0, 1000);
    let mut sent = 0;
    while line.port.get(LSR)? & LSR_EMPTY != 0 && sent < bytes.len() {
        line.port.set(DATA, bytes[sent])?;
        sent += 1;
    }
    equal(
        "characters until the transmitter is not empty",
        sent,
        FIFO + FAR_END + 1,
    )?;
    // The transmit FIFO has one character and room for fifteen more.
    for byte in &bytes[sent..sent + FIFO - 1] {
        line.port.set(DATA, *byte)?;
    }
    sent += FIFO - 1;
    same_bytes("what came back", &line.receive(sent)?, &bytes[..sent])?;
    equal_hex(
        "LSR in the end",
        line.port.get(LSR)?.into(),
        (LSR_EMPTY | LSR_IDLE).into(),
    )
}

fn short_words_lose_their_upper_bits() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    let line = card.line(0, &event);
    line.port.set_up(0)?;
    for bits in 5..=8 {
        line.port.set(LCR, bits - 5)?;
        line.send(&[0xff])?;
        let mask = 0xff_u8 >> (8 - bits);
        equal_hex(
            format!("0xff in {bits} bits"),
            line.receive(1)?[0].into(),
            mask.into(),
        )?;
    }
    Ok(())
}

fn local_loop_back_connects_the_port_to_itself() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    let line = card.line(0, &event);
    let port = line.port;
    port.set_up(0)?;
    // NS, MCR bit 4: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
    for (outputs, inputs) in [
        (0, 0),
        (MCR_RTS, MSR_CTS),
        (MCR_DTR, MSR_DSR),
        (MCR_OUT1, MSR_RI),
        (MCR_OUT2, MSR_DCD),
        (MCR_RTS | MCR_DTR | MCR_OUT1 | MCR_OUT2, MSR_LINES),
    ] {
        port.set(MCR, MCR_LOOP | outputs)?;
        equal_hex(
            format!("MSR with outputs {outputs:#x}"),
            (port.get(MSR)? & MSR_LINES).into(),
            inputs.into(),
        )?;
    }
    line.echo(b"to myself")?;
    port.set(MCR, MCR_DTR | MCR_RTS)?;
    equal_hex(
        "data from the far end afterwards",
        (port.get(LSR)? & LSR_DATA).into(),
        0,
    )?;
    line.echo(b"to the far end")
}

fn the_plug_wires_the_modem_lines() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    let port = card.port(0);
    port.get(MSR)?;
    port.set(IER, IER_MODEM)?;
    // RTS to CTS; DTR to DSR and carrier. The low half of MSR tells what changed since it was read.
    for (outputs, status) in [
        (MCR_RTS, 0x11),
        (MCR_RTS | MCR_DTR, 0xba),
        (MCR_DTR, 0xa1),
        (MCR_DTR | MCR_OUT1 | MCR_OUT2, 0xa0),
        (0, 0x0a),
    ] {
        port.set(MCR, outputs)?;
        if status & 0x0f != 0 {
            equal("signals", event.wait()?, 1)?;
            equal_hex("identification", port.interrupt()?.into(), IIR_MODEM.into())?;
        }
        equal_hex(
            format!("MSR with outputs {outputs:#x}"),
            port.get(MSR)?.into(),
            status,
        )?;
        equal_hex(
            "identification after MSR was read",
            port.interrupt()?.into(),
            IIR_NONE.into(),
        )?;
        card.set_irqs(&crate::vfio::IrqSet::none(
            INTX,
            crate::vfio::interrupt::UNMASK,
        ))
        .named("unmask")?;
    }
    Ok(())
}

/// Sends a break, which takes as long as a character, and waits until the far end has returned it.
fn send_break(line: &Line<'_>) -> anyhow::Result<()> {
    line.port.set(IER, IER_LINE)?;
    line.port.set(LCR, LCR_8N1 | LCR_BREAK)?;
    line.event.wait()?;
    equal_hex(
        "identification of a break",
        line.port.interrupt()?.into(),
        IIR_LINE.into(),
    )?;
    line.port.set(LCR, LCR_8N1)?;
    line.port.set(IER, 0)
}

fn interrupts_are_identified_in_order_of_priority() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    let port = card.port(0);
    port.set_up(0)?;
    // Without FIFOs there are no time-outs. All four at once: a break, its character, an empty transmitter, a modem line.
    port.set(FCR, 0)?;
    send_break(&card.line(0, &event))?;
    port.set(MCR, MCR_DTR)?;
    port.set(IER, IER_DATA | IER_EMPTY | IER_LINE | IER_MODEM)?;

    equal_hex("first", port.interrupt()?.into(), IIR_LINE.into())?;
    port.get(LSR)?;
    equal_hex(
        "after LSR was read",
        port.interrupt()?.into(),
        IIR_DATA.into(),
    )?;
    port.get(DATA)?;
    equal_hex(
        "after the character was read",
        port.interrupt()?.into(),
        IIR_EMPTY.into(),
    )?;
    equal_hex(
        "after the identification was read",
        port.interrupt()?.into(),
        IIR_MODEM.into(),
    )?;
    port.get(MSR)?;
    equal_hex(
        "after MSR was read",
        port.interrupt()?.into(),
        IIR_NONE.into(),
    )
}

fn a_break_is_shown_with_its_character() -> anyhow::Result<()> {
    const BREAK: u8 = 1 << 4;
    const IN_FIFO: u8 = 1 << 7;
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    let port = card.port(0);
    port.set_up(0)?;
    send_break(&card.line(0, &event))?;
    port.set(DATA, 0x42)?;
    let errors = |port: Port<'_>| -> anyhow::Result<u8> { Ok(port.get(LSR)? & (BREAK | IN_FIFO)) };
    equal_hex(
        "LSR with the break in front",
        errors(port)?.into(),
        (BREAK | IN_FIFO).into(),
    )?;
    equal_hex("LSR read again", errors(port)?.into(), 0)?;
    equal_hex("the character of the break", port.get(DATA)?.into(), 0)?;
    equal_hex("the character after", port.get(DATA)?.into(), 0x42)?;
    equal_hex("LSR in the end", errors(port)?.into(), 0)
}

fn reset_empties_fifos_and_far_ends() -> anyhow::Result<()> {
    let card = Card::new(2)?;
    let event = card.enable(INTX)?;
    let power_on = card.plain_registers()?;
    for number in 0..2 {
        let line = card.line(number, &event);
        line.port.set_up(FCR_TRIGGER_8)?;
        line.port.set(SCR, 0x77)?;
        line.send(&pattern(number, 100))?;
    }
    card.reset().named("reset")?;
    let mut after = card.plain_registers()?;
    // The command register is the one thing that the test set before it looked.
    after[4] = power_on[4];
    same_bytes("registers after reset", &after, &power_on)?;
    for port in card.each_port() {
        equal_hex(
            "LSR after reset",
            port.get(LSR)?.into(),
            (LSR_EMPTY | LSR_IDLE).into(),
        )?;
        port.set_up(0)?;
        equal_hex(
            "LSR after set-up",
            port.get(LSR)?.into(),
            (LSR_EMPTY | LSR_IDLE).into(),
        )?;
    }
    Ok(())
}
