// SPDX-License-Identifier: GPL-2.0

//! The tables of what user space can create instances of.
//!
//! Everything here is checked by the compiler.

use crate::model::{CAPACITY_MIB, MODEL};
use migration::info::Family;
use migration::model::{Allowed, IntRange, Narrowed, Type as Offer};
use migration::value::Value;
use vfio::mdev::Type;

const fn offer(narrowed: &'static [Narrowed<'static>]) -> Offer<'static> {
    Offer {
        model: &MODEL,
        narrowed,
        init_version: None,
    }
    .validated()
}

/// One capacity and no other.
const fn fixed(mib: u64, allowed: &'static [IntRange]) -> Narrowed<'static> {
    Narrowed {
        param: CAPACITY_MIB,
        allowed: Allowed::Int(allowed),
        init: Value::Int(mib),
    }
}

static FIXED: [Offer<'static>; 2] = [
    offer(&[fixed(64, &[IntRange::one(64)])]),
    offer(&[fixed(256, &[IntRange::one(256)])]),
];
static ANY: [Offer<'static>; 1] = [offer(&[])];

/// The types of the parent `mdev_blk`. A MiB of capacity is one unit of the parent's.
pub(crate) static TYPES: [Type; 3] = [
    Type {
        name: c"64M",
        pretty_name: c"Disk, 64 MiB",
        description: "Virtio disk of 64 MiB in memory, empty when it is opened",
        migration: &FIXED[0],
    },
    Type {
        name: c"256M",
        pretty_name: c"Disk, 256 MiB",
        description: "Virtio disk of 256 MiB in memory, empty when it is opened",
        migration: &FIXED[1],
    },
    Type {
        name: c"any",
        pretty_name: c"Disk, 1 to 4096 MiB",
        description: "Virtio disk of 64 MiB in memory, or as many as migration/capacity-mib says, empty when it is opened",
        migration: &ANY[0],
    },
];

/// How the types belong together.
pub(crate) static FAMILIES: [Family<'static>; 2] = [
    Family {
        pattern: "mdev_blk-${capacity-mib}M",
        types: &FIXED,
    }
    .validated(),
    Family {
        pattern: "mdev_blk-any",
        types: &ANY,
    }
    .validated(),
];
