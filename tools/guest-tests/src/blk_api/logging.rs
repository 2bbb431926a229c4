// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The log of what a disk writes to memory: all of it, once, and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::disk::*;
use super::ring::BASE;
use crate::kernel::{self, LOGGING};
use crate::ktap::Suite;
use crate::v2_api::check::{equal, refused, Named};
use crate::vfio::logging::{Logging, Report};
use crate::vfio::{Access, Device, Errno, State};

/// The file that has the log lose what is written.
const FAULT: &str = "/sys/kernel/debug/rust_vfio/drop_dirty_bits";

/// All of the memory, as logging knows it.
const RANGE: (u64, u64) = (BASE, MEMORY as u64);
const PAGES: usize = MEMORY / PAGE;

pub(super) fn add(suite: &mut Suite) {
    for access in Access::ALL {
        let name = format!("what_a_request_writes_is_reported_once_{}", access.name());
        suite.test(name, move || {
            kernel::needs_access(access)?;
            kernel::needs(LOGGING)?;
            what_a_request_writes_is_reported_once(access)
        });
    }
    tests_with_logging!(
        suite,
        a_log_that_loses_bits_is_noticed,
        a_report_has_the_pages_of_its_range_in_its_page_size,
        a_request_that_fails_half_way_is_logged,
        logging_survives_a_reset_and_ends_with_the_device,
        wrong_logging_requests_are_refused_while_requests_are_made,
        memory_is_unmapped_while_requests_are_made,
    );
}

/// Pages of the memory that the log has, which it does not have afterwards.
fn report(device: &Device) -> Result<Vec<usize>> {
    report_range(device, RANGE, PAGE as u64)
}

fn report_range(device: &Device, range: (u64, u64), page_size: u64) -> Result<Vec<usize>> {
    let mut bitmap = vec![0; PAGES / 64 + 1];
    device
        .report_logging(Report {
            iova: range.0,
            length: range.1,
            page_size,
            bitmap: Some(&mut bitmap),
        })
        .named("DMA_LOGGING_REPORT")?;
    let is_set = |page: &usize| bitmap[page / 64] & (1 << (page % 64)) != 0;
    Ok((0..bitmap.len() * 64).filter(is_set).collect())
}

fn start(device: &Device) -> Result<()> {
    let ranges = [RANGE];
    let page_size = device.start_logging(&Logging::of(&ranges));
    equal(
        "the page size",
        page_size.named("DMA_LOGGING_START")?,
        PAGE as u64,
    )
}

/// Pages that each request writes: that of the ring, and that of the answer.
fn always(queue: &Queue) -> Vec<usize> {
    vec![queue.ring.descriptors / PAGE, queue.answer_place(0) / PAGE]
}

/// What a read of three pages, of which the first and the last are half, has to leave in the log.
fn reading_is_logged(disk: &mut Disk) -> Result<()> {
    let queue = disk.queue();
    let data = queue.data() + PAGE / 2;
    let buffers = [(data, 2 * PAGE as u32, true)];
    equal("the answer", queue.request(IN, 0, &buffers, true)?.1, OK)?;
    let mut wanted = always(queue);
    wanted.extend(data / PAGE..=data / PAGE + 2);
    equal("pages of a read", report(&disk.device)?, wanted)
}

fn what_a_request_writes_is_reported_once(access: Access) -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(access, &instance)?;
    // What was written before is of no interest.
    disk.queue().write(0, &pattern(2 * PAGE, 1))?;
    start(&disk.device)?;
    equal("pages at the start", report(&disk.device)?, vec![])?;
    for _ in 0..3 {
        reading_is_logged(&mut disk)?;
        equal("pages told before", report(&disk.device)?, vec![])?;
    }
    // Writing to the medium only reads the data.
    disk.queue().write(0, &pattern(2 * PAGE, 2))?;
    let wanted = always(disk.queue());
    equal("pages of a write", report(&disk.device)?, wanted)?;
    disk.device.stop_logging().named("DMA_LOGGING_STOP")?;
    drop(disk);
    instance.remove()
}

fn a_log_that_loses_bits_is_noticed() -> Result<()> {
    if !Path::new(FAULT).exists() {
        kernel::needs("DEBUG_FS")?;
    }
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    start(&disk.device)?;
    reading_is_logged(&mut disk)?;
    fs::write(FAULT, "1").context(FAULT)?;
    let noticed = reading_is_logged(&mut disk);
    fs::write(FAULT, "0").context(FAULT)?;
    equal(
        "whether a log that loses bits passes",
        noticed.is_ok(),
        false,
    )?;
    // What was lost stays lost, and what comes later is not.
    reading_is_logged(&mut disk)?;
    drop(disk);
    instance.remove()
}

