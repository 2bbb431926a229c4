// SPDX-License-Identifier: GPL-2.0

//! Migration: sessions of saving and loading, and the protocols that carry them.
//!
//! | module | subject |
//! |---|---|
//! | [`session`] | the state machine, and the byte stream that is saved or loaded |
//! | [`mod@file`] | the data file through which protocol v2 carries the stream |
//! | [`v2`] | the callbacks of protocol v2 |
//! | [`log`] | DMA logging |

pub(crate) mod file;
pub(crate) mod log;
pub(crate) mod session;
pub(crate) mod v2;
