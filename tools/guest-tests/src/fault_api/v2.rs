// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A whole life with protocol v2: made and removed; opened, used, saved, loaded, closed.

use std::cell::Cell;

use anyhow::{ensure, Context};
use uuid::Uuid;

use super::injection::{errno, errno_in, Failures, Kind};
use super::session;
use crate::kernel;
use crate::ktap::{allow_kernel_log, Suite};
use crate::mdev::{Mdev, MdevType};
use crate::v2_api::card::{card_type, config, Card, BAR0, CONFIG, MIGRATION};
use crate::v2_api::check::{equal, same_bytes, Named};
use crate::v2_api::uart::SCR;
use crate::vfio::interrupt::{INTX, MASK, MSI, REQ, TRIGGER, UNMASK};
use crate::vfio::logging::{Logging, Report};
use crate::vfio::{Access, Errno, Event, IrqSet, State};

/// Ports of the cards.
const PORTS: u32 = 2;

/// A parameter, and a value that is not its usual one.
const PARAMETER: (&str, &str) = ("migration/fifo-depth", "16");

pub(super) fn add(suite: &mut Suite) {
    suite.test(
        "an_instance_comes_and_goes_with_each_allocation_failing_once",
        || comes_and_goes(Kind::Allocation),
    );
    suite.test(
        "an_instance_comes_and_goes_with_each_copy_failing_once",
        || comes_and_goes(Kind::Copy),
    );
    tests_both_ways!(
        suite,
        a_life_with_each_allocation_failing_once,
        a_life_with_each_copy_failing_once,
        each_allocation_of_closing_fails_and_it_is_closed,
    );
}

/// What the kernel says of devices that it could not make.
const KERNEL_SAYS: [&str; 5] = [
    "^kobject: kobject_add_internal failed for ",
    "^mdev_serial [-0-9a-f]+: really_probe: driver_sysfs_add failed",
    "^mdev_serial [-0-9a-f]+: probe with driver mdev_serial failed with error -12",
    r"^mdev_serial [-0-9a-f]+: device_add_groups\(\) failed",
    "^debugfs: out of free dentries, can not create directory",
];

/// Apart from the lives, for a removal takes seconds on a kernel that releases its objects late.
fn comes_and_goes(kind: Kind) -> anyhow::Result<()> {
    for line in KERNEL_SAYS {
        allow_kernel_log(line);
    }
    let of = card_type(PORTS)?;
    let free = of.available_instances()?;
    Failures::lives(kind, |failures| {
        let instance = failures.sparing_the_core(|| create(failures, &of))?;
        failures.sparing_the_core(|| remove(failures, instance))?;
        equal("available instances", of.available_instances()?, free)
    })
}

fn a_life_with_each_allocation_failing_once(access: Access) -> anyhow::Result<()> {
    lives(Kind::Allocation, access)
}

fn a_life_with_each_copy_failing_once(access: Access) -> anyhow::Result<()> {
    lives(Kind::Copy, access)
}

/// Lives of the same two instances.
fn lives(kind: Kind, access: Access) -> anyhow::Result<()> {
    let of = card_type(PORTS)?;
    let mut instances = Some((of.create()?, of.create()?));
    Failures::lives(kind, |failures| {
        let (source, destination) = instances.take().context("a life without instances")?;
        instances = Some(life(failures, access, source, destination)?);
        Ok(())
    })
}

/// Makes an instance, with each failure in turn.
fn create(failures: &Failures, kind: &MdevType) -> anyhow::Result<Mdev> {
    let free = kind.available_instances()?;
    // The name of one that is gone is free only when the kernel has released it. Each gets its own.
    let uuid = Cell::new(Uuid::nil());
    failures.each(
        "create",
        || {
            uuid.set(Uuid::new_v4());
            let created = kind.create_with(uuid.get());
            created.map_err(|error| errno(&error))
        },
        || {
            let instance = Mdev::existing(uuid.get());
            ensure!(!instance.exists(), "the instance is there");
            equal("available instances", kind.available_instances()?, free)
        },
    )
}

/// Sets a parameter and back, with each failure in turn.
fn parameters(failures: &Failures, instance: &Mdev) -> anyhow::Result<()> {
    let (name, other) = PARAMETER;
    let usual = instance.attribute(name)?;
    for value in [other, &usual] {
        let before = instance.attribute(name)?;
        failures.each(
            name,
            || {
                let set = instance.set_attribute(name, value);
                set.map_err(|error| errno(&error))
            },
            || equal(name, instance.attribute(name)?, before.clone()),
        )?;
        equal(name, instance.attribute(name)?, value.to_owned())?;
    }
    Ok(())
}

