// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The log of what a device wrote: exactly that, each page once.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use anyhow::Context;

use super::super::check::{equal, refused, Named};
use super::super::copier::{driver, Copier, Status, LENGTH, MEMORY, MOST, PAGE};
use crate::kernel;
use crate::ktap::Suite;
use crate::vfio::logging::{Logging, Report};
use crate::vfio::{Access, Dma, Errno, Mapping, State};

pub(super) fn add(suite: &mut Suite) {
    tests_with!(
        suite,
        kernel::LOGGING,
        hostile_42_a_second_start_forgets_nothing,
        hostile_43_refused_ranges_forget_nothing,
        hostile_44_any_page_size_is_answered_with_4_kib,
        hostile_45_refused_reports_forget_nothing,
        hostile_46_a_bitmap_at_a_bad_address_costs_its_bits_and_no_other,
        hostile_47_the_next_user_sees_nothing_of_the_log,
        hostile_48_a_reset_keeps_what_was_written,
        only_what_was_written_since_the_start_is_logged,
        a_copy_that_fails_half_way_is_logged_as_written,
        what_is_outside_of_the_ranges_is_not_logged,
        the_whole_address_space_can_be_logged,
        reports_while_the_device_writes_lose_nothing,
        the_switch_for_tests_makes_the_log_forget,
    );
    suite.test("what_a_device_writes_is_logged_by_group", || {
        kernel::needs(kernel::LOGGING)?;
        what_a_device_writes_is_logged(Access::Group)
    });
    suite.test("what_a_device_writes_is_logged_by_cdev", || {
        kernel::needs(kernel::LOGGING)?;
        what_a_device_writes_is_logged(Access::Cdev)
    });
}

/// The log of all of the memory.
const ALL: [(u64, u64); 1] = [(MEMORY, LENGTH)];

/// The addresses of pages that a report tells of.
fn report(copier: &Copier, page_size: u64) -> anyhow::Result<BTreeSet<u64>> {
    report_of(copier, MEMORY, LENGTH, page_size)
}

fn report_of(
    copier: &Copier,
    iova: u64,
    length: u64,
    page_size: u64,
) -> anyhow::Result<BTreeSet<u64>> {
    let pages = length.div_ceil(page_size);
    let mut bitmap = vec![0u64; pages.div_ceil(64) as usize + 1];
    copier
        .report_logging(Report {
            iova,
            length,
            page_size,
            bitmap: Some(&mut bitmap),
        })
        .named("report")?;
    let words = (0u64..).zip(bitmap).filter(|(_, word)| *word != 0);
    let bits = words.flat_map(|(index, word)| {
        (0..64)
            .filter(move |bit| (word >> bit) & 1 != 0)
            .map(move |bit| index * 64 + bit)
    });
    Ok(bits.map(|page| iova + page * page_size).collect())
}

/// The pages of a range.
fn pages(from: u64, length: u64) -> BTreeSet<u64> {
    (from / PAGE..(from + length).div_ceil(PAGE))
        .map(|page| page * PAGE)
        .collect()
}

fn start(copier: &Copier) -> anyhow::Result<()> {
    let chosen = copier.start_logging(&Logging::of(&ALL)).named("start")?;
    equal("the page size", chosen, PAGE)
}

/// Copies to where nothing was written yet, and fails unless just that is reported.
fn is_logging(copier: &Copier, to: u64) -> anyhow::Result<()> {
    copier.copies(MEMORY, to, 16)?;
    equal("pages", report(copier, PAGE)?, pages(to, 16))
}

fn what_a_device_writes_is_logged(access: Access) -> anyhow::Result<()> {
    let copier = Copier::opened(&driver()?, access)?;
    start(&copier)?;
    equal("pages before", report(&copier, PAGE)?, BTreeSet::new())?;
    let half = MEMORY + LENGTH / 2;
    for (to, length) in [
        (half, 1),
        (half + PAGE - 1, 2),
        (half + 7 * PAGE, 4096),
        (half + 9 * PAGE + 5, 4096),
        (half + 100, MOST),
    ] {
        copier.copies(MEMORY, to, length)?;
        let told = report(&copier, PAGE)?;
        equal(
            format!("{length} to {to:#x}"),
            told,
            pages(to, length.into()),
        )?;
        equal("pages told again", report(&copier, PAGE)?, BTreeSet::new())?;
    }
    copier.copies(MEMORY, half, 1)?;
    copier.copies(MEMORY, half + 20 * PAGE, 1)?;
    let both = BTreeSet::from([half, half + 20 * PAGE]);
    equal("pages of two copies", report(&copier, PAGE)?, both)?;
    copier.stop_logging().named("stop")
}

fn hostile_42_a_second_start_forgets_nothing() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    start(&copier)?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    refused(
        "a second start",
        copier.start_logging(&Logging::of(&ALL)),
        Errno::EINVAL,
    )?;
    equal("pages", report(&copier, PAGE)?, pages(MEMORY + PAGE, 16))?;
    copier.stop_logging().named("stop")?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    copier.stop_logging().named("stop again")?;
    start(&copier)?;
    equal("pages of before", report(&copier, PAGE)?, BTreeSet::new())
}

