// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Who polls a file of `migration/` is woken: at once for a change of state or phase, for bytes now and then, and for the last ones
//! too.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context};
use nix::poll::PollFlags;

use super::card::Card;
use super::check::{equal, Named};
use crate::ktap::Suite;
use crate::mdev::Mdev;
use crate::vfio::event_fd::{events, DEADLINE};
use crate::vfio::State;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_change_of_state_wakes_who_polls,
        a_change_of_phase_at_the_destination_wakes_who_polls,
        bytes_wake_who_polls_ten_times_a_second_at_most_and_at_the_end,
    );
}

/// A file of `migration/` that is polled.
struct Polled(File);

impl Polled {
    /// Opens a file and reads what it says.
    fn open(instance: &Mdev, name: &str) -> anyhow::Result<(Self, String)> {
        let path = instance.path().join("migration").join(name);
        let polled = Self(File::open(&path).with_context(|| path.display().to_string())?);
        let text = polled.read()?;
        Ok((polled, text))
    }

    /// What it says now. Later changes wake.
    fn read(&self) -> anyhow::Result<String> {
        let mut text = [0; 64];
        let length = self.0.read_at(&mut text, 0)?;
        Ok(String::from_utf8(text[..length].to_vec())?
            .trim_end()
            .into())
    }

    /// Whether it has changed since it was read, or does within the time.
    fn changes(&self, time: Duration) -> anyhow::Result<bool> {
        let found = events(self.0.as_fd(), PollFlags::POLLPRI, time)?;
        Ok(found.contains(PollFlags::POLLPRI))
    }

    /// Waits until it says that.
    fn until(&self, wanted: &str) -> anyhow::Result<()> {
        let mut text = self.read()?;
        while text != wanted {
            ensure!(
                self.changes(DEADLINE)?,
                "{text:?} for {DEADLINE:?}, expected {wanted:?}"
            );
            text = self.read()?;
        }
        Ok(())
    }
}

fn a_change_of_state_wakes_who_polls() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let (file, text) = Polled::open(&card.instance, "state")?;
    equal("state", text.as_str(), "RUNNING")?;
    equal("a change", file.changes(Duration::ZERO)?, false)?;
    for (state, name) in [(State::Stop, "STOP"), (State::Running, "RUNNING")] {
        card.switch(state).named("a change of state")?;
        equal("a change", file.changes(Duration::ZERO)?, true)?;
        equal("state", file.read()?.as_str(), name)?;
    }
    Ok(())
}

fn a_change_of_phase_at_the_destination_wakes_who_polls() -> anyhow::Result<()> {
    let (source, destination) = (Card::new(1)?, Card::new(1)?);
    let out = source.start(State::PreCopy).named("to PRE_COPY")?;
    let into = destination.start(State::Resuming).named("to RESUMING")?;
    let (file, text) = Polled::open(&destination.instance, "phase")?;
    equal("phase", text.as_str(), "setup")?;
    for (state, phase) in [(None, "pre-copy"), (Some(State::StopCopy), "stop-and-copy")] {
        if let Some(state) = state {
            source.switch(state).named("to STOP_COPY")?;
        }
        let bytes = out.read_all(1 << 16).named("read")?;
        into.write_all(&bytes, bytes.len()).named("write")?;
        equal("a change", file.changes(Duration::ZERO)?, true)?;
        equal("phase", file.read()?.as_str(), phase)?;
    }
    Ok(())
}

fn bytes_wake_who_polls_ten_times_a_second_at_most_and_at_the_end() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let began = Instant::now();
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    let (file, text) = Polled::open(&card.instance, "bytes")?;
    equal("bytes", text.as_str(), "0")?;
    let mut wakes = 0;
    let mut bytes = 0;
    while data.read(&mut [0]).named("read of a byte")? == 1 {
        bytes += 1;
        if file.changes(Duration::ZERO)? {
            wakes += 1;
            file.read()?;
        }
    }
    // The change of state was told when the time began, and after each telling there is quiet for a tenth of a second.
    let most = began.elapsed().as_millis() / 100;
    ensure!(
        wakes <= most,
        "{bytes} bytes in {:?} woke {wakes} times",
        began.elapsed()
    );
    file.until(&bytes.to_string())
}
