// SPDX-License-Identifier: GPL-2.0

//! The module `rust_vfio`: carries the library crates, so that several driver modules share one copy.
//!
//! It has no behaviour of its own: loading it registers nothing but what debugfs has for tests.

use kernel::prelude::*;
use vfio::debug::Faults;

module! {
    type: RustVfio,
    name: "rust_vfio",
    authors: ["The rust-vfio-mdev authors"],
    description: "Rust abstractions for VFIO, mediated devices and their migration",
    license: "GPL",
    imports_ns: ["IOMMUFD"],
}

struct RustVfio {
    _faults: Faults,
}

impl kernel::Module for RustVfio {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self {
            _faults: Faults::new()?,
        })
    }
}
