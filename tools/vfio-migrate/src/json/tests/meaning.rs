// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What odd documents mean: values that nobody can have, members in any order, versions.

use migration::value::Param;

use super::*;

/// The source's verdict on the destination: every reason.
fn verdict(source: &str, destination: &str) -> Vec<String> {
    let arena = Bump::new();
    let source = read_source(&arena, source.as_bytes()).unwrap();
    let info = read_info(&arena, destination.as_bytes()).unwrap();
    let list = source.params.iter().copied();
    migration::check::check(source.model, list, &info.types[0])
        .map(|reason| reason.to_string())
        .collect()
}

/// A parameter list of the model `m` with one parameter.
fn one(value: &str) -> String {
    format!(r#"{{"model": "m", "params": {{"p": {value}}}}}"#)
}

#[test]
fn an_off_or_initial_value_that_is_not_allowed_cannot_be_had() {
    let text =
        with_param(r#"{"type": "int", "init_value": 4, "allowed_values": [2, 8], "off_value": 1}"#);
    let text = text.replace("\"example.org/card\"", "\"m\"");
    let none: [&str; 0] = [];
    assert_eq!(verdict(&one("8"), &text), none);
    // It is what a source has that lacks the parameter, and what a new instance has; but it cannot be written.
    let lacking = r#"{"model": "m", "params": {}}"#;
    assert_eq!(
        verdict(lacking, &text),
        ["p: source has 1, this device allows 2, 8"]
    );
    assert_eq!(
        verdict(&one("1"), &text),
        ["p: source has 1, this device allows 2, 8"]
    );
    assert_eq!(
        verdict(&one("4"), &text),
        ["p: source has 4, this device allows 2, 8"]
    );
    let arena = Bump::new();
    let info = read_info(&arena, text.as_bytes()).unwrap();
    let ty = &info.types[0];
    assert_eq!(ty.init(&ty.model.params[0]), Value::Int(4));
    assert_eq!(ty.off(&ty.model.params[0]), None);
}

#[test]
fn a_text_is_accepted_by_its_length_and_its_characters() {
    let none: [&str; 0] = [];
    let text = with_param(r#"{"type": "str", "max_length": 4, "init_value": "", "off_value": ""}"#);
    let text = text.replace("\"example.org/card\"", "\"m\"");
    for value in [r#""""#, r#""~ 09""#] {
        assert_eq!(verdict(&one(value), &text), none, "{value}");
    }
    assert_eq!(verdict(r#"{"model": "m", "params": {}}"#, &text), none);
    for value in ["\"12345\"", "\"gr\u{fc}n\"", "\"\u{fc}\""] {
        assert_eq!(
            verdict(&one(value), &text),
            [format!(
                "p: source has {value}, this device allows printable ASCII of up to 4 characters"
            )]
        );
    }
    // Nothing but the empty text, which is what a source has that lacks the parameter.
    let text = text.replace("\"max_length\": 4", "\"max_length\": 0");
    assert_eq!(verdict(r#"{"model": "m", "params": {}}"#, &text), none);
    assert_eq!(verdict(&one("\"x\""), &text).len(), 1);
    // More than there is room for anywhere.
    let text = text.replace("\"max_length\": 0", "\"max_length\": 300");
    let long = "v".repeat(65);
    assert_eq!(
        verdict(&one(&format!("\"{long}\"")), &text),
        ["p: the source's value is longer than 64 bytes"]
    );
}

#[test]
fn what_does_not_fit_here_is_a_value_that_is_not_accepted() {
    let long = "v".repeat(65);
    let none: [&str; 0] = [];
    let read = |def: &str| with_param(def).replace("\"example.org/card\"", "\"m\"");
    // A string that no stream can carry, in every place.
    let text = read(&format!(
        r#"{{"type": "str", "init_value": "{long}", "off_value": "{long}", "allowed_values": ["{long}", "a", "\u0001"]}}"#
    ));
    assert_eq!(verdict(&one("\"a\""), &text), none);
    let too_long = "p: the source's value is longer than 64 bytes";
    assert_eq!(verdict(&one(&format!("\"{long}\"")), &text), [too_long]);
    assert_eq!(
        verdict(r#"{"model": "m", "params": {}}"#, &text),
        [too_long]
    );
    assert_eq!(
        verdict(&one(r#""\u0001""#), &text),
        ["p: the source's value contains a newline or another control character"]
    );
    // Where any string is allowed, too.
    let text = read(r#"{"type": "str", "init_value": ""}"#);
    assert_eq!(verdict(&one(&format!("\"{long}\"")), &text), [too_long]);
    // A name that no stream can carry is as good as one that nobody has.
    let name = "n".repeat(65);
    let text = read(r#"{"type": "int", "init_value": 0, "off_value": 0}"#)
        .replace("\"p\"", &format!("\"{name}\""));
    assert_eq!(verdict(r#"{"model": "m", "params": {}}"#, &text), none);
    assert_eq!(
        verdict(&one("1").replace("\"p\"", &format!("\"{name}\"")), &text),
        [format!("{name}: the source's name is longer than 64 bytes")]
    );
    // A model that no stream can carry.
    let model = format!("\"{}\"", "m".repeat(129));
    assert_eq!(
        verdict(
            &one("1").replace("\"m\"", &model),
            &read(r#"{"type": "int", "init_value": 0}"#).replace("\"m\"", &model)
        ),
        ["model: the source's model is longer than 128 bytes"]
    );
    // Numbers of more than 64 bits, alone and as the ends of ranges.
    for (list, shown) in [
        ("[1, 18446744073709551616, 1e300]", "1"),
        (r#"["5-99999999999999999999"]"#, "5-18446744073709551615"),
        (
            r#"["18446744073709551616-99999999999999999999"]"#,
            "no value",
        ),
        ("[]", "no value"),
    ] {
        let def = format!(r#"{{"type": "int", "init_value": 1, "allowed_values": {list}}}"#);
        assert_eq!(allowed(&def), shown, "{list}");
    }
    for (bounds, shown) in [
        (
            r#""minimum": 1, "maximum": 99999999999999999999"#,
            "1-18446744073709551615",
        ),
        (r#""minimum": 99999999999999999999"#, "no value"),
    ] {
        let def = format!(r#"{{"type": "int", "init_value": 1, {bounds}}}"#);
        assert_eq!(allowed(&def), shown, "{bounds}");
    }
    // What is listed twice is there once.
    let twice = r#"{"type": "bool", "init_value": true, "allowed_values": [true, true]}"#;
    assert_eq!(allowed(twice), "on");
    let many: Vec<String> = (0..5000).map(|i| format!("\"s{}\"", i % 2500)).collect();
    let text = read(&format!(
        r#"{{"type": "str", "init_value": "s0", "allowed_values": [{}]}}"#,
        many.join(",")
    ));
    let arena = Bump::new();
    let info = read_info(&arena, text.as_bytes()).unwrap();
    let Allowed::Str(listed) = info.types[0].model.params[0].allowed else {
        panic!("not a list of strings");
    };
    assert_eq!(listed.len(), 2500);
    assert_eq!((listed[0], listed[2499]), ("s0", "s2499"));
    // More parameters than a stream lists.
    let params: Vec<String> = (0..200)
        .map(|i| format!(r#""p{i}": {{"type": "int", "init_value": 1, "off_value": 0}}"#))
        .collect();
    let text = format!(
        r#"{{"models": {{"m": {{"params": {{{}}}}}}}}}"#,
        params.join(",")
    );
    assert_eq!(
        verdict(r#"{"model": "m", "params": {"p199": 7}}"#, &text),
        none
    );
    // A version whose values are not allowed is one that is not offered.
    let text = r#"{"models": {"m": {"params": {"p": {"type": "str", "init_value": "a", "allowed_values": ["a"]}},
        "versions": {"v1": {"p": "a"}, "v2": {"p": "b"}}, "init_version": "v2"}}}"#;
    let info = read_info(&arena, text.as_bytes()).unwrap();
    let offered: Vec<&str> = info.types[0]
        .versions()
        .map(|version| version.name)
        .collect();
    assert_eq!(offered, ["v1"]);
}

#[test]
fn order_comes_from_what_is_required_and_from_lists_not_from_objects() {
    let document = |params: &str, rest: &str| {
        format!(r#"{{"models": {{"m": {{"params": {{{params}}}{rest}}}}}}}"#)
    };
    let names = |text: &str| -> String {
        let arena = Bump::new();
        let info =
            read_info(&arena, text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
        let names: Vec<&str> = info.types[0]
            .model
            .params
            .iter()
            .map(|def| def.name)
            .collect();
        names.join(" ")
    };
    let def = |name: &str, requires: &str| {
        format!(
            r#""{name}": {{"type": "int", "init_value": 1, "off_value": 0, "requires": {{{requires}}}}}"#
        )
    };
    // `a` requires `b`, which requires `c`: in whatever order they are written.
    let defs = [
        def("a", r#""b": [1]"#),
        def("b", r#""d": [1], "c": [1]"#),
        def("c", ""),
        def("d", ""),
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let params: Vec<&str> = order.iter().map(|at| defs[*at].as_str()).collect();
        let params = params.join(",");
        assert_eq!(names(&document(&params, "")), "c d b a");
        assert_eq!(
            names(&document(&params, r#", "param_order": ["d", "c", "b"]"#)),
            "d c b a"
        );
        // What is required comes first all the same, and what is not there is nothing.
        assert_eq!(
            names(&document(&params, r#", "param_order": ["a", "x", "d"]"#)),
            "d c b a"
        );
        // So do the requirements of one parameter.
        let arena = Bump::new();
        let text = document(&params, r#", "param_order": ["d", "c"]"#);
        let info = read_info(&arena, text.as_bytes()).unwrap();
        let required: Vec<&str> = info.types[0].model.params[2]
            .requires
            .iter()
            .map(|r| r.param)
            .collect();
        assert_eq!(required, ["d", "c"]);
    }
    // Versions likewise, and their values.
    for (versions, order, wanted) in [
        (
            r#""v10": {"d": 1, "c": 1}, "v9": {"c": 0, "d": 1}"#,
            "",
            "v10 c=1 d=1; v9 c=0 d=1",
        ),
        (
            r#""v9": {"d": 1, "c": 0}, "v10": {"d": 1, "c": 1}"#,
            r#", "version_order": ["v9"]"#,
            "v9 c=0 d=1; v10 c=1 d=1",
        ),
    ] {
        let text = document(
            &defs.join(","),
            &format!(r#", "versions": {{{versions}}}{order}"#),
        );
        let arena = Bump::new();
        let info = read_info(&arena, text.as_bytes()).unwrap();
        let found: Vec<String> = info.types[0]
            .model
            .versions
            .iter()
            .map(|version| {
                let values: Vec<String> = version.values.iter().map(ToString::to_string).collect();
                format!("{} {}", version.name, values.join(" "))
            })
            .collect();
        assert_eq!(found.join("; "), wanted);
    }
    // What goes round in a circle has no order.
    for (defs, what) in [
        (
            vec![def("a", r#""a": [1]"#)],
            "params.a.requires: the parameter requires itself",
        ),
        (
            vec![def("a", r#""b": [1]"#), def("b", r#""a": [1]"#)],
            "a and b require each other",
        ),
    ] {
        let found = problem(document(&defs.join(","), "").as_bytes());
        let swapped = what.replace("a and b", "b and a");
        assert!(found.contains(what) || found.contains(&swapped), "{found}");
    }
    let long: Vec<String> = (0..600)
        .map(|i| def(&format!("p{i}"), &format!(r#""p{}": [1]"#, (i + 1) % 600)))
        .collect();
    assert!(problem(document(&long.join(","), "").as_bytes()).contains("require each other"));
}

#[test]
fn a_version_may_name_parameters_that_an_earlier_one_does_not() {
    let text = r#"{"models": {"m": {
        "params": {"a": {"type": "int", "init_value": 1}, "b": {"type": "bool", "init_value": true, "off_value": false}},
        "versions": {"v1": {"a": 0}, "v2": {"a": 1, "b": true}}, "init_version": "v2"}}}"#;
    let arena = Bump::new();
    let info = read_info(&arena, text.as_bytes()).unwrap();
    let versions = info.types[0].model.versions;
    assert_eq!(
        versions[0].values,
        [Param {
            name: "a",
            value: Value::Int(0)
        }]
    );
    assert_eq!(versions[1].values.len(), 2);
    let none: [&str; 0] = [];
    assert_eq!(verdict(r#"{"model": "m", "params": {"a": 7}}"#, text), none);
}

#[test]
fn a_model_may_be_known_by_its_versions_alone() {
    let none: [&str; 0] = [];
    let text = r#"{"models": {"m": {"versions": ["1", "2", "1"]}}}"#;
    assert_eq!(verdict(r#"{"model": "m", "version": "2"}"#, text), none);
    assert_eq!(
        verdict(r#"{"model": "m", "version": "3"}"#, text),
        ["version: source has \"3\", this device allows \"1\", \"2\""]
    );
    // A source that does not say its version may have any.
    assert_eq!(
        verdict(r#"{"model": "m", "params": {}}"#, text),
        ["version: source lacks it, this device needs \"1\", \"2\""]
    );
    // And who knows parameters does not know what the version stands for.
    let parameters = with_param(r#"{"type": "int", "init_value": 0, "off_value": 0}"#);
    assert_eq!(
        verdict(
            r#"{"model": "m", "version": "2"}"#,
            &parameters.replace("\"example.org/card\"", "\"m\"")
        ),
        ["version: source has \"2\", this device does not know it"]
    );
    let arena = Bump::new();
    for (rest, init) in [("", "2"), (r#", "init_version": "1""#, "1")] {
        let text = format!(r#"{{"models": {{"m": {{"versions": ["1", "2"]{rest}}}}}}}"#);
        let info = read_info(&arena, text.as_bytes()).unwrap();
        let [version] = info.types[0].model.params else {
            panic!("{} parameters", info.types[0].model.params.len());
        };
        assert_eq!((version.init, version.off), (Value::Str(init), None));
        // It prints as it was.
        let printed = migration::info::MigrationInfo {
            generation: None,
            types: info.types,
        }
        .to_string();
        let wanted: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&printed).unwrap(),
            wanted
        );
    }
    for (model, what) in [
        (r#"{"versions": []}"#, "\"versions\" is empty"),
        (r#"{"versions": {"1": {}}}"#, "no \"params\""),
        (r#"{"versions": ["1"], "init_version": "2"}"#, "no version"),
    ] {
        let found = problem(format!(r#"{{"models": {{"m": {model}}}}}"#).as_bytes());
        assert!(found.contains(what), "{model}: {found}");
    }
    // Beside parameters, names of versions are names.
    let text = r#"{"models": {"m": {"params": {}, "versions": ["1", "2"], "init_version": "2"}}}"#;
    assert_eq!(verdict(r#"{"model": "m", "params": {}}"#, text), none);
    let error =
        read_source(&arena, br#"{"model": "m", "params": {}, "version": "1"}"#).unwrap_err();
    assert!(error.to_string().contains("beside"), "{error}");
}
