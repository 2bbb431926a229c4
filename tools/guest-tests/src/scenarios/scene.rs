// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What every scenario needs: cards, a place for machines, and migration from one machine to another.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use qapi::qmp::{
    self, MigrateSetParameters, MigrationCapability, MigrationCapabilityStatus, MigrationStatus,
};
use qapi::qmp::{Event, VfioMigrationState};

use super::command_line::Spec;
use super::machine::{Machine, Place};
use super::timeline::{Listener, Look, Timeline, What};
use crate::qmp::Message;

/// How long a migration may take once nothing holds it back.
pub const MIGRATION: Duration = Duration::from_secs(60);
/// A downtime limit, in milliseconds, that a guest of this size reaches on a slow machine too.
pub const DOWNTIME_LIMIT: u64 = 500;
/// The downtime limit, in milliseconds, with which no migration of a card gets past pre-copy: its state has a size, and
/// nothing of a size can be sent in no time.
pub const NEVER: u64 = 0;

/// A directory for sockets, removed in the end.
struct Sockets(PathBuf);

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Tells whoever watches the kernel log that lines matching `pattern` may come. Where nobody watches, or the log cannot be
/// written, nobody needs to know.
fn allow_in_kernel_log(pattern: &str) {
    let _ = fs::write("/dev/kmsg", format!("lab: allow {pattern}\n"));
}

/// A scenario under way.
pub struct Scene {
    place: Place,
    _sockets: Sockets,
}

impl Scene {
    /// Starts a scenario; its logs go to `$LOGDIR/<name>/`.
    pub fn new(name: &str, listener: Option<Listener>) -> Result<Self> {
        let logs = std::env::var_os("LOGDIR")
            .map_or_else(|| PathBuf::from("/run/logs"), PathBuf::from)
            .join(name);
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        let sockets = std::env::temp_dir().join(format!("scenario-{}", std::process::id()));
        fs::create_dir_all(&sockets).with_context(|| sockets.display().to_string())?;
        // KVM compares the clock rate it measured early with the one the kernel measured later. In an emulated machine on a
        // busy host the two may differ by more than it tolerates.
        allow_in_kernel_log("kvm: user requested TSC rate below hardware speed");
        let timeline = Arc::new(Timeline::new(listener));
        let place = Place {
            logs,
            sockets: sockets.clone(),
            timeline,
        };
        Ok(Self {
            place,
            _sockets: Sockets(sockets),
        })
    }

    /// What everybody says.
    pub fn timeline(&self) -> &Timeline {
        &self.place.timeline
    }

    /// Starts a machine.
    pub fn start(&self, name: &str, spec: &Spec) -> Result<Machine> {
        Machine::start(&self.place, name, spec)
    }

    /// Lets `to` listen and `from` migrate to it, both with `capabilities`, and returns the position before.
    pub fn migrate(&self, from: &Machine, to: &Machine, options: &Options) -> Result<usize> {
        for machine in [from, to] {
            machine.execute(&qmp::migrate_set_capabilities {
                capabilities: [MigrationCapability::events]
                    .iter()
                    .chain(&options.capabilities)
                    .map(|capability| MigrationCapabilityStatus {
                        capability: *capability,
                        state: true,
                    })
                    .collect(),
            })?;
            machine.execute(&qmp::migrate_set_parameters(MigrateSetParameters {
                downtime_limit: Some(options.downtime_limit),
                multifd_channels: options.multifd_channels,
                ..Default::default()
            }))?;
        }
        let socket = self
            .place
            .sockets
            .join(format!("{}-{}", from.name(), to.name()));
        let uri = Some(format!("unix:{}", socket.display()));
        to.execute(&qmp::migrate_incoming {
            channels: None,
            exit_on_error: None,
            uri: uri.clone(),
        })?;
        let position = self.timeline().position();
        from.execute(&qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri,
        })?;
        Ok(position)
    }

    /// Waits until a migration that began at `began` is complete on both machines.
    pub fn complete(&self, from: &Machine, to: &Machine, began: usize) -> Result<Measured> {
        for machine in [from, to] {
            let status = wait_migration_end(machine, began)?;
            ensure!(
                status == MigrationStatus::completed,
                "the migration should have completed, but {} says {}{}",
                machine.name(),
                qapi::Enum::name(&status),
                reason(from)
            );
        }
        let info = from.execute(&qmp::query_migrate {})?;
        let measured = Measured {
            total: u64::try_from(info.total_time.context("QEMU reports no total-time")?)?,
            downtime: u64::try_from(info.downtime.context("QEMU reports no downtime")?)?,
            device: u64::try_from(
                info.vfio
                    .context("QEMU reports no vfio statistics")?
                    .transferred,
            )?,
            ram: u64::try_from(
                info.ram
                    .context("QEMU reports no ram statistics")?
                    .transferred,
            )?,
        };
        ensure!(
            measured.device > 0,
            "QEMU reports that no device state was transferred: {measured}"
        );
        Ok(measured)
    }

    /// The states that card `card` of `machine` went through at or after `from`, as far as QEMU reported them.
    pub fn states(&self, machine: &Machine, from: usize, card: usize) -> Vec<VfioMigrationState> {
        let mut states = Vec::new();
        self.timeline().each(from, |_, entry| {
            if entry.who == machine.name() {
                states.extend(state_of(&entry.what, card));
            }
        });
        states
    }
}

