// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How many candidates `select` reads and judges in a second: documents as drivers print them, as JSON lines, on one core.

use std::time::Instant;

use migration::info::{MigrationInfo, ParameterList};
use migration::model::{Allowed, IntRange, Model, ParamDef, Requirement, Type, Version};
use migration::value::{Kind, Param, Value};
use vfio_migrate::json::{read_source, Bump};
use vfio_migrate::select::{Selection, Verdict};

/// Candidates of a measurement.
const CANDIDATES: usize = 100_000;
/// Measurements, of which the middle one counts.
const TIMES: usize = 5;
/// Numbers of ports that candidates offer, in turn. The source has 4.
const PORTS: [u64; 4] = [1, 2, 4, 8];

/// What candidate `number` offers: six parameters and two versions.
fn candidate(number: usize) -> String {
    let most = PORTS[number % PORTS.len()];
    let ports = [IntRange::new(1, most)];
    let param = |name, kind, allowed, init| ParamDef {
        kind,
        allowed,
        description: "what it is for, in a few words",
        ..ParamDef::new(name, init)
    };
    let switches = Allowed::Bool(&[false, true]);
    let (two_or_more, depths) = (
        [IntRange::new(2, 64)],
        [IntRange::one(16), IntRange::one(64)],
    );
    let needs_two = [Requirement {
        param: "num-ports",
        allowed: Allowed::Int(&two_or_more),
    }];
    let params = [
        param("num-ports", Kind::Int, Allowed::Int(&ports), Value::Int(1)),
        param(
            "fifo-depth",
            Kind::Int,
            Allowed::Int(&depths),
            Value::Int(16),
        ),
        param("msi", Kind::Bool, switches, Value::Bool(true)),
        ParamDef {
            off: Some(Value::Bool(false)),
            requires: &needs_two,
            ..param("multi-queue", Kind::Bool, switches, Value::Bool(false))
        },
        param(
            "label",
            Kind::Str,
            Allowed::Str(&["plain", "höher"]),
            Value::Str("plain"),
        ),
        param("buffer", Kind::Int, Allowed::Any, Value::Int(4096)),
    ];
    let bundle = |msi| {
        [Param {
            name: "msi",
            value: Value::Bool(msi),
        }]
    };
    let (first, second) = (bundle(false), bundle(true));
    let versions = [("v1", &first), ("v2", &second)].map(|(name, values)| Version { name, values });
    let model = Model {
        name: "example.org/pci/card",
        params: &params,
        versions: &versions,
        init_version: Some("v2"),
    };
    MigrationInfo {
        generation: Some(&format!("{number:x}")),
        types: &[Type::of(&model)],
    }
    .to_string()
    .replace('\n', " ")
}

fn main() {
    let arena = Bump::new();
    let params = [
        ("num-ports", Value::Int(4)),
        ("fifo-depth", Value::Int(64)),
        ("msi", Value::Bool(true)),
        ("multi-queue", Value::Bool(true)),
        ("label", Value::Str("plain")),
        ("buffer", Value::Int(8192)),
    ]
    .map(|(name, value)| Param { name, value });
    let list = ParameterList {
        model: "example.org/pci/card",
        params: params.into_iter(),
    }
    .to_string();
    let source = read_source(&arena, list.as_bytes()).expect("the source is not read");
    let mut lines = String::new();
    for number in 0..CANDIDATES {
        lines.push_str(&candidate(number));
        lines.push('\n');
    }
    let mut all = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        let mut selection = Selection::new(&source);
        selection
            .stream("candidates", lines.as_bytes())
            .expect("the candidates are not read");
        let judged = selection.finish();
        all.push(started.elapsed());
        let compatible = judged
            .iter()
            .filter(|judged| matches!(judged.verdict, Verdict::Compatible { .. }))
            .count();
        // Those with 4 and with 8 ports.
        assert_eq!((judged.len(), compatible), (CANDIDATES, CANDIDATES / 2));
    }
    all.sort();
    let middle = all[TIMES / 2].as_secs_f64();
    println!(
        "vfio-migrate select: {CANDIDATES} candidates of {} bytes in {:.0} ms ({:.0} to {:.0}): {:.0} a second",
        lines.len() / CANDIDATES,
        middle * 1e3,
        all[0].as_secs_f64() * 1e3,
        all[TIMES - 1].as_secs_f64() * 1e3,
        CANDIDATES as f64 / middle
    );
}
