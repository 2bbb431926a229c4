// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Properties of any document that is read, however odd: values that are not allowed, requirements of what is always on, members
//! in any order.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;

use migration::check::{check, verify};
use migration::info::MigrationInfo;
use migration::model::{
    Allowed, InUse, IntRange, Model, Narrowed, ParamDef, Type, Values, MAX_TEXTS,
};
use migration::value::{Kind, Param, Value};
use proptest::prelude::*;
use serde_json::{json, Map, Value as Json};
use vfio_migrate::error::Result;
use vfio_migrate::json::{read_info, read_source, Bump, Info, Source};
use vfio_migrate::prepare::{prepare, steps};
use vfio_migrate::sysfs::Parameters;

const MODEL: &str = "example.org/pci/card";
const NAMES: [&str; 6] = ["b", "a", "d", "größe", "c", "e"];

/// What a parameter is made from.
#[derive(Clone, Debug)]
struct Spec {
    kind: Kind,
    /// Which values are listed; `None` for no list.
    listed: Option<Vec<usize>>,
    /// How long text may be that is not listed.
    length: Option<usize>,
    init: usize,
    off: Option<usize>,
    /// Which other parameters are required, with which values, and whether what they are initially will do.
    requires: Vec<(usize, Vec<usize>, bool)>,
}

fn spec() -> impl Strategy<Value = Spec> {
    let kind = prop_oneof![Just(Kind::Bool), Just(Kind::Int), Just(Kind::Str)];
    let values = || prop::collection::vec(0usize..8, 0..5);
    let requirement = (0usize..NAMES.len(), values(), prop::bool::weighted(0.9));
    (
        kind,
        prop::option::weighted(0.7, values()),
        prop::option::of(0usize..100),
        0usize..8,
        prop::option::weighted(0.6, 0usize..8),
        prop::collection::vec(requirement, 0..3),
    )
        .prop_map(|(kind, listed, length, init, off, requires)| Spec {
            kind,
            listed,
            length,
            init,
            off,
            requires,
        })
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    prop::collection::vec(spec(), 1..=NAMES.len())
}

/// A value of the kind that a parameter can have, by a number.
fn value(kind: Kind, index: usize) -> Json {
    let long = "long ".repeat(20);
    match kind {
        Kind::Bool => json!(index % 2 == 1),
        Kind::Int => json!([0, 1, 2, 4, 7, 16, 17, u64::MAX][index % 8]),
        Kind::Str => json!(["", "a", "two words", "höhe", "\"", "z", "\u{1}", &long][index % 8]),
    }
}

/// What a list of allowed values has under that number: now and then a range, or what nobody can have.
fn entry(kind: Kind, index: usize) -> Json {
    match (kind, index % 8) {
        (Kind::Int, 3) => json!("2-16"),
        (Kind::Int, 6) => json!(1e20),
        (Kind::Int, 7) => json!("18446744073709551615-18446744073709551616"),
        _ => value(kind, index),
    }
}

/// The document. What a parameter requires comes from the parameters that `rank` puts before it, so that there is an order; but
/// now and then from itself or a later one.
fn document(specs: &[Spec], rank: &[usize], order: &[usize]) -> Json {
    let mut params = Map::new();
    for (at, spec) in specs.iter().enumerate() {
        let kind = spec.kind;
        let mut def = json!({"type": kind.name(), "init_value": value(kind, spec.init)});
        if let Some(listed) = &spec.listed {
            def["allowed_values"] = listed.iter().map(|index| entry(kind, *index)).collect();
        } else if let (Kind::Str, Some(length)) = (kind, spec.length) {
            def["max_length"] = json!(length);
        }
        if let Some(off) = spec.off {
            def["off_value"] = value(kind, off);
        }
        let mut requires = Map::new();
        for (other, listed, init_will_do) in &spec.requires {
            let Some(there) = specs.get(*other) else {
                continue;
            };
            if rank[*other] >= rank[at] && (listed.len() > 3 || rank[*other] % 4 != 3) {
                continue;
            }
            let mut listed: Vec<Json> = listed
                .iter()
                .map(|index| entry(there.kind, *index))
                .collect();
            if *init_will_do {
                listed.push(value(there.kind, there.init));
            }
            requires.insert(NAMES[*other].to_string(), Json::Array(listed));
        }
        if !requires.is_empty() {
            def["requires"] = Json::Object(requires);
        }
        params.insert(NAMES[at].to_string(), def);
    }
    let mut model = json!({"params": params});
    if !order.is_empty() {
        model["param_order"] = order.iter().map(|at| NAMES[*at]).collect();
    }
    json!({"models": {MODEL: model}})
}

