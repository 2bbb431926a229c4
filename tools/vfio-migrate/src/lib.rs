// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What `vfio-migrate` does, without its command line: reading what other hosts offer, choosing and preparing a destination,
//! saving and loading device state.
//!
//! Whether a destination can take a source is decided by [`migration::check`], the code that drivers are built from.

#![forbid(unsafe_code)]

pub mod error;
pub mod exercise;
pub mod input;
pub mod inspect;
pub mod json;
pub mod mdevctl;
pub mod note;
pub mod operand;
pub mod prepare;
pub mod program;
pub mod select;
pub mod state;
pub mod sysfs;
pub mod text;
pub mod vfio_user;
pub mod watch;
