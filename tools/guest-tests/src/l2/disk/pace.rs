// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A rate that a writer keeps to.

use std::time::{Duration, Instant};

/// How far a writer that was late may catch up: what it could not do for longer is not done.
const CATCH_UP: Duration = Duration::from_millis(200);

/// When the next piece is to be written.
pub struct Pace {
    interval: Duration,
    due: Instant,
}

impl Pace {
    /// A piece each `interval`, the first at `now`.
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, due: now }
    }

    /// For how long nothing is to be written.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        let left = self.due.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// A piece was written.
    pub fn done(&mut self, now: Instant) {
        let next = self.due + self.interval;
        self.due = now
            .checked_sub(CATCH_UP)
            .map_or(next, |since| next.max(since));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PIECE: Duration = Duration::from_millis(100);

    /// Pieces written by somebody who looks every `every`, in a second that begins at `from`.
    fn pieces(pace: &mut Pace, from: Instant, every: Duration) -> u32 {
        let (mut now, mut pieces) = (from, 0);
        while now < from + SECOND {
            while pace.wait(now).is_none() {
                pace.done(now);
                pieces += 1;
            }
            now += every;
        }
        pieces
    }

    #[test]
    fn a_late_look_costs_no_piece() {
        let start = Instant::now();
        for every in [1, 30, 70] {
            let mut pace = Pace::new(PIECE, start);
            let every = Duration::from_millis(every);
            assert_eq!(pieces(&mut pace, start, every), 10, "{every:?}");
        }
    }

    #[test]
    fn what_was_missed_for_long_is_not_caught_up_with() {
        let start = Instant::now();
        let mut pace = Pace::new(PIECE, start);
        // The one that it was late with, two for the time that may be caught up with, and the one that is due.
        assert_eq!(pieces(&mut pace, start + 60 * SECOND, SECOND), 4);
    }
}
