// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The rate of this processor's time stamp counter, which is that of the machine's.
//!
//! A kernel without better sources measures the counter against an emulated timer. When the host is busy, that goes wrong, by a
//! little (KVM then corrects every guest's clock at each entry, or refuses to) or by a lot (time in the machine flies). So the
//! machine's kernel is told.

use rustix::time::{clock_gettime, ClockId};
use std::time::Duration;

/// The rate of the counter of a machine that counts instructions: it counts the nanoseconds that they take.
pub const COUNTING_KHZ: u64 = 1_000_000;

/// How long to look at the counter. Reading both clocks takes well below a microsecond: the result is good to some parts in a
/// million, where KVM tolerates 250.
const SPAN: Duration = Duration::from_millis(20);

/// Readings that the closest is taken from.
const READINGS: usize = 16;

/// Thousands of counts a second. `None` where the processor has no such counter or the kernel does not trust it.
pub fn tsc_khz() -> Option<u64> {
    let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    // The kernel's own clock is derived from the counter, at the rate that the kernel found: that is what is read back here.
    let source = std::fs::read_to_string(source).ok()?;
    if !["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"].contains(&source.trim()) {
        return None;
    }
    let (counter, time) = both()?;
    // Not a wait for something: the time that passes is what the counts are compared with.
    std::thread::sleep(SPAN);
    let (later_counter, later_time) = both()?;
    rate(
        later_counter.checked_sub(counter)?,
        later_time.checked_sub(time)?,
    )
}

/// Counts in a time, by the thousand and second.
fn rate(counts: u64, time: Duration) -> Option<u64> {
    let khz = u128::from(counts) * 1_000_000 / time.as_nanos().max(1);
    u64::try_from(khz).ok().filter(|khz| *khz > 0)
}

/// The counter, and the kernel's clock at the same time: of several attempts the one that took least.
#[cfg(target_arch = "x86_64")]
fn both() -> Option<(u64, Duration)> {
    // SAFETY: Every x86-64 processor has the instruction, which touches no memory.
    let counter = || unsafe { std::arch::x86_64::_rdtsc() };
    let attempts = (0..READINGS).map(|_| {
        let before = counter();
        // Not adjusted to any other clock while it runs.
        let time = clock_gettime(ClockId::MonotonicRaw);
        let took = counter().wrapping_sub(before);
        let time = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
        (took, before.wrapping_add(took / 2), time)
    });
    let (_, counter, time) = attempts.min_by_key(|(took, ..)| *took)?;
    Some((counter, time))
}

#[cfg(not(target_arch = "x86_64"))]
fn both() -> Option<(u64, Duration)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_counts_by_the_thousand_and_second() {
        assert_eq!(rate(51_922_960, Duration::from_millis(20)), Some(2_596_148));
        assert_eq!(rate(0, Duration::from_millis(20)), None);
        assert_eq!(rate(5, Duration::ZERO), Some(5_000_000));
    }

    #[test]
    fn two_measurements_agree() {
        if let (Some(one), Some(two)) = (tsc_khz(), tsc_khz()) {
            assert!(one.abs_diff(two) * 250 < one, "{one} and {two}");
        }
    }
}