/// Opens a device, with each failure in turn.
fn open(failures: &Failures, instance: Mdev, access: Access) -> anyhow::Result<Card> {
    // What opens the device in the end is one call: what comes before belongs to the kernel.
    let device = failures.each(
        "open",
        || access.open(&instance).map_err(|error| errno_in(&error)),
        || {
            equal(
                "state",
                instance.attribute("migration/state")?,
                "RUNNING".to_owned(),
            )
        },
    )?;
    drop(device);
    Card::of(instance, PORTS, access)
}

/// What a failed call may not change.
fn snapshot(card: &Card) -> anyhow::Result<(State, Vec<u8>, [String; 3])> {
    Ok((
        card.state().named("state")?,
        card.plain_registers()?,
        session(card)?,
    ))
}

/// One call on a device, with each failure in turn.
fn call<T: std::fmt::Debug>(
    failures: &Failures,
    card: &Card,
    what: &str,
    call: impl FnMut() -> Result<T, Errno>,
) -> anyhow::Result<T> {
    let before = snapshot(card)?;
    failures.each(what, call, || {
        equal("the card", snapshot(card)?, before.clone())
    })
}

/// One call that makes a difference to the next, with each failure in turn.
fn step<T: std::fmt::Debug>(
    failures: &Failures,
    card: &Card,
    what: &str,
    call: impl FnMut() -> Result<T, Errno>,
) -> anyhow::Result<T> {
    let before = snapshot(card)?;
    failures.step(what, call, || {
        equal("the card", snapshot(card)?, before.clone())
    })
}

/// What a monitor asks and sets before a guest runs.
fn description(failures: &Failures, card: &Card) -> anyhow::Result<()> {
    call(failures, card, "GET_INFO", || card.info())?;
    for index in [BAR0, CONFIG, MIGRATION] {
        call(failures, card, "GET_REGION_INFO", || card.region(index))?;
    }
    for index in [INTX, MSI, REQ] {
        call(failures, card, "GET_IRQ_INFO", || card.irq(index))?;
    }
    call(failures, card, "FEATURE_MIGRATION", || {
        card.migration_flags()
    })?;
    call(failures, card, "the state", || card.device().state())?;
    call(failures, card, "FEATURE_MIG_DATA_SIZE", || card.data_size())?;
    Ok(())
}

/// Registers.
fn registers(failures: &Failures, card: &Card) -> anyhow::Result<()> {
    let mut word = [0; 4];
    call(failures, card, "a read of the configuration", || {
        card.device().read(CONFIG, config::ID, &mut word)
    })?;
    call(failures, card, "a write of the configuration", || {
        card.device()
            .write(CONFIG, config::COMMAND, &config::COMMAND_IO.to_le_bytes())
    })?;
    let mut byte = [0];
    call(failures, card, "a read of a register", || {
        card.device().read(BAR0, SCR, &mut byte)
    })?;
    let before = byte[0];
    call(failures, card, "a write of a register", || {
        card.device().write(BAR0, SCR, &[before])
    })?;
    Ok(())
}

/// Interrupts: enabled, masked, unmasked, triggered, and disabled at the end.
fn interrupts(failures: &Failures, card: &Card) -> anyhow::Result<()> {
    for index in [INTX, MSI, REQ] {
        let event = Event::new()?;
        let enable = IrqSet::eventfd(index, TRIGGER, event.number());
        call(failures, card, "SET_IRQS, an eventfd", || {
            card.set_irqs(&enable)
        })?;
        if index == INTX {
            for action in [MASK, UNMASK] {
                let set = IrqSet::none(index, action);
                call(failures, card, "SET_IRQS, masking", || card.set_irqs(&set))?;
            }
        }
        event.count()?;
        let trigger = IrqSet::boolean(index, TRIGGER, 1);
        call(failures, card, "SET_IRQS, a trigger", || {
            card.set_irqs(&trigger)
        })?;
        ensure!(event.count()? > 0, "no interrupt arrived");
        let disable = IrqSet::disable(index);
        call(failures, card, "SET_IRQS, disabling", || {
            card.set_irqs(&disable)
        })?;
    }
    Ok(())
}

/// The log of what the device writes to memory.
fn logging(failures: &Failures, card: &Card) -> anyhow::Result<()> {
    let ranges = [(0, 1 << 20), (1 << 24, 1 << 16)];
    step(failures, card, "DMA_LOGGING_START", || {
        card.start_logging(&Logging::of(&ranges))
    })?;
    let mut bitmap = [0; 8];
    call(failures, card, "DMA_LOGGING_REPORT", || {
        card.report_logging(Report {
            iova: 0,
            length: 1 << 20,
            page_size: 4096,
            bitmap: Some(&mut bitmap),
        })
    })?;
    step(failures, card, "DMA_LOGGING_STOP", || card.stop_logging())
}

