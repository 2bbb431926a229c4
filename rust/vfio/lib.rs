// SPDX-License-Identifier: GPL-2.0

//! Safe abstractions for mediated VFIO devices that can be migrated.
//!
//! # What is supported
//!
//! * mdev parents, types and drivers ([`mdev`]), with a capacity that several types share;
//! * VFIO devices by group and by character device (iommufd), emulated ([`device`]), which access guest memory by copying it
//!   ([`engine`]);
//! * regions by read and write, and parts of them that can be mapped ([`mapped`]), INTx, MSI and MSI-X through eventfds, the request interrupt, reset ([`irq`]);
//! * migration protocol v2 with pre-copy and peer-to-peer states, DMA logging, and the migration region of protocol v1, which
//!   carries the same stream ([`migration`]);
//! * a named attribute group on every instance ([`sysfs`]).
//!
//! # How a driver is written
//!
//! A driver implements [`device::Device`], a trait without a kernel type or a pointer in it: registers in, effects out,
//! "save my state" and "load my state". It lists its mdev types in a table and registers both. This is a whole one,
//! `samples/mdev_scratch/main.rs`, as it is built and tested with the library:
//!
//! ```
#![doc = include_str!("../../samples/mdev_scratch/main.rs")]
//! ```
//!
//! Everything else (ioctls, locking, interrupts, the state machine, data files, attributes) is done here, and all `unsafe`
//! of the project is in this crate and in `vfio_bindings`.
//!
//! # Locking
//!
//! Every instance has one mutex, [`device::Instance`]'s `state`, for the device model and everything that is decided about
//! it. It is never held across a copy from or to user space, nor an access to guest memory, which is one. Whoever accesses guest
//! memory for a device has its engine, and whoever stops it takes that first; it is taken before `state`. Another mutex, `control`, is held across one
//! `VFIO_DEVICE_SET_IRQS` call or the last close, because undoing an eventfd's wait sleeps until its callback, which takes
//! `state`, has returned. Order: `control`, then the engine, then `state`. The log of what was written has a mutex of its own, the
//! last one, which is not held while a user's bitmap is written. Each migration data file has a mutex that orders its readers or
//! writers, and guards the bytes that are on their way to a reader; it is taken before `state` and never by a page fault. What
//! `mmap` needs is under locks of its own, because the address space is locked there: the data section's under a spin lock, and
//! mapped memory under a mutex that is held for copying its bytes only, inside `state` or without it.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]

mod anon_file;
mod bound;
mod capacity;
pub mod class;
pub mod debug;
pub mod device;
mod dirty_log;
pub mod engine;
mod eventfd;
mod guest_memory;
pub mod irq;
mod lock_class;
pub mod mapped;
pub mod mdev;
mod migration;
mod model;
pub mod module;
mod names;
mod page;
mod pages;
mod progress;
mod reason;
pub mod region;
mod sysfs;
mod table;
mod timer;
mod token;

#[cfg(CONFIG_KUNIT)]
mod tests;

/// Prefix of this crate's lines in the kernel log.
const __LOG_PREFIX: &[u8] = b"rust_vfio\0";
