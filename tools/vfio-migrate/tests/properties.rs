// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Properties of any model, type and parameter list.

use migration::check::{check, verify};
use migration::info::{MigrationInfo, ParameterList};
use migration::model::{
    Allowed, InUse, IntRange, Model, Narrowed, ParamDef, Requirement, Type, Values, Version,
    MAX_TEXTS,
};
use migration::value::{Kind, Param, Value};
use proptest::prelude::*;
use vfio_migrate::json::{read_info, read_source, Bump, Source};
use vfio_migrate::prepare::steps;
use vfio_migrate::select::{judge, Selection, Verdict};

const MODEL: &str = "example.org/pci/card";
const NAMES: [&str; 5] = ["num-queues", "größe", "msi", "x.y", "label"];
const TEXTS: [&str; 4] = ["", "two words", "a\"b\\c", "höhe"];

/// What a parameter is made from.
#[derive(Clone, Debug)]
struct Spec {
    kind: Kind,
    /// Which values are allowed: bits; 0 stands for any.
    allowed: u8,
    /// Which of them the type allows: bits; 0 stands for all.
    narrowed: u8,
    init: usize,
    off: Option<usize>,
    runtime: bool,
    /// Which earlier parameter is required, and which of its values: bits.
    requires: Option<(usize, u8)>,
    description: String,
}

fn spec() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![Just(Kind::Bool), Just(Kind::Int), Just(Kind::Str)];
    let requires = prop::option::weighted(0.4, (0usize..5, 1u8..16));
    (
        kind,
        0u8..16,
        0u8..16,
        0usize..4,
        prop::option::weighted(0.7, 0usize..4),
        any::<bool>(),
        requires,
        ".{0,20}",
    )
        .prop_map(
            |(kind, allowed, narrowed, init, off, runtime, requires, description)| Spec {
                kind,
                allowed,
                narrowed,
                init,
                off,
                runtime,
                requires,
                description,
            },
        )
}

/// Four values of each kind; two for bool.
fn value(kind: Kind, index: usize) -> Value<'static> {
    match kind {
        Kind::Bool => Value::Bool(index % 2 == 1),
        // The last is within the range that stands for its bit.
        Kind::Int => Value::Int([0, 4, 16, u64::MAX][index % 4]),
        Kind::Str => Value::Str(TEXTS[index % 4]),
    }
}

fn allowed_of(arena: &Bump, kind: Kind, bits: u8) -> Allowed<'_> {
    let chosen = |index: &usize| bits & (1 << index) != 0;
    if bits == 0 {
        return Allowed::Any;
    }
    match kind {
        Kind::Bool => {
            let list: Vec<bool> = (0..2).filter(chosen).map(|index| index == 1).collect();
            match list.is_empty() {
                true => Allowed::Any,
                false => Allowed::Bool(arena.alloc_slice_copy(&list)),
            }
        }
        Kind::Int => {
            let ranges = [
                IntRange::one(0),
                IntRange::new(1, 8),
                IntRange::one(16),
                IntRange::new(17, u64::MAX),
            ];
            let list: Vec<IntRange> = (0..4).filter(chosen).map(|index| ranges[index]).collect();
            Allowed::Int(arena.alloc_slice_copy(&list))
        }
        Kind::Str => {
            let list: Vec<&str> = (0..4).filter(chosen).map(|index| TEXTS[index]).collect();
            Allowed::Str(arena.alloc_slice_copy(&list))
        }
    }
}