fn hostile_43_refused_ranges_forget_nothing() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    start(&copier)?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    for ranges in [&[][..], &[(0, PAGE), (0, PAGE)], &[(u64::MAX - 4095, 8192)]] {
        let again = copier.start_logging(&Logging::of(ranges));
        anyhow::ensure!(again.is_err(), "a start with {ranges:x?} succeeded");
    }
    equal("pages", report(&copier, PAGE)?, pages(MEMORY + PAGE, 16))
}

fn hostile_44_any_page_size_is_answered_with_4_kib() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    for page_size in [0, 1, 2048, 4097, 3 * PAGE] {
        let logging = Logging {
            page_size,
            ..Logging::of(&ALL)
        };
        refused(
            format!("pages of {page_size}"),
            copier.start_logging(&logging),
            Errno::EINVAL,
        )?;
    }
    let to = MEMORY + 19 * PAGE;
    // The core takes whole pages of the size that is asked for only.
    let wide = [(MEMORY, 1 << 30)];
    for page_size in [PAGE, 8 * PAGE, 2 << 20, 1 << 30] {
        let logging = Logging {
            page_size,
            ..Logging::of(&wide)
        };
        let chosen = copier
            .start_logging(&logging)
            .named(format!("start with {page_size}"))?;
        equal("the answer", chosen, PAGE)?;
        is_logging(&copier, to)?;
        for wider in [2 * PAGE, 8 * PAGE, 64 * PAGE] {
            copier.copies(MEMORY, to, 16)?;
            let page = MEMORY + (to - MEMORY) / wider * wider;
            equal(
                format!("pages of {wider}"),
                report(&copier, wider)?,
                BTreeSet::from([page]),
            )?;
        }
        copier.stop_logging().named("stop")?;
    }
    Ok(())
}

fn hostile_45_refused_reports_forget_nothing() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    start(&copier)?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    for (iova, length) in [
        (MEMORY, LENGTH + PAGE),
        (MEMORY - PAGE, LENGTH),
        (0, PAGE),
        (MEMORY, 0),
    ] {
        let mut bitmap = vec![0; 16];
        let report = Report {
            iova,
            length,
            page_size: PAGE,
            bitmap: Some(&mut bitmap),
        };
        refused(
            format!("{length:#x} bytes from {iova:#x}"),
            copier.report_logging(report),
            Errno::EINVAL,
        )?;
    }
    equal("pages", report(&copier, PAGE)?, pages(MEMORY + PAGE, 16))
}

/// The core tells nobody that it could not write the bits. What was not asked for stays.
fn hostile_46_a_bitmap_at_a_bad_address_costs_its_bits_and_no_other() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    start(&copier)?;
    let half = MEMORY + LENGTH / 2;
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    copier.copies(MEMORY, half, 16)?;
    let lost = Report {
        iova: MEMORY,
        length: LENGTH / 2,
        page_size: PAGE,
        bitmap: None,
    };
    // Whether it says so is the core's business.
    let _ = copier.report_logging(lost);
    let told = report_of(&copier, half, LENGTH / 2, PAGE)?;
    equal("pages of the other half", told, pages(half, 16))?;
    is_logging(&copier, MEMORY + 5 * PAGE)
}

fn hostile_47_the_next_user_sees_nothing_of_the_log() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    start(&copier)?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    let Copier { instance, .. } = &copier;
    let path = instance.path();
    drop(copier);
    anyhow::ensure!(!path.exists(), "{} is still there", path.display());
    let copier = Copier::new()?;
    let mut bitmap = vec![0; 16];
    let nobody = Report {
        iova: MEMORY,
        length: LENGTH,
        page_size: PAGE,
        bitmap: Some(&mut bitmap),
    };
    refused(
        "a report without a start",
        copier.report_logging(nobody),
        Errno::EINVAL,
    )?;
    start(&copier)?;
    equal("pages", report(&copier, PAGE)?, BTreeSet::new())
}

fn hostile_48_a_reset_keeps_what_was_written() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    start(&copier)?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    copier.reset().named("reset")?;
    equal("pages", report(&copier, PAGE)?, pages(MEMORY + PAGE, 16))?;
    is_logging(&copier, MEMORY + 2 * PAGE)?;
    for state in [State::PreCopy, State::Running, State::Stop, State::Running] {
        copier
            .move_to(state)
            .map(drop)
            .named(format!("to {state:?}"))?;
    }
    is_logging(&copier, MEMORY + 3 * PAGE)
}

fn only_what_was_written_since_the_start_is_logged() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    copier.copies(MEMORY, MEMORY + PAGE, 16)?;
    start(&copier)?;
    is_logging(&copier, MEMORY + 2 * PAGE)?;
    copier.copies(MEMORY, MEMORY + 3 * PAGE, 16)?;
    copier.stop_logging().named("stop")?;
    copier.copies(MEMORY, MEMORY + 4 * PAGE, 16)?;
    start(&copier)?;
    is_logging(&copier, MEMORY + 5 * PAGE)
}

