// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use std::io::Read;

use crate::json::read_source;
use crate::note::texts;

fn document(name: &str, ports: &str, init: u64) -> String {
    format!(
        r#"{{"name": "{name}", "models": {{"m": {{"params": {{"ports": {{"type": "int", "allowed_values": [{ports}], "init_value": {init}}}}}}}}}}}"#
    )
}

fn select(lines: &[u8]) -> Vec<Judged> {
    let arena = Bump::new();
    let source = read_source(&arena, br#"{"model": "m", "params": {"ports": 2}}"#).unwrap();
    let mut selection = Selection::new(&source);
    selection.stream("input", lines).unwrap();
    selection.finish()
}

fn names(judged: &[Judged]) -> Vec<&str> {
    judged.iter().map(|judged| judged.name.as_str()).collect()
}

#[test]
fn the_least_change_then_the_least_waste_comes_first() {
    let lines = [
        document("refused", "1", 1),
        document("wide", r#""1-64""#, 2),
        document("to-change", "1, 2", 1),
        document("exact", "2", 2),
        document("wider-to-change", "1, 2, 3", 1),
        document("pair", "2, 4", 2),
    ];
    let judged = select(lines.join("\n").as_bytes());
    assert_eq!(
        names(&judged),
        [
            "exact",
            "pair",
            "wide",
            "to-change",
            "wider-to-change",
            "refused"
        ]
    );
    let Verdict::Refused(reasons) = &judged[5].verdict else {
        panic!("{judged:?}");
    };
    assert_eq!(
        texts(reasons, "; "),
        "ports: source has 2, this device allows 1"
    );
}

#[test]
fn equals_stay_in_the_order_they_came() {
    let lines: Vec<String> = (0..20)
        .map(|i| document(&format!("h{i:02}"), "2", 2))
        .collect();
    let judged = select(lines.join("\n").as_bytes());
    assert!(names(&judged).is_sorted());
}

#[test]
fn a_text_that_may_be_anything_hides_no_waste() {
    // Both kinds of text, which have more values than a number of 64 bits tells.
    let texts = r#""serial": {"type": "str", "max_length": 20, "init_value": "", "off_value": ""}, "label": {"type": "str", "init_value": "", "off_value": ""}, "#;
    let with_texts = |name, ports| {
        let document = document(name, ports, 2);
        document.replace(r#""ports":"#, &format!(r#"{texts}"ports":"#))
    };
    let lines = [
        with_texts("a-wide", r#""1-64""#),
        with_texts("b-pair", "2, 4"),
        with_texts("c-exact", "2"),
    ];
    let judged = select(lines.join("\n").as_bytes());
    assert_eq!(names(&judged), ["c-exact", "b-pair", "a-wide"]);
}

#[test]
fn a_text_of_a_length_has_as_many_values_as_there_are() {
    let ascii = |max| count(&Allowed::Ascii { max });
    assert_eq!([0, 1, 2].map(ascii), [1, 1 + 95, 1 + 95 + 95 * 95]);
    assert_eq!([64, usize::MAX].map(ascii), [u64::MAX; 2]);
}

#[test]
fn lines_without_a_name_are_numbered_and_empty_ones_skipped() {
    let nameless = document("x", "2", 2).replace(r#""name": "x", "#, "");
    let text = format!("\n{nameless}\r\n   \n{nameless}");
    assert_eq!(names(&select(text.as_bytes())), ["line 2", "line 4"]);
}

#[test]
fn a_line_that_cannot_be_read_is_told_and_the_rest_goes_on() {
    let good = document("good", "2", 2);
    let text = format!("{{\"models\": 1}}\n{good}\nnonsense\n");
    let judged = select(text.as_bytes());
    assert_eq!(names(&judged), ["good", "line 1", "line 3"]);
    let Verdict::Unreadable(why) = &judged[2].verdict else {
        panic!("{judged:?}");
    };
    assert!(why.starts_with("input:3:"), "{why}");
}

#[test]
fn a_line_without_end_takes_bounded_memory() {
    let good = document("good", "2", 2);
    let digits = std::io::repeat(b'7').take(64 << 20);
    let text = good
        .as_bytes()
        .chain(&b"\n"[..])
        .chain(digits)
        .chain(&b"\n"[..])
        .chain(good.as_bytes());
    let arena = Bump::new();
    let source = read_source(&arena, br#"{"model": "m", "params": {"ports": 2}}"#).unwrap();
    let mut selection = Selection::new(&source);
    selection
        .stream("input", std::io::BufReader::new(text))
        .unwrap();
    let judged = selection.finish();
    assert_eq!(names(&judged), ["good", "good", "line 2"]);
    let Verdict::Unreadable(why) = &judged[2].verdict else {
        panic!("{judged:?}");
    };
    assert!(why.contains("input:2:0: longer than"), "{why}");
}

#[test]
fn a_program_with_several_models_is_judged_by_the_source_s() {
    let both = r#"{"models": {"other": {"params": {}}, "m": {"params": {"ports": {"type": "int", "init_value": 1}}}}}"#;
    assert!(matches!(
        select(both.as_bytes())[0].verdict,
        Verdict::Compatible {
            rank: Rank { changes: 1, .. },
            ..
        }
    ));
    let neither = r#"{"models": {"other": {"params": {}}, "another": {"params": {}}}}"#;
    let Verdict::Refused(reasons) = &select(neither.as_bytes())[0].verdict else {
        panic!("neither is the source's");
    };
    assert_eq!(
        texts(reasons, "; "),
        "model: source is m, this device is another; model: source is m, this device is other"
    );
}
