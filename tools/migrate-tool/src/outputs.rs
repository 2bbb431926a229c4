// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where the program writes to: a saved state, and its answers.

use std::fs::Permissions;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::equal;
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe};

use crate::host::{instance, name, open, run, tool, Ran, Scratch};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_state_goes_where_it_is_told,
        standard_output_changes_no_answer,
    );
}

fn a_state_goes_where_it_is_told() -> Result<()> {
    let card = instance("mdev_serial-1")?;
    let scratch = Scratch::new()?;
    let save = |path: &Path| run(["save", &name(&card), &path.display().to_string()]);
    // A file, for its owner only, new or not.
    let file = scratch.with("file", "")?;
    std::fs::set_permissions(&file, Permissions::from_mode(0o644))?;
    for path in [&file, &scratch.file("new")] {
        save(path)?.expect(0)?;
        let mode = path.symlink_metadata()?.permissions().mode() & 0o7777;
        equal(path.display().to_string(), mode, 0o600)?;
    }
    let state = std::fs::read(&file)?;
    // What a link leads to.
    let link = scratch.file("link");
    std::fs::write(scratch.file("end"), "")?;
    symlink("end", &link)?;
    save(&link)?.expect(0)?;
    equal("link", std::fs::read_link(&link)?, PathBuf::from("end"))?;
    equal("end", std::fs::read(scratch.file("end"))?, state.clone())?;
    // Devices and FIFOs stay what they are.
    let number = |path: &str| Ok::<_, anyhow::Error>(std::fs::symlink_metadata(path)?.rdev());
    let null = number("/dev/null")?;
    save(Path::new("/dev/null"))?.expect(0)?;
    equal("/dev/null", number("/dev/null")?, null)?;
    let full = save(Path::new("/dev/full"))?.expect(2)?;
    full.says("/dev/full: No space left on device (ENOSPC)")?;
    let fifo = scratch.file("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let reader = {
        let fifo = fifo.clone();
        std::thread::spawn(move || std::fs::read(fifo))
    };
    save(&fifo)?.expect(0)?;
    let read = reader.join().ok().context("the reader has ended")??;
    equal("what the reader of the FIFO has", read, state)?;
    // A refusal leaves nothing behind.
    let device = open(&card)?;
    save(&scratch.file("none"))?.expect(2)?.says("is in use")?;
    drop(device);
    let mut names: Vec<_> = std::fs::read_dir(scratch.file("."))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    names.sort();
    equal(
        "files",
        names,
        ["end", "fifo", "file", "link", "new"]
            .map(Into::into)
            .to_vec(),
    )
}

fn standard_output_changes_no_answer() -> Result<()> {
    let (one, other, two) = (
        instance("mdev_serial-1")?,
        instance("mdev_serial-1")?,
        instance("mdev_serial-2")?,
    );
    let scratch = Scratch::new()?;
    let state = scratch.file("state").display().to_string();
    let (one, other, two) = (name(&one), name(&other), name(&two));
    run(["save", &one, &state])?.expect(0)?;
    for (arguments, status) in [
        (&["save", &one, &state][..], 0),
        (&["load", &other, &state], 0),
        (&["load", &two, &state], 1),
        (&["copy", &one, &other], 0),
        (&["copy", &one, &two], 1),
        (&["check", &one, &two], 1),
        // Here the state is what did not arrive.
        (&["save", &one], 2),
    ] {
        for json in [None, Some("--json")] {
            let started = |out: Stdio| -> Result<Ran> {
                let mut command = tool()?;
                command.args(arguments).args(json).stdout(out);
                let child = command.stderr(Stdio::piped()).spawn()?;
                Ok(child.wait_with_output()?.into())
            };
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
            started(full.into())?.expect(status)?;
            let (reader, writer) = pipe()?;
            drop(reader);
            started(writer.into())?.expect(status)?;
        }
    }
    Ok(())
}
