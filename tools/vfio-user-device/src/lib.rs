// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Serves a device model to monitors that speak vfio-user.
//!
//! | module | subject |
//! |---|---|
//! | [`device`] | what a device model has to offer to be served |
//! | [`serial`] | the serial card as one |
//! | [`blk`] | the virtio disk as one |
//! | [`instance`] | the device that somebody asks for, and what the program offers |
//! | [`host`] | a device and its one client: requests in, replies out |
//! | [`backend`] | what is behind the socket, as the protocol sees it |
//! | [`remote`] | and what else remote calls want of it |
//! | [`model`] | a device model there |
//! | [`kernel`] | a device of the kernel there |
//! | [`irq`] | how interrupts are told |
//! | [`memory`] | the guest's memory, by bounded copies |
//! | [`connection`] | messages and descriptors on a socket |
//! | [`notice`] | what is told of it on standard error |
//! | [`registry`] | many devices in one program |
//! | [`bus`] | the devices on a D-Bus, for management tools and for QEMU |
//! | [`control`] | controlling them by JSON on a socket |
//! | [`replay`] | configuration space as commands for QEMU's monitor |
//! | [`server`] | the loop that waits for clients, signals and time |
//!
//! Without the feature `program` there is what answers a client, and no socket, bus or command line: `backend`, `blk`, `device`,
//! `feature`, `host`, `instance`, `irq`, `memory`, `model` and `serial`.
//!
//! A client is untrusted as a guest is: what it sends changes the device as a guest could, and nothing else.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod backend;
pub mod blk;
#[cfg(feature = "program")]
pub mod bus;
#[cfg(feature = "program")]
pub mod connection;
#[cfg(feature = "program")]
pub mod control;
pub mod device;
mod feature;
pub mod host;
pub mod instance;
pub mod irq;
#[cfg(feature = "program")]
pub mod kernel;
pub mod memory;
pub mod model;
#[cfg(feature = "program")]
pub mod notice;
#[cfg(feature = "program")]
pub mod registry;
#[cfg(feature = "program")]
pub mod remote;
#[cfg(feature = "program")]
pub mod replay;
pub mod serial;
#[cfg(feature = "program")]
pub mod server;
