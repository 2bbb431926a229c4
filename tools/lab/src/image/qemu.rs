// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The QEMUs that run guests inside the test machine: the installed one, with the shared libraries and firmware it needs, and
//! trees of other versions that are complete already.

use super::HostFile;
use anyhow::{bail, Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// The version of the installed one, by which tests ask for it.
pub const INSTALLED: &str = "10.0";

/// Where it goes in the machine.
const HOME: &str = "opt/qemu-10.0";

/// The script that starts it.
pub const STARTER: &str = "opt/qemu-10.0/bin/qemu-system-x86_64";

const PROGRAM: &str = "/usr/bin/qemu-system-x86_64";

/// What a q35 guest without display, network and option ROMs reads at start.
const FIRMWARE: [&str; 5] = [
    "bios-256k.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "pvh.bin",
    "multiboot_dma.bin",
];

/// Directories that Debian's QEMU packages put firmware in.
const FIRMWARE_DIRECTORIES: [&str; 2] = ["/usr/share/qemu", "/usr/share/seabios"];

/// What is in a tree, each a directory of files.
const TREE: [&str; 4] = ["bin", "lib", "libexec", "share"];

/// A self-contained QEMU of another version, as `scripts/qemu` makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    version: String,
    directory: PathBuf,
}

impl FromStr for Tree {
    type Err = String;

    /// Reads `VERSION=DIRECTORY`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((version, directory))
                if version.starts_with(|c: char| c.is_ascii_digit())
                    && version.chars().all(|c| c.is_ascii_digit() || c == '.')
                    && !directory.is_empty() =>
            {
                Ok(Self {
                    version: version.to_owned(),
                    directory: directory.into(),
                })
            }
            _ => Err("it should be VERSION=DIRECTORY".to_owned()),
        }
    }
}

/// Any number of trees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trees(pub Vec<Tree>);

impl FromStr for Trees {
    type Err = String;

    /// Reads trees with commas between them; none is a number, too.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split(',').filter(|word| !word.is_empty());
        words.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl Tree {
    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it is called, in the machine and in the cache.
    pub fn name(&self) -> String {
        format!("qemu-{}", self.version)
    }

    /// Its files and their places in the machine.
    pub fn files(&self) -> Result<Vec<HostFile>> {
        let mut files = Vec::new();
        for part in TREE {
            let directory = self.directory.join(part);
            let entries = fs::read_dir(&directory).with_context(|| {
                format!(
                    "{} has no QEMU {} (cannot read {part}): run make setup",
                    self.directory.display(),
                    self.version
                )
            })?;
            for entry in entries {
                let source = entry?.path();
                let name = source.file_name().unwrap_or_default().to_string_lossy();
                files.push(HostFile {
                    place: format!("opt/{}/{part}/{name}", self.name()),
                    mode: fs::metadata(&source)?.permissions().mode() & 0o777,
                    source,
                });
            }
        }
        files.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(files)
    }
}

/// Files of the installed QEMU.
pub fn files() -> Result<Vec<HostFile>> {
    let mut files = program(Path::new(PROGRAM), "qemu-system-x86", HOME)?;
    for name in FIRMWARE {
        let place = FIRMWARE_DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.is_file());
        let place = place.with_context(|| {
            format!("QEMU's firmware {name} is missing: install qemu-system-x86 and seabios")
        })?;
        files.push(HostFile {
            source: place,
            place: format!("{HOME}/share/{name}"),
            mode: 0o755,
        });
    }
    Ok(files)
}

/// An installed program and the shared libraries that it needs, to go below `home`.
pub(super) fn program(program: &Path, package: &str, home: &str) -> Result<Vec<HostFile>> {
    if !program.is_file() {
        bail!(
            "{} is missing: install the package {package}",
            program.display()
        );
    }
    let file = |source: PathBuf, directory: &str| -> Result<HostFile> {
        let name = source.file_name().context("a file without a name")?;
        let place = format!("{home}/{directory}/{}", name.to_string_lossy());
        Ok(HostFile {
            source,
            place,
            mode: 0o755,
        })
    };
    let mut files = vec![file(program.to_owned(), "libexec")?];
    for library in libraries(program)? {
        files.push(file(library, "lib")?);
    }
    Ok(files)
}

