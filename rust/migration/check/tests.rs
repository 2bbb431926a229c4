// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use crate::model::tests::{any_value, any_values, BIG, FULL, MODEL, PLAIN, PLAIN_TYPE, SMALL};
use crate::model::{InUse, Values};
use crate::stream::{write_setup, Phase, SetupRecord, SliceSink};
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec::Vec;

const TYPES: [&Type<'static>; 3] = [&FULL, &SMALL, &BIG];

fn param<'a>(name: &'a str, value: Value<'a>) -> Param<'a> {
    Param { name, value }
}

fn checked(model: &str, list: &[Param<'_>], ty: &Type<'_>) -> Vec<String> {
    check(model, list.iter().copied(), ty)
        .map(|reason| reason.to_string())
        .collect()
}

fn verified(model: &str, list: &[Param<'_>], values: &Values<'_>) -> Vec<String> {
    verify(model, list.iter().copied(), values)
        .map(|reason| reason.to_string())
        .collect()
}

/// Sets an instance up as the contract says: off values first, then the list.
fn set_up(
    start: &Values<'static>,
    list: &[Param<'_>],
) -> Result<Values<'static>, (String, String)> {
    let mut values = start.clone();
    let ty = values.ty();
    for param in ty.off_values().chain(list.iter().copied()) {
        let position = ty.model.position(param.name);
        let position = position.ok_or_else(|| (param.to_string(), "unknown".to_string()))?;
        let new = values
            .with(position, param.value, InUse::Closed)
            .map_err(|error| (param.to_string(), error.to_string()))?;
        values = new;
    }
    Ok(values)
}

#[test]
fn another_model_is_the_only_reason() {
    let list = [param("nonsense", Value::Int(1))];
    let expected = ["model: source is example.org/other, this device is example.org/pci/card"];
    assert_eq!(checked("example.org/other", &list, &FULL), expected);
    let values = Values::new(&FULL);
    assert_eq!(verified("example.org/other", &list, &values), expected);
}

#[test]
fn a_model_without_parameters_takes_an_empty_list_only() {
    let values = Values::new(&PLAIN_TYPE);
    assert!(checked(PLAIN.name, &[], &PLAIN_TYPE).is_empty());
    assert!(verified(PLAIN.name, &[], &values).is_empty());
    let list = [param("new", Value::Bool(true))];
    let expected = ["new: source has on, this device does not know it"];
    assert_eq!(checked(PLAIN.name, &list, &PLAIN_TYPE), expected);
    assert_eq!(verified(PLAIN.name, &list, &values), expected);
}

#[test]
fn every_reason_is_given() {
    let list = [
        param("num-ports", Value::Int(8)),
        param("newest", Value::Str("shiny")),
        param("msi", Value::Int(1)),
        param("fifo-depth", Value::Int(64)),
        param("label", Value::Str("x")),
        param("label", Value::Str("y")),
    ];
    assert_eq!(
        checked(MODEL.name, &list, &SMALL),
        [
            "newest: source has \"shiny\", this device does not know it",
            "msi: source has 1 of type int, this device expects bool",
            "label: source gives it twice",
            "num-ports: source has 8, this device allows 1",
            "fifo-depth: source has 64, this device allows 16",
        ]
    );
    assert_eq!(
        verified(MODEL.name, &list, &Values::new(&SMALL)),
        [
            "newest: source has \"shiny\", this device does not know it",
            "msi: source has 1 of type int, this device expects bool",
            "label: source gives it twice",
            "num-ports: source has 8, this device has 1",
            "fifo-depth: source has 64, this device has 16",
            "style: source has \"\", this device has \"plain\"",
            "label: source has \"x\", this device has \"\"",
        ]
    );
}

#[test]
fn a_missing_parameter_is_off_or_a_reason() {
    let ports = param("num-ports", Value::Int(4));
    assert_eq!(
        checked(MODEL.name, &[], &FULL),
        ["num-ports: source lacks it, this device needs 1-2, 4"]
    );
    assert!(checked(MODEL.name, &[ports], &FULL).is_empty());
    // Types that exclude an off value do not take a source that has it.
    assert_eq!(
        checked(MODEL.name, &[ports], &BIG),
        [
            "fifo-depth: source has 16, this device allows 32-64",
            "msi: source has off, this device allows on",
            "vectors: source has off, this device allows on",
        ]
    );
    assert_eq!(
        verified(MODEL.name, &[], &Values::new(&SMALL)),
        [
            "num-ports: source lacks it, this device needs 1",
            "style: source has \"\", this device has \"plain\"",
        ]
    );
}

#[test]
fn requirements_are_tested_against_the_result() {
    let list = [
        param("num-ports", Value::Int(1)),
        param("vectors", Value::Bool(true)),
    ];
    assert_eq!(
        checked(MODEL.name, &list, &FULL),
        [
            "vectors: on requires num-ports 2, 4, not 1",
            "vectors: on requires msi on, not off",
        ]
    );
    // A value that is a reason by itself is not the reason for another one as well.
    let list = [
        param("num-ports", Value::Int(3)),
        param("msi", Value::Bool(true)),
        param("vectors", Value::Bool(true)),
    ];
    assert_eq!(
        checked(MODEL.name, &list, &FULL),
        ["num-ports: source has 3, this device allows 1-2, 4"]
    );
}

#[test]
fn an_instance_takes_what_is_in_effect_there_and_nothing_else() {
    let values = Values::new(&FULL);
    let list: Vec<_> = values.effective().collect();
    assert!(verified(MODEL.name, &list, &values).is_empty());

    let mut other = list.clone();
    other[0].value = Value::Int(4);
    assert_eq!(
        verified(MODEL.name, &other, &values),
        ["num-ports: source has 4, this device has 2"]
    );
    other[0].value = Value::Int(3);
    assert_eq!(
        verified(MODEL.name, &other, &values),
        ["num-ports: source has 3, this device allows 1-2, 4"]
    );
    assert_eq!(
        verified(MODEL.name, &list[..4], &values),
        ["state-format: source has 1, this device has 2"]
    );
    let mut more = list.clone();
    more.push(param("label", Value::Str("x")));
    assert_eq!(
        verified(MODEL.name, &more, &values),
        ["label: source has \"x\", this device has \"\""]
    );
    // Off said aloud is still off, and the order does not matter.
    let mut aloud = list;
    aloud.push(param("vectors", Value::Bool(false)));
    aloud.reverse();
    assert!(verified(MODEL.name, &aloud, &values).is_empty());
}

fn any_list() -> impl Strategy<Value = Vec<Param<'static>>> {
    let names: Vec<_> = MODEL.params.iter().map(|param| param.name).collect();
    let name = prop_oneof![9 => prop::sample::select(names), 1 => Just("unknown")];
    prop::collection::vec((name, any_value()), 0..8)
        .prop_map(|list| list.into_iter().map(|(n, v)| param(n, v)).collect())
}

/// A list that is likely to be good: an instance's, with a few changes.
fn any_likely_list() -> impl Strategy<Value = Vec<Param<'static>>> {
    (any_values(&FULL), prop::option::of(any_list())).prop_map(|(values, changes)| {
        let leaked: &'static Values<'static> = std::boxed::Box::leak(values.into());
        let mut list: Vec<_> = leaked.effective().collect();
        for change in changes.into_iter().flatten().take(1) {
            match list.iter_mut().find(|param| param.name == change.name) {
                Some(param) => *param = change,
                None => list.push(change),
            }
        }
        list
    })
}

proptest! {
    #[test]
    fn an_instance_has_nothing_against_what_is_in_effect_there(values in any_values(&FULL)) {
        let mut reasons = differences(values.model().name, values.effective(), &values);
        prop_assert_eq!(reasons.next().map(|reason| reason.to_string()), None);
    }

    #[test]
    fn every_type_takes_its_own_instances(which in 0..3usize, values in any_values(&FULL)) {
        let ty = TYPES[which];
        let own = match which {
            0 => values,
            _ => Values::new(ty),
        };
        prop_assert_eq!(check(MODEL.name, own.effective(), ty).next(), None);
        prop_assert_eq!(verify(MODEL.name, own.effective(), &own).next(), None);
    }

    /// The promise of the check: set-up succeeds from whatever the instance was before, and the
    /// instance then takes the stream.
    #[test]
    fn after_a_positive_check_set_up_succeeds_and_the_setup_record_is_accepted(
        list in prop_oneof![any_list(), any_likely_list()],
        full in any_values(&FULL),
        small in any_values(&SMALL),
        big in any_values(&BIG),
    ) {
        for start in [full, small, big] {
            if check(MODEL.name, list.iter().copied(), start.ty()).next().is_some() {
                continue;
            }
            let ready = match set_up(&start, &list) {
                Ok(ready) => ready,
                Err((param, error)) => panic!("{param}: {error}"),
            };
            let reasons = verified(MODEL.name, &list, &ready);
            prop_assert!(reasons.is_empty(), "{:?}", reasons);
        }
    }

    /// And it refuses nothing that would work.
    #[test]
    fn after_a_negative_check_set_up_fails_or_the_setup_record_is_refused(
        list in prop_oneof![any_list(), any_likely_list()],
        full in any_values(&FULL),
        small in any_values(&SMALL),
    ) {
        for start in [full, small] {
            if check(MODEL.name, list.iter().copied(), start.ty()).next().is_none() {
                continue;
            }
            if let Ok(ready) = set_up(&start, &list) {
                let reasons = verified(MODEL.name, &list, &ready);
                prop_assert!(!reasons.is_empty(), "{:?}", list);
            }
        }
    }

    #[test]
    fn instances_agree_if_their_lists_do(a in any_values(&FULL), b in any_values(&FULL)) {
        let agree = verify(MODEL.name, a.effective(), &b).next().is_none();
        prop_assert_eq!(agree, a.effective().eq(b.effective()));
        prop_assert_eq!(agree, a == b);
    }

    /// The list survives the setup record, and the verdict with it.
    #[test]
    fn a_setup_record_carries_the_list(values in any_values(&FULL)) {
        let mut buffer = [0; 4096];
        let mut sink = SliceSink::new(&mut buffer);
        write_setup(&mut sink, Phase::PreCopy, MODEL.name, values.effective()).unwrap();
        let record = SetupRecord::parse(sink.written()).unwrap();
        prop_assert!(record.params().eq(values.effective()));
        prop_assert_eq!(verify(record.model, record.params(), &values).next(), None);
    }
}
