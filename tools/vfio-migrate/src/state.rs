// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Saving and loading the state of a device without a virtual machine, by protocol v2 (linux/vfio.h).
//!
//! Device state lives from open to close: what is loaded is gone when the device is closed. So this is for trying out
//! whether a device saves, and whether another one accepts what was saved.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use vfio_uapi::mdev::Mdev;
use vfio_uapi::{self as vfio, abi, DataFd, Device, Errno, State};

use crate::error::{describe, Error, Result};
use crate::sysfs::{Instance, Parameters, Sysfs};

/// The file that makes address spaces.
const IOMMUFD: &str = "/dev/iommu";
/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// An instance whose device is open.
pub struct Opened {
    /// The device.
    pub device: Device,
    /// The instance.
    pub instance: Instance,
    flags: u64,
}

/// How far a transfer is: bytes so far, and the bytes to expect if that is known.
pub type Progress<'p> = dyn FnMut(u64, Option<u64>) + 'p;

/// How much was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Bytes while the device ran.
    pub pre_copy: u64,
    /// Bytes after it had stopped.
    pub stop_copy: u64,
}

fn errno(what: &str, error: Errno) -> String {
    format!("{what}: {} ({error:?})", error.desc())
}

impl Opened {
    /// Opens the device of an instance: by its own file and an iommufd where the kernel has both, else by its group and a
    /// type1 container.
    pub fn open(sysfs: &Sysfs, instance: Instance) -> Result<Self> {
        if !sysfs.is_live() {
            return Err(Error::failed(
                "devices can be opened on this host only: leave out --sysfs",
            ));
        }
        let uuid = instance.uuid;
        let device = match (cdev(&instance), Path::new(IOMMUFD).exists()) {
            (Some(path), true) => by_cdev(&instance, &path)?,
            _ => by_group(&instance)?,
        };
        let flags = device.migration_flags().map_err(|error| match error {
            Errno::ENOTTY => Error::failed(format!(
                "{uuid}: the device cannot be migrated by protocol v2"
            )),
            error => Error::failed(errno(
                &format!("{uuid}: VFIO_DEVICE_FEATURE_MIGRATION"),
                error,
            )),
        })?;
        Ok(Self {
            device,
            instance,
            flags,
        })
    }

    /// Whether it can save while it runs.
    pub fn has_pre_copy(&self) -> bool {
        self.flags & u64::from(abi::VFIO_MIGRATION_PRE_COPY) != 0
    }

    fn to(&self, target: State) -> Result<()> {
        let result = self.device.switch(target);
        result
            .map_err(|error| self.failure(&format!("the device does not go to {target:?}"), error))
    }

    fn start(&self, target: State) -> Result<DataFd> {
        let result = self.device.start(target);
        result
            .map_err(|error| self.failure(&format!("the device does not go to {target:?}"), error))
    }

    /// Something that the driver refused, with its reason.
    fn failure(&self, what: &str, error: Errno) -> Error {
        let uuid = self.instance.uuid;
        match self.instance.reason().as_str() {
            "" => Error::refused(errno(&format!("{uuid}: {what}"), error)),
            reason => Error::refused(format!(
                "{}: {reason}",
                errno(&format!("{uuid}: {what}"), error)
            )),
        }
    }

    /// Saves the state, of the running device first if `pre_copy`, and leaves the device stopped. If it fails, the device
    /// runs again.
    pub fn save(
        &self,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        if pre_copy && !self.has_pre_copy() {
            return Err(Error::failed(format!(
                "{}: the device does not save while it runs: leave out --pre-copy",
                self.instance.uuid
            )));
        }
        let saved = self.save_phases(pre_copy, sink, progress);
        if saved.is_err() {
            // The first error is the one to report.
            let _ = self.device.switch(State::Running);
        }
        saved
    }

