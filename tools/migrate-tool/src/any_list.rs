// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Any list against any type: what the check promises, `prepare` keeps, unless the device is open or capacity is lacking.

use anyhow::{ensure, Context, Result};
use guest_tests::ktap::{diagnostic, Suite};
use serde_json::{json, Map, Value as Json};

use crate::capacity::Taken;
use crate::host::{instance, list, name, open, run, unchanged, values, Scratch};

pub fn add(suite: &mut Suite) {
    tests!(
        suite,
        prepare_after_a_positive_check_fails_only_for_want_of_capacity_or_because_it_is_open
    );
}

const TYPES: [&str; 4] = [
    "mdev_serial-1",
    "mdev_serial-2",
    "mdev_serial-4",
    "mdev_serial-any",
];
/// Rounds, and more of them until everything has happened that can.
const ROUNDS: usize = 40;
const MOST_ROUNDS: usize = 120;

/// xorshift64: the same numbers in every run, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[(self.next() % all.len() as u64) as usize]
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.next() % one_in == 0
    }
}

/// A list that is good for the type more often than not.
fn random_list(random: &mut Random, ty: &str) -> Json {
    let mut params = Map::new();
    let own = ty
        .strip_prefix("mdev_serial-")
        .and_then(|ports| ports.parse::<u64>().ok());
    let ports = match (random.next() % 12, own) {
        (0, _) => None,
        (1, _) => Some(json!(3)),
        (2, _) => Some(json!("1")),
        (3, _) | (_, None) => Some(json!(random.one(&[1, 2, 4]))),
        (_, Some(own)) => Some(json!(own)),
    };
    params.extend(ports.map(|ports| ("num-ports".to_string(), ports)));
    if random.chance(2) {
        let depths = [
            json!(64),
            json!(64),
            json!(64),
            json!(16),
            json!(16),
            json!(32),
        ];
        params.insert("fifo-depth".into(), random.one(&depths).clone());
    }
    for switch in ["msi", "compact-state", "auto-flow"] {
        if random.chance(2) {
            let values = [
                json!(true),
                json!(true),
                json!(true),
                json!(false),
                json!(false),
            ];
            params.insert(switch.into(), random.one(&values).clone());
        }
        if random.chance(16) {
            params.insert(switch.into(), json!(1));
        }
    }
    if random.chance(16) {
        params.insert("unheard-of".into(), json!(true));
    }
    Json::Object(params)
}

fn prepare_after_a_positive_check_fails_only_for_want_of_capacity_or_because_it_is_open(
) -> Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let scratch = Scratch::new()?;
    let taken = Taken::new()?;
    let (mut done, mut refused, mut full, mut busy) = (0, 0, 0, 0);
    for round in 0..MOST_ROUNDS {
        if round >= ROUNDS && [done, refused, full, busy].iter().all(|count| *count > 0) {
            break;
        }
        let ty = *random.one(&TYPES);
        let params = random_list(&mut random, ty);
        let card = instance(ty)?;
        let document = scratch
            .with("list.json", list(params.clone()))?
            .display()
            .to_string();
        let what = format!("round {round}: {params} for {ty}");
        let promised = run(["check", &document, &name(&card)])?.status == 0;
        let scarce = random.chance(2);
        if scarce {
            taken.all_but(random.next() as u32 % 3)?;
        }
        let device = if random.chance(4) {
            Some(open(&card)?)
        } else {
            None
        };
        let before = values(&card)?;
        let ran = run(["prepare", &document, &name(&card)])?;
        let is_open = device.is_some();
        drop(device);
        match (promised, ran.status) {
            (true, 0) => {
                done += 1;
                run(["check", &document, &name(&card)])?
                    .expect(0)?
                    .says("and prepared")
                    .context(what)?;
            }
            (true, 1) => {
                if ran.err.contains("EBUSY") {
                    busy += 1;
                    ensure!(is_open, "{what}: busy, but it is not open: {}", ran.err);
                } else {
                    full += 1;
                    ensure!(ran.err.contains("ENOSPC") && scarce, "{what}: {}", ran.err);
                }
                ensure!(
                    ran.err.contains("the instance is as it was"),
                    "{what}: {}",
                    ran.err
                );
                unchanged(&card, &before).context(what)?;
            }
            (false, 1) => {
                refused += 1;
                ensure!(
                    ran.err.contains("nothing was changed"),
                    "{what}: {}",
                    ran.err
                );
                unchanged(&card, &before).context(what)?;
            }
            (_, status) => anyhow::bail!("{what}: exit status {status}: {}", ran.err),
        }
        if scarce {
            taken.give_back()?;
        }
    }
    diagnostic(format!(
        "{done} prepared, {refused} not compatible, {full} without capacity, {busy} open"
    ));
    // All of these have to have happened for the test to mean something.
    for (count, what) in [
        (done, "prepared"),
        (refused, "not compatible"),
        (full, "without capacity"),
        (busy, "open"),
    ] {
        ensure!(count > 0, "no list was {what}");
    }
    Ok(())
}
