// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Instances that are created and removed by several threads while the driver is unloaded and loaded, and while others read
//! every file of theirs.

use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{anyhow, bail, ensure, Context};
use uuid::Uuid;

use super::card::{card_type, Card, PORTS};
use super::check::equal;
use crate::ktap::Suite;
use crate::mdev::MdevType;
use crate::module::{load, parameters, unload, DRIVER};
use crate::vfio::{Errno, State};

/// Threads that create and remove.
const CREATORS: u32 = 4;
/// How many instances each of them makes at least.
const INSTANCES: u32 = 60;
/// How often the driver is unloaded at least.
const UNLOADS: u32 = 15;
/// How often everything is read at least.
const READS: u32 = 15;
/// How often each thread tries, at most.
const TRIES: u32 = 20_000;
/// How many instances are made between two times that the driver is unloaded.
const PAUSE: u32 = 4 * CREATORS;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        instances_come_and_go_while_the_driver_does_and_others_read
    );
}

/// What everybody has done. Each thread goes on until all have done enough.
struct Progress {
    /// Who does something, and how often at least.
    parts: Vec<(String, u32)>,
    counts: Mutex<Counts>,
    moved: Condvar,
}

struct Counts {
    /// How often each part was done.
    done: Vec<u32>,
    failed: bool,
}

impl Progress {
    fn new(parts: Vec<(String, u32)>) -> Self {
        let done = vec![0; parts.len()];
        Self {
            parts,
            counts: Mutex::new(Counts {
                done,
                failed: false,
            }),
            moved: Condvar::new(),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self, counts: &Counts) -> bool {
        let mut all = counts.done.iter().zip(&self.parts);
        counts.failed || all.all(|(done, (_, wanted))| done >= wanted)
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts());
        self.moved.notify_all();
    }

    /// Waits until the counts are so, or everything is over.
    fn wait_until(&self, so: impl Fn(&Counts) -> bool) {
        let wait = |counts: &mut Counts| !so(counts) && !self.is_over(counts);
        drop(self.moved.wait_while(self.counts(), wait));
    }

    /// Does `work` over and over until everybody has done enough. It says whether it has done one more; if not, somebody else
    /// has to move first.
    fn run(
        &self,
        part: usize,
        mut work: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut all = || {
            for _ in 0..TRIES {
                let before = {
                    let counts = self.counts();
                    if self.is_over(&counts) {
                        return Ok(());
                    }
                    counts.done.clone()
                };
                if work()? {
                    self.change(|counts| counts.done[part] += 1);
                } else {
                    self.wait_until(|counts| counts.done != before);
                }
            }
            bail!("not everybody came to an end")
        };
        let result = all().with_context(|| format!("{}; {}", self.parts[part].0, self.describe()));
        if result.is_err() {
            self.change(|counts| counts.failed = true);
        }
        result
    }

    fn describe(&self) -> String {
        let counts = self.counts();
        let each = self.parts.iter().zip(&counts.done);
        let each = each.map(|((name, wanted), done)| format!("{name}: {done} of {wanted}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// Whether an error is one that a driver or an instance that goes away gives to whoever uses it meanwhile.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Creates an instance and removes it. False if the driver went away meanwhile.
fn create_and_remove(ports: u32) -> anyhow::Result<bool> {
    let Ok(kind) = card_type(ports) else {
        return Ok(false);
    };
    match kind.create_with(Uuid::new_v4()) {
        Ok(instance) => {
            // Whoever unloads the driver may take the instance away as well: its going is not waited for here.
            let instance = ManuallyDrop::new(instance);
            match instance.set_attribute("remove", "1") {
                Err(error) if !is_gone(&error) => Err(error).context("remove"),
                _ => Ok(true),
            }
        }
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error).context("create"),
    }
}

/// Reads every file below a directory. What goes away meanwhile is passed over.
fn read_all(directory: &Path) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            read_all(&entry.path())?;
            continue;
        }
        let readable = entry.metadata().is_ok_and(|data| {
            std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o444 != 0
        });
        if kind.is_file() && readable {
            match fs::read(entry.path()) {
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                // A file of the driver core that has nothing to tell, for example of power management.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
                Err(error) => {
                    return Err(error).with_context(|| entry.path().display().to_string())
                }
            }
        }
    }
    Ok(())
}

/// Where the parent's device is, with its types and instances below it.
fn parent() -> anyhow::Result<std::path::PathBuf> {
    card_type(1)?.parent()
}

fn instances_come_and_go_while_the_driver_does_and_others_read() -> anyhow::Result<()> {
    let arguments = parameters(DRIVER)?;
    let types = MdevType::all()?.len();
    let free = card_type(1)?.available_instances()?;
    let directory = parent()?;
    let creators = CREATORS as usize;
    let mut parts: Vec<_> = (0..creators)
        .map(|number| (format!("creator {number}"), INSTANCES))
        .collect();
    parts.push(("reader".into(), READS));
    parts.push(("unloader".into(), UNLOADS));
    let (reader, unloader) = (creators, creators + 1);
    let progress = Progress::new(parts);
    let made = |counts: &Counts| counts.done[..creators].iter().sum::<u32>();

    thread::scope(|scope| {
        let progress = &progress;
        let mut threads = Vec::new();
        for number in 0..creators {
            let ports = PORTS[number % PORTS.len()];
            threads.push(scope.spawn(move || progress.run(number, || create_and_remove(ports))));
        }
        threads.push(scope.spawn(|| {
            progress.run(reader, || {
                read_all(&directory)?;
                Ok(directory.exists())
            })
        }));
        threads.push(scope.spawn(|| {
            progress.run(unloader, || {
                // The others are at it again.
                let enough = made(&progress.counts()) + PAUSE;
                progress.wait_until(|counts| made(counts) >= enough);
                match unload(DRIVER) {
                    Ok(()) => load(DRIVER, &arguments).map(|()| true),
                    Err(Errno::EWOULDBLOCK) => Ok(false),
                    Err(error) => Err(error).context("unload"),
                }
            })
        }));
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        results
            .into_iter()
            .try_for_each(|result| result.unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
    })?;
    crate::diag!("{}", progress.describe());

    let left: Vec<_> = fs::read_dir("/sys/bus/mdev/devices")?.flatten().collect();
    ensure!(left.is_empty(), "instances left: {left:?}");
    equal(
        "available in the end",
        card_type(1)?.available_instances()?,
        free,
    )?;
    equal("types", MdevType::all()?.len(), types)?;
    equal(
        "state of a new device",
        Card::new(1)?.state(),
        Ok(State::Running),
    )
}
