// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What virtual machine monitors other than QEMU do with a card, by the library that they share, `vfio-ioctls`. Where it cannot
//! express a step, [`crate::vfio`] takes that step.
//!
//! Expectations come from linux/vfio.h, and from what such monitors need in order to go on.

use crate::ktap::Suite;

/// Adds functions as tests of the same name.
macro_rules! tests {
    ($suite:expr, $($name:ident),+ $(,)?) => {
        $($suite.test(stringify!($name), $name);)+
    };
}

pub mod process;

mod client;
mod habits;
mod removal;
mod restore;

/// All tests.
pub fn suite() -> Suite {
    let mut suite = Suite::new();
    restore::add(&mut suite);
    habits::add(&mut suite);
    removal::add(&mut suite);
    suite
}
