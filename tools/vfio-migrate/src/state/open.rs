// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Opening the device of an instance, with messages that name the remedy.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use vfio_uapi::mdev::Mdev;
use vfio_uapi::open::{bind, Group};
use vfio_uapi::{Device, Errno};

use crate::error::{describe, Error, Result};
use crate::input::is_there;
use crate::sysfs::Instance;

/// The file that makes address spaces.
const IOMMUFD: &str = "/dev/iommu";

/// Opens the device: by its own file and an iommufd where the kernel has both, else by its group and a type1 container.
pub(super) fn open(instance: &Instance) -> Result<Device> {
    match (cdev(instance)?, is_there(Path::new(IOMMUFD))?) {
        (Some(path), true) => by_cdev(instance, &path),
        _ => by_group(instance),
    }
}

fn in_use(instance: &Instance) -> Error {
    Error::failed(format!(
        "{}: the instance is in use (EBUSY): end the program that has it open, or choose another instance",
        instance.uuid
    ))
}

/// The instance's own device file, if the kernel gives devices such files.
fn cdev(instance: &Instance) -> Result<Option<PathBuf>> {
    let directory = instance.path().join("vfio-dev");
    if !is_there(&directory)? {
        return Ok(None);
    }
    let failed = |error| Error::file(&directory, &error);
    let mut entries = std::fs::read_dir(&directory).map_err(failed)?;
    let Some(entry) = entries.next() else {
        return Ok(None);
    };
    let path = Path::new("/dev/vfio/devices").join(entry.map_err(failed)?.file_name());
    Ok(is_there(&path)?.then_some(path))
}

fn by_cdev(instance: &Instance, path: &Path) -> Result<Device> {
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    // What cannot be opened is better named here than by the bind.
    let iommufd = Path::new(IOMMUFD);
    drop(open(iommufd).map_err(|error| Error::file(iommufd, &error))?);
    let file = open(path).map_err(|error| match error.raw_os_error() {
        Some(number) if Errno::from_raw(number) == Errno::EBUSY => in_use(instance),
        _ => Error::file(path, &error),
    })?;
    bind(OwnedFd::from(file)).map_err(|error| match error {
        // A device that is open by its own file cannot be bound once more: that is EINVAL.
        Errno::EBUSY | Errno::EINVAL => in_use(instance),
        error => not_opened(instance, error),
    })
}

fn by_group(instance: &Instance) -> Result<Device> {
    let mdev = Mdev::existing(instance.uuid);
    let group =
        Group::open(&mdev).map_err(|error| match error.root_cause().downcast_ref::<Errno>() {
            Some(Errno::EBUSY) => in_use(instance),
            Some(errno) => not_opened(instance, *errno),
            None => Error::failed(format!(
                "{}: the device cannot be opened: {error:#}",
                instance.uuid
            )),
        })?;
    group.device(&mdev).map_err(|error| match error {
        Errno::EBUSY => in_use(instance),
        error => not_opened(instance, error),
    })
}

fn not_opened(instance: &Instance, error: Errno) -> Error {
    let error = io::Error::from(error);
    let uuid = instance.uuid;
    Error::failed(format!(
        "{uuid}: the device cannot be opened: {}",
        describe(&error)
    ))
}
