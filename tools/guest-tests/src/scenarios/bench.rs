// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Our card and the kernel's C sample mtty, measured in pairs: both do the same in turn, in the same machine, and each pair gives
//! a ratio. What slows the machine down slows both halves of a pair, so the ratios say more than the times do.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::cards::Driver;
use super::smooth::compared;
use crate::mdev::Mdev;
use crate::vfio::{Access, Device, State};

/// Pairs of runs of the short measurements.
const SHORT_PAIRS: usize = 21;
/// Register accesses in a run.
const ACCESSES: u32 = 4_000;
/// States saved, and loaded, in a run.
const STATES: u32 = 40;
/// Pairs of live migrations.
const MIGRATIONS: usize = 9;

/// Region of the card's registers, and two of a 16550's registers in it: one that is only looked at, one that only remembers.
const REGISTERS: u32 = 0;
const LINE_STATUS: u64 = 5;
const SCRATCH: u64 = 7;

/// The two, ours first.
const DRIVERS: [Driver; 2] = [Driver::MdevSerial, Driver::Mtty];

/// Measures everything and prints the figures.
pub fn compare() -> Result<()> {
    println!("Medians over pairs of runs, and the ratio mdev_serial / mtty: the median of the pairs' ratios, and the least and");
    println!("the greatest of them. Below 1, mdev_serial needs less. The machine is emulated: times are good for ratios only.\n");
    println!(
        "{:<34} {:>5}  {:>14}  {:>14}   ratio",
        "", "pairs", "mdev_serial", "mtty"
    );

    let instances = DRIVERS.map(|driver| driver.kind(2).and_then(|kind| kind.create()));
    let [ours, sample] = instances;
    let instances = [ours?, sample?];
    short("read of a register, ns", &instances, |instance| {
        let device = open(instance)?;
        let mut byte = [0];
        timed(ACCESSES, || {
            let read = device.read(REGISTERS, LINE_STATUS, black_box(&mut byte));
            ensure!(read? == 1, "a register was not read");
            Ok(())
        })
    })?;
    short("write to a register, ns", &instances, |instance| {
        let device = open(instance)?;
        timed(ACCESSES, || {
            let written = device.write(REGISTERS, SCRATCH, black_box(&[0x5a]));
            ensure!(written? == 1, "a register was not written");
            Ok(())
        })
    })?;
    short("save of the state, ns", &instances, |instance| {
        let device = open(instance)?;
        timed(STATES, || {
            save(&device).map(drop)?;
            Ok(device.switch(State::Running)?)
        })
    })?;
    short("load of the state, ns", &instances, |instance| {
        let device = open(instance)?;
        let state = save(&device)?;
        timed(STATES, || {
            let file = device.start(State::Resuming)?;
            file.write_all(&state, state.len())?;
            Ok(device.switch(State::Running)?)
        })
    })?;
    drop(instances);
    migrations()
}

fn open(instance: &Mdev) -> Result<Device> {
    Access::Group.open(instance)
}

/// Nanoseconds that each of `times` calls takes.
fn timed(times: u32, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..times {
        call()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(times))
}

/// The device's state; the device stands still afterwards.
fn save(device: &Device) -> Result<Vec<u8>> {
    let file = device.start(State::StopCopy)?;
    let state = file.read_all(4096)?;
    ensure!(!state.is_empty(), "the device has no state");
    Ok(state)
}

/// Runs one measurement of both cards in turn.
fn short(name: &str, instances: &[Mdev; 2], run: impl Fn(&Mdev) -> Result<f64>) -> Result<()> {
    let mut pairs = Pairs::default();
    for pair in 0..SHORT_PAIRS {
        pairs.add(pair, |driver| {
            run(&instances[driver]).with_context(|| format!("{name}, {:?}", DRIVERS[driver]))
        })?;
    }
    pairs.row(name);
    Ok(())
}

/// Live migrations of a guest at work, as QEMU measured them.
fn migrations() -> Result<()> {
    let (mut total, mut downtime, mut state) =
        (Pairs::default(), Pairs::default(), Pairs::default());
    for pair in 0..MIGRATIONS {
        let mut measured = [None, None];
        for driver in order(pair) {
            let name = format!("{:?}-{}", DRIVERS[driver], pair + 1);
            let once = compared(&name, DRIVERS[driver]).context(name)?;
            measured[driver] = Some(once);
        }
        let [Some(ours), Some(sample)] = measured else {
            continue;
        };
        total.push([ours.total as f64, sample.total as f64]);
        downtime.push([ours.downtime as f64, sample.downtime as f64]);
        state.push([ours.device as f64, sample.device as f64]);
    }
    total.row("live migration, total, ms");
    downtime.row("live migration, downtime, ms");
    state.row("live migration, device state, bytes");
    Ok(())
}

/// Who comes first takes turns.
fn order(pair: usize) -> [usize; 2] {
    [pair % 2, (pair + 1) % 2]
}

/// Figures of pairs of runs, ours first.
#[derive(Debug, Default)]
struct Pairs(Vec<[f64; 2]>);

impl Pairs {
    fn add(&mut self, pair: usize, mut run: impl FnMut(usize) -> Result<f64>) -> Result<()> {
        let mut figures = [0.0; 2];
        for driver in order(pair) {
            figures[driver] = run(driver)?;
        }
        self.push(figures);
        Ok(())
    }

    fn push(&mut self, figures: [f64; 2]) {
        self.0.push(figures);
    }

    fn row(&self, name: &str) {
        let ratio = Spread::of(self.0.iter().map(|[ours, sample]| ours / sample));
        let median =
            |driver: usize| Spread::of(self.0.iter().map(|figures| figures[driver])).median;
        println!(
            "{name:<34} {:>5}  {:>14.0}  {:>14.0}   {:.2} ({:.2} to {:.2})",
            self.0.len(),
            median(0),
            median(1),
            ratio.median,
            ratio.least,
            ratio.greatest
        );
    }
}

/// Where figures lie.
#[derive(Debug, PartialEq)]
struct Spread {
    least: f64,
    median: f64,
    greatest: f64,
}

impl Spread {
    /// Of at least one figure; the median of an even number of figures is the mean of the two in the middle.
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let (last, middle) = (sorted.len() - 1, sorted.len() / 2);
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Self {
            least: sorted[0],
            median,
            greatest: sorted[last],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_figures_in_any_order() {
        let odd = Spread::of([3.0, 1.0, 2.0].into_iter());
        let expected = Spread {
            least: 1.0,
            median: 2.0,
            greatest: 3.0,
        };
        assert_eq!(odd, expected);
        let even = Spread::of([4.0, 1.0, 2.0, 8.0].into_iter());
        assert_eq!((even.least, even.median, even.greatest), (1.0, 3.0, 8.0));
    }

    #[test]
    fn the_first_of_a_pair_changes_from_pair_to_pair() {
        assert_eq!([order(0), order(1), order(2)], [[0, 1], [1, 0], [0, 1]]);
    }

    #[test]
    fn a_pair_has_ours_first_whoever_ran_first() {
        let mut pairs = Pairs::default();
        for pair in 0..2 {
            pairs.add(pair, |driver| Ok(driver as f64 + 1.0)).unwrap();
        }
        assert_eq!(pairs.0, [[1.0, 2.0], [1.0, 2.0]]);
    }
}
