// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Cases 21 to 25, 30 and 51: requests that are malformed or come at the wrong time.

use nix::sys::resource::{getrlimit, setrlimit, Resource};

use super::super::card::Card;
use super::super::check::{equal, refused, same_bytes, Named};
use super::works;
use crate::kernel;
use crate::ktap::Suite;
use crate::vfio::abi::{self, Argument, Bytes};
use crate::vfio::{Errno, State};

const GET: u32 = abi::VFIO_DEVICE_FEATURE_GET;
const SET: u32 = abi::VFIO_DEVICE_FEATURE_SET;
const PROBE: u32 = abi::VFIO_DEVICE_FEATURE_PROBE;
const DEVICE_STATE: u32 = abi::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;

/// The features with what they support and the size of their data in bytes.
const FEATURES: [(&str, u32, u32, usize); 7] = [
    ("MIGRATION", abi::VFIO_DEVICE_FEATURE_MIGRATION, GET, 8),
    ("MIG_DEVICE_STATE", DEVICE_STATE, GET | SET, 8),
    (
        "DMA_LOGGING_START",
        abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
        SET,
        24,
    ),
    (
        "DMA_LOGGING_STOP",
        abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
        SET,
        0,
    ),
    (
        "DMA_LOGGING_REPORT",
        abi::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
        GET,
        32,
    ),
    (
        "MIG_DATA_SIZE",
        abi::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
        GET,
        8,
    ),
    (
        "MIG_PRECOPY_INFOv2",
        abi::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFO_V2,
        SET,
        0,
    ),
];

pub(super) fn add(suite: &mut Suite) {
    tests!(
        suite,
        hostile_21_features_with_wrong_sizes_and_flags_are_refused,
        hostile_22_states_that_do_not_exist_are_refused_from_every_state,
        hostile_23_stop_copy_to_pre_copy_is_refused_and_the_session_goes_on,
        hostile_25_a_request_that_cannot_be_read_changes_nothing,
        hostile_25_an_answer_that_cannot_be_written_comes_after_the_change,
        hostile_25_a_request_without_a_free_descriptor_moves_but_returns_no_file,
        hostile_30_precopy_information_is_refused_outside_pre_copy,
        hostile_30_malformed_requests_to_the_data_file_are_refused,
        hostile_51_the_second_form_of_precopy_information_needs_pre_copy,
    );
}

/// A VFIO_DEVICE_FEATURE call with any argsz.
fn feature(card: &Card, argsz: u32, what: u32, data: usize) -> Result<(), Errno> {
    let mut argument = Bytes::new().word(argsz).word(what).bytes(&vec![0; data]);
    card.ioctl(abi::VFIO_DEVICE_FEATURE, argument.bytes_mut())
}

fn hostile_21_features_with_wrong_sizes_and_flags_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    // What is not offered is refused before its arguments are looked at.
    let logging = kernel::has(kernel::LOGGING);
    let offered = |name: &str| logging || !name.starts_with("DMA_LOGGING");
    for (name, number, supported, size) in FEATURES.into_iter().filter(|feature| offered(feature.0))
    {
        let whole = 8 + size as u32;
        let check =
            |what: String, result| refused(format!("{name}: {what}"), result, Errno::EINVAL);
        for argsz in [0, 4, 7] {
            check(
                format!("argsz {argsz}"),
                feature(&card, argsz, number | supported, size),
            )?;
        }
        for method in [GET, SET]
            .into_iter()
            .filter(|method| supported & method != 0)
        {
            if size > 0 {
                check(
                    "argsz without data".into(),
                    feature(&card, 8, number | method, size),
                )?;
                check(
                    "argsz one short".into(),
                    feature(&card, whole - 1, number | method, size),
                )?;
            }
            for bit in 19..32 {
                check(
                    format!("flag bit {bit}"),
                    feature(&card, whole, number | method | (1 << bit), size),
                )?;
            }
        }
        check(
            "GET and SET".into(),
            feature(&card, whole, number | GET | SET, size),
        )?;
        check("no method".into(), feature(&card, whole, number, size))?;
        for method in [GET, SET]
            .into_iter()
            .filter(|method| supported & method == 0)
        {
            check(
                format!("method {method:#x}"),
                feature(&card, whole, number | method, size),
            )?;
            check(
                format!("probe of method {method:#x}"),
                feature(&card, whole, number | PROBE | method, size),
            )?;
        }
        feature(&card, 8, number | PROBE | supported, 0).named(format!("{name}: probe"))?;
    }
    refused(
        "an unreadable header",
        card.ioctl_with(abi::VFIO_DEVICE_FEATURE, Argument::Unmapped),
        Errno::EFAULT,
    )?;
    works(&card)
}

