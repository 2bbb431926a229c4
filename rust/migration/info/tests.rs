// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The JSON is what the tables say, read back with an independent reader.

use super::*;
use crate::model::tests::{any_values, BIG, FULL, MODEL, PLAIN_TYPE, SMALL};
use crate::model::{Allowed, IntRange, Model, ParamDef, Type, Values};
use crate::value::{Param, Value};
use proptest::prelude::*;
use serde_json::{json, Map, Value as Json};
use std::string::{String, ToString};
use std::vec::Vec;

mod compatible;

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
fn parameters_can_be_had_as_plain_lines() {
    assert_eq!(
        ParamNames(&FULL).to_string(),
        "num-ports\nfifo-depth\nmsi\nvectors\nstyle\nlabel\nstate-format\n"
    );
    assert_eq!(ParamNames(&PLAIN_TYPE).to_string(), "");
    let lines = |ty: &'static Type<'static>, name| {
        let param = MODEL.param(name).unwrap();
        (
            AllowedValues(ty, param).to_string(),
            OffValue(ty, param).to_string(),
        )
    };
    for (ty, name, allowed, off) in [
        (&FULL, "num-ports", "1-2\n4\n", ""),
        (&FULL, "fifo-depth", "16-64\n", "16\n"),
        (&FULL, "msi", "", "off\n"),
        (&FULL, "vectors", "off\non\n", "off\n"),
        (&FULL, "style", "\nplain\na \"b\" \\ c\ngröße\n", "\n"),
        (&SMALL, "num-ports", "1\n", ""),
        (&BIG, "fifo-depth", "32-64\n", ""),
        (&BIG, "msi", "on\n", ""),
    ] {
        assert_eq!(
            lines(ty, name),
            (allowed.to_string(), off.to_string()),
            "{name}"
        );
    }
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
    fn a_parameter_list_file_reads_back(values in any_values(&FULL)) {
        let file = ParameterList { model: MODEL.name, params: values.effective() };
        let expected: Map<String, Json> = values
            .effective()
            .map(|Param { name, value }| (name.to_string(), json_of(value)))
            .collect();
        prop_assert_eq!(parsed(file), json!({ "model": MODEL.name, "params": expected }));
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
