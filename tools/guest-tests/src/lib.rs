// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What runs inside the test machine, and what its programs share.

pub mod blk_api;
pub mod checkers;
pub mod coverage;
pub mod fault_api;
pub mod kernel;
pub mod kernel_log;
pub mod ktap;
pub mod l2;
pub mod module;
pub mod processors;
pub mod qmp;
pub mod scenarios;
pub mod stream_forge;
pub mod v1_api;
pub mod v2_api;
pub mod vfio;
pub mod vmm_api;

pub use vfio_uapi::mdev;