fn a_report_has_the_pages_of_its_range_in_its_page_size() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    start(&disk.device)?;
    let queue = disk.queue();
    let data = queue.data();
    let read = |queue: &mut Queue| -> Result<()> {
        let buffers = [(data, PAGE as u32, true), (data + 9 * PAGE, 1024, true)];
        equal("the answer", queue.request(IN, 0, &buffers, true)?.1, OK)
    };
    read(queue)?;
    // A part of it; the rest is told later.
    let part = (BASE + data as u64, 9 * PAGE as u64);
    equal(
        "a part",
        report_range(&disk.device, part, PAGE as u64)?,
        vec![0],
    )?;
    let mut rest = always(disk.queue());
    rest.push(data / PAGE + 9);
    equal("the rest", report(&disk.device)?, rest)?;
    // Pages of 32 KiB: the ring and the answer are in the first, the data in two of their own.
    read(disk.queue())?;
    let large = report_range(&disk.device, RANGE, 8 * PAGE as u64)?;
    equal(
        "large pages",
        large,
        vec![0, data / PAGE / 8, data / PAGE / 8 + 1],
    )?;
    drop(disk);
    instance.remove()
}

fn a_request_that_fails_half_way_is_logged() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    start(&disk.device)?;
    let queue = disk.queue();
    // The last page of the memory, and what is behind it.
    let answer = queue.request(IN, 0, &[(MEMORY - PAGE, 2 * PAGE as u32, true)], true)?;
    equal("the answer", answer.1, IOERR)?;
    let pages = report(&disk.device)?;
    equal(
        "whether the last page is told",
        pages.contains(&(PAGES - 1)),
        true,
    )?;
    drop(disk);
    instance.remove()
}

fn logging_survives_a_reset_and_ends_with_the_device() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    start(&disk.device)?;
    disk.device.reset().named("VFIO_DEVICE_RESET")?;
    disk.start()?;
    reading_is_logged(&mut disk)?;
    // In every state: what is written in one is told in another.
    disk.queue().request(FLUSH, 0, &[], true)?;
    disk.device.switch(State::Stop).named("STOP")?;
    let wanted = always(disk.queue());
    equal("pages in STOP", report(&disk.device)?, wanted)?;
    drop(disk);
    let disk = Disk::new(kernel::usual_access(), &instance)?;
    let mut bitmap = vec![0; PAGES / 64 + 1];
    let asked = disk.device.report_logging(Report {
        iova: RANGE.0,
        length: RANGE.1,
        page_size: PAGE as u64,
        bitmap: Some(&mut bitmap),
    });
    refused(
        "a report of a device that was opened again",
        asked,
        Errno::EINVAL,
    )?;
    drop(disk);
    instance.remove()
}

fn wrong_logging_requests_are_refused_while_requests_are_made() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    disk.device.stop_logging().named("STOP without START")?;
    start(&disk.device)?;
    let ranges = [RANGE];
    let again = disk.device.start_logging(&Logging::of(&ranges));
    refused("a second START", again, Errno::EINVAL)?;
    for (what, iova, length) in [
        ("before the range", RANGE.0 - PAGE as u64, PAGE as u64),
        ("behind the range", RANGE.0 + RANGE.1, PAGE as u64),
        ("of nothing", RANGE.0, 0),
    ] {
        let mut bitmap = vec![0; 2];
        let asked = disk.device.report_logging(Report {
            iova,
            length,
            page_size: PAGE as u64,
            bitmap: Some(&mut bitmap),
        });
        refused(format!("a report {what}"), asked, Errno::EINVAL)?;
    }
    // The log is as it was.
    reading_is_logged(&mut disk)?;
    drop(disk);
    instance.remove()
}

/// Whoever has memory unmapped need not wait for the device, and finds it unused afterwards.
fn memory_is_unmapped_while_requests_are_made() -> Result<()> {
    let instance = instance(&[("capacity-mib", "1")])?;
    let mut disk = Disk::new(kernel::usual_access(), &instance)?;
    let more = std::sync::Arc::new(crate::vfio::Mapping::of_memory(16 * PAGE).named("memory")?);
    let far = BASE + MEMORY as u64;
    let device = disk.device.clone();
    let over = std::sync::atomic::AtomicBool::new(false);
    let queue = disk.queue();
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| -> Result<(u32, u32)> {
            let (mut done, mut failed) = (0, 0);
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                match queue
                    .request(IN, 0, &[(MEMORY, 16 * PAGE as u32, true)], true)?
                    .1
                {
                    OK => done += 1,
                    IOERR => failed += 1,
                    other => anyhow::bail!("the answer is {other}"),
                }
            }
            Ok((done, failed))
        });
        let remap = || -> Result<()> {
            for _ in 0..100 {
                device
                    .map_dma(far, &more, crate::vfio::Dma::ReadWrite)
                    .named("mapping")?;
                device.unmap_dma(far).named("unmapping")?;
                let mark = [0x77; 64];
                more.put(0, &mark);
                equal(
                    "memory that is not the device's",
                    more.get(0, 64),
                    mark.to_vec(),
                )?;
            }
            Ok(())
        };
        let remapped = remap();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let (done, failed) = reader.join().expect("no panic")?;
        crate::diag!("{done} requests were done, {failed} found no memory");
        remapped
    })?;
    equal("the status", status(&device)?, READY)?;
    drop((disk, device));
    instance.remove()
}
