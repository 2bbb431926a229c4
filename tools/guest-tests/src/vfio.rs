// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The VFIO user API as plain calls: what a virtual machine monitor does, one system call at a time, so that tests can also
//! do it wrongly.
//!
//! Every call returns the kernel's own errno ([`nix::errno::Errno`]) and takes untyped values where a test wants to pass
//! a wrong one. Source: linux/vfio.h of Linux 7.3 and linux/iommufd.h.

pub mod abi;
pub mod data_fd;
pub mod device;
pub mod event_fd;
pub mod interrupt;
pub mod logging;
pub mod memory;
pub mod migration;
pub mod open;

pub use data_fd::DataFd;
pub use device::Device;
pub use event_fd::Event;
pub use interrupt::IrqSet;
pub use migration::State;
pub use nix::errno::Errno;
pub use open::Access;

/// The result of one system call.
pub type Result<T> = nix::Result<T>;
