// SPDX-License-Identifier: GPL-2.0

//! The device model: its parameters, and the disk that has these values. No kernel is in it.
//!
//! Everything here is checked by the compiler: a value that is not allowed does not build.

use devices::blk::{Config, Serial, MAX_CAPACITY_MIB, MAX_QUEUES};
use migration::model::{Allowed, IntRange, Model, ParamDef, Requirement, Values};
use migration::value::Value;

/// The device model: hardware interface, state representation and parameters.
///
/// The domain is one that RFC 2606 sets aside for examples: a product has its own.
pub(crate) const MODEL_NAME: &str = "rust-vfio-mdev.example/pci/blk";

/// Size of the medium in MiB.
pub(crate) const CAPACITY_MIB: &str = "capacity-mib";
/// How many queues the disk has, and vectors less one.
pub(crate) const NUM_QUEUES: &str = "num-queues";
/// How many descriptors a queue has.
pub(crate) const QUEUE_SIZE: &str = "queue-size";
/// Whether no request changes the medium.
pub(crate) const READ_ONLY: &str = "read-only";
/// What the disk answers to who asks for its serial number.
pub(crate) const SERIAL: &str = "serial";
/// Whether the disk discards and writes zeroes.
pub(crate) const WRITE_ZEROES: &str = "write-zeroes";

const QUEUE_SIZES: [IntRange; 5] = [
    IntRange::one(16),
    IntRange::one(32),
    IntRange::one(64),
    IntRange::one(128),
    IntRange::one(256),
];

const fn switch(name: &'static str, description: &'static str) -> ParamDef<'static> {
    ParamDef {
        description,
        allowed: Allowed::Bool(&[false, true]),
        off: Some(Value::Bool(false)),
        ..ParamDef::new(name, Value::Bool(false))
    }
}

/// The table.
pub(crate) static MODEL: Model<'static> = Model {
    name: MODEL_NAME,
    params: &[
        ParamDef {
            description: "Size of the medium in MiB",
            allowed: Allowed::Int(&[IntRange::new(1, MAX_CAPACITY_MIB as u64)]),
            ..ParamDef::new(CAPACITY_MIB, Value::Int(64))
        },
        ParamDef {
            description: "Number of request queues; the disk has one MSI-X vector more",
            allowed: Allowed::Int(&[IntRange::new(1, MAX_QUEUES as u64)]),
            ..ParamDef::new(NUM_QUEUES, Value::Int(1))
        },
        ParamDef {
            description: "Descriptors of a queue",
            allowed: Allowed::Int(&QUEUE_SIZES),
            ..ParamDef::new(QUEUE_SIZE, Value::Int(128))
        },
        switch(READ_ONLY, "Whether no request changes the medium"),
        ParamDef {
            requires: &[Requirement {
                param: READ_ONLY,
                allowed: Allowed::Bool(&[false]),
            }],
            ..switch(WRITE_ZEROES, "Whether the disk discards and writes zeroes")
        },
        // A disk that an earlier driver saved has none, which is what "" says.
        ParamDef {
            description: "Serial number of the disk, by which a guest may know it",
            allowed: Allowed::Ascii { max: Serial::BYTES },
            off: Some(Value::Str("")),
            ..ParamDef::new(SERIAL, Value::Str(""))
        },
    ],
    versions: &[],
    init_version: None,
}
.validated();

/// The disk that has these parameters.
pub(crate) fn config(values: &Values<'_>) -> Config {
    let int = |name| match values.named(name) {
        Some(Value::Int(value)) => value,
        _ => 0,
    };
    let on = |name| values.named(name) == Some(Value::Bool(true));
    let serial = match values.named(SERIAL) {
        Some(Value::Str(text)) => Serial::try_from(text).ok(),
        _ => None,
    };
    // The table allows no other values than these types have.
    let smallest = Config::new(1);
    Config {
        capacity: int(CAPACITY_MIB).try_into().unwrap_or(smallest.capacity),
        queues: int(NUM_QUEUES).try_into().unwrap_or(smallest.queues),
        queue_size: int(QUEUE_SIZE).try_into().unwrap_or(smallest.queue_size),
        read_only: on(READ_ONLY),
        write_zeroes: on(WRITE_ZEROES),
        serial: serial.unwrap_or(smallest.serial),
    }
}
