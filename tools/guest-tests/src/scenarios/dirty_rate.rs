// SPDX-License-Identifier: GPL-2.0 OR MIT

//! QEMU measures how fast the guest writes memory, for which it has the cards log what they write, before a migration and during
//! one.

use std::time::Instant;

use anyhow::{ensure, Result};
use qapi::qmp::{self, DirtyRateMeasureMode, DirtyRateStatus};
use serde::{Deserialize, Serialize};

use super::broken::{hold, works};
use super::machine::{Machine, ANSWER};
use super::scene::{release, Options, Scene};
use super::smooth::{pair, see_through, Pair};
use super::timeline::What;
use super::version::{Protocol, Version};
use crate::diag;
use crate::ktap::{scaled, Outcome};

/// How long QEMU measures, in seconds: the least it takes.
const TIME: i64 = 1;
/// What the trace says of the cards' logs.
const START: &str = "vfio_device_dirty_tracking_start";

/// The log is started for a measurement, ended, and started again for the migration; a measurement during the migration shares that
/// one, and does not end it.
pub fn measured(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    let scene = Scene::with_qemu(version, "dirty-rate")?;
    let Pair {
        source,
        destination,
        mut guest,
    } = Pair::at_work(&scene, &here, &there)?;
    for _ in 0..2 {
        measure(&source)?;
        works(&source, &mut guest)?;
    }
    let began = hold(&scene, &source, &destination, Options::default())?;
    measure(&source)?;
    works(&source, &mut guest)?;
    release(&source)?;
    let name = source.name().to_owned();
    let told = see_through(&scene, source, &destination, &mut guest, began)?;
    diag!("{told}");

    // Older ones ask the container, and do not trace it.
    if version.protocol() == Protocol::V2 {
        let (mut before, mut after) = (0, 0);
        scene.timeline().each(0, |position, entry| {
            let start = matches!(&entry.what, What::Trace(line) if line.starts_with(START));
            if entry.who == name && start {
                *(if position < began {
                    &mut before
                } else {
                    &mut after
                }) += 1;
            }
        });
        ensure!(
            (before, after) == (2, 1),
            "the cards' logs were started {before} times before the migration and {after} times for it"
        );
    }
    destination.quit()
}

/// Measures once.
fn measure(machine: &Machine) -> Result<()> {
    let from = machine.timeline().position();
    machine.execute(&qmp::calc_dirty_rate {
        calc_time: TIME,
        calc_time_unit: None,
        mode: Some(DirtyRateMeasureMode::dirty_bitmap),
        sample_pages: None,
    })?;
    machine.wait(from, ANSWER, "the end of the measurement", |what| {
        matches!(what, What::Trace(line)
            if line.starts_with("dirtyrate_set_state") && line.contains("measured"))
    })?;
    // QEMU traces the step before it takes it, and tells of it in no other way.
    let end = Instant::now() + scaled(ANSWER);
    let rate = loop {
        let answer = machine.execute(&QueryDirtyRate {})?;
        match answer.rate {
            Some(rate) => break rate,
            None => ensure!(
                answer.status == DirtyRateStatus::measuring && Instant::now() < end,
                "QEMU has no rate after its measurement, which is {}",
                qapi::Enum::name(&answer.status)
            ),
        }
    };
    diag!("the guest writes {rate} MiB/s");
    ensure!(rate >= 0, "the rate is {rate} MiB/s");
    Ok(())
}

/// `query-dirty-rate`, as QEMU 7.2 answers it too: without the unit of the time.
#[derive(Serialize, Deserialize, Debug)]
struct QueryDirtyRate {}

/// What counts of the answer.
#[derive(Serialize, Deserialize, Debug)]
struct DirtyRate {
    status: DirtyRateStatus,
    #[serde(rename = "dirty-rate")]
    rate: Option<i64>,
}

impl qapi::Command for QueryDirtyRate {
    const NAME: &'static str = "query-dirty-rate";
    const ALLOW_OOB: bool = false;

    type Ok = DirtyRate;
}
