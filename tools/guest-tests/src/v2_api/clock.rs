// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A card's time: what it waits for is as far away after a migration as it was before, however long that took.
//!
//! A card counts the time that it runs, and this program cannot know that to the nanosecond. It takes the system's time before and
//! after each call, which gives the least and the most that the card can have counted.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use super::card::{config, Card};
use super::check::{equal, equal_hex, same_bytes, Named};
use super::uart::*;
use crate::ktap::Suite;
use crate::stream_forge::Stream;
use crate::vfio::interrupt::INTX;
use crate::vfio::migration_v1::{Region, RUNNING};
use crate::vfio::{Errno, Event, State};

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        the_time_until_the_stop_is_saved_as_passed,
        the_time_until_the_end_of_pre_copy_is_saved_as_passed,
        a_stop_by_the_migration_region_stops_the_clock,
        no_time_passes_in_stop_and_in_resuming,
        a_break_that_a_stop_makes_long_is_none,
        a_reset_in_stop_lets_the_clock_run_again,
    );
}

/// How long a card runs, at least.
const RUN: Duration = Duration::from_millis(700);
/// How long it stands still, at least.
const STAND: Duration = Duration::from_millis(400);

/// The slowest rate there is: a character of ten bits takes 5.69 s.
const DIVISOR: u16 = 0xffff;

/// Characters at [`DIVISOR`] and 8N1, in nanoseconds: 16 * 65535 clocks of 1.8432 MHz a bit.
const fn characters(count: u64) -> u64 {
    count * 10 * 16 * 65_535 * 1_000_000_000 / 1_843_200
}

/// The registers of a port in its section of a saved state (`devices::serial`, "Saving and loading a card").
mod port_section {
    /// Nanoseconds until the character time-out.
    pub const TIME_OUT: usize = 16;
    /// Nanoseconds until the spacing line is a break.
    pub const BREAK: usize = 24;
}

/// Nanoseconds that a port of a saved card still waits.
fn remaining(state: &[u8], port: usize, field: usize) -> anyhow::Result<u64> {
    let stream = Stream::parse(state)?;
    // The card's own section comes first.
    let section = stream.sections().nth(1 + port).context("no such port")?;
    // The zeroes at the end of a section are left out.
    let mut bytes = [0; 8];
    for (byte, saved) in bytes.iter_mut().zip(section.payload.iter().skip(field)) {
        *byte = *saved;
    }
    Ok(u64::from_le_bytes(bytes))
}

/// The moments before and after a call.
type Around = [Instant; 2];

/// Makes a call and says when that was.
fn timed<T>(call: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Around)> {
    let before = Instant::now();
    let value = call()?;
    Ok((value, [before, Instant::now()]))
}

/// For how long a card has run.
#[derive(Clone, Copy, Default)]
struct Ran {
    least: Duration,
    most: Duration,
}

impl Ran {
    /// And from one call to another.
    fn and(self, began: Around, ended: Around) -> Self {
        Self {
            least: self.least + ended[0].saturating_duration_since(began[1]),
            most: self.most + (ended[1] - began[0]),
        }
    }

    /// Fails unless so many nanoseconds are left of `whole`.
    fn leaves(&self, what: &str, left: u64, whole: u64) -> anyhow::Result<()> {
        let least = whole - u64::try_from(self.most.as_nanos())?;
        let most = whole - u64::try_from(self.least.as_nanos())?;
        ensure!(
            (least..=most).contains(&left),
            "{what}: {left} ns are left, {least} to {most} would be right"
        );
        Ok(())
    }

    /// Checks what is left of the times that the card of [`Waiting`] waits for, by its saved state.
    fn is_saved(&self, state: &[u8]) -> anyhow::Result<()> {
        let time_out = remaining(state, 0, port_section::TIME_OUT)?;
        self.leaves("the character time-out", time_out, characters(4))?;
        let held = remaining(state, 1, port_section::BREAK)?;
        self.leaves("the break", held, characters(1))
    }
}

/// A card of two ports. The first has received one character, which it reports after a time-out of 22.75 s. The second sends a
/// break that has not lasted for a character's time yet.
struct Waiting {
    card: Card,
    event: Event,
    /// When all that began.
    began: Around,
}

impl Waiting {
    fn new() -> anyhow::Result<Self> {
        let card = Card::new(2)?;
        let event = card.enable(INTX)?;
        let [receiving, breaking] = [card.port(0), card.port(1)];
        for port in [receiving, breaking] {
            port.set_up(FCR_TRIGGER_8)?;
            port.set_divisor(DIVISOR)?;
        }
        receiving.set(IER, IER_DATA)?;
        let ((), began) = timed(|| {
            receiving.set(DATA, 0x42)?;
            breaking.set(LCR, LCR_8N1 | LCR_BREAK)
        })?;
        Ok(Self { card, event, began })
    }

    /// Lets a time pass, in which no interrupt may come.
    fn pass(&self, time: Duration) -> anyhow::Result<()> {
        quiet(&self.event, time)
    }
}

/// Lets a time pass, as long on a slow machine as on a fast one, in which no interrupt may come.
fn quiet(event: &Event, time: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut list = [PollFd::new(event.as_fd(), PollFlags::POLLIN)];
        match poll(&mut list, PollTimeout::try_from(left).context("the time")?) {
            Ok(0) if end <= Instant::now() => return Ok(()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => bail!("an interrupt within {time:?}"),
            Err(error) => bail!("poll: {error}"),
        }
    }
}

