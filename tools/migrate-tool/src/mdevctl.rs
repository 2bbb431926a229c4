// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Debian's mdevctl with our devices and their parameters. Documentation/mdevctl.rst shows the same commands.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use guest_tests::kernel;
use guest_tests::ktap::{scaled, Suite};
use guest_tests::v2_api::check::equal;
use guest_tests::vfio::event_fd::DEADLINE;
use serde_json::Value as Json;
use uuid::Uuid;
use vfio_uapi::mdev::Mdev;

use crate::capacity::{free, take_all_but};
use crate::host::{get, Ran};

/// Where the program may be, beside the places in PATH.
const PLACES: [&str; 3] = [
    "/usr/sbin/mdevctl",
    "/usr/bin/mdevctl",
    "/opt/mdevctl/bin/mdevctl",
];
pub const PARENT: &str = "mdev_serial";

/// What mdevctl says of a name that an instance has.
const TAKEN: &str = "File exists (os error 17)";
/// Between two attempts to take a name that is about to be free: nothing tells when it is.
const AGAIN: Duration = Duration::from_millis(100);

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        mdevctl_lists_our_types,
        mdevctl_starts_lists_and_stops_an_instance,
        mdevctl_sets_parameters_persistently,
        mdevctl_changes_parameters_of_a_defined_instance,
        mdevctl_starts_what_is_to_start_with_its_parent,
        mdevctl_reports_a_parameter_that_is_refused,
        mdevctl_reports_a_lack_of_capacity,
    );
}

/// Runs it to its end.
pub fn mdevctl(arguments: &[&str]) -> Result<Ran> {
    let output = command()?
        .args(arguments)
        .output()
        .context("mdevctl cannot be started")?;
    Ok(output.into())
}

/// The program.
pub fn command() -> Result<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("mdevctl"));
    let mut places = in_path.chain(PLACES.into_iter().map(PathBuf::from));
    let Some(program) = places.find(|place| place.exists()) else {
        bail!("Debian's mdevctl is not in this machine");
    };
    Ok(Command::new(program))
}

/// A definition. Stopped and forgotten when dropped.
pub struct Defined {
    /// The instance.
    pub uuid: Uuid,
}

impl Defined {
    pub fn new(ty: &str) -> Result<Self> {
        let uuid = Uuid::new_v4();
        let name = uuid.to_string();
        mdevctl(&["define", "--uuid", &name, "--parent", PARENT, "--type", ty])?.expect(0)?;
        Ok(Self { uuid })
    }

    pub fn name(&self) -> String {
        self.uuid.to_string()
    }

    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let attribute = format!("--addattr=migration/{name}");
        mdevctl(&[
            "modify",
            "--uuid",
            &self.name(),
            &attribute,
            "--value",
            value,
        ])?
        .expect(0)?;
        Ok(())
    }

    /// Starts it. A kernel that releases its objects seconds late, to find those who do not wait (CONFIG_DEBUG_KOBJECT_RELEASE),
    /// keeps the name of an instance that was removed until then, and refuses another of that name: it is waited for.
    pub fn start(&self) -> Result<Mdev> {
        let end = Instant::now() + scaled(DEADLINE);
        let ran = loop {
            let ran = mdevctl(&["start", "--uuid", &self.name()])?;
            let released = !kernel::has("DEBUG_KOBJECT_RELEASE")
                || !ran.err.contains(TAKEN)
                || Mdev::existing(self.uuid).exists();
            if released || Instant::now() > end {
                break ran;
            }
            thread::sleep(AGAIN);
        };
        ran.expect(0)?;
        let mdev = Mdev::existing(self.uuid);
        ensure!(mdev.exists(), "mdevctl started nothing");
        Ok(mdev)
    }

    pub fn stop(&self) -> Result<()> {
        mdevctl(&["stop", "--uuid", &self.name()])?.expect(0)?;
        ensure!(
            !Mdev::existing(self.uuid).exists(),
            "mdevctl stopped nothing"
        );
        Ok(())
    }
}

impl Drop for Defined {
    fn drop(&mut self) {
        if Mdev::existing(self.uuid).exists() {
            let _ = mdevctl(&["stop", "--uuid", &self.name()]);
        }
        let _ = mdevctl(&["undefine", "--uuid", &self.name()]);
    }
}

fn mdevctl_lists_our_types() -> Result<()> {
    let ran = mdevctl(&["types", "--parent", PARENT])?.expect(0)?;
    for ty in [
        "mdev_serial-1",
        "mdev_serial-2",
        "mdev_serial-4",
        "mdev_serial-any",
    ] {
        ensure!(ran.out.contains(ty), "{ty} is not in {:?}", ran.out);
    }
    ensure!(ran.out.contains("Available instances: 32"), "{:?}", ran.out);
    Ok(())
}

