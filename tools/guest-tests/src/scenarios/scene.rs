// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What every scenario needs: cards, a place for machines, and migration from one machine to another.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use qapi::qmp::{
    self, MigrateSetParameters, MigrationCapability, MigrationCapabilityStatus, MigrationStatus,
};
use qapi::qmp::{Event, VfioMigrationState};

use super::command_line::Spec;
use super::machine::{Machine, Place};
use super::state::saved;
use super::timeline::{Listener, Look, Timeline, What};
use super::version::{Protocol, Version};
use crate::diag;
use crate::processors;
use crate::qmp::Message;

/// How long a migration may take once nothing holds it back.
pub const MIGRATION: Duration = Duration::from_secs(60);
/// A downtime limit, in milliseconds, that a guest of this size reaches on a slow machine too.
pub const DOWNTIME_LIMIT: u64 = 500;
/// The downtime limit, in milliseconds, with which no migration gets past pre-copy as long as there is memory to be sent: nothing
/// can be sent in no time. A QEMU that has sent all that it knows of goes on whatever the limit is.
const NEVER: u64 = 0;
/// The downtime limit, in milliseconds, and the bytes that QEMU shall expect to send in a second while the guest stands still, with
/// which no migration gets past pre-copy at all: this is one byte, and a card's state is always more. QEMU asks for what was written
/// in between again and again.
const A_MOMENT: u64 = 1;
const ALMOST_NOTHING: u64 = 1000;
/// Has QEMU find out itself what it can send in a second.
const AS_MEASURED: u64 = 0;
/// QEMU's own limit of the bytes it sends in a second.
const BANDWIDTH: u64 = 128 << 20;
/// A limit with which the memory of a guest of this size keeps a migration in pre-copy for many minutes.
const TRICKLE: u64 = 16 << 10;

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
        processors::expect_not_the_first()?;
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

    /// Starts a scenario that is run with several QEMUs.
    pub fn with_qemu(version: Version, name: &str) -> Result<Self> {
        Self::new(&format!("qemu-{version}-{name}"), None)
    }

    /// What everybody says.
    pub fn timeline(&self) -> &Timeline {
        &self.place.timeline
    }

    /// Where machines put their logs and sockets.
    pub fn place(&self) -> &Place {
        &self.place
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
                multifd_channels: options.multifd_channels,
                ..options.limits(machine.protocol())
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
            device: match (info.vfio, from.protocol()) {
                (Some(vfio), _) => u64::try_from(vfio.transferred)?,
                (None, Protocol::V1) => traced_bytes(from, began)?,
                (None, Protocol::V2) => bail!("QEMU reports no vfio statistics"),
            },
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
                states.extend(machine.state_of(&entry.what, card));
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
    /// The most bytes that the source sends in a second.
    pub bandwidth: u64,
    /// Whether the migration stays in pre-copy.
    pub held: bool,
    /// Number of channels, with capability multifd.
    pub multifd_channels: Option<u8>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capabilities: Vec::new(),
            downtime_limit: DOWNTIME_LIMIT,
            bandwidth: BANDWIDTH,
            held: false,
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
        Self { held: true, ..self }
    }

    /// The limits that QEMU shall keep to.
    ///
    /// A QEMU of protocol v1 knows only of what a card offers in pre-copy, and goes on when that is sent, however small the
    /// downtime limit: memory has to hold it.
    fn limits(&self, protocol: Protocol) -> MigrateSetParameters {
        let (downtime, bandwidth, switch_over) = match (self.held, protocol) {
            // It can only measure.
            (false, Protocol::V1) => (self.downtime_limit, self.bandwidth, None),
            (true, Protocol::V1) => (NEVER, TRICKLE, None),
            (false, Protocol::V2) => (self.downtime_limit, self.bandwidth, Some(AS_MEASURED)),
            (true, Protocol::V2) => (A_MOMENT, self.bandwidth, Some(ALMOST_NOTHING)),
        };
        MigrateSetParameters {
            downtime_limit: Some(downtime),
            max_bandwidth: Some(bandwidth),
            avail_switchover_bandwidth: switch_over,
            ..Default::default()
        }
    }
}

