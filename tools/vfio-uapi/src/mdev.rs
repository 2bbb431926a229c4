// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Mediated devices through sysfs: find a type, create an instance, find its files, remove it.
//!
//! Sources: Documentation/driver-api/vfio-mediated-device.rst and Documentation/ABI/testing/sysfs-bus-vfio-mdev of the
//! kernel, linux/vfio.h for the device files.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, ensure, Context, Result};
use uuid::Uuid;

/// Every parent device has a link here.
const PARENTS: &str = "/sys/class/mdev_bus";
/// Every instance has a link here, named after its UUID.
const DEVICES: &str = "/sys/bus/mdev/devices";

/// A type of instances that a parent device offers.
#[derive(Clone, Debug)]
pub struct MdevType {
    path: PathBuf,
}

impl MdevType {
    /// All types of all parents, sorted by path.
    pub fn all() -> Result<Vec<Self>> {
        let mut types = Vec::new();
        let parents = match fs::read_dir(PARENTS) {
            Ok(parents) => parents,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(types),
            Err(error) => return Err(error).context(PARENTS),
        };
        for parent in parents {
            let directory = parent.context(PARENTS)?.path().join("mdev_supported_types");
            for entry in
                fs::read_dir(&directory).with_context(|| directory.display().to_string())?
            {
                types.push(Self {
                    path: entry?.path(),
                });
            }
        }
        types.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(types)
    }

    /// The first type called `name`, e.g. `mdev_serial-2`.
    pub fn find(name: &str) -> Result<Self> {
        let all = Self::all()?;
        let known: Vec<&str> = all.iter().map(MdevType::name).collect();
        let message = format!(
            "no parent device offers mdev type {name} (there is: {})",
            known.join(" ")
        );
        all.iter()
            .find(|kind| kind.name() == name)
            .cloned()
            .ok_or_else(|| anyhow!(message))
    }

    /// The type called `name` of the parent device called `parent`.
    pub fn of_parent(parent: &str, name: &str) -> Result<Self> {
        let path = Path::new(PARENTS)
            .join(parent)
            .join("mdev_supported_types")
            .join(name);
        ensure!(path.is_dir(), "there is no {}", path.display());
        Ok(Self { path })
    }

    /// The name of the type, e.g. `mdev_serial-2`.
    pub fn name(&self) -> &str {
        self.path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
    }

    /// The sysfs directory of the type.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sysfs directory of the parent device, without symbolic links.
    pub fn parent(&self) -> Result<PathBuf> {
        let parent = self.path.join("../..");
        parent
            .canonicalize()
            .with_context(|| parent.display().to_string())
    }

    /// Reads an attribute of the type without its last newline.
    pub fn attribute(&self, name: &str) -> Result<String> {
        read_attribute(&self.path.join(name))
    }

    /// How many more instances of this type the parent can hold.
    pub fn available_instances(&self) -> Result<u32> {
        let text = self.attribute("available_instances")?;
        text.parse()
            .with_context(|| format!("available_instances of {} is {text:?}", self.name()))
    }

    /// Creates an instance with a fresh random UUID.
    pub fn create(&self) -> Result<Mdev> {
        self.create_with(Uuid::new_v4())
            .with_context(|| format!("an instance of {} could not be created", self.name()))
    }

    /// Creates an instance called `uuid`. The error is the one of the write to `create`.
    pub fn create_with(&self, uuid: Uuid) -> io::Result<Mdev> {
        write_attribute(&self.path.join("create"), &uuid.to_string())?;
        Ok(Mdev {
            uuid,
            removed: false,
        })
    }
}

/// An instance. Dropping it removes it from the parent, which waits until its users have closed it.
#[derive(Debug)]
pub struct Mdev {
    uuid: Uuid,
    /// Nothing is left to do when this handle is dropped.
    removed: bool,
}

impl Mdev {
    /// The name of the instance.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The sysfs path that QEMU takes as `sysfsdev=`, and under which the driver's own files are.
    pub fn path(&self) -> PathBuf {
        Path::new(DEVICES).join(self.uuid.to_string())
    }

    /// Reads an attribute of the instance, e.g. `migration/error`, without its last newline.
    pub fn attribute(&self, name: &str) -> Result<String> {
        read_attribute(&self.path().join(name))
    }

    /// Writes an attribute of the instance, e.g. a migration parameter. The error is the one of the write.
    pub fn set_attribute(&self, name: &str, value: &str) -> io::Result<()> {
        write_attribute(&self.path().join(name), value)
    }

    /// The reason of the last refusal, as the driver words it; empty if there was none.
    pub fn migration_error(&self) -> Result<String> {
        self.attribute("migration/error")
    }

    /// The number of the instance's IOMMU group.
    pub fn group(&self) -> Result<u32> {
        let link = self.path().join("iommu_group");
        let target = fs::read_link(&link).with_context(|| link.display().to_string())?;
        let number = target
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok());
        number.with_context(|| {
            format!(
                "{} leads to {}, not to a group",
                link.display(),
                target.display()
            )
        })
    }

    /// The file of the instance's IOMMU group, e.g. `/dev/vfio/0`.
    pub fn group_path(&self) -> Result<PathBuf> {
        Ok(Path::new("/dev/vfio").join(self.group()?.to_string()))
    }

    /// The instance's own character device, e.g. `/dev/vfio/devices/vfio0`.
    pub fn cdev_path(&self) -> Result<PathBuf> {
        let directory = self.path().join("vfio-dev");
        let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
        let names: Vec<_> = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<_>>()?;
        match names.as_slice() {
            [name] => Ok(Path::new("/dev/vfio/devices").join(name)),
            names => bail!(
                "{} has {} entries, not one",
                directory.display(),
                names.len()
            ),
        }
    }

    /// True while sysfs shows the instance.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// A handle of an instance that is somebody else's to remove.
    pub fn existing(uuid: Uuid) -> Self {
        Self {
            uuid,
            removed: true,
        }
    }

    /// Removes the instance. Waits until its users have closed it; the driver asks them to (VFIO_PCI_REQ_IRQ).
    pub fn remove(mut self) -> Result<()> {
        self.removed = true;
        ensure!(self.exists(), "instance {} is gone already", self.uuid);
        write_attribute(&self.path().join("remove"), "1")
            .with_context(|| format!("instance {} could not be removed", self.uuid))?;
        ensure!(
            !self.exists(),
            "instance {} is still there after its removal",
            self.uuid
        );
        Ok(())
    }
}

impl Drop for Mdev {
    fn drop(&mut self) {
        if !self.removed && self.exists() {
            if let Err(error) = write_attribute(&self.path().join("remove"), "1") {
                eprintln!("instance {} could not be removed: {error}", self.uuid);
            }
        }
    }
}

/// Reads a text attribute without its last newline.
fn read_attribute(path: &Path) -> Result<String> {
    let mut text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Writes a text attribute with one system call, as sysfs wants it.
fn write_attribute(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let written = file.write(text.as_bytes())?;
    if written == text.len() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::WriteZero,
            "sysfs took only a part of the text",
        ))
    }
}
