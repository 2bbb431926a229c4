// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Tables that the tests of several modules share: one with everything in it, and one without
//! anything.

use super::*;

mod ascii;
mod tables;
mod values;

pub(crate) static MODEL: Model<'static> = Model {
    name: "example.org/pci/card",
    params: &[
        ParamDef {
            description: "number of ports; \"two\" is the usual one",
            allowed: Allowed::Int(&[IntRange::new(1, 2), IntRange::one(4)]),
            ..ParamDef::new("num-ports", Value::Int(2))
        },
        ParamDef {
            allowed: Allowed::Int(&[IntRange::new(16, 64)]),
            off: Some(Value::Int(16)),
            ..ParamDef::new("fifo-depth", Value::Int(64))
        },
        ParamDef {
            off: Some(Value::Bool(false)),
            ..ParamDef::new("msi", Value::Bool(true))
        },
        ParamDef {
            description: "one vector for each port",
            allowed: Allowed::Bool(&[false, true]),
            off: Some(Value::Bool(false)),
            requires: &[
                Requirement {
                    param: "num-ports",
                    allowed: Allowed::Int(&[IntRange::one(2), IntRange::one(4)]),
                },
                Requirement {
                    param: "msi",
                    allowed: Allowed::Bool(&[true]),
                },
            ],
            ..ParamDef::new("vectors", Value::Bool(false))
        },
        ParamDef {
            allowed: Allowed::Str(&["", "plain", "a \"b\" \\ c", "größe"]),
            off: Some(Value::Str("")),
            ..ParamDef::new("style", Value::Str("plain"))
        },
        ParamDef {
            off: Some(Value::Str("")),
            ..ParamDef::new("label", Value::Str(""))
        },
        ParamDef {
            allowed: Allowed::Any,
            off: Some(Value::Int(1)),
            runtime: true,
            ..ParamDef::new("state-format", Value::Int(2))
        },
    ],
    versions: &[
        Version {
            name: "v1",
            values: &[
                FIFO_16,
                Param {
                    name: "msi",
                    value: Value::Bool(false),
                },
                Param {
                    name: "state-format",
                    value: Value::Int(1),
                },
            ],
        },
        Version {
            name: "v2",
            values: &[
                Param {
                    name: "fifo-depth",
                    value: Value::Int(64),
                },
                Param {
                    name: "msi",
                    value: Value::Bool(true),
                },
                Param {
                    name: "state-format",
                    value: Value::Int(2),
                },
            ],
        },
    ],
    init_version: Some("v2"),
}
.validated();

const FIFO_16: Param<'static> = Param {
    name: "fifo-depth",
    value: Value::Int(16),
};

/// Everything the model has.
pub(crate) static FULL: Type<'static> = Type::of(&MODEL).validated();

/// One port, a small FIFO that cannot be anything else, and so no `v2`.
pub(crate) static SMALL: Type<'static> = Type {
    model: &MODEL,
    narrowed: &[
        Narrowed {
            param: "num-ports",
            allowed: Allowed::Int(&[IntRange::one(1)]),
            init: Value::Int(1),
        },
        Narrowed {
            param: "fifo-depth",
            allowed: Allowed::Int(&[IntRange::one(16)]),
            init: Value::Int(16),
        },
        Narrowed {
            param: "msi",
            allowed: Allowed::Any,
            init: Value::Bool(false),
        },
        Narrowed {
            param: "state-format",
            allowed: Allowed::Int(&[IntRange::new(1, 3)]),
            init: Value::Int(1),
        },
    ],
    init_version: Some("v1"),
}
.validated();

/// A FIFO that cannot be off, and always vectors.
pub(crate) static BIG: Type<'static> = Type {
    model: &MODEL,
    narrowed: &[
        Narrowed {
            param: "num-ports",
            allowed: Allowed::Int(&[IntRange::one(4)]),
            init: Value::Int(4),
        },
        Narrowed {
            param: "fifo-depth",
            allowed: Allowed::Int(&[IntRange::new(32, 64)]),
            init: Value::Int(64),
        },
        Narrowed {
            param: "msi",
            allowed: Allowed::Bool(&[true]),
            init: Value::Bool(true),
        },
        Narrowed {
            param: "vectors",
            allowed: Allowed::Bool(&[true]),
            init: Value::Bool(true),
        },
    ],
    init_version: None,
}
.validated();

/// A model that varies in nothing.
pub(crate) static PLAIN: Model<'static> = Model {
    name: "example.org/pci/plain",
    params: &[],
    versions: &[],
    init_version: None,
}
.validated();

/// Its only type.
pub(crate) static PLAIN_TYPE: Type<'static> = Type::of(&PLAIN).validated();

/// Any value that the parameter may have in any type, and some that it may not.
pub(crate) fn any_value() -> impl proptest::strategy::Strategy<Value = Value<'static>> {
    use proptest::prelude::*;

    let texts: &[&str] = &["", "plain", "a \"b\" \\ c", "größe", "a label", "other"];
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        prop::sample::select(&[0u64, 1, 2, 3, 4, 5, 15, 16, 17, 32, 63, 64, 65, u64::MAX][..])
            .prop_map(Value::Int),
        prop::sample::select(texts).prop_map(Value::Str),
    ]
}

/// The values of an instance of the type after a series of attempts to change them.
pub(crate) fn any_values(
    ty: &'static Type<'static>,
) -> impl proptest::strategy::Strategy<Value = Values<'static>> {
    use proptest::prelude::*;

    prop::collection::vec((0..ty.model.params.len().max(1), any_value()), 0..20).prop_map(
        move |attempts| {
            let mut values = Values::new(ty);
            for (position, value) in attempts {
                if let Ok(new) = values.clone().with(position, value, InUse::Closed) {
                    values = new;
                }
            }
            values
        },
    )
}