fn hostile_22_states_that_do_not_exist_are_refused_from_every_state() -> anyhow::Result<()> {
    for from in State::ALL
        .into_iter()
        .filter(|state| *state != State::Error)
    {
        let card = Card::new(1)?;
        let _data = card.move_to(from).named(format!("to {from:?}"))?;
        for target in [State::Error as u32, 8, 9, 255, 1 << 31, u32::MAX] {
            let moved = card.move_to_number(target);
            refused(format!("{from:?} -> {target}"), moved.result, Errno::EINVAL)?;
            equal(
                format!("data_fd after {from:?} -> {target}"),
                moved.number,
                -1,
            )?;
            equal(
                format!("state after {from:?} -> {target}"),
                card.state(),
                Ok(from),
            )?;
        }
        card.reset().named("reset")?;
        works(&card)?;
    }
    Ok(())
}

fn hostile_23_stop_copy_to_pre_copy_is_refused_and_the_session_goes_on() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let reference = card.stop_and_save()?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    for target in [State::PreCopy, State::PreCopyP2p] {
        refused(
            format!("STOP_COPY -> {target:?}"),
            card.move_to(target).map(drop),
            Errno::EINVAL,
        )?;
        equal("state", card.state(), Ok(State::StopCopy))?;
    }
    same_bytes("the stream", &data.read_all(100).named("read")?, &reference)
}

fn hostile_25_a_request_that_cannot_be_read_changes_nothing() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let mut header = Bytes::new().word(16).word(SET | DEVICE_STATE);
    let request = abi::VFIO_DEVICE_FEATURE;
    let beyond = card.ioctl_with(request, Argument::UpToHole(header.bytes_mut()));
    refused("the state behind the end of memory", beyond, Errno::EFAULT)?;
    let mut half = Bytes::new()
        .word(16)
        .word(SET | DEVICE_STATE)
        .word(State::Stop as u32);
    let beyond = card.ioctl_with(request, Argument::UpToHole(half.bytes_mut()));
    refused(
        "half the argument behind the end of memory",
        beyond,
        Errno::EFAULT,
    )?;
    refused(
        "an unmapped argument",
        card.ioctl_with(request, Argument::Unmapped),
        Errno::EFAULT,
    )?;
    equal("state", card.state(), Ok(State::Running))?;
    works(&card)
}

fn hostile_25_an_answer_that_cannot_be_written_comes_after_the_change() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let reference = card.stop_and_save()?;
    for target in [State::StopCopy, State::Stop, State::Resuming] {
        let mut argument = Bytes::new()
            .word(16)
            .word(SET | DEVICE_STATE)
            .word(target as u32)
            .word(0);
        let result = card.ioctl_with(
            abi::VFIO_DEVICE_FEATURE,
            Argument::ReadOnly(argument.bytes_mut()),
        );
        refused(
            format!("to {target:?} with a read-only argument"),
            result,
            Errno::EFAULT,
        )?;
        equal("state", card.state(), Ok(target))?;
    }
    // The files were never anybody's; the sessions behind them end as others do.
    card.reset().named("reset")?;
    works(&card)?;
    let card = Card::new(1)?;
    same_bytes(
        "the state of a new card",
        &card.stop_and_save()?,
        &reference,
    )
}