/// The whole state of a card by way of pre-copy, with each failure in turn. The card is stopped in the end.
fn save(failures: &Failures, card: &Card) -> anyhow::Result<Vec<u8>> {
    let data = step(failures, card, "RUNNING -> PRE_COPY", || {
        card.start(State::PreCopy)
    })?;
    call(failures, card, "GET_PRECOPY_INFO", || data.precopy_info())?;
    let mut stream = Vec::new();
    let mut piece = [0; 64];
    let mut read = |stream: &mut Vec<u8>| -> anyhow::Result<usize> {
        let length = step(failures, card, "a read of the state", || {
            data.read(&mut piece)
        })?;
        stream.extend_from_slice(&piece[..length]);
        Ok(length)
    };
    read(&mut stream)?;
    for (what, state) in [
        ("PRE_COPY -> PRE_COPY_P2P", State::PreCopyP2p),
        ("PRE_COPY_P2P -> STOP_COPY", State::StopCopy),
    ] {
        step(failures, card, what, || card.switch(state))?;
    }
    while read(&mut stream)? > 0 {}
    step(failures, card, "STOP_COPY -> STOP", || {
        card.switch(State::Stop)
    })?;
    Ok(stream)
}

/// Loads a state, with each failure in turn. The card is stopped in the end.
fn load(failures: &Failures, card: &Card, stream: &[u8]) -> anyhow::Result<()> {
    for (what, state) in [
        ("RUNNING -> RUNNING_P2P", State::RunningP2p),
        ("RUNNING_P2P -> STOP", State::Stop),
    ] {
        step(failures, card, what, || card.switch(state))?;
    }
    let data = step(failures, card, "STOP -> RESUMING", || {
        card.start(State::Resuming)
    })?;
    for piece in stream.chunks(64) {
        let length = step(failures, card, "a write of the state", || data.write(piece))?;
        equal("bytes that were taken", length, piece.len())?;
    }
    drop(data);
    step(failures, card, "RESUMING -> STOP", || {
        card.switch(State::Stop)
    })
}

/// From opening two devices to closing them.
fn life(
    failures: &Failures,
    access: Access,
    source: Mdev,
    destination: Mdev,
) -> anyhow::Result<(Mdev, Mdev)> {
    parameters(failures, &source)?;
    let source = open(failures, source, access)?;
    let destination = open(failures, destination, access)?;
    description(failures, &source)?;
    registers(failures, &source)?;
    interrupts(failures, &source)?;
    if access == Access::Cdev && kernel::has(kernel::LOGGING) {
        logging(failures, &source)?;
    }
    source.port(1).set(SCR, 0xa5)?;
    let stream = save(failures, &source)?;
    load(failures, &destination, &stream)?;
    same_bytes(
        "registers of the destination",
        &destination.plain_registers()?,
        &source.plain_registers()?,
    )?;
    for card in [&source, &destination] {
        step(failures, card, "STOP -> RUNNING_P2P", || {
            card.switch(State::RunningP2p)
        })?;
        step(failures, card, "RUNNING_P2P -> RUNNING", || {
            card.switch(State::Running)
        })?;
    }
    // All of it once more without a failure.
    let stream = source.stop_and_save()?;
    destination.load(&stream)?;
    failures.each("a reset", || source.reset(), || Ok(()))?;
    equal("state after a reset", source.state(), Ok(State::Running))?;
    Ok((source.close(), destination.close()))
}

/// Removes an instance, with each failure in turn.
fn remove(failures: &Failures, instance: Mdev) -> anyhow::Result<()> {
    let file = instance.path().join("remove");
    failures.step(
        "remove",
        || std::fs::write(&file, "1").map_err(|error| errno(&error)),
        || {
            ensure!(instance.exists(), "the instance is gone");
            Ok(())
        },
    )?;
    ensure!(!instance.exists(), "the instance is still there");
    Ok(())
}

fn each_allocation_of_closing_fails_and_it_is_closed(access: Access) -> anyhow::Result<()> {
    let failures = Failures::of(Kind::Allocation)?;
    let instance = card_type(PORTS)?.create()?;
    failures.each_of_infallible(
        "closing",
        || {
            let device = access.open(&instance)?;
            let data = device.start(State::PreCopy).named("to PRE_COPY")?;
            Ok((device, data))
        },
        drop,
        |()| {
            equal(
                "state",
                instance.attribute("migration/state")?,
                "RUNNING".to_owned(),
            )?;
            drop(access.open(&instance).context("opened again")?);
            Ok(())
        },
    )
}
