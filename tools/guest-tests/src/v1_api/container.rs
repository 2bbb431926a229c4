// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Dirty pages, which in protocol v1 the container tracks: what QEMU 7.2 asks of it, with a card attached.
//!
//! The card has no DMA, so no page is ever dirty; a container that called all of them dirty would keep a migration from ending.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::Context;
use nix::sys::mman::{MapFlags, ProtFlags};

use super::bench::card;
use super::region::{Region, DEVICE_STATE, PRE_COPY, RUNNING, SAVING};
use crate::ktap::Suite;
use crate::mdev::Mdev;
use crate::v2_api::card::card_type;
use crate::v2_api::check::{equal, refused, Named};
use crate::vfio::abi::{self, ioctl, Argument, Bytes};
use crate::vfio::open::open_group;
use crate::vfio::{self, Errno};

/// `VFIO_IOMMU_GET_INFO`, `VFIO_IOMMU_MAP_DMA`, `VFIO_IOMMU_UNMAP_DMA`, `VFIO_IOMMU_DIRTY_PAGES` of linux/vfio.h.
const IOMMU_GET_INFO: u32 = abi::VFIO_GET_API_VERSION + 12;
const IOMMU_MAP_DMA: u32 = abi::VFIO_GET_API_VERSION + 13;
const IOMMU_UNMAP_DMA: u32 = abi::VFIO_GET_API_VERSION + 14;
const IOMMU_DIRTY_PAGES: u32 = abi::VFIO_GET_API_VERSION + 17;

/// `VFIO_IOMMU_INFO_CAPS`
const INFO_CAPS: u32 = 1 << 1;
/// `VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION`
const CAP_MIGRATION: u16 = 2;
/// `VFIO_DMA_MAP_FLAG_READ` and `_WRITE`
const MAP_READ_WRITE: u32 = 3;
/// `VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP`
const UNMAP_GET_DIRTY_BITMAP: u32 = 1;

/// `VFIO_IOMMU_DIRTY_PAGES_FLAG_START`, `_STOP`, `_GET_BITMAP`
const START: u32 = 1 << 0;
const STOP: u32 = 1 << 1;
const GET_BITMAP: u32 = 1 << 2;

/// Bytes in a page of x86.
const PAGE: u64 = 4096;
/// Pages that the tests map for DMA.
const PAGES: u64 = 256;
/// Where the guest has them.
const IOVA: u64 = 0x10_0000;

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        the_container_says_that_it_tracks_dirty_pages,
        a_card_without_dma_dirties_no_page,
        dirty_pages_are_told_only_while_they_are_tracked,
        unmapping_tells_dirty_pages_too,
        dirty_pages_are_tracked_through_a_migration,
    );
}

/// A group in a type1 container with a card, and guest memory that is mapped for DMA. Dropped in this order.
struct Container {
    device: OwnedFd,
    _group: OwnedFd,
    container: OwnedFd,
    memory: Memory,
    _instance: Mdev,
}

/// Private memory of this process.
struct Memory(std::ptr::NonNull<libc::c_void>);

impl Memory {
    const SIZE: usize = (PAGES * PAGE) as usize;

    fn new() -> vfio::Result<Self> {
        let size = std::num::NonZeroUsize::new(Self::SIZE).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new mapping at an address that the kernel chooses replaces nothing.
        unsafe { nix::sys::mman::mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE) }
            .map(Self)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: The mapping is this object's own and nobody refers to it.
        if let Err(error) = unsafe { nix::sys::mman::munmap(self.0, Self::SIZE) } {
            crate::diag!("memory could not be unmapped: {error}");
        }
    }
}

impl Container {
    fn new() -> anyhow::Result<Self> {
        let instance = card_type(1)?.create()?;
        let container: OwnedFd = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/vfio/vfio")
            .context("/dev/vfio/vfio")?
            .into();
        let group = open_group(&instance)?.named("the group file")?;
        let mut number = Bytes::new().word(container.as_raw_fd() as u32);
        ioctl(
            group.as_fd(),
            abi::VFIO_GROUP_SET_CONTAINER,
            Argument::Bytes(number.bytes_mut()),
        )
        .named("VFIO_GROUP_SET_CONTAINER")?;
        ioctl(
            container.as_fd(),
            abi::VFIO_SET_IOMMU,
            Argument::Value(abi::VFIO_TYPE1v2_IOMMU as usize),
        )
        .named("VFIO_SET_IOMMU")?;
        let mut name = Bytes::new()
            .bytes(instance.uuid().to_string().as_bytes())
            .bytes(&[0]);
        let device = ioctl(
            group.as_fd(),
            abi::VFIO_GROUP_GET_DEVICE_FD,
            Argument::Bytes(name.bytes_mut()),
        )
        .named("VFIO_GROUP_GET_DEVICE_FD")?;
        // SAFETY: The ioctl returned a descriptor that it opened for this call; nobody else owns it.
        let device = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(device) };
        let made = Self {
            device,
            _group: group,
            container,
            memory: Memory::new().named("memory")?,
            _instance: instance,
        };
        made.map()?;
        Ok(made)
    }

    fn call(&self, request: u32, argument: &mut Bytes) -> vfio::Result<()> {
        ioctl(
            self.container.as_fd(),
            request,
            Argument::Bytes(argument.bytes_mut()),
        )
        .map(drop)
    }

    fn map(&self) -> anyhow::Result<()> {
        let mut argument = Bytes::new()
            .word(32)
            .word(MAP_READ_WRITE)
            .long(self.memory.0.as_ptr() as u64)
            .long(IOVA)
            .long(PAGES * PAGE);
        self.call(IOMMU_MAP_DMA, &mut argument)
            .named("VFIO_IOMMU_MAP_DMA")
    }

    fn tracking(&self, flag: u32) -> vfio::Result<()> {
        self.call(IOMMU_DIRTY_PAGES, &mut Bytes::new().word(8).word(flag))
    }

    /// The dirty pages of the mapped memory, a bit each.
    fn bitmap(&self) -> vfio::Result<Vec<u64>> {
        let mut bits = vec![0_u64; PAGES.div_ceil(64) as usize];
        // struct vfio_iommu_type1_dirty_bitmap, then _dirty_bitmap_get with struct vfio_bitmap
        let mut argument = Bytes::new()
            .word(48)
            .word(GET_BITMAP)
            .long(IOVA)
            .long(PAGES * PAGE)
            .long(PAGE)
            .long(bits.len() as u64 * 8)
            .long(bits.as_mut_ptr() as u64);
        self.call(IOMMU_DIRTY_PAGES, &mut argument)?;
        Ok(bits)
    }

    /// Unmaps the memory and returns its dirty pages.
    fn unmap(&self) -> vfio::Result<Vec<u64>> {
        let mut bits = vec![0_u64; PAGES.div_ceil(64) as usize];
        let mut argument = Bytes::new()
            .word(48)
            .word(UNMAP_GET_DIRTY_BITMAP)
            .long(IOVA)
            .long(PAGES * PAGE)
            .long(PAGE)
            .long(bits.len() as u64 * 8)
            .long(bits.as_mut_ptr() as u64);
        self.call(IOMMU_UNMAP_DMA, &mut argument)?;
        Ok(bits)
    }
}

