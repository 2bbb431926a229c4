// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A parameter whose values are texts of printable ASCII of bounded length.

use super::*;
use crate::check::{check, verify};
use crate::info::{
    longest_compatible, printed_len, AllowedValues, Compatible, Family, MigrationInfo,
};
use crate::value::MAX_STR_LEN;
use serde_json::{json, Value as Json};
use std::string::{String, ToString};
use std::vec::Vec;

const MAX: usize = 20;

const SERIAL: ParamDef<'static> = ParamDef {
    allowed: Allowed::Ascii { max: MAX },
    off: Some(Value::Str("")),
    ..ParamDef::new("serial", Value::Str(""))
};

const fn model_of<'a>(params: &'a [ParamDef<'a>]) -> Model<'a> {
    Model {
        name: "example.org/pci/disk",
        params,
        versions: &[],
        init_version: None,
    }
}

static DISK: Model<'static> =
    model_of(&[ParamDef::new("label", Value::Str("")), SERIAL]).validated();
static ANY: Type<'static> = Type::of(&DISK).validated();

/// Less of it: shorter texts, or a few.
static SHORT: Type<'static> = Type {
    model: &DISK,
    narrowed: &[Narrowed {
        param: "serial",
        allowed: Allowed::Ascii { max: 4 },
        init: Value::Str("abcd"),
    }],
    init_version: None,
}
.validated();
static NAMED: Type<'static> = Type {
    model: &DISK,
    narrowed: &[Narrowed {
        param: "serial",
        allowed: Allowed::Str(&["one", "two"]),
        init: Value::Str("two"),
    }],
    init_version: None,
}
.validated();

fn with(values: &Values<'static>, text: &str) -> Result<Values<'static>, String> {
    let set = values.with_text(1, text.as_bytes(), InUse::Closed);
    set.map_err(|error| error.to_string())
}

#[test]
fn every_text_of_the_domain_is_kept_and_reads_back() {
    let values = Values::new(&ANY);
    assert_eq!(values.named("serial"), Some(Value::Str("")));
    let printable: String = (' '..='~').collect();
    assert_eq!(printable.len(), 95);
    for at in 0..printable.len() - MAX {
        for len in [1, 7, MAX] {
            let text = &printable[at..at + len];
            let new = with(&values, text).unwrap();
            assert_eq!(new.named("serial"), Some(Value::Str(text)));
            // The other text is where it was.
            assert_eq!(new.named("label"), Some(Value::Str("")));
        }
    }
    let off = with(&values, "\n").unwrap();
    assert_eq!(
        off.effective().map(|param| param.name).collect::<Vec<_>>(),
        ["label"]
    );
}

#[test]
fn every_other_text_is_refused_with_the_reason() {
    let values = Values::new(&ANY);
    let one_more = "x".repeat(MAX + 1);
    for text in ["größe", "\u{a0}", "日", one_more.as_str()] {
        let expected =
            std::format!("serial: \"{text}\" is not printable ASCII of up to 20 characters");
        assert_eq!(with(&values, text), Err(expected));
    }
    for text in ["tab\there", "two\nlines", "del\x7f", "nul\0"] {
        let reason = with(&values, text).unwrap_err();
        assert_eq!(
            reason,
            "serial: the value contains a newline or another control character"
        );
    }
    assert_eq!(
        with(&values, &"x".repeat(65)).unwrap_err(),
        "serial: the value is longer than 64 bytes"
    );
    // Characters are counted where each is one byte, and nowhere else.
    assert!(with(&values, &"ä".repeat(11)).is_err());
}

#[test]
fn a_type_allows_less_of_it() {
    for (ty, good, reason) in [
        (
            &SHORT,
            "wxyz",
            "serial: \"three\" is not printable ASCII of up to 4 characters",
        ),
        (
            &NAMED,
            "one",
            "serial: \"three\" is not one of \"one\", \"two\"",
        ),
    ] {
        let values = Values::new(ty);
        assert!(with(&values, good).is_ok());
        assert_eq!(with(&values, "three").unwrap_err(), reason);
    }
    // The off value is not among the names.
    let serial = DISK.param("serial").unwrap();
    assert_eq!(SHORT.off(serial), Some(Value::Str("")));
    assert_eq!(NAMED.off(serial), None);
}

#[test]
fn tables_that_cannot_be_are_found() {
    let problem = |param: ParamDef<'static>| model_of(&[param]).problem().unwrap_or("none");
    assert_eq!(problem(SERIAL), "none");
    for max in [1, MAX_STR_LEN] {
        let allowed = Allowed::Ascii { max };
        assert_eq!(problem(ParamDef { allowed, ..SERIAL }), "none");
    }
    for max in [0, MAX_STR_LEN + 1, usize::MAX] {
        let allowed = Allowed::Ascii { max };
        let problem = problem(ParamDef { allowed, ..SERIAL });
        assert!(problem.contains("none or of too many"), "{problem}");
    }
    for text in ["ä", "123456789012345678901"] {
        let init = Value::Str(text);
        assert!(problem(ParamDef { init, ..SERIAL }).contains("not among those"));
        let off = Some(init);
        assert!(problem(ParamDef { off, ..SERIAL }).contains("not among those"));
    }
    let number = ParamDef {
        allowed: SERIAL.allowed,
        ..ParamDef::new("number", Value::Int(1))
    };
    assert!(problem(number).contains("parameter's type"));

    let requires = [Requirement {
        param: "serial",
        allowed: Allowed::Ascii { max: 4 },
    }];
    let needy = ParamDef {
        requires: &requires,
        off: Some(Value::Bool(false)),
        ..ParamDef::new("needy", Value::Bool(false))
    };
    let params = [SERIAL, needy];
    assert!(model_of(&params).problem().unwrap().contains("list"));
    let named = [Requirement {
        param: "serial",
        allowed: Allowed::Str(&["one"]),
    }];
    let params = [
        SERIAL,
        ParamDef {
            requires: &named,
            ..needy
        },
    ];
    assert_eq!(model_of(&params).problem(), None);

    // Three texts of any kind are too many for a device.
    let labels = ["a", "b"].map(|name| ParamDef::new(name, Value::Str("")));
    let three = [labels[0], labels[1], SERIAL].to_vec().leak();
    assert!(std::panic::catch_unwind(|| model_of(three).validated()).is_err());
    assert_eq!(model_of(&three[1..]).validated().params.len(), 2);
}

#[test]
fn what_a_type_allows_is_within_what_its_model_does() {
    let problem = |allowed, text| {
        let narrowed = [Narrowed {
            param: "serial",
            allowed,
            init: Value::Str(text),
        }];
        let ty = Type {
            narrowed: &narrowed,
            ..ANY
        };
        ty.problem().unwrap_or("none").to_string()
    };
    assert_eq!(problem(Allowed::Ascii { max: MAX }, ""), "none");
    assert_eq!(problem(Allowed::Str(&["", "x"]), "x"), "none");
    for allowed in [
        Allowed::Ascii { max: MAX + 1 },
        Allowed::Any,
        Allowed::Str(&["", "ä"]),
    ] {
        let problem = problem(allowed, "");
        assert!(problem.contains("that its model does not"), "{problem}");
    }
    // A list does not hold all texts, whatever is in it.
    let listed = [ParamDef {
        allowed: Allowed::Str(&["", "a"]),
        ..SERIAL
    }];
    let model = model_of(&listed);
    let narrowed = [Narrowed {
        param: "serial",
        allowed: Allowed::Ascii { max: 1 },
        init: Value::Str(""),
    }];
    let ty = Type {
        model: &model,
        narrowed: &narrowed,
        init_version: None,
    };
    assert!(ty.problem().unwrap().contains("that its model does not"));
}

#[test]
fn a_destination_takes_the_same_text_and_no_other() {
    // Without a parameter that is off.
    let list = |text: &'static str| {
        let param = |(name, text)| Param {
            name,
            value: Value::Str(text),
        };
        let all = [("label", ""), ("serial", text)].into_iter().map(param);
        all.filter(|param| param.name == "label" || param.value != Value::Str(""))
    };
    let check = |text: &'static str, ty| -> Vec<String> {
        let reasons = check(DISK.name, list(text), ty);
        reasons.map(|reason| reason.to_string()).collect()
    };
    assert!(check("WD-12345678901234567", &ANY).is_empty());
    assert_eq!(
        check("WD-123456789012345678", &ANY),
        ["serial: source has \"WD-123456789012345678\", this device allows printable ASCII of up to 20 characters"]
    );
    assert_eq!(
        check("fünf", &SHORT),
        ["serial: source has \"fünf\", this device allows printable ASCII of up to 4 characters"]
    );
    let values = Values::new(&ANY);
    let values = with(&values, "here").unwrap();
    let verify = |text: &'static str| -> Vec<String> {
        let reasons = verify(DISK.name, list(text), &values);
        reasons.map(|reason| reason.to_string()).collect()
    };
    assert!(verify("here").is_empty());
    assert_eq!(
        verify("there"),
        ["serial: source has \"there\", this device has \"here\""]
    );
    // As a source that knows no such parameter has none.
    assert_eq!(
        verify(""),
        ["serial: source has \"\", this device has \"here\""]
    );
}

