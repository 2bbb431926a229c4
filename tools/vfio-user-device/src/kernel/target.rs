// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which device of the kernel, and how it is opened.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use vfio_uapi::open::{bind, open_file, Group};
use vfio_uapi::{Device, Errno};
use vfio_user_protocol::progress::Phase;

/// How the operand begins.
const PREFIX: &str = "vfio:";
/// Longest attribute that is read of sysfs.
const MAX_ATTRIBUTE: u64 = 4096;
/// Longest migration information that is read.
const MAX_INFORMATION: u64 = 1 << 20;

/// How a device is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// By its own file, and an iommufd.
    Own(PathBuf),
    /// By the file of its group, and a type1 container.
    Group(PathBuf),
}

/// A device of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its directory in sysfs, whose last part is what its bus calls it.
    directory: PathBuf,
    name: String,
    way: Way,
}

impl Target {
    /// The device that an operand names: `vfio:` and a directory of sysfs, the device's own file, or that of its group, which has
    /// no other device then.
    pub fn parse(operand: &str) -> Result<Self> {
        Self::below(Path::new("/"), operand)
    }

    /// As [`Target::parse`], with `/sys` and `/dev` in another place.
    fn below(root: &Path, operand: &str) -> Result<Self> {
        let path = operand.strip_prefix(PREFIX).filter(|path| !path.is_empty());
        let path = path.with_context(|| {
            "a device of the kernel is vfio: and a path, as vfio:/sys/bus/mdev/devices/UUID"
        })?;
        let path = Path::new(path);
        ensure!(
            path.is_absolute(),
            "{}: give the whole path",
            path.display()
        );
        let vfio = root.join("dev/vfio");
        if let Ok(file) = path.strip_prefix(vfio.join("devices")) {
            let device = root.join("sys/class/vfio-dev").join(file).join("device");
            return Self::new(&device, Way::Own(path.to_path_buf()))
                .with_context(|| path.display().to_string());
        }
        if let Ok(group) = path.strip_prefix(&vfio) {
            let devices = root.join("sys/kernel/iommu_groups").join(group);
            let device = only_entry(&devices.join("devices"))
                .with_context(|| format!("{}: the group's one device", path.display()))?;
            return Self::new(&device, Way::Group(path.to_path_buf()));
        }
        let way = Self::way(root, path).with_context(|| path.display().to_string())?;
        Self::new(path, way).with_context(|| path.display().to_string())
    }

    fn new(directory: &Path, way: Way) -> Result<Self> {
        let directory = directory.canonicalize()?;
        let name = directory.file_name().and_then(|name| name.to_str());
        let name = name.context("the device has no name")?.to_string();
        Ok(Self {
            directory,
            name,
            way,
        })
    }

    /// By its own file where the kernel has both it and iommufd, else by the group's.
    fn way(root: &Path, directory: &Path) -> Result<Way> {
        let own = directory.join("vfio-dev");
        if own.exists() && root.join("dev/iommu").exists() {
            let file = only_entry(&own)?;
            let file = file.file_name().context("vfio-dev")?;
            let path = root.join("dev/vfio/devices").join(file);
            if path.exists() {
                return Ok(Way::Own(path));
            }
        }
        let link = directory.join("iommu_group");
        let group = fs::read_link(&link).context("it is no VFIO device: it has no iommu_group")?;
        let group = group.file_name().context("iommu_group")?;
        Ok(Way::Group(root.join("dev/vfio").join(group)))
    }

    /// What its bus calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens it. An error comes with what is to be told.
    pub(super) fn open(&self) -> Result<Device, (Errno, String)> {
        let name = &self.name;
        let opened = match &self.way {
            Way::Own(path) => open_file(path).and_then(bind).map_err(|error| match error {
                // A device that is open by its own file cannot be bound once more: that is EINVAL.
                Errno::EINVAL => Errno::EBUSY,
                error => error,
            }),
            Way::Group(path) => match Group::at(path) {
                Ok(group) => group.device_named(name),
                Err(error) => Err(*error.downcast_ref::<Errno>().unwrap_or(&Errno::EIO)),
            },
        };
        opened.map_err(|error| {
            let what = match error {
                Errno::EBUSY => format!(
                    "{name}: the device is in use (EBUSY): end the program that has it open, or choose another one"
                ),
                error => format!(
                    "{name}: the device cannot be opened: {} ({error:?})",
                    error.desc()
                ),
            };
            (error, what)
        })
    }

    /// Why the driver refused what it refused last, if it says.
    pub(super) fn reason(&self) -> Option<String> {
        self.attribute("migration/error")
            .ok()
            .filter(|text| !text.is_empty())
    }

    /// How far its driver says that the state has come which is being loaded, if it says.
    pub(super) fn phase(&self) -> Option<Phase> {
        Phase::named(&self.attribute("migration/phase").ok()?)
    }

    /// The model that its driver says it is.
    pub fn model(&self) -> Result<String> {
        self.attribute("migration/device_model")
            .with_context(|| format!("{}: the device has no migration parameters", self.name))
    }

