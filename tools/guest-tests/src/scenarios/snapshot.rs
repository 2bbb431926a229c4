// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A guest with its card saved in a disk image and taken up again: the same stream as in a migration, but written by a stopped
//! guest, and read into a machine that ran something else before.

use std::path::Path;

use anyhow::{ensure, Context, Result};
use qapi::qmp::{self, Event, JobStatus, VfioMigrationState as State};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::broken::works;
use super::cards::Cards;
use super::command_line::Spec;
use super::guest::Guest;
use super::machine::{Machine, ANSWER};
use super::scene::{wait_state, Scene, MIGRATION};
use super::smooth::pair;
use super::state::names;
use super::timeline::{Look, What};
use super::version::{Protocol, Version};
use crate::diag;
use crate::ktap::Outcome;
use crate::l2::line::Line;
use crate::qmp::Message;

/// Names of the image's file and of its content in QEMU.
const FILE: &str = "file0";
const DISK: &str = "disk0";
/// Records by which the guest goes on before it is put back: many more than it sends until its first count is heard.
const FAR: u32 = 50;
/// Name of the snapshot.
const TAG: &str = "lab";

/// Saved while it runs, the guest goes on; taken up again in the same machine, once and (with protocol v1) twice over without
/// having run in between, it goes on from where it was saved; and so it does in another machine with another card.
pub fn save_and_load(version: Version) -> Outcome {
    let (here, there) = pair(version, &[2])?;
    saved_and_loaded(&Scene::with_qemu(version, "snapshot")?, &here, &there)
}

/// The same with these cards.
pub(super) fn saved_and_loaded(scene: &Scene, here: &Cards, there: &Cards) -> Result<()> {
    let image = scene.place().sockets.join("image.qcow2");
    let machine = scene.start("first", &here.boots())?;
    let mut guest = Guest::boot(&machine, 0, &here.view())?;
    works(&machine, &mut guest)?;
    create(&machine, &image)?;

    let saved = guest.clone();
    let from = scene.timeline().position();
    job(&machine, |job_id| qmp::snapshot_save {
        job_id,
        tag: TAG.into(),
        vmstate: DISK.into(),
        devices: vec![DISK.into()],
    })?;
    wait_state(&machine, from, 0, State::running)?;
    let states = scene.states(&machine, from, 0);
    ensure!(
        states.contains(&State::stop_copy) && !states.contains(&State::pre_copy),
        "the card should have been saved standing still, but went through {}",
        names(&states)
    );
    works(&machine, &mut guest)?;

    let mut late = vec![];
    for loads in loads(machine.protocol()) {
        guest.count_on(&machine, FAR)?;
        machine.execute(&qmp::stop {})?;
        for _ in 0..*loads {
            load(&machine)?;
        }
        late = guest.counts().to_vec();
        let mut again = saved.clone();
        go_on(&machine, &mut again, &late)?;
        diag!(
            "loaded {loads} times over in the same machine: the guest was at {late:?} and counted to {:?}",
            again.counts()
        );
        guest = again;
    }
    machine.quit()?;

    let other = scene.start(
        "second",
        &Spec {
            paused: true,
            ..there.boots()
        },
    )?;
    open(&other, &image)?;
    load(&other)?;
    let mut guest = saved;
    go_on(&other, &mut guest, &late)?;
    diag!(
        "loaded in another machine, the guest counted to {:?}",
        guest.counts()
    );
    other.quit()
}

/// How often the snapshot is loaded before the guest runs again. Loading resets the machine first, and the card with it, which
/// a QEMU of protocol v2 (hw/vfio/migration.c of QEMU 10.0) does not note: at a second load it believes the card to be in
/// RESUMING still, does not ask for that state, and has no data file then.
fn loads(protocol: Protocol) -> &'static [usize] {
    match protocol {
        Protocol::V1 => &[1, 2],
        Protocol::V2 => &[1],
    }
}

