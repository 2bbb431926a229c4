// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Types that take an instance's state, and the names of types.

use super::*;
use crate::check::{check, verify};
use crate::model::{InUse, Narrowed};
use crate::value::Kind;

/// Three types that differ in the number of ports.
const PORTS: [Type<'static>; 3] = [
    Type {
        narrowed: &[fixed_ports(&[IntRange::one(1)])],
        ..FULL
    },
    Type {
        narrowed: &[fixed_ports(&[IntRange::one(2)])],
        ..FULL
    },
    Type {
        narrowed: &[fixed_ports(&[IntRange::one(4)])],
        ..FULL
    },
];

const fn fixed_ports(ports: &'static [IntRange]) -> Narrowed<'static> {
    Narrowed {
        param: "num-ports",
        allowed: Allowed::Int(ports),
        init: Value::Int(ports[0].min),
    }
}

static FAMILIES: [Family<'static>; 3] = [
    Family {
        pattern: "card-${num-ports}",
        types: &PORTS,
    }
    .validated(),
    Family {
        pattern: "card-any",
        types: &[FULL],
    }
    .validated(),
    Family {
        pattern: "small",
        types: &[SMALL],
    }
    .validated(),
];

fn compatible_of(values: &Values<'_>) -> Json {
    parsed(Compatible {
        mdev_type: "card-2",
        device_api: "vfio-pci",
        values,
        families: &FAMILIES,
    })
}

#[test]
fn compatible_names_the_instance_and_the_types_that_take_its_state() {
    let params = json!({
        "num-ports": [2],
        "fifo-depth": [64],
        "msi": [true],
        "vectors": [false],
        "style": ["plain"],
        "label": [""],
        "state-format": [2]
    });
    assert_eq!(
        compatible_of(&Values::new(&PORTS[1])),
        json!({
            "self": {
                "mdev_type": "card-2",
                "device_api": "vfio-pci",
                "model": "example.org/pci/card",
                "params": {
                    "num-ports": 2,
                    "fifo-depth": 64,
                    "msi": true,
                    "style": "plain",
                    "state-format": 2
                }
            },
            "compatible": [
                {
                    "mdev_type": "card-${num-ports}",
                    "model": "example.org/pci/card",
                    "params": params.clone()
                },
                {
                    "mdev_type": "card-any",
                    "model": "example.org/pci/card",
                    "params": params
                }
            ]
        })
    );
}

#[test]
fn the_longest_an_instance_prints_is_known_before_there_is_one() {
    let params = [
        ParamDef::new("label", Value::Str("short")),
        ParamDef::new("size", Value::Int(0)),
        ParamDef {
            off: Some(Value::Bool(true)),
            ..ParamDef::new("fast", Value::Bool(true))
        },
        ParamDef {
            allowed: Allowed::Str(&["1", "\"\"\"", "2345"]),
            ..ParamDef::new("choice", Value::Str("1"))
        },
    ];
    let model = Model {
        name: "example.org/\"long\"",
        params: &params,
        versions: &[],
        init_version: None,
    };
    let ty = Type::of(&model);
    let families = [Family {
        pattern: "any",
        types: &[ty],
    }];
    let mut values = Values::new(&ty);
    for (at, text) in [
        "\"".repeat(64).as_str(),
        "18446744073709551615",
        "off",
        "\"\"\"",
    ]
    .into_iter()
    .enumerate()
    {
        values = values
            .with_text(at, text.as_bytes(), InUse::Closed)
            .unwrap();
    }
    let longest = Compatible {
        mdev_type: "any",
        device_api: "vfio-pci",
        values: &values,
        families: &families,
    };
    assert_eq!(
        longest_compatible("any", "vfio-pci", &ty, &families),
        printed_len(&longest)
    );
}

#[test]
fn types_that_do_not_take_the_state_are_left_out() {
    let types = |values: &Values<'_>| -> Vec<String> {
        let root = compatible_of(values);
        let list = root["compatible"].as_array().unwrap();
        let name = |entry: &Json| entry["mdev_type"].as_str().unwrap().to_string();
        list.iter().map(name).collect()
    };
    let all = ["card-${num-ports}", "card-any", "small"];
    assert_eq!(types(&Values::new(&SMALL)), all);
    assert_eq!(types(&Values::new(&FULL)), all[..2]);
}

/// A value of a parameter as JSON has it.
fn value_of<'a>(param: &ParamDef<'_>, json: &'a Json) -> Value<'a> {
    match param.kind {
        Kind::Bool => Value::Bool(json.as_bool().unwrap()),
        Kind::Int => Value::Int(json.as_u64().unwrap()),
        Kind::Str => Value::Str(json.as_str().unwrap()),
    }
}