fn mdevctl_starts_lists_and_stops_an_instance() -> Result<()> {
    let uuid = Uuid::new_v4().to_string();
    mdevctl(&[
        "start",
        "--uuid",
        &uuid,
        "--parent",
        PARENT,
        "--type",
        "mdev_serial-2",
    ])?
    .expect(0)?;
    let listed = mdevctl(&["list"])?.expect(0)?;
    ensure!(
        listed
            .out
            .contains(&format!("{uuid} {PARENT} mdev_serial-2")),
        "{:?}",
        listed.out
    );
    mdevctl(&["stop", "--uuid", &uuid])?.expect(0)?;
    let listed = mdevctl(&["list"])?.expect(0)?;
    ensure!(!listed.out.contains(&uuid), "{:?}", listed.out);
    Ok(())
}

fn mdevctl_sets_parameters_persistently() -> Result<()> {
    let defined = Defined::new("mdev_serial-any")?;
    let wanted = [("num-ports", "4"), ("fifo-depth", "64"), ("msi", "off")];
    for (name, value) in wanted {
        defined.set(name, value)?;
    }
    // The definition holds them, in the order in which they are to be written.
    let dump =
        mdevctl(&["list", "--defined", "--uuid", &defined.name(), "--dumpjson"])?.expect(0)?;
    let dump: Json = serde_json::from_str(&dump.out).with_context(|| format!("{:?}", dump.out))?;
    let text = dump.to_string();
    for (name, value) in wanted {
        ensure!(
            text.contains(&format!(r#"{{"migration/{name}":"{value}"}}"#)),
            "{name} is not in {text}"
        );
    }
    let before = free()?;
    for _ in 0..2 {
        let mdev = defined.start()?;
        for (name, value) in wanted {
            equal(name, get(&mdev, name)?, value.to_string())?;
        }
        equal("free ports", free()?, before - 4)?;
        defined.stop()?;
        equal("free ports", free()?, before)?;
    }
    Ok(())
}

fn mdevctl_changes_parameters_of_a_defined_instance() -> Result<()> {
    let defined = Defined::new("mdev_serial-1")?;
    defined.set("version", "v1")?;
    let mdev = defined.start()?;
    equal("version", get(&mdev, "version")?, "v1".to_string())?;
    equal("msi", get(&mdev, "msi")?, "off".to_string())?;
    defined.stop()?;
    mdevctl(&[
        "modify",
        "--uuid",
        &defined.name(),
        "--delattr",
        "--index",
        "0",
    ])?
    .expect(0)?;
    defined.set("version", "v2")?;
    let mdev = defined.start()?;
    equal("msi", get(&mdev, "msi")?, "on".to_string())
}

/// What udev has mdevctl do when the parent appears.
fn mdevctl_starts_what_is_to_start_with_its_parent() -> Result<()> {
    let (wanted, other) = (
        Defined::new("mdev_serial-any")?,
        Defined::new("mdev_serial-1")?,
    );
    wanted.set("num-ports", "2")?;
    mdevctl(&["modify", "--uuid", &wanted.name(), "--auto"])?.expect(0)?;
    mdevctl(&["start-parent-mdevs", PARENT])?.expect(0)?;
    let mdev = Mdev::existing(wanted.uuid);
    ensure!(mdev.exists(), "mdevctl did not start it");
    equal("num-ports", get(&mdev, "num-ports")?, "2".to_string())?;
    ensure!(
        !Mdev::existing(other.uuid).exists(),
        "mdevctl started one that is to be started by hand"
    );
    Ok(())
}

fn mdevctl_reports_a_parameter_that_is_refused() -> Result<()> {
    let before = free()?;
    let defined = Defined::new("mdev_serial-any")?;
    defined.set("num-ports", "3")?;
    let ran = mdevctl(&["start", "--uuid", &defined.name()])?;
    ensure!(
        ran.status != 0,
        "mdevctl started an instance with 3 ports: {:?} {:?}",
        ran.out,
        ran.err
    );
    // The callout script knows why.
    ensure!(
        ran.err.contains("num-ports: 3 is not one of 1, 2, 4"),
        "{:?}",
        ran.err
    );
    // Whoever does not listen gets the driver's answer.
    let ran = mdevctl(&["start", "--force", "--uuid", &defined.name()])?;
    ensure!(
        ran.status != 0,
        "mdevctl started an instance with 3 ports: {:?} {:?}",
        ran.out,
        ran.err
    );
    ensure!(ran.err.contains("Invalid argument"), "{:?}", ran.err);
    ensure!(
        !Mdev::existing(defined.uuid).exists(),
        "the instance was left behind"
    );
    equal("free ports", free()?, before)
}

fn mdevctl_reports_a_lack_of_capacity() -> Result<()> {
    let defined = Defined::new("mdev_serial-any")?;
    defined.set("num-ports", "4")?;
    let _taken = take_all_but(2)?;
    let ran = mdevctl(&["start", "--uuid", &defined.name()])?;
    ensure!(
        ran.status != 0,
        "mdevctl started an instance without capacity: {:?} {:?}",
        ran.out,
        ran.err
    );
    ensure!(ran.err.contains("No space left on device"), "{:?}", ran.err);
    equal("free ports", free()?, 2)
}