/// The first value from `index` on that is allowed.
fn pick(kind: Kind, allowed: &Allowed<'_>, index: usize) -> Value<'static> {
    let mut values = (index..index + 4).map(|index| value(kind, index));
    values
        .find(|value| allowed.contains(value))
        .unwrap_or_else(|| value(kind, index))
}

/// A type that its tables' own rules find nothing wrong with, or nothing.
fn build<'a>(arena: &'a Bump, specs: &[Spec], with_versions: bool) -> Option<Type<'a>> {
    let mut params: Vec<ParamDef<'a>> = Vec::new();
    let mut narrowed = Vec::new();
    for (spec, name) in specs.iter().zip(NAMES) {
        let allowed = allowed_of(arena, spec.kind, spec.allowed);
        let init = pick(spec.kind, &allowed, spec.init);
        let off = spec.off.map(|off| pick(spec.kind, &allowed, off));
        let requires: Vec<Requirement<'a>> = spec
            .requires
            .and_then(|(at, bits)| {
                let other = params.get(at)?;
                // What its initial value is has to do, lest most tables be wrong.
                let init = (0..4).find(|index| value(other.kind, *index) == other.init)?;
                let allowed = allowed_of(
                    arena,
                    other.kind,
                    (bits | (1 << init)) & specs[at].allowed.max(1),
                );
                off.is_some().then_some(Requirement {
                    param: other.name,
                    allowed,
                })
            })
            .filter(|requirement| requirement.allowed != Allowed::Any)
            .into_iter()
            .collect();
        let less = spec.allowed & spec.narrowed;
        if less != 0 {
            let allowed = allowed_of(arena, spec.kind, less);
            if allowed != Allowed::Any {
                let init = pick(spec.kind, &allowed, spec.init);
                narrowed.push(Narrowed {
                    param: name,
                    allowed,
                    init,
                });
            }
        }
        params.push(ParamDef {
            name,
            description: arena.alloc_str(&spec.description),
            kind: spec.kind,
            allowed,
            init,
            off,
            runtime: spec.runtime,
            requires: arena.alloc_slice_copy(&requires),
        });
    }
    let plain = Type {
        model: arena.alloc(Model {
            name: MODEL,
            params: arena.alloc_slice_copy(&params),
            versions: &[],
            init_version: None,
        }),
        narrowed: arena.alloc_slice_copy(&narrowed),
        init_version: None,
    };
    // One version of what new instances have, and one with the first parameter that can be off being so.
    let init: Vec<Param<'a>> = params
        .iter()
        .map(|def| Param {
            name: def.name,
            value: plain.init(def),
        })
        .collect();
    let mut other = init.clone();
    let switched = params.iter().zip(&mut other).find_map(|(def, param)| {
        let off = plain.off(def).filter(|off| *off != param.value)?;
        param.value = off;
        Some(())
    });
    let mut versions = vec![Version {
        name: "v2",
        values: arena.alloc_slice_copy(&init),
    }];
    if switched.is_some() {
        versions.insert(
            0,
            Version {
                name: "v1",
                values: arena.alloc_slice_copy(&other),
            },
        );
    }
    let ty = match with_versions && !init.is_empty() {
        true => Type {
            model: arena.alloc(Model {
                versions: arena.alloc_slice_copy(&versions),
                init_version: Some("v2"),
                ..*plain.model
            }),
            ..plain
        },
        false => plain,
    };
    ty.problem().is_none().then_some(ty)
}

/// The same for a type that a device can have: an instance has room for so many free texts only.
fn build_device<'a>(arena: &'a Bump, specs: &[Spec]) -> Option<Type<'a>> {
    let is_free_text = |def: &&ParamDef<'_>| def.kind == Kind::Str && def.allowed == Allowed::Any;
    build(arena, specs, false)
        .filter(|ty| ty.model.params.iter().filter(is_free_text).count() <= MAX_TEXTS)
}

fn print(ty: &Type<'_>) -> String {
    MigrationInfo {
        generation: Some("g 1"),
        types: std::slice::from_ref(ty),
    }
    .to_string()
}

/// A list of parameters, some of which the model does not know.
fn list() -> impl Strategy<Value = Vec<(usize, Kind, usize)>> {
    let kind = prop_oneof![Just(Kind::Bool), Just(Kind::Int), Just(Kind::Str)];
    prop::collection::vec((0usize..6, kind, 0usize..4), 0..6)
}

