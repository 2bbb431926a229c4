// SPDX-License-Identifier: GPL-2.0 OR MIT

//! DMA logging: for which ranges of I/O virtual addresses the writes of a device are logged, and what is refused.
//!
//! What a device wrote is its own business. Who keeps a log keeps the ranges in memory of his, in whatever holds a slice.

use core::fmt;
use core::ops::Deref;

/// Smallest page that a log can be asked for, in bytes.
pub const MIN_PAGE: u64 = 4096;

/// Why there is no log, or no report. For EINVAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogError {
    /// The page size is not a power of two, or below [`MIN_PAGE`].
    PageSize(u64),
    /// No range is to be logged.
    NoRange,
    /// A range has no bytes, or goes beyond the last address.
    Range,
    /// The ranges overlap, or are not in ascending order.
    Order,
    /// Something was asked for that is not logged.
    NotLogged,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageSize(size) => write!(f, "{size} is not the size of pages that are logged"),
            Self::NoRange => f.write_str("no range is to be logged"),
            Self::Range => f.write_str("a range to be logged has no end, or no bytes"),
            Self::Order => f.write_str("the ranges to be logged overlap"),
            Self::NotLogged => f.write_str("the range is not logged"),
        }
    }
}

/// A range of I/O virtual addresses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first address.
    pub first: u64,
    /// The last one, which is not below it.
    pub last: u64,
}

impl Range {
    /// The range of `length` bytes from `first`.
    pub fn new(first: u64, length: u64) -> Result<Self, LogError> {
        let last = length.checked_sub(1).ok_or(LogError::Range)?;
        let last = first.checked_add(last).ok_or(LogError::Range)?;
        Ok(Self { first, last })
    }
}

/// Whether pages of this size can be logged.
pub const fn check_page_size(size: u64) -> Result<(), LogError> {
    match size.is_power_of_two() && size >= MIN_PAGE {
        true => Ok(()),
        false => Err(LogError::PageSize(size)),
    }
}

/// A log that is on.
#[derive(Clone, Debug)]
pub struct Log<R> {
    /// In ascending order and without overlap; `None` if it is of the whole address space.
    ranges: Option<R>,
}

impl<R: Deref<Target = [Range]>> Log<R> {
    /// A log of these ranges, which are in ascending order.
    pub fn new(page_size: u64, ranges: R) -> Result<Self, LogError> {
        check_page_size(page_size)?;
        if ranges.is_empty() {
            return Err(LogError::NoRange);
        }
        // One that has the last address could as well be one without bytes at address 0, to those who count in its last one.
        let backwards = |range: &Range| range.last < range.first || range.last == u64::MAX;
        if ranges.iter().any(backwards) {
            return Err(LogError::Range);
        }
        let mut pairs = ranges.iter().zip(ranges.iter().skip(1));
        if pairs.any(|(range, next)| next.first <= range.last) {
            return Err(LogError::Order);
        }
        Ok(Self {
            ranges: Some(ranges),
        })
    }

    /// A log of the whole address space.
    pub fn of_everything(page_size: u64) -> Result<Self, LogError> {
        check_page_size(page_size)?;
        Ok(Self { ranges: None })
    }

    /// Whether every byte of the range is logged.
    pub fn covers(&self, asked: Range) -> Result<(), LogError> {
        let Some(ranges) = &self.ranges else {
            return Ok(());
        };
        let mut next = asked.first;
        for range in ranges.iter() {
            if next < range.first {
                break;
            }
            if asked.last <= range.last {
                return Ok(());
            }
            if next <= range.last {
                // Below `asked.last`, so this does not wrap. A range that follows without a gap goes on here.
                next = range.last + 1;
            }
        }
        Err(LogError::NotLogged)
    }

    /// Whether some byte of the range is logged.
    pub fn meets(&self, asked: Range) -> bool {
        let Some(ranges) = &self.ranges else {
            return true;
        };
        let next = ranges.partition_point(|range| range.last < asked.first);
        ranges
            .get(next)
            .is_some_and(|range| range.first <= asked.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const PAGE: u64 = 4096;

    fn range(first: u64, length: u64) -> Range {
        Range::new(first, length).expect("a range")
    }

    #[test]
    fn a_range_has_bytes_and_an_end() {
        assert_eq!(range(5, 1), Range { first: 5, last: 5 });
        assert_eq!(range(u64::MAX, 1).last, u64::MAX);
        assert_eq!(range(1, u64::MAX).last, u64::MAX);
        for (first, length) in [(0, 0), (u64::MAX, 2), (2, u64::MAX), (u64::MAX, u64::MAX)] {
            assert_eq!(Range::new(first, length), Err(LogError::Range));
        }
    }

    #[test]
    fn what_makes_no_sense_is_not_logged() {
        let some = || vec![range(0, PAGE)];
        for size in [0, 1, 3, PAGE - 1, PAGE / 2, PAGE + 1, u64::MAX] {
            let wanted = Err(LogError::PageSize(size));
            assert_eq!(Log::new(size, some()).map(drop), wanted);
            assert_eq!(Log::<Vec<Range>>::of_everything(size).map(drop), wanted);
        }
        for size in [PAGE, 1 << 63] {
            assert!(Log::new(size, some()).is_ok());
        }
        let refused = |ranges: &[Range]| Log::new(PAGE, ranges.to_vec()).map(drop);
        assert_eq!(refused(&[]), Err(LogError::NoRange));
        let everything = Range {
            first: 0,
            last: u64::MAX,
        };
        let backwards = Range { first: 2, last: 1 };
        for bad in [everything, backwards] {
            assert_eq!(refused(&[range(0, 1), bad]), Err(LogError::Range));
        }
        for (first, second) in [((0, 10), (9, 5)), ((20, 5), (0, 5)), ((4, 4), (4, 4))] {
            let ranges = [range(first.0, first.1), range(second.0, second.1)];
            assert_eq!(refused(&ranges), Err(LogError::Order));
        }
        assert_eq!(refused(&[range(0, 10), range(10, 5)]), Ok(()));
    }

    #[test]
    fn a_report_is_of_what_is_logged() {
        let log = Log::new(PAGE, vec![range(100, 10), range(110, 10), range(130, 10)]);
        let log = log.expect("a log");
        for (first, length, is_covered) in [
            (100, 1, true),
            (100, 20, true),
            (105, 10, true),
            (119, 1, true),
            (130, 10, true),
            (99, 2, false),
            (100, 21, false),
            (119, 12, false),
            (120, 1, false),
            (135, 6, false),
            (u64::MAX, 1, false),
        ] {
            let found = log.covers(range(first, length));
            assert_eq!(found.is_ok(), is_covered, "{first}+{length}");
        }
        for (first, length, is_met) in [
            (100, 1, true),
            (119, 1, true),
            (90, 11, true),
            (0, 1000, true),
            (139, 50, true),
            (120, 11, true),
            (90, 10, false),
            (120, 10, false),
            (140, 1, false),
            (u64::MAX, 1, false),
        ] {
            let found = log.meets(range(first, length));
            assert_eq!(found, is_met, "{first}+{length}");
        }
        let log = Log::<Vec<Range>>::of_everything(PAGE).expect("a log");
        assert_eq!(log.covers(range(u64::MAX, 1)), Ok(()));
        assert!(log.meets(range(u64::MAX, 1)));
    }
}