#[test]
fn information_has_the_length_in_place_of_a_list() {
    let params = |ty: Type<'static>| -> Json {
        let info = MigrationInfo {
            generation: None,
            types: &[ty],
        };
        let info: Json = serde_json::from_str(&info.to_string()).unwrap();
        info["models"][DISK.name]["params"].clone()
    };
    assert_eq!(
        params(ANY),
        json!({
            "label": {"type": "str", "init_value": ""},
            "serial": {"type": "str", "max_length": 20, "init_value": "", "off_value": ""},
        })
    );
    assert_eq!(params(SHORT)["serial"]["max_length"], json!(4));
    let named = &params(NAMED)["serial"];
    assert_eq!(named.get("max_length"), None);
    assert_eq!(named["allowed_values"], json!(["one", "two"]));
    let serial = DISK.param("serial").unwrap();
    assert_eq!(AllowedValues(&ANY, serial).to_string(), "");
}

#[test]
fn the_longest_that_is_printed_is_known() {
    let types = [ANY];
    let families = [Family {
        pattern: "any",
        types: &types,
    }
    .validated()];
    let quotes = "\"".repeat(64);
    let start = Values::new(&ANY);
    let values = start
        .with_text(0, quotes.as_bytes(), InUse::Closed)
        .unwrap();
    let values = values
        .with_text(1, &quotes.as_bytes()[..MAX], InUse::Closed)
        .unwrap();
    let longest = Compatible {
        mdev_type: "any",
        device_api: "vfio-pci",
        values: &values,
        families: &families,
    };
    assert_eq!(
        longest_compatible("any", "vfio-pci", &ANY, &families),
        printed_len(&longest)
    );
}
