// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Counting what a call costs.
//!
//! In a machine that counts instructions, a nanosecond of its clock is an instruction that it executed. What is read here is how much
//! of that time this thread had: its own instructions and those of the kernel on its behalf, and of an interrupt that came meanwhile,
//! but not what other threads did, nor the time in which all of them waited.
//!
//! A figure is the difference between two loops, of so many calls and of twice as many: what surrounds a loop is in neither. The
//! least of several loops is taken, which no tick of the kernel's timer hit.

use anyhow::Result;
use nix::poll::{poll, PollTimeout};
use nix::sys::time::TimeSpec;
use nix::time::{clock_gettime, ClockId};

/// Loops of each length.
const LOOPS: usize = 9;

/// By how much two loops may differ from what they should, of the whole, and two counts from each other. Those of two runs of the
/// program differ by less than half of a percent.
const TOLERANCE: f64 = 0.02;

/// The same where others have to be waited for between the calls: how they are woken differs a little from count to count.
const SETTLED_TOLERANCE: f64 = 0.05;

/// The same where another process takes turns with this one: who is let go first when one wakes the other differs from loop to loop.
const TURNS_TOLERANCE: f64 = 0.05;

/// Instructions that are no error in any case: reading the clock.
const SLACK: f64 = 2_000.0;

/// Instructions that a loop has at least, so that what surrounds it does not matter.
const WORTH_COUNTING: f64 = 300_000.0;

/// The same where something is done once in several calls, such as work that earlier ones left: a loop has many of that in it, so that
/// one more or less does not matter.
const AMORTIZED: f64 = 6_000_000.0;

/// The same where another process takes turns with this one, or others want the processor besides: a loop is longer than from one tick of
/// the kernel's timer to the next, after which they may take turns in another way.
pub const TURNS: f64 = 12_000_000.0;

/// What a call costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Instructions.
    pub instructions: f64,
    /// By how much a second count differed, of the whole.
    pub spread: f64,
    /// Whether twice as many calls cost twice as much: if not, there is something else in the loop.
    proportional: bool,
    tolerance: f64,
}

impl Figure {
    fn of(counts: [Count; 2], tolerance: f64) -> Self {
        let [first, second] = counts.map(|count| count.of_call);
        let instructions = first.min(second);
        Self {
            instructions,
            spread: (first - second).abs() / instructions,
            proportional: counts.iter().all(|count| count.proportional),
            tolerance,
        }
    }

    /// What is left of it when something else is taken off, which was in each call.
    pub fn less(&self, other: &Self) -> Self {
        let instructions = self.instructions - other.instructions;
        Self {
            instructions,
            spread: self.spread.max(other.spread),
            proportional: self.proportional && other.proportional,
            tolerance: SETTLED_TOLERANCE,
        }
    }

    /// What one of so many units costs, of which each call had all.
    pub fn part(self, units: f64) -> Self {
        Self {
            instructions: self.instructions / units,
            ..self
        }
    }

    /// Why the figure is not to be trusted, if it is not.
    pub fn doubt(&self) -> Option<String> {
        if !self.proportional {
            return Some("twice as many calls do not cost twice as much".to_owned());
        }
        let percent = self.spread * 100.0;
        (self.spread > self.tolerance).then(|| format!("two counts differ by {percent:.1} %"))
    }
}

/// One count.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Count {
    of_call: f64,
    proportional: bool,
}

impl Count {
    /// By a loop of `calls` and one of twice as many.
    fn of_loops(calls: u32, [simple, double]: [f64; 2], tolerance: f64) -> Self {
        Self {
            of_call: (double - simple) / f64::from(calls),
            proportional: (double - 2.0 * simple).abs() <= tolerance * double + SLACK,
        }
    }
}

/// Counts one kind of call, twice.
///
/// # Errors
/// If a call fails.
pub fn count(mut call: impl FnMut() -> Result<()>) -> Result<Figure> {
    let timed = |calls| timed(own_time, calls, &mut call);
    count_timed(timed, 4, WORTH_COUNTING, TOLERANCE)
}

/// Counts one kind of call, twice, each time many of them.
///
/// # Errors
/// If a call fails.
pub fn count_amortized(mut call: impl FnMut() -> Result<()>) -> Result<Figure> {
    let timed = |calls| timed(own_time, calls, &mut call);
    count_timed(timed, 4, AMORTIZED, TOLERANCE)
}

/// Counts one kind of call that this process and another one make together, by a clock of what both had, in loops of `worth`
/// instructions or more.
///
/// # Errors
/// If a call fails.
pub fn count_turns(
    clock: impl Fn() -> Result<f64>,
    worth: f64,
    mut call: impl FnMut() -> Result<()>,
) -> Result<Figure> {
    let timed = |calls| timed(&clock, calls, &mut call);
    count_timed(timed, 4, worth, TURNS_TOLERANCE)
}

