// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A monitor in a process of its own, which can be killed, and whose descriptors somebody else can have.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{bail, ensure, Context, Result};
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use uuid::Uuid;
use vfio_ioctls::{DmaLoggingRange, VfioRegionInfoCap};

use super::client::{self, Interrupt};
use crate::mdev::Mdev;
use crate::v2_api::card::MIGRATION;
use crate::vfio::interrupt::REQ;
use crate::vfio::migration_v1::Area;

/// The first argument of a process that is a monitor.
const OPTION: &str = "--monitor";

/// The range that is logged in [`Habit::Logs`].
pub const LOGGED: DmaLoggingRange = DmaLoggingRange {
    iova: 0,
    length: 1 << 20,
};

/// What a monitor does once it has its device, before it waits to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Nothing.
    Waits,
    /// It registers a request interrupt that it never looks at.
    CanBeAsked,
    /// It starts DMA logging.
    Logs,
}

impl Habit {
    const ALL: [(&'static str, Self); 3] = [
        ("waits", Self::Waits),
        ("can-be-asked", Self::CanBeAsked),
        ("logs", Self::Logs),
    ];

    fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, habit)| *habit == self);
        named.map_or("", |(name, _)| name)
    }
}

/// Is a monitor, if this process was started as one. Returns how it ended.
pub fn serve() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(OPTION) {
        return None;
    }
    let (habit, uuid) = (arguments.next(), arguments.next());
    Some(match be_a_monitor(habit.as_deref(), uuid.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("monitor: {error:#}");
            ExitCode::FAILURE
        }
    })
}

/// Opens the device, says its descriptor and where its mapping would be, and waits until standard input ends.
fn be_a_monitor(habit: Option<&str>, uuid: Option<&str>) -> Result<()> {
    let known = Habit::ALL.iter().find(|(name, _)| Some(*name) == habit);
    let (_, habit) = known.context("no such habit")?;
    let uuid: Uuid = uuid.context("no instance")?.parse()?;
    let device = client::open(&Mdev::existing(uuid).path())?;
    let interrupt = Interrupt::new()?;
    match habit {
        Habit::Waits => {}
        Habit::CanBeAsked => device.enable_irq(REQ, vec![interrupt.eventfd()])?,
        Habit::Logs => {
            device.start_dma_logging(4096, &[LOGGED])?;
        }
    }
    let area = device
        .get_region_caps(MIGRATION)
        .into_iter()
        .find_map(|capability| match capability {
            VfioRegionInfoCap::SparseMmap(sparse) => sparse.areas.first().copied(),
            _ => None,
        })
        .context("nothing of the migration region can be mapped")?;
    let start = device.get_region_offset(MIGRATION);
    println!(
        "{} {} {}",
        device.as_raw_fd(),
        start + area.offset,
        area.size
    );
    std::io::stdout().flush()?;
    // Until it is killed.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A monitor's process. Killed when dropped.
pub struct Monitor {
    child: Child,
    descriptor: i32,
    /// What of its device's file can be mapped.
    pub mappable: Area,
}

impl Monitor {
    /// Starts a monitor with the device of `instance`, and waits until it has it.
    pub fn start(instance: &Mdev, habit: Habit) -> Result<Self> {
        let program = std::env::current_exe().context("this program")?;
        let mut child = Command::new(program)
            .args([OPTION, habit.name(), &instance.uuid().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the monitor")?;
        let output = child.stdout.take().context("the monitor's output")?;
        let mut this = Self {
            child,
            descriptor: -1,
            mappable: Area { offset: 0, size: 0 },
        };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let words: Vec<_> = line.split_whitespace().collect();
        let [descriptor, offset, size] = words[..] else {
            bail!("the monitor has no device; it said {line:?}");
        };
        this.descriptor = descriptor.parse()?;
        this.mappable = Area {
            offset: offset.parse()?,
            size: size.parse()?,
        };
        Ok(this)
    }

    /// Its process number.
    pub fn number(&self) -> u32 {
        self.child.id()
    }

    /// A second descriptor of its device's file, as if it had sent it to somebody.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        let pid = i32::try_from(self.number()).ok().and_then(Pid::from_raw);
        let process = pidfd_open(pid.context("the monitor's number")?, PidfdFlags::empty())?;
        let found = pidfd_getfd(process, self.descriptor, PidfdGetfdFlags::empty());
        found.context("the monitor's descriptor")
    }

    /// Kills it, and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        let status = self.child.wait()?;
        ensure!(status.code().is_none(), "the monitor ended: {status}");
        Ok(())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
