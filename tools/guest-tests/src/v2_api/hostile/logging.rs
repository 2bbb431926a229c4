// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Cases 42 to 48: DMA logging asked for wrongly.

use super::super::card::Card;
use super::super::check::{equal, refused, Named};
use super::works;
use crate::kernel;
use crate::ktap::Suite;
use crate::vfio::logging::{Logging, Report, MOST_RANGES};
use crate::vfio::{Device, Errno, State};

const GIB: u64 = 1 << 30;

pub(super) fn add(suite: &mut Suite) {
    tests_with!(
        suite,
        kernel::LOGGING,
        hostile_42_start_twice_is_refused,
        hostile_42_stop_without_start_does_nothing,
        hostile_42_report_without_start_is_refused,
        hostile_43_overlapping_too_many_and_wrapping_ranges_are_refused,
        hostile_43_ranges_at_a_bad_address_are_refused,
        hostile_44_page_sizes_that_are_none_are_refused,
        hostile_44_empty_and_misaligned_ranges_are_refused,
        hostile_45_reports_outside_the_ranges_are_refused,
        hostile_45_malformed_reports_are_refused,
        hostile_46_a_bitmap_at_a_bad_address_harms_only_its_owner,
        hostile_47_the_last_close_stops_logging,
        hostile_47_an_instance_can_be_removed_after_logging,
        hostile_48_reset_keeps_logging,
    );
}

/// One gibibyte from 0.
fn first() -> Logging<'static> {
    Logging::of(&[(0, GIB)])
}

/// A report of `length` bytes from `iova`, of which nothing may be dirty.
fn report(device: &Device, iova: u64, length: u64) -> Result<(), Errno> {
    let mut bitmap = vec![0; (length / 4096 / 64) as usize + 2];
    let result = device.report_logging(Report {
        iova,
        length,
        page_size: 4096,
        bitmap: Some(&mut bitmap),
    });
    assert!(
        bitmap.iter().all(|word| *word == 0),
        "pages that this card never wrote are dirty"
    );
    result
}

fn hostile_42_start_twice_is_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.start_logging(&first()).named("start")?;
    refused("start again", card.start_logging(&first()), Errno::EINVAL)?;
    refused(
        "start elsewhere",
        card.start_logging(&Logging::of(&[(GIB, GIB)])),
        Errno::EINVAL,
    )?;
    report(&card, 0, GIB).named("report")?;
    refused(
        "report of what was refused",
        report(&card, GIB, GIB),
        Errno::EINVAL,
    )
}

fn hostile_42_stop_without_start_does_nothing() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for _ in 0..3 {
        card.stop_logging().named("stop")?;
    }
    card.start_logging(&first()).named("start")?;
    card.stop_logging().named("stop")?;
    card.stop_logging().named("stop again")?;
    works(&card)
}

fn hostile_42_report_without_start_is_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    refused("report first", report(&card, 0, 4096), Errno::EINVAL)?;
    card.start_logging(&first()).named("start")?;
    card.stop_logging().named("stop")?;
    refused("report after a stop", report(&card, 0, 4096), Errno::EINVAL)
}

/// Checks that START is refused, and that it started nothing.
fn start_refused(
    card: &Card,
    what: &str,
    logging: &Logging<'_>,
    errno: Errno,
) -> anyhow::Result<()> {
    refused(what, card.start_logging(logging), errno)?;
    refused(
        format!("report after {what}"),
        report(card, 0, 4096),
        Errno::EINVAL,
    )
}

fn hostile_43_overlapping_too_many_and_wrapping_ranges_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let many: Vec<(u64, u64)> = (0..MOST_RANGES as u64 + 1)
        .map(|index| (index * 8192, 4096))
        .collect();
    let top = u64::MAX - 4095;
    for (what, ranges, errno) in [
        ("no ranges", &[][..], Errno::EINVAL),
        ("257 ranges", &many[..], Errno::E2BIG),
        ("the same range twice", &[(0, GIB), (0, GIB)], Errno::EINVAL),
        (
            "overlap by a page",
            &[(0, GIB), (GIB - 4096, GIB)],
            Errno::EINVAL,
        ),
        (
            "one within another",
            &[(0, GIB), (8192, 4096)],
            Errno::EINVAL,
        ),
        ("a range that wraps", &[(top, 8192)], Errno::EOVERFLOW),
        (
            "a range that ends at 2^64",
            &[(top, 4096)],
            Errno::EOVERFLOW,
        ),
        (
            "a good range and one that wraps",
            &[(0, 4096), (1 << 63, 1 << 63)],
            Errno::EOVERFLOW,
        ),
    ] {
        start_refused(&card, what, &Logging::of(ranges), errno)?;
    }
    let claim = Logging {
        count: u32::MAX,
        ..first()
    };
    start_refused(&card, "four thousand million ranges", &claim, Errno::E2BIG)?;
    card.start_logging(&first()).named("a good start")?;
    Ok(())
}