fn hostile_25_a_request_without_a_free_descriptor_moves_but_returns_no_file() -> anyhow::Result<()>
{
    let card = Card::new(1)?;
    let reference = card.stop_and_save()?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard)?;
    let moved = card.move_to_number(State::StopCopy as u32);
    let state = card.state();
    let again = card.move_to_number(State::Stop as u32);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;

    refused(
        "STOP -> STOP_COPY without a free descriptor",
        moved.result,
        Errno::EMFILE,
    )?;
    equal("state", state, Ok(State::StopCopy))?;
    again.result.named("STOP_COPY -> STOP")?;
    same_bytes("the state saved afterwards", &card.save()?, &reference)
}

fn hostile_30_precopy_information_is_refused_outside_pre_copy() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::StopCopy).named("to STOP_COPY")?;
    refused("in STOP_COPY", data.precopy_info(), Errno::EINVAL)?;
    card.switch(State::Running).named("to RUNNING")?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    card.switch(State::StopCopy).named("to STOP_COPY")?;
    refused(
        "in STOP_COPY after PRE_COPY",
        data.precopy_info(),
        Errno::EINVAL,
    )?;
    card.switch(State::Stop).named("to STOP")?;
    let data = card.start(State::Resuming).named("to RESUMING")?;
    refused("in RESUMING", data.precopy_info(), Errno::EINVAL)
}

fn hostile_30_malformed_requests_to_the_data_file_are_refused() -> anyhow::Result<()> {
    let card = Card::new(1)?;
    let data = card.start(State::PreCopy).named("to PRE_COPY")?;
    let request = abi::VFIO_MIG_GET_PRECOPY_INFO;
    for other in [
        0,
        request + 1,
        abi::VFIO_DEVICE_GET_INFO,
        abi::VFIO_DEVICE_RESET,
    ] {
        let mut argument = Bytes::new().word(24).bytes(&[0; 20]);
        let result = data.ioctl(other, Argument::Bytes(argument.bytes_mut()));
        refused(format!("request {other:#x}"), result, Errno::ENOTTY)?;
    }
    for argsz in [0, 8, 23] {
        let mut argument = Bytes::new().word(argsz).bytes(&[0; 20]);
        let result = data.ioctl(request, Argument::Bytes(argument.bytes_mut()));
        refused(format!("argsz {argsz}"), result, Errno::EINVAL)?;
    }
    let mut argument = Bytes::new().word(24).bytes(&[0; 20]);
    refused(
        "an unmapped argument",
        data.ioctl(request, Argument::Unmapped),
        Errno::EFAULT,
    )?;
    let half = data.ioctl(request, Argument::UpToHole(&mut argument.bytes_mut()[..16]));
    refused("half an argument at the end of memory", half, Errno::EFAULT)?;
    let constant = data.ioctl(request, Argument::ReadOnly(argument.bytes_mut()));
    refused("a read-only argument", constant, Errno::EFAULT)?;
    let info = data.precopy_info().named("a good request")?;
    anyhow::ensure!(info.initial > 0, "initial_bytes is 0");
    Ok(())
}

fn hostile_51_the_second_form_of_precopy_information_needs_pre_copy() -> anyhow::Result<()> {
    // The core refuses it (EINVAL) for a device without pre-copy. Here is what can go wrong on one that has it.
    let card = Card::new(1)?;
    anyhow::ensure!(
        card.migration_flags()? & u64::from(abi::VFIO_MIGRATION_PRE_COPY) != 0,
        "no pre-copy"
    );
    let number = abi::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFO_V2;
    refused("GET", feature(&card, 8, number | GET, 0), Errno::EINVAL)?;
    refused("no method", feature(&card, 8, number, 0), Errno::EINVAL)?;
    for state in [State::Running, State::Stop, State::PreCopy, State::StopCopy] {
        card.reset().named("reset")?;
        let _data = card.move_to(state).named(format!("to {state:?}"))?;
        card.enable_precopy_info_v2()
            .named(format!("SET in {state:?}"))?;
        card.enable_precopy_info_v2()
            .named(format!("SET again in {state:?}"))?;
        equal("state", card.state(), Ok(state))?;
    }
    Ok(())
}