/// The values of an instance of the type after the writes of a set-up.
fn set_up<'a>(ty: &'a Type<'a>, list: &[Param<'_>]) -> Values<'a> {
    let mut values = Values::new(ty);
    for param in ty.off_values().chain(list.iter().copied()) {
        let position = ty.model.position(param.name).unwrap();
        let old = values.clone();
        values = old.with(position, param.value, InUse::Closed).unwrap();
    }
    values
}

#[test]
fn patterns_make_the_names_of_types() {
    let names: Vec<_> = PORTS
        .iter()
        .map(|ty| FAMILIES[0].name_of(ty).to_string())
        .collect();
    assert_eq!(names, ["card-1", "card-2", "card-4"]);
    for (pattern, name) in [
        ("", ""),
        ("${num-ports}", "2"),
        ("a${msi}b${num-ports}c", "aonb2c"),
        ("a$b{c}", "a$b{c}"),
        ("open ${num-ports", "open ${num-ports"),
        ("${nothing}", "${nothing}"),
    ] {
        let family = Family {
            pattern,
            types: &[FULL],
        };
        assert_eq!(family.name_of(&FULL).to_string(), name);
    }
}

#[test]
fn unsound_families_are_found() {
    fn problem(pattern: &str, types: &[Type<'_>]) -> String {
        let family = Family { pattern, types };
        family.problem().unwrap_or("none").to_string()
    }
    let ports = &PORTS;
    assert_eq!(problem("card-${num-ports}", ports), "none");
    assert!(problem("card", &[]).contains("no types"));
    assert!(problem("card-${x}", ports).contains("unknown parameter"));
    assert!(problem("card-${num-ports}-${x}", ports).contains("unknown parameter"));
    assert!(problem("card-${num-ports}", &[FULL]).contains("several values"));
    assert!(problem("card", ports).contains("not in the pattern"));
    let mixed = &[PORTS[0], PLAIN_TYPE];
    assert!(problem("card-${num-ports}", mixed).contains("different models"));
    let unsound = &[Type {
        init_version: Some("v3"),
        ..PORTS[0]
    }];
    assert!(problem("card-${num-ports}", unsound).contains("initial version"));
}

proptest! {
    /// Whatever is chosen of what an entry lists names a type that can be set up so, and then takes
    /// the state. And every type that could is in an entry.
    #[test]
    fn every_choice_that_compatible_leaves_takes_the_state(
        full in any_values(&FULL),
        ports in any_values(&PORTS[2]),
        small in any_values(&SMALL),
    ) {
        for values in [full, ports, small] {
            let root = compatible_of(&values);
            let entries = root["compatible"].as_array().unwrap();
            let mut named = Vec::new();
            for entry in entries {
                let pattern = entry["mdev_type"].as_str().unwrap();
                let family = FAMILIES.iter().find(|family| family.pattern == pattern).unwrap();
                let params = entry["params"].as_object().unwrap();
                let lists: Vec<_> = params.values().map(|list| list.as_array().unwrap()).collect();
                for choice in 0..lists.iter().map(|list| list.len()).product() {
                    let mut rest: usize = choice;
                    let chosen: Vec<&Json> = lists.iter().map(|list| {
                        let at = rest % list.len();
                        rest /= list.len();
                        &list[at]
                    }).collect();
                    let mut name = pattern.to_string();
                    for (param, value) in params.keys().zip(&chosen) {
                        name = name.replace(&std::format!("${{{param}}}"), &value.to_string());
                    }
                    let ty = family.types.iter().find(|ty| family.name_of(ty).to_string() == name);
                    prop_assert!(ty.is_some(), "{} is no type", name);
                    let ty = ty.unwrap();
                    let list: Vec<_> = params.keys().zip(chosen).map(|(name, value)| Param {
                        name,
                        value: value_of(ty.model.param(name).unwrap(), value),
                    }).collect();
                    let there = set_up(ty, &list);
                    let reasons: Vec<_> = verify(MODEL.name, values.effective(), &there)
                        .map(|reason| reason.to_string())
                        .collect();
                    prop_assert!(reasons.is_empty(), "{}: {:?}", name, reasons);
                    named.push(name);
                }
            }
            for family in &FAMILIES {
                for ty in family.types {
                    let takes = check(MODEL.name, values.effective(), ty).next().is_none();
                    let name = family.name_of(ty).to_string();
                    prop_assert_eq!(named.contains(&name), takes, "{}", name);
                }
            }
        }
    }

    #[test]
    fn no_instance_prints_more_than_the_longest(values in any_values(&FULL)) {
        let printed = printed_len(&Compatible {
            mdev_type: "card-any",
            device_api: "vfio-pci",
            values: &values,
            families: &FAMILIES,
        });
        prop_assert!(printed <= longest_compatible("card-any", "vfio-pci", &FULL, &FAMILIES));
    }
}
