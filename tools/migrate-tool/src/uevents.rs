// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What the kernel tells user space when an instance or a parent comes and goes, and what is there by then.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use guest_tests::ktap::{scaled, Suite};
use guest_tests::v2_api::check::equal;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::net::{self, netlink, AddressFamily, RecvFlags, SocketFlags, SocketType};
use uuid::Uuid;
use vfio_uapi::mdev::MdevType;

use crate::old_parent::reload;

/// How long a test waits for an event that has to come.
const DEADLINE: Duration = Duration::from_secs(10);
/// Times that the driver is loaded at most for its parent to be seen before it is complete.
const RELOADS: usize = 20;
/// Instances that are made at most for one to be seen before it is complete.
const ATTEMPTS: usize = 200;

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        an_instance_is_complete_at_its_bind_event,
        a_parent_is_complete_at_its_last_change_event,
    );
}

/// An event of the kernel's.
pub struct Uevent {
    /// What happened: `add`, `bind`, `change` …
    pub action: String,
    /// The directory below `/sys`.
    pub path: String,
    /// The variables that came with it.
    pub variables: BTreeMap<String, String>,
}

/// A socket that gets all events from now on.
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Begins to listen.
    pub fn listen() -> Result<Self> {
        let socket = net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::KOBJECT_UEVENT),
        )
        .context("no socket for events")?;
        // The group of the kernel's own events; udev's are in another.
        net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 1)).context("no events")?;
        Ok(Self(socket))
    }

    /// The next event, if one has come.
    fn try_next(&self) -> Result<Option<Uevent>> {
        let mut buffer = [0; 8192];
        let len = match net::recv(self.0.as_fd(), &mut buffer, RecvFlags::DONTWAIT) {
            Ok((len, _)) => len,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error).context("an event cannot be read"),
        };
        let text = std::str::from_utf8(&buffer[..len]).context("an event is no text")?;
        let mut lines = text.split_terminator('\0');
        let head = lines.next().unwrap_or_default();
        let (action, path) = head
            .split_once('@')
            .with_context(|| format!("event {head:?}"))?;
        Ok(Some(Uevent {
            action: action.to_string(),
            path: path.to_string(),
            variables: lines
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        }))
    }

    /// Waits for an event, and no longer than until `end`.
    fn next_until(&self, end: Instant) -> Result<Uevent> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no such event within {DEADLINE:?}");
            let mut sockets = [PollFd::new(&self.0, PollFlags::IN)];
            let left = Timespec::try_from(left)?;
            poll(&mut sockets, Some(&left)).context("poll")?;
        }
    }

    /// Waits for an event of this action of the device whose directory has this name.
    pub fn wait(&self, action: &str, device: &str) -> Result<Uevent> {
        let end = Instant::now() + scaled(DEADLINE);
        loop {
            let event = self
                .next_until(end)
                .with_context(|| format!("{action} of {device}"))?;
            if event.action == action && event.path.rsplit('/').next() == Some(device) {
                return Ok(event);
            }
        }
    }

    /// Fails if an event of this device has come.
    pub fn none_of(&self, device: &str) -> Result<()> {
        while let Some(event) = self.try_next()? {
            ensure!(!event.path.contains(device), "{} of {device}", event.action);
        }
        Ok(())
    }
}

/// "add" comes before there is a driver, and its files, so who waits for that finds no parameters. "bind" comes after them. The
/// one who looks is as fast as it can be: otherwise the files might be there by accident.
fn an_instance_is_complete_at_its_bind_event() -> Result<()> {
    let ty = MdevType::find("mdev_serial-1")?;
    let mut was_early = 0;
    for _ in 0..ATTEMPTS {
        let uuid = Uuid::new_v4();
        let name = uuid.to_string();
        let events = Uevents::listen()?;
        let (ty, device) = (ty.clone(), name.clone());
        let creator = std::thread::spawn(move || ty.create_with(uuid));
        let end = Instant::now() + scaled(DEADLINE);
        let mut seen = Vec::new();
        while seen.last().map(String::as_str) != Some("bind") {
            ensure!(
                Instant::now() < end,
                "events of an instance: {seen:?}, no bind"
            );
            let Some(event) = events.try_next()? else {
                std::hint::spin_loop();
                continue;
            };
            if !event.path.ends_with(&device)
                || event.variables.get("SUBSYSTEM").map(String::as_str) != Some("mdev")
            {
                continue;
            }
            let sysfs = format!("/sys{}", event.path);
            let directory = Path::new(&sysfs).join("migration");
            match event.action.as_str() {
                "add" if !directory.exists() => was_early += 1,
                "bind" => {
                    for file in ["device_model", "num-ports", "compatible", "error"] {
                        ensure!(directory.join(file).exists(), "{file} is missing at bind");
                    }
                    equal(
                        "DRIVER",
                        event.variables.get("DRIVER").map(String::as_str),
                        Some("mdev_serial"),
                    )?;
                }
                _ => {}
            }
            seen.push(event.action);
        }
        equal("events", seen, vec!["add".to_string(), "bind".to_string()])?;
        let Ok(instance) = creator.join() else {
            bail!("the thread panicked")
        };
        drop(instance?);
        if was_early > 0 {
            return Ok(());
        }
    }
    bail!("of {ATTEMPTS} instances none was seen at its add event without its files: this test cannot tell when they come")
}

/// The mdev core says that a parent is registered before its types have their files.
fn a_parent_is_complete_at_its_last_change_event() -> Result<()> {
    let info = Path::new(
        "/sys/class/mdev_bus/mdev_serial/mdev_supported_types/mdev_serial-1/migration_info.json",
    );
    for _ in 0..RELOADS {
        let events = Uevents::listen()?;
        let loading = std::thread::spawn(reload);
        let end = Instant::now() + scaled(DEADLINE);
        let mut was_early = false;
        loop {
            ensure!(Instant::now() < end, "no change of the parent");
            let Some(event) = events.try_next()? else {
                std::hint::spin_loop();
                continue;
            };
            let is_parent = event.path == "/devices/virtual/mdev_serial/mdev_serial";
            if !is_parent || event.action != "change" {
                continue;
            }
            if !event.variables.contains_key("MDEV_STATE") {
                break;
            }
            was_early |= !info.exists();
        }
        let is_complete = info.exists();
        let Ok(loaded) = loading.join() else {
            bail!("the thread panicked")
        };
        loaded?;
        ensure!(is_complete, "{} is missing", info.display());
        if was_early {
            return Ok(());
        }
    }
    bail!("in {RELOADS} times the parent was never seen registered without its files: this test cannot tell when they come")
}
