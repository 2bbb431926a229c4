// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The JSON is what the tables say, read back with an independent reader.

use super::*;
use crate::check::{check, verify};
use crate::model::tests::{any_values, BIG, FULL, MODEL, PLAIN_TYPE, SMALL};
use crate::model::{Allowed, InUse, IntRange, Model, Narrowed, ParamDef, Type, Values};
use crate::value::{Kind, Param, Value};
use proptest::prelude::*;
use serde_json::{json, Map, Value as Json};
use std::string::{String, ToString};
use std::vec::Vec;

fn parsed(text: impl ToString) -> Json {
    serde_json::from_str(&text.to_string()).unwrap()
}

fn json_of(value: Value<'_>) -> Json {
    match value {
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Str(text) => json!(text),
    }
}

/// What a list of allowed values means, worked out from its JSON.
fn allows(list: &Json, value: &Value<'_>) -> bool {
    list.as_array().unwrap().iter().any(|item| {
        let range = item.as_str().and_then(|text| {
            let (min, max) = text.split_once('-')?;
            Some((min.parse::<u64>().ok()?, max.parse::<u64>().ok()?))
        });
        match (value, range) {
            (Value::Int(value), Some((min, max))) => (min..=max).contains(value),
            _ => *item == json_of(*value),
        }
    })
}

fn info_of(types: &[Type<'_>]) -> String {
    let generation = Some("5f3a");
    MigrationInfo { generation, types }.to_string()
}

#[test]
fn migration_information_says_what_the_table_says() {
    let root = parsed(info_of(&[FULL]));
    assert_eq!(
        root,
        json!({
            "generation": "5f3a",
            "models": { "example.org/pci/card": {
                "params": {
                    "num-ports": {
                        "type": "int",
                        "allowed_values": ["1-2", 4],
                        "description": "number of ports; \"two\" is the usual one",
                        "init_value": 2
                    },
                    "fifo-depth": {
                        "type": "int",
                        "allowed_values": ["16-64"],
                        "minimum": 16,
                        "maximum": 64,
                        "init_value": 64,
                        "off_value": 16
                    },
                    "msi": { "type": "bool", "init_value": true, "off_value": false },
                    "vectors": {
                        "type": "bool",
                        "allowed_values": [false, true],
                        "description": "one vector for each port",
                        "init_value": false,
                        "off_value": false,
                        "requires": { "num-ports": [2, 4], "msi": [true] }
                    },
                    "style": {
                        "type": "str",
                        "allowed_values": ["", "plain", "a \"b\" \\ c", "größe"],
                        "init_value": "plain",
                        "off_value": ""
                    },
                    "label": { "type": "str", "init_value": "", "off_value": "" },
                    "state-format": {
                        "type": "int",
                        "init_value": 2,
                        "off_value": 1,
                        "runtime": true
                    }
                },
                "param_order": [
                    "num-ports", "fifo-depth", "msi", "vectors", "style", "label", "state-format"
                ],
                "versions": {
                    "v1": { "fifo-depth": 16, "msi": false, "state-format": 1 },
                    "v2": { "fifo-depth": 64, "msi": true, "state-format": 2 }
                },
                "version_order": ["v1", "v2"],
                "init_version": "v2"
            } }
        })
    );
}

#[test]
fn a_type_shows_what_it_offers_and_no_more() {
    let root = parsed(info_of(&[SMALL]));
    let model = &root["models"]["example.org/pci/card"];
    assert_eq!(model["params"]["num-ports"]["allowed_values"], json!([1]));
    assert_eq!(model["params"]["num-ports"]["init_value"], json!(1));
    assert_eq!(model["params"]["state-format"]["maximum"], json!(3));
    assert_eq!(model["init_version"], json!("v1"));
    let versions: Vec<_> = model["versions"].as_object().unwrap().keys().collect();
    assert_eq!(versions, ["v1"]);

    let root = parsed(info_of(&[BIG]));
    let params = &root["models"]["example.org/pci/card"]["params"];
    // It cannot be off in this type, so there is no off value.
    assert!(params["fifo-depth"].get("off_value").is_none());
    assert!(params["msi"].get("off_value").is_none());
    assert_eq!(params["style"]["off_value"], json!(""));
}

#[test]
fn a_model_without_parameters_has_empty_ones() {
    assert_eq!(
        info_of(&[PLAIN_TYPE]),
        "{\n  \"generation\": \"5f3a\",\n  \"models\": {\n    \"example.org/pci/plain\": {\n      \
         \"params\": {}\n    }\n  }\n}\n"
    );
}

#[test]
fn a_generation_that_nobody_gave_is_left_out() {
    let info = MigrationInfo {
        generation: None,
        types: &[PLAIN_TYPE],
    };
    assert_eq!(
        parsed(info),
        json!({"models": {"example.org/pci/plain": {"params": {}}}})
    );
}

#[test]
fn a_program_may_offer_several_models() {
    let root = parsed(info_of(&[FULL, PLAIN_TYPE]));
    let models: Vec<_> = root["models"].as_object().unwrap().keys().collect();
    assert_eq!(models, ["example.org/pci/card", "example.org/pci/plain"]);
}

#[test]
fn everything_comes_in_declaration_order() {
    let root = parsed(info_of(&[FULL]));
    let params = &root["models"]["example.org/pci/card"]["params"];
    let names: Vec<_> = params.as_object().unwrap().keys().collect();
    let declared: Vec<_> = MODEL.params.iter().map(|param| param.name).collect();
    assert_eq!(names, declared);
}

#[test]
fn versions_can_be_had_as_plain_lines() {
    let lines = |ty| DeviceModels { types: &[ty] }.to_string();
    assert_eq!(lines(FULL), "example.org/pci/card:\nv1\nv2\n");
    assert_eq!(lines(SMALL), "example.org/pci/card:\nv1\n");
    assert_eq!(lines(PLAIN_TYPE), "example.org/pci/plain:\n");
}

#[test]
fn a_parameter_list_file_holds_what_is_in_effect() {
    let values = Values::new(&SMALL);
    let file = ParameterList {
        model: MODEL.name,
        params: values.effective(),
    };
    assert_eq!(
        file.to_string(),
        "{\n  \"model\": \"example.org/pci/card\",\n  \"params\": {\n    \"num-ports\": 1,\n    \
         \"style\": \"plain\"\n  }\n}\n"
    );
}

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

#[test]
fn strings_are_escaped() {
    // Names may not hold control characters, but a description is anybody's prose.
    let description: String = ('\0'..='\u{a0}').chain("ü日🦀\"\\/".chars()).collect();
    let params = [ParamDef {
        description: &description,
        ..ParamDef::new("a\"b\\c", Value::Str("\"\\"))
    }];
    let model = Model {
        name: "example.org/\"quoted\"\\",
        params: &params,
        versions: &[],
        init_version: None,
    };
    assert_eq!(model.problem(), None);
    let text = MigrationInfo {
        generation: Some("\"\n"),
        types: &[Type::of(&model)],
    }
    .to_string();
    assert!(text
        .chars()
        .all(|c| c == '\n' || c == '\u{80}' || c > '\u{1f}' && c != '\x7f'));
    let root = parsed(text);
    assert_eq!(root["generation"], json!("\"\n"));
    let param = &root["models"][model.name]["params"]["a\"b\\c"];
    assert_eq!(param["description"], json!(description));
    assert_eq!(param["init_value"], json!("\"\\"));
}

#[test]
fn more_than_a_page_comes_out_whole_in_pieces() {
    let description = "text ".repeat(400);
    let params: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| ParamDef {
            description: &description,
            ..ParamDef::new(name, Value::Int(1))
        })
        .to_vec();
    let model = Model {
        name: "example.org/big",
        params: &params,
        versions: &[],
        init_version: None,
    };
    let info = MigrationInfo {
        generation: Some("1"),
        types: &[Type::of(&model)],
    };
    let whole = info.to_string();
    assert!(whole.len() > 8192);
    assert_eq!(printed_len(&info), whole.len());
    for size in [1000, 4096, 5000] {
        let mut pieces: Vec<u8> = Vec::new();
        loop {
            let mut buffer = std::vec![0; size];
            let len = Window::fill(&mut buffer, pieces.len() as u64, &info);
            pieces.extend(&buffer[..len]);
            if len < size {
                break;
            }
        }
        assert_eq!(pieces, whole.as_bytes());
    }
}

