// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Mistakes in tables are found. The same functions run when tables are compiled.

use super::*;
use std::string::{String, ToString};
use std::vec::Vec;

fn int(name: &str, init: u64) -> ParamDef<'_> {
    ParamDef {
        off: Some(Value::Int(0)),
        ..ParamDef::new(name, Value::Int(init))
    }
}

fn model_of<'a>(params: &'a [ParamDef<'a>]) -> Model<'a> {
    Model {
        name: "example.org/card",
        params,
        versions: &[],
        init_version: None,
    }
}

fn problem_of(params: &[ParamDef<'_>]) -> String {
    model_of(params).problem().unwrap_or("none").to_string()
}

#[track_caller]
fn assert_problem(params: &[ParamDef<'_>], part: &str) {
    let problem = problem_of(params);
    assert!(problem.contains(part), "{problem}");
}

#[test]
fn sound_tables_have_no_problem() {
    for model in [&MODEL, &PLAIN] {
        assert_eq!(model.problem(), None);
    }
    for ty in [&FULL, &SMALL, &BIG, &PLAIN_TYPE] {
        assert_eq!(ty.problem(), None);
    }
    assert_eq!(problem_of(&[int("a", 1), int("b", 2)]), "none");
}

#[test]
fn malformed_model_strings_are_found() {
    for name in ["", "a b", "a//b", "a/"] {
        let model = Model { name, ..PLAIN };
        assert!(model.problem().unwrap().contains("device model string"));
    }
}

#[test]
fn malformed_reserved_and_double_names_are_found() {
    for name in ["", "a b", "a=b", "a/b", "a\n"] {
        assert_problem(&[int(name, 1)], "a name is empty");
    }
    for name in [
        "device_model",
        "version",
        "compatible",
        "error",
        "state",
        "phase",
        "bytes",
        "sessions",
        ".",
        "..",
        "custom",
    ] {
        assert_problem(&[int(name, 1)], "reserved");
    }
    assert_problem(&[int("a", 1), int("b", 1), int("a", 2)], "same name");
}

#[test]
fn values_of_the_wrong_type_or_not_allowed_are_found() {
    let allowed = Allowed::Int(const { &[IntRange::new(1, 4), IntRange::new(8, 16)] });
    let good = ParamDef {
        allowed,
        off: Some(Value::Int(16)),
        ..ParamDef::new("a", Value::Int(1))
    };
    assert_eq!(problem_of(&[good]), "none");
    for init in [0, 5, 17, u64::MAX] {
        let init = Value::Int(init);
        assert_problem(&[ParamDef { init, ..good }], "not among those");
        let off = Some(init);
        assert_problem(&[ParamDef { off, ..good }], "not among those");
    }
    for value in [Value::Bool(true), Value::Str("1")] {
        let init = value;
        assert_problem(&[ParamDef { init, ..good }], "of its parameter's type");
        let off = Some(value);
        assert_problem(&[ParamDef { off, ..good }], "of its parameter's type");
    }
    for (allowed, init) in [
        (Allowed::Bool(&[true]), Value::Bool(false)),
        (Allowed::Str(&["x"]), Value::Str("y")),
    ] {
        let param = ParamDef::new("a", init);
        assert_problem(&[ParamDef { allowed, ..param }], "not among those");
    }
    let long = "v".repeat(65);
    for text in ["two\nlines", "\0", &long] {
        let param = ParamDef::new("a", Value::Str(text));
        assert_problem(&[param], "a string value is too long");
    }
}

#[test]
fn malformed_lists_of_allowed_values_are_found() {
    let with = |allowed, init| ParamDef {
        allowed,
        ..ParamDef::new("a", init)
    };
    let one = Value::Int(1);
    let list = |ranges: &'static [IntRange]| with(Allowed::Int(ranges), one);
    assert_problem(&[list(&[])], "empty");
    assert_problem(
        &[list(const { &[IntRange::new(2, 1)] })],
        "range of integers is empty",
    );
    assert_problem(
        &[list(const { &[IntRange::new(1, 4), IntRange::new(4, 5)] })],
        "overlap",
    );
    assert_problem(
        &[list(const { &[IntRange::one(5), IntRange::one(1)] })],
        "ascending",
    );
    assert_problem(&[with(Allowed::Bool(&[true]), one)], "parameter's type");
    assert_problem(&[with(Allowed::Str(&["1"]), one)], "parameter's type");
    let text = Value::Str("x");
    assert_problem(&[with(Allowed::Str(&["x", "y", "x"]), text)], "twice");
    assert_problem(&[with(Allowed::Str(&["x", "\n"]), text)], "control");
    let on = Value::Bool(true);
    for list in [
        &[true, true][..],
        &[true, false, true],
        &[false, true, true],
    ] {
        assert_problem(&[with(Allowed::Bool(list), on)], "twice");
    }
}

#[test]
fn unsound_requirements_are_found() {
    let require = |param, allowed| [Requirement { param, allowed }];
    let is_one = Allowed::Int(const { &[IntRange::one(1)] });
    let with = |requires| ParamDef {
        requires,
        ..int("b", 1)
    };

    let good = require("a", is_one);
    assert_eq!(problem_of(&[int("a", 1), with(&good)]), "none");

    let unknown = require("x", is_one);
    assert_problem(&[int("a", 1), with(&unknown)], "no earlier parameter");
    let itself = require("b", is_one);
    assert_problem(&[int("a", 1), with(&itself)], "no earlier parameter");
    // Declared later: the order that keeps requirements free of cycles.
    assert_problem(&[with(&good), int("a", 1)], "no earlier parameter");

    let other_type = require("a", Allowed::Bool(&[true]));
    assert_problem(&[int("a", 1), with(&other_type)], "parameter's type");
    let nothing = require("a", Allowed::Int(&[]));
    assert_problem(&[int("a", 1), with(&nothing)], "empty");
    let anything = require("a", Allowed::Any);
    assert_problem(&[int("a", 1), with(&anything)], "allows any value");
    let twice = [good[0], good[0]];
    assert_problem(&[int("a", 1), with(&twice)], "twice");

    let up_to_four = ParamDef {
        allowed: Allowed::Int(const { &[IntRange::new(0, 2), IntRange::new(3, 4)] }),
        ..int("a", 1)
    };
    let within = require("a", Allowed::Int(const { &[IntRange::new(1, 4)] }));
    assert_eq!(problem_of(&[up_to_four, with(&within)]), "none");
    let beyond = require("a", Allowed::Int(const { &[IntRange::new(1, 5)] }));
    assert_problem(&[up_to_four, with(&beyond)], "not allowed");

    let always_on = ParamDef {
        off: None,
        ..with(&good)
    };
    assert_problem(&[int("a", 1), always_on], "without off value");
    assert_problem(&[int("a", 2), with(&good)], "initial values break");
    // Off asks for nothing.
    let off = ParamDef {
        init: Value::Int(0),
        ..with(&good)
    };
    assert_eq!(problem_of(&[int("a", 2), off]), "none");
}

#[test]
fn unsound_versions_are_found() {
    const A_IS_ONE: &[Requirement<'_>] = &[Requirement {
        param: "a",
        allowed: Allowed::Int(&[IntRange::one(1)]),
    }];
    let params = [
        ParamDef {
            allowed: Allowed::Int(const { &[IntRange::new(0, 9)] }),
            ..int("a", 1)
        },
        ParamDef {
            requires: A_IS_ONE,
            ..int("b", 1)
        },
    ];
    type Bundle<'a> = (&'a str, &'a [(&'a str, Value<'static>)]);

    let problem = |versions: &[Bundle<'_>], init_version| {
        let values: Vec<Vec<_>> = versions
            .iter()
            .map(|(_, values)| {
                let param = |&(name, value)| Param { name, value };
                values.iter().map(param).collect()
            })
            .collect();
        let versions: Vec<_> = versions
            .iter()
            .zip(&values)
            .map(|((name, _), values)| Version { name, values })
            .collect();
        let model = Model {
            versions: &versions,
            init_version,
            ..model_of(&params)
        };
        model.problem().unwrap_or("none").to_string()
    };
    let (zero, one, two) = (Value::Int(0), Value::Int(1), Value::Int(2));

    let old: Bundle<'_> = ("v1", &[("a", one), ("b", zero)]);
    let new: Bundle<'_> = ("v2", &[("b", one), ("a", one)]);
    assert_eq!(problem(&[old, new], Some("v2")), "none");
    assert!(problem(&[old, new], None).contains("no initial one"));
    assert!(problem(&[old, new], Some("v3")).contains("unknown"));
    assert!(problem(&[], Some("v1")).contains("unknown"));
    assert!(problem(&[old, new], Some("v1")).contains("not those of the initial"));

    let cases: [(&[Bundle<'_>], &str); 11] = [
        (&[("custom", new.1)], "reserved"),
        (&[("a b", new.1)], "a name is empty"),
        (&[("v2", &[("x", one)])], "unknown parameter"),
        (&[("v2", &[("a", Value::Int(10))])], "not among those"),
        (&[("v2", &[("a", Value::Bool(true))])], "parameter's type"),
        (&[("v2", &[("a", one), ("a", one)])], "parameter twice"),
        (&[("v2", &[("a", two), ("b", one)])], "break a requirement"),
        // What the version does not name has its initial value.
        (&[("v2", &[("a", two)])], "break a requirement"),
        (&[old, ("v1", new.1)], "same name"),
        (&[old, ("v2", &[("a", one)])], "name the same parameters"),
        (&[old, ("v2", &[("b", zero), ("a", one)])], "same values"),
    ];
    for (versions, part) in cases {
        let problem = problem(versions, Some("v2"));
        assert!(problem.contains(part), "{problem}, not {part}");
    }
}

#[test]
fn unsound_types_are_found() {
    let narrow = |param, allowed, init| Narrowed {
        param,
        allowed,
        init,
    };
    let problem = |narrowed: &[Narrowed<'static>], init_version| {
        let ty = Type {
            model: &MODEL,
            narrowed,
            init_version,
        };
        ty.problem().unwrap_or("none").to_string()
    };
    let ports = |allowed, init| narrow("num-ports", Allowed::Int(allowed), Value::Int(init));
    let two = ports(const { &[IntRange::one(2)] }, 2);
    assert_eq!(problem(&[two], None), "none");

    let cases: [(&[Narrowed<'static>], &str); 9] = [
        (&[two, two], "twice"),
        (&[narrow("x", Allowed::Any, Value::Int(1))], "unknown"),
        (&[ports(&[], 1)], "empty"),
        (
            &[ports(const { &[IntRange::new(1, 4)] }, 1)],
            "its model does not",
        ),
        (
            &[narrow("num-ports", Allowed::Any, Value::Int(1))],
            "its model does not",
        ),
        (
            &[narrow("num-ports", Allowed::Bool(&[true]), Value::Int(1))],
            "type",
        ),
        (
            &[ports(const { &[IntRange::one(2)] }, 1)],
            "its type allows",
        ),
        (
            &[ports(const { &[IntRange::one(2)] }, 3)],
            "its parameter allows",
        ),
        (&[narrow("vectors", Allowed::Any, Value::Int(1))], "type"),
    ];
    for (narrowed, part) in cases {
        let problem = problem(narrowed, None);
        assert!(problem.contains(part), "{problem}, not {part}");
    }

    let vectors = narrow("vectors", Allowed::Any, Value::Bool(true));
    let one = ports(const { &[IntRange::new(1, 2)] }, 1);
    assert!(problem(&[one, vectors], None).contains("break a requirement"));
    // Vectors always on: then no instance may lose MSI or have one port.
    let always = narrow("vectors", Allowed::Bool(&[true]), Value::Bool(true));
    assert!(problem(&[always, two], None).contains("cannot disable"));
    let msi = narrow("msi", Allowed::Bool(&[true]), Value::Bool(true));
    assert!(problem(&[always, msi], None).contains("cannot disable"));
    assert_eq!(problem(&[always, msi, two], None), "none");

    assert!(problem(&[two], Some("v1")).contains("not those of the initial"));
    assert!(problem(&[two], Some("v3")).contains("initial version is unknown"));
    let fifo = narrow("fifo-depth", Allowed::Any, Value::Int(16));
    assert!(problem(&[fifo], None).contains("its model does not"));
}

#[test]
fn limits_of_a_device_are_not_limits_of_a_table() {
    let names: Vec<_> = (0..MAX_PARAMS + 1).map(|i| i.to_string()).collect();
    let params: Vec<_> = names.iter().map(|name| int(name, 1)).collect();
    assert_eq!(problem_of(&params), "none");
    let panics = |params: Vec<ParamDef<'static>>| {
        std::panic::catch_unwind(|| {
            let _ = model_of(params.leak()).validated();
        })
        .is_err()
    };
    let leaked: Vec<ParamDef<'static>> = (0..MAX_PARAMS + 1)
        .map(|i| int(i.to_string().leak(), 1))
        .collect();
    assert!(panics(leaked.clone()));
    assert!(!panics(leaked[1..].to_vec()));

    let text = |name| ParamDef::new(name, Value::Str("x"));
    assert!(!panics(std::vec![text("a"), text("b")]));
    assert!(panics(std::vec![text("a"), text("b"), text("c")]));
}

#[test]
fn allowed_values_print_as_people_write_them() {
    for (allowed, text) in [
        (Allowed::Any, "any value"),
        (
            Allowed::Ascii { max: 20 },
            "printable ASCII of up to 20 characters",
        ),
        (Allowed::Bool(&[true]), "on"),
        (Allowed::Bool(&[false, true]), "off, on"),
        (Allowed::Int(const { &[IntRange::new(1, 2)] }), "1-2"),
        (
            Allowed::Int(const { &[IntRange::one(1), IntRange::new(4, 8)] }),
            "1, 4-8",
        ),
        (
            Allowed::Str(&["even", "odd", "any value", "a\\", "\"", ""]),
            r#""even", "odd", "any value", "a\\", "\"", """#,
        ),
    ] {
        assert_eq!(allowed.to_string(), text);
    }
}
