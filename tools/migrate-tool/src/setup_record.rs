// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The setup record: what a destination verifies at the start of each phase, before it accepts state.

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::Suite;
use guest_tests::v2_api::check::{equal, refused};
use migration::stream::{write_setup, Phase, Sink};
use migration::value::{Param, Value};
use vfio_uapi::{abi, Device, Errno, State};

use crate::host::{any, get, instance, open, set, unchanged, values, MODEL};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        a_stream_of_another_model_is_refused,
        a_stream_with_an_unknown_parameter_is_refused,
        a_stream_with_a_value_not_allowed_is_refused,
        a_stream_with_a_value_of_another_type_is_refused,
        a_stream_that_lacks_a_parameter_is_refused,
        a_stream_with_another_value_than_the_instance_is_refused,
        every_reason_is_given,
        a_stream_of_the_same_parameters_is_accepted,
        a_stream_is_refused_at_whichever_byte_completes_the_record,
        a_runtime_parameter_shapes_the_next_stream,
    );
}

/// A stream in memory.
struct Bytes(Vec<u8>);

impl Sink for Bytes {
    type Error = std::convert::Infallible;

    fn put(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn record(phase: Phase, model: &str, params: &[Param<'_>]) -> Result<Vec<u8>> {
    let mut bytes = Bytes(Vec::new());
    write_setup(&mut bytes, phase, model, params.iter().copied())
        .map_err(|error| anyhow::anyhow!("the record cannot be written: {error:?}"))?;
    Ok(bytes.0)
}

const fn param<'a>(name: &'a str, value: Value<'a>) -> Param<'a> {
    Param { name, value }
}

const ONE_PORT: Param<'static> = param("num-ports", Value::Int(1));
const MSI: Param<'static> = param("msi", Value::Bool(true));
const COMPACT: Param<'static> = param("compact-state", Value::Bool(true));
/// What a new one-port instance has in effect.
const SAME: [Param<'static>; 3] = [ONE_PORT, MSI, COMPACT];

/// What can be read of a device without changing it.
fn registers(device: &Device) -> Result<Vec<u8>> {
    let mut all = vec![0; 256];
    let config = abi::VFIO_PCI_CONFIG_REGION_INDEX;
    equal(
        "configuration space",
        device.read(config, 0, &mut all),
        Ok(256),
    )?;
    let ports = device.region(abi::VFIO_PCI_BAR0_REGION_INDEX)?.size / 8;
    for port in 0..ports {
        // Interrupt enable, line control, modem control, scratch.
        for register in [1, 3, 4, 7] {
            let mut value = [0];
            device.read(
                abi::VFIO_PCI_BAR0_REGION_INDEX,
                port * 8 + register,
                &mut value,
            )?;
            all.push(value[0]);
        }
    }
    Ok(all)
}

/// Fails unless an instance refuses this record at the start of each phase, with each of these reasons and without an effect.
fn refuses(ty: &str, model: &str, params: &[Param<'_>], reasons: &[&str]) -> Result<()> {
    for phase in [Phase::PreCopy, Phase::StopCopy] {
        let instance = instance(ty)?;
        let before = values(&instance)?;
        let device = open(&instance)?;
        device.write(abi::VFIO_PCI_CONFIG_REGION_INDEX, 0x04, &[1, 0])?;
        device.write(abi::VFIO_PCI_BAR0_REGION_INDEX, 7, &[0x5a])?;
        let held = registers(&device)?;
        let data = device.start(State::Resuming).context("to RESUMING")?;
        let record = record(phase, model, params)?;
        refused(
            format!("the record, {phase}"),
            data.write(&record),
            Errno::EINVAL,
        )?;
        let reason = get(&instance, "error")?;
        for wanted in reasons {
            ensure!(
                reason.contains(wanted),
                "{wanted:?} is not in the reason {reason:?} ({phase})"
            );
        }
        // The stream is over: nothing more is taken, and no state was loaded.
        refused("more bytes", data.write(&record), Errno::ENODEV)?;
        equal("registers", registers(&device)?, held.clone())?;
        drop(data);
        refused("the end of it", device.switch(State::Stop), Errno::EINVAL)?;
        unchanged(&instance, &before)?;
        device.reset().context("reset")?;
        equal("state after a reset", device.state(), Ok(State::Running))?;
    }
    Ok(())
}

fn a_stream_of_another_model_is_refused() -> Result<()> {
    refuses(
        "mdev_serial-1",
        "other.example/pci/serial",
        &SAME,
        &["model: source is other.example/pci/serial", MODEL],
    )
}

fn a_stream_with_an_unknown_parameter_is_refused() -> Result<()> {
    let params = [
        ONE_PORT,
        MSI,
        COMPACT,
        param("flow", Value::Str("hardware")),
    ];
    refuses(
        "mdev_serial-1",
        MODEL,
        &params,
        &["flow: source has \"hardware\""],
    )
}

fn a_stream_with_a_value_not_allowed_is_refused() -> Result<()> {
    let three = [param("num-ports", Value::Int(3)), MSI, COMPACT];
    refuses(
        "mdev_serial-any",
        MODEL,
        &three,
        &["num-ports: source has 3", "1, 2, 4"],
    )?;
    let deep = [ONE_PORT, param("fifo-depth", Value::Int(128)), MSI, COMPACT];
    refuses(
        "mdev_serial-1",
        MODEL,
        &deep,
        &["fifo-depth: source has 128", "16, 64"],
    )
}

fn a_stream_with_a_value_of_another_type_is_refused() -> Result<()> {
    let text = [param("num-ports", Value::Str("1")), MSI, COMPACT];
    refuses("mdev_serial-1", MODEL, &text, &["num-ports: ", "int"])?;
    let number = [ONE_PORT, param("msi", Value::Int(1)), COMPACT];
    refuses("mdev_serial-1", MODEL, &number, &["msi: ", "bool"])
}

fn a_stream_that_lacks_a_parameter_is_refused() -> Result<()> {
    refuses(
        "mdev_serial-1",
        MODEL,
        &[MSI, COMPACT],
        &["num-ports: source lacks it"],
    )?;
    // What is not listed is off, and here it is on.
    refuses(
        "mdev_serial-1",
        MODEL,
        &[ONE_PORT, COMPACT],
        &["msi: source has off, this device has on"],
    )
}

fn a_stream_with_another_value_than_the_instance_is_refused() -> Result<()> {
    let two = [param("num-ports", Value::Int(2)), MSI, COMPACT];
    refuses(
        "mdev_serial-any",
        MODEL,
        &two,
        &["num-ports: source has 2, this device has 1"],
    )?;
    refuses(
        "mdev_serial-1",
        MODEL,
        &two,
        &["num-ports: source has 2, this device has 1"],
    )?;
    let deep = [ONE_PORT, param("fifo-depth", Value::Int(64)), MSI, COMPACT];
    refuses(
        "mdev_serial-1",
        MODEL,
        &deep,
        &["fifo-depth: source has 64, this device has 16"],
    )
}

fn every_reason_is_given() -> Result<()> {
    let params = [
        param("num-ports", Value::Int(2)),
        param("fifo-depth", Value::Int(64)),
        param("new", Value::Bool(true)),
    ];
    refuses(
        "mdev_serial-1",
        MODEL,
        &params,
        &[
            "num-ports: source has 2",
            "fifo-depth: source has 64",
            "new: source has on",
            "msi: source has off",
        ],
    )
}

fn a_stream_of_the_same_parameters_is_accepted() -> Result<()> {
    for phase in [Phase::PreCopy, Phase::StopCopy] {
        let instance = instance("mdev_serial-1")?;
        let device = open(&instance)?;
        let data = device.start(State::Resuming).context("to RESUMING")?;
        let record = record(phase, MODEL, &SAME)?;
        equal("bytes taken", data.write(&record), Ok(record.len()))?;
        equal("error", get(&instance, "error")?, String::new())?;
        let name = get(&instance, "bytes")?;
        equal("bytes", name, record.len().to_string())?;
    }
    Ok(())
}

fn a_stream_is_refused_at_whichever_byte_completes_the_record() -> Result<()> {
    let instance = instance("mdev_serial-1")?;
    let record = record(
        Phase::StopCopy,
        MODEL,
        &[param("num-ports", Value::Int(4)), MSI, COMPACT],
    )?;
    let device = open(&instance)?;
    let data = device.start(State::Resuming).context("to RESUMING")?;
    let (last, before) = record.split_last().context("an empty record")?;
    for byte in before {
        equal("a byte of the record", data.write(&[*byte]), Ok(1))?;
    }
    equal(
        "error, before the last byte",
        get(&instance, "error")?,
        String::new(),
    )?;
    refused("the last byte", data.write(&[*last]), Errno::EINVAL)?;
    let reason = get(&instance, "error")?;
    ensure!(
        reason.contains("num-ports: source has 4"),
        "the reason is {reason:?}"
    );
    Ok(())
}

fn a_runtime_parameter_shapes_the_next_stream() -> Result<()> {
    let (source, destination) = (any()?, any()?);
    let (from, to) = (open(&source)?, open(&destination)?);
    set(&source, "compact-state", "off").context("compact-state, open")?;
    let out = from.start(State::PreCopy).context("to PRE_COPY")?;
    let first = out.read_all(4096).context("read")?;
    // An instance that has it on does not take that.
    let into = to.start(State::Resuming).context("to RESUMING")?;
    refused("the record", into.write(&first), Errno::EINVAL)?;
    let reason = get(&destination, "error")?;
    ensure!(
        reason.contains("compact-state: source has off, this device has on"),
        "the reason is {reason:?}"
    );
    drop(into);
    to.reset().context("reset")?;
    // Switched over at run time, it does, and both records agree.
    set(&destination, "compact-state", "off").context("compact-state of the destination")?;
    from.switch(State::StopCopy).context("to STOP_COPY")?;
    let rest = out.read_all(4096).context("read")?;
    let into = to.start(State::Resuming).context("to RESUMING")?;
    into.write_all(&first, first.len()).context("pre-copy")?;
    into.write_all(&rest, rest.len()).context("stop-and-copy")?;
    drop(into);
    to.switch(State::Running)
        .with_context(|| get(&destination, "error").unwrap_or_default())
}
