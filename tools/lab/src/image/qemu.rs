// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The QEMU that runs guests inside the test machine: the installed one, with the shared libraries and firmware it needs.

use anyhow::{bail, Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where it goes in the machine.
pub const HOME: &str = "opt/qemu-10.0";

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

/// Files on the host and their places in the machine.
pub fn files() -> Result<Vec<(PathBuf, String)>> {
    if !Path::new(PROGRAM).is_file() {
        bail!("{PROGRAM} is missing: install the package qemu-system-x86");
    }
    let mut files = vec![(
        PathBuf::from(PROGRAM),
        format!("{HOME}/libexec/qemu-system-x86_64"),
    )];
    for library in libraries(Path::new(PROGRAM))? {
        let name = library
            .file_name()
            .context("a library without a name")?
            .to_string_lossy()
            .into_owned();
        files.push((library, format!("{HOME}/lib/{name}")));
    }
    for name in FIRMWARE {
        let place = FIRMWARE_DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.is_file());
        let place = place.with_context(|| {
            format!("QEMU's firmware {name} is missing: install qemu-system-x86 and seabios")
        })?;
        files.push((place, format!("{HOME}/share/{name}")));
    }
    Ok(files)
}

/// A program that starts it from wherever it lies: through its own loader, with its own libraries and firmware.
pub fn wrapper() -> String {
    format!(
        "#!/bin/busybox sh\nexec /{HOME}/lib/ld-linux-x86-64.so.2 --library-path /{HOME}/lib --argv0 \"$0\" \
         /{HOME}/libexec/qemu-system-x86_64 -L /{HOME}/share \"$@\"\n"
    )
}

/// The shared libraries of a program, its loader included, as the loader itself resolves them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
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
    fn a_missing_library_is_an_error() {
        assert!(parse_list("\tlibz.so.1 => not found\n").is_err());
    }
}
