// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The two ways to open a device: by IOMMU group and type1 container, and by its own file and an iommufd.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

use crate::abi::{self, ioctl, Argument, Bytes};
use crate::dma::Memory;
use crate::mdev::Mdev;
use crate::{Device, Errno, Result};

/// A way to open a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Group file and VFIO type1 container.
    Group,
    /// The device's own file, bound and attached to an iommufd.
    Cdev,
}

impl Access {
    /// Both ways.
    pub const ALL: [Self; 2] = [Self::Group, Self::Cdev];

    /// The end of a test's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "by_group",
            Self::Cdev => "by_cdev",
        }
    }

    /// Opens the device of `instance`.
    pub fn open(self, instance: &Mdev) -> anyhow::Result<Device> {
        let way = self.name();
        let device = match self {
            Self::Group => Group::open(instance)?.device(instance),
            Self::Cdev => {
                let file = open_cdev(instance).context("the device's own file")?;
                bind(file)
            }
        };
        device.with_context(|| format!("instance {} could not be opened {way}", instance.uuid()))
    }
}

/// Opens a file for reading and writing. The error is the one of `open`.
pub fn open_file(path: &Path) -> Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(path);
    file.map(OwnedFd::from).map_err(|error| {
        error
            .raw_os_error()
            .map_or(Errno::UnknownErrno, Errno::from_raw)
    })
}

/// Opens the group file of `instance` and nothing else.
pub fn open_group(instance: &Mdev) -> anyhow::Result<Result<OwnedFd>> {
    Ok(open_file(&instance.group_path()?))
}

/// Opens the device's own file, which gives no access before [`bind`].
pub fn open_cdev(instance: &Mdev) -> anyhow::Result<OwnedFd> {
    let path = instance.cdev_path()?;
    open_file(&path).with_context(|| path.display().to_string())
}

/// An open group in a container with a type1 IOMMU.
pub struct Group {
    group: OwnedFd,
    container: OwnedFd,
}

impl Group {
    /// Opens the group of `instance` and sets up a container for it.
    pub fn open(instance: &Mdev) -> anyhow::Result<Self> {
        Self::at(&instance.group_path()?)
    }

    /// Opens the group with this file and sets up a container for it.
    pub fn at(path: &Path) -> anyhow::Result<Self> {
        let container = open_file(Path::new("/dev/vfio/vfio")).context("/dev/vfio/vfio")?;
        let version = ioctl(
            container.as_fd(),
            abi::VFIO_GET_API_VERSION,
            Argument::Value(0),
        )?;
        anyhow::ensure!(
            version == abi::VFIO_API_VERSION as i32,
            "VFIO API version {version}"
        );
        let group = open_file(path).context("the group file")?;

        let number = std::os::fd::AsRawFd::as_raw_fd(&container);
        let mut argument = Bytes::new().word(number as u32);
        ioctl(
            group.as_fd(),
            abi::VFIO_GROUP_SET_CONTAINER,
            Argument::Bytes(argument.bytes_mut()),
        )
        .context("SET_CONTAINER")?;
        let kind = abi::VFIO_TYPE1v2_IOMMU as usize;
        ioctl(
            container.as_fd(),
            abi::VFIO_SET_IOMMU,
            Argument::Value(kind),
        )
        .context("SET_IOMMU")?;
        Ok(Self { group, container })
    }

    /// Opens the device of `instance`, which keeps the group and the container open.
    pub fn device(self, instance: &Mdev) -> Result<Device> {
        self.device_named(&instance.uuid().to_string())
    }

    /// Opens the device that the bus it is on calls so, which keeps the group and the container open.
    pub fn device_named(self, name: &str) -> Result<Device> {
        let file = self.file_named(name)?;
        let memory = Memory::of_container(self.container);
        Ok(Device::new(file, Some(self.group), memory))
    }

    /// Opens the device of `instance` once more; the file is closed by dropping it.
    pub fn device_file(&self, instance: &Mdev) -> Result<OwnedFd> {
        self.file_named(&instance.uuid().to_string())
    }

    fn file_named(&self, name: &str) -> Result<OwnedFd> {
        let mut name = Bytes::new().bytes(name.as_bytes()).bytes(&[0]);
        let file = ioctl(
            self.group.as_fd(),
            abi::VFIO_GROUP_GET_DEVICE_FD,
            Argument::Bytes(name.bytes_mut()),
        )?;
        // SAFETY: The ioctl returned a file descriptor that it opened for this call; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(file) })
    }
}

/// Binds a device's own file to a new iommufd and attaches it to a new address space.
pub fn bind(file: OwnedFd) -> Result<Device> {
    let iommufd = open_file(Path::new("/dev/iommu"))?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&iommufd);
    let mut argument = Bytes::new().word(16).word(0).word(number as u32).word(0);
    ioctl(
        file.as_fd(),
        abi::VFIO_DEVICE_BIND_IOMMUFD,
        Argument::Bytes(argument.bytes_mut()),
    )?;

    let mut space = Bytes::new().word(12).word(0).word(0);
    ioctl(
        iommufd.as_fd(),
        abi::IOMMU_IOAS_ALLOC,
        Argument::Bytes(space.bytes_mut()),
    )?;
    let number = space.word_at(8);
    let mut attach = Bytes::new().word(12).word(0).word(number);
    ioctl(
        file.as_fd(),
        abi::VFIO_DEVICE_ATTACH_IOMMUFD_PT,
        Argument::Bytes(attach.bytes_mut()),
    )?;
    Ok(Device::new(file, None, Memory::of_ioas(iommufd, number)))
}