/// How to migrate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Capabilities on both sides, besides `events`.
    pub capabilities: Vec<MigrationCapability>,
    /// In milliseconds.
    pub downtime_limit: u64,
    /// Number of channels, with capability multifd.
    pub multifd_channels: Option<u8>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capabilities: Vec::new(),
            downtime_limit: DOWNTIME_LIMIT,
            multifd_channels: None,
        }
    }
}

impl Options {
    /// With these capabilities.
    pub fn with(capabilities: &[MigrationCapability]) -> Self {
        Self {
            capabilities: capabilities.to_vec(),
            ..Self::default()
        }
    }

    /// Stays in pre-copy until [`release`].
    pub fn held(self) -> Self {
        Self {
            downtime_limit: NEVER,
            ..self
        }
    }
}

/// Lets a held migration of `machine` go on.
pub fn release(machine: &Machine) -> Result<()> {
    machine.execute(&qmp::migrate_set_parameters(MigrateSetParameters {
        downtime_limit: Some(DOWNTIME_LIMIT),
        ..Default::default()
    }))?;
    Ok(())
}

/// Waits until the migration that `machine` takes part in is over, well or not.
pub fn wait_migration_end(machine: &Machine, from: usize) -> Result<MigrationStatus> {
    let end = [
        MigrationStatus::completed,
        MigrationStatus::failed,
        MigrationStatus::cancelled,
    ];
    let (_, status) =
        machine.wait_for(
            from,
            MIGRATION,
            "the end of the migration",
            |what| match what {
                What::Qmp(Message::Event(Event::MIGRATION { data, .. }))
                    if end.contains(&data.status) =>
                {
                    Look::Found(data.status)
                }
                _ => Look::Wait,
            },
        )?;
    Ok(status)
}

/// The state that card `card` went to, if that is what happened.
pub fn state_of(what: &What, card: usize) -> Option<VfioMigrationState> {
    match what {
        What::Qmp(Message::Event(Event::VFIO_MIGRATION { data, .. }))
            if data.device_id == format!("card{card}") =>
        {
            Some(data.device_state)
        }
        _ => None,
    }
}

/// Waits until card `card` of `machine` is in `state`.
pub fn wait_state(
    machine: &Machine,
    from: usize,
    card: usize,
    state: VfioMigrationState,
) -> Result<usize> {
    let purpose = format!("card {card} to be in state {}", qapi::Enum::name(&state));
    machine.wait(from, MIGRATION, &purpose, |what| {
        state_of(what, card) == Some(state)
    })
}

/// Why the migration of `machine` failed, in QEMU's words.
fn reason(machine: &Machine) -> String {
    let info = machine.execute(&qmp::query_migrate {});
    info.ok()
        .and_then(|info| info.error_desc)
        .map_or(String::new(), |text| format!(": {text}"))
}

/// What QEMU measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// From the command to the end, in milliseconds.
    pub total: u64,
    /// While no guest ran, in milliseconds.
    pub downtime: u64,
    /// Bytes of device state.
    pub device: u64,
    /// Bytes of memory.
    pub ram: u64,
}

impl std::fmt::Display for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            total,
            downtime,
            device,
            ram,
        } = self;
        write!(f, "total {total} ms, downtime {downtime} ms, device state {device} bytes, memory {ram} bytes")
    }
}
