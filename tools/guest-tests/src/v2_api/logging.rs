// SPDX-License-Identifier: GPL-2.0 OR MIT

//! DMA logging as a good user does it. This card writes nothing by itself, so a correct log is always empty.

use super::card::Card;
use super::check::{equal, refused, Named};
use super::uart::FCR_TRIGGER_8;
use crate::kernel;
use crate::ktap::{self, Suite};
use crate::vfio::abi;
use crate::vfio::interrupt::INTX;
use crate::vfio::logging::{Logging, Report, MOST_RANGES};
use crate::vfio::{Access, Errno, State};

pub(super) fn add(suite: &mut Suite) {
    tests_both_ways!(suite, logging_can_be_probed_started_reported_and_stopped);
    tests!(suite, logging_is_not_offered_where_the_kernel_cannot_report,);
    tests_with!(
        suite,
        kernel::LOGGING,
        a_report_only_sets_bits_and_this_card_sets_none,
        the_page_size_that_comes_back_can_be_used,
        a_report_may_use_another_page_size,
        as_many_ranges_as_the_kernel_promises_are_taken,
        logging_goes_on_in_every_migration_state,
        logging_can_be_started_again_after_a_stop,
    );
}

const GIB: u64 = 1 << 30;

/// The parts of logging, with the method of each.
const FEATURES: [u32; 3] = [
    abi::VFIO_DEVICE_FEATURE_SET | abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
    abi::VFIO_DEVICE_FEATURE_SET | abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
    abi::VFIO_DEVICE_FEATURE_GET | abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
];

/// What QEMU asks for: memory below 4 GiB, above, and the PCI hole.
const QEMU: [(u64, u64); 3] = [(0, 2 * GIB), (4 * GIB, 8 * GIB), (1 << 39, GIB)];

fn logging_can_be_probed_started_reported_and_stopped(access: Access) -> anyhow::Result<()> {
    kernel::needs(kernel::LOGGING)?;
    let card = Card::opened(1, access)?;
    for feature in FEATURES {
        card.feature(abi::VFIO_DEVICE_FEATURE_PROBE | feature, &mut [])
            .named(format!("probe of {feature:#x}"))?;
    }
    equal(
        "page size",
        card.start_logging(&Logging::of(&QEMU)),
        Ok(4096),
    )?;
    for (iova, length) in QEMU {
        let mut bitmap = vec![0; (length / 4096 / 64) as usize + 1];
        let report = Report {
            iova,
            length,
            page_size: 4096,
            bitmap: Some(&mut bitmap),
        };
        card.report_logging(report)
            .named(format!("report from {iova:#x}"))?;
        anyhow::ensure!(
            bitmap.iter().all(|word| *word == 0),
            "pages that this card never wrote are dirty"
        );
    }
    card.stop_logging().named("stop")
}

/// What QEMU goes by: without an answer to the probes it knows from the start that there is no log.
fn logging_is_not_offered_where_the_kernel_cannot_report() -> anyhow::Result<()> {
    if kernel::has(kernel::LOGGING) {
        return ktap::skip("this kernel can report");
    }
    let card = Card::new(1)?;
    for feature in FEATURES {
        let probe = card.feature(abi::VFIO_DEVICE_FEATURE_PROBE | feature, &mut []);
        refused(
            format!("probe of {feature:#x}"),
            probe.map(drop),
            Errno::ENOTTY,
        )?;
    }
    let start = card.start_logging(&Logging::of(&QEMU));
    refused("start", start.map(drop), Errno::ENOTTY)
}

fn a_report_only_sets_bits_and_this_card_sets_none() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let event = card.enable(INTX)?;
    card.start_logging(&Logging::of(&[(0, GIB)]))
        .named("start")?;
    let line = card.line(0, &event);
    line.port.set_up(FCR_TRIGGER_8)?;
    line.echo(&[0x55; 64])?;
    let noise = 0x5aa5_1234_dead_beef;
    let mut bitmap = vec![noise; (GIB / 4096 / 64) as usize + 1];
    card.report_logging(Report {
        iova: 0,
        length: GIB,
        page_size: 4096,
        bitmap: Some(&mut bitmap),
    })
    .named("report")?;
    anyhow::ensure!(
        bitmap.iter().all(|word| *word == noise),
        "the report changed the bitmap"
    );
    Ok(())
}

