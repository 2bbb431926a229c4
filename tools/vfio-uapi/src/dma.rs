// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The memory that a device accesses: mapped into its address space, in a type1 container or an iommufd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::mman::{MapFlags, ProtFlags};

use crate::abi::{self, ioctl, Argument, Bytes};
use crate::{Device, Mapping, Result};

/// What a device may do with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dma {
    /// Read it.
    Read,
    /// Write it.
    Write,
    /// Read and write it.
    ReadWrite,
}

/// The address space of a device.
#[derive(Debug)]
enum Space {
    /// That of a container.
    Container(OwnedFd),
    /// One of an iommufd, by its number.
    Ioas(OwnedFd, u32),
}

/// The address space of a device, and the memory that is mapped there: as long as it is, its owner must not have it unmapped.
#[derive(Debug)]
pub(crate) struct Memory {
    space: Space,
    mapped: Mutex<Vec<(u64, Arc<Mapping>)>>,
}

impl Memory {
    pub(crate) fn of_container(container: OwnedFd) -> Self {
        Self::of(Space::Container(container))
    }

    pub(crate) fn of_ioas(iommufd: OwnedFd, number: u32) -> Self {
        Self::of(Space::Ioas(iommufd, number))
    }

    fn of(space: Space) -> Self {
        Self {
            space,
            mapped: Mutex::default(),
        }
    }

    fn map(&self, iova: u64, address: u64, length: u64, dma: Dma) -> Result<()> {
        let choose = |read, write| match dma {
            Dma::Read => read,
            Dma::Write => write,
            Dma::ReadWrite => read | write,
        };
        let (file, request, mut argument) = match &self.space {
            Space::Container(container) => {
                let flags = choose(abi::VFIO_DMA_MAP_FLAG_READ, abi::VFIO_DMA_MAP_FLAG_WRITE);
                let argument = Bytes::new()
                    .word(32)
                    .word(flags)
                    .long(address)
                    .long(iova)
                    .long(length);
                (container, abi::VFIO_IOMMU_MAP_DMA, argument)
            }
            Space::Ioas(iommufd, number) => {
                let flags = choose(abi::IOMMU_IOAS_MAP_READABLE, abi::IOMMU_IOAS_MAP_WRITEABLE);
                let argument = Bytes::new()
                    .word(40)
                    .word(flags | abi::IOMMU_IOAS_MAP_FIXED_IOVA)
                    .word(*number)
                    .word(0)
                    .long(address)
                    .long(length)
                    .long(iova);
                (iommufd, abi::IOMMU_IOAS_MAP, argument)
            }
        };
        ioctl(file.as_fd(), request, Argument::Bytes(argument.bytes_mut())).map(drop)
    }

    fn unmap(&self, iova: u64, length: u64) -> Result<()> {
        let (file, request, mut argument) = match &self.space {
            Space::Container(container) => {
                let argument = Bytes::new().word(24).word(0).long(iova).long(length);
                (container, abi::VFIO_IOMMU_UNMAP_DMA, argument)
            }
            Space::Ioas(iommufd, number) => {
                let argument = Bytes::new().word(24).word(*number).long(iova).long(length);
                (iommufd, abi::IOMMU_IOAS_UNMAP, argument)
            }
        };
        ioctl(file.as_fd(), request, Argument::Bytes(argument.bytes_mut())).map(drop)
    }
}

impl Device {
    /// Maps memory for the device at an address of its own: `VFIO_IOMMU_MAP_DMA` or `IOMMU_IOAS_MAP`. The memory stays until it is
    /// unmapped there, or the device closed.
    pub fn map_dma(&self, iova: u64, memory: &Arc<Mapping>, dma: Dma) -> Result<()> {
        let mut mapped = self.mapped();
        self.memory()
            .map(iova, memory.address(), memory.len() as u64, dma)?;
        mapped.push((iova, memory.clone()));
        Ok(())
    }

    /// Maps a part of a file for the device, from byte `place` on. Nothing here touches the mapping: a file that has become shorter
    /// is an error for the device, and nothing to this process.
    pub fn map_file(
        &self,
        iova: u64,
        (file, place): (BorrowedFd<'_>, i64),
        length: usize,
        dma: Dma,
    ) -> Result<()> {
        let access = match dma {
            Dma::Read => ProtFlags::PROT_READ,
            Dma::Write => ProtFlags::PROT_WRITE,
            Dma::ReadWrite => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        let memory = Mapping::with_access(file, place, length, access, MapFlags::MAP_SHARED)?;
        self.map_dma(iova, &Arc::new(memory), dma)
    }

    /// Unmaps what was mapped there as a whole.
    ///
    /// # Panics
    ///
    /// If nothing was.
    pub fn unmap_dma(&self, iova: u64) -> Result<()> {
        let mut mapped = self.mapped();
        let index = mapped.iter().position(|(at, _)| *at == iova);
        let index = index.expect("memory that was mapped");
        self.memory().unmap(iova, mapped[index].1.len() as u64)?;
        mapped.swap_remove(index);
        Ok(())
    }

    fn mapped(&self) -> std::sync::MutexGuard<'_, Vec<(u64, Arc<Mapping>)>> {
        // A list is whole after any of its methods.
        let mapped = self.memory().mapped.lock();
        mapped.unwrap_or_else(PoisonError::into_inner)
    }
}
