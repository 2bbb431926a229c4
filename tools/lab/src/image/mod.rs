// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The machine's root file system: several cpio archives in one file.
//!
//! The first hold what comes from packages: BusyBox, mdevctl and udev, a D-Bus daemon, and each QEMU in an archive of its own. They
//! are kept in the cache under names made from their content's sizes and times. The last holds what is being tested and is written
//! anew for every run.

pub mod cpio;
mod dbus;
mod mdevctl;
pub mod needs;
pub mod qemu;
mod udev;

use crate::environment::Environment;
use crate::modules::Module;
use anyhow::{bail, Context, Result};
use cpio::Archive;
use needs::Needs;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::NamedTempFile;

/// Raised when the layout of the kept archives changes.
const LAYOUT: &str = "3";

/// The first process of the machine, among the guest programs.
pub const INIT: &str = "l1-init";

/// The first process of the guests in the machine, among the guest programs.
pub const GUEST_INIT: &str = "l2-init";

/// A root file system in a file without a name: it goes when the last process that has it open ends.
pub struct Image {
    file: File,
}

impl Image {
    /// Assembles the archives, with all the modules and what else the machine needs.
    pub fn build(env: &Environment, modules: &[Module], needs: &Needs) -> Result<Self> {
        let mut file =
            tempfile::tempfile_in(env.cache()?).context("cannot make a file in the cache")?;
        for mut kept in kept_archives(env, needs)? {
            io::copy(&mut kept.file, &mut file)
                .with_context(|| format!("cannot copy {}", kept.path.display()))?;
        }
        test_archive(env, modules, needs, &mut BufWriter::new(&mut file))?;
        Ok(Self { file })
    }

    /// For a process that shall read it.
    pub fn open(&self) -> Result<OwnedFd> {
        Ok(self
            .file
            .try_clone()
            .context("cannot hand on the root file system")?
            .into())
    }
}

/// An archive in the cache.
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// Open for reading: another checkout's lab may remove it from the cache.
    pub file: File,
}

/// The archives of what comes from packages. Those that are not in the cache are made.
pub fn kept_archives(env: &Environment, needs: &Needs) -> Result<Vec<Kept>> {
    let cache = env.cache()?;
    let mut archives = vec![base_archive(&cache)?];
    if needs.installed_qemu() {
        archives.push(installed_qemu(&cache)?);
    }
    if needs.bus() {
        archives.push(dbus_archive(&cache)?);
    }
    for tree in env
        .qemu_trees
        .0
        .iter()
        .filter(|tree| needs.qemu(tree.version()))
    {
        let files = tree.files()?;
        archives.push(keep(&cache, &tree.name(), "", &files, |archive| {
            add_files(archive, &files)
        })?);
    }
    Ok(archives)
}

/// The first archive.
fn base_archive(cache: &Path) -> Result<Kept> {
    let busybox = busybox()?;
    let mut files = mdevctl::files()?;
    files.extend(udev::files()?);
    files.push(HostFile {
        source: busybox.clone(),
        place: "bin/busybox".to_owned(),
        mode: 0o755,
    });
    let wrappers = [mdevctl::wrapper(), udev::wrapper()].concat();
    keep(cache, "base", &wrappers, &files, |archive| {
        for directory in ["proc", "sys", "dev", "tmp", "run", "root", "etc"] {
            archive.directory(directory)?;
        }
        // Needed before devtmpfs is mounted: the first process starts with the console as its output.
        archive.character_device("dev/console", 0o600, 5, 1)?;
        archive.character_device("dev/null", 0o666, 1, 3)?;
        add_files(archive, &files)?;
        for directory in mdevctl::DIRECTORIES {
            archive.directory(directory)?;
        }
        archive.text(mdevctl::STARTER, 0o755, &mdevctl::wrapper())?;
        archive.symlink(mdevctl::LINK, &format!("/{}", mdevctl::STARTER))?;
        for starter in udev::STARTERS {
            archive.text(starter, 0o755, &udev::wrapper())?;
        }
        archive.text("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")?;
        archive.text("etc/group", 0o644, "root:x:0:\n")?;
        for applet in applets(&busybox)? {
            if applet != "bin/busybox" {
                archive.symlink(&applet, "/bin/busybox")?;
            }
        }
        Ok(())
    })
}

