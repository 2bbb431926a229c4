// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A D-Bus daemon, and systemd's client of it, with the shared libraries that they need: device programs are controlled over a bus,
//! and QEMU fetches their states there.

use super::qemu::{program, through_loader};
use super::HostFile;
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::Path;

/// Where they go in the machine.
const HOME: &str = "opt/dbus";

/// The programs, each with the package that has it.
const PROGRAMS: [(&str, &str); 2] = [("dbus-daemon", "dbus-daemon"), ("busctl", "systemd")];

/// What the daemon reads when it is started for a user's session, at the same place.
const SESSION: &str = "usr/share/dbus-1/session.conf";

/// The QEMU that needs them: the one that speaks vfio-user.
pub const WITH: &str = "11.1";

/// Files on the host and their places in the machine.
pub fn files() -> Result<Vec<HostFile>> {
    let mut files = vec![HostFile {
        source: Path::new("/").join(SESSION),
        place: SESSION.to_owned(),
        mode: 0o644,
    }];
    let mut places = BTreeSet::new();
    for (name, package) in PROGRAMS {
        let of_program = program(&Path::new("/usr/bin").join(name), package, HOME)?;
        // Some libraries are of both.
        let new = of_program
            .into_iter()
            .filter(|file| places.insert(file.place.clone()));
        files.extend(new);
    }
    Ok(files)
}

/// The scripts that start them from wherever they lie, and where a person's PATH finds those.
pub fn starters() -> Vec<(String, String)> {
    let starter = |(name, _): (&str, &str)| {
        let script = through_loader(HOME, name, "");
        (format!("usr/bin/{name}"), script)
    };
    PROGRAMS.into_iter().map(starter).collect()
}
