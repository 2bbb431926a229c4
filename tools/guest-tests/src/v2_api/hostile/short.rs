// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Case 34: RESUMING is left before the stream is complete.

use super::super::check::{equal, refused, same_bytes, Named};
use super::{recover, stopped_with_content, works};
use crate::ktap::Suite;
use crate::stream_forge::{Record, Stream, PRE_COPY};
use crate::vfio::{Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_34_short_stream_then_leave_resuming_is_refused,
        hostile_34_a_short_stream_can_still_be_completed,
        hostile_34_a_stream_of_pre_copy_alone_is_short,
        hostile_34_reset_ends_a_session_with_a_short_stream,
    );
}

fn hostile_34_short_stream_then_leave_resuming_is_refused() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(2)?;
    let mut places = Stream::parse(&good)?.boundaries();
    places.pop();
    // At every record, within its header and within its content.
    let around: Vec<usize> = places
        .iter()
        .flat_map(|place| [*place, place + 1, place + 7, place + 8, place + 20])
        .collect();
    for place in around
        .into_iter()
        .chain([good.len() - 1])
        .filter(|place| *place < good.len())
    {
        let data = card.start(State::Resuming).named("to RESUMING")?;
        data.write_all(&good[..place], 4096).named("write")?;
        for target in [State::Stop, State::Running, State::StopCopy, State::PreCopy] {
            refused(
                format!("{place} bytes, to {target:?}"),
                card.move_to(target).map(drop),
                Errno::EINVAL,
            )?;
            equal(
                format!("state after {place} bytes"),
                card.state(),
                Ok(State::Resuming),
            )?;
        }
        anyhow::ensure!(
            !card.reason().is_empty(),
            "no reason was given after {place} bytes"
        );
        recover(&card)?;
    }
    Ok(())
}

fn hostile_34_a_short_stream_can_still_be_completed() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(1)?;
    for place in (0..good.len()).step_by(13) {
        let data = card.start(State::Resuming).named("to RESUMING")?;
        data.write_all(&good[..place], 4096)
            .named("write of the first part")?;
        refused(
            format!("leaving after {place} bytes"),
            card.switch(State::Stop),
            Errno::EINVAL,
        )?;
        data.write_all(&good[place..], 4096)
            .named("write of the rest")?;
        card.switch(State::Stop)
            .named(format!("leaving after the rest, from {place} on"))?;
        same_bytes("the state", &card.save()?, &good)?;
    }
    Ok(())
}

fn hostile_34_a_stream_of_pre_copy_alone_is_short() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(1)?;
    let mut stream = Stream::parse(&good)?.with_setup(|setup| setup.phase = PRE_COPY);
    stream
        .records
        .retain(|record| matches!(record, Record::Setup(_)));
    let data = card.start(State::Resuming).named("to RESUMING")?;
    data.write_all(&stream.encode(), 4096).named("write")?;
    refused(
        "leaving RESUMING",
        card.switch(State::Running),
        Errno::EINVAL,
    )?;
    equal("state", card.state(), Ok(State::Resuming))
}

fn hostile_34_reset_ends_a_session_with_a_short_stream() -> anyhow::Result<()> {
    let (card, good) = stopped_with_content(1)?;
    card.reset().named("reset")?;
    let power_on = card.stop_and_save()?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    data.write_all(&good[..good.len() - 1], 4096)
        .named("write")?;
    card.reset().named("reset")?;
    refused(
        "the last byte after reset",
        data.write(&good[good.len() - 1..]),
        Errno::ENODEV,
    )?;
    same_bytes("the state after reset", &card.stop_and_save()?, &power_on)?;
    card.switch(State::Running).named("to RUNNING")?;
    works(&card)
}