fn the_page_size_that_comes_back_can_be_used() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for page_size in [4096, 8192, 1 << 16, 2 << 20, GIB] {
        let logging = Logging {
            page_size,
            ..Logging::of(&[(0, GIB)])
        };
        let chosen = card
            .start_logging(&logging)
            .named(format!("start with {page_size}"))?;
        anyhow::ensure!(
            chosen.is_power_of_two() && chosen >= 4096,
            "asked for {page_size}, got {chosen}"
        );
        let mut bitmap = vec![0; (GIB / chosen / 64) as usize + 1];
        let report = Report {
            iova: 0,
            length: GIB,
            page_size: chosen,
            bitmap: Some(&mut bitmap),
        };
        card.report_logging(report)
            .named(format!("report with {chosen}"))?;
        card.stop_logging().named("stop")?;
    }
    Ok(())
}

fn a_report_may_use_another_page_size() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.start_logging(&Logging {
        page_size: 2 << 20,
        ..Logging::of(&[(0, GIB)])
    })
    .named("start")?;
    for page_size in [4096, 1 << 16, 2 << 20, GIB] {
        let mut bitmap = vec![0; (GIB / page_size / 64) as usize + 1];
        let report = Report {
            iova: 0,
            length: GIB,
            page_size,
            bitmap: Some(&mut bitmap),
        };
        card.report_logging(report)
            .named(format!("report with {page_size}"))?;
    }
    Ok(())
}

fn as_many_ranges_as_the_kernel_promises_are_taken() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let ranges: Vec<(u64, u64)> = (0..MOST_RANGES as u64)
        .map(|index| (index * 16 * 4096, 4096))
        .collect();
    card.start_logging(&Logging::of(&ranges)).named("start")?;
    for (iova, length) in [ranges[0], ranges[100], ranges[255]] {
        let mut bitmap = [0; 2];
        let report = Report {
            iova,
            length,
            page_size: 4096,
            bitmap: Some(&mut bitmap),
        };
        card.report_logging(report)
            .named(format!("report from {iova:#x}"))?;
    }
    Ok(())
}

fn logging_goes_on_in_every_migration_state() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    card.start_logging(&Logging::of(&[(0, GIB)]))
        .named("start")?;
    for state in [
        State::PreCopy,
        State::PreCopyP2p,
        State::StopCopy,
        State::Stop,
        State::Resuming,
    ] {
        let _data = card.move_to(state).named(format!("to {state:?}"))?;
        let mut bitmap = [0; 2];
        let report = Report {
            iova: 0,
            length: 4096,
            page_size: 4096,
            bitmap: Some(&mut bitmap),
        };
        card.report_logging(report)
            .named(format!("report in {state:?}"))?;
        let again = card.start_logging(&Logging::of(&[(0, GIB)]));
        refused(format!("second start in {state:?}"), again, Errno::EINVAL)?;
    }
    card.stop_logging().named("stop")
}

fn logging_can_be_started_again_after_a_stop() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    for round in 0..3 {
        card.start_logging(&Logging::of(&QEMU))
            .named(format!("start {round}"))?;
        card.stop_logging().named(format!("stop {round}"))?;
    }
    // The ranges of one round are not those of the next.
    card.start_logging(&Logging::of(&[(0, GIB)]))
        .named("start")?;
    card.stop_logging().named("stop")?;
    card.start_logging(&Logging::of(&[(GIB, GIB)]))
        .named("start elsewhere")?;
    let mut bitmap = [0; 2];
    let report = Report {
        iova: 0,
        length: 4096,
        page_size: 4096,
        bitmap: Some(&mut bitmap),
    };
    refused(
        "report of the old range",
        card.report_logging(report),
        Errno::EINVAL,
    )
}
