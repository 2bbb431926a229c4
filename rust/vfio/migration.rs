// SPDX-License-Identifier: GPL-2.0

//! Migration: sessions of saving and loading, and the protocols that carry them.
//!
//! | module | subject |
//! |---|---|
//! | [`session`] | the state machine, and the byte stream that is saved or loaded |
//! | [`mod@file`] | the data file through which protocol v2 carries the stream |
//! | [`transition`] | the arcs of the state machine, as the device takes them |
//! | [`v2`] | the callbacks of protocol v2 |
//! | [`v1`] | the migration region of protocol v1 |
//! | [`staging`] | the part of that region that can be mapped |
//! | [`log_ops`] | the callbacks of DMA logging |

pub(crate) mod file;
pub(crate) mod log_ops;
pub(crate) mod session;
pub(crate) mod staging;
pub(crate) mod transition;
pub(crate) mod v1;
pub(crate) mod v2;
