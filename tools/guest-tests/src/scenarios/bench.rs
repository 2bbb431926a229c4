// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Live migrations of our card and of the kernel's C sample mtty, measured in pairs: both do the same in turn, in the same machine,
//! and each pair gives a ratio. What slows the machine down slows both halves of a pair, so the ratios say more than the times do.
//! What single operations cost is counted, not timed: see the program `counted`.

use anyhow::{Context, Result};

use super::cards::Driver;
use super::smooth::compared;

/// Pairs of live migrations.
const MIGRATIONS: usize = 10;

/// The two, ours first.
const DRIVERS: [Driver; 2] = [Driver::MdevSerial, Driver::Mtty];

/// Measures everything and prints the figures.
pub fn compare() -> Result<()> {
    println!("Medians over pairs of migrations, and the ratio mdev_serial / mtty: the median of the pairs' ratios, and the least");
    println!("and the greatest of them. Below 1, mdev_serial needs less. The machine is emulated: times are good for ratios only.\n");
    println!(
        "{:<34} {:>5}  {:>14}  {:>14}   ratio",
        "", "pairs", "mdev_serial", "mtty"
    );
    migrations()
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
}
