// SPDX-License-Identifier: GPL-2.0 OR MIT

use std::io::Read;

use migration::model::{Allowed, IntRange};
use migration::value::{Kind, Value};

use super::*;

/// Migration information with one parameter, `p`.
fn with_param(def: &str) -> String {
    format!(r#"{{"models": {{"example.org/card": {{"params": {{"p": {def}}}}}}}}}"#)
}

/// Why the text is not migration information, as one line.
fn problem(text: &[u8]) -> String {
    let arena = Bump::new();
    let error = read_info(&arena, text).expect_err("it was read");
    let shown = error.to_string();
    assert!(!shown.contains('\n'), "{shown:?} has several lines");
    assert!(shown.len() < 1000, "{} characters", shown.len());
    shown
}

fn param_problem(def: &str) -> String {
    problem(with_param(def).as_bytes())
}

/// What the definition allows.
fn allowed(def: &str) -> String {
    let arena = Bump::new();
    let text = with_param(def);
    let info = read_info(&arena, text.as_bytes()).unwrap_or_else(|error| panic!("{def}: {error}"));
    info.types[0].model.params[0].allowed.to_string()
}

#[test]
fn everything_a_parameter_can_have_is_read() {
    let text = r#"{
        "generation": "g\u00f6 1",
        "models": {"example.org/card": {
            "versions": {"v1": {"b": false}, "v2": {"b": true}},
            "init_version": "v2",
            "params": {
                "n": {"type": "int", "allowed_values": [1, "4-8", 2], "init_value": 4, "off_value": 1,
                      "description": "how \"many\"", "later": {"x": [1, {"y": null}]}},
                "b": {"init_value": true, "type": "bool", "off_value": false, "runtime": true,
                      "requires": {"n": ["4-8"]}},
                "s": {"type": "str", "init_value": "a b", "allowed_values": ["a b", ""]}
            }}},
        "unknown": [1.5, -1, {"a": {}}]
    }"#;
    let arena = Bump::new();
    let info = read_info(&arena, text.as_bytes()).unwrap();
    assert_eq!(info.generation, Some("gö 1"));
    let model = info.types[0].model;
    assert_eq!(model.name, "example.org/card");
    let [n, b, s] = model.params else {
        panic!("{} parameters", model.params.len());
    };
    let ranges = [IntRange::one(1), IntRange::one(2), IntRange::new(4, 8)];
    assert_eq!(n.allowed, Allowed::Int(&ranges));
    assert_eq!(
        (n.kind, n.init, n.off),
        (Kind::Int, Value::Int(4), Some(Value::Int(1)))
    );
    assert_eq!(n.description, "how \"many\"");
    assert!(b.runtime && !n.runtime);
    assert_eq!(b.requires[0].param, "n");
    assert_eq!(b.requires[0].allowed, Allowed::Int(&[IntRange::new(4, 8)]));
    assert_eq!(s.allowed, Allowed::Str(&["a b", ""]));
    assert_eq!(model.init_version, Some("v2"));
    assert_eq!(model.versions[1].values[0].value, Value::Bool(true));
}