proptest! {
    #[test]
    fn strings_of_any_content_survive(text in any::<String>()) {
        prop_assert_eq!(parsed(json::Quoted(&text)), json!(text));
    }

    #[test]
    fn integers_of_any_size_survive(value in any::<u64>()) {
        prop_assert_eq!(parsed(json::Literal(Value::Int(value))), json!(value));
    }

    /// Ranges, single numbers and everything between read back as the same set.
    #[test]
    fn allowed_values_read_back_as_the_same_set(
        cuts in prop::collection::btree_set(0..100u64, 1..12),
    ) {
        let cuts: Vec<_> = cuts.into_iter().collect();
        let ranges: Vec<_> = cuts
            .chunks(2)
            .map(|cut| IntRange::new(cut[0], cut[cut.len() - 1]))
            .collect();
        let list = parsed(json::AllowedList(Allowed::Int(&ranges)));
        for value in (0..=101).map(Value::Int) {
            prop_assert_eq!(
                allows(&list, &value),
                Allowed::Int(&ranges).contains(&value)
            );
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

    #[test]
    fn a_parameter_list_file_reads_back(values in any_values(&FULL)) {
        let file = ParameterList { model: MODEL.name, params: values.effective() };
        let expected: Map<String, Json> = values
            .effective()
            .map(|Param { name, value }| (name.to_string(), json_of(value)))
            .collect();
        prop_assert_eq!(parsed(file), json!({ "model": MODEL.name, "params": expected }));
    }

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
    fn every_window_is_a_part_of_the_whole(offset in 0..3000usize, size in 0..3000usize) {
        let info = MigrationInfo { generation: Some("1"), types: &[FULL] };
        let whole = info.to_string();
        let mut buffer = std::vec![0; size];
        let len = Window::fill(&mut buffer, offset as u64, &info);
        let from = offset.min(whole.len());
        let to = (from + size).min(whole.len());
        prop_assert_eq!(&buffer[..len], &whole.as_bytes()[from..to]);
    }
}