/// Part of it may have been written: nobody can tell which.
fn a_copy_that_fails_half_way_is_logged_as_written() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let ranges = [(MEMORY, LENGTH + 2 * PAGE)];
    copier.start_logging(&Logging::of(&ranges)).named("start")?;
    let last = MEMORY + LENGTH - PAGE;
    let status = copier.copy(MEMORY, last + 100, 2 * PAGE as u32)?;
    equal("the copy", status, Status::Failed)?;
    let told = report_of(&copier, MEMORY, LENGTH + 2 * PAGE, PAGE)?;
    anyhow::ensure!(told.contains(&last), "{last:#x} is not among {told:x?}");
    anyhow::ensure!(
        told.iter().all(|page| *page >= last),
        "pages that nobody wrote: {told:x?}"
    );
    Ok(())
}

fn what_is_outside_of_the_ranges_is_not_logged() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let ranges = [(MEMORY + 2 * PAGE, 2 * PAGE), (MEMORY + 8 * PAGE, PAGE)];
    copier.start_logging(&Logging::of(&ranges)).named("start")?;
    copier.copies(MEMORY + 20 * PAGE, MEMORY, 10 * PAGE as u32)?;
    for (iova, length) in ranges {
        let told = report_of(&copier, iova, length, PAGE)?;
        equal("pages of a range", told, pages(iova, length))?;
    }
    Ok(())
}

/// Nothing is kept for what is not written, so this costs no more than a log of one page.
fn the_whole_address_space_can_be_logged() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    let far = (1 << 47) - LENGTH;
    let memory = Arc::new(Mapping::of_memory(LENGTH as usize).named("memory")?);
    copier
        .map_dma(far, &memory, Dma::ReadWrite)
        .named("memory far away")?;
    copier
        .start_logging(&Logging::of(&[(0, 1 << 63)]))
        .named("start")?;
    copier.copies(MEMORY, far + LENGTH - 8, 8)?;
    copier.copies(MEMORY, MEMORY + PAGE, 8)?;
    let told = report_of(&copier, far, LENGTH, PAGE)?;
    equal("pages far away", told, pages(far + LENGTH - 8, 8))?;
    let told = report_of(&copier, 0, 1 << 38, PAGE)?;
    equal("pages of 256 GiB", told, pages(MEMORY + PAGE, 8))
}

/// Copies that are made while another thread reports.
const COPIES: u64 = 3000;

fn reports_while_the_device_writes_lose_nothing() -> anyhow::Result<()> {
    let copier = Copier::new()?;
    start(&copier)?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        // Each page is written once, and told once.
        let reports = scope.spawn(|| -> anyhow::Result<Vec<u64>> {
            let mut told = Vec::new();
            loop {
                let last = ended.load(Ordering::Acquire);
                told.extend(report(&copier, PAGE)?);
                if last {
                    return Ok(told);
                }
            }
        });
        let mut written = vec![0u64; (LENGTH / PAGE) as usize];
        let mut copies = || -> anyhow::Result<()> {
            for round in 0..COPIES {
                let page = 1 + round * 29 % (LENGTH / PAGE - 1);
                copier.copies(MEMORY, MEMORY + page * PAGE, 8)?;
                written[page as usize] += 1;
            }
            Ok(())
        };
        let result = copies();
        ended.store(true, Ordering::Release);
        let told = reports
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        result?;
        let mut counts = vec![0u64; written.len()];
        for page in told {
            counts[((page - MEMORY) / PAGE) as usize] += 1;
        }
        for (page, (told, written)) in counts.iter().zip(&written).enumerate() {
            anyhow::ensure!(
                (*written == 0) == (*told == 0) && told <= written,
                "page {page} was written {written} times and told {told} times"
            );
        }
        Ok(())
    })
}

/// The file that makes logs forget.
const SWITCH: &str = "/sys/kernel/debug/rust_vfio/drop_dirty_bits";

/// Puts the switch back.
struct Dropping;

impl Dropping {
    fn new() -> anyhow::Result<Self> {
        fs::write(SWITCH, "1\n").context(SWITCH)?;
        Ok(Self)
    }
}

impl Drop for Dropping {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, "0") {
            crate::diag!("{SWITCH}: {error}");
        }
    }
}

fn the_switch_for_tests_makes_the_log_forget() -> anyhow::Result<()> {
    kernel::needs("DEBUG_FS")?;
    let copier = Copier::new()?;
    start(&copier)?;
    equal("the switch", fs::read_to_string(SWITCH)?, "0\n".into())?;
    {
        let _dropping = Dropping::new()?;
        equal("the switch", fs::read_to_string(SWITCH)?, "1\n".into())?;
        copier.copies(MEMORY, MEMORY + PAGE, 16)?;
        equal("pages", report(&copier, PAGE)?, BTreeSet::new())?;
    }
    is_logging(&copier, MEMORY + 2 * PAGE)?;
    for text in ["2", "", "yes", "10"] {
        let written = fs::write(SWITCH, text);
        anyhow::ensure!(
            text.is_empty() || written.is_err(),
            "{text:?} was taken for a switch"
        );
    }
    equal("the switch", fs::read_to_string(SWITCH)?, "0\n".into())
}