#[test]
fn bounds_stand_for_a_range_and_must_agree_with_one() {
    assert_eq!(allowed(r#"{"type": "int", "init_value": 3}"#), "any value");
    assert_eq!(
        allowed(r#"{"type": "int", "init_value": 3, "minimum": 2, "maximum": 9}"#),
        "2-9"
    );
    assert_eq!(
        allowed(r#"{"type": "int", "init_value": 3, "minimum": 2}"#),
        "2-18446744073709551615"
    );
    assert_eq!(
        allowed(r#"{"type": "int", "init_value": 3, "maximum": 9}"#),
        "0-9"
    );
    assert_eq!(
        allowed(
            r#"{"type": "int", "init_value": 3, "allowed_values": ["1-9"], "minimum": 1, "maximum": 9}"#
        ),
        "1-9"
    );
    for def in [
        r#"{"type": "int", "init_value": 3, "allowed_values": ["1-9"], "minimum": 2}"#,
        r#"{"type": "int", "init_value": 3, "allowed_values": ["1-9"], "maximum": 8}"#,
        r#"{"type": "int", "init_value": 3, "minimum": 9, "maximum": 2}"#,
        r#"{"type": "bool", "init_value": true, "minimum": 0}"#,
        r#"{"type": "int", "init_value": 3, "minimum": "0"}"#,
    ] {
        param_problem(def);
    }
}

#[test]
fn ranges_that_overlap_become_one() {
    for (list, shown) in [
        (r#"[5, "1-3", 2, "3-4"]"#, "1-4, 5"),
        (r#"["0-18446744073709551615", 7]"#, "0-18446744073709551615"),
        (r#"[1, 1, "1-1"]"#, "1"),
    ] {
        let def = format!(r#"{{"type": "int", "init_value": 1, "allowed_values": {list}}}"#);
        assert_eq!(allowed(&def), shown);
    }
    for range in [
        "", "-", "1-", "-1", "1--2", "3-1", "1-2-3", "01-2", "1-2\\n", "a-b", "1–2",
    ] {
        let def =
            format!(r#"{{"type": "int", "init_value": 1, "allowed_values": [1, "{range}"]}}"#);
        assert!(param_problem(&def).contains("is not a range"), "{range}");
    }
}

#[test]
fn a_member_that_is_there_twice_is_refused_wherever_it_is() {
    let param = r#"{"type": "int", "init_value": 1}"#;
    for text in [
        r#"{"models": {}, "models": {}}"#.to_string(),
        r#"{"models": {"a": {"params": {}}, "a": {"params": {}}}}"#.to_string(),
        format!(r#"{{"models": {{"a": {{"params": {{"p": {param}, "p": {param}}}}}}}}}"#),
        with_param(r#"{"type": "int", "init_value": 1, "init_value": 2}"#),
        with_param(r#"{"type": "int", "init_value": 1, "later": {"x": 1, "x": 1}}"#),
        with_param(r#"{"type": "int", "init_value": 1, "\u0074ype": "int"}"#),
        format!(
            r#"{{"models": {{"a": {{"params": {{"p": {param}}}, "versions": {{"v": {{"p": 1, "p": 1}}}}}}}}}}"#
        ),
        r#"{"x": [{"y": 1, "y": 2}], "models": {"a": {"params": {}}}}"#.to_string(),
    ] {
        assert!(problem(text.as_bytes()).contains("there twice"), "{text}");
    }
    let arena = Bump::new();
    let error = read_source(&arena, br#"{"model": "a", "params": {"x": 1, "x": 1}}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1:37: params.x: the member is there twice"
    );
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    for def in [
        r#"1"#,
        r#"[]"#,
        r#"{"type": 1, "init_value": 1}"#,
        r#"{"type": "float", "init_value": 1}"#,
        r#"{"type": "int", "init_value": "1"}"#,
        r#"{"type": "int", "init_value": true}"#,
        r#"{"type": "int", "init_value": null}"#,
        r#"{"type": "int", "init_value": [1]}"#,
        r#"{"type": "int", "init_value": {}}"#,
        r#"{"type": "bool", "init_value": "on"}"#,
        r#"{"type": "bool", "init_value": 1}"#,
        r#"{"type": "str", "init_value": 1}"#,
        r#"{"type": "int", "init_value": 1, "off_value": "1"}"#,
        r#"{"type": "int", "init_value": 1, "allowed_values": 1}"#,
        r#"{"type": "int", "init_value": 1, "allowed_values": {"1": 1}}"#,
        r#"{"type": "int", "init_value": 1, "allowed_values": [true]}"#,
        r#"{"type": "bool", "init_value": true, "allowed_values": [1]}"#,
        r#"{"type": "str", "init_value": "1", "allowed_values": ["1", 1]}"#,
        r#"{"type": "int", "init_value": 1, "runtime": "true"}"#,
        r#"{"type": "int", "init_value": 1, "description": 1}"#,
        r#"{"type": "int", "init_value": 1, "requires": []}"#,
    ] {
        assert!(param_problem(def).contains("params.p"), "{def}");
    }
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    for def in [
        r#"{"type": "int"}"#,
        r#"{"init_value": 1}"#,
        r#"{"type": "str", "init_value": "a\nb"}"#,
        r#"{"type": "str", "init_value": "a", "off_value": "b\n"}"#,
        r#"{"type": "str", "init_value": "a", "allowed_values": ["a", "\n"]}"#,
        r#"{"type": "int", "init_value": 1, "requires": {"p": [1]}}"#,
        r#"{"type": "int", "init_value": 1, "requires": {"q": [1]}}"#,
    ] {
        param_problem(def);
    }
    let model = |rest: &str| {
        let params = r#""params": {"a": {"type": "int", "init_value": 1}, "b": {"type": "bool", "init_value": true, "off_value": false, "requires": {"a": [REQUIRED]}}}"#;
        let required = if rest == "unmet" { "2" } else { "1" };
        let rest = if rest == "unmet" { "" } else { rest };
        let params = params.replace("REQUIRED", required);
        format!(r#"{{"models": {{"m": {{{params}{rest}}}}}}}"#)
    };
    let arena = Bump::new();
    assert!(read_info(&arena, model("").as_bytes()).is_ok());
    for (rest, what) in [
        ("unmet", "b: on requires a 2, not 1"),
        (
            r#", "versions": {"v": {"c": 1}}"#,
            "models.m.versions.v: c: the model has no such parameter",
        ),
        (
            r#", "versions": {"v": {"a": true}}"#,
            "models.m.versions.v: a=on is not of type int",
        ),
        (r#", "versions": [1]"#, "expected a string"),
        (r#", "versions": 1"#, "an object or a list of names"),
        (r#", "versions": {"custom": {"a": 1}}"#, "reserved"),
        (r#", "versions": {"v 1": {"a": 1}}"#, "white space"),
        (r#", "init_version": "v""#, "no version"),
    ] {
        let problem = problem(model(rest).as_bytes());
        assert!(problem.contains(what), "{rest}: {problem}");
    }
}

#[test]
fn malformed_and_reserved_names_are_refused() {
    for name in [
        "",
        "a b",
        "a=b",
        "a/b",
        "version",
        "error",
        ".",
        "..",
        "custom",
        "a\\u0000b",
        "\\u2028",
    ] {
        let text = format!(
            r#"{{"models": {{"m": {{"params": {{"{name}": {{"type": "int", "init_value": 1}}}}}}}}}}"#
        );
        assert!(problem(text.as_bytes()).contains("name"), "{name}");
    }
    for model in ["", "a//b", "a b", "/"] {
        let text = format!(r#"{{"models": {{"{model}": {{"params": {{}}}}}}}}"#);
        assert!(problem(text.as_bytes()).contains("device model"), "{model}");
    }
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    for number in [
        "-1",
        "18446744073709551616",
        "1.0",
        "1e3",
        "1e999",
        "-0.0",
        "0.5",
    ] {
        let def = format!(r#"{{"type": "int", "init_value": {number}}}"#);
        let problem = param_problem(&def);
        assert!(
            problem.contains("is not one of 0, 1, 2") || problem.contains("number out of range"),
            "{number}: {problem}"
        );
    }
    for number in ["01", "+1", "0x10", "NaN", "1_000", "١"] {
        param_problem(&format!(r#"{{"type": "int", "init_value": {number}}}"#));
    }
    let largest = r#"{"type": "int", "init_value": 18446744073709551615}"#;
    assert_eq!(allowed(largest), "any value");
}

#[test]
fn deep_nesting_is_refused() {
    for depth in [129, 5000, 200_000] {
        let deep = format!(r#"{{"x": {}"#, "[".repeat(depth));
        assert!(
            problem(deep.as_bytes()).contains("recursion limit"),
            "{depth}"
        );
        let deep = format!(r#"{{"x": {}"#, r#"{"a":"#.repeat(depth));
        assert!(
            problem(deep.as_bytes()).contains("recursion limit"),
            "{depth}"
        );
    }
}

/// A gigabyte of a document that starts so and goes on with the same byte.
fn gigabyte(start: &'static [u8], byte: u8) -> impl Read {
    let rest = std::io::repeat(byte).take((1 << 30) - start.len() as u64);
    start.chain(rest)
}

#[test]
fn a_gigabyte_of_digits_is_refused_after_the_longest_document() {
    for start in [
        &b""[..],
        b"{\"x\": ",
        b"{\"models\": {\"m\": {\"params\": {\"p\": {\"init_value\": ",
    ] {
        let mut document = gigabyte(start, b'7');
        let read = crate::sysfs::read_bounded(&mut document).unwrap();
        assert_eq!(read.len(), MAX_DOCUMENT + 1);
        assert!(problem(&read).contains("longer than"));
        // As much as is read of digits: one number, which does not fit. (`x` is skipped, and still has to be a number.)
        let read = &read[..MAX_DOCUMENT];
        let problem = problem(read);
        assert!(
            problem.contains("number out of range") || problem.contains("expected an object"),
            "{problem}"
        );
    }
}

#[test]
fn a_document_without_end_takes_bounded_memory() {
    for endless in *b"[ \"{" {
        let read = crate::sysfs::read_bounded(gigabyte(b"", endless)).unwrap();
        assert_eq!(read.len(), MAX_DOCUMENT + 1);
        assert!(problem(&read).contains("longer than"));
    }
    // As much as is read, of text, in the message.
    let mut text = with_param(r#"{"type": "TEXT", "init_value": 1}"#);
    text = text.replace("TEXT", &"t".repeat(MAX_DOCUMENT - 200));
    problem(text.as_bytes());
}

#[test]
fn objects_are_bounded() {
    let members: Vec<String> = (0..=MAX_ENTRIES).map(|i| format!(r#""m{i}": 1"#)).collect();
    let text = format!(r#"{{"x": {{{}}}}}"#, members.join(","));
    assert!(problem(text.as_bytes()).contains("more than 1024 members"));
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_place() {
    assert_eq!(problem(b"{\n\"mod\xff\": 1}"), "2:5: not UTF-8");
    assert_eq!(problem(b"\xfe"), "1:1: not UTF-8");
    // Half of a surrogate pair, as an escape.
    problem(br#"{"\ud800": 1}"#);
    problem(br#"{"\ud800\u0041": 1}"#);
}

#[test]
fn a_document_cut_off_anywhere_is_refused() {
    let text = with_param(
        r#"{"type": "int", "allowed_values": [1, "4-8"], "init_value": 4, "off_value": 1}"#,
    );
    for len in 0..text.len() {
        let problem = problem(&text.as_bytes()[..len]);
        assert!(problem.contains("cut off or empty"), "{len}: {problem}");
    }
    assert!(problem(format!("{text} x").as_bytes()).contains("trailing characters"));
    assert!(problem(format!("{text}{text}").as_bytes()).contains("trailing characters"));
}

#[test]
fn the_message_cannot_move_the_cursor() {
    let problem = problem("{\"models\": {\"m\": {\"params\": {\"\\u001b[2J\": 1}}}}".as_bytes());
    assert!(!problem.contains('\x1b'), "{problem:?}");
}

#[test]
fn parameter_lists_are_read() {
    let arena = Bump::new();
    let text =
        r#"{"model": "example.org/card", "params": {"n": 4, "b": true, "s": "x"}, "more": 1}"#;
    let source = read_source(&arena, text.as_bytes()).unwrap();
    let shown: Vec<String> = source.params.iter().map(ToString::to_string).collect();
    assert_eq!(
        (source.model, shown.join(" ").as_str()),
        ("example.org/card", "b=on n=4 s=x")
    );
    for (text, what) in [
        (r#"{}"#, "not a parameter list"),
        (r#"{"model": "m"}"#, "no \"params\""),
        (r#"{"params": {}}"#, "no \"model\""),
        (r#"{"models": {}}"#, "migration information"),
        (r#"{"model": "m", "params": {"a": null}}"#, "params.a"),
        (r#"{"model": "m", "params": {"a": -1}}"#, "params.a"),
        (r#"{"model": "m", "params": {"a": "x\n"}}"#, "params.a"),
        (r#"{"model": "m", "params": {"a b": 1}}"#, "white space"),
        (r#"{"model": "m m", "params": {}}"#, "device model"),
        (r#"[]"#, "expected an object"),
    ] {
        let error = read_source(&arena, text.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(what), "{text}: {error}");
    }
}

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