/// The document as text, with the members of every object in the order of a hash of their names.
fn text(document: &Json, seed: u64) -> String {
    match document {
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| text(item, seed)).collect();
            format!("[{}]", items.join(","))
        }
        Json::Object(members) => {
            let mut members: Vec<(&String, &Json)> = members.iter().collect();
            members.sort_by_key(|(name, _)| {
                let mut hasher = DefaultHasher::new();
                (seed, name).hash(&mut hasher);
                hasher.finish()
            });
            let members = members
                .iter()
                .map(|(name, value)| format!("{}:{}", json!(name), text(value, seed)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        plain => plain.to_string(),
    }
}

/// A parameter list as text.
fn list_text(list: &[(usize, Kind, usize)], specs: &[Spec], honest: bool, seed: u64) -> String {
    let mut params = Map::new();
    for (name, kind, index) in list {
        let own = specs.get(*name).filter(|_| honest).map(|spec| spec.kind);
        let name = NAMES.get(*name).copied().unwrap_or("unheard-of");
        params.insert(name.to_string(), value(own.unwrap_or(*kind), *index));
    }
    text(&json!({"model": MODEL, "params": params}), seed)
}

fn list() -> impl Strategy<Value = Vec<(usize, Kind, usize)>> {
    let kind = prop_oneof![Just(Kind::Bool), Just(Kind::Int), Just(Kind::Str)];
    prop::collection::vec((0usize..7, kind, 0usize..8), 0..7)
}

/// The type of a device that is as the document says: drivers are built from such tables. Their rules are stricter than those
/// for documents; what an instance does on a write is the same.
fn device<'a>(arena: &'a Bump, ty: &Type<'a>) -> Option<Type<'a>> {
    // The model allows the initial value too, so that an instance can have it; the type does not.
    let widened = |def: &ParamDef<'a>| -> Allowed<'a> {
        match (def.allowed, def.init) {
            (Allowed::Str(listed), Value::Str(init)) => {
                let all: Vec<&str> = listed.iter().copied().chain([init]).collect();
                Allowed::Str(arena.alloc_slice_copy(&all))
            }
            (Allowed::Int(_), _) => {
                Allowed::Int(arena.alloc_slice_copy(&[IntRange::new(0, u64::MAX)]))
            }
            (Allowed::Bool(_), _) => Allowed::Bool(&[false, true]),
            (Allowed::Ascii { .. }, _) => Allowed::Any,
            (allowed, _) => allowed,
        }
    };
    let params = ty.model.params;
    let is_free = |def: &&ParamDef<'_>| {
        def.kind == Kind::Str && matches!(def.allowed, Allowed::Any | Allowed::Ascii { .. })
    };
    // What an instance has no room for.
    if params.iter().filter(is_free).count() > MAX_TEXTS
        || params
            .iter()
            .filter(is_free)
            .any(|def| def.init.problem().is_some())
    {
        return None;
    }
    let wide: Vec<ParamDef<'a>> = params
        .iter()
        .map(|def| ParamDef {
            allowed: widened(def),
            ..*def
        })
        .collect();
    let narrowed: Vec<Narrowed<'a>> = params
        .iter()
        .map(|def| Narrowed {
            param: def.name,
            allowed: def.allowed,
            init: def.init,
        })
        .collect();
    Some(Type {
        model: arena.alloc(Model {
            params: arena.alloc_slice_copy(&wide),
            ..*ty.model
        }),
        narrowed: arena.alloc_slice_copy(&narrowed),
        init_version: None,
    })
}

/// An instance, whose files a driver answers for.
struct Instance<'a>(Values<'a>);

impl Parameters for Instance<'_> {
    fn read(&self, name: &str) -> Result<String> {
        Ok(self.0.named(name).expect("no such file").to_string())
    }

    fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
        let position = self.0.model().position(name).expect("no such file");
        let old = self.0.clone();
        match old.with_text(position, value.as_bytes(), InUse::Closed) {
            Ok(new) => self.0 = new,
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
        Ok(())
    }

    fn reason(&self) -> String {
        String::new()
    }
}

