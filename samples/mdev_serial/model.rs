// SPDX-License-Identifier: GPL-2.0

//! The device model: its parameters and versions, and the card that has these values. No kernel is in it: the program that
//! serves the card by vfio-user has the same source.
//!
//! Everything here is checked by the compiler: a value that is not allowed, or a version that names an unknown parameter,
//! does not build.

use devices::serial::{Config, FifoDepth, PortCount};
use migration::model::{Allowed, IntRange, Model, ParamDef, Requirement, Values, Version};
use migration::value::{Param, Value};

/// The device model: hardware interface, state representation and parameters.
///
/// The domain is one that RFC 2606 sets aside for examples: a product has its own.
pub(crate) const MODEL_NAME: &str = "rust-vfio-mdev.example/pci/serial";

/// How many ports the card has; its PCI device ID and the size of BAR 0 follow.
pub(crate) const NUM_PORTS: &str = "num-ports";
/// Depth of each port's FIFOs.
pub(crate) const FIFO_DEPTH: &str = "fifo-depth";
/// Whether the card has an MSI capability.
pub(crate) const MSI: &str = "msi";

/// Whether a saved port is written without the zeroes at its end. Shapes the state representation only.
pub(crate) const COMPACT_STATE: &str = "compact-state";

/// Whether a 16750 has automatic flow control.
pub(crate) const AUTO_FLOW: &str = "auto-flow";

pub(crate) const ONE: IntRange = IntRange::one(1);
pub(crate) const TWO: IntRange = IntRange::one(2);
pub(crate) const FOUR: IntRange = IntRange::one(4);

pub(crate) const NUM_PORTS_PARAM: ParamDef<'static> = ParamDef {
    description: "Number of ports; decides the PCI device ID and the size of BAR 0",
    allowed: Allowed::Int(&[ONE, TWO, FOUR]),
    ..ParamDef::new(NUM_PORTS, Value::Int(1))
};

pub(crate) const FIFO_DEPTH_PARAM: ParamDef<'static> = ParamDef {
    description: "Bytes in each FIFO of a port: 16 is a 16550A, 64 a 16750",
    allowed: Allowed::Int(&[IntRange::one(16), IntRange::one(64)]),
    off: Some(Value::Int(16)),
    ..ParamDef::new(FIFO_DEPTH, Value::Int(16))
};

pub(crate) const MSI_PARAM: ParamDef<'static> = ParamDef {
    description: "Whether the card has an MSI capability",
    allowed: Allowed::Bool(&[false, true]),
    off: Some(Value::Bool(false)),
    ..ParamDef::new(MSI, Value::Bool(true))
};

const COMPACT_STATE_PARAM: ParamDef<'static> = ParamDef {
    description: "Whether a saved port is written without the zeroes at its end",
    allowed: Allowed::Bool(&[false, true]),
    off: Some(Value::Bool(false)),
    runtime: true,
    ..ParamDef::new(COMPACT_STATE, Value::Bool(true))
};

/// 16750s had it before there was a choice: that is its off value.
const AUTO_FLOW_PARAM: ParamDef<'static> = ParamDef {
    description: "Whether a 16750 has automatic flow control (MCR bit 5)",
    allowed: Allowed::Bool(&[false, true]),
    off: Some(Value::Bool(true)),
    requires: &[Requirement {
        param: FIFO_DEPTH,
        allowed: Allowed::Int(&[IntRange::one(64)]),
    }],
    ..ParamDef::new(AUTO_FLOW, Value::Bool(true))
};

/// A version's value of a parameter that is on or off.
pub(crate) const fn switch(name: &'static str, value: bool) -> Param<'static> {
    Param {
        name,
        value: Value::Bool(value),
    }
}

/// The table.
pub(crate) static MODEL: Model<'static> = Model {
    name: MODEL_NAME,
    params: &[
        NUM_PORTS_PARAM,
        FIFO_DEPTH_PARAM,
        MSI_PARAM,
        COMPACT_STATE_PARAM,
        AUTO_FLOW_PARAM,
    ],
    versions: &[
        Version {
            name: "v1",
            values: &[switch(MSI, false), switch(COMPACT_STATE, false)],
        },
        Version {
            name: "v2",
            values: &[switch(MSI, true), switch(COMPACT_STATE, true)],
        },
    ],
    init_version: Some("v2"),
}
.validated();

/// The card that has these parameters. One that an older model does not have has its off value.
pub(crate) fn config(values: &Values<'_>) -> Config {
    let int = |name| match values.named(name) {
        Some(Value::Int(value)) => value,
        _ => 0,
    };
    let on = |name| values.named(name) == Some(Value::Bool(true));
    Config {
        // The tables allow no other values than these types have.
        ports: PortCount::try_from(int(NUM_PORTS)).unwrap_or(PortCount::One),
        fifo_depth: FifoDepth::try_from(int(FIFO_DEPTH)).unwrap_or(FifoDepth::Sixteen),
        // Off is what there was before: a 16750 has it.
        auto_flow: values.named(AUTO_FLOW) != Some(Value::Bool(false)),
        msi: on(MSI),
        compact_state: on(COMPACT_STATE),
    }
}
