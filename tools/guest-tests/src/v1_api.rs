// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests of migration protocol v1: the migration region of our mediated devices, without a virtual machine.
//!
//! Expectations come from the text of linux/vfio.h in Linux 5.8 to 5.17, from what QEMU 7.2 does with the region
//! (hw/vfio/migration.c), and from the project's notes on the protocol. A card is made for each test and gone after it, so tests
//! do not depend on each other.

use crate::ktap::Suite;

/// Adds functions as tests of the same name.
macro_rules! tests {
    ($suite:expr, $($name:ident),+ $(,)?) => {
        $($suite.test(stringify!($name), $name);)+
    };
}

pub mod bench;
pub mod client;

pub use vfio_uapi::{mapping, migration_v1 as region};

mod carriers;
mod container;
mod description;
mod hostile;
mod mapped;
mod maps;
mod ownership;
mod pieces;
mod refusals;
mod sequences;
mod states;
mod threads;

/// All tests.
pub fn suite() -> Suite {
    let mut suite = Suite::new();
    description::add(&mut suite);
    states::add(&mut suite);
    sequences::add(&mut suite);
    pieces::add(&mut suite);
    carriers::add(&mut suite);
    refusals::add(&mut suite);
    maps::add(&mut suite);
    mapped::add(&mut suite);
    ownership::add(&mut suite);
    hostile::add(&mut suite);
    threads::add(&mut suite);
    container::add(&mut suite);
    suite
}
