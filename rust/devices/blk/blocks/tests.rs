// SPDX-License-Identifier: GPL-2.0 OR MIT

use super::*;
use crate::blk::MAX_BLOCKS;
use alloc::boxed::Box;
use core::cell::Cell;
use core::ops::Deref;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

/// How much memory there is, in tables and blocks.
#[derive(Default)]
struct Account {
    tables: Cell<usize>,
    blocks: Cell<usize>,
}

fn take(from: &Cell<usize>) -> Result<(), NoSpace> {
    from.set(from.get().checked_sub(1).ok_or(NoSpace)?);
    Ok(())
}

/// Takes memory from an account, to which it comes back.
#[derive(Clone, Default)]
struct Metered(Rc<Account>);

struct Block {
    bytes: Box<[u8; BLOCK_BYTES]>,
    account: Rc<Account>,
}

impl Deref for Block {
    type Target = [u8; BLOCK_BYTES];

    fn deref(&self) -> &[u8; BLOCK_BYTES] {
        &self.bytes
    }
}

impl DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8; BLOCK_BYTES] {
        &mut self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.account.blocks.set(self.account.blocks.get() + 1);
    }
}

impl Allocator for Metered {
    type Block = Block;
    type Table = Vec<Option<Block>>;

    fn table(&mut self, places: usize) -> Result<Self::Table, NoSpace> {
        take(&self.0.tables)?;
        Ok((0..places).map(|_| None).collect())
    }

    fn block(&mut self) -> Result<Block, NoSpace> {
        take(&self.0.blocks)?;
        Ok(Block {
            bytes: Heap.block()?,
            account: self.0.clone(),
        })
    }
}

/// A medium, and the account that its memory is taken from: so many tables and blocks.
fn metered(count: u32, tables: usize, blocks: usize) -> (Blocks<Metered>, Rc<Account>) {
    let account = Rc::new(Account {
        tables: tables.into(),
        blocks: blocks.into(),
    });
    (Blocks::with(count, Metered(account.clone())), account)
}

fn read(medium: &impl Medium, block: u32, at: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa; len];
    medium.read(block, at, &mut bytes);
    bytes
}

#[test]
fn memory_is_taken_by_the_first_write_only() {
    let (mut medium, account) = metered(MAX_BLOCKS, 1, 2);
    let last = MAX_BLOCKS - 1;
    assert_eq!(read(&medium, last, 5, 7), [0; 7]);
    medium.free(last);
    assert!(!medium.is_allocated(last));
    assert_eq!((account.tables.get(), account.blocks.get()), (1, 2));

    assert_eq!(medium.write(last, BLOCK_BYTES - 1, &[9]), Ok(()));
    assert_eq!((account.tables.get(), account.blocks.get()), (0, 1));
    assert_eq!(medium.write(last, 0, &[8]), Ok(()));
    assert_eq!(account.blocks.get(), 1);
    assert_eq!(read(&medium, last, BLOCK_BYTES - 2, 2), [0, 9]);
    assert!(medium.is_allocated(last) && !medium.is_allocated(0));
    assert_eq!(medium.allocated(), 1);
    drop(medium);
    assert_eq!(account.blocks.get(), 2);
}

#[test]
fn without_memory_a_write_is_refused_until_there_is_some() {
    let (mut medium, account) = metered(4, 0, 0);
    assert_eq!(medium.write(3, 0, &[1]), Err(NoSpace));
    account.tables.set(1);
    assert_eq!(medium.write(3, 0, &[1]), Err(NoSpace));
    assert_eq!((medium.allocated(), medium.is_allocated(3)), (0, false));
    assert_eq!(read(&medium, 3, 0, 1), [0]);

    account.blocks.set(1);
    assert_eq!(medium.write(3, 0, &[1]), Ok(()));
    assert_eq!(medium.write(2, 0, &[2]), Err(NoSpace));
    // One that exists needs none.
    assert_eq!(medium.write(3, 1, &[3]), Ok(()));
    assert_eq!(read(&medium, 3, 0, 3), [1, 3, 0]);
    // What is given back can be had again, for another block.
    medium.free(3);
    assert_eq!(medium.write(2, 0, &[2]), Ok(()));
    assert_eq!(medium.allocated(), 1);
}

#[test]
fn media_are_equal_if_the_same_blocks_exist_and_hold_the_same() {
    let new = || Blocks::with(4, Heap);
    let mut emptied = new();
    emptied.write(1, 0, &[1]).unwrap();
    assert_ne!(emptied, new());
    emptied.free(1);
    assert_eq!(emptied, new());
    assert_ne!(Blocks::with(5, Heap), new());

    let (mut one, mut other) = (new(), new());
    one.write(1, 7, &[0]).unwrap();
    assert_ne!(one, other, "zeroes that exist");
    other.write(1, 9, &[0]).unwrap();
    assert_eq!(one, other);
    other.write(1, 9, &[1]).unwrap();
    assert_ne!(one, other);
    assert_eq!(other.clone(), other);
}

#[test]
fn the_heap_gives_what_is_asked_for_or_says_that_it_cannot() {
    let table = Heap.table(3).expect("a small table");
    assert!(table.len() == 3 && table.iter().all(Option::is_none));
    assert_eq!(*Heap.block().expect("a block"), [0; BLOCK_BYTES]);
    assert_eq!(Heap.table(usize::MAX), Err(NoSpace));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u32, usize, Vec<u8>),
    Free(u32),
    /// So many blocks can be had from now on.
    Have(usize),
}

const COUNT: u32 = 6;

fn any_step() -> impl Strategy<Value = Step> {
    let bytes = prop::collection::vec(any::<u8>(), 0..100);
    prop_oneof![
        6 => (0..COUNT, 0..=BLOCK_BYTES, bytes).prop_map(|(block, at, bytes)| {
            let at = at.min(BLOCK_BYTES - bytes.len());
            Step::Write(block, at, bytes)
        }),
        2 => (0..COUNT).prop_map(Step::Free),
        1 => (0usize..4).prop_map(Step::Have),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_medium_holds_what_was_written_and_takes_as_many_blocks(steps in prop::collection::vec(any_step(), 1..40)) {
        let (mut medium, account) = metered(COUNT, 1, 3);
        let mut model = BTreeMap::<u32, Vec<u8>>::new();
        let mut total = 3;
        for step in steps {
            match step {
                Step::Write(block, at, bytes) => {
                    let fits = model.contains_key(&block) || model.len() < total;
                    prop_assert_eq!(medium.write(block, at, &bytes), if fits { Ok(()) } else { Err(NoSpace) });
                    if fits {
                        let held = model.entry(block).or_insert_with(|| vec![0; BLOCK_BYTES]);
                        held[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                }
                Step::Free(block) => {
                    medium.free(block);
                    model.remove(&block);
                }
                Step::Have(more) => {
                    account.blocks.set(more);
                    total = model.len() + more;
                }
            }
            prop_assert_eq!(medium.allocated() as usize, model.len());
            prop_assert_eq!(account.blocks.get(), total - model.len());
            for block in 0..COUNT {
                let held = model.get(&block);
                prop_assert_eq!(medium.is_allocated(block), held.is_some());
                let expected = held.cloned().unwrap_or_else(|| vec![0; BLOCK_BYTES]);
                prop_assert!(read(&medium, block, 0, BLOCK_BYTES) == expected, "block {}", block);
            }
        }
        drop(medium);
        prop_assert_eq!(account.blocks.get(), total);
    }
}