fn the_container_says_that_it_tracks_dirty_pages() -> anyhow::Result<()> {
    let container = Container::new()?;
    let mut length = 24_u32;
    let mut info = loop {
        // argsz, flags, iova_pgsizes, cap_offset, pad
        let mut info = Bytes::new()
            .word(length)
            .bytes(&vec![0; length as usize - 4]);
        container
            .call(IOMMU_GET_INFO, &mut info)
            .named("VFIO_IOMMU_GET_INFO")?;
        match info.word_at(0) {
            wanted if wanted > length => length = wanted,
            _ => break info,
        }
    };
    anyhow::ensure!(info.word_at(4) & INFO_CAPS != 0, "no capabilities");
    let mut place = info.word_at(16) as usize;
    let bytes = info.bytes_mut().to_vec();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
    let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    while place != 0 {
        if word(place) as u16 == CAP_MIGRATION {
            // header, flags, padding, pgsize_bitmap, max_dirty_bitmap_size
            let (sizes, most) = (long(place + 16), long(place + 24));
            anyhow::ensure!(sizes & PAGE != 0, "page sizes {sizes:#x}");
            anyhow::ensure!(most > 0, "no bitmap is small enough");
            return Ok(());
        }
        place = word(place + 4) as usize;
    }
    anyhow::bail!("no migration capability")
}

fn a_card_without_dma_dirties_no_page() -> anyhow::Result<()> {
    let container = Container::new()?;
    container.tracking(START).named("START")?;
    for _ in 0..3 {
        let bits = container.bitmap().named("GET_BITMAP")?;
        equal("dirty pages", bits, vec![0; PAGES.div_ceil(64) as usize])?;
    }
    container.tracking(STOP).named("STOP")
}

fn dirty_pages_are_told_only_while_they_are_tracked() -> anyhow::Result<()> {
    let container = Container::new()?;
    refused("GET_BITMAP before START", container.bitmap(), Errno::EINVAL)?;
    for _ in 0..2 {
        container.tracking(START).named("START")?;
        container.bitmap().named("GET_BITMAP")?;
        container.tracking(STOP).named("STOP")?;
        refused("GET_BITMAP after STOP", container.bitmap(), Errno::EINVAL)?;
    }
    refused(
        "START and STOP at once",
        container.tracking(START | STOP),
        Errno::EINVAL,
    )
}

fn unmapping_tells_dirty_pages_too() -> anyhow::Result<()> {
    let container = Container::new()?;
    container.tracking(START).named("START")?;
    let bits = container.unmap().named("VFIO_IOMMU_UNMAP_DMA")?;
    equal("dirty pages", bits, vec![0; PAGES.div_ceil(64) as usize])?;
    container.map()?;
    container
        .bitmap()
        .named("GET_BITMAP of what was mapped anew")?;
    container.tracking(STOP).named("STOP")
}

fn dirty_pages_are_tracked_through_a_migration() -> anyhow::Result<()> {
    // The order of QEMU 7.2: tracking starts, the device enters pre-copy, bitmaps come with each turn, tracking stops last.
    let container = Container::new()?;
    // The region is at the same place in the file of every card.
    let place = Region::find(card(1)?.device())?.place(DEVICE_STATE);
    let state = |value: u32| {
        let done = nix::sys::uio::pwrite(&container.device, &value.to_ne_bytes(), place);
        equal(format!("write of device_state {value}"), done, Ok(4))
    };
    container.tracking(START).named("START")?;
    for value in [PRE_COPY, SAVING, super::region::STOP] {
        state(value)?;
        let bits = container.bitmap().named("GET_BITMAP")?;
        equal("dirty pages", bits, vec![0; PAGES.div_ceil(64) as usize])?;
    }
    container.tracking(STOP).named("STOP")?;
    state(RUNNING)
}
