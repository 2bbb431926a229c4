// SPDX-License-Identifier: GPL-2.0 OR MIT

//! States of cards that travel through multifd channels, and what QEMU itself can get wrong then. `Documentation/testing.rst` tells it
//! to users.

use std::collections::BTreeSet;

use anyhow::{ensure, Result};
use qapi::qmp;

use super::guest::Guest;
use super::machine::Machine;
use super::scene::{Measured, Scene};
use super::smooth::see_through;
use super::timeline::What;
use crate::ktap::{self, Outcome};

/// What QEMU says when it aborts because the thread that sends the cards' states was faster than the one that counts what there is
/// to send. It has a thread look at each card, also at one whose state goes another way, so two cards are enough; which of the
/// threads is first, nobody outside can tell it. See `Documentation/testing.rst`.
const LOST_COUNT: &str = "thread_pool_set_max_threads: Assertion `max_threads > 0' failed";

/// How often a level is looked at. Of a card that works it is down most of the time.
const LOOKS: u32 = 50;

/// The outcome of a scenario with several cards whose states travel through channels: skipped if QEMU aborted by [`LOST_COUNT`].
pub(super) fn unless_lost_count(scene: &Scene, outcome: Outcome) -> Outcome {
    match outcome {
        Err(error) if lost_count(scene) => ktap::skip(format!(
            "QEMU lost count of its own threads and aborted, after what was seen until then held ({error:#})"
        )),
        outcome => outcome,
    }
}

/// As [`see_through`], of cards whose states travel through channels, which it verifies. Skipped if QEMU left a level up for ever
/// ([`level_stays`]).
pub(super) fn see_through_channels(
    scene: &Scene,
    source: Machine,
    destination: &Machine,
    guest: &mut Guest,
    began: usize,
) -> Result<Measured> {
    let measured = match see_through(scene, source, destination, guest, began) {
        Err(error) if level_stays(destination).unwrap_or(false) => {
            return ktap::skip(format!(
                "QEMU saved a card's pin and its bus at different times ({error:#})"
            ));
        }
        measured => measured?,
    };
    through_channels(scene, destination)?;
    Ok(measured)
}

/// Whether an input of the guest's interrupt controller is up and being served each time that one looks. QEMU saves a card's pin with
/// its configuration, which goes through a channel as soon as the card is stopped, and the count of the bus's pins that are up later;
/// in between it may find the card's interrupt and raise the pin. At the destination the count then never comes back to 0: the
/// guest is interrupted without end, and crawls. See `Documentation/testing.rst`.
fn level_stays(machine: &Machine) -> Result<bool> {
    for _ in 0..LOOKS {
        let ask = qmp::human_monitor_command {
            command_line: "info pic".into(),
            cpu_index: None,
        };
        let said = machine.execute(&ask)?;
        let inputs = |name: &str| -> BTreeSet<String> {
            let row = said.lines().find_map(|line| line.trim().strip_prefix(name));
            let inputs = row.unwrap_or_default().split_whitespace();
            inputs
                .filter(|word| word.parse::<u32>().is_ok())
                .map(str::to_owned)
                .collect()
        };
        if inputs("IRR ").is_disjoint(&inputs("Remote IRR ")) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The states of all cards travelled through multifd channels.
fn through_channels(scene: &Scene, destination: &Machine) -> Result<()> {
    // A card's state may come in several pieces.
    let mut loaded = BTreeSet::new();
    scene.timeline().each(0, |_, entry| {
        if let (true, What::Trace(line)) = (entry.who == destination.name(), &entry.what) {
            let instance = line
                .strip_prefix("vfio_load_state_device_buffer_load_end")
                .and_then(|rest| rest.split_once('(')?.1.split_once(')'));
            loaded.extend(instance.map(|(instance, _)| instance.to_owned()));
        }
    });
    ensure!(
        loaded.len() == destination.cards(),
        "{} cards were loaded from the multifd channels: {loaded:?}",
        loaded.len()
    );
    Ok(())
}

/// Whether QEMU aborted by [`LOST_COUNT`].
fn lost_count(scene: &Scene) -> bool {
    let mut lost = false;
    scene.timeline().each(0, |_, entry| {
        lost |= matches!(&entry.what, What::Stderr(line) if line.contains(LOST_COUNT));
    });
    lost
}