/// An instance after some writes, those that were refused included.
fn reached<'a>(ty: &'a Type<'a>, writes: &[(usize, usize)]) -> Instance<'a> {
    let mut instance = Instance(Values::new(ty));
    for (at, index) in writes {
        if let Some(def) = ty.model.params.get(*at) {
            let text = match value(def.kind, *index) {
                Json::Bool(true) => "on".to_string(),
                Json::Bool(false) => "off".to_string(),
                Json::String(text) => text,
                number => number.to_string(),
            };
            let _ = instance.write(def.name, &text);
        }
    }
    instance
}

fn writes() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0usize..6, 0usize..8), 0..16)
}

fn permutation() -> impl Strategy<Value = Vec<usize>> {
    Just((0..NAMES.len()).collect::<Vec<_>>()).prop_shuffle()
}

fn reasons(source: &Source<'_>, ty: &Type<'_>) -> Vec<String> {
    let list = source.params.iter().copied();
    check(source.model, list, ty)
        .map(|reason| reason.to_string())
        .collect()
}

fn print(info: &Info<'_>) -> String {
    MigrationInfo {
        generation: info.generation,
        types: info.types,
    }
    .to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn what_the_check_accepts_is_set_up_by_prepare_from_any_values(
        specs in specs(), rank in permutation(), list in list(), honest in prop::bool::weighted(0.9), writes in writes(), own in writes(),
    ) {
        let arena = Bump::new();
        let document = document(&specs, &rank, &[]).to_string();
        let info = read_info(&arena, document.as_bytes());
        prop_assume!(info.is_ok());
        let ty = info.unwrap().types[0];
        let device = device(&arena, &ty);
        prop_assume!(device.is_some());
        let device = device.unwrap();
        // A list from anywhere, and one that another instance of the type has.
        let list = list_text(&list, &specs, honest, 0);
        let other = reached(&device, &own);
        let effective: Vec<Param<'_>> = other.0.effective().collect();
        let sources = [
            read_source(&arena, list.as_bytes()).unwrap(),
            Source { model: MODEL, params: &effective },
        ];
        for source in sources {
            if !reasons(&source, &ty).is_empty() {
                continue;
            }
            let mut instance = reached(&device, &writes);
            let before = instance.0.clone();
            let steps = steps(&ty, &source);
            let done = prepare(&mut instance, &ty, &steps).unwrap();
            prop_assert!(
                done.is_ok(),
                "{}: {:?} for {:?} from {:?}",
                document, done.unwrap_err(), source.params, before.all().collect::<Vec<_>>()
            );
            let left = verify(MODEL, source.params.iter().copied(), &instance.0);
            let left: Vec<String> = left.map(|reason| reason.to_string()).collect();
            prop_assert!(left.is_empty(), "{document}: {left:?}");
        }
    }

    #[test]
    fn the_order_of_members_means_nothing(
        specs in specs(), rank in permutation(), order in prop_oneof![Just(Vec::new()), permutation()], list in list(), honest: bool, seed: u64,
    ) {
        let arena = Bump::new();
        let document = document(&specs, &rank, &order);
        let texts = [0, seed].map(|seed| text(&document, seed));
        let infos = [&texts[0], &texts[1]].map(|text| read_info(&arena, text.as_bytes()));
        let lists = [0, seed].map(|seed| list_text(&list, &specs, honest, seed));
        let sources = [&lists[0], &lists[1]].map(|list| read_source(&arena, list.as_bytes()).unwrap());
        prop_assert_eq!(sources[0], sources[1]);
        // What is wrong first depends on where a reader begins; whether anything is does not.
        prop_assert_eq!(infos[0].is_ok(), infos[1].is_ok(), "{:?}", texts);
        if let [Ok(one), Ok(other)] = &infos {
            prop_assert_eq!(one.types, other.types);
            prop_assert_eq!(reasons(&sources[0], &one.types[0]), reasons(&sources[1], &other.types[0]));
            prop_assert_eq!(steps(&one.types[0], &sources[0]), steps(&other.types[0], &sources[1]));
            // And what is printed is read as the same, in any order.
            let printed = print(one);
            let sorted = text(&serde_json::from_str(&printed).unwrap(), seed);
            let again = read_info(&arena, sorted.as_bytes());
            prop_assert!(again.is_ok(), "{}: {printed}", again.unwrap_err());
            prop_assert_eq!(print(&again.unwrap()), printed);
        }
    }
}