    /// The migration information of its type, as the driver words it.
    pub fn information(&self) -> Result<String> {
        let path = self.directory.join("mdev_type/migration_info.json");
        read(&path, MAX_INFORMATION)
            .with_context(|| format!("{}: there is no migration information", path.display()))
    }

    fn attribute(&self, name: &str) -> io::Result<String> {
        let text = read(&self.directory.join(name), MAX_ATTRIBUTE)?;
        Ok(text.trim_end().to_string())
    }
}

fn read(path: &Path, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The one entry of a directory.
fn only_entry(directory: &Path) -> Result<PathBuf> {
    let failed = || directory.display().to_string();
    let entries = fs::read_dir(directory).with_context(failed)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: Vec<PathBuf> = paths.collect::<io::Result<_>>().with_context(failed)?;
    match <[PathBuf; 1]>::try_from(paths) {
        Ok([path]) => Ok(path),
        Err(paths) => bail!("{} has {} entries, not one", failed(), paths.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const UUID: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";

    /// A system with one instance, which is the device of group 7 and has a file of its own.
    struct System(tempfile::TempDir);

    impl System {
        fn new() -> Self {
            let system = Self(tempfile::tempdir().unwrap());
            let device = system.path(&format!("sys/devices/virtual/mdev_serial/{UUID}"));
            fs::create_dir_all(device.join("vfio-dev/vfio3")).unwrap();
            fs::create_dir_all(device.join("migration")).unwrap();
            fs::create_dir_all(device.join("mdev_type")).unwrap();
            fs::write(device.join("migration/error"), "num-ports: no\n").unwrap();
            for directory in [
                "dev/vfio/devices",
                "sys/class/vfio-dev/vfio3",
                "sys/bus/mdev/devices",
                "sys/kernel/iommu_groups/7/devices",
            ] {
                fs::create_dir_all(system.path(directory)).unwrap();
            }
            for link in [
                format!("sys/bus/mdev/devices/{UUID}"),
                "sys/class/vfio-dev/vfio3/device".to_string(),
                format!("sys/kernel/iommu_groups/7/devices/{UUID}"),
            ] {
                symlink(&device, system.path(&link)).unwrap();
            }
            let group = system.path("sys/kernel/iommu_groups/7");
            symlink(group, device.join("iommu_group")).unwrap();
            for file in ["dev/iommu", "dev/vfio/7", "dev/vfio/devices/vfio3"] {
                fs::write(system.path(file), "").unwrap();
            }
            system
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn target(&self, name: &str) -> Result<Target, String> {
            let operand = format!("vfio:{}", self.path(name).display());
            Target::below(self.0.path(), &operand).map_err(|error| format!("{error:#}"))
        }
    }

    #[test]
    fn a_device_is_found_by_any_of_its_names_and_opened_as_it_was_named() {
        let system = System::new();
        let (own, group) = (
            Way::Own(system.path("dev/vfio/devices/vfio3")),
            Way::Group(system.path("dev/vfio/7")),
        );
        for (name, way) in [
            (format!("sys/bus/mdev/devices/{UUID}"), &own),
            ("dev/vfio/devices/vfio3".to_string(), &own),
            ("dev/vfio/7".to_string(), &group),
        ] {
            let target = system.target(&name).unwrap();
            assert_eq!((target.name(), &target.way), (UUID, way), "{name}");
            assert_eq!(target.reason().as_deref(), Some("num-ports: no"));
        }
        fs::remove_file(system.path("dev/iommu")).unwrap();
        let target = system.target(&format!("sys/bus/mdev/devices/{UUID}"));
        assert_eq!(target.unwrap().way, group);
    }

    #[test]
    fn what_is_no_device_is_refused_by_name() {
        let system = System::new();
        let refused = |name: &str, why: &str| {
            let said = system.target(name).unwrap_err();
            assert!(said.contains(name) && said.contains(why), "{said}");
        };
        refused("sys/bus/mdev/devices/nobody", "no VFIO device");
        refused("sys/bus/mdev", "no VFIO device");
        refused("dev/vfio/devices/vfio4", "No such file");
        refused("dev/vfio/8", "No such file");
        let second = system.path("sys/kernel/iommu_groups/7/devices/other");
        fs::create_dir(second).unwrap();
        refused("dev/vfio/7", "2 entries");
        for operand in ["", "vfio:", "vfio", "/dev/vfio/7", "vfio:dev/vfio/7"] {
            assert!(Target::below(system.0.path(), operand).is_err());
        }
    }

    #[test]
    fn a_driver_that_says_nothing_has_no_reason() {
        let system = System::new();
        let target = system.target("dev/vfio/7").unwrap();
        for text in [&b"\n"[..], b"", b"\xff\n"] {
            fs::write(target.directory.join("migration/error"), text).unwrap();
            assert_eq!(target.reason(), None);
        }
        assert!(target.model().is_err());
        assert!(target.information().is_err());
        let directory = target.directory.join("mdev_type");
        fs::write(directory.join("migration_info.json"), "{}").unwrap();
        assert_eq!(target.information().unwrap(), "{}");
    }
}