/// Lets a guest go on that was loaded, and sees it work from where it was saved: before `late`.
fn go_on(machine: &Machine, guest: &mut Guest, late: &[u32]) -> Result<()> {
    let from = machine.timeline().position();
    machine.execute(&qmp::cont {})?;
    wait_state(machine, from, 0, State::running)?;
    // The first line may begin with what the guest had written of another one when it was stopped.
    let whole = machine.wait(from, ANSWER, "a line of the guest", |what| {
        matches!(what, What::Guest(_) | What::Console(_))
    })?;
    let (_, first) =
        machine.wait_for(whole, ANSWER, "a count of the guest", |what| match what {
            What::Guest(Line::Count(counts)) => Look::Found(counts.clone()),
            _ => Look::Wait,
        })?;
    let earlier = first.iter().zip(late).all(|(first, late)| first < late);
    ensure!(
        earlier,
        "the guest should be where it was saved, but counts {first:?} after {late:?}"
    );
    guest.listen_from(whole);
    works(machine, guest)
}

/// Takes the guest up that is in the image; it does not run yet.
fn load(machine: &Machine) -> Result<()> {
    let from = machine.timeline().position();
    job(machine, |job_id| qmp::snapshot_load {
        job_id,
        tag: TAG.into(),
        vmstate: DISK.into(),
        devices: vec![DISK.into()],
    })?;
    wait_state(machine, from, 0, State::resuming).map(drop)
}

/// Makes an image and opens it.
fn create(machine: &Machine, path: &Path) -> Result<()> {
    let file = typed(json!({"driver": "file", "filename": path, "size": 0}))?;
    job(machine, |job_id| qmp::blockdev_create {
        job_id,
        options: file,
    })?;
    machine.execute(&qmp::blockdev_add(typed(
        json!({"driver": "file", "node-name": FILE, "filename": path}),
    )?))?;
    let image = typed(json!({"driver": "qcow2", "file": FILE, "size": 1 << 20}))?;
    job(machine, |job_id| qmp::blockdev_create {
        job_id,
        options: image,
    })?;
    add_image(machine)
}

/// Opens an image that is there.
fn open(machine: &Machine, path: &Path) -> Result<()> {
    machine.execute(&qmp::blockdev_add(typed(
        json!({"driver": "file", "node-name": FILE, "filename": path}),
    )?))?;
    add_image(machine)
}

fn add_image(machine: &Machine) -> Result<()> {
    let image = json!({"driver": "qcow2", "node-name": DISK, "file": FILE});
    machine.execute(&qmp::blockdev_add(typed(image)?))?;
    Ok(())
}

/// An argument of QMP, which has more fields than anybody wants to name.
fn typed<T: DeserializeOwned>(value: serde_json::Value) -> Result<T> {
    serde_json::from_value(value).context("an argument of QMP")
}

/// Starts a job of QEMU, waits for its end, and fails if it failed.
fn job<C: qapi::Command>(machine: &Machine, command: impl FnOnce(String) -> C) -> Result<()> {
    const ID: &str = "job0";
    let from = machine.timeline().position();
    machine.execute(&command(ID.into()))?;
    let purpose = format!("the end of {}", C::NAME);
    machine.wait(from, MIGRATION, &purpose, |what| {
        matches!(what, What::Qmp(Message::Event(Event::JOB_STATUS_CHANGE { data, .. }))
            if data.id == ID && data.status == JobStatus::concluded)
    })?;
    let jobs = machine.execute(&qmp::query_jobs {})?;
    let done = jobs.into_iter().find(|job| job.id == ID);
    let done = done.with_context(|| format!("QEMU forgot its job {}", C::NAME))?;
    machine.execute(&qmp::job_dismiss { id: ID.into() })?;
    match done.error {
        Some(error) => anyhow::bail!("{} of {}: {error}", C::NAME, machine.name()),
        None => Ok(()),
    }
}