/// That of the installed QEMU.
fn installed_qemu(cache: &Path) -> Result<Kept> {
    let files = qemu::files()?;
    let (name, wrapper) = (format!("qemu-{}", qemu::INSTALLED), qemu::wrapper());
    keep(cache, &name, &wrapper, &files, |archive| {
        add_files(archive, &files)?;
        archive.text(qemu::STARTER, 0o755, &wrapper)?;
        Ok(())
    })
}

/// That of the D-Bus daemon.
fn dbus_archive(cache: &Path) -> Result<Kept> {
    let (files, starters) = (dbus::files()?, dbus::starters());
    let scripts: String = starters.iter().map(|(_, script)| script.as_str()).collect();
    keep(cache, "dbus", &scripts, &files, |archive| {
        add_files(archive, &files)?;
        for (place, script) in &starters {
            archive.text(place, 0o755, script)?;
        }
        Ok(())
    })
}

/// A file of the host that goes into the machine.
pub struct HostFile {
    /// Where it is.
    pub source: PathBuf,
    /// Where it goes, relative to the root.
    pub place: String,
    /// Its permissions there.
    pub mode: u32,
}

/// The archive `<name>-<key>.cpio` in the cache, with a key made of `files` and `more`. If there is none, `fill` fills it, and
/// earlier ones of that name go.
fn keep(
    cache: &Path,
    name: &str,
    more: &str,
    files: &[HostFile],
    fill: impl FnOnce(&mut Archive<BufWriter<&mut NamedTempFile>>) -> Result<()>,
) -> Result<Kept> {
    let mut key = Sha256::new();
    key.update(LAYOUT);
    key.update(more);
    for HostFile { source, place, .. } in files {
        let meta =
            fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))?;
        key.update(format!(
            "{}\0{place}\0{}\0{}\n",
            source.display(),
            meta.len(),
            meta.mtime()
        ));
    }
    let path = cache.join(format!(
        "{name}-{:.16}.cpio",
        format!("{:x}", key.finalize())
    ));
    if let Ok(file) = File::open(&path) {
        return Ok(Kept { path, file });
    }
    let mut file = NamedTempFile::with_prefix_in(format!("{name}-"), cache)?;
    let mut archive = Archive::new(BufWriter::new(&mut file));
    fill(&mut archive)?;
    archive.finish()?.flush()?;
    file.as_file().sync_all()?;
    remove_old(cache, name)?;
    file.persist(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Kept { path, file })
}

/// Removes earlier versions of an archive.
fn remove_old(cache: &Path, name: &str) -> Result<()> {
    let prefix = format!("{name}-");
    for entry in fs::read_dir(cache)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".cpio") {
            match fs::remove_file(entry.path()) {
                // Another lab was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => {
                    result.with_context(|| format!("cannot remove {}", entry.path().display()))?
                }
            }
        }
    }
    Ok(())
}

fn busybox() -> Result<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let Some(place) = places.into_iter().find(|path| path.is_file()) else {
        bail!("busybox is missing: install the package busybox-static");
    };
    if !crate::modules::is_static(&place)? {
        bail!(
            "{} needs shared libraries: install the package busybox-static",
            place.display()
        );
    }
    Ok(place)
}

/// Paths of BusyBox's applets, relative to the root.
fn applets(busybox: &Path) -> Result<Vec<String>> {
    let output = Command::new(busybox)
        .arg("--list-full")
        .output()
        .context("cannot run busybox")?;
    Ok(String::from_utf8(output.stdout)?
        .lines()
        .map(str::to_owned)
        .collect())
}