fn the_time_until_the_stop_is_saved_as_passed() -> anyhow::Result<()> {
    let waiting = Waiting::new()?;
    waiting.pass(RUN)?;
    let ((), ended) = timed(|| waiting.card.switch(State::Stop).named("to STOP"))?;
    let ran = Ran::default().and(waiting.began, ended);
    waiting.pass(STAND)?;
    let state = waiting.card.save()?;
    ran.is_saved(&state)?;
    waiting.pass(STAND)?;
    same_bytes("a second state", &waiting.card.save()?, &state)
}

fn the_time_until_the_end_of_pre_copy_is_saved_as_passed() -> anyhow::Result<()> {
    let waiting = Waiting::new()?;
    let data = waiting.card.start(State::PreCopy).named("to PRE_COPY")?;
    waiting.pass(RUN)?;
    data.read_all(1 << 16).named("read in PRE_COPY")?;
    let ((), ended) = timed(|| {
        let stop = waiting.card.switch(State::StopCopy);
        stop.named("PRE_COPY -> STOP_COPY")
    })?;
    waiting.pass(STAND)?;
    let state = data.read_all(1 << 16).named("read in STOP_COPY")?;
    let ran = Ran::default().and(waiting.began, ended);
    ran.is_saved(&state)
}

fn a_stop_by_the_migration_region_stops_the_clock() -> anyhow::Result<()> {
    let waiting = Waiting::new()?;
    let region = Region::find(&waiting.card)?;
    waiting.pass(RUN)?;
    let ((), ended) = timed(|| region.set_state(0).named("device_state: stopped"))?;
    let ran = Ran::default().and(waiting.began, ended);
    waiting.pass(STAND)?;
    let ((), began) = timed(|| {
        let run = region.set_state(RUNNING);
        run.named("device_state: running")
    })?;
    let ((), ended) = timed(|| waiting.card.switch(State::Stop).named("to STOP"))?;
    ran.and(began, ended).is_saved(&waiting.card.save()?)
}

/// The destination is older than the source, is loaded slowly, and runs for two short times. Each access to a register tells it the
/// time, which must not be that for which it waited.
fn no_time_passes_in_stop_and_in_resuming() -> anyhow::Result<()> {
    let waiting = Waiting::new()?;
    let destination = Card::new(2)?;
    let event = destination.enable(INTX)?;
    waiting.pass(RUN)?;
    let ((), ended) = timed(|| waiting.card.switch(State::Stop).named("to STOP"))?;
    let mut ran = Ran::default().and(waiting.began, ended);
    let state = waiting.card.save()?;

    let data = destination.start(State::Resuming).named("to RESUMING")?;
    data.write_all(&state, state.len()).named("write")?;
    quiet(&event, STAND)?;
    drop(data);
    let stop = destination.switch(State::Stop);
    stop.named("RESUMING -> STOP")?;
    same_bytes("the state that was loaded", &destination.save()?, &state)?;
    // A card that was loaded signals once without a cause.
    for signals in [1, 0] {
        quiet(&event, STAND)?;
        let ((), began) = timed(|| destination.switch(State::Running).named("to RUNNING"))?;
        equal_hex(
            "IIR of the port with a character",
            destination.port(0).get(IIR)?.into(),
            (IIR_FIFO | IIR_NONE).into(),
        )?;
        let ((), ended) = timed(|| destination.switch(State::Stop).named("to STOP"))?;
        equal("signals", event.count()?, signals)?;
        ran = ran.and(began, ended);
        ran.is_saved(&destination.save()?)?;
    }
    Ok(())
}

/// A break of 5.69 s is interrupted by a stop of more than that.
fn a_break_that_a_stop_makes_long_is_none() -> anyhow::Result<()> {
    let waiting = Waiting::new()?;
    let state = waiting.card.stop_and_save()?;
    let destination = Card::new(2)?;
    let event = destination.enable(INTX)?;
    destination.load(&state)?;
    quiet(&event, Duration::from_nanos(characters(1)))?;
    destination.switch(State::Running).named("to RUNNING")?;
    let port = destination.port(1);
    port.set(LCR, LCR_8N1)?;
    let status = port.get(LSR)?;
    ensure!(
        status & (LSR_BREAK | LSR_DATA) == 0,
        "LSR {status:#04x}: a break was received"
    );
    Ok(())
}

fn a_reset_in_stop_lets_the_clock_run_again() -> anyhow::Result<()> {
    let waiting = Waiting::new()?;
    waiting.card.switch(State::Stop).named("to STOP")?;
    waiting.card.device().reset().named("reset")?;
    waiting.card.set_command(config::COMMAND_IO)?;
    let port = waiting.card.port(0);
    port.set_up(FCR_TRIGGER_8)?;
    port.set(IER, IER_DATA)?;
    port.set(DATA, 0x42)?;
    // Four characters at 115200 baud: the interrupt comes by itself.
    waiting.event.wait()?;
    equal_hex("IIR", port.interrupt()?.into(), IIR_TIMEOUT.into())
}
