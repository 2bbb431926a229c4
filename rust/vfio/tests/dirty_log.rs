// SPDX-License-Identifier: GPL-2.0

//! KUnit: the log of what a device wrote.

use crate::dirty_log::{DirtyLog, Range, PAGE_BYTES, WORDS};
use kernel::prelude::*;

/// What one chunk is about, in bytes.
const CHUNK: u64 = WORDS as u64 * 64 * PAGE_BYTES;

/// A log of these ranges, each by its start and length.
fn log(ranges: &[(u64, u64)]) -> Result<DirtyLog> {
    let mut list = KVec::new();
    for (first, length) in ranges {
        list.push(Range::new(*first, *length)?, GFP_KERNEL)?;
    }
    DirtyLog::new(PAGE_BYTES, list)
}

fn mark(log: &mut DirtyLog, first: u64, length: u64) -> Result {
    log.mark(Range::new(first, length)?);
    Ok(())
}

/// Takes out what a report of a range would tell, as starts and lengths.
fn report(log: &mut DirtyLog, first: u64, length: u64) -> Result<KVec<(u64, u64)>> {
    let asked = Range::new(first, length)?;
    let mut told = KVec::new();
    let mut tell =
        |range: Range| told.push((range.first, range.last - range.first + 1), GFP_KERNEL);
    if let Some(range) = log.take_rest(asked) {
        tell(range)?;
    }
    let mut words = KVec::from_elem(0u64, WORDS, GFP_KERNEL)?;
    let words: &mut [u64; WORDS] = words.first_chunk_mut().ok_or(ENOMEM)?;
    let mut left = Some(asked);
    while let Some(asked) = left {
        let Some(taken) = log.take_chunk(asked, words) else {
            break;
        };
        for range in taken.ranges(words) {
            tell(range)?;
        }
        left = asked.after(taken.within);
    }
    Ok(told)
}

#[kunit_tests(rust_vfio_dirty_log)]
mod cases {
    use super::*;

    #[test]
    fn a_log_reports_only_what_its_ranges_cover() -> Result {
        let log = log(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x8000, 0x1000)])?;
        let covers = |first, length| log.covers(Range::new(first, length)?);
        assert_eq!(covers(0x1000, 0x2000), Ok(()));
        assert_eq!(covers(0x2fff, 1), Ok(()));
        assert_eq!(covers(0x2000, 0x7000), Err(EINVAL));
        assert_eq!(covers(0x0fff, 2), Err(EINVAL));
        assert_eq!(covers(0x1000, 0), Err(EINVAL));
        assert_eq!(covers(u64::MAX, 2), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn a_log_needs_a_real_page_size_and_ranges() -> Result {
        for page_size in [0, 1, 2048, 4097] {
            let mut ranges = KVec::new();
            ranges.push(Range::new(0, 0x1000)?, GFP_KERNEL)?;
            assert_eq!(DirtyLog::new(page_size, ranges).err(), Some(EINVAL));
        }
        assert_eq!(DirtyLog::new(4096, KVec::new()).err(), Some(EINVAL));
        Ok(())
    }

    #[test]
    fn pages_that_were_written_are_told_once() -> Result {
        let mut log = log(&[(0, 1 << 40)])?;
        mark(&mut log, 0x5fff, 2)?;
        mark(&mut log, 0x9000, 1)?;
        mark(&mut log, 3 * CHUNK + 0x1000, 0x1000)?;
        let told = report(&mut log, 0, 1 << 40)?;
        let expected = [
            (0x5000, 0x2000),
            (0x9000, 0x1000),
            (3 * CHUNK + 0x1000, 0x1000),
        ];
        assert_eq!(&*told, &expected);
        assert!(report(&mut log, 0, 1 << 40)?.is_empty());
        Ok(())
    }

    #[test]
    fn what_was_not_asked_for_stays() -> Result {
        let mut log = log(&[(0, 1 << 40)])?;
        mark(&mut log, 0x3000, 0x3000)?;
        assert_eq!(&*report(&mut log, 0x4000, 0x1000)?, &[(0x4000, 0x1000)]);
        // Half a page is told, and can be asked for again with the other half.
        assert_eq!(&*report(&mut log, 0x3800, 0x800)?, &[(0x3800, 0x800)]);
        let told = report(&mut log, 0, 1 << 40)?;
        assert_eq!(&*told, &[(0x3000, 0x1000), (0x5000, 0x1000)]);
        Ok(())
    }

    #[test]
    fn a_write_over_the_end_of_a_chunk_is_told_whole() -> Result {
        let mut log = log(&[(0, 1 << 40)])?;
        mark(&mut log, CHUNK - 0x2000, 0x5000)?;
        let told = report(&mut log, 0, 1 << 40)?;
        assert_eq!(&*told, &[(CHUNK - 0x2000, 0x2000), (CHUNK, 0x3000)]);
        Ok(())
    }

    #[test]
    fn only_what_is_in_a_range_is_logged() -> Result {
        let mut log = log(&[(0x2000, 0x2000), (0x8000, 0x1000)])?;
        mark(&mut log, 0, 0x10_0000)?;
        assert_eq!(&*report(&mut log, 0x2000, 0x2000)?, &[(0x2000, 0x2000)]);
        assert_eq!(&*report(&mut log, 0x8000, 0x1000)?, &[(0x8000, 0x1000)]);
        mark(&mut log, 0x5000, 0x1000)?;
        assert!(report(&mut log, 0, 1 << 30)?.is_empty());
        Ok(())
    }

    #[test]
    fn the_ends_of_the_address_space_are_pages_like_others() -> Result {
        let top = 1u64 << 63;
        let mut log = log(&[(0, top)])?;
        mark(&mut log, 0, 1)?;
        mark(&mut log, top - 1, 1)?;
        mark(&mut log, u64::MAX - 4095, 4096)?;
        let told = report(&mut log, 0, top)?;
        assert_eq!(&*told, &[(0, 0x1000), (top - 0x1000, 0x1000)]);
        Ok(())
    }

    #[test]
    fn without_memory_too_much_is_told_and_nothing_lost() -> Result {
        let mut log = log(&[(0, 1 << 40)])?;
        mark(&mut log, 0x7000, 0x1000)?;
        let none = || Err(ENOMEM);
        log.mark_with(Range::new(2 * CHUNK + 0x3000, 0x2000)?, none);
        log.mark_with(Range::new(5 * CHUNK, 1)?, none);
        // The first chunk is there, and needs none.
        log.mark_with(Range::new(0x9000, 1)?, none);
        let between = (2 * CHUNK + 0x3000, 3 * CHUNK - 0x3000 + 0x1000);
        assert_eq!(
            &*report(&mut log, 0, 2 * CHUNK)?,
            &[(0x7000, 0x1000), (0x9000, 0x1000)]
        );
        // Taken from its ends, and told whole while only its middle was.
        let middle = (3 * CHUNK, CHUNK);
        assert_eq!(&*report(&mut log, middle.0, middle.1)?, &[middle]);
        assert_eq!(&*report(&mut log, middle.0, middle.1)?, &[middle]);
        assert_eq!(
            &*report(&mut log, 0, 3 * CHUNK)?,
            &[(between.0, 3 * CHUNK - between.0)]
        );
        let rest = report(&mut log, 0, 1 << 40)?;
        assert_eq!(&*rest, &[(3 * CHUNK, between.0 + between.1 - 3 * CHUNK)]);
        assert!(report(&mut log, 0, 1 << 40)?.is_empty());
        Ok(())
    }
}
