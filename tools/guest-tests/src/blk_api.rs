// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tests of the virtio disk, without a virtual machine: a driver of its own drives it through VFIO.
//!
//! Expectations come from virtio 1.2, from linux/vfio.h and from the compatibility contract. A disk is made for each test and gone
//! after it, so tests do not depend on each other.

use crate::kernel;
use crate::ktap::{diagnostic, Suite, DEFAULT_LIMIT};
use crate::module::{load, unload};
use std::process::ExitCode;

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

/// Adds functions as tests of the same name, to be skipped where VFIO has no use for a log.
macro_rules! tests_with_logging {
    ($suite:expr, $($name:ident),+ $(,)?) => {
        $($suite.test(stringify!($name), || {
            $crate::kernel::needs($crate::kernel::LOGGING)?;
            $name()
        });)+
    };
}

mod concurrent;
pub mod disk;
mod hostile;
mod interrupts;
mod logging;
mod migration;
mod requests;
pub mod ring;
mod serial;
mod states;

/// The driver.
const DRIVER: &str = "mdev_blk";

/// Runs the tests, with the driver loaded.
pub fn run() -> ExitCode {
    let suite = suite();
    if std::env::args().any(|argument| argument == "--list") {
        return suite.run();
    }
    if let Err(error) = load(DRIVER, "") {
        diagnostic(format!("the driver is not loaded: {error:#}"));
        return ExitCode::FAILURE;
    }
    let code = suite.run();
    match unload(DRIVER) {
        Ok(()) => code,
        Err(error) => {
            diagnostic(format!("the driver is not unloaded: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn suite() -> Suite {
    let mut suite = Suite::new();
    // A kernel that checks every access takes twice as long for what a test does many times.
    if kernel::has("KASAN") {
        suite.limit(2 * DEFAULT_LIMIT);
    }
    requests::add(&mut suite);
    serial::add(&mut suite);
    interrupts::add(&mut suite);
    states::add(&mut suite);
    concurrent::add(&mut suite);
    logging::add(&mut suite);
    migration::add(&mut suite);
    hostile::add(&mut suite);
    suite
}
