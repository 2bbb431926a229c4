// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Values and their changes.

use super::*;
use crate::model::change::{InUse, SetClass, SetError};
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;

const CLOSED: InUse = InUse::Closed;

fn at(name: &str) -> usize {
    MODEL.position(name).unwrap()
}

fn listed(values: &Values<'_>) -> Vec<String> {
    values.effective().map(|param| param.to_string()).collect()
}

fn set(values: &Values<'static>, name: &str, text: &str) -> Values<'static> {
    values
        .clone()
        .with_text(at(name), text.as_bytes(), CLOSED)
        .unwrap_or_else(|error| panic!("{error}"))
}

fn error(values: &Values<'static>, name: &str, text: &str, in_use: InUse) -> (SetClass, String) {
    let before: Vec<_> = values.all().map(|p| p.to_string()).collect();
    let error = values
        .with_text(at(name), text.as_bytes(), in_use)
        .expect_err("the value was accepted");
    let result = (error.class(), error.to_string());
    let after: Vec<_> = values.all().map(|p| p.to_string()).collect();
    assert_eq!(before, after);
    result
}

#[test]
fn a_new_instance_has_the_initial_values_of_its_type() {
    let all = |ty| {
        let values = Values::new(ty);
        values.all().map(|p| p.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        all(&FULL),
        [
            "num-ports=2",
            "fifo-depth=64",
            "msi=on",
            "vectors=off",
            "style=plain",
            "label=",
            "state-format=2"
        ]
    );
    assert_eq!(
        all(&SMALL),
        [
            "num-ports=1",
            "fifo-depth=16",
            "msi=off",
            "vectors=off",
            "style=plain",
            "label=",
            "state-format=1"
        ]
    );
    assert!(all(&PLAIN_TYPE).is_empty());
}

#[test]
fn the_list_holds_what_differs_from_off() {
    assert_eq!(
        listed(&Values::new(&FULL)),
        [
            "num-ports=2",
            "fifo-depth=64",
            "msi=on",
            "style=plain",
            "state-format=2"
        ]
    );
    // A parameter without off value is always in the list.
    assert_eq!(listed(&Values::new(&SMALL)), ["num-ports=1", "style=plain"]);
}

#[test]
fn values_are_small_enough_for_a_kernel_stack() {
    assert!(core::mem::size_of::<Values<'_>>() <= 512);
}

#[test]
fn values_are_read_back_as_written() {
    let mut values = Values::new(&FULL);
    for (name, text) in [
        ("num-ports", "4"),
        ("fifo-depth", "33"),
        ("msi", "on"),
        ("vectors", "on"),
        ("style", "a \"b\" \\ c"),
        ("label", "some text, größe"),
        ("state-format", "18446744073709551615"),
    ] {
        values = set(&values, name, text);
        assert_eq!(values.named(name).unwrap().to_string(), text);
        values = set(&values, name, &std::format!("{text}\n"));
        assert_eq!(values.named(name).unwrap().to_string(), text);
    }
    let longest = "v".repeat(64);
    assert_eq!(
        set(&values, "label", &longest).named("label"),
        Some(Value::Str(&longest))
    );
    assert_eq!(values.named("nothing"), None);
    assert_eq!(values.get(7), None);
}

#[test]
fn values_that_are_no_values_are_refused_with_the_reason() {
    let values = Values::new(&FULL);
    for (name, text, reason) in [
        ("num-ports", "3", "num-ports: 3 is not one of 1-2, 4"),
        (
            "num-ports",
            "x",
            "num-ports: the value is not a number (0, 1, 2 ...)",
        ),
        (
            "num-ports",
            "",
            "num-ports: the value is not a number (0, 1, 2 ...)",
        ),
        ("msi", "yes", "msi: the value is neither 'on' nor 'off'"),
        (
            "style",
            "fancy",
            r#"style: "fancy" is not one of "", "plain", "a \"b\" \\ c", "größe""#,
        ),
        (
            "label",
            "a\nb",
            "label: the value contains a newline or another control character",
        ),
        (
            "label",
            &"v".repeat(65),
            "label: the value is longer than 64 bytes",
        ),
    ] {
        let expected = (SetClass::Invalid, String::from(reason));
        assert_eq!(error(&values, name, text, CLOSED), expected);
        // A value that can never be right is at fault, not the moment.
        assert_eq!(error(&values, name, text, InUse::Open), expected);
    }
    let wrong = values.with(0, Value::Bool(true), CLOSED).unwrap_err();
    assert!(matches!(wrong, SetError::Kind { .. }));
    let none = values.with(7, Value::Int(1), CLOSED).unwrap_err();
    assert_eq!(none, SetError::NoParam);
}

#[test]
fn a_type_allows_less_than_its_model() {
    let small = Values::new(&SMALL);
    assert_eq!(
        error(&small, "num-ports", "2", CLOSED).1,
        "num-ports: 2 is not one of 1"
    );
    assert_eq!(
        error(&small, "state-format", "4", CLOSED).1,
        "state-format: 4 is not one of 1-3"
    );
    assert_eq!(
        error(&Values::new(&BIG), "fifo-depth", "16", CLOSED).1,
        "fifo-depth: 16 is not one of 32-64"
    );
}

#[test]
fn requirements_hold_from_both_sides() {
    let values = Values::new(&FULL);
    let one_port = set(&values, "num-ports", "1");
    assert_eq!(
        error(&one_port, "vectors", "on", CLOSED),
        (
            SetClass::Invalid,
            "vectors: on requires num-ports 2, 4, not 1".to_string()
        )
    );
    let with_vectors = set(&values, "vectors", "on");
    assert_eq!(
        error(&with_vectors, "num-ports", "1", CLOSED).1,
        "vectors: on requires num-ports 2, 4, not 1"
    );
    assert_eq!(
        error(&with_vectors, "msi", "off", CLOSED).1,
        "vectors: on requires msi on, not off"
    );
    let four = set(&with_vectors, "num-ports", "4");
    let off = set(&four, "vectors", "off");
    set(&off, "msi", "off");
}

#[test]
fn an_open_device_changes_its_state_representation_only() {
    let values = Values::new(&FULL);
    for name in ["num-ports", "msi", "label"] {
        let text = values.named(name).unwrap().to_string();
        let (class, reason) = error(&values, name, &text, InUse::Open);
        assert_eq!(class, SetClass::Busy);
        let expected = std::format!("{name}: cannot change while the device is open");
        assert_eq!(reason, expected);
    }
    let new = values
        .with_text(at("state-format"), b"1", InUse::Open)
        .unwrap();
    assert_eq!(new.named("state-format"), Some(Value::Int(1)));
    assert_eq!(
        error(&values, "state-format", "1", InUse::Migrating),
        (
            SetClass::Busy,
            "state-format: cannot change while state is saved or loaded".to_string()
        )
    );
}

#[test]
fn versions_are_bundles_of_values() {
    let values = Values::new(&FULL);
    assert_eq!(values.version(), Some("v2"));
    let old = values.with_version(b"v1\n", CLOSED).unwrap();
    assert_eq!(old.version(), Some("v1"));
    assert_eq!(listed(&old), ["num-ports=2", "style=plain"]);
    // What a version does not name stays, and does not count.
    let other = set(&old, "num-ports", "4");
    assert_eq!(other.version(), Some("v1"));
    let custom = set(&old, "fifo-depth", "17");
    assert_eq!(custom.version(), None);
    assert_eq!(custom.with_version(b"v2", CLOSED).unwrap(), values);
}

#[test]
fn versions_a_type_does_not_offer_are_unknown() {
    let small = Values::new(&SMALL);
    assert_eq!(small.version(), Some("v1"));
    let error = small.with_version(b"v2", CLOSED).unwrap_err();
    assert_eq!(error.class(), SetClass::Invalid);
    assert_eq!(error.to_string(), "version: v2 is not one of v1");
    for text in ["", "v3", "custom", "v 1", "v1\n\n", "V1", "v1\0"] {
        let error = small.with_version(text.as_bytes(), CLOSED).unwrap_err();
        assert_eq!(error.class(), SetClass::Invalid, "{text:?}");
    }
    let plain = Values::new(&PLAIN_TYPE);
    assert_eq!(plain.version(), None);
    assert!(plain.with_version(b"v1", CLOSED).is_err());
}

#[test]
fn a_version_that_breaks_a_requirement_is_refused_whole() {
    let values = set(&Values::new(&FULL), "vectors", "on");
    let error = values.with_version(b"v1", CLOSED).unwrap_err();
    assert_eq!(error.class(), SetClass::Invalid);
    assert_eq!(error.to_string(), "vectors: on requires msi on, not off");
}

#[test]
fn a_version_may_be_written_to_an_open_device_if_only_the_representation_changes() {
    let values = Values::new(&FULL);
    let same = values.with_version(b"v2", InUse::Open).unwrap();
    assert_eq!(same, values);
    let error = values.with_version(b"v1", InUse::Open).unwrap_err();
    assert_eq!(error.class(), SetClass::Busy);

    let almost = set(&values, "state-format", "1");
    assert_eq!(almost.with_version(b"v2", InUse::Open).unwrap(), values);
    let error = almost.with_version(b"v2", InUse::Migrating).unwrap_err();
    assert_eq!(error.class(), SetClass::Busy);
}

#[test]
fn writing_the_model_resets_the_version() {
    let values = set(&Values::new(&FULL), "num-ports", "4");
    let old = values.with_version(b"v1", CLOSED).unwrap();
    let reset = old.with_model(b"example.org/pci/card\n", CLOSED).unwrap();
    assert_eq!(reset, values);
    let small = Values::new(&SMALL);
    let same = small.with_model(b"example.org/pci/card", CLOSED).unwrap();
    assert_eq!(same.version(), Some("v1"));
    for text in ["", "example.org/pci", "example.org/pci/card\n\n"] {
        let error = old.with_model(text.as_bytes(), CLOSED).unwrap_err();
        assert_eq!(error.class(), SetClass::Invalid);
        assert_eq!(
            error.to_string(),
            "device_model: this device is a example.org/pci/card"
        );
    }
}

#[test]
fn off_values_come_in_reverse_order_and_only_where_there_are_any() {
    let off = |ty: &Type<'static>| {
        let values = ty.off_values().map(|param| param.to_string());
        values.collect::<Vec<_>>()
    };
    assert_eq!(
        off(&FULL),
        [
            "state-format=1",
            "label=",
            "style=",
            "vectors=off",
            "msi=off",
            "fifo-depth=16"
        ]
    );
    // This type has neither a small FIFO nor devices without MSI.
    assert_eq!(off(&BIG), ["state-format=1", "label=", "style="]);
}

proptest! {
    /// Whatever is tried, the values are allowed and meet the requirements.
    #[test]
    fn values_are_always_sound(values in any_values(&FULL), small in any_values(&SMALL)) {
        for values in [values, small] {
            let ty = values.ty();
            for (param, def) in values.all().zip(values.model().params) {
                prop_assert!(ty.allows(def, &param.value), "{}", param);
            }
            prop_assert_eq!(values.all().count(), values.model().params.len());
            prop_assert_eq!(ty.unmet(|at| values.get(at)).next(), None);
        }
    }

    #[test]
    fn a_value_reads_back_and_the_others_stay(
        values in any_values(&FULL),
        position in 0..7usize,
        value in any_value(),
    ) {
        if let Ok(new) = values.with(position, value, CLOSED) {
            prop_assert_eq!(new.get(position), Some(value));
            for other in (0..7).filter(|&other| other != position) {
                prop_assert_eq!(new.get(other), values.get(other));
            }
        }
    }

    #[test]
    fn arbitrary_text_never_panics(
        values in any_values(&FULL),
        position in 0..8usize,
        text in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        for in_use in [InUse::Closed, InUse::Open, InUse::Migrating] {
            if let Err(error) = values.with_text(position, &text, in_use) {
                let _ = error.to_string();
            }
            let _ = values.with_version(&text, in_use).is_ok();
            let _ = values.with_model(&text, in_use).is_ok();
        }
    }
}
