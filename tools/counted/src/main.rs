// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What our card and the kernel's C sample mtty cost, in instructions, on the same work: each operation of a user of VFIO, of sysfs
//! and of both migration protocols. Needs a machine that counts instructions (`lab bench`), with both drivers loaded.
//!
//! ```text
//! counted                  every operation, a line of JSON each, and "memory"
//! counted OPERATION...     those
//! counted --profile OPERATION SUBJECT
//!                          one call of it, between marks, when told to on standard input
//! counted --example-server what a row is compared with; the program starts itself so
//! ```
//!
//! Exit status: 0, or 1 if something could not be counted or two counts of it do not agree.

mod disk;
mod measure;
mod memory;
mod migration;
mod operations;
mod profile;
mod report;
mod socket;

use std::process::ExitCode;

use anyhow::Result;
use report::Report;
use vfio_uapi::mdev::{Mdev, MdevType};
use vfio_uapi::{Access, Device};

/// What every call costs, whatever the driver does.
const FLOOR: &str = "floor";
/// Our driver.
const OURS: &str = "mdev_serial";
/// Our disk.
const DISK: &str = "mdev_blk";
/// The sample.
const SAMPLE: &str = "mtty";

/// A card of either driver.
struct Subject {
    name: &'static str,
    kind: MdevType,
    instance: Mdev,
}

impl Subject {
    fn new(name: &'static str) -> Result<Self> {
        let kind = MdevType::find(&format!("{name}-2"))?;
        let instance = kind.create()?;
        Ok(Self {
            name,
            kind,
            instance,
        })
    }

    fn open(&self) -> Result<Device> {
        let device = Access::Group.open(&self.instance)?;
        // mtty takes no SET_IRQS before it was asked how many interrupts it has.
        device.info()?;
        Ok(device)
    }
}

/// Counts the operations named, or all of them, and prints a line for each.
fn run(report: Report) -> Result<()> {
    // First: in a young machine there is little half-filled memory of others that instances could use up.
    memory::add(&report)?;
    operations::floor(&report)?;
    for name in [OURS, SAMPLE] {
        let subject = Subject::new(name)?;
        operations::add(&report, &subject)?;
        migration::add(&report, &subject)?;
    }
    disk::add(&report)?;
    socket::add(&report)?;
    operations::many(&report)?;
    report.end()
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments == [socket::OPTION] {
        return ended(socket::serve());
    }
    let report = match arguments.as_slice() {
        [option, operation, subject] if option == "--profile" => {
            Report::of_one(operation.clone(), subject.clone())
        }
        _ => Report::new(arguments),
    };
    ended(run(report))
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counted: {error:#}");
            ExitCode::FAILURE
        }
    }
}