/// A program that starts it from wherever it lies: with its own libraries and firmware.
pub fn wrapper() -> String {
    through_loader(HOME, "qemu-system-x86_64", &format!("-L /{HOME}/share "))
}

/// A script that runs `libexec/<name>` below `home`, through the loader and with the libraries in `lib` there; `options`,
/// each followed by a space, come before those of the caller.
pub(super) fn through_loader(home: &str, name: &str, options: &str) -> String {
    format!(
        "#!/bin/busybox sh\nexec /{home}/lib/ld-linux-x86-64.so.2 --library-path /{home}/lib --argv0 \"$0\" \
         /{home}/libexec/{name} {options}\"$@\"\n"
    )
}

/// The shared libraries of a program, its loader included, as the loader itself resolves them.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    let output = Command::new(loader).arg("--list").arg(program).output();
    let output = output.with_context(|| format!("cannot run {}", loader.display()))?;
    if !output.status.success() {
        bail!(
            "{} does not find its libraries: {}",
            program.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let mut found = parse_list(&String::from_utf8_lossy(&output.stdout))?;
    if !found
        .iter()
        .any(|path| path.file_name() == loader.file_name())
    {
        found.push(loader.to_owned());
    }
    Ok(found)
}

/// Lines are `name => path (address)`, `path (address)` or `linux-vdso.so.1 (address)`.
fn parse_list(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        if place.starts_with("not found") {
            bail!("a library is missing: {line}");
        }
        let place = place.split_once(" (").map_or(place, |(path, _)| path);
        if place.starts_with('/') {
            found.push(PathBuf::from(place));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_listed_and_the_vdso_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007f01)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f02)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f03)\n";
        let found = parse_list(text).unwrap();
        assert_eq!(
            found,
            [
                Path::new("/lib/x86_64-linux-gnu/libz.so.1"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }

    #[test]
    fn a_tree_is_a_version_and_a_directory() {
        let tree: Tree = "7.2=/a/b".parse().unwrap();
        assert_eq!(
            (tree.name().as_str(), tree.directory.as_path()),
            ("qemu-7.2", Path::new("/a/b"))
        );
        for text in ["7.2", "7.2=", "=/a", "../x=/a", ".=/a", "new=/a"] {
            assert!(text.parse::<Tree>().is_err(), "{text}");
        }
        assert_eq!("".parse(), Ok(Trees::default()));
        let both: Trees = "7.2=/a,11.1=/b".parse().unwrap();
        assert_eq!(both.0.len(), 2);
        assert!("7.2=/a,11.1".parse::<Trees>().is_err());
    }

    #[test]
    fn the_files_of_a_tree_keep_their_places_and_permissions() {
        let directory = tempfile::tempdir().unwrap();
        for part in TREE {
            fs::create_dir(directory.path().join(part)).unwrap();
            let file = directory.path().join(part).join("f");
            fs::write(&file, "x").unwrap();
            let mode = if part == "share" { 0o644 } else { 0o755 };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let tree: Tree = format!("7.2={}", directory.path().display())
            .parse()
            .unwrap();
        let files = tree.files().unwrap();
        let got: Vec<_> = files
            .iter()
            .map(|file| (file.place.as_str(), file.mode))
            .collect();
        assert_eq!(
            got,
            [
                ("opt/qemu-7.2/bin/f", 0o755),
                ("opt/qemu-7.2/lib/f", 0o755),
                ("opt/qemu-7.2/libexec/f", 0o755),
                ("opt/qemu-7.2/share/f", 0o644),
            ]
        );
        fs::remove_dir_all(directory.path().join("lib")).unwrap();
        assert!(tree.files().is_err());
    }

    #[test]
    fn a_missing_library_is_an_error() {
        assert!(parse_list("\tlibz.so.1 => not found\n").is_err());
    }
}
