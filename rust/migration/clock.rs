// SPDX-License-Identifier: GPL-2.0 OR MIT

//! A device's own time, which stands still while the device does.
//!
//! A device that is stopped, or being loaded, does not grow older: what it waits for is as far away when it goes on as it was when
//! it was stopped. So its clock is not the system's. It is the system's less all the time for which the device did not run.

/// A clock that can be stopped.
///
/// It is told the system's time, in nanoseconds of a clock that does not run backwards, and gives the device's: nanoseconds for
/// which the device has run. A system's time that is earlier than one told before counts as that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// What the clock showed when it was last started or stopped.
    shown_ns: u64,
    /// The system's time at which it was started; `None` while it stands still.
    started_ns: Option<u64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that shows 0 and stands still.
    pub const fn new() -> Self {
        Self {
            shown_ns: 0,
            started_ns: None,
        }
    }

    /// Whether it runs.
    pub const fn is_running(&self) -> bool {
        self.started_ns.is_some()
    }

    /// What it shows at this time of the system.
    pub const fn at(&self, system_ns: u64) -> u64 {
        match self.started_ns {
            Some(started_ns) => self
                .shown_ns
                .saturating_add(system_ns.saturating_sub(started_ns)),
            None => self.shown_ns,
        }
    }

    /// Starts it. One that runs goes on.
    pub const fn start(&mut self, system_ns: u64) {
        if self.started_ns.is_none() {
            self.started_ns = Some(system_ns);
        }
    }

    /// Stops it. One that stands still stays as it is.
    pub const fn stop(&mut self, system_ns: u64) {
        self.shown_ns = self.at(system_ns);
        self.started_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_how_long_it_ran() {
        let mut clock = Clock::new();
        assert_eq!(clock.at(1_000), 0);
        clock.start(1_000);
        assert_eq!(clock.at(1_000), 0);
        assert_eq!(clock.at(1_250), 250);
        clock.stop(1_300);
        assert_eq!(clock.at(1_300), 300);
        assert_eq!(clock.at(9_000), 300);
        clock.start(10_000);
        assert_eq!(clock.at(10_007), 307);
    }

    #[test]
    fn no_nanosecond_is_lost_or_invented_by_stops() {
        // Spans in which it runs and stands still, by turns.
        let spans: [(u64, u64); 6] = [
            (1, 1),
            (0, 5),
            (7, 0),
            (0, 0),
            (u32::MAX as u64, 1 << 40),
            (13, 60_000_000_000),
        ];
        let mut clock = Clock::new();
        let (mut system, mut ran) = (123_456_789, 0);
        for (running, standing) in spans {
            clock.start(system);
            system += running;
            ran += running;
            assert_eq!(clock.at(system), ran);
            clock.stop(system);
            system += standing;
            assert_eq!(clock.at(system), ran);
        }
    }

    #[test]
    fn starting_and_stopping_twice_changes_nothing() {
        let mut clock = Clock::new();
        clock.start(100);
        clock.start(200);
        assert_eq!(clock.at(300), 200);
        clock.stop(300);
        clock.stop(400);
        assert_eq!(clock.at(500), 200);
    }

    #[test]
    fn a_system_that_steps_back_does_not_turn_it_back() {
        let mut clock = Clock::new();
        clock.start(1_000);
        assert_eq!(clock.at(900), 0);
        clock.stop(900);
        clock.start(800);
        assert_eq!(clock.at(810), 10);
    }

    #[test]
    fn it_stops_at_the_end_of_time() {
        let mut clock = Clock::new();
        clock.start(0);
        clock.stop(u64::MAX);
        clock.start(0);
        assert_eq!(clock.at(5), u64::MAX);
    }
}
