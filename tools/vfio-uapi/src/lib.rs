// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The VFIO user API as plain calls: what a virtual machine monitor does, one system call at a time, so that tests can also
//! do it wrongly; and mediated devices in sysfs, which is where such a device comes from.
//!
//! Every call returns the kernel's own errno ([`nix::errno::Errno`]) and takes untyped values where a test wants to pass
//! a wrong one. Source: linux/vfio.h of Linux 7.3 and linux/iommufd.h.
//!
//! State can be carried by both migration protocols: the data file of protocol v2 ([`migration`]) and the region of protocol
//! v1 ([`migration_v1`]).

pub mod abi;
pub mod compat;
pub mod data_fd;
pub mod device;
pub mod dma;
pub mod interrupt;
pub mod logging;
pub mod mapping;
pub mod mdev;
pub mod memory;
pub mod migration;
pub mod migration_v1;
pub mod open;
pub mod user_fault;
pub mod window;

pub use data_fd::DataFd;
pub use device::Device;
pub use dma::Dma;
pub use interrupt::IrqSet;
pub use mapping::Mapping;
pub use migration::State;
pub use nix::errno::Errno;
pub use open::Access;
pub use user_fault::UserFault;
pub use window::Window;

/// The result of one system call.
pub type Result<T> = nix::Result<T>;