/// Lets a migration of `machine` send so many bytes a second, held or not.
pub fn may_send(machine: &Machine, bandwidth: u64) -> Result<()> {
    machine.execute(&qmp::migrate_set_parameters(MigrateSetParameters {
        max_bandwidth: Some(bandwidth),
        ..Default::default()
    }))?;
    Ok(())
}

/// Has a held migration of `machine` send memory slowly, for many minutes, rather than ask for what was written all the time. With
/// protocol v2 this can only be done when the cards' first data is on its way: behind so narrow a limit it would wait for all of the
/// memory.
pub fn trickle(machine: &Machine) -> Result<()> {
    may_send(machine, TRICKLE)?;
    let info = machine.execute(&qmp::query_migrate {})?;
    ensure!(
        info.status == Some(MigrationStatus::active),
        "the migration of {} should be held in pre-copy, but is {:?} already",
        machine.name(),
        info.status
    );
    Ok(())
}

/// Lets a held migration of `machine` go on.
pub fn release(machine: &Machine) -> Result<()> {
    machine.execute(&qmp::migrate_set_parameters(
        Options::default().limits(machine.protocol()),
    ))?;
    Ok(())
}

/// Turns a migration capability of `machine` on or off.
pub fn set_capability(
    machine: &Machine,
    capability: MigrationCapability,
    state: bool,
) -> Result<()> {
    machine.execute(&qmp::migrate_set_capabilities {
        capabilities: vec![MigrationCapabilityStatus { capability, state }],
    })?;
    Ok(())
}

/// Waits for a migration to end and sees that it ended as it should.
pub fn migration_ends(machine: &Machine, from: usize, expected: MigrationStatus) -> Result<()> {
    let status = wait_migration_end(machine, from)?;
    ensure!(
        status == expected,
        "the migration should be {}, not {}",
        qapi::Enum::name(&expected),
        qapi::Enum::name(&status)
    );
    Ok(())
}

/// Cancels the migration that `source` began at `from`, and waits for its end. QEMU shuts the return path down before it takes note of
/// the wish: whoever meets the dead socket in between, the thread that sends for one, has the migration fail. That is a cancelled
/// one all the same, under the other name; it was not over before.
pub fn cancel(source: &Machine, from: usize) -> Result<()> {
    let early = source.timeline().find(from, |entry| {
        entry.who == source.name() && ended(&entry.what).is_some()
    });
    ensure!(
        early.is_none(),
        "the migration was over before it was cancelled"
    );
    source.execute(&qmp::migrate_cancel {})?;
    let status = wait_migration_end(source, from)?;
    diag!("the cancelled migration is {}", qapi::Enum::name(&status));
    ensure!(
        status != MigrationStatus::completed,
        "the migration was completed, though it was cancelled"
    );
    Ok(())
}

/// Waits until the migration that `machine` takes part in is over, well or not.
pub fn wait_migration_end(machine: &Machine, from: usize) -> Result<MigrationStatus> {
    let (_, status) =
        machine.wait_for(
            from,
            MIGRATION,
            "the end of the migration",
            |what| match ended(what) {
                Some(status) => Look::Found(status),
                None => Look::Wait,
            },
        )?;
    Ok(status)
}

/// How a migration ended, if this says that it did.
fn ended(what: &What) -> Option<MigrationStatus> {
    let end = [
        MigrationStatus::completed,
        MigrationStatus::failed,
        MigrationStatus::cancelled,
    ];
    match what {
        What::Qmp(Message::Event(Event::MIGRATION { data, .. })) => {
            Some(data.status).filter(|status| end.contains(status))
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
        machine.state_of(what, card) == Some(state)
    })
}

/// Bytes of state that the cards of `machine` gave since `began`, from the trace of a QEMU of protocol v1. QEMU 7.2 counts them
/// but does not report them: its `migration/target.c` is compiled without knowing that there is VFIO.
fn traced_bytes(machine: &Machine, began: usize) -> Result<u64> {
    let (mut bytes, mut complete) = (0, 0);
    machine.wait_for(began, MIGRATION, "the traces of the cards' state", |what| {
        let What::Trace(line) = what else {
            return Look::Wait;
        };
        bytes += saved(line).map_or(0, |(_, bytes)| bytes);
        if line.starts_with("vfio_save_complete_precopy") {
            complete += 1;
        }
        if complete == machine.cards() {
            Look::Found(())
        } else {
            Look::Wait
        }
    })?;
    Ok(bytes)
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
