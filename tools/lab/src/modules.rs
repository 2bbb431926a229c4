// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Kernel modules and programs as ELF files: what depends on what, which KUnit suites there are, what is linked statically.

use anyhow::{bail, Context, Result};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{elf, Endianness, Object, ObjectSection};
use std::fs;
use std::path::{Path, PathBuf};

/// A kernel module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name as the kernel knows it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Names of the modules that must be loaded before it.
    pub depends: Vec<String>,
    /// How many KUnit suites run when it is loaded.
    pub kunit_suites: usize,
}

impl Module {
    /// Reads a module file.
    pub fn read(path: &Path) -> Result<Self> {
        let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = ElfFile64::<Endianness>::parse(&*data)
            .with_context(|| format!("{} is no module", path.display()))?;
        let section = |name: &str| {
            file.section_by_name(name)
                .and_then(|s| s.data().ok())
                .unwrap_or_default()
        };
        let info = section(".modinfo");
        let value = |key: &str| modinfo(info, key);
        // The section is an array of pointers to suites.
        let kunit_suites = section(".kunit_test_suites").len() / 8;
        let name = value("name")
            .with_context(|| format!("{} does not say its module name", path.display()))?;
        let depends = value("depends").unwrap_or_default();
        let depends = depends
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        Ok(Self {
            name,
            path: path.to_owned(),
            depends,
            kunit_suites,
        })
    }
}

/// The value of `key=value` in a .modinfo section, whose entries end with NUL.
fn modinfo(section: &[u8], key: &str) -> Option<String> {
    let mut entries = section
        .split(|&b| b == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok());
    entries.find_map(|entry| {
        entry
            .strip_prefix(key)?
            .strip_prefix('=')
            .map(str::to_owned)
    })
}

/// Every module file below a directory.
pub fn find(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() && !hidden && entry.file_name() != "target" {
            found.extend(find(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The modules `wanted` and those they depend on, each after its dependencies. Built-in dependencies have no file and are
/// left to the kernel, which refuses a module whose symbols are missing.
pub fn load_order<'a>(all: &'a [Module], wanted: &[&str]) -> Result<Vec<&'a Module>> {
    let mut order = Vec::new();
    let mut visiting = Vec::new();
    for name in wanted {
        let Some(module) = all.iter().find(|module| module.name == *name) else {
            bail!("there is no module {name}: build the modules first");
        };
        visit(all, module, &mut order, &mut visiting)?;
    }
    Ok(order)
}

fn visit<'a>(
    all: &'a [Module],
    module: &'a Module,
    order: &mut Vec<&'a Module>,
    visiting: &mut Vec<&'a str>,
) -> Result<()> {
    if order.iter().any(|seen| seen.name == module.name) {
        return Ok(());
    }
    if visiting.contains(&module.name.as_str()) {
        bail!(
            "modules depend on one another in a circle: {}",
            visiting.join(", ")
        );
    }
    visiting.push(&module.name);
    for name in &module.depends {
        if let Some(dependency) = all.iter().find(|module| module.name == *name) {
            visit(all, dependency, order, visiting)?;
        }
    }
    visiting.pop();
    order.push(module);
    Ok(())
}

/// Whether a program runs without a loader and shared libraries. Scripts do: BusyBox runs them.
pub fn is_static(path: &Path) -> Result<bool> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if data.starts_with(b"#!") {
        return Ok(true);
    }
    let header = elf::FileHeader64::<Endianness>::parse(&*data)
        .with_context(|| format!("{} is no program", path.display()))?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, &*data)?;
    Ok(!segments
        .iter()
        .any(|segment| segment.p_type(endian) == elf::PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &[&str]) -> Module {
        let depends = depends.iter().map(|name| name.to_string()).collect();
        Module {
            name: name.into(),
            path: PathBuf::new(),
            depends,
            kunit_suites: 0,
        }
    }

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let all = [
            module("mdev_serial", &["rust_vfio"]),
            module("rust_vfio", &["mdev", "vfio"]),
            module("mdev", &[]),
            module("mtty", &["mdev"]),
        ];
        let order: Vec<_> = load_order(&all, &["mdev_serial"])
            .unwrap()
            .into_iter()
            .map(|m| m.name.as_str())
            .collect();
        assert_eq!(order, ["mdev", "rust_vfio", "mdev_serial"]);
    }

    #[test]
    fn a_circle_is_an_error() {
        let all = [module("a", &["b"]), module("b", &["a"])];
        assert!(load_order(&all, &["a"]).is_err());
    }

    #[test]
    fn an_unknown_module_is_an_error() {
        assert!(load_order(&[], &["mdev_serial"]).is_err());
    }

    #[test]
    fn modinfo_values_are_found_by_their_whole_key() {
        let section = b"license=GPL\0depends=mdev,vfio\0name=mtty\0vermagic=name=7\0";
        assert_eq!(modinfo(section, "name").as_deref(), Some("mtty"));
        assert_eq!(modinfo(section, "depends").as_deref(), Some("mdev,vfio"));
        assert_eq!(modinfo(section, "nam"), None);
    }
}
