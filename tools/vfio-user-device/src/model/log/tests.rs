// SPDX-License-Identifier: GPL-2.0 OR MIT

use proptest::prelude::*;

use super::*;

/// No page.
const NONE: [u64; 0] = [];

fn everything() -> WriteLog {
    WriteLog::new(Log::of_everything(PAGE).expect("a log"))
}

fn range(first: u64, length: u64) -> Range {
    Range::new(first, length).expect("a range")
}

/// The bits that are set in what is taken of a range.
fn taken(log: &mut WriteLog, asked: Range, page_size: u64) -> Vec<u64> {
    let pages = (asked.last - asked.first) / page_size + 1;
    let bitmap = log.take(asked, page_size, pages.div_ceil(64) as usize * 8);
    let words = bitmap.chunks_exact(8);
    let words = words.map(|word| u64::from_ne_bytes(word.try_into().expect("eight")));
    let words: Vec<u64> = words.collect();
    (0..words.len() as u64 * 64)
        .filter(|bit| words[(bit / 64) as usize] & (1 << (bit % 64)) != 0)
        .collect()
}

#[test]
fn a_page_is_told_once() {
    let mut log = everything();
    log.mark(3 * PAGE + 4095, 2);
    log.mark(70 * PAGE, 1);
    log.mark(5, 0);
    assert_eq!(taken(&mut log, range(0, 64 * PAGE), PAGE), [3, 4]);
    assert_eq!(taken(&mut log, range(0, 128 * PAGE), PAGE), [70]);
    assert_eq!(taken(&mut log, range(0, 128 * PAGE), PAGE), NONE);
}

#[test]
fn pages_of_the_client_s_may_be_larger_and_begin_anywhere() {
    let mut log = everything();
    log.mark(3 * PAGE, 1);
    log.mark(9 * PAGE, 1);
    assert_eq!(taken(&mut log, range(0, 16 * PAGE), 4 * PAGE), [0, 2]);
    // A page that is in two of the client's, and one that goes beyond what was asked for: told, and told again.
    log.mark(PAGE, 1);
    let odd = range(PAGE + 8, PAGE);
    assert_eq!(taken(&mut log, odd, PAGE), [0]);
    assert_eq!(taken(&mut log, odd, PAGE), [0]);
    assert_eq!(taken(&mut log, range(8, 3 * PAGE), PAGE), [0, 1]);
    assert_eq!(taken(&mut log, range(0, 3 * PAGE), PAGE), NONE);
}

#[test]
fn the_last_page_is_one() {
    let mut log = everything();
    log.mark(u64::MAX, 5);
    let last = range(u64::MAX - 4095, 4096);
    assert_eq!(taken(&mut log, last, PAGE), [0]);
}

#[test]
fn of_what_there_is_no_room_for_too_much_is_told_and_nothing_lost() {
    let mut log = everything();
    let chunk = CHUNK_PAGES * PAGE;
    for n in 0..MAX_CHUNKS as u64 + 4 {
        log.mark(n * chunk, 1);
    }
    assert_eq!(log.chunks.len(), MAX_CHUNKS);
    // Of the four that have no chunk: the first is told alone, a part in the middle stays and is told again, the end is told once.
    let first = MAX_CHUNKS as u64 * chunk;
    assert_eq!(taken(&mut log, range(first, PAGE), PAGE), [0]);
    assert_eq!(taken(&mut log, range(first, PAGE), PAGE), NONE);
    let middle = range(first + chunk, 2 * PAGE);
    assert_eq!(taken(&mut log, middle, PAGE), [0, 1]);
    assert_eq!(taken(&mut log, middle, PAGE), [0, 1]);
    let end = range(first + 3 * chunk, 2 * PAGE);
    assert_eq!(taken(&mut log, end, PAGE), [0]);
    assert_eq!(taken(&mut log, end, PAGE), NONE);
    // Whoever has a chunk still has a page of its own.
    assert_eq!(taken(&mut log, range(chunk, 4 * PAGE), PAGE), [0]);
}

#[test]
fn what_is_not_logged_takes_no_room() {
    let chunk = CHUNK_PAGES * PAGE;
    let logged = vec![range(0, PAGE), range(5 * PAGE, chunk)];
    let mut log = WriteLog::new(Log::new(PAGE, logged).expect("a log"));
    for n in 2..MAX_CHUNKS as u64 + 10 {
        log.mark(n * chunk, 5000);
    }
    assert_eq!(log.chunks.len(), 0);
    assert_eq!(log.rest, None);
    // A write that is half of it logged.
    log.mark(4 * PAGE, 2 * PAGE as usize);
    log.mark(0, PAGE as usize * 3);
    assert_eq!(taken(&mut log, range(0, PAGE), PAGE), [0]);
    assert_eq!(taken(&mut log, range(5 * PAGE, chunk), PAGE), [0]);
    assert_eq!(log.chunks.len(), 0);
}

#[test]
fn what_was_told_makes_room_for_others() {
    let mut log = everything();
    let chunk = CHUNK_PAGES * PAGE;
    for round in 0..3 {
        let first = round * (MAX_CHUNKS as u64) * chunk;
        for n in 0..MAX_CHUNKS as u64 {
            log.mark(first + n * chunk, 1);
        }
        assert_eq!(log.rest, None, "round {round}");
        // All of it, in pages that are as large as a chunk.
        let all = range(first, MAX_CHUNKS as u64 * chunk);
        assert_eq!(taken(&mut log, all, chunk).len(), MAX_CHUNKS);
        assert_eq!(log.chunks.len(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Beside a set of pages, which is what it is.
    #[test]
    fn it_is_a_set_of_pages(steps in proptest::collection::vec((any::<bool>(), 0u64..1 << 17, 1u64..200_000), 1..40)) {
        let base = CHUNK_PAGES * PAGE * 7 - (1 << 28);
        let mut log = everything();
        let mut set = std::collections::BTreeSet::new();
        for (marks, page, length) in steps {
            let first = base + page * PAGE;
            match marks {
                true => {
                    log.mark(first + 17, length as usize);
                    set.extend((first + 17) / PAGE..=(first + 16 + length) / PAGE);
                }
                false => {
                    let pages = length / 16 + 1;
                    let found = taken(&mut log, range(first, pages * PAGE), PAGE);
                    let number = first / PAGE;
                    let wanted: Vec<u64> = set.range(number..number + pages).map(|page| page - number).collect();
                    prop_assert_eq!(found, wanted);
                    set.retain(|page| !(number..number + pages).contains(page));
                    let chunks = set.iter().map(|page| page / CHUNK_PAGES);
                    let chunks: std::collections::BTreeSet<u64> = chunks.collect();
                    prop_assert!(log.chunks.keys().eq(chunks.iter()));
                }
            }
        }
    }
}