/// What was built here, and what guests boot if there are any.
fn test_archive(
    env: &Environment,
    modules: &[Module],
    needs: &Needs,
    out: &mut dyn Write,
) -> Result<()> {
    let mut archive = Archive::new(out);
    let programs = programs(env.guest_tests()?)?;
    let init = programs.iter().find(|(name, _)| name == INIT);
    let (_, init) = init.with_context(|| {
        format!(
            "{} has no {INIT}: build the guest programs",
            env.guest_tests.display()
        )
    })?;
    add_file(&mut archive, "init", init, 0o755)?;
    for (name, path) in programs
        .iter()
        .filter(|(name, _)| name != INIT && name != GUEST_INIT && needs.program(name))
    {
        add_file(&mut archive, &format!("tests/{name}"), path, 0o755)?;
    }
    let (place, script) = mdevctl::CALLOUT;
    archive.text(place, 0o755, script)?;
    let (place, rule) = udev::RULE;
    archive.text(place, 0o644, rule)?;
    let (place, program) = mdevctl::CALLOUT_PROGRAM;
    archive.symlink(place, program)?;
    for module in modules {
        add_file(
            &mut archive,
            &format!("lib/modules/lab/{}.ko", module.name),
            &module.path,
            0o644,
        )?;
    }
    let boot: String = env
        .boot_modules(modules)?
        .iter()
        .flat_map(|module| [module.name.as_str(), "\n"])
        .collect();
    archive.text(lab_protocol::BOOT_MODULES, 0o644, &boot)?;
    if let Some(config) = env.kernel_config() {
        add_file(&mut archive, lab_protocol::KERNEL_CONFIG, &config, 0o644)?;
    }
    if needs.guests() {
        let init = programs.iter().find(|(name, _)| name == GUEST_INIT);
        add_guest(&mut archive, env, init.map(|(_, path)| path.as_path()))?;
    }
    archive.finish()?.flush()?;
    Ok(())
}

/// Adds what a guest boots: its kernel, a root file system, and one with BusyBox, which makes file systems.
fn add_guest(
    archive: &mut Archive<impl Write>,
    env: &Environment,
    init: Option<&Path>,
) -> Result<()> {
    let kernel = env.guest_kernel_image()?;
    let name = kernel.file_name().unwrap_or_default().to_string_lossy();
    add_file(archive, &format!("guest/{name}"), &kernel, 0o644)?;
    let Some(init) = init else {
        return Ok(());
    };
    for (place, busybox) in [
        ("guest/initramfs.cpio", None),
        ("guest/initramfs-mke2fs.cpio", Some(busybox()?)),
    ] {
        let guest = guest_archive(init, busybox.as_deref())?;
        archive.file(place, 0o644, guest.len() as u64, &mut guest.as_slice())?;
    }
    Ok(())
}

/// A root file system of the guests in the machine: their first process and what it stands on. A guest has all of it in its memory
/// twice, and each migration sends that.
fn guest_archive(init: &Path, busybox: Option<&Path>) -> Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    for directory in ["proc", "sys", "dev", "tmp", "run", "bin"] {
        archive.directory(directory)?;
    }
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.character_device("dev/null", 0o666, 1, 3)?;
    add_file(&mut archive, "init", init, 0o755)?;
    if let Some(busybox) = busybox {
        add_file(&mut archive, "bin/busybox", busybox, 0o755)?;
    }
    Ok(archive.finish()?)
}

/// The executable files in a directory, by name. What cargo keeps beside them is not executable or has an extension.
fn programs(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        let meta = fs::metadata(&path)?;
        if meta.is_file() && meta.permissions().mode() & 0o111 != 0 && path.extension().is_none() {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !crate::modules::is_static(&path)? {
                bail!("{} needs shared libraries, which the machine lacks: build it with -C target-feature=+crt-static", path.display());
            }
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}

fn add_files(archive: &mut Archive<impl Write>, files: &[HostFile]) -> Result<()> {
    for HostFile {
        source,
        place,
        mode,
    } in files
    {
        add_file(archive, place, source, *mode)?;
    }
    Ok(())
}

fn add_file(
    archive: &mut Archive<impl Write>,
    place: &str,
    source: &Path,
    mode: u32,
) -> Result<()> {
    let mut file =
        File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
    let length = file.metadata()?.len();
    archive
        .file(place, mode, length, &mut file)
        .with_context(|| format!("cannot add {}", source.display()))
}