fn hostile_43_ranges_at_a_bad_address_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for count in [1, MOST_RANGES as u32] {
        let nowhere = Logging {
            page_size: 4096,
            ranges: None,
            count,
        };
        start_refused(
            &card,
            "ranges at an unmapped address",
            &nowhere,
            Errno::EFAULT,
        )?;
    }
    Ok(())
}

fn hostile_44_page_sizes_that_are_none_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for page_size in [
        0,
        1,
        2,
        3,
        100,
        512,
        2048,
        4095,
        4097,
        12288,
        GIB - 1,
        u64::MAX,
    ] {
        // A range that is a multiple of each, as far as the core looks at that.
        for ranges in [&[(0, page_size)][..], &[(0, 0)], &[(0, GIB)]] {
            start_refused(
                &card,
                &format!("page size {page_size}"),
                &Logging {
                    page_size,
                    ..Logging::of(ranges)
                },
                Errno::EINVAL,
            )?;
        }
    }
    Ok(())
}

fn hostile_44_empty_and_misaligned_ranges_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for (what, ranges) in [
        ("an empty range at 0", &[(0, 0)][..]),
        ("an empty range", &[(GIB, 0)]),
        ("a good and an empty range", &[(0, GIB), (2 * GIB, 0)]),
        ("an empty and a good range", &[(2 * GIB, 0), (0, GIB)]),
        ("half a page", &[(0, 2048)]),
        ("a page in the middle of two", &[(2048, 4096)]),
    ] {
        start_refused(&card, what, &Logging::of(ranges), Errno::EINVAL)?;
    }
    Ok(())
}

fn hostile_45_reports_outside_the_ranges_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.start_logging(&Logging::of(&[(GIB, GIB), (4 * GIB, GIB)]))
        .named("start")?;
    for (iova, length) in [
        (0, 4096),
        (0, GIB),
        (GIB - 4096, 8192),
        (2 * GIB - 4096, 8192),
        (2 * GIB, 4096),
        (GIB, 4 * GIB),
        (5 * GIB, 4096),
        (1 << 40, 4096),
    ] {
        refused(
            format!("{length:#x} from {iova:#x}"),
            report(&card, iova, length),
            Errno::EINVAL,
        )?;
    }
    for (iova, length) in [
        (GIB, GIB),
        (GIB, 4096),
        (2 * GIB - 4096, 4096),
        (4 * GIB, GIB),
    ] {
        report(&card, iova, length).named(format!("{length:#x} from {iova:#x}"))?;
    }
    Ok(())
}

fn hostile_45_malformed_reports_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.start_logging(&first()).named("start")?;
    let ask = |iova, length, page_size| {
        let mut bitmap = vec![0; 1 << 13];
        card.report_logging(Report {
            iova,
            length,
            page_size,
            bitmap: Some(&mut bitmap),
        })
    };
    refused("length 0", ask(0, 0, 4096), Errno::EINVAL)?;
    for page_size in [0, 1, 2048, 4095, 4097, 12288, u64::MAX] {
        refused(
            format!("page size {page_size}"),
            ask(0, 4096, page_size),
            Errno::EINVAL,
        )?;
    }
    refused(
        "a range that wraps",
        ask(u64::MAX - 4095, 8192, 4096),
        Errno::EOVERFLOW,
    )?;
    ask(0, GIB, 4096).named("a good report")
}

fn hostile_46_a_bitmap_at_a_bad_address_harms_only_its_owner() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.start_logging(&first()).named("start")?;
    // The core pins the bitmap when bits are set, and drops them where it cannot. This card has none to set.
    let nowhere = Report {
        iova: 0,
        length: GIB,
        page_size: 4096,
        bitmap: None,
    };
    let result = card.report_logging(nowhere);
    anyhow::ensure!(
        [Ok(()), Err(Errno::EFAULT)].contains(&result),
        "report to an unmapped address: {result:?}"
    );
    report(&card, 0, GIB).named("a good report")?;
    works(&card)
}

fn hostile_47_the_last_close_stops_logging() -> anyhow::Result<()> {
    for access in kernel::accesses() {
        let card = Card::opened(1, access)?;
        card.start_logging(&first()).named("start")?;
        let card = card.reopen(access)?;
        refused(
            "report after the next open",
            report(&card, 0, 4096),
            Errno::EINVAL,
        )?;
        card.start_logging(&first())
            .named("start after the next open")?;
    }
    Ok(())
}

fn hostile_47_an_instance_can_be_removed_after_logging() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.start_logging(&first()).named("start")?;
    card.close().remove()
}

fn hostile_48_reset_keeps_logging() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.start_logging(&first()).named("start")?;
    for state in [State::Running, State::PreCopy, State::Resuming] {
        let _data = card.move_to(state).named(format!("to {state:?}"))?;
        card.reset().named("reset")?;
        report(&card, 0, GIB).named(format!("report after reset in {state:?}"))?;
        refused(
            "start after reset",
            card.start_logging(&first()),
            Errno::EINVAL,
        )?;
    }
    equal("stop after reset", card.stop_logging(), Ok(()))
}