    fn save_phases(
        &self,
        pre_copy: bool,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        progress: &mut Progress<'_>,
    ) -> Result<Saved> {
        let expected = self.device.data_size().ok();
        let mut saved = Saved {
            pre_copy: 0,
            stop_copy: 0,
        };
        let data = if pre_copy {
            let data = self.start(State::PreCopy)?;
            self.pump(&data, sink, &mut |bytes| {
                saved.pre_copy = bytes;
                progress(bytes, None);
            })?;
            self.to(State::StopCopy)?;
            data
        } else {
            self.start(State::StopCopy)?
        };
        let before = saved.pre_copy;
        self.pump(&data, sink, &mut |bytes| {
            saved.stop_copy = bytes;
            progress(
                before + bytes,
                expected.map(|expected| expected.saturating_add(before)),
            );
        })?;
        self.to(State::Stop)?;
        Ok(saved)
    }

    /// Moves what there is to read.
    fn pump(
        &self,
        data: &DataFd,
        sink: &mut dyn FnMut(&[u8]) -> Result<()>,
        count: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut bytes = 0;
        loop {
            match data.read(&mut buffer) {
                Ok(0) | Err(Errno::ENOMSG) => return Ok(()),
                Ok(len) => {
                    sink(&buffer[..len])?;
                    bytes += len as u64;
                    count(bytes);
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(self.failure("the state cannot be read", error)),
            }
        }
    }

    /// Starts to load a state.
    pub fn load(&self) -> Result<Loading<'_>> {
        Ok(Loading {
            opened: self,
            data: self.start(State::Resuming)?,
            bytes: 0,
        })
    }
}

/// A state that is being loaded.
pub struct Loading<'o> {
    opened: &'o Opened,
    data: DataFd,
    bytes: u64,
}

impl Loading<'_> {
    /// Gives the device the next bytes. A refusal has the driver's reason.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.data.write(bytes) {
                Ok(0) => return Err(self.opened.failure("the state is not taken", Errno::EIO)),
                Ok(len) => {
                    self.bytes += len as u64;
                    bytes = bytes.get(len..).unwrap_or_default();
                }
                Err(Errno::EINTR) => {}
                Err(error) => return Err(self.opened.failure("the state is refused", error)),
            }
        }
        Ok(())
    }

    /// Gives the device all of a file.
    pub fn push_all(
        &mut self,
        input: &mut dyn Read,
        name: &str,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    self.push(&buffer[..len])?;
                    progress(self.bytes, None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::file(Path::new(name), &error)),
            }
        }
    }

    /// Ends the loading and lets the device run with the state. Returns how many bytes it was.
    pub fn finish(self) -> Result<u64> {
        drop(self.data);
        self.opened.to(State::Stop)?;
        self.opened.to(State::Running)?;
        Ok(self.bytes)
    }
}

fn in_use(instance: &Instance) -> Error {
    Error::failed(format!(
        "{}: the instance is in use (EBUSY): end the program that has it open, or choose another instance",
        instance.uuid
    ))
}

/// The instance's own device file, if the kernel gives devices such files.
fn cdev(instance: &Instance) -> Option<PathBuf> {
    let mut entries = std::fs::read_dir(instance.path().join("vfio-dev")).ok()?;
    let name = entries.next()?.ok()?.file_name();
    let path = Path::new("/dev/vfio/devices").join(name);
    path.exists().then_some(path)
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
    vfio::open::bind(OwnedFd::from(file)).map_err(|error| match error {
        // A device that is open by its own file cannot be bound once more: that is EINVAL.
        Errno::EBUSY | Errno::EINVAL => in_use(instance),
        error => not_opened(instance, error),
    })
}

fn by_group(instance: &Instance) -> Result<Device> {
    let mdev = Mdev::existing(instance.uuid);
    let group = vfio::open::Group::open(&mdev).map_err(|error| {
        match error.root_cause().downcast_ref::<Errno>() {
            Some(Errno::EBUSY) => in_use(instance),
            Some(errno) => not_opened(instance, *errno),
            None => Error::failed(format!(
                "{}: the device cannot be opened: {error:#}",
                instance.uuid
            )),
        }
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
