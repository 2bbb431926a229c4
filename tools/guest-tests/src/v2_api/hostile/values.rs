// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Case 37: streams that are framed well and hold values that no card can have. The fields are those that `devices::serial`
//! documents for a saved card.

use super::super::card::Card;
use super::super::check::{equal, same_bytes, Named};
use super::super::uart::{DATA, LSR, LSR_DATA};
use super::{recover, refuses_stream, stopped_with_content, stopped_with_content_as, works};
use crate::ktap::Suite;
use crate::stream_forge::{Section, Stream};
use crate::vfio::interrupt::INTX;
use crate::vfio::{Errno, IrqSet, State};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_37_values_of_another_card_are_refused,
        hostile_37_registers_that_cannot_be_are_refused,
        hostile_37_queues_that_cannot_be_are_refused,
    );
    for compact in ["off", "on"] {
        let name = format!("hostile_37_every_byte_of_the_state_may_be_anything_compact_{compact}");
        suite.test(name, move || every_byte_may_be_anything(compact));
    }
}

/// A field of a section: what is wrong, where, and its little-endian value.
type Field = (&'static str, usize, &'static [u8]);

/// Checks that a state with any of `fields` in section `index` is refused with EINVAL.
fn fields_refused(index: usize, fields: &[Field]) -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(2)?;
    let stream = Stream::parse(&good)?;
    for (what, offset, value) in fields {
        let set = |section: &mut Section| {
            section.payload[*offset..offset + value.len()].copy_from_slice(value)
        };
        let wrong = stream.with_section(index, set).encode();
        anyhow::ensure!(wrong != good, "{what}: the state has that value already");
        let errno =
            refuses_stream(&card, &wrong, usize::MAX).map_err(|error| error.context(*what))?;
        equal(what, errno, Errno::EINVAL)?;
        recover(&card)?;
    }
    card.load(&good)?;
    same_bytes("the state after the good stream", &card.save()?, &good)
}

fn hostile_37_values_of_another_card_are_refused() -> anyhow::Result<()> {
    fields_refused(
        0,
        &[
            ("device ID of another card", 0, &[4, 0]),
            ("another number of ports", 2, &[4]),
            ("no ports", 2, &[0]),
            ("another FIFO depth", 3, &[64]),
            ("a FIFO depth that does not exist", 3, &[17]),
            ("reserved flags", 4, &[0xff]),
            ("reserved bits of the command register", 6, &[0xff, 0xff]),
            ("BAR 0 not aligned", 8, &[0x01]),
            ("MSI address not aligned", 16, &[0x03]),
            ("the gap", 14, &[1]),
        ],
    )
}

fn hostile_37_registers_that_cannot_be_are_refused() -> anyhow::Result<()> {
    fields_refused(
        1,
        &[
            ("IER", 0, &[0x80]),
            ("FCR with a bit that does not exist", 1, &[0x11]),
            ("FCR without its enable bit", 1, &[0x80]),
            ("MCR", 3, &[0xe0]),
            ("LSR with a bit that is not an error", 4, &[0x20]),
            ("MSR with a line", 5, &[0x10]),
            ("flags", 7, &[0xf0]),
            ("the gap", 14, &[1, 0]),
            ("a time-out in five hundred years", 16, &[0xff; 8]),
            ("no time-out although one is wanted", 16, &[0; 8]),
            ("a time-out that is due and was raised", 7, &[0x02]),
            ("a break although the line is not spacing", 24, &[1]),
        ],
    )
}

fn hostile_37_queues_that_cannot_be_are_refused() -> anyhow::Result<()> {
    fields_refused(
        2,
        &[
            ("17 characters in the receiver", 10, &[17]),
            ("65 characters in the receiver", 10, &[65]),
            ("255 characters in the receiver", 10, &[255]),
            ("17 characters in the transmitter", 11, &[17]),
            ("255 characters in the transmitter", 11, &[255]),
            ("a character in the transmitter that could leave", 11, &[1]),
            ("257 characters at the far end", 12, &[1, 1]),
            ("65535 characters at the far end", 12, &[0xff, 0xff]),
            (
                "characters at the far end although the receiver has room",
                10,
                &[1],
            ),
            ("a break that does not exist", 32 + 7, &[0x80]),
            (
                "a break at the far end that does not exist",
                40 + 31,
                &[0x80],
            ),
            ("a character behind the receiver's last", 72 + 63, &[0x41]),
            ("a character behind the transmitter's last", 136, &[0x41]),
            ("a character behind the far end's last", 200 + 255, &[0x41]),
        ],
    )
}

/// Uses everything that came out of a stream that was accepted.
fn exercise(card: &Card) -> anyhow::Result<()> {
    let size = card.data_size().named("data size")?;
    let again = card.save()?;
    anyhow::ensure!(
        again.len() as u64 <= size,
        "a state of {} bytes, but a data size of {size}",
        again.len()
    );
    card.switch(State::Running).named("to RUNNING")?;
    let _event = card.enable(INTX).named("INTx")?;
    for port in card.each_port() {
        for register in 0..8 {
            port.get(register)?;
        }
        // With the divisor latch open this reads the divisor instead, and may find "data" for ever.
        for _ in 0..400 {
            if port.get(LSR)? & LSR_DATA == 0 {
                break;
            }
            port.get(DATA)?;
        }
    }
    card.config_space()?;
    card.set_irqs(&IrqSet::disable(INTX)).named("disable INTx")
}

fn every_byte_may_be_anything(compact: &str) -> anyhow::Result<()> {
    let (card, good) = stopped_with_content_as(1, compact)?;
    let stream = Stream::parse(&good)?;
    let (mut accepted, mut refused) = (0, 0);
    for (index, section) in stream.sections().enumerate() {
        for place in 0..section.payload.len() {
            for change in [0x01, 0x80, 0xff] {
                let wrong = stream
                    .with_section(index, |section| section.payload[place] ^= change)
                    .encode();
                let what = || format!("section {index}, byte {place}, changed by {change:#04x}");
                let data = card.start(State::Resuming).named("to RESUMING")?;
                let written = data.write_all(&wrong, usize::MAX);
                let left = card.switch(State::Stop);
                match written.and(left) {
                    Ok(()) => {
                        accepted += 1;
                        exercise(&card).map_err(|error| error.context(what()))?;
                    }
                    Err(errno) => {
                        refused += 1;
                        equal(what(), errno, Errno::EINVAL)?;
                        equal(what(), card.state(), Ok(State::Resuming))?;
                    }
                }
                recover(&card)?;
            }
        }
    }
    crate::diag!("{accepted} changed states were accepted, {refused} refused");
    anyhow::ensure!(
        accepted > 0 && refused > 0,
        "{accepted} accepted, {refused} refused"
    );
    card.load(&good)?;
    same_bytes("the state after the good stream", &card.save()?, &good)?;
    recover(&card)?;
    card.switch(State::Running).named("to RUNNING")?;
    works(&card)
}
