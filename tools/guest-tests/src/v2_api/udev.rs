// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The project's rule for udev, in Debian's udev.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use super::check::equal;
use crate::ktap::{scaled, Suite};
use crate::mdev::MdevType;

pub(super) fn add(suite: &mut Suite) {
    // udev does not start without.
    tests_with!(
        suite,
        "INOTIFY_USER",
        the_rule_for_udev_marks_an_instance_while_it_is_complete
    );
}

/// How long udev may take to start.
const READY: Duration = Duration::from_secs(30);

/// Debian's udev daemon. Ends when dropped.
struct Udev(Child);

impl Udev {
    /// Starts it, and waits until it says that it listens (sd_notify(3)).
    fn start() -> Result<Self> {
        let place = Path::new("/run/udev-ready");
        let ready = UnixDatagram::bind(place).context("/run/udev-ready")?;
        let daemon = Command::new("/opt/udev/bin/systemd-udevd")
            .env("NOTIFY_SOCKET", place)
            .stdin(Stdio::null())
            .spawn()
            .context("Debian's udev is not in this machine")?;
        let udev = Self(daemon);
        ready.set_read_timeout(Some(scaled(READY)))?;
        let mut text = [0; 256];
        loop {
            let len = ready
                .recv(&mut text)
                .context("udev does not say that it is ready")?;
            if text[..len]
                .split(|byte| *byte == b'\n')
                .any(|line| line == b"READY=1")
            {
                std::fs::remove_file(place)?;
                return Ok(udev);
            }
        }
    }
}

impl Drop for Udev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn udevadm(arguments: &[&str]) -> Result<String> {
    let output = Command::new("/opt/udev/bin/udevadm")
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "udevadm {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Which properties of these names udev has for a device, when it has dealt with all events so far.
fn properties(path: &str, names: &[&str]) -> Result<Vec<Option<String>>> {
    udevadm(&["settle"])?;
    let all = udevadm(&["info", "--query=property", "--path", path])?;
    let value = |name: &&str| {
        let line = all
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.map(str::to_string)
    };
    Ok(names.iter().map(value).collect())
}

/// systemd has a unit for a device as long as this tag is on it.
fn the_rule_for_udev_marks_an_instance_while_it_is_complete() -> Result<()> {
    let _udev = Udev::start()?;
    let instance = MdevType::find("mdev_serial-1")?.create()?;
    let path = instance.path().display().to_string();
    let alias = format!("/sys/bus/mdev/devices/{}", instance.uuid());
    let names = ["CURRENT_TAGS", "SYSTEMD_ALIAS"];
    equal(
        "properties of a complete instance",
        properties(&path, &names)?,
        vec![Some(":systemd:".to_string()), Some(alias)],
    )?;
    // Without its driver, which it cannot get back, it has no parameters.
    let driver = instance.path().join("driver").canonicalize()?;
    std::fs::write(driver.join("unbind"), instance.uuid().to_string())?;
    equal(
        "properties of an instance without driver",
        properties(&path, &names)?,
        vec![None, None],
    )
}