/// What is counted only between its start and its end, beside what has to be done before and after it.
pub trait Stretch {
    /// What is ready for it.
    type Ready;

    /// Gets everything ready.
    fn before(&mut self) -> Result<Self::Ready>;
    /// What is counted.
    fn call(&mut self, ready: &mut Self::Ready) -> Result<()>;
    /// Looks at what came of it, and clears up.
    fn after(&mut self, ready: Self::Ready) -> Result<()>;
}

/// Counts the calls of a stretch, twice. What reading the clock costs is in none of them.
///
/// # Errors
/// If a call fails, or what comes before or after it.
pub fn count_stretch(stretch: &mut impl Stretch) -> Result<Figure> {
    let mut clock = f64::INFINITY;
    for _ in 0..LOOPS {
        let start = own_time()?;
        clock = clock.min(own_time()? - start);
    }
    let timed = |calls| {
        let mut sum = 0.0;
        for _ in 0..calls {
            let mut ready = stretch.before()?;
            let start = own_time()?;
            stretch.call(&mut ready)?;
            sum += own_time()? - start - clock;
            stretch.after(ready)?;
        }
        Ok(sum)
    };
    // One can be worth it.
    count_timed(timed, 1, WORTH_COUNTING, TOLERANCE)
}

fn count_timed(
    mut timed: impl FnMut(u32) -> Result<f64>,
    mut calls: u32,
    worth: f64,
    tolerance: f64,
) -> Result<Figure> {
    // What is done once, such as faulting memory in, is not the call.
    while timed(calls)? < worth {
        calls *= 2;
    }
    let mut once = || -> Result<Count> {
        let mut least = [f64::INFINITY; 2];
        for _ in 0..LOOPS {
            for (least, calls) in least.iter_mut().zip([calls, 2 * calls]) {
                *least = least.min(timed(calls)?);
            }
        }
        Ok(Count::of_loops(calls, least, tolerance))
    };
    Ok(Figure::of([once()?, once()?], tolerance))
}

fn timed(
    clock: impl Fn() -> Result<f64>,
    calls: u32,
    call: &mut impl FnMut() -> Result<()>,
) -> Result<f64> {
    let start = clock()?;
    for _ in 0..calls {
        call()?;
    }
    Ok(clock()? - start)
}

/// Lets everybody else do what there is to do.
pub fn settle() -> Result<()> {
    poll(&mut [], PollTimeout::from(1u8))?;
    Ok(())
}

/// How much time this thread had so far, in nanoseconds.
pub fn own_time() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(nanoseconds(time))
}

/// A time as a number of nanoseconds.
pub fn nanoseconds(time: TimeSpec) -> f64 {
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}

/// The exponent `e` of `cost = c * n^e` that fits best, by least squares of the logarithms: 0 for a cost that does not depend on `n`.
pub fn exponent(costs: &[(f64, f64)]) -> f64 {
    let logarithms: Vec<_> = costs.iter().map(|(n, cost)| (n.ln(), cost.ln())).collect();
    let count = logarithms.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logarithms.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let above: f64 = logarithms.iter().map(|(a, b)| (a - x) * (b - y)).sum();
    let below: f64 = logarithms.iter().map(|(a, _)| (a - x).powi(2)).sum();
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_the_difference_and_what_surrounds_a_loop_is_not_in_it() {
        let count = Count::of_loops(1000, [500_100.0, 1_000_100.0], TOLERANCE);
        assert_eq!(count.of_call, 500.0);
        assert!(count.proportional);
    }

    #[test]
    fn a_loop_that_holds_something_else_and_counts_that_differ_are_doubtful() {
        let of = |loops| Count::of_loops(1000, loops, TOLERANCE);
        let figure = |counts| Figure::of(counts, TOLERANCE);
        let good = of([500_000.0, 1_000_000.0]);
        let off = of([510_000.0, 1_022_000.0]);
        let other = of([600_000.0, 1_000_000.0]);
        assert_eq!(figure([good, good]).doubt(), None);
        assert!(figure([good, off]).doubt().is_some());
        assert!(figure([good, other]).doubt().is_some());
    }

    #[test]
    fn the_exponent_is_that_of_the_law() {
        let law = |e: f64| -> Vec<_> {
            (1..50)
                .map(f64::from)
                .map(|n| (n, 7.0 * n.powf(e)))
                .collect()
        };
        for e in [0.0, 0.5, 1.0, 2.0] {
            assert!((exponent(&law(e)) - e).abs() < 1e-9, "{e}");
        }
    }
}
