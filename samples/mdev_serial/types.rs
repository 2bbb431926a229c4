// SPDX-License-Identifier: GPL-2.0

//! The tables of what user space can create instances of: the types of the device model, and of an older one.
//!
//! Everything here is checked by the compiler: a value that is not allowed, or a version that names an unknown parameter,
//! does not build.

use crate::model::{
    switch, FIFO_DEPTH_PARAM, FOUR, MODEL, MODEL_NAME, MSI, MSI_PARAM, NUM_PORTS, NUM_PORTS_PARAM,
    ONE, TWO,
};
use migration::info::Family;
use migration::model::{Allowed, IntRange, Model, Narrowed, ParamDef, Type as Offer, Version};
use migration::value::Value;
use vfio::mdev::Type;

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
