// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The VFIO user API ([`vfio_uapi`]), and waiting for the events it signals.

pub use vfio_uapi::*;

pub mod event_fd;

pub use event_fd::Event;
