// SPDX-License-Identifier: GPL-2.0 OR MIT

use std::io::Read;

use migration::model::{Allowed, IntRange};
use migration::value::{Kind, Value};

use super::*;

mod meaning;

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
fn a_length_stands_for_texts_and_must_hold_those_that_are_listed() {
    for (def, shown) in [
        (
            r#"{"type": "str", "init_value": "", "max_length": 20}"#,
            "printable ASCII of up to 20 characters",
        ),
        // What a new device has may be outside, as it may be of a list.
        (
            r#"{"type": "str", "init_value": "\u00e4", "max_length": 0}"#,
            "printable ASCII of up to 0 characters",
        ),
        (
            r#"{"type": "str", "init_value": "a", "max_length": 1, "allowed_values": ["a", "~"]}"#,
            r#""a", "~""#,
        ),
        (
            r#"{"type": "str", "init_value": "", "max_length": 99999999999999999999}"#,
            "printable ASCII of up to 18446744073709551615 characters",
        ),
    ] {
        assert_eq!(allowed(def), shown, "{def}");
    }
    for def in [
        r#"{"type": "str", "init_value": "", "max_length": 1, "allowed_values": ["ab"]}"#,
        r#"{"type": "str", "init_value": "", "max_length": 9, "allowed_values": ["", "\u00e4"]}"#,
        r#"{"type": "str", "init_value": "", "max_length": "9"}"#,
        r#"{"type": "str", "init_value": "", "max_length": true}"#,
        r#"{"type": "int", "init_value": 3, "max_length": 9}"#,
        r#"{"type": "bool", "init_value": true, "max_length": 9}"#,
        r#"{"type": "bool", "init_value": true, "max_length": 99999999999999999999}"#,
    ] {
        let problem = param_problem(def);
        assert!(problem.contains("max_length"), "{def}: {problem}");
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

#[test]
fn a_document_offers_in_one_form() {
    let models = r#""models": {"example.org/card": {"params": {}}}"#;
    let own = r#""self": {"model": "example.org/card", "params": {}}"#;
    let compatible = r#""compatible": []"#;
    let documents = [
        format!("{{{models}, {compatible}}}"),
        format!("{{{own}, {models}}}"),
        format!("{{{own}, {compatible}, {models}}}"),
    ];
    for text in documents {
        let arena = Bump::new();
        let candidate = read_candidate(&arena, text.as_bytes()).map(drop);
        let candidate = candidate.expect_err("it was read").to_string();
        for told in [candidate, problem(text.as_bytes())] {
            assert!(told.contains("told by one of them"), "{text}: {told}");
        }
    }
}