/// The list, with the kinds that the model has more often than not.
fn params(ty: &Type<'_>, list: &[(usize, Kind, usize)], honest: bool) -> Vec<Param<'static>> {
    let mut params: Vec<Param<'static>> = Vec::new();
    for (name, kind, index) in list {
        let name = NAMES.get(*name).copied().unwrap_or("unheard-of");
        let kind = ty
            .model
            .param(name)
            .filter(|_| honest)
            .map_or(*kind, |def| def.kind);
        if params.iter().all(|param| param.name != name) {
            params.push(Param {
                name,
                value: value(kind, *index),
            });
        }
    }
    params
}

/// Values that an instance can come to have by writes.
fn reached<'a>(ty: &'a Type<'a>, writes: &[(usize, usize)]) -> Values<'a> {
    let mut values = Values::new(ty);
    for (at, index) in writes {
        if let Some(def) = ty.model.params.get(*at) {
            let new = values
                .with(*at, value(def.kind, *index), InUse::Closed)
                .ok();
            values = new.unwrap_or_else(|| values.clone());
        }
    }
    values
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    prop::collection::vec(spec(), 0..=5)
}

fn writes() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0usize..5, 0usize..4), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_global_rejects: 40_000, ..ProptestConfig::default() })]

    #[test]
    fn printed_information_parses_back_to_the_same_table(specs in specs(), with_versions: bool, list in list(), honest: bool) {
        let arena = Bump::new();
        let ty = build(&arena, &specs, with_versions);
        prop_assume!(ty.is_some());
        let ty = ty.unwrap();
        let printed = print(&ty);
        let info = read_info(&arena, printed.as_bytes());
        prop_assert!(info.is_ok(), "{}: {printed}", info.unwrap_err());
        let read = info.unwrap().types[0];
        prop_assert_eq!(print(&read), printed.as_str());
        // The same table gives the same answers. Where the type excludes the off value, the document has none: then only the
        // words of a refusal differ.
        let list = params(&ty, &list, honest);
        let reasons = |ty: &Type<'_>| check(MODEL, list.iter().copied(), ty).count();
        prop_assert_eq!(reasons(&ty), reasons(&read));
    }

    #[test]
    fn an_instance_s_own_type_can_take_it(specs in specs(), writes in writes()) {
        let arena = Bump::new();
        let ty = build_device(&arena, &specs);
        prop_assume!(ty.is_some());
        let ty = ty.unwrap();
        let values = reached(&ty, &writes);
        let reasons: Vec<String> = check(MODEL, values.effective(), &ty).map(|r| r.to_string()).collect();
        prop_assert!(reasons.is_empty(), "{reasons:?}");
        let itself: Vec<String> = verify(MODEL, values.effective(), &values).map(|r| r.to_string()).collect();
        prop_assert!(itself.is_empty(), "{itself:?}");
    }

    #[test]
    fn what_the_check_accepts_can_be_set_up_from_any_values(specs in specs(), writes in writes(), list in list(), own in writes(), honest: bool) {
        let arena = Bump::new();
        let ty = build_device(&arena, &specs);
        prop_assume!(ty.is_some());
        let ty = ty.unwrap();
        // A list from anywhere, and one that another instance of the type has.
        let source = reached(&ty, &own);
        for list in [params(&ty, &list, honest), source.effective().collect()] {
            if check(MODEL, list.iter().copied(), &ty).next().is_some() {
                continue;
            }
            let mut values = reached(&ty, &writes);
            for step in steps(&ty, &Source { model: MODEL, params: &list }) {
                let position = ty.model.position(step.name).unwrap();
                let new = values.with(position, step.value, InUse::Closed).map_err(|error| error.to_string());
                prop_assert!(new.is_ok(), "{step}: {} ({})", new.unwrap_err(), print(&ty));
                values = new.unwrap();
            }
            let left: Vec<String> = verify(MODEL, list.iter().copied(), &values).map(|r| r.to_string()).collect();
            prop_assert!(left.is_empty(), "{left:?}");
        }
    }

    #[test]
    fn a_printed_parameter_list_parses_back(specs in specs(), writes in writes()) {
        let arena = Bump::new();
        let ty = build_device(&arena, &specs);
        prop_assume!(ty.is_some());
        let ty = ty.unwrap();
        let values = reached(&ty, &writes);
        let printed = ParameterList { model: MODEL, params: values.effective() }.to_string();
        let source = read_source(&arena, printed.as_bytes());
        prop_assert!(source.is_ok(), "{}: {printed}", source.unwrap_err());
        let source = source.unwrap();
        prop_assert_eq!(source.model, MODEL);
        // Of a list, the order says nothing.
        let mut wanted: Vec<Param<'_>> = values.effective().collect();
        wanted.sort_by_key(|param| param.name);
        prop_assert_eq!(wanted, source.params.to_vec(), "{}", printed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn select_is_the_check_of_each_candidate_in_order(candidates in prop::collection::vec((specs(), any::<bool>()), 1..20), list in list()) {
        let arena = Bump::new();
        let types: Vec<Type<'_>> =
            candidates.iter().filter_map(|(specs, with_versions)| build(&arena, specs, *with_versions)).collect();
        prop_assume!(!types.is_empty());
        let list = params(&types[0], &list, true);
        let source = Source { model: MODEL, params: &list };
        // One line each: the printed documents have several.
        let lines: String = types.iter().map(|ty| print(ty).replace('\n', " ") + "\n").collect();
        let mut selection = Selection::new(&source);
        selection.stream("input", lines.as_bytes()).unwrap();
        let selected = selection.finish();
        prop_assert_eq!(selected.len(), types.len());
        // Who is compatible.
        for (number, ty) in types.iter().enumerate() {
            let name = format!("line {}", number + 1);
            let found = selected.iter().find(|judged| judged.name == name).unwrap();
            let is_compatible = check(MODEL, list.iter().copied(), ty).next().is_none();
            prop_assert_eq!(matches!(found.verdict, Verdict::Compatible { .. }), is_compatible, "{}", name);
        }
        // And in which order.
        let mut wanted: Vec<(u8, Option<vfio_migrate::select::Rank>, usize)> = types
            .iter()
            .enumerate()
            .map(|(number, ty)| match judge(&source, std::slice::from_ref(ty)) {
                Verdict::Compatible { rank, .. } => (0, Some(rank), number),
                _ => (1, None, number),
            })
            .collect();
        wanted.sort();
        let wanted: Vec<String> = wanted.into_iter().map(|(_, _, number)| format!("line {}", number + 1)).collect();
        let names: Vec<String> = selected.iter().map(|judged| judged.name.clone()).collect();
        prop_assert_eq!(names, wanted);
    }
}
