// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Everything about migrating a VFIO device that can be decided without a kernel.
//!
//! | module | what it decides |
//! |---|---|
//! | [`fsm`] | which state comes next on the way to the one asked for (protocols v2 and v1) |
//! | [`stream`] | how device state is framed: setup record, sections, end; writer and incremental reader |
//! | [`model`] | what a device model is: its parameters, their allowed values, its versions and types |
//! | [`check`] | whether a source's parameter list suits a type or an instance, with all reasons |
//! | [`info`] | what all of that looks like as JSON and as text |
//! | [`clock`] | a device's own time, which stands still while the device does |
//! | [`log`] | of which memory a device's writes are logged, and what is refused |
//! | [`session`] | the byte stream between two devices: made while a device is saved, taken while one is loaded |
//! | [`reason`] | why something was refused, as a short text |
//! | [`value`] | a parameter's name and value, and which of either are well formed |
//!
//! The same source is compiled into the kernel module and into user-space programs. So there is no
//! allocation, no `unsafe`, no dependency, no kernel type and no errno here: errors are enums with
//! one variant a cause, and the caller maps their class to what its users expect.
//!
//! What comes from outside (streams, text, state numbers) is untrusted: nothing here panics on it.

#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod check;
pub mod clock;
pub mod crc;
pub mod fsm;
pub mod info;
pub mod log;
pub mod model;
pub mod reason;
pub mod session;
pub mod stream;
pub mod value;
