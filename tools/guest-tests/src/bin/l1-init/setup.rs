// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Bringing the machine up, loading modules, switching it off.

use anyhow::{Context, Result};
use lab_protocol::{ModuleAction, BOOT_MODULES, PORT_NAME};
use rustix::fs::{open, Mode, OFlags};
use rustix::mount::{mount, MountFlags};
use rustix::net::{netlink, AddressFamily, SocketFlags, SocketType};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Type, place and options of every file system, in order.
const MOUNTS: [(&str, &str, &str); 9] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "ptmxmode=0666"),
    ("tmpfs", "/dev/shm", ""),
    ("tmpfs", "/tmp", ""),
    ("tmpfs", "/run", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("configfs", "/sys/kernel/config", ""),
];

/// Directory of the kernel modules.
const MODULES: &str = "/lib/modules/lab";

/// `O_NONBLOCK` as the flags of delete_module(2).
const NONBLOCK: std::ffi::c_int = OFlags::NONBLOCK.bits() as std::ffi::c_int;

/// Loads what the kernel needs for everything else, in the order of the list.
pub fn boot_modules() -> Result<()> {
    let list = Path::new("/").join(BOOT_MODULES);
    let list = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    list.lines()
        .try_for_each(|name| module(name, &ModuleAction::Load(String::new())))
}

/// Mounts everything in [`MOUNTS`].
pub fn file_systems() -> Result<()> {
    for (kind, place, options) in MOUNTS {
        // The directories below /sys are the kernel's own.
        if !Path::new(place).is_dir() {
            fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        }
        let options = CString::new(options)?;
        mount(
            kind,
            place,
            kind,
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .with_context(|| format!("cannot mount {kind} on {place}"))?;
    }
    for directory in ["/run/logs", "/root"] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {directory}"))?;
    }
    fs::write("/proc/sys/kernel/hostname", "lab").context("cannot set the host name")?;
    // What the kernel says only once (that a work queue is deprecated, for one), it may have said of itself while it booted.
    fs::write("/sys/kernel/debug/clear_warn_once", "1").context("cannot clear warnings")
}

/// Opens the control port, waiting for it to be announced if need be.
pub fn control_port() -> Result<File> {
    // Listening begins before looking, so that an announcement between the two is not missed.
    let events = device_events()?;
    loop {
        if let Some(device) = find_port()? {
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let port = open(format!("/dev/{device}"), flags, Mode::empty())
                .with_context(|| format!("/dev/{device}"))?;
            return Ok(port.into());
        }
        let mut event = [0; 8192];
        rustix::io::read(&events, &mut event).context("cannot read device events")?;
    }
}

fn device_events() -> Result<OwnedFd> {
    let protocol = netlink::KOBJECT_UEVENT;
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(protocol),
    )
    .context("no device events")?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))
        .context("no device events")?;
    Ok(socket)
}

fn find_port() -> Result<Option<String>> {
    let ports = Path::new("/sys/class/virtio-ports");
    if !ports.exists() {
        return Ok(None);
    }
    for entry in fs::read_dir(ports)?.flatten() {
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        let device = entry.file_name().to_string_lossy().into_owned();
        if name.trim_end() == PORT_NAME && Path::new("/dev").join(&device).exists() {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// Loads or unloads a module.
pub fn module(name: &str, action: &ModuleAction) -> Result<()> {
    match action {
        ModuleAction::Load(parameters) => {
            guest_tests::module::await_free_name(name)?;
            let path = Path::new(MODULES).join(format!("{name}.ko"));
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            rustix::system::finit_module(&file, &CString::new(parameters.as_str())?, 0)
                .with_context(|| format!("the kernel refused {name}.ko"))
        }
        // Not waiting (O_NONBLOCK): a module in use is an error.
        ModuleAction::Unload => rustix::system::delete_module(&CString::new(name)?, NONBLOCK)
            .with_context(|| format!("the kernel keeps {name}")),
    }
}

/// Ends the machine. Does not return unless it fails.
pub fn power_off() -> Result<()> {
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff)
        .context("cannot switch the machine off")
}
