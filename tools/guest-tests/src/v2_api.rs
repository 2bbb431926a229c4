// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests of the VFIO user API of our mediated devices, without a virtual machine.
//!
//! Expectations come from linux/vfio.h, from what vfio-pci answers where that header is silent, and from the compatibility
//! contract. A card is made for each test and gone after it, so tests do not depend on each other.

use crate::kernel;
use crate::ktap::{Suite, DEFAULT_LIMIT};

/// Adds functions as tests of the same name.
macro_rules! tests {
    ($suite:expr, $($name:ident),+ $(,)?) => {
        $($suite.test(stringify!($name), $name);)+
    };
}

/// Adds functions as tests once for each way to open a device, which the function is given and which ends the name.
macro_rules! tests_both_ways {
    ($suite:expr, $($name:ident),+ $(,)?) => {
        for access in $crate::vfio::Access::ALL {
            $($suite.test(format!("{}_{}", stringify!($name), access.name()), move || {
                $crate::kernel::needs_access(access)?;
                $name(access)
            });)+
        }
    };
}

/// Adds functions as tests of the same name, to be skipped where the kernel lacks an option.
macro_rules! tests_with {
    ($suite:expr, $option:expr, $($name:ident),+ $(,)?) => {
        $($suite.test(stringify!($name), || {
            $crate::kernel::needs($option)?;
            $name()
        });)+
    };
}

pub mod card;
pub mod check;
pub mod uart;

mod accounting;
mod clock;
mod coming_and_going;
mod config_space;
pub mod copier;
mod data_file;
mod description;
mod dma;
mod hostile;
mod instances;
mod interrupts;
mod irq_matrix;
mod logging;
mod module;
mod opening;
mod progress;
mod regions;
mod removal;
mod round_trip;
mod scratch;
mod serial;
mod states;
mod udev;
mod unmask_eventfd;

pub use dma::in_another_process;

/// All tests. Those that unload the driver come last.
pub fn suite() -> Suite {
    let mut suite = Suite::new();
    // A kernel that checks every access takes twice as long for what a test does many times.
    if kernel::has("KASAN") {
        suite.limit(2 * DEFAULT_LIMIT);
    }
    description::add(&mut suite);
    config_space::add(&mut suite);
    regions::add(&mut suite);
    irq_matrix::add(&mut suite);
    interrupts::add(&mut suite);
    unmask_eventfd::add(&mut suite);
    serial::add(&mut suite);
    opening::add(&mut suite);
    instances::add(&mut suite);
    removal::add(&mut suite);
    states::add(&mut suite);
    data_file::add(&mut suite);
    round_trip::add(&mut suite);
    clock::add(&mut suite);
    progress::add(&mut suite);
    logging::add(&mut suite);
    hostile::add(&mut suite);
    accounting::add(&mut suite);
    udev::add(&mut suite);
    scratch::add(&mut suite);
    dma::add(&mut suite);
    module::add(&mut suite);
    coming_and_going::add(&mut suite);
    suite
}
