// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Registers, interrupts, and the life of instances.

use std::hint::black_box;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{ensure, Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::{pread, pwrite};
use vfio_uapi::abi::{Argument, VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX};
use vfio_uapi::interrupt::{INTX, TRIGGER, UNMASK};
use vfio_uapi::mdev::MdevType;
use vfio_uapi::{Device, Errno, IrqSet};

use crate::measure::{exponent, own_time};
use crate::report::{Report, Row};
use crate::{Subject, FLOOR, OURS};

/// Registers of the first port: one that only remembers, data, interrupt enable and identification, FIFO control, line control.
const SCRATCH: u64 = 7;
const DATA: u64 = 0;
const ENABLE: u64 = 1;
const IDENTIFY: u64 = 2;
const FIFO: u64 = 2;
const LINE: u64 = 3;
/// Command register of the configuration space.
const COMMAND: u64 = 4;
/// First base address register.
const BASE: u64 = 0x10;

/// An ioctl of VFIO's that no device has: `_IO(';', 250)`.
const NO_IOCTL: u32 = 0x3bfa;

/// Instances for the law of many.
const MANY: u32 = 1000;

/// What a call costs before any driver sees it.
pub fn floor(report: &Report) -> Result<()> {
    report.row("system call", FLOOR, || {
        black_box(nix::unistd::getppid());
        Ok(())
    })
}

/// A place in a device's file, looked up once.
struct Place<'a> {
    device: &'a Device,
    at: i64,
}

impl<'a> Place<'a> {
    fn new(device: &'a Device, region: u32, offset: u64) -> Result<Self> {
        let at = device.place(region, offset)?;
        Ok(Self { device, at })
    }

    fn get<const N: usize>(&self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let length = pread(self.device.as_fd(), black_box(&mut bytes), self.at)?;
        ensure!(length == N, "{length} of {N} bytes were read");
        Ok(bytes)
    }

    fn set<const N: usize>(&self, bytes: [u8; N]) -> Result<()> {
        let length = pwrite(self.device.as_fd(), black_box(&bytes), self.at)?;
        ensure!(length == N, "{length} of {N} bytes were written");
        Ok(())
    }
}

/// Everything that is done with an instance but to migrate it.
pub fn add(report: &Report, subject: &Subject) -> Result<()> {
    let device = subject.open()?;
    report.row("ioctl that does not exist", subject.name, || {
        let answer = device.ioctl_with(NO_IOCTL, Argument::Value(0));
        ensure!(answer == Err(Errno::ENOTTY), "it answered {answer:?}");
        Ok(())
    })?;
    registers(report, subject, &device)?;
    interrupts(report, subject, &device)?;
    drop(device);
    report.amortized_row("open and close", subject.name, || subject.open().map(drop))?;
    report.amortized_row("create and remove", subject.name, || {
        subject.kind.create()?.remove()
    })?;
    if subject.name == OURS {
        sysfs(report, subject)?;
    }
    Ok(())
}

fn registers(report: &Report, subject: &Subject, device: &Device) -> Result<()> {
    let register = Place::new(device, VFIO_PCI_BAR0_REGION_INDEX, SCRATCH)?;
    let aligned = Place::new(device, VFIO_PCI_BAR0_REGION_INDEX, 4)?;
    let command = Place::new(device, VFIO_PCI_CONFIG_REGION_INDEX, COMMAND)?;
    let base = Place::new(device, VFIO_PCI_CONFIG_REGION_INDEX, BASE)?;
    let name = subject.name;
    report.row("register read, 1 byte", name, || {
        register.get::<1>().map(drop)
    })?;
    report.row("register read, 2 bytes", name, || {
        aligned.get::<2>().map(drop)
    })?;
    report.row("register read, 4 bytes", name, || {
        aligned.get::<4>().map(drop)
    })?;
    report.row("register write, 1 byte", name, || register.set([0x5a]))?;
    report.row("register write, 2 bytes", name, || aligned.set([0; 2]))?;
    report.row("register write, 4 bytes", name, || aligned.set([0; 4]))?;
    report.row("configuration read, 4 bytes", name, || {
        base.get::<4>().map(drop)
    })?;
    report.row("configuration write, 2 bytes", name, || command.set([1, 0]))?;
    report.row("GET_REGION_INFO", name, || {
        device.region(black_box(VFIO_PCI_BAR0_REGION_INDEX))?;
        Ok(())
    })
}

fn interrupts(report: &Report, subject: &Subject, device: &Device) -> Result<()> {
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let name = subject.name;
    let trigger = IrqSet::eventfd(INTX, TRIGGER, event.as_raw_fd());
    device.set_irqs(&trigger)?;
    report.row("SET_IRQS, an eventfd", name, || {
        Ok(device.set_irqs(&trigger)?)
    })?;
    let unmask = IrqSet::none(INTX, UNMASK);
    report.row("SET_IRQS, unmask", name, || Ok(device.set_irqs(&unmask)?))?;

    let at = |register| Place::new(device, VFIO_PCI_BAR0_REGION_INDEX, register);
    let (data, identify) = (at(DATA)?, at(IDENTIFY)?);
    at(LINE)?.set([3])?;
    at(FIFO)?.set([1])?;
    at(ENABLE)?.set([1])?;
    report.row("a character and its interrupt", name, || {
        data.set([0x42])?;
        // It would block if there had been no interrupt.
        event.read().context("the interrupt")?;
        identify.get::<1>()?;
        data.get::<1>()?;
        Ok(device.set_irqs(&unmask)?)
    })?;
    at(ENABLE)?.set([0])
}

fn sysfs(report: &Report, subject: &Subject) -> Result<()> {
    const PARAMETER: &str = "migration/num-ports";
    let ports = subject.instance.attribute(PARAMETER)?;
    report.row("a parameter read", subject.name, || {
        subject.instance.attribute(PARAMETER)?;
        Ok(())
    })?;
    report.row("a parameter written", subject.name, || {
        Ok(subject.instance.set_attribute(PARAMETER, &ports)?)
    })
}

/// The cost of the n-th instance. It must not grow with n.
pub fn many(report: &Report) -> Result<()> {
    const OPERATION: &str = "the 1000th of 1,000 instances";
    if !report.is_wanted(OPERATION) {
        return Ok(());
    }
    let kind = MdevType::find("mdev_serial-1")?;
    let mut instances = Vec::new();
    let mut costs = Vec::new();
    for n in 1..=MANY {
        let start = own_time()?;
        let instance = kind.create().with_context(|| format!("instance {n}"))?;
        costs.push((f64::from(n), own_time()? - start));
        instances.push(instance);
    }
    // The median of the last hundred: some of them are hit by the timer.
    let mut last: Vec<_> = costs
        .iter()
        .rev()
        .take(100)
        .map(|(_, cost)| *cost)
        .collect();
    last.sort_by(f64::total_cmp);
    let [low, median, high] = [25, 50, 75].map(|n| last[n]);
    report.print(&Row {
        operation: OPERATION,
        subject: OURS,
        instructions: median,
        spread: (high - low) / median,
        exponent: Some(exponent(&costs)),
    })
}
