// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Numbers of linux/vfio.h and linux/iommufd.h that `vfio-bindings` does not have, and the one place that calls `ioctl`.

use std::cell::Cell;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
pub use vfio_bindings::bindings::vfio::*;

use crate::memory::Page;
use crate::Result;

/// `_IO(VFIO_TYPE, VFIO_BASE + number)`: VFIO requests carry no size and no direction.
const fn request(number: u32) -> u32 {
    ((VFIO_TYPE as u32) << 8) | (VFIO_BASE + number)
}

/// `_IO(IOMMUFD_TYPE, number)` of linux/iommufd.h, whose type is the same `';'`.
const fn iommufd_request(number: u32) -> u32 {
    ((VFIO_TYPE as u32) << 8) | number
}

/// Container: which version of the API.
pub const VFIO_GET_API_VERSION: u32 = request(0);
/// Container: is an extension there.
pub const VFIO_CHECK_EXTENSION: u32 = request(1);
/// Container: choose the kind of IOMMU.
pub const VFIO_SET_IOMMU: u32 = request(2);
/// Group: join a container.
pub const VFIO_GROUP_SET_CONTAINER: u32 = request(4);
/// Group: open a device of it by name.
pub const VFIO_GROUP_GET_DEVICE_FD: u32 = request(6);
/// Device: `struct vfio_device_info`.
pub const VFIO_DEVICE_GET_INFO: u32 = request(7);
/// Device: `struct vfio_region_info`.
pub const VFIO_DEVICE_GET_REGION_INFO: u32 = request(8);
/// Device: `struct vfio_irq_info`.
pub const VFIO_DEVICE_GET_IRQ_INFO: u32 = request(9);
/// Device: `struct vfio_irq_set`.
pub const VFIO_DEVICE_SET_IRQS: u32 = request(10);
/// Device: back to power-on state.
pub const VFIO_DEVICE_RESET: u32 = request(11);
/// Device: a request that only physical devices answer; here to test that it is refused.
pub const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: u32 = request(12);
/// Device: `struct vfio_device_feature`.
pub const VFIO_DEVICE_FEATURE: u32 = request(17);
/// Device opened by its own file: tie it to an iommufd.
pub const VFIO_DEVICE_BIND_IOMMUFD: u32 = request(18);
/// Device opened by its own file: attach it to an address space.
pub const VFIO_DEVICE_ATTACH_IOMMUFD_PT: u32 = request(19);
/// Migration data file in pre-copy: `struct vfio_precopy_info`.
pub const VFIO_MIG_GET_PRECOPY_INFO: u32 = request(21);
/// Container: `struct vfio_iommu_type1_dma_map`.
pub const VFIO_IOMMU_MAP_DMA: u32 = request(13);
/// Container: `struct vfio_iommu_type1_dma_unmap`.
pub const VFIO_IOMMU_UNMAP_DMA: u32 = request(14);
/// iommufd: `struct iommu_ioas_map`.
pub const IOMMU_IOAS_MAP: u32 = iommufd_request(0x85);
/// iommufd: `struct iommu_ioas_unmap`.
pub const IOMMU_IOAS_UNMAP: u32 = iommufd_request(0x86);
/// iommufd: the address is given.
pub const IOMMU_IOAS_MAP_FIXED_IOVA: u32 = 1 << 0;
/// iommufd: devices may write.
pub const IOMMU_IOAS_MAP_WRITEABLE: u32 = 1 << 1;
/// iommufd: devices may read.
pub const IOMMU_IOAS_MAP_READABLE: u32 = 1 << 2;
/// iommufd: make an address space.
pub const IOMMU_IOAS_ALLOC: u32 = iommufd_request(0x81);

/// linux/vfio.h, Linux 7.3: on SET, the flags of `struct vfio_precopy_info` become a valid output.
pub const VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFO_V2: u32 = 12;
/// linux/vfio.h, Linux 7.3: new initial data is present on the stream.
pub const VFIO_PRECOPY_INFO_REINIT: u32 = 1;

/// Size of `struct vfio_device_feature` before its data, in bytes.
pub const FEATURE_HEADER: usize = size_of::<vfio_device_feature>();
/// Size of `struct vfio_irq_set` before its data, in bytes.
pub const IRQ_SET_HEADER: usize = size_of::<vfio_irq_set>();
/// Size of `struct vfio_precopy_info`, in bytes.
pub const PRECOPY_INFO_SIZE: usize = size_of::<vfio_precopy_info>();

/// Where an ioctl finds its argument.
pub enum Argument<'a> {
    /// These bytes, in and out.
    Bytes(&'a mut [u8]),
    /// These bytes, in memory that cannot be written.
    ReadOnly(&'a [u8]),
    /// These bytes, of which the rest of the page that follows is not mapped.
    UpToHole(&'a mut [u8]),
    /// An address at which nothing is mapped.
    Unmapped,
    /// No pointer but a number.
    Value(usize),
}

thread_local! {
    /// The page of the last argument. Mapping one anew costs forty times the system call that it is for.
    static SPARE: Cell<Option<Page>> = const { Cell::new(None) };
}

/// Calls ioctl `request` on `fd`.
///
/// # Panics
///
/// If the argument is longer than a page.
pub fn ioctl(fd: BorrowedFd<'_>, request: u32, argument: Argument<'_>) -> Result<i32> {
    match argument {
        Argument::Bytes(bytes) => {
            let mut page = match SPARE.take() {
                Some(mut page) => {
                    page.refill(bytes);
                    page
                }
                None => Page::holding(bytes, 0)?,
            };
            let result = raw(fd, request, page.address());
            page.copy_to(bytes, 0);
            SPARE.set(Some(page));
            result
        }
        Argument::ReadOnly(bytes) => {
            let mut page = Page::holding(bytes, 0)?;
            page.forbid_writing()?;
            raw(fd, request, page.address())
        }
        Argument::UpToHole(bytes) => {
            let start = Page::SIZE - bytes.len();
            let mut page = Page::holding(bytes, start)?;
            let result = raw(fd, request, page.address() + start);
            page.copy_to(bytes, start);
            result
        }
        Argument::Unmapped => raw(fd, request, UNMAPPED),
        Argument::Value(value) => raw(fd, request, value),
    }
}

/// An address below vm.mmap_min_addr, where nothing can be mapped.
pub const UNMAPPED: usize = 8;

/// The system call. The argument is the address of a [`Page`], [`UNMAPPED`] or a number that is no address.
fn raw(fd: BorrowedFd<'_>, request: u32, argument: usize) -> Result<i32> {
    // SAFETY: The requests of this file write nowhere but to the argument, at most the structure of the request or as many
    // bytes as its `argsz` says. `argument` is the start of a page of its own mapping (or of an area that ends at a hole), so
    // such a write cannot reach an object of this program: it stays within the page or fails with EFAULT. Addresses inside
    // the structures are given by `logging`, which makes sure of what they point to.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as libc::Ioctl, argument) };
    Errno::result(result)
}

/// The bytes of a C structure without padding, at their place in the structure.
#[derive(Default, Clone, Debug)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a 32-bit member.
    pub fn word(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Appends a 64-bit member.
    pub fn long(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Appends bytes.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes, for an ioctl.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The 32-bit member at byte `offset`.
    ///
    /// # Panics
    ///
    /// If the structure is shorter.
    pub fn word_at(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.0[offset..offset + 4].try_into().expect("four bytes"))
    }

    /// The 64-bit member at byte `offset`.
    ///
    /// # Panics
    ///
    /// If the structure is shorter.
    pub fn long_at(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.0[offset..offset + 8].try_into().expect("eight bytes"))
    }
}
