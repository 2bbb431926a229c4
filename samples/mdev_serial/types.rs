// SPDX-License-Identifier: GPL-2.0

//! The tables: device model, parameters, versions, and the types that user space can create instances of.
//!
//! Everything here is checked by the compiler: a value that is not allowed, or a version that names an unknown parameter,
//! does not build.

use migration::info::Family;
use migration::model::{
    Allowed, IntRange, Model, Narrowed, ParamDef, Requirement, Type as Offer, Version,
};
use migration::value::{Param, Value};
use vfio::mdev::Type;

/// The device model: hardware interface, state representation and parameters.
///
/// The domain is one that RFC 2606 sets aside for examples: a product has its own.
const MODEL_NAME: &str = "rust-vfio-mdev.example/pci/serial";

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

const ONE: IntRange = IntRange::one(1);
const TWO: IntRange = IntRange::one(2);
const FOUR: IntRange = IntRange::one(4);

const NUM_PORTS_PARAM: ParamDef<'static> = ParamDef {
    description: "Number of ports; decides the PCI device ID and the size of BAR 0",
    allowed: Allowed::Int(&[ONE, TWO, FOUR]),
    ..ParamDef::new(NUM_PORTS, Value::Int(1))
};

const FIFO_DEPTH_PARAM: ParamDef<'static> = ParamDef {
    description: "Bytes in each FIFO of a port: 16 is a 16550A, 64 a 16750",
    allowed: Allowed::Int(&[IntRange::one(16), IntRange::one(64)]),
    off: Some(Value::Int(16)),
    ..ParamDef::new(FIFO_DEPTH, Value::Int(16))
};

const MSI_PARAM: ParamDef<'static> = ParamDef {
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

const fn switch(name: &'static str, value: bool) -> Param<'static> {
    Param {
        name,
        value: Value::Bool(value),
    }
}

static MODEL: Model<'static> = Model {
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

/// The model as an older implementation knew it: without the newest parameters, and with fewer values.
static OLD_MODEL: Model<'static> = Model {
    name: MODEL_NAME,
    params: &[
        ParamDef {
            allowed: Allowed::Int(&[ONE, TWO]),
            ..NUM_PORTS_PARAM
        },
        ParamDef {
            allowed: Allowed::Int(&[IntRange::one(16)]),
            ..FIFO_DEPTH_PARAM
        },
        MSI_PARAM,
    ],
    versions: &[
        Version {
            name: "v1",
            values: &[switch(MSI, false)],
        },
        Version {
            name: "v1.1",
            values: &[switch(MSI, true)],
        },
    ],
    init_version: Some("v1.1"),
}
.validated();

/// One number of ports and no other.
const fn fixed(ports: u64, allowed: &'static [IntRange]) -> Narrowed<'static> {
    Narrowed {
        param: NUM_PORTS,
        allowed: Allowed::Int(allowed),
        init: Value::Int(ports),
    }
}

const fn offer(
    model: &'static Model<'static>,
    narrowed: &'static [Narrowed<'static>],
) -> Offer<'static> {
    Offer {
        model,
        narrowed,
        init_version: None,
    }
    .validated()
}

static FIXED: [Offer<'static>; 3] = [
    offer(&MODEL, &[fixed(1, &[ONE])]),
    offer(&MODEL, &[fixed(2, &[TWO])]),
    offer(&MODEL, &[fixed(4, &[FOUR])]),
];
static ANY: [Offer<'static>; 1] = [offer(&MODEL, &[])];
static OLD: [Offer<'static>; 2] = [
    offer(&OLD_MODEL, &[fixed(1, &[ONE])]),
    offer(&OLD_MODEL, &[fixed(2, &[TWO])]),
];

/// The types of the parent `mdev_serial`. A port is one unit of its capacity.
pub(crate) static TYPES: [Type; 4] = [
    Type {
        name: c"1",
        pretty_name: c"Serial card, 1 port",
        description: "PCI serial card with one 16550A port, looped back",
        migration: &FIXED[0],
    },
    Type {
        name: c"2",
        pretty_name: c"Serial card, 2 ports",
        description: "PCI serial card with two 16550A ports, each looped back",
        migration: &FIXED[1],
    },
    Type {
        name: c"4",
        pretty_name: c"Serial card, 4 ports",
        description: "PCI serial card with four 16550A ports, each looped back",
        migration: &FIXED[2],
    },
    Type {
        name: c"any",
        pretty_name: c"Serial card, 1, 2 or 4 ports",
        description: "PCI serial card with one port, or as many as migration/num-ports says",
        migration: &ANY[0],
    },
];

/// How the types of `mdev_serial` belong together.
pub(crate) static FAMILIES: [Family<'static>; 2] = [
    Family {
        pattern: "mdev_serial-${num-ports}",
        types: &FIXED,
    }
    .validated(),
    Family {
        pattern: "mdev_serial-any",
        types: &ANY,
    }
    .validated(),
];

/// The types of the parent `mdev_serial_old`.
pub(crate) static OLD_TYPES: [Type; 2] = [
    Type {
        name: c"1",
        pretty_name: c"Old serial card, 1 port",
        description: "PCI serial card with one 16550A port, as an older implementation had it",
        migration: &OLD[0],
    },
    Type {
        name: c"2",
        pretty_name: c"Old serial card, 2 ports",
        description: "PCI serial card with two 16550A ports, as an older implementation had it",
        migration: &OLD[1],
    },
];

/// How the types of `mdev_serial_old` belong together.
pub(crate) static OLD_FAMILIES: [Family<'static>; 1] = [Family {
    pattern: "mdev_serial-${num-ports}",
    types: &OLD,
}
.validated()];
